//! The least that observing a drop can cost: what the benchmarks compare with.

use anyhow::{Context, Result};
use aya::programs::{BtfTracePoint, RawTracePoint};
use aya::{Btf, Ebpf};

/// A program at `skb:kfree_skb` that counts and does nothing else. Gone with this value.
#[derive(Debug)]
pub struct Floor {
    /// The program's name.
    pub program: &'static str,
    _ebpf: Ebpf,
}

impl Floor {
    /// At a raw tracepoint. Needs root.
    pub fn raw() -> Result<Self> {
        Self::attach("lab_floor_raw", |ebpf, name| {
            let program = ebpf.program_mut(name).context("it is not there")?;
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach("kfree_skb")?;
            Ok(())
        })
    }

    /// At a BTF tracepoint. Needs root, and a kernel with BTF.
    pub fn btf() -> Result<Self> {
        Self::attach("lab_floor_btf", |ebpf, name| {
            let program = ebpf.program_mut(name).context("it is not there")?;
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load("kfree_skb", &Btf::from_sys_fs()?)?;
            program.attach()?;
            Ok(())
        })
    }

    fn attach(
        program: &'static str,
        attach: impl FnOnce(&mut Ebpf, &str) -> Result<()>,
    ) -> Result<Self> {
        let mut ebpf = crate::object::load()?;
        attach(&mut ebpf, program).with_context(|| format!("program {program}"))?;
        Ok(Self {
            program,
            _ebpf: ebpf,
        })
    }
}
