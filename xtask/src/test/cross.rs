//! The other architecture: what can be known of it without a machine of its kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya_obj::Object;

use super::Stage;
use super::summary::Outcome;
use crate::build;
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-unknown-linux-musl";

/// `EM_AARCH64`, <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/elf-em.h#L41>.
const MACHINE: u16 = 183;

/// The binary and the eBPF object build, and the object holds the programs and maps that this machine's does.
pub(super) fn run(stage: &Stage<'_>) -> Result<Outcome> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Outcome::Skipped("the other one is this one".to_owned()));
    }
    let binary = build::debug(stage.workspace, TARGET)?;
    let head = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let machine = head.get(18..20).context("no ELF header")?;
    ensure!(
        machine == MACHINE.to_le_bytes(),
        "{} is for machine {machine:?}",
        binary.display()
    );
    let own = contents(stage.workspace, "x86_64")?;
    let other = contents(stage.workspace, "aarch64")?;
    for part in own.keys().chain(other.keys()) {
        let (here, there) = (own.get(part), other.get(part));
        if here != there {
            bail!("{part}: {here:?} here, {there:?} for aarch64");
        }
    }
    let programs = own
        .keys()
        .filter(|part| part.starts_with("program"))
        .count();
    let maps = own.len() - programs;
    ensure!(programs > 0 && maps > 0, "{programs} programs, {maps} maps");
    Ok(Outcome::Passed(format!(
        "the binary is built; its object has the same {programs} programs and {maps} maps; nothing of it was run"
    )))
}

/// What an object holds: each program with its kind, each map with its shape.
fn contents(workspace: &Workspace, arch: &str) -> Result<BTreeMap<String, String>> {
    let path = workspace
        .target_dir
        .join("ebpf")
        .join(arch)
        .join("bpfel-unknown-none/release/tracer");
    parse(&path).with_context(|| format!("{}", path.display()))
}

fn parse(path: &Path) -> Result<BTreeMap<String, String>> {
    let object = Object::parse(&fs::read(path)?)?;
    let programs = object
        .programs
        .iter()
        .map(|(name, program)| (format!("program {name}"), format!("{:?}", program.section)));
    let maps = object.maps.iter().map(|(name, map)| {
        let shape = [
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
        ];
        (format!("map {name}"), format!("{shape:?}"))
    });
    Ok(programs.chain(maps).collect())
}
