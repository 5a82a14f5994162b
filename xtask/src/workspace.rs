//! Where the workspace is, which packages it has, and which Rust toolchain builds it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// The workspace this xtask belongs to.
pub(crate) struct Workspace {
    /// Its root folder.
    pub(crate) root: PathBuf,
    /// Its target folder.
    pub(crate) target_dir: PathBuf,
    cargo: OsString,
}

/// One workspace package.
#[derive(Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    id: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// The workspace's packages, by the machine they are for.
pub(crate) struct Packages {
    /// Those of user space: the default members.
    pub(crate) user: Vec<Package>,
    /// Those that build for eBPF only.
    pub(crate) ebpf: Vec<Package>,
}

/// The Rust toolchain in use.
pub(crate) struct Rustc {
    /// Release and commit, `1.95.0-0123456`: two builds of one version differ in the second.
    pub(crate) version: String,
    /// Triple of this machine.
    pub(crate) host: String,
    /// Folder the toolchain lies in.
    pub(crate) sysroot: PathBuf,
}

impl Workspace {
    /// Finds the workspace this program was started or, without cargo, built from.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .parent()
            .with_context(|| format!("{} lies in no workspace", package.display()))?
            .to_owned();
        let target_dir = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |folder| root.join(folder));
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self {
            root,
            target_dir,
            cargo,
        })
    }

    /// A cargo that knows nothing of the cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = self.command(&self.cargo);
        // Some build scripts (ring's) run again when these change, and they are not there when a
        // developer calls cargo directly: each would undo the other's build.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// A command in the workspace's root, so that its pinned toolchain counts.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Where the tools that the build needs are put.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target_dir.join("tools")
    }

    /// The packages, told apart by whether they are default members.
    pub(crate) fn packages(&self) -> Result<Packages> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
            workspace_default_members: Vec<String>,
        }
        let mut cargo = self.cargo();
        cargo.args(["metadata", "--no-deps", "--format-version=1"]);
        let metadata: Metadata = serde_json::from_str(&process::output(&mut cargo)?)
            .context("`cargo metadata` printed something else than expected")?;
        let (user, ebpf) = metadata
            .packages
            .into_iter()
            .partition(|package| metadata.workspace_default_members.contains(&package.id));
        Ok(Packages { user, ebpf })
    }
}

impl Package {
    /// Whether it has a `tests` folder with something in it.
    pub(crate) fn has_integration_tests(&self) -> bool {
        let test = "test".to_owned();
        self.targets
            .iter()
            .any(|target| target.kind.contains(&test))
    }
}

impl Rustc {
    /// Asks the rustc that the workspace's toolchain file selects.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let rustc = || workspace.command("rustc");
        let verbose = process::output(rustc().arg("-vV"))?;
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("`rustc -vV` names no {name}"))
        };
        let commit = field("commit-hash")?;
        Ok(Self {
            version: format!(
                "{}-{}",
                field("release")?,
                commit.get(..7).unwrap_or(commit)
            ),
            host: field("host")?.to_owned(),
            sysroot: process::output(rustc().args(["--print", "sysroot"]))?
                .trim_end()
                .into(),
        })
    }

    /// The toolchain's folder of per-target files.
    pub(crate) fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }
}

/// `path` as a reader in the workspace's root would type it.
pub(crate) fn short<'a>(workspace: &Workspace, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(&workspace.root).unwrap_or(path).display()
}
