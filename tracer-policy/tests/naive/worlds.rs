//! Random small worlds in which everything meets everything.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tracer_policy::model::{ContainerPort, Labels, Namespace, ObjectRef, Phase, Pod, Protocol};
use tracer_policy::{Cluster, End, Flow, Profile};

use super::admin::{self, Governed, Peer, Policy, Port};
use super::judge::World;

pub const NAMESPACES: [&str; 3] = ["a", "b", "c"];
pub const PORTS: [u16; 4] = [79, 80, 81, 443];
const OUTSIDE: [&str; 4] = ["192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1"];
const CIDRS: [&str; 7] = [
    "0.0.0.0/0",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.0.1.2/32",
    "192.0.2.0/24",
    "192.0.2.77/25",
    "2001:db8::/32",
];

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        4 => Just(Protocol::Tcp),
        2 => Just(Protocol::Udp),
        1 => Just(Protocol::Sctp),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let key = prop_oneof![Just("app"), Just("tier"), Just("env")];
    let value = prop_oneof![Just("x"), Just("y"), Just("")];
    btree_map(
        key.prop_map(str::to_owned),
        value.prop_map(str::to_owned),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let key = prop_oneof![Just("app"), Just("tier"), Just("team")];
    let operator = prop_oneof![
        Just("In"),
        Just("NotIn"),
        Just("Exists"),
        Just("DoesNotExist")
    ];
    let value = prop_oneof![
        Just("x".to_owned()),
        Just("y".to_owned()),
        Just("nowhere".to_owned())
    ];
    let expression = (key, operator, vec(value, 1..3)).prop_map(|(key, operator, values)| {
        LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: matches!(operator, "In" | "NotIn").then_some(values),
        }
    });
    (
        option::weighted(0.5, labels()),
        option::weighted(0.4, vec(expression, 0..2)),
    )
        .prop_map(|(match_labels, match_expressions)| LabelSelector {
            match_labels,
            match_expressions,
        })
}

/// Namespace labels are drawn from the same words, so that any selector may meet them.
fn namespace_labels() -> impl Strategy<Value = Labels> {
    let key = prop_oneof![Just("team".to_owned()), Just("tier".to_owned())];
    btree_map(
        key,
        prop_oneof![Just("x".to_owned()), Just("y".to_owned())],
        0..2,
    )
}

fn peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let cidr = || prop::sample::select(&CIDRS[..]).prop_map(str::to_owned);
    let block = (cidr(), option::weighted(0.4, vec(cidr(), 0..2))).prop_map(|(cidr, except)| {
        NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr, except }),
            ..Default::default()
        }
    });
    let peer = |namespace_selector, pod_selector| NetworkPolicyPeer {
        namespace_selector,
        pod_selector,
        ip_block: None,
    };
    prop_oneof![
        2 => block,
        2 => selector().prop_map(move |pods| peer(None, Some(pods))),
        2 => selector().prop_map(move |namespaces| peer(Some(namespaces), None)),
        2 => (selector(), selector()).prop_map(move |(n, p)| peer(Some(n), Some(p))),
    ]
}

fn port() -> impl Strategy<Value = NetworkPolicyPort> {
    let number = || prop::sample::select(&PORTS[..]).prop_map(i32::from);
    let which = prop_oneof![
        1 => Just((None, None)),
        3 => number().prop_map(|n| (Some(IntOrString::Int(n)), None)),
        1 => (number(), 0..3).prop_map(|(n, more)| (Some(IntOrString::Int(n)), Some(n + more))),
        2 => prop_oneof![Just("web"), Just("dns")]
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
    ];
    (option::weighted(0.7, protocol()), which).prop_map(|(protocol, (port, end_port))| {
        NetworkPolicyPort {
            protocol: protocol.map(|p| p.to_string()),
            port,
            end_port,
        }
    })
}

type Rule = (
    Option<Vec<NetworkPolicyPeer>>,
    Option<Vec<NetworkPolicyPort>>,
);

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let rule = (
        option::weighted(0.8, vec(peer(), 0..3)),
        option::weighted(0.6, vec(port(), 0..3)),
    );
    option::weighted(0.7, vec(rule, 0..3))
}

fn policy(index: usize) -> impl Strategy<Value = NetworkPolicy> {
    let types = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["Ingress".to_owned()])),
        Just(Some(vec!["Egress".to_owned()])),
        Just(Some(vec!["Ingress".to_owned(), "Egress".to_owned()])),
    ];
    let namespace = prop::sample::select(&NAMESPACES[..]);
    (
        namespace,
        option::weighted(0.9, selector()),
        types,
        rules(),
        rules(),
    )
        .prop_map(
            move |(namespace, pod_selector, policy_types, ingress, egress)| NetworkPolicy {
                metadata: ObjectMeta {
                    name: Some(format!("policy-{index}")),
                    namespace: Some(namespace.to_owned()),
                    ..Default::default()
                },
                spec: Some(NetworkPolicySpec {
                    pod_selector,
                    policy_types,
                    ingress: ingress.map(|rules| {
                        let rules = rules.into_iter();
                        rules
                            .map(|(from, ports)| NetworkPolicyIngressRule { from, ports })
                            .collect()
                    }),
                    egress: egress.map(|rules| {
                        let rules = rules.into_iter();
                        rules
                            .map(|(to, ports)| NetworkPolicyEgressRule { to, ports })
                            .collect()
                    }),
                }),
            },
        )
}

fn pod(index: u8) -> impl Strategy<Value = Pod> {
    let number = || prop::sample::select(&PORTS[..]);
    let name = option::of(prop_oneof![Just("web".to_owned()), Just("dns".to_owned())]);
    let port = (name, number(), protocol()).prop_map(|(name, port, protocol)| ContainerPort {
        name,
        port,
        protocol,
    });
    (0..NAMESPACES.len(), labels(), vec(port, 0..3)).prop_map(move |(namespace, labels, ports)| {
        Pod {
            labels,
            ips: vec![IpAddr::from([
                10,
                0,
                u8::try_from(namespace).unwrap(),
                index,
            ])],
            phase: Phase::Running,
            ports,
            ..Pod::named(ObjectRef::new(
                NAMESPACES[namespace],
                format!("pod-{index}"),
            ))
        }
    })
}

pub fn world() -> impl Strategy<Value = World> {
    let namespaces = NAMESPACES.map(|name| {
        namespace_labels().prop_map(move |mut labels| {
            labels.insert("kubernetes.io/metadata.name".into(), name.into());
            Namespace {
                name: name.to_owned(),
                labels,
            }
        })
    });
    let pods = [1, 2, 3, 4, 5].map(pod);
    let policies = [0, 1, 2, 3].map(policy);
    (namespaces, pods, policies, 0usize..5).prop_map(|(namespaces, pods, policies, count)| World {
        namespaces: namespaces.into(),
        pods: pods.into(),
        policies: policies.into_iter().take(count).collect(),
    })
}

pub fn governed() -> impl Strategy<Value = Governed> {
    let all = &["Allow", "Deny", "Pass"][..];
    let admin = vec(admin_policy(all), 0..4);
    let baseline = option::of(admin_policy(&all[..2]));
    (world(), admin, baseline).prop_map(|(world, admin, baseline)| Governed {
        world,
        admin,
        baseline,
    })
}

fn admin_policy(actions: &'static [&'static str]) -> impl Strategy<Value = Policy> {
    (
        selector(),
        option::of(selector()),
        vec(admin_rule(actions, false), 0..3),
        vec(admin_rule(actions, true), 0..3),
    )
        .prop_map(|(namespaces, pods, ingress, egress)| Policy {
            namespaces,
            pods,
            ingress,
            egress,
        })
}

fn admin_rule(
    actions: &'static [&'static str],
    egress: bool,
) -> impl Strategy<Value = admin::Rule> {
    let pods = prop_oneof![
        selector().prop_map(Peer::Namespaces),
        (selector(), selector()).prop_map(|(n, p)| Peer::Pods(n, p)),
    ];
    // Names of ports are a pod's, so that the API takes none beside networks.
    let to_pods = (vec(pods, 1..3), option::of(vec(admin_port(true), 1..3)));
    let networks = vec(prop::sample::select(&CIDRS[..]), 1..3).prop_map(Peer::Networks);
    let to_networks = (
        vec(networks, 1..3),
        option::of(vec(admin_port(false), 1..3)),
    );
    let weight = u32::from(egress);
    let what = prop_oneof![2 => to_pods, weight => to_networks];
    (prop::sample::select(actions), what).prop_map(|(action, (peers, ports))| admin::Rule {
        action,
        peers,
        ports,
    })
}

fn admin_port(named: bool) -> impl Strategy<Value = Port> {
    let number = || prop::sample::select(&PORTS[..]);
    prop_oneof![
        2 => (protocol(), number()).prop_map(|(protocol, port)| Port::Number(protocol, port)),
        1 => (protocol(), number(), 1u16..3).prop_map(|(protocol, first, more)| Port::Range(protocol, first, first + more)),
        u32::from(named) => prop_oneof![Just("web"), Just("dns")].prop_map(Port::Named),
    ]
}

/// Every flow between pods, by name or address, and the outside, on every port and protocol.
pub fn flows(world: &World) -> Vec<Flow> {
    let pods = world.pods.iter().map(|p| End::Pod(p.id.clone()));
    let addresses = world.pods.iter().take(2).map(|p| End::Ip(p.ips[0]));
    let outside = OUTSIDE.iter().map(|ip| ip.parse().unwrap());
    let ends: Vec<End> = pods.chain(addresses).chain(outside).collect();
    let mut flows = Vec::new();
    for from in &ends {
        for to in &ends {
            for port in PORTS {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    flows.push(Flow {
                        from: from.clone(),
                        to: to.clone(),
                        port: Some(port),
                        protocol,
                        icmp: None,
                    });
                }
            }
        }
    }
    flows
}

pub fn cluster(world: &World) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.set_profile(Some(Profile::SPEC));
    world
        .namespaces
        .iter()
        .for_each(|n| cluster.apply_namespace(n.clone()));
    world.pods.iter().for_each(|p| cluster.apply_pod(p.clone()));
    for policy in &world.policies {
        cluster.apply_network_policy(policy).unwrap();
    }
    cluster
}
