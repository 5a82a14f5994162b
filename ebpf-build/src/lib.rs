//! Builds the eBPF crates from the build scripts of the crates that load them.
#![forbid(unsafe_code)]
