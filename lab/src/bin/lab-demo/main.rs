//! The incident, replayed: real sockets, a real enforcer, the real tracer in the real kernel.
//!
//! `cargo xtask demo` builds and starts it. It exits 0 only where everything it tells was observed.

mod observe;
mod stage;
mod story;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Replays the incident tracer was born from.
#[derive(Debug, Parser)]
struct Arguments {
    /// What enforces the policy.
    #[arg(long, value_enum, default_value_t = Shape::Tc)]
    enforcer: Shape,
    /// The `tracer` binary.
    #[arg(long)]
    tracer: PathBuf,
    /// Where manifests, recorded drops, the suggested policy and the report are left.
    #[arg(long)]
    out: PathBuf,
}

/// Whose way of dropping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// An eBPF allow-list at tc, as in the incident (Calico in eBPF mode).
    Tc,
    /// Netfilter rules as K3s's own kube-router installs them.
    Iptables,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match story::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
