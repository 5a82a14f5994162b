use std::path::Path;

use tracer_policy::model::Protocol;

use super::*;
use crate::decode::{DropReason, Location, TcpFlags};
use crate::record::{Class, Direction, Grade, PolicyVerdict};

fn attributor() -> Attributor {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incident.yaml");
    let loaded = crate::cluster::load(&file).unwrap();
    Attributor::new("node-a".into(), Some(Arc::new(loaded.cluster)))
}

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

fn tcp(from: (&str, u16), to: (&str, u16), flags: u8) -> Flow {
    Flow {
        source: from.0.parse().unwrap(),
        destination: to.0.parse().unwrap(),
        protocol: Protocol::Tcp,
        source_port: Some(from.1),
        destination_port: Some(to.1),
        tcp_flags: Some(TcpFlags(flags)),
        icmp: None,
    }
}

fn udp(from: (&str, u16), to: (&str, u16)) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        tcp_flags: None,
        ..tcp(from, to, 0)
    }
}

fn raw(flow: Flow, hook: Hook) -> RawDrop {
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
        hook: Some(hook),
        action: None,
        interface: None,
        netns: None,
        mark: 0,
        length: 60,
        flow: Some(flow),
        packet: bytes::Bytes::new(),
    }
}

fn drop_of(flow: Flow, hook: Hook) -> Drop {
    attributor().attribute(&raw(flow, hook), Timestamp::UNIX_EPOCH)
}

#[test]
fn the_incidents_probe() {
    let drop = drop_of(
        tcp(("10.42.1.1", 40000), ("10.42.1.10", 8200), SYN),
        Hook::TcEgress,
    );
    insta::assert_json_snapshot!(drop);
}

#[test]
fn the_incidents_api_server_before_and_after_translation() {
    for (ip, port) in [("192.168.1.100", 6443), ("10.43.0.1", 443)] {
        let drop = drop_of(tcp(("10.42.1.10", 40000), (ip, port), SYN), Hook::TcIngress);
        assert_eq!(drop.class, Some(Class::ApiserverEgress), "{ip}");
        assert_eq!(drop.direction, Some(Direction::Egress));
        let policy = drop.policy.unwrap();
        assert_eq!(
            (policy.verdict, policy.grade),
            (PolicyVerdict::Denied, Grade::Proven)
        );
        assert_eq!(policy.isolating[0].name, "vault-policy");
        assert_eq!(
            drop.hint.unwrap(),
            "allow egress to the API server 192.168.1.100/32 on TCP 6443 (ipBlock)"
        );
        assert_eq!(drop.symptom.unwrap(), "i/o timeout");
    }
    let drop = drop_of(
        tcp(("10.42.1.10", 4), ("10.43.0.1", 443), SYN),
        Hook::TcIngress,
    );
    let service = drop.destination.unwrap().service.unwrap();
    assert_eq!(
        (service.namespace.as_str(), service.name.as_str()),
        ("default", "kubernetes")
    );
}

#[test]
fn another_port_of_the_master_is_not_the_api_server() {
    let drop = drop_of(
        tcp(("10.42.1.10", 4), ("192.168.1.100", 22), SYN),
        Hook::TcIngress,
    );
    assert_eq!(drop.class, Some(Class::PodToNode));
}

#[test]
fn only_the_pods_own_node_at_a_probe_port_is_a_probe() {
    let class = |from: &str, port: u16| {
        drop_of(
            tcp((from, 40000), ("10.42.1.10", port), SYN),
            Hook::TcEgress,
        )
        .class
    };
    assert_eq!(class("10.42.1.1", 8200), Some(Class::KubeletProbe));
    assert_eq!(class("10.10.0.11", 8200), Some(Class::KubeletProbe));
    assert_eq!(class("10.42.1.1", 8201), Some(Class::NodeToPod));
    assert_eq!(
        class("192.168.1.100", 8200),
        Some(Class::NodeToPod),
        "another node"
    );
    assert_eq!(
        class("10.42.0.0", 8200),
        Some(Class::NodeToPod),
        "another node's tunnel"
    );
    assert_eq!(class("203.0.113.9", 8200), Some(Class::External));
}

#[test]
fn dns_by_service_and_by_endpoint() {
    let class = |flow: Flow| drop_of(flow, Hook::TcIngress).class;
    assert_eq!(
        class(udp(("10.42.1.10", 5), ("10.43.0.10", 53))),
        Some(Class::Dns)
    );
    assert_eq!(
        class(udp(("10.42.1.10", 5), ("10.42.1.2", 53))),
        Some(Class::Dns)
    );
    assert_eq!(
        class(tcp(("10.42.1.10", 5), ("10.42.1.2", 53), SYN)),
        Some(Class::Dns)
    );
    assert_eq!(
        class(udp(("10.42.1.10", 5), ("169.254.20.10", 53))),
        Some(Class::Dns)
    );
    assert_eq!(
        class(tcp(("10.42.1.10", 5), ("10.42.1.2", 9153), SYN)),
        Some(Class::PodToPod)
    );
    assert_eq!(
        class(udp(("10.42.1.10", 5), ("8.8.8.8", 53))),
        Some(Class::External)
    );
}

#[test]
fn hints_name_what_a_policy_can_name() {
    let hint = |flow: Flow| drop_of(flow, Hook::TcIngress).hint.unwrap();
    let dns = "allow egress to kube-system/kube-dns on UDP 53 and TCP 53";
    assert_eq!(
        hint(udp(("10.42.1.10", 5), ("10.43.0.10", 53))),
        dns,
        "never the ClusterIP"
    );
    assert_eq!(
        hint(udp(("10.42.1.10", 5), ("10.42.1.2", 53))),
        "allow egress to kube-system/coredns on UDP 53 and TCP 53"
    );
    assert_eq!(
        hint(tcp(("10.42.1.10", 5), ("192.0.2.1", 443), SYN)),
        "allow egress to 192.0.2.1/32 (ipBlock) on TCP 443"
    );
    let ingress = drop_of(
        tcp(("10.42.1.2", 5), ("10.42.1.10", 8200), SYN),
        Hook::TcEgress,
    );
    assert_eq!(
        ingress.hint.unwrap(),
        "allow ingress from kube-system/coredns on TCP 8200"
    );
}

#[test]
fn an_answer_has_the_class_of_its_question_and_is_judged_by_it() {
    let drop = drop_of(
        tcp(("192.168.1.100", 6443), ("10.42.1.10", 40000), SYN_ACK),
        Hook::TcEgress,
    );
    assert_eq!(drop.class, Some(Class::ApiserverEgress));
    assert_eq!(
        drop.direction,
        Some(Direction::Egress),
        "the pod's egress denies the connection"
    );
    // vault-1 answers vault-0 in the middle of a connection that is allowed.
    let drop = drop_of(
        tcp(("10.42.1.11", 8200), ("10.42.1.10", 40000), ACK),
        Hook::TcEgress,
    );
    assert_eq!(drop.policy.unwrap().verdict, PolicyVerdict::Allowed);
}

#[test]
fn what_policies_allow_and_the_node_dropped_is_a_disagreement() {
    let drop = drop_of(
        tcp(("10.42.1.11", 40000), ("10.42.1.10", 8200), SYN),
        Hook::TcEgress,
    );
    let policy = drop.policy.unwrap();
    assert_eq!(
        (policy.verdict, policy.grade),
        (PolicyVerdict::Allowed, Grade::Unexplained)
    );
    assert!(policy.nearest_miss.is_none());
    assert!(drop.hint.unwrap().starts_with("no policy denies this"));
}

#[test]
fn where_no_end_is_a_pod_no_policy_has_a_say() {
    let drop = drop_of(
        tcp(("203.0.113.9", 1), ("192.168.1.100", 22), SYN),
        Hook::Netfilter,
    );
    assert_eq!((drop.policy, drop.class), (None, Some(Class::External)));
    let drop = drop_of(
        tcp(("10.10.0.11", 1), ("192.168.1.100", 22), SYN),
        Hook::Netfilter,
    );
    assert_eq!((drop.policy, drop.class), (None, None));
}

#[test]
fn without_a_cluster_only_addresses_are_told() {
    let flow = tcp(("10.42.1.1", 40000), ("10.42.1.10", 8200), SYN);
    let drop = Attributor::new("n".into(), None)
        .attribute(&raw(flow, Hook::TcEgress), Timestamp::UNIX_EPOCH);
    assert_eq!(drop.source.unwrap().kind, PeerKind::Unknown);
    assert_eq!(
        (drop.class, drop.policy, drop.hint, drop.symptom),
        (None, None, None, None)
    );
    assert_eq!(drop.drop.datapath.as_deref(), Some("tc"));
}

#[test]
fn a_packet_without_a_readable_header_has_no_ends() {
    let mut raw = raw(tcp(("1.1.1.1", 1), ("1.1.1.2", 2), SYN), Hook::Netfilter);
    raw.flow = None;
    let drop = attributor().attribute(&raw, Timestamp::UNIX_EPOCH);
    assert_eq!(
        (drop.source, drop.destination, drop.protocol),
        (None, None, None)
    );
}

#[test]
fn a_record_attributed_again_is_the_same() {
    let drop = drop_of(
        tcp(("10.42.1.1", 40000), ("10.42.1.10", 8200), SYN),
        Hook::TcEgress,
    );
    assert_eq!(attributor().again(&drop), drop);
    // Recorded without a cluster, explained later with one.
    let bare = Attributor::new("node-a".into(), None).attribute(
        &raw(
            tcp(("10.42.1.1", 40000), ("10.42.1.10", 8200), SYN),
            Hook::TcEgress,
        ),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(attributor().again(&bare), drop);
}
