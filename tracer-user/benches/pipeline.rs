//! What user space makes of a drop in a large cluster: bytes of the kernel's → names, verdict, class, hint.
#![expect(clippy::unwrap_used, reason = "a broken generator should fail it")]

#[path = "../../tracer-policy/benches/large/mod.rs"]
mod large;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use tracer::attribute::Attributor;
use tracer::decode::{Decoder, Resolve};
use tracer_common::{ABI, DropEvent, MAGIC, field, has};
use tracer_policy::model::{Handler, Labels, Node, NodeAddress, NodeAddressKind, Probe, ProbeKind};
use zerocopy::{FromZeros as _, IntoBytes as _};

use large::{NAMESPACES, Numbers, PODS, cluster, pod};

/// Different drops, over and over.
const DROPS: usize = 10_000;
const NODES: usize = 100;
/// `SKB_DROP_REASON_NETFILTER_DROP`, as this bench numbers it.
const REASON: u32 = 1;

struct Names;

impl Resolve for Names {
    fn reason(&self, number: u32) -> Option<String> {
        (number == REASON).then(|| "NETFILTER_DROP".to_owned())
    }

    fn symbol(&mut self, _: u64) -> Option<String> {
        Some("nf_hook_slow+0x7d".to_owned())
    }
}

fn gateway(node: usize) -> IpAddr {
    IpAddr::from([10, 43, 0, u8::try_from(node).unwrap()])
}

/// Half between pods, a quarter the nodes' probes, a quarter to outside.
fn drop(numbers: &mut Numbers) -> DropEvent {
    let to = numbers.below(PODS);
    let ip = |index: usize| pod(index).ips[0];
    let (source, destination, port) = match numbers.below(4) {
        0 | 1 => {
            let near = (to + NAMESPACES * numbers.below(100)) % PODS;
            (ip(near), ip(to), [8080, 443, 9050, 5432][numbers.below(4)])
        }
        2 => (gateway(to % NODES), ip(to), 8080),
        _ => (ip(to), IpAddr::from([192, 0, 2, 200]), 443),
    };
    let mut event = DropEvent::new_zeroed();
    event.magic = MAGIC;
    event.abi = ABI;
    event.size = u16::try_from(size_of::<DropEvent>()).unwrap();
    event.count = 1;
    event.ktime_ns = 1;
    event.location = 1;
    event.reason = REASON;
    event.fields = field::HEADERS | field::REASON;
    event.length = 60;
    event.captured = 60;
    event.ethertype = 0x0800;
    event.headers.source = bytes(source);
    event.headers.destination = bytes(destination);
    event.headers.source_port = 40_000;
    event.headers.destination_port = port;
    event.headers.version = 4;
    event.headers.protocol = 6;
    event.headers.tcp_flags = 2;
    event.headers.has = has::PORTS | has::TCP_FLAGS;
    event
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    if let IpAddr::V4(ip) = ip {
        bytes[..4].copy_from_slice(&Ipv4Addr::octets(&ip));
    }
    bytes
}

fn pipeline(c: &mut Criterion) {
    let mut cluster = cluster();
    for index in 0..PODS {
        let mut pod = pod(index);
        pod.probes = vec![Probe {
            kind: ProbeKind::Readiness,
            container: "app".to_owned(),
            handler: Handler::Tcp,
            port: 8080,
            period_seconds: 10,
            timeout_seconds: 1,
            failure_threshold: 3,
        }];
        cluster.apply_pod(pod);
    }
    for node in 0..NODES {
        cluster.apply_node(Node {
            name: format!("node-{node}"),
            labels: Labels::default(),
            addresses: vec![NodeAddress {
                ip: gateway(node),
                kind: NodeAddressKind::PodGateway,
            }],
            pod_cidrs: Vec::new(),
            control_plane: false,
        });
    }
    let mut attributor = Attributor::new("node-0".to_owned(), Some(Arc::new(cluster)));
    let mut decoder = Decoder::new(Box::new(Names));
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let drops: Vec<_> = (0..DROPS).map(|_| drop(&mut numbers)).collect();
    let mut time = Timestamp::UNIX_EPOCH;

    // What it measures is what it says: probes are known for such, denials are explained.
    let mut seen = [0, 0];
    for event in &drops {
        let raw = decoder.decode(event.as_bytes()).unwrap();
        let drop = attributor.attribute(&raw, time);
        seen[0] += usize::from(drop.probe.is_some());
        seen[1] += usize::from(
            drop.policy
                .is_some_and(|policy| policy.nearest_miss.is_some()),
        );
    }
    assert!(seen.iter().all(|seen| *seen > DROPS / 10), "{seen:?}");

    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1));
    let mut next = drops.iter().cycle();
    group.bench_function("drop", |b| {
        b.iter(|| {
            let raw = decoder.decode(next.next().unwrap().as_bytes()).unwrap();
            time += std::time::Duration::from_micros(1);
            black_box(attributor.attribute(&raw, time))
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
