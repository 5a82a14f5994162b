//! cargo-deny, which checks the dependencies' licences, sources and known vulnerabilities.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache;
use crate::process;
use crate::workspace::{Rustc, Workspace};

/// Wants rustc 1.88 or newer.
const VERSION: &str = "0.20.2";

pub(super) fn ensure(workspace: &Workspace, rustc: &Rustc) -> Result<bool> {
    let (_, made) = cache::entry(
        &key(rustc),
        |entry| program(entry).is_file(),
        |entry| build(workspace, entry),
    )?;
    Ok(made)
}

/// Where [`ensure`] left it. Not among the project's tools: those are an input of the eBPF build.
pub(crate) fn find(rustc: &Rustc) -> Result<PathBuf> {
    Ok(program(&cache::folder()?.join(key(rustc))))
}

fn key(rustc: &Rustc) -> String {
    format!(
        "cargo-deny-{VERSION}-rustc-{}-{}",
        rustc.version, rustc.host
    )
}

fn program(entry: &Path) -> PathBuf {
    entry.join("bin/cargo-deny")
}

fn build(workspace: &Workspace, entry: &Path) -> Result<()> {
    eprintln!("setup: building cargo-deny {VERSION} (a minute or two, once per user)");
    let target_dir = entry.join("build");
    process::run(
        workspace
            .cargo()
            .args([
                "install",
                "--quiet",
                "--locked",
                "cargo-deny",
                "--version",
                VERSION,
            ])
            .args(["--no-default-features", "--no-track", "--root"])
            .arg(entry)
            .env("CARGO_TARGET_DIR", &target_dir)
            // It runs for a second and is built for minutes: trade the one for the other.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_BUILD_TARGET"),
    )
    .context("could not build cargo-deny")?;
    fs::remove_dir_all(&target_dir)
        .with_context(|| format!("cannot remove {}", target_dir.display()))
}
