//! What someone would run instead, under the same flood.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::find_program;
use lab::traffic::Until;

use crate::floods::{Bench, RUN};
use crate::process::Process;
use crate::summary::Summary;

/// How long a tool may take until it sees drops.
const PATIENCE: Duration = Duration::from_secs(30);

/// bpftrace and perf look for the tracepoints here; a container has neither mounted.
const WITH_TRACEFS: &str = "mount --make-rprivate / && \
    { mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug; } && \
    { mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; } && exec \"$@\"";

/// A tool that shows dropped packets.
struct Peer {
    /// Its name in the summary.
    name: &'static str,
    program: &'static str,
    /// With `OUT` for the file that it writes to, where that is not stdout.
    arguments: &'static [&'static str],
    /// What it is told on stdin, which then stays open.
    input: &'static str,
    /// What is in that file once it is at work; nothing: anything at all.
    ready: &'static [&'static str],
}

/// The intervals say that what stands between them is attached, in whichever order it is.
const PEERS: [Peer; 4] = [
    Peer {
        name: "bpftrace_count",
        program: "bpftrace",
        arguments: &[
            "-B",
            "line",
            "-e",
            "interval:ms:50 { printf(\"before\\n\") } \
             tracepoint:skb:kfree_skb { @[args->reason] = count(); } \
             interval:ms:50 { printf(\"after\\n\") }",
        ],
        input: "",
        ready: &["before", "after"],
    },
    Peer {
        name: "bpftrace_print",
        program: "bpftrace",
        arguments: &[
            "-B",
            "line",
            "-e",
            "tracepoint:skb:kfree_skb { printf(\"drop %d %p\\n\", args->reason, args->location); }",
        ],
        input: "",
        ready: &["drop "],
    },
    Peer {
        name: "perf_trace",
        program: "perf",
        arguments: &["trace", "-e", "skb:kfree_skb", "-o", "OUT"],
        input: "",
        ready: &["kfree_skb"],
    },
    // Needs the kernel's drop monitor (CONFIG_NET_DROP_MONITOR).
    Peer {
        name: "dropwatch",
        program: "dropwatch",
        arguments: &["-l", "kas"],
        input: "start\n",
        ready: &["drops at"],
    },
];

pub(crate) fn measure(bench: &Bench<'_>, summary: &mut Summary) -> Result<()> {
    let mut missed = 0;
    let ratio = bench.ratio(
        &bench.one_flow,
        || bench.watch(|_| {}),
        |tracer, flooded| {
            // Of all drops, as others' may come in between: at least those of the flood.
            missed += flooded.packets.saturating_sub(packets(&tracer.stop()?));
            Ok(())
        },
    )?;
    let cpu = bench.cpu(&bench.one_flow, || bench.watch(|_| {}))?;
    add(summary, "tracer", ratio, cpu, missed);
    for peer in PEERS {
        if find_program(peer.program).is_err() {
            let why = format!("there is no {} here", peer.program);
            summary.add_reason("peers", peer.name, &why);
            continue;
        }
        let mut lost = 0;
        let out = bench.folder().join("peer.out");
        let ratio = bench.ratio(
            &bench.one_flow,
            || peer.start(bench, &out),
            |tool, _| {
                let said = tool.stop()?;
                lost += reported_lost(&said) + reported_lost(&fs::read_to_string(&out)?);
                Ok(())
            },
        );
        let measured = ratio.and_then(|ratio| {
            Ok((
                ratio,
                bench.cpu(&bench.one_flow, || peer.start(bench, &out))?,
            ))
        });
        match measured {
            Ok((ratio, cpu)) => add(summary, peer.name, ratio, cpu, lost),
            Err(error) => summary.add_reason("peers", peer.name, &format!("{error:#}")),
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn add(summary: &mut Summary, name: &str, ratio: f64, cpu: f64, lost: u64) {
    summary.add_below("peers", name, "rate_ratio", ratio);
    summary.add_below("peers", name, "cpu", cpu);
    summary.add_below("peers", name, "events_lost", lost as f64);
}

impl Peer {
    fn start(&self, bench: &Bench<'_>, out: &Path) -> Result<Process> {
        let stdout = File::create(out)?;
        let errors = out.with_extension("err");
        let unshare = find_program("unshare")?;
        let (input, mut tell) = std::io::pipe()?;
        tell.write_all(self.input.as_bytes())?;
        let mut tool = Process::spawn(bench.lab, &unshare, &errors, |command| {
            command.stdin(input).stdout(stdout);
            command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh", self.program]);
            let path = out.as_os_str();
            for argument in self.arguments {
                match *argument {
                    "OUT" => command.arg(path),
                    other => command.arg(other),
                };
            }
        })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            bench.flood(&bench.one_flow, Until::Packets(1))?;
            let said = String::from_utf8_lossy(&fs::read(out)?).into_owned();
            if self.ready.iter().all(|word| said.contains(word)) {
                return Ok(tool.with(tell));
            }
            let complaint = || fs::read_to_string(&errors).unwrap_or_default();
            ensure!(tool.runs()?, "it ended: {said}{}", complaint());
            ensure!(
                Instant::now() < deadline,
                "it saw nothing within {} s: {}",
                PATIENCE.as_secs(),
                complaint()
            );
            std::thread::sleep(RUN / 10);
        }
    }
}

/// `tracer: 12 packets in 3 lines`.
fn packets(said: &str) -> u64 {
    said.lines()
        .filter_map(|line| line.strip_prefix("tracer: ")?.split_once(" packets in "))
        .filter_map(|(packets, _)| packets.parse::<u64>().ok())
        .sum()
}

/// What a tool says it lost: bpftrace's `Lost 12 events`, perf's `LOST 12 events!`.
fn reported_lost(said: &str) -> u64 {
    let words: Vec<_> = said.split_ascii_whitespace().collect();
    words
        .windows(3)
        .filter(|three| three[0].eq_ignore_ascii_case("lost") && three[2].starts_with("events"))
        .filter_map(|three| three[1].parse::<u64>().ok())
        .sum()
}
