//! `cargo xtask setup`: brings what building and testing need. Every other command calls the parts it needs.

mod bpf_linker;
pub(crate) mod cache;
mod cargo_deny;
mod debian;
mod kubernetes;
mod promtool;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{Rustc, Workspace};

pub(crate) use cargo_deny::find as cargo_deny;
pub(crate) use kubernetes::find as kubernetes;
pub(crate) use promtool::find as promtool;

#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// One thing a command may need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// clippy, rustfmt and the sources of `core`.
    Toolchain,
    /// The standard libraries of the static targets.
    MuslTargets,
    /// The linker of the eBPF programs.
    BpfLinker,
    /// The check of the dependencies' licences.
    CargoDeny,
    /// A C compiler for aarch64.
    CrossCompiler,
    /// The check of the Prometheus rules.
    Promtool,
    /// The servers of a cluster; minutes to build, so only the test of a whole cluster asks for them.
    Kubernetes,
    /// The system programs that the live tests and the demo drive.
    SystemPrograms,
    /// QEMU, and busybox for its guests.
    Vm,
    /// What the bench compares tracer with.
    Peers,
}

impl Part {
    /// What `cargo xtask setup` brings.
    const ALL: [Self; 6] = [
        Self::Toolchain,
        Self::MuslTargets,
        Self::BpfLinker,
        Self::CargoDeny,
        Self::Promtool,
        Self::SystemPrograms,
    ];
}

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> Result<ExitCode> {
    if !ensure(workspace, &Part::ALL)? {
        println!("setup: nothing to do");
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings what is missing of `parts`, says so, and returns whether there was anything.
pub(crate) fn ensure(workspace: &Workspace, parts: &[Part]) -> Result<bool> {
    let rustc = Rustc::find(workspace)?;
    let mut did = false;
    for part in parts {
        did |= match part {
            Part::Toolchain => toolchain::ensure_components(workspace, &rustc)?,
            Part::MuslTargets => toolchain::ensure_targets(workspace, &rustc)?,
            Part::BpfLinker => bpf_linker::ensure(workspace, &rustc)?,
            Part::CrossCompiler => debian::ensure_cross(workspace)?,
            Part::Promtool => promtool::ensure(workspace)?,
            Part::Kubernetes => kubernetes::ensure(workspace)?,
            Part::CargoDeny => cargo_deny::ensure(workspace, &rustc)?,
            Part::SystemPrograms => debian::ensure(workspace)?,
            Part::Vm => debian::ensure_vm(workspace)?,
            Part::Peers => debian::ensure_peers(workspace)?,
        };
    }
    Ok(did)
}
