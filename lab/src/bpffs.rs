//! A bpffs for what a program under test pins.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A bpffs that is mounted nowhere, and gone with this value, however the process ends, with all that is
/// pinned in it.
#[derive(Debug)]
pub struct Bpffs {
    mount: File,
}

impl Bpffs {
    /// An empty one. Needs root.
    pub fn new() -> Result<Self> {
        let filesystem = fsopen("bpf", FsOpenFlags::empty()).context("no bpffs")?;
        fsconfig_create(&filesystem)?;
        let mount = fsmount(&filesystem, FsMountFlags::empty(), MountAttrFlags::empty())?;
        Ok(Self {
            mount: mount.into(),
        })
    }

    /// A path that leads to its root while this process lives (`/proc/PID/fd/N`).
    pub fn path(&self) -> PathBuf {
        let (process, file) = (std::process::id(), self.mount.as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{file}"))
    }

    /// The same for a child, which may not be allowed to look into this process (`/proc/self/fd/N`).
    pub fn inherited_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }
}
