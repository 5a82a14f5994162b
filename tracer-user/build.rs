//! Builds the eBPF object that the binary carries.

use std::process::ExitCode;

fn main() -> ExitCode {
    ebpf_build::build("tracer-ebpf", "tracer")
}
