//! `cargo xtask image`: the static binary as an OCI archive, which `ctr images import` and K3s's folder for
//! images take. No container engine is needed.

mod archive;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build as binary;
use crate::workspace::Workspace;
use archive::{Image, Platform};

/// What the image may weigh, in bytes.
const LIMIT: u64 = 20 << 20;

const NAME: &str = concat!("tracer:", env!("CARGO_PKG_VERSION"));

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Processor architecture: amd64 or arm64
    #[arg(long, default_value = "amd64", value_parser = ["amd64", "arm64"])]
    arch: String,
    /// Name and tag
    #[arg(long, value_name = "NAME:TAG", default_value = NAME)]
    name: String,
    /// Take this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where to write it; target/image/tracer-ARCH.tar by default
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The image for this machine, as the manifests name it.
pub(crate) fn host(workspace: &Workspace) -> Result<PathBuf> {
    let arch = match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let arguments = Arguments {
        arch: arch.to_owned(),
        name: NAME.to_owned(),
        binary: None,
        out: None,
    };
    build(workspace, &arguments)
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    build(workspace, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn build(workspace: &Workspace, arguments: &Arguments) -> Result<PathBuf> {
    let (architecture, triple) = match arguments.arch.as_str() {
        "arm64" => ("arm64", "aarch64-unknown-linux-musl"),
        _ => ("amd64", "x86_64-unknown-linux-musl"),
    };
    let Some((name, tag)) = arguments
        .name
        .rsplit_once(':')
        .filter(|(name, tag)| !name.is_empty() && !tag.is_empty() && !tag.contains('/'))
    else {
        bail!("--name {}: expected NAME:TAG", arguments.name);
    };
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => binary::release(workspace, triple)?,
    };
    let program = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    if !is_static(&program) {
        bail!(
            "{} is not a static binary, and the image holds nothing else; build it with \
             `cargo xtask build --target {triple}`",
            binary.display()
        );
    }
    let image = Image {
        name,
        tag,
        platform: Platform { architecture },
        program: &program,
    };
    let bytes = image.archive()?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let folder = workspace.target_dir.join("image");
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            folder.join(format!("tracer-{architecture}.tar"))
        }
    };
    fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
    let size = bytes.len() as u64;
    println!(
        "{}: {}.{} MiB",
        out.display(),
        size >> 20,
        ((size & 0xf_ffff) * 10) >> 20
    );
    if size > LIMIT {
        bail!("the image is larger than {} MiB", LIMIT >> 20);
    }
    Ok(out)
}

/// Whether an ELF file asks for no dynamic linker: it has no `PT_INTERP` segment (type 3).
fn is_static(program: &[u8]) -> bool {
    let number = |at: usize, length: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(program.get(at..at + length)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let segments = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|index| number(start + index * size, 4))
            .collect::<Option<Vec<_>>>()
    };
    program.starts_with(b"\x7fELF") && segments().is_some_and(|types| !types.contains(&3))
}
