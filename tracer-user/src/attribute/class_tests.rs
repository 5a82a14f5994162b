//! One cluster with every kind of traffic: `tests/data/town.yaml`.

use std::path::Path;

use tracer_policy::model::Protocol;

use super::*;
use crate::decode::{DropReason, Flow, Location, Story, TcpFlags};

const NODE_A: &str = "10.42.1.1";
const NODE_B: &str = "10.42.2.1";
const WEB: &str = "10.42.1.20";
const DB: [&str; 2] = ["10.42.1.30", "10.42.2.30"];
const PROMETHEUS: &str = "10.42.2.40";
const TRAEFIK: &str = "10.42.2.50";
const SVCLB: &str = "10.42.2.60";
/// As seen from another node, through flannel's tunnel.
const MASTER: &str = "10.42.0.0";
const ADMIT: &str = "10.42.2.70";

fn town() -> Attributor {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/town.yaml");
    let loaded = crate::cluster::load(&file).unwrap();
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    Attributor::new("node-a".into(), Some(Arc::new(loaded.cluster)))
}

fn drop_of(town: &mut Attributor, from: &str, to: &str, port: u16, answer: bool) -> Drop {
    let (source, destination) = ((from, 40000), (to, port));
    let raw = if answer {
        raw(destination, source, 18)
    } else {
        raw(source, destination, 2)
    };
    town.attribute(&raw, Timestamp::UNIX_EPOCH)
}

fn drop_at(attributor: &mut Attributor, from: &str, to: &str, port: u16, time: &str) -> Drop {
    let time = format!("2026-01-01T{time}Z").parse().unwrap();
    attributor.attribute(&raw((from, 40000), (to, port), 2), time)
}

fn raw((from, from_port): (&str, u16), (to, to_port): (&str, u16), flags: u8) -> RawDrop {
    RawDrop {
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
        story: Story::default(),
        inner: None,
    }
}

#[test]
fn each_kind_of_traffic_is_told_from_its_neighbours() {
    let mut town = town();
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
        (MASTER, ADMIT, 9443, Class::Webhook),
        (MASTER, ADMIT, 9444, Class::AggregatedApi),
        // K3s may tunnel through the pod's own node; another worker is none of the API server.
        (NODE_B, ADMIT, 9443, Class::Webhook),
        (NODE_A, ADMIT, 9443, Class::NodeToPod),
        (WEB, ADMIT, 9443, Class::PodToPod),
        (MASTER, ADMIT, 9445, Class::NodeToPod),
        (DB[0], DB[1], 5432, Class::StatefulsetPeer),
        (WEB, DB[1], 5432, Class::PodToPod),
        (WEB, "169.254.169.254", 80, Class::CloudMetadata),
        (WEB, "100.100.100.200", 80, Class::CloudMetadata),
        // Azure's host is a DNS server as well.
        (WEB, "168.63.129.16", 80, Class::CloudMetadata),
        (WEB, "168.63.129.16", 53, Class::External),
    ] {
        for answer in [false, true] {
            let drop = drop_of(&mut town, from, to, port, answer);
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
    let mut town = town();
    let told: Vec<_> = [
        (PROMETHEUS, WEB, 9102),
        (TRAEFIK, WEB, 8080),
        (NODE_B, WEB, 8080),
        (DB[0], DB[1], 5432),
        (MASTER, ADMIT, 9443),
        (MASTER, ADMIT, 9444),
    ]
    .into_iter()
    .map(|(from, to, port)| {
        let drop = drop_of(&mut town, from, to, port, false);
        (
            drop.class.unwrap().as_str(),
            drop.symptom.unwrap(),
            drop.hint.unwrap(),
        )
    })
    .collect();
    insta::assert_yaml_snapshot!(told);
}

#[test]
fn an_allowed_packet_of_a_new_pod_is_a_race_until_it_is_old_enough() {
    let text = "
{apiVersion: v1, kind: Namespace, metadata: {name: n}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: n}, spec: {nodeName: node-a, containers: []},
 status: {phase: Running, podIP: 10.42.1.5, startTime: '2026-01-01T00:00:00Z'}}
---
{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: n}, spec: {nodeName: node-a, containers: []},
 status: {phase: Running, podIP: 10.42.1.6, startTime: '2026-01-01T12:00:00Z'}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: n, creationTimestamp: '2026-01-01T13:00:00Z'}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let cluster = Arc::new(crate::cluster::load(&file).unwrap().cluster);
    let mut attributor = Attributor::new("node-a".into(), Some(cluster));
    let mut class = |time: &str| {
        let mut drop = drop_at(&mut attributor, "10.42.1.5", "10.42.1.6", 80, time);
        (drop.class.unwrap(), drop.notes.pop())
    };
    let race = |note: &str| (Class::PolicyRace, Some(note.to_owned()));
    assert_eq!(
        class("12:00:03"),
        race("pod n/new was started 3 s before this drop")
    );
    assert_eq!(class("12:00:10"), (Class::PodToPod, None));
    assert_eq!(
        class("13:00:04"),
        race("policy n/open was created 4 s before this drop")
    );
    assert_eq!(class("13:00:05"), (Class::PodToPod, None));
}

#[test]
fn a_rule_that_denies_by_itself_is_the_culprit() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/town.yaml"))
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    let admin = "
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: no-scraping}
spec:
  priority: 7
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
";
    std::fs::write(&file, text + admin).unwrap();
    let cluster = Arc::new(crate::cluster::load(&file).unwrap().cluster);
    let mut town = Attributor::new("node-a".into(), Some(cluster));
    let drop = drop_of(&mut town, PROMETHEUS, WEB, 9102, false);
    let policy = drop.policy.unwrap();
    assert_eq!(policy.verdict, PolicyVerdict::Denied);
    assert_eq!(
        policy.grade,
        crate::record::Grade::Likely,
        "the hook is the sender's"
    );
    assert!(policy.isolating.is_empty() && policy.nearest_miss.is_none());
    let rule = policy.denied_by.unwrap();
    assert_eq!(
        (
            rule.policy.kind.as_str(),
            rule.policy.name.as_str(),
            rule.rule.as_str()
        ),
        ("AdminNetworkPolicy", "no-scraping", "spec.ingress[0]")
    );
    assert_eq!(
        drop.hint.unwrap(),
        "AdminNetworkPolicy no-scraping denies this by spec.ingress[0]: no NetworkPolicy can override it"
    );
}
