//! Builds the eBPF crates from the build scripts of the crates that load them.
//!
//! `aya-build` does nearly this, but wants a nightly toolchain or `RUSTC_BOOTSTRAP` set for the whole
//! build. Here the bootstrap is confined to the one inner cargo that compiles the eBPF crate, and a
//! machine without the eBPF toolchain still compiles the user space.
//!
//! A build script is then one line:
//!
//! ```no_run
//! # use std::process::ExitCode;
//! fn main() -> ExitCode {
//!     ebpf_build::build("tracer-ebpf", "tracer")
//! }
//! ```
//!
//! and the object is `include_bytes!(concat!(env!("OUT_DIR"), "/tracer.bpf.o"))`: whole, or empty where
//! the toolchain was missing, which the loader has to check.
#![forbid(unsafe_code)]

mod outer;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use outer::{Outer, watch};
use toolchain::Toolchain;

/// The triple of little-endian eBPF; every platform tracer runs on is little-endian.
const TARGET: &str = "bpfel-unknown-none";

/// Compiles binary `bin` of workspace package `package` to `$OUT_DIR/{bin}.bpf.o`.
///
/// To be returned from a build script's `main`. Where bpf-linker or rust-src is missing, the object is
/// empty, one warning says so, and the build goes on.
pub fn build(package: &str, bin: &str) -> ExitCode {
    match try_build(package, bin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            #[expect(
                clippy::print_stderr,
                reason = "cargo shows a failed build script's stderr"
            )]
            {
                eprintln!("{reason}");
            }
            ExitCode::FAILURE
        }
    }
}

fn try_build(package: &str, bin: &str) -> Result<(), BuildError> {
    let outer = Outer::from_env()?;
    let object = outer.out_dir.join(format!("{bin}.bpf.o"));
    watch(&outer.root.join("Cargo.lock"));

    match Toolchain::find(&outer)? {
        Ok(toolchain) => {
            let built = compile(&outer, &toolchain, package, bin)?;
            fs::copy(&built, &object).map_err(|e| BuildError::file("copy", &built, e))?;
        }
        Err(missing) => {
            outer::warn(&format!(
                "eBPF programs left out: {missing} is missing; run `cargo xtask setup`"
            ));
            fs::write(&object, []).map_err(|e| BuildError::file("write", &object, e))?;
        }
    }
    Ok(())
}

/// Runs the inner cargo and returns the path of the linked object.
fn compile(
    outer: &Outer,
    toolchain: &Toolchain,
    package: &str,
    bin: &str,
) -> Result<PathBuf, BuildError> {
    // A target directory of its own: the outer cargo holds the lock of the usual one. It is the same for
    // debug, release and musl builds, so that only the first of them compiles.
    let target_dir = outer.target_dir.join("ebpf").join(&outer.arch);
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", outer.arch),
        "--check-cfg=cfg(bpf_target_arch,values(any()))".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let output = Command::new(&outer.cargo)
        .current_dir(&outer.root)
        .args(["build", "--release", "--target", TARGET, "-Zbuild-std=core"])
        .args(["--package", package, "--bin", bin])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Line info and BTF are made from the debug info; the workspace's release profile strips it.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        // The outer build may run under clippy, a compiler cache or a coverage tool.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .map_err(|e| BuildError::file("run", &outer.cargo, e))?;
    let messages = String::from_utf8_lossy(&output.stderr);

    let dir = target_dir.join(TARGET).join("release");
    watch_sources(outer, package, &dir.join(format!("{bin}.d")))?;
    if !output.status.success() {
        return Err(BuildError::Compile {
            package: package.to_owned(),
            messages: messages.into_owned(),
        });
    }
    if messages.contains("warning:") {
        for line in messages.lines().filter(|line| !line.trim().is_empty()) {
            outer::warn(line);
        }
    }
    Ok(dir.join(bin))
}

/// Has the build script run again when a source of the object changes: what cargo's own dep-info
/// lists, or the package's folder where there is none yet because nothing ever compiled.
fn watch_sources(outer: &Outer, package: &str, dep_info: &Path) -> Result<(), BuildError> {
    let folder = outer.package_folder(package)?;
    watch(&folder.join("Cargo.toml"));
    let listed = fs::read_to_string(dep_info).unwrap_or_default();
    let Some((_, sources)) = listed.split_once(": ") else {
        watch(&folder);
        return Ok(());
    };
    // Make's format: a blank inside a path is escaped.
    for path in sources.replace("\\ ", "\0").split_ascii_whitespace() {
        watch(Path::new(&path.replace('\0', " ")));
    }
    Ok(())
}

/// Why an eBPF crate could not be built.
#[derive(Debug)]
enum BuildError {
    /// A variable that cargo sets for build scripts is not there.
    NotABuildScript(&'static str),
    /// No folder above the manifest holds the workspace's `Cargo.lock`.
    NoWorkspace(PathBuf),
    /// The workspace has no such package.
    NoPackage(String),
    /// A file could not be read, written or run.
    File {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The inner cargo failed; its messages.
    Compile { package: String, messages: String },
}

impl BuildError {
    fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotABuildScript(name) => {
                write!(
                    f,
                    "{name} is not set: ebpf_build::build is for build scripts"
                )
            }
            Self::NoWorkspace(from) => {
                write!(f, "no Cargo.lock in any folder above {}", from.display())
            }
            Self::NoPackage(package) => write!(f, "the workspace has no package `{package}`"),
            Self::File {
                action,
                path,
                source,
            } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Compile { package, messages } => {
                write!(f, "compiling {package} for {TARGET} failed:\n{messages}")
            }
        }
    }
}

impl std::error::Error for BuildError {}
