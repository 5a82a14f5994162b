//! Two readings of the same policies: the allow-list that drops packets here, and the engine that
//! explains drops. Written apart, they have to agree on every flow of the lab.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use tracer_policy::model::{Namespace, Node, Pod, Protocol};
use tracer_policy::{Cluster, End, Flow, Profile, SideVerdict};

use super::{AllowList, Direction, PodFacts, Policies};
use crate::manifests;
use crate::plan::{Family, MASTER, NODE, OTHER_NODE, POD_GATEWAY, REMOTE};

/// One policy for each thing a policy can say.
const POLICIES: &[&str] = &[
    "{podSelector: {}}",
    "{podSelector: {}, policyTypes: [Egress]}",
    "{podSelector: {}, ingress: [{}], egress: [{}]}",
    "{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}, ingress: [{from: [{podSelector: {}}]}]}",
    "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: https}]}]}",
    "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}, podSelector: {matchLabels: {app: client}}}]}]}",
    "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}, {podSelector: {matchLabels: {none: such}}}]}]}",
    "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.42.2.0/24, 10.10.0.12/32]}}], ports: [{port: 8000, endPort: 8200}]}]}",
    "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 'fd00:10::/32'}}]}, {ports: [{port: 53, protocol: UDP}]}]}",
    "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: dns, protocol: UDP}, {port: 53}]}]}",
    "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.1.100/32}}], ports: [{port: 6443}]}, {ports: [{protocol: UDP}]}]}",
    "{podSelector: {matchExpressions: [{key: apps.kubernetes.io/pod-index, operator: NotIn, values: ['0']}]}, policyTypes: [Ingress, Egress]}",
    "{podSelector: {matchExpressions: [{key: k8s-app, operator: DoesNotExist}]}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]}",
];

fn cluster(policies: &Policies) -> Cluster {
    let all: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&manifests::cluster(Family::V4)).expect("YAML");
    let mut cluster = Cluster::new();
    for document in all {
        fn as_api<T: DeserializeOwned>(document: serde_json::Value) -> T {
            serde_json::from_value(document).expect("a valid object")
        }
        match document["kind"].as_str() {
            Some("Namespace") => {
                let namespace: core::Namespace = as_api(document);
                cluster.apply_namespace(Namespace::try_from(&namespace).expect("a namespace"));
            }
            Some("Node") => {
                let node: core::Node = as_api(document);
                cluster.apply_node(Node::try_from(&node).expect("a node"));
            }
            Some("Pod") => {
                let pod: core::Pod = as_api(document);
                cluster.apply_pod(Pod::try_from(&pod).expect("a pod"));
            }
            // Services are left out: allow-lists know endpoints.
            _ => {}
        }
    }
    for policy in &policies.0 {
        cluster.apply_network_policy(policy).expect("a policy");
    }
    cluster
}

/// What the allow-list says of one side of a flow.
fn listed(
    list: &AllowList,
    pod: usize,
    direction: Direction,
    peer: IpAddr,
    port: u16,
    protocol: Protocol,
) -> SideVerdict {
    if !list.isolated.contains(&(pod, direction)) {
        return SideVerdict::NotIsolated;
    }
    let allowed = list.allows.iter().any(|allow| {
        allow.pod == pod
            && allow.direction == direction
            && allow.peer.contains(&peer)
            && allow.protocol.is_none_or(|own| own == protocol)
            && allow
                .ports
                .is_none_or(|(first, last)| (first..=last).contains(&port))
    });
    if allowed {
        SideVerdict::Allowed
    } else {
        SideVerdict::Denied
    }
}

#[test]
fn allow_list_and_engine_agree() {
    let pods = PodFacts::planned();
    let mut peers: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
    for addresses in [MASTER, NODE, OTHER_NODE, POD_GATEWAY, REMOTE] {
        peers.extend(addresses.both());
    }
    let (mut allowed, mut denied) = (0, 0);
    let namespaces = ["vault", "default", "kube-system"];
    for (spec, namespace) in POLICIES
        .iter()
        .flat_map(|spec| namespaces.map(|namespace| (spec, namespace)))
    {
        let policies = Policies::parse(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: {namespace}}}, spec: {spec}}}"
        ))
        .unwrap();
        let list = AllowList::new(&policies.resolve(&pods).unwrap(), &pods);
        let cluster = cluster(&policies);
        for (at, pod) in pods.iter().enumerate() {
            for &own in &pod.ips {
                for &peer in &peers {
                    if peer.is_ipv4() != own.is_ipv4() || pod.ips.contains(&peer) {
                        continue;
                    }
                    for port in [53, 8100, 8200, 6443] {
                        for protocol in [Protocol::Tcp, Protocol::Udp] {
                            for direction in [Direction::Ingress, Direction::Egress] {
                                let (from, to) = match direction {
                                    Direction::Ingress => (peer, own),
                                    Direction::Egress => (own, peer),
                                };
                                let flow = Flow {
                                    from: End::Ip(from),
                                    to: End::Ip(to),
                                    port: Some(port),
                                    protocol,
                                    icmp: None,
                                };
                                let verdict = cluster.evaluate_as(&flow, Profile::SPEC);
                                let side = match direction {
                                    Direction::Ingress => verdict.ingress.verdict,
                                    Direction::Egress => verdict.egress.verdict,
                                };
                                let ours = listed(&list, at, direction, peer, port, protocol);
                                assert_eq!(ours, side, "{flow} under {spec} in {namespace}");
                                match ours {
                                    SideVerdict::Allowed => allowed += 1,
                                    SideVerdict::Denied => denied += 1,
                                    _ => {}
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    // The table exercises both answers amply.
    assert!(allowed > 1000 && denied > 1000, "{allowed} {denied}");
}
