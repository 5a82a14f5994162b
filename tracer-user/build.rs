//! Builds the eBPF object that the binary carries.
fn main() {}
