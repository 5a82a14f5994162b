//! bpf-linker, built against the LLVM that rustc itself ships: the two can then not disagree about the
//! bitcode, and no LLVM has to be installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cache;
use crate::process;
use crate::workspace::{Rustc, Workspace, short};

const VERSION: &str = "0.13.0";

pub(super) fn ensure(workspace: &Workspace, rustc: &Rustc) -> Result<bool> {
    let key = format!(
        "bpf-linker-{VERSION}-rustc-{}-{}",
        rustc.version, rustc.host
    );
    let linker = workspace.tools().join("bin/bpf-linker");
    let stamp = workspace.tools().join("bpf-linker.version");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == key) && works(&linker) {
        return Ok(false);
    }

    let (entry, made) = cache::entry(
        &key,
        |entry| works(&entry.join("bin/bpf-linker")),
        |entry| build(workspace, rustc, entry),
    )?;
    if !made {
        eprintln!(
            "setup: taking bpf-linker {VERSION} from {}",
            entry.display()
        );
    }
    cache::place(&entry.join("bin/bpf-linker"), &linker)?;
    fs::write(&stamp, key).with_context(|| format!("cannot write {}", stamp.display()))?;
    eprintln!("setup: bpf-linker is at {}", short(workspace, &linker));
    Ok(true)
}

/// It may be there and not start: its run path leads to a toolchain that can be gone.
fn works(linker: &Path) -> bool {
    linker.is_file()
        && Command::new(linker)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
}

fn build(workspace: &Workspace, rustc: &Rustc, entry: &Path) -> Result<()> {
    let lib = rustc.sysroot.join("lib");
    let llvm = Llvm::find(&lib)?;
    eprintln!(
        "setup: building bpf-linker {VERSION} against rustc's own LLVM {} (about a minute)",
        llvm.major
    );
    let flags = [
        format!("-Lnative={}", lib.display()),
        format!("-ldylib={}", llvm.library),
        format!("-Clink-arg=-Wl,-rpath,{}", lib.display()),
    ];
    let target_dir = entry.join("build");
    process::run(
        workspace
            .cargo()
            .args([
                "install",
                "--quiet",
                "--locked",
                "bpf-linker",
                "--version",
                VERSION,
            ])
            .args(["--no-default-features", "--no-track"])
            .arg(format!("--features=llvm-{},no-llvm-linking", llvm.major))
            .arg("--root")
            .arg(entry)
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env_remove("CARGO_BUILD_TARGET"),
    )
    .context("could not build bpf-linker")?;
    fs::remove_dir_all(&target_dir)
        .with_context(|| format!("cannot remove {}", target_dir.display()))
}

/// The LLVM that a rustc ships.
#[derive(Debug, PartialEq, Eq)]
struct Llvm {
    /// Its version, as bpf-linker's features count.
    major: String,
    /// Its name for the linker: the file's, less `lib` and `.so`.
    library: String,
}

impl Llvm {
    fn find(lib: &Path) -> Result<Self> {
        fs::read_dir(lib)
            .with_context(|| format!("cannot read {}", lib.display()))?
            .filter_map(Result::ok)
            .find_map(|file| Self::from_file_name(&file.file_name().to_string_lossy()))
            .with_context(|| {
                format!(
                    "{} holds no libLLVM-*-rust-*.so: this rustc was built against another LLVM; \
                     use a toolchain from rustup",
                    lib.display()
                )
            })
    }

    /// From `libLLVM-22-rust-1.95.0-stable.so`.
    fn from_file_name(name: &str) -> Option<Self> {
        let library = name.strip_prefix("lib")?.strip_suffix(".so")?;
        let (major, _) = library.strip_prefix("LLVM-")?.split_once("-rust-")?;
        major.parse::<u32>().ok()?;
        Some(Self {
            major: major.to_owned(),
            library: library.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Llvm;

    #[test]
    fn the_llvm_of_rustc_is_told_by_its_file_name() {
        let found = Llvm::from_file_name("libLLVM-23-rust-1.99.1-stable.so").unwrap();
        assert_eq!(found.major, "23");
        assert_eq!(found.library, "LLVM-23-rust-1.99.1-stable");
        for other in [
            "libLLVM.so.22.1-rust-1.95.0-stable",
            "libLLVM-22.so",
            "librustc_driver-6108.so",
        ] {
            assert_eq!(Llvm::from_file_name(other), None, "{other}");
        }
    }
}
