//! What tracer costs, measured beside the least that is possible, on this machine.
//!
//! `cargo xtask bench` builds and starts it.

mod cost;
mod floods;
mod latency;
mod peers;
mod process;
mod summary;

use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use lab::{Lab, Wiring};

use floods::Bench;
use summary::Summary;

/// Measures what tracer costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// The `tracer` binary, optimized.
    #[arg(long)]
    tracer: PathBuf,
    /// Where the summary is written, as JSON.
    #[arg(long)]
    out: PathBuf,
    /// Pairs of runs, with and without the tool, of which the median ratio counts.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Latency, start and memory.
    Latency,
    /// Nanoseconds in the kernel.
    Kernel,
    /// Floods with the agent.
    Flood,
    /// Other tools under the same flood.
    Peers,
}

impl Part {
    fn measure(self, bench: &Bench<'_>, summary: &mut Summary) -> Result<()> {
        match self {
            Self::Latency => latency::measure(bench, summary),
            Self::Kernel => cost::measure(bench, summary),
            Self::Flood => floods::measure(bench, summary),
            Self::Peers => peers::measure(bench, summary),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let lab = Lab::new(Wiring::Bridge)?;
    let bench = Bench::new(&lab, &arguments.tracer, arguments.pairs)?;
    let mut summary = Summary::default();
    for part in Part::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(part) {
            part.measure(&bench, &mut summary)?;
        }
    }
    summary.write(&arguments.out)
}
