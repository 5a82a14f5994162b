//! One lab at a time on a machine: `kfree_skb` sees the drops of every namespace.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Held while a lab lives; the kernel releases it with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lab that is alive to end, and says so where it has to wait.
    pub(crate) fn acquire() -> Result<Self> {
        // Root's own folder: in a sticky one, `fs.protected_regular` keeps root from another's file.
        let path = Path::new("/run/tracer-lab.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the lab's lock file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let _ = writeln!(
                    io::stderr(),
                    "lab: another lab is alive on this machine; waiting for it to end ({})",
                    path.display()
                );
                file.lock()
                    .with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { _file: file })
    }
}
