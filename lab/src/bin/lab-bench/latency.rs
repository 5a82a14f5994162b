//! One drop on a quiet machine: how long until it is on stdout; how long a start takes, and how much
//! memory.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::traffic::Until;

use crate::floods::{Bench, RUN, median};
use crate::summary::Summary;

const STARTS: usize = 5;
const DROPS: usize = 200;

/// Between drops: longer than the spell after which the reader is woken anew.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn measure(bench: &Bench<'_>, summary: &mut Summary) -> Result<()> {
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let tracer = bench.watch(|_| {})?;
        starts.push(tracer.start.as_secs_f64() * 1000.0);
        tracer.stop()?;
    }
    summary.add_alone("start_ms", median(starts));

    let mut tracer = bench.watch(|watch| {
        watch.stdout(Stdio::piped());
    })?;
    let mut lines = BufReader::new(tracer.stdout()?);
    let mut latencies = Vec::with_capacity(DROPS);
    for to in bench.flows.iter().take(DROPS) {
        std::thread::sleep(PAUSE);
        let wanted = format!("\"port\":{},", to.port());
        let sent = Instant::now();
        bench.flood(&[*to], Until::Packets(1))?;
        let mut line = String::new();
        // Others' drops may come in between.
        loop {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "tracer ended early");
            if line.contains(&wanted) || line.contains(&wanted.replace(',', "}")) {
                break;
            }
        }
        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    latencies.sort_by(f64::total_cmp);
    summary.add_alone("latency_ms_p50", latencies[DROPS / 2]);
    summary.add_alone("latency_ms_p99", latencies[DROPS * 99 / 100]);
    drop(lines);
    tracer.stop()?;

    let tracer = bench.watch(|_| {})?;
    bench.flood(&bench.one_flow, Until::Elapsed(RUN))?;
    summary.add_alone("rss_mib", tracer.memory_mib("VmRSS")?);
    summary.add_alone("rss_peak_mib", tracer.memory_mib("VmHWM")?);
    tracer.stop().map(drop)
}
