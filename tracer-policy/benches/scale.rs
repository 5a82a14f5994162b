//! A large cluster: 10,000 pods, 2,000 policies, 100 namespaces.
//!
//! Beside criterion's figures it prints the percentiles of judging 100,000 different flows, and the
//! memory the index takes.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the figures are what it is for, and a broken generator should fail it"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use tracer_policy::model::{ContainerPort, Namespace, ObjectRef, Phase, Pod, Protocol};
use tracer_policy::{Cluster, End, Flow};

const NAMESPACES: usize = 100;
const PODS: usize = 10_000;
const POLICIES: usize = 2_000;

/// A small generator that gives the same numbers every time (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

fn namespace(index: usize) -> String {
    format!("namespace-{index}")
}

fn pod(index: usize) -> Pod {
    let app = index / NAMESPACES % 10;
    let octet = |n: usize| u8::try_from(n % 256).unwrap();
    let labels = [
        ("app.kubernetes.io/name", format!("app-{app}")),
        ("app.kubernetes.io/instance", format!("release-{}", app % 3)),
        ("tier", ["front", "back", "data"][app % 3].to_owned()),
        ("pod-template-hash", format!("{:08x}", index / 10)),
    ];
    Pod {
        id: ObjectRef::new(namespace(index % NAMESPACES), format!("pod-{index}")),
        uid: None,
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        ips: vec![IpAddr::from([10, 42, octet(index / 256), octet(index)])],
        node: Some(format!("node-{}", index % 100)),
        host_network: false,
        phase: Phase::Running,
        ports: vec![ContainerPort {
            name: Some("http".into()),
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        probes: Vec::new(),
        workload: None,
        mounts_api_token: false,
        started: None,
        ready: None,
        scrape_port: None,
    }
}

/// Twenty a namespace: one default deny, the others for one app each, with three rules.
fn policy(index: usize) -> NetworkPolicy {
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

fn cluster() -> Cluster {
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

/// Half within a namespace, a quarter across, a quarter with the outside; by address, as drops come.
fn flow(numbers: &mut Numbers) -> Flow {
    let ip = |index: usize| End::Ip(pod(index).ips[0]);
    let from = numbers.below(PODS);
    let to = match numbers.below(4) {
        0 | 1 => ip((from + NAMESPACES * numbers.below(100)) % PODS),
        2 => ip(numbers.below(PODS)),
        _ => End::Ip(IpAddr::from([
            192,
            0,
            2,
            u8::try_from(numbers.below(256)).unwrap(),
        ])),
    };
    let port = [8080, 443, 9050, 5432][numbers.below(4)];
    Flow::tcp(ip(from), to, port)
}

/// Resident memory in KiB, from /proc/self/statm.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * 4
}

fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() - 1) * hundredths / 100]
}

fn scale(c: &mut Criterion) {
    let before = resident();
    let mut cluster = cluster();
    println!(
        "memory of the index: {} KiB",
        resident().saturating_sub(before)
    );
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let flows: Vec<Flow> = (0..100_000).map(|_| flow(&mut numbers)).collect();
    let mut denied = 0;
    let mut times: Vec<Duration> = flows
        .iter()
        .map(|flow| {
            let start = Instant::now();
            let verdict = black_box(cluster.evaluate(flow));
            let time = start.elapsed();
            denied += usize::from(verdict.is_denied());
            time
        })
        .collect();
    times.sort();
    println!(
        "100,000 flows ({denied} denied): p50 {:?}, p99 {:?}, in all {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
        times.iter().sum::<Duration>(),
    );

    let mut next = flows.iter().cycle();
    c.bench_function("evaluate", |b| {
        b.iter(|| black_box(cluster.evaluate(next.next().unwrap())));
    });
    let mut index = 0;
    c.bench_function("change one pod", |b| {
        b.iter(|| {
            index = (index + 7) % PODS;
            cluster.apply_pod(pod(index));
        });
    });
    c.bench_function("change one policy", |b| {
        b.iter(|| {
            index = (index + 7) % POLICIES;
            cluster.apply_network_policy(&policy(index)).unwrap();
        });
    });
}

criterion_group!(benches, scale);
criterion_main!(benches);
