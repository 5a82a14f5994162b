//! Root, for the part that needs it only: building never does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::{Rustc, Workspace};

/// How this process gets root.
#[derive(Clone, Copy)]
pub(crate) enum Privilege {
    /// It is root.
    Root,
    /// By sudo, which may ask for a password.
    Sudo,
}

impl Privilege {
    /// Finds a way, or fails with what to do; `purpose` completes "... needs root".
    pub(crate) fn find(purpose: &str) -> Result<Self> {
        // The owner of /proc/self is the effective user (proc(5)).
        let owner = fs::metadata("/proc/self")
            .context("cannot read /proc/self")?
            .uid();
        if owner == 0 {
            Ok(Self::Root)
        } else if process::find("sudo").is_some() {
            Ok(Self::Sudo)
        } else {
            bail!("{purpose} needs root: run it as root, or install sudo")
        }
    }

    /// A command that runs `program` as root.
    pub(crate) fn command(self, workspace: &Workspace, program: &str) -> Command {
        match self {
            Self::Root => workspace.command(program),
            Self::Sudo => {
                let mut sudo = workspace.command("sudo");
                sudo.arg(program);
                sudo
            }
        }
    }

    /// Makes cargo run what it built as root, while it goes on building as the user.
    pub(crate) fn apply_to_runner(self, cargo: &mut Command, rustc: &Rustc) {
        if matches!(self, Self::Sudo) {
            let host = rustc.host.replace('-', "_").to_uppercase();
            cargo.env(format!("CARGO_TARGET_{host}_RUNNER"), "sudo -E");
        }
    }
}
