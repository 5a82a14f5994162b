//! `cargo xtask build`: the `tracer` binary, eBPF programs and all.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::process;
use crate::setup::{self, Part};
use crate::workspace::{Workspace, short};

/// Debian's compiler for aarch64.
const CROSS_CC: &str = "aarch64-linux-gnu-gcc";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build without optimization
    #[arg(long)]
    debug: bool,
    /// Build for this target; a musl one gives a static binary
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let binary = build(workspace, arguments)?;
    println!("{}", short(workspace, &binary));
    Ok(ExitCode::SUCCESS)
}

/// The optimized binary for `target`.
pub(crate) fn release(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    build(
        workspace,
        &Arguments {
            debug: false,
            target: Some(target.to_owned()),
        },
    )
}

/// The binary for `target`, without optimization.
pub(crate) fn debug(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    build(
        workspace,
        &Arguments {
            debug: true,
            target: Some(target.to_owned()),
        },
    )
}

fn build(workspace: &Workspace, arguments: &Arguments) -> Result<PathBuf> {
    let mut parts = vec![Part::Toolchain, Part::BpfLinker];
    if arguments.target.is_some() {
        parts.push(Part::MuslTargets);
    }
    if arguments
        .target
        .as_ref()
        .is_some_and(|target| target.starts_with("aarch64") && env::consts::ARCH != "aarch64")
    {
        parts.push(Part::CrossCompiler);
    }
    setup::ensure(workspace, &parts)?;

    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package=tracer-user", "--bin=tracer"]);
    if !arguments.debug {
        cargo.arg("--release");
    }
    let mut folder = workspace.target_dir.clone();
    if let Some(target) = &arguments.target {
        cargo.args(["--target", target]);
        folder.push(target);
        if target.ends_with("-linux-musl") {
            // rustc brings musl's start files and its own linker.
            let name = target.replace('-', "_").to_uppercase();
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), "rust-lld");
            // Dependencies with C in them need no more of libc than its headers' common part.
            let foreign = !target.starts_with(env::consts::ARCH);
            cargo.env(
                format!("CC_{}", target.replace('-', "_")),
                if foreign { CROSS_CC } else { "cc" },
            );
        }
    }
    process::run(&mut cargo)?;
    let binary = folder
        .join(if arguments.debug { "debug" } else { "release" })
        .join("tracer");
    Ok(binary)
}
