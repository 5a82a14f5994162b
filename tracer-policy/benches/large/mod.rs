//! A large cluster, made by rule: 10,000 pods, 2,000 policies, 100 namespaces.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use tracer_policy::Cluster;
use tracer_policy::model::{ContainerPort, Namespace, ObjectRef, Phase, Pod, Protocol};

pub(crate) const NAMESPACES: usize = 100;
pub(crate) const PODS: usize = 10_000;
pub(crate) const POLICIES: usize = 2_000;

/// A small generator that gives the same numbers every time (xorshift64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

fn namespace(index: usize) -> String {
    format!("namespace-{index}")
}

pub(crate) fn pod(index: usize) -> Pod {
    let app = index / NAMESPACES % 10;
    let octet = |n: usize| u8::try_from(n % 256).unwrap();
    let labels = [
        ("app.kubernetes.io/name", format!("app-{app}")),
        ("app.kubernetes.io/instance", format!("release-{}", app % 3)),
        ("tier", ["front", "back", "data"][app % 3].to_owned()),
        ("pod-template-hash", format!("{:08x}", index / 10)),
    ];
    Pod {
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        ips: vec![IpAddr::from([10, 42, octet(index / 256), octet(index)])],
        node: Some(format!("node-{}", index % 100)),
        phase: Phase::Running,
        ports: vec![ContainerPort {
            name: Some("http".into()),
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        ..Pod::named(ObjectRef::new(
            namespace(index % NAMESPACES),
            format!("pod-{index}"),
        ))
    }
}

/// Twenty a namespace: one default deny, the others for one app each, with three rules.
pub(crate) fn policy(index: usize) -> NetworkPolicy {
    let of = index / NAMESPACES;
    let app =
        |n: usize| json!({"matchLabels": {"app.kubernetes.io/name": format!("app-{}", n % 10)}});
    let tier = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]});
    let team = json!({"matchLabels": {"team": format!("team-{}", of % 7)}});
    let spec = if of == 0 {
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    } else {
        let rule = |peers: &str| {
            json!([
                {peers: [{"podSelector": app(of + 1)}], "ports": [{"port": "http"}]},
                {peers: [{"namespaceSelector": team, "podSelector": tier}], "ports": [{"port": 8080}, {"port": 9000, "endPort": 9100}]},
                {peers: [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 443}]},
            ])
        };
        json!({
            "podSelector": app(of), "policyTypes": ["Ingress", "Egress"],
            "ingress": rule("from"), "egress": rule("to"),
        })
    };
    serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{of}"), "namespace": namespace(index % NAMESPACES)},
        "spec": spec,
    }))
    .unwrap()
}

pub(crate) fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for index in 0..NAMESPACES {
        cluster.apply_namespace(Namespace {
            name: namespace(index),
            labels: [("team".to_owned(), format!("team-{}", index % 7))].into(),
        });
    }
    (0..PODS).for_each(|index| cluster.apply_pod(pod(index)));
    for index in 0..POLICIES {
        cluster.apply_network_policy(&policy(index)).unwrap();
    }
    cluster
}
