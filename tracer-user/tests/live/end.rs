//! Enough is enough: when nobody takes more drops, tracer ends at once, also in the middle of a flood.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::traffic::{Until, udp_flood};
use lab::{Lab, Wiring};

use crate::exact::{destinations, rule};
use crate::program::tracer;
use crate::watch;

const FLOWS: u16 = 2_000;
/// So long it would wait for a queue that is full.
const TOO_LATE: Duration = Duration::from_secs(2);

/// Has tracer watch a flood; from its first line on, how long it took to end.
fn end(lab: &Lab, more: &[&str], close: bool) -> Result<Duration> {
    let mut child = lab.spawn_on_node(tracer(), |tracer| {
        tracer
            .args(["watch", "-o", "json", "--cluster", "none"])
            .args(more)
            .env("TRACER_FOLD", "50ms")
            .env_remove("TRACER_REASONS")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    })?;
    let mut out = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut said = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut line = String::new();
    while !line.contains("watching ") {
        line.clear();
        ensure!(said.read_line(&mut line)? > 0, "tracer did not attach");
    }
    let to = destinations(lab, FLOWS);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let until = Until::Elapsed(Duration::from_secs(1));
            udp_flood(lab.remote(), &to, until)
        });
        let mut drop = String::new();
        ensure!(out.read_line(&mut drop)? > 0, "no drop");
        let first = Instant::now();
        let _out = (!close).then_some(out);
        let status = child.wait()?;
        let took = first.elapsed();
        ensure!(status.success(), "tracer ended with {status}");
        flood.join().ok().context("the flood panicked")??;
        Ok(took)
    })
}

#[test]
fn after_the_last_line_and_at_a_closed_pipe_it_ends_at_once() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let _rule = rule(&lab).unwrap();
    let counted = end(&lab, &["--count", "1"], false).unwrap();
    assert!(counted < TOO_LATE, "after --count 1: {counted:?}");
    let closed = end(&lab, &[], true).unwrap();
    assert!(closed < TOO_LATE, "after a closed pipe: {closed:?}");
}
