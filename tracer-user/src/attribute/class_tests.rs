//! One cluster with every kind of traffic: `tests/data/town.yaml`.

use std::path::Path;

use tracer_policy::model::Protocol;

use super::*;
use crate::decode::{DropReason, Location, TcpFlags};

const NODE_A: &str = "10.42.1.1";
const NODE_B: &str = "10.42.2.1";
const WEB: &str = "10.42.1.20";
const DB: [&str; 2] = ["10.42.1.30", "10.42.2.30"];
const PROMETHEUS: &str = "10.42.2.40";
const TRAEFIK: &str = "10.42.2.50";
const SVCLB: &str = "10.42.2.60";

fn town() -> Attributor {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/town.yaml");
    let loaded = crate::cluster::load(&file).unwrap();
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    Attributor::new("node-a".into(), Some(Arc::new(loaded.cluster)))
}

fn drop_of(town: &Attributor, from: &str, to: &str, port: u16, answer: bool) -> Drop {
    let (source, destination) = ((from, 40000), (to, port));
    let ((from, from_port), (to, to_port), flags) = if answer {
        (destination, source, 18)
    } else {
        (source, destination, 2)
    };
    let raw = RawDrop {
        ktime_ns: 0,
        count: 1,
        reason: DropReason {
            number: 1,
            name: "X".into(),
        },
        location: Location {
            address: 0,
            symbol: None,
        },
        hook: Some(Hook::TcIngress),
        action: None,
        interface: None,
        netns: None,
        mark: 0,
        length: 60,
        flow: Some(Flow {
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
            protocol: Protocol::Tcp,
            source_port: Some(from_port),
            destination_port: Some(to_port),
            tcp_flags: Some(TcpFlags(flags)),
            icmp: None,
        }),
        packet: bytes::Bytes::new(),
    };
    town.attribute(&raw, Timestamp::UNIX_EPOCH)
}

#[test]
fn each_kind_of_traffic_is_told_from_its_neighbours() {
    let town = town();
    for (from, to, port, class) in [
        (PROMETHEUS, WEB, 9102, Class::MetricsScrape),
        (PROMETHEUS, WEB, 9000, Class::MetricsScrape),
        (PROMETHEUS, "192.168.1.101", 10250, Class::MetricsScrape),
        // A port that offers no metrics, and someone who collects none.
        (PROMETHEUS, WEB, 8080, Class::PodToPod),
        (PROMETHEUS, "192.168.1.101", 22, Class::PodToNode),
        (TRAEFIK, WEB, 9102, Class::PodToPod),
        (TRAEFIK, WEB, 8080, Class::IngressController),
        // No Service stands before it.
        (TRAEFIK, DB[0], 5432, Class::PodToPod),
        (SVCLB, WEB, 8080, Class::NodePort),
        (NODE_B, WEB, 8080, Class::NodePort),
        // The pod's own node asks whether it is ready.
        (NODE_A, WEB, 8080, Class::KubeletProbe),
        (NODE_B, WEB, 9000, Class::NodeToPod),
        (SVCLB, WEB, 9000, Class::PodToPod),
        (DB[0], DB[1], 5432, Class::StatefulsetPeer),
        (WEB, DB[1], 5432, Class::PodToPod),
    ] {
        for answer in [false, true] {
            let drop = drop_of(&town, from, to, port, answer);
            assert_eq!(
                drop.class,
                Some(class),
                "{from} → {to}:{port}, answer: {answer}"
            );
        }
    }
}

#[test]
fn hints_and_symptoms_are_right_for_the_class() {
    let town = town();
    let told: Vec<_> = [
        (PROMETHEUS, WEB, 9102),
        (TRAEFIK, WEB, 8080),
        (NODE_B, WEB, 8080),
        (DB[0], DB[1], 5432),
    ]
    .into_iter()
    .map(|(from, to, port)| {
        let drop = drop_of(&town, from, to, port, false);
        (
            drop.class.unwrap().as_str(),
            drop.symptom.unwrap(),
            drop.hint.unwrap(),
        )
    })
    .collect();
    insta::assert_yaml_snapshot!(told);
}
