//! promtool, which checks the alerts: out of Debian's package, which is unpacked and not installed, since it
//! would start a server.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{cache, debian};
use crate::process;
use crate::workspace::Workspace;

const KEY: &str = "promtool-debian";

pub(super) fn ensure(workspace: &Workspace) -> Result<bool> {
    if process::find("promtool").is_some() {
        return Ok(false);
    }
    let (_, made) = cache::entry(
        KEY,
        |entry| program(entry).is_file(),
        |entry| unpack(workspace, entry),
    )?;
    Ok(made)
}

/// The system's own, else what [`ensure`] unpacked.
pub(crate) fn find() -> Result<PathBuf> {
    match process::find("promtool") {
        Some(found) => Ok(found),
        None => Ok(program(&cache::folder()?.join(KEY))),
    }
}

fn program(entry: &Path) -> PathBuf {
    entry.join("usr/bin/promtool")
}

fn unpack(workspace: &Workspace, entry: &Path) -> Result<()> {
    if process::find("apt-get").is_none() {
        bail!(
            "promtool is missing; install it (it comes with Prometheus) and see that it is in PATH"
        );
    }
    eprintln!("setup: unpacking promtool from Debian's package prometheus");
    debian::unpack(workspace, &["prometheus"], entry)
}
