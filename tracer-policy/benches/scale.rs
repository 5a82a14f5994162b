//! A large cluster: 10,000 pods, 2,000 policies, 100 namespaces.
//!
//! Beside criterion's figures it prints the percentiles of judging 100,000 different flows, and the
//! memory the index takes.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the figures are what it is for, and a broken generator should fail it"
)]

mod large;

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tracer_policy::{End, Flow};

use large::{NAMESPACES, Numbers, PODS, POLICIES, cluster, pod, policy};

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
