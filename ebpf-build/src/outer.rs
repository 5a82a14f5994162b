//! What the outer cargo tells its build scripts, and what they tell it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;

/// The outer build, from the variables cargo sets.
pub(crate) struct Outer {
    /// The cargo that runs the build script.
    pub(crate) cargo: PathBuf,
    /// Its compiler.
    pub(crate) rustc: PathBuf,
    /// Where the object goes.
    pub(crate) out_dir: PathBuf,
    /// The workspace's root folder.
    pub(crate) root: PathBuf,
    /// The workspace's target folder.
    pub(crate) target_dir: PathBuf,
    /// Architecture of the machine the programs will run on, as rustc names it.
    pub(crate) arch: String,
}

impl Outer {
    pub(crate) fn from_env() -> Result<Self, BuildError> {
        let manifest_dir = variable("CARGO_MANIFEST_DIR")?;
        let root = manifest_dir
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").is_file())
            .ok_or_else(|| BuildError::NoWorkspace(manifest_dir.clone()))?
            .to_owned();
        let target_dir = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self {
            cargo: variable("CARGO")?,
            rustc: variable("RUSTC")?,
            out_dir: variable("OUT_DIR")?,
            target_dir,
            root,
            arch: variable("CARGO_CFG_TARGET_ARCH")?
                .to_string_lossy()
                .into_owned(),
        })
    }

    /// The folder of a workspace package.
    pub(crate) fn package_folder(&self, package: &str) -> Result<PathBuf, BuildError> {
        let output = Command::new(&self.cargo)
            .current_dir(&self.root)
            .args(["pkgid", "--offline", "--package", package])
            .output()
            .map_err(|e| BuildError::file("run", &self.cargo, e))?;
        // `path+file:///folder#name@version`
        // https://doc.rust-lang.org/cargo/reference/pkgid-spec.html
        String::from_utf8_lossy(&output.stdout)
            .strip_prefix("path+file://")
            .and_then(|id| id.split_once('#'))
            .map(|(folder, _)| PathBuf::from(folder))
            .ok_or_else(|| BuildError::NoPackage(package.to_owned()))
    }
}

fn variable(name: &'static str) -> Result<PathBuf, BuildError> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or(BuildError::NotABuildScript(name))
}

/// Has cargo run the build script again when `path` changes.
pub(crate) fn watch(path: &Path) {
    tell(&format!("rerun-if-changed={}", path.display()));
}

/// Shows a line to whoever builds.
pub(crate) fn warn(line: &str) {
    tell(&format!("warning={line}"));
}

#[expect(
    clippy::print_stdout,
    reason = "this is how a build script talks to cargo"
)]
fn tell(instruction: &str) {
    println!("cargo::{instruction}");
}
