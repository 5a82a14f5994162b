//! The parts of the Rust toolchain that a minimal installation lacks.

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::{Rustc, Workspace};

/// rustup's name of a component, and a file that it brings.
const COMPONENTS: [(&str, &str); 3] = [
    ("rust-src", "lib/rustlib/src/rust/library/core/src/lib.rs"),
    ("clippy", "bin/cargo-clippy"),
    ("rustfmt", "bin/cargo-fmt"),
];

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

pub(super) fn ensure_components(workspace: &Workspace, rustc: &Rustc) -> Result<bool> {
    let missing: Vec<_> = COMPONENTS
        .iter()
        .filter(|(_, file)| !rustc.sysroot.join(file).is_file())
        .map(|(component, _)| *component)
        .collect();
    add(workspace, rustc, "component", &missing)
}

pub(super) fn ensure_targets(workspace: &Workspace, rustc: &Rustc) -> Result<bool> {
    let missing: Vec<_> = TARGETS
        .into_iter()
        .filter(|target| !rustc.rustlib().join(target).join("lib").is_dir())
        .collect();
    add(workspace, rustc, "target", &missing)
}

/// Where there is no rustup, says what is missing and goes on: what needs it will say so again.
fn add(workspace: &Workspace, rustc: &Rustc, kind: &str, missing: &[&str]) -> Result<bool> {
    if missing.is_empty() {
        return Ok(false);
    }
    let names = missing.join(", ");
    if process::find("rustup").is_none() {
        eprintln!(
            "setup: the Rust toolchain in {} lacks the {kind} {names}, and there is no rustup to add it; \
             add it the way that toolchain was installed",
            rustc.sysroot.display()
        );
        return Ok(true);
    }
    eprintln!("setup: adding the {kind} {names} to the Rust toolchain");
    // In the workspace's folder rustup means the pinned toolchain.
    process::run(
        workspace
            .command("rustup")
            .args([kind, "add"])
            .args(missing),
    )
    .with_context(|| format!("could not add the {kind} {names}; is there a network?"))?;
    Ok(true)
}
