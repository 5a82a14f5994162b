//! The project's own commands: `cargo xtask <command>`.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: results on stdout, progress on stderr"
)]

mod bench;
mod build;
mod demo;
mod failures;
mod image;
mod manifests;
mod privilege;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring what building and testing need: toolchain parts, bpf-linker, cargo-deny, Debian packages
    Setup(setup::Arguments),
    /// Measure what tracer costs: a drop, a flood, memory, a start
    Bench(bench::Arguments),
    /// Build the `tracer` binary with its eBPF programs
    Build(build::Arguments),
    /// Replay the incident on this machine: watch, explain, suggest, cure
    Demo(demo::Arguments),
    /// Pack the static binary into an OCI archive that containerd and K3s import
    Image(image::Arguments),
    /// Write what deploy/ holds twice from what it is made from
    Manifests(manifests::Arguments),
    /// Run the agent as it is installed, in a real cluster: `test --only e2e`
    E2e,
    /// Run every check: formatting, lints, unit and live tests, docs, licences
    Test(test::Arguments),
    /// Boot other kernels in QEMU and capture a drop on each
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = Workspace::find().and_then(|workspace| match arguments.command {
        Command::Setup(arguments) => setup::run(&workspace, &arguments),
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Demo(arguments) => demo::run(&workspace, &arguments),
        Command::Image(arguments) => image::run(&workspace, &arguments),
        Command::Manifests(arguments) => manifests::run(&workspace, &arguments),
        Command::E2e => test::run(&workspace, &test::Arguments::e2e()),
        Command::Test(arguments) => test::run(&workspace, &arguments),
        Command::Vm(arguments) => vm::run(&workspace, &arguments),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
