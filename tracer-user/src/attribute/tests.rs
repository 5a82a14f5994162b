use std::path::Path;

use tracer_policy::model::Protocol;

use super::*;
use crate::decode::{Chain, DropReason, Flow, Location, Story, TcpFlags};
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
        story: Story::default(),
        inner: None,
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
fn at_an_uplink_nobody_has_sent_it() {
    // From outside to a pod that nothing isolates.
    let drop = drop_of(
        tcp(("203.0.113.7", 40000), ("10.42.1.2", 8080), SYN),
        Hook::TcIngress,
    );
    let policy = drop.policy.unwrap();
    assert_eq!(policy.verdict, PolicyVerdict::Allowed);
    assert_eq!(policy.direction, Some(Direction::Ingress));
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

fn icmp(from: &str, to: &str, kind: u8) -> Flow {
    Flow {
        protocol: Protocol::Icmp,
        source_port: None,
        destination_port: None,
        tcp_flags: None,
        icmp: Some(Icmp { kind, code: 0 }),
        ..tcp((from, 0), (to, 0), 0)
    }
}

fn judged(drop: &Drop) -> (PolicyVerdict, Grade, Option<Direction>) {
    let policy = drop.policy.as_ref().unwrap();
    (policy.verdict, policy.grade, policy.direction)
}

#[test]
fn an_answer_over_udp_is_judged_by_its_question() {
    // coredns answers vault-0: what denies it is the question, not a missing rule for port 40000.
    let drop = drop_of(
        udp(("10.42.1.2", 53), ("10.42.1.10", 40000)),
        Hook::Netfilter,
    );
    assert_eq!(drop.class, Some(Class::Dns));
    assert_eq!(
        judged(&drop),
        (
            PolicyVerdict::Denied,
            Grade::Likely,
            Some(Direction::Egress)
        )
    );
    assert_eq!(
        drop.hint.unwrap(),
        "allow egress to kube-system/coredns on UDP 53 and TCP 53"
    );
    // Nothing declares the port, but a client's port tells.
    let drop = drop_of(
        udp(("203.0.113.9", 123), ("10.42.1.10", 40000)),
        Hook::Netfilter,
    );
    assert_eq!(judged(&drop).2, Some(Direction::Egress));
    let drop = drop_of(
        udp(("203.0.113.9", 40000), ("10.42.1.10", 123)),
        Hook::Netfilter,
    );
    assert_eq!(
        judged(&drop),
        (
            PolicyVerdict::Denied,
            Grade::Proven,
            Some(Direction::Ingress)
        )
    );
}

#[test]
fn the_middle_of_a_connection_is_read_from_who_listens() {
    // vault-0 answers a probe of its node.
    let drop = drop_of(
        tcp(("10.42.1.10", 8200), ("10.42.1.1", 40000), ACK),
        Hook::TcIngress,
    );
    assert_eq!(drop.class, Some(Class::KubeletProbe));
    assert_eq!(
        judged(&drop),
        (
            PolicyVerdict::Denied,
            Grade::Likely,
            Some(Direction::Ingress)
        )
    );
    assert_eq!(
        drop.hint.unwrap(),
        "allow ingress from the node's own address 10.42.1.1/32 on TCP 8200 (ipBlock)"
    );
    // A connection cut in the middle by a new policy.
    let drop = drop_of(
        tcp(("10.42.1.10", 40000), ("192.168.1.100", 6443), ACK),
        Hook::TcIngress,
    );
    assert_eq!(drop.class, Some(Class::ApiserverEgress));
    assert_eq!(
        judged(&drop),
        (
            PolicyVerdict::Denied,
            Grade::Likely,
            Some(Direction::Egress)
        )
    );
    assert_eq!(drop.symptom.unwrap(), "net/http: TLS handshake timeout");
}

#[test]
fn an_egress_only_policy_is_not_cleared_by_reading_the_packet_backwards() {
    let text = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, status: {podIP: 10.42.1.5, phase: Running}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: no-egress, namespace: n}
  spec: {podSelector: {}, policyTypes: [Egress]}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let cluster = Arc::new(crate::cluster::load(&file).unwrap().cluster);
    let mut attributor = Attributor::new("node-a".into(), Some(cluster));
    let mut drop =
        |flow: Flow| attributor.attribute(&raw(flow, Hook::TcIngress), Timestamp::UNIX_EPOCH);
    let cut = drop(tcp(("10.42.1.5", 40000), ("192.0.2.1", 443), ACK));
    assert_eq!(
        judged(&cut),
        (
            PolicyVerdict::Denied,
            Grade::Likely,
            Some(Direction::Egress)
        )
    );
    let answer = drop(tcp(("10.42.1.5", 8080), ("192.0.2.1", 40000), ACK));
    assert_eq!(judged(&answer).0, PolicyVerdict::Allowed, "ingress is open");
}

#[test]
fn an_address_of_the_pods_range_that_no_pod_has_is_nobodys_fault() {
    // A pod newer than the cluster state: a rule may well select it.
    let drop = drop_of(
        tcp(("10.42.1.77", 40000), ("10.42.1.10", 8200), SYN),
        Hook::TcEgress,
    );
    assert_eq!(drop.source.as_ref().unwrap().kind, PeerKind::Unknown);
    assert_eq!(drop.class, None);
    assert_eq!(
        judged(&drop),
        (
            PolicyVerdict::Denied,
            Grade::Likely,
            Some(Direction::Ingress)
        )
    );
    assert!(
        drop.hint
            .unwrap()
            .contains("no pod known here has 10.42.1.77")
    );
    // And it may be isolated: no disagreement either.
    let drop = drop_of(
        tcp(("10.42.1.2", 40000), ("10.42.1.77", 8200), SYN),
        Hook::TcEgress,
    );
    assert_eq!(drop.policy.unwrap().verdict, PolicyVerdict::Unknown);
}

#[test]
fn who_follows_the_cluster_is_not_told_to_refresh_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incident.yaml");
    let cluster = crate::cluster::load(&file).unwrap().cluster;
    let mut live = Attributor::live("node-a".into(), cluster, true);
    let mut given = attributor();
    let flow = || tcp(("10.42.1.77", 40000), ("10.42.1.10", 8200), SYN);
    for (attributor, refresh) in [(&mut live, false), (&mut given, true)] {
        let drop = attributor.attribute(&raw(flow(), Hook::TcEgress), Timestamp::UNIX_EPOCH);
        let hint = drop.hint.unwrap();
        assert_eq!(hint.contains("refresh --cluster"), refresh, "{hint}");
    }
}

#[test]
fn a_pod_out_of_a_pool_that_no_node_names_is_resolved_late_too() {
    let text = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-a}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, status: {podIP: 172.16.5.65, phase: Running}}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let cluster = Arc::new(crate::cluster::load(&file).unwrap().cluster);
    let attributor = Attributor::new("node-a".into(), Some(cluster));
    let known = |from: &str| {
        let flow = tcp((from, 40000), ("172.16.5.65", 80), SYN);
        attributor.knows(&raw(flow, Hook::TcEgress), Timestamp::UNIX_EPOCH)
    };
    assert!(!known("172.16.5.66"));
    assert!(known("172.16.6.66") && known("192.0.2.7"));
}

#[test]
fn addresses_that_everyone_has_are_no_strangers() {
    let drop = drop_of(
        tcp(("127.0.0.1", 40000), ("127.0.0.1", 8200), SYN),
        Hook::Netfilter,
    );
    assert_eq!(drop.source.unwrap().kind, PeerKind::Unknown);
    assert_eq!((drop.class, drop.policy), (None, None));
    let drop = drop_of(
        udp(("10.42.1.10", 5353), ("224.0.0.251", 5353)),
        Hook::TcIngress,
    );
    assert_eq!(drop.destination.unwrap().kind, PeerKind::Unknown);
}

#[test]
fn only_hooks_that_enforce_policies_prove_anything() {
    let api = || tcp(("10.42.1.10", 40000), ("192.168.1.100", 6443), SYN);
    for hook in [
        Hook::Netfilter,
        Hook::TcIngress,
        Hook::Xdp,
        Hook::CgroupEgress,
    ] {
        assert_eq!(judged(&drop_of(api(), hook)).1, Grade::Proven, "{hook:?}");
    }
    for hook in [Hook::Security, Hook::SocketFilter] {
        assert_eq!(judged(&drop_of(api(), hook)).1, Grade::Likely, "{hook:?}");
    }
    // Seen where the receiver's side is enforced, though the sender's denies it.
    assert_eq!(judged(&drop_of(api(), Hook::TcEgress)).1, Grade::Likely);
}

#[test]
fn icmp_is_read_by_its_type() {
    // vault-1 answers a ping that policies allow.
    let drop = drop_of(icmp("10.42.1.11", "10.42.1.10", 0), Hook::TcEgress);
    assert_eq!(judged(&drop).0, PolicyVerdict::Allowed);
    // An answer to a ping that they deny.
    let drop = drop_of(icmp("192.0.2.1", "10.42.1.10", 0), Hook::TcEgress);
    assert_eq!(judged(&drop).2, Some(Direction::Egress));
    // An error belongs to a flow that is not looked at.
    let drop = drop_of(icmp("192.168.1.100", "10.42.1.10", 3), Hook::TcEgress);
    assert_eq!(drop.class, Some(Class::IcmpControl));
    assert_eq!(judged(&drop).1, Grade::Likely);
}

#[test]
fn netfilter_losing_an_allowed_connection_is_no_disagreement() {
    let answer = || tcp(("10.42.1.11", 8200), ("10.42.1.10", 40000), ACK);
    let drop = drop_of(answer(), Hook::Netfilter);
    assert_eq!(drop.class, Some(Class::ConntrackInvalid));
    assert!(drop.hint.unwrap().starts_with("not a policy"));
    let drop = drop_of(answer(), Hook::TcEgress);
    assert_eq!(drop.class, Some(Class::StatefulsetPeer));
    let opening = tcp(("10.42.1.11", 40000), ("10.42.1.10", 8200), SYN);
    assert_eq!(
        drop_of(opening, Hook::Netfilter).class,
        Some(Class::StatefulsetPeer)
    );
}

#[test]
fn what_conntrack_knows_is_not_invalid_and_what_it_does_not_is_where_it_is_at_work() {
    let mut attributor = attributor();
    let mut class = |flow: Flow, tracked| {
        let mut raw = raw(flow, Hook::Netfilter);
        raw.netns = Some(1);
        raw.story = Story {
            chain: Chain::from_name("FORWARD"),
            tracked,
            ..Story::default()
        };
        let drop = attributor.attribute(&raw, Timestamp::UNIX_EPOCH);
        (drop.class, drop.notes)
    };
    let allowed = || icmp("10.42.1.11", "10.42.1.10", 0);
    // It may not be at work at all.
    let (before, _) = class(allowed(), Some(false));
    assert_ne!(before, Some(Class::ConntrackInvalid));
    // A packet that it knows is none that it lost, whatever its flags.
    let answer = tcp(("10.42.1.11", 8200), ("10.42.1.10", 40000), ACK);
    let (known, _) = class(answer, Some(true));
    assert_ne!(known, Some(Class::ConntrackInvalid));
    // Now it is known to be at work.
    let (invalid, notes) = class(allowed(), Some(false));
    assert_eq!((invalid, notes.len()), (Some(Class::ConntrackInvalid), 0));
    // What policies deny stays what it is, and it is said.
    let denied = tcp(("10.42.1.1", 40000), ("10.42.1.10", 8200), SYN);
    let (denied, notes) = class(denied, Some(false));
    assert_eq!(denied, Some(Class::KubeletProbe));
    assert_eq!(notes, [INVALID]);
}

#[test]
fn an_unknown_verdict_says_why() {
    let drop = drop_of(
        tcp(("10.42.1.10", 40000), ("10.43.0.10", 9999), SYN),
        Hook::TcIngress,
    );
    assert_eq!(judged(&drop).0, PolicyVerdict::Unknown);
    assert_eq!(
        drop.hint.unwrap(),
        "10.43.0.10 is the address of Service kube-system/kube-dns, which does not serve port 9999/TCP"
    );
}

#[test]
fn dns_behind_a_target_port_of_its_own_and_probes_at_the_pods_first_address_only() {
    let text = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-a}, spec: {podCIDRs: [10.42.1.0/24, fd00:42:1::/64]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: dns, namespace: n}
  spec:
    nodeName: node-a
    containers: [{name: c, readinessProbe: {tcpSocket: {port: 1053}}}]
  status: {phase: Running, podIPs: [{ip: 10.42.1.2}, {ip: 'fd00:42:1::2'}]}
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, status: {podIP: 10.42.1.5, phase: Running}}
- {apiVersion: v1, kind: Service, metadata: {name: dns, namespace: n},
   spec: {clusterIP: 10.43.0.9, ports: [{name: dns, port: 53, protocol: UDP}, {name: admin, port: 9000, protocol: UDP}]}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
   metadata: {name: dns-1, namespace: n, labels: {kubernetes.io/service-name: dns}},
   endpoints: [{addresses: [10.42.1.2]}],
   ports: [{name: dns, port: 1053, protocol: UDP}, {name: admin, port: 9001, protocol: UDP}]}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let cluster = Arc::new(crate::cluster::load(&file).unwrap().cluster);
    let mut attributor = Attributor::new("node-a".into(), Some(cluster));
    let mut class = |flow: Flow| {
        attributor
            .attribute(&raw(flow, Hook::TcIngress), Timestamp::UNIX_EPOCH)
            .class
    };
    let mut to_dns = |port| class(udp(("10.42.1.5", 40000), ("10.42.1.2", port)));
    assert_eq!(to_dns(1053), Some(Class::Dns));
    assert_eq!(to_dns(9001), Some(Class::PodToPod), "another port of it");
    let mut probe = |from, to| class(tcp((from, 40000), (to, 1053), SYN));
    assert_eq!(probe("10.42.1.1", "10.42.1.2"), Some(Class::KubeletProbe));
    assert_eq!(
        probe("fd00:42:1::1", "fd00:42:1::2"),
        Some(Class::NodeToPod),
        "the kubelet probes the first address"
    );
}
