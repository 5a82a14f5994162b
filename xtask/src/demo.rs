//! `cargo xtask demo`: the incident, replayed on this machine's kernel.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::privilege::Privilege;
use crate::process;
use crate::setup::{self, Part};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What enforces the policy: `tc` (the incident's way) or `iptables` (K3s's own)
    #[arg(long, value_name = "tc|iptables", default_value = "tc", value_parser = ["tc", "iptables"])]
    enforcer: String,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let privilege =
        Privilege::find("the demo builds network namespaces and loads eBPF programs, which")?;
    setup::ensure(
        workspace,
        &[Part::Toolchain, Part::BpfLinker, Part::SystemPrograms],
    )?;
    process::run(workspace.cargo().args([
        "build",
        "--package=tracer-user",
        "--package=lab",
        "--bins",
    ]))?;
    let built = workspace.target_dir.join("debug");
    let demo = built.join("lab-demo");
    let program = demo
        .to_str()
        .context("the target folder's name is not UTF-8")?;
    let status = privilege
        .command(workspace, program)
        .arg("--tracer")
        .arg(built.join("tracer"))
        .arg("--out")
        .arg(workspace.target_dir.join("demo"))
        .arg("--enforcer")
        .arg(&arguments.enforcer)
        .status()
        .context("cannot start the demo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
