//! What a program takes for one packet, by the kernel's own measure (`BPF_ENABLE_STATS`): the kernel
//! reads a clock before and after each run, and what that takes is in all figures alike.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use lab::Floor;
use lab::traffic::Until;

use crate::floods::{Bench, RUN};
use crate::summary::Summary;

/// Packets that fill the buffer of a socket that nobody reads.
const WARM_UP: u64 = 20_000;

/// A port that the bench's rule lets through.
const OPEN_PORT: u16 = 60_000;

pub(crate) fn measure(bench: &Bench<'_>, summary: &mut Summary) -> Result<()> {
    let _measuring = enable_stats(Stats::RunTime).context("the kernel does not measure")?;
    for (name, floor) in [
        ("floor_ns", Floor::raw as fn() -> _),
        ("floor_btf_ns", Floor::btf),
    ] {
        let floor = floor()?;
        let cost = per_run(floor.program, || {
            bench.flood(&bench.one_flow, Until::Elapsed(RUN)).map(drop)
        })?;
        summary.add("kernel", name, cost);
    }

    let tracer = bench.watch(|watch| {
        watch.args(["--flows", "131072"]);
    })?;
    let program = "kfree_skb_";
    let packets = bench.flows.len() as u64;
    let one_each = || bench.flood(&bench.flows, Until::Packets(packets)).map(drop);
    let first = per_run(program, one_each)?;
    summary.add("kernel", "first_ns", first);
    let repeat = per_run(program, || {
        bench.flood(&bench.one_flow, Until::Elapsed(RUN)).map(drop)
    })?;
    summary.add("kernel", "repeat_ns", repeat);

    let pod = bench.lab.pod("client");
    let to = [SocketAddrV4::new(pod.addresses().v4, OPEN_PORT)];
    let _deaf = pod.netns().enter(|| UdpSocket::bind(to[0]))??;
    bench.flood(&to, Until::Packets(WARM_UP))?;
    let ignored = per_run(program, || bench.flood(&to, Until::Elapsed(RUN)).map(drop))?;
    summary.add("kernel", "ignored_ns", ignored);
    tracer.stop()?;

    // A table that most of the flows find no room in.
    let tracer = bench.watch(|_| {})?;
    one_each()?;
    summary.add("kernel", "roomless_ns", per_run(program, one_each)?);
    tracer.stop().map(drop)
}

/// Nanoseconds a run of the newest program whose name begins so, while `traffic` flows.
fn per_run(program: &str, traffic: impl FnOnce() -> Result<()>) -> Result<f64> {
    let newest = loaded_programs()
        .filter_map(Result::ok)
        .filter(|info| {
            info.name_as_str()
                .is_some_and(|name| name.starts_with(program))
        })
        .max_by_key(aya::programs::ProgramInfo::id)
        .with_context(|| format!("the kernel has no program {program}"))?;
    let fd = newest.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let read = || -> Result<[f64; 2]> {
        let text = fs::read_to_string(&path)?;
        let number = |key: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            Ok(line
                .with_context(|| format!("no {key} in {path}"))?
                .trim()
                .parse()?)
        };
        Ok([number("run_time_ns:")?, number("run_cnt:")?])
    };
    let before = read()?;
    traffic()?;
    let after = read()?;
    let runs = after[1] - before[1];
    ensure!(runs > 0.0, "{program} did not run");
    Ok((after[0] - before[0]) / runs)
}
