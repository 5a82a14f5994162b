//! The least that observing a drop can cost: what the benchmarks compare with.

use anyhow::{Context, Result};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};

/// A program `lab_floor` at `skb:kfree_skb` that counts and does nothing else. Gone with this value.
#[derive(Debug)]
pub struct Floor {
    _ebpf: Ebpf,
}

impl Floor {
    /// Attaches it. Needs root, and a kernel with BTF.
    pub fn attach() -> Result<Self> {
        let mut ebpf = crate::object::load()?;
        let program: &mut BtfTracePoint = ebpf
            .program_mut("lab_floor")
            .context("no program lab_floor in the lab's object")?
            .try_into()?;
        program.load("kfree_skb", &Btf::from_sys_fs()?)?;
        program.attach()?;
        Ok(Self { _ebpf: ebpf })
    }
}
