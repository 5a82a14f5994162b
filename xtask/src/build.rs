//! `cargo xtask build`: the `tracer` binary, eBPF programs and all.

use std::process::ExitCode;

use anyhow::Result;

use crate::process;
use crate::setup::{self, Part};
use crate::workspace::{Workspace, short};

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
    let mut parts = vec![Part::Toolchain, Part::BpfLinker];
    if arguments.target.is_some() {
        parts.push(Part::MuslTargets);
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
            // rustc brings musl's start files and its own linker: no cross compiler is needed.
            let name = target.replace('-', "_").to_uppercase();
            cargo.env(format!("CARGO_TARGET_{name}_LINKER"), "rust-lld");
        }
    }
    process::run(&mut cargo)?;
    let binary = folder
        .join(if arguments.debug { "debug" } else { "release" })
        .join("tracer");
    println!("{}", short(workspace, &binary));
    Ok(ExitCode::SUCCESS)
}
