//! `cargo xtask bench`: what tracer costs, measured on this machine.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::privilege::Privilege;
use crate::process;
use crate::setup::{self, Part};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pairs of runs, with and without tracer, of which the median ratio counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let privilege = Privilege::find("the bench floods network namespaces of its own, which")?;
    setup::ensure(
        workspace,
        &[Part::Toolchain, Part::BpfLinker, Part::SystemPrograms],
    )?;
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
    let folder = workspace.target_dir.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let summary = folder.join("summary.json");
    let status = privilege
        .command(workspace, program)
        .arg("--tracer")
        .arg(built.join("tracer"))
        .arg("--out")
        .arg(&summary)
        .arg("--pairs")
        .arg(arguments.pairs.to_string())
        .status()
        .context("cannot start the bench")?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("bench: the figures are in {}", summary.display());
    Ok(ExitCode::SUCCESS)
}
