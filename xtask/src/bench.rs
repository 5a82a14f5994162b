//! `cargo xtask bench`: what tracer costs, measured on this machine.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::privilege::Privilege;
use crate::process;
use crate::setup::{self, Part};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pairs of runs, with and without tracer, of which the median ratio counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<BenchPart>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BenchPart {
    /// Latency, start and memory
    Latency,
    /// Nanoseconds in the kernel
    Kernel,
    /// Floods with the agent
    Flood,
    /// Other tools under the same flood
    Peers,
    /// What user space makes of a drop
    Pipeline,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let folder = workspace.target_dir.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let summary = folder.join("summary.json");
    let on_stage: Vec<_> = BenchPart::value_variants()
        .iter()
        .filter(|part| **part != BenchPart::Pipeline && wants(**part))
        .filter_map(ValueEnum::to_possible_value)
        .map(|part| part.get_name().to_owned())
        .collect();
    if on_stage.is_empty() {
        write(&summary, &json!({}))?;
    } else if !on_the_stage(workspace, arguments.pairs, &on_stage.join(","), &summary)? {
        return Ok(ExitCode::FAILURE);
    }
    if wants(BenchPart::Pipeline) {
        let mut figures: Value = serde_json::from_str(&fs::read_to_string(&summary)?)?;
        let drops = pipeline(workspace)?;
        println!("| pipeline.drops_per_s | {drops} |");
        figures["pipeline"] = json!({ "drops_per_s": drops });
        write(&summary, &figures)?;
    }
    eprintln!("bench: the figures are in {}", summary.display());
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, figures: &Value) -> Result<()> {
    fs::write(path, format!("{figures:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Drops a second that one core takes from bytes to a classified drop, by criterion's own figures.
fn pipeline(workspace: &Workspace) -> Result<u64> {
    process::run(workspace.cargo().args([
        "bench",
        "--package=tracer-user",
        "--bench=pipeline",
        "--",
        "--noplot",
    ]))?;
    let path = workspace
        .target_dir
        .join("criterion/pipeline/drop/new/estimates.json");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("criterion left nothing at {}", path.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    let nanoseconds = estimates["mean"]["point_estimate"]
        .as_f64()
        .filter(|mean| *mean > 0.0)
        .with_context(|| format!("{} has no mean", path.display()))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate below 10^9"
    )]
    Ok((1e9 / nanoseconds) as u64)
}

/// What needs packets; whether it went well.
fn on_the_stage(workspace: &Workspace, pairs: u16, parts: &str, summary: &Path) -> Result<bool> {
    let privilege = Privilege::find("the bench floods network namespaces of its own, which")?;
    setup::ensure(
        workspace,
        &[Part::Toolchain, Part::BpfLinker, Part::SystemPrograms],
    )?;
    if let Err(error) = setup::ensure(workspace, &[Part::Peers]) {
        eprintln!("bench: without some of the tools to compare with: {error:#}");
    }
    process::run(workspace.cargo().args([
        "build",
        "--release",
        "--package=tracer-user",
        "--package=lab",
        "--bins",
    ]))?;
    let built = workspace.target_dir.join("release");
    let bench = built.join("lab-bench");
    let program = bench
        .to_str()
        .context("the target folder's name is not UTF-8")?;
    let status = privilege
        .command(workspace, program)
        .arg("--tracer")
        .arg(built.join("tracer"))
        .arg("--out")
        .arg(summary)
        .arg("--pairs")
        .arg(pairs.to_string())
        .args(["--only", parts])
        .status()
        .context("cannot start the bench")?;
    Ok(status.success())
}
