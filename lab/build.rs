//! Builds the tc enforcer's object.

use std::process::ExitCode;

fn main() -> ExitCode {
    ebpf_build::build("lab-ebpf", "lab")
}
