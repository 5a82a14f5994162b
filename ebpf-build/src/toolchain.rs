//! Finding what compiles eBPF: bpf-linker and the sources of `core`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::outer::{Outer, watch};

/// The eBPF toolchain of this machine.
pub(crate) struct Toolchain {
    /// bpf-linker.
    pub(crate) linker: PathBuf,
}

impl Toolchain {
    /// Finds it, or tells by name what is missing.
    pub(crate) fn find(outer: &Outer) -> Result<Result<Self, &'static str>, BuildError> {
        let sysroot = sysroot(&outer.rustc)?;
        let rustlib = sysroot.join("lib/rustlib");
        // rustup rewrites this list whenever a component comes or goes.
        let components = rustlib.join("components");
        if components.is_file() {
            watch(&components);
        }
        if !rustlib.join("src/rust/library/core/src/lib.rs").is_file() {
            return Ok(Err("the rustup component rust-src"));
        }

        // The folder must exist to be watched: a missing path would make cargo rebuild every time.
        let tools = outer.target_dir.join("tools/bin");
        fs::create_dir_all(&tools).map_err(|e| BuildError::file("create", &tools, e))?;
        watch(&tools);
        Ok(linker(&tools)
            .map(|linker| Self { linker })
            .ok_or("bpf-linker"))
    }
}

fn linker(tools: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(tools.to_owned())
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

fn sysroot(rustc: &Path) -> Result<PathBuf, BuildError> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| BuildError::file("run", rustc, e))?;
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim_end(),
    ))
}
