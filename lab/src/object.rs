//! The lab's own eBPF programs.

use anyhow::{Context, Result, bail};
use aya::Ebpf;

/// The object built from `lab/ebpf`; empty where the eBPF toolchain was missing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));

/// Makes the maps; programs are loaded one by one.
pub(crate) fn load() -> Result<Ebpf> {
    if OBJECT.is_empty() {
        bail!("lab was built without its eBPF object; run `cargo xtask setup`, then build again");
    }
    Ebpf::load(OBJECT).context("cannot load the lab's eBPF object")
}
