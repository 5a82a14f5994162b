//! What takes long to build, kept per user, so that a second clone of the project is quick.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `${XDG_CACHE_HOME:-~/.cache}/tracer`.
pub(super) fn folder() -> Result<PathBuf> {
    // The base directory specification: a relative path is to be ignored.
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .map(|caches| caches.join("tracer"))
        .context("neither XDG_CACHE_HOME nor HOME is set: no place to keep built tools")
}

/// The entry `key`, made by `make` where it is missing or `good` rejects it.
///
/// `make` fills the folder it is given, which becomes the entry only when it succeeded. Another
/// process that wants the same entry waits. Returns the entry's folder and whether it was made now.
pub(crate) fn entry(
    key: &str,
    good: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<(PathBuf, bool)> {
    let cache = folder()?;
    let entry = cache.join(key);
    if good(&entry) {
        return Ok((entry, false));
    }

    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{key}.lock")))?;
    // Whoever held the lock may have made it.
    if good(&entry) {
        return Ok((entry, false));
    }
    // Left behind by a process that was killed; nobody else works here while the lock is held.
    let making = cache.join(format!("{key}.new"));
    remove(&making)?;
    fs::create_dir(&making).with_context(|| format!("cannot create {}", making.display()))?;
    if let Err(error) = make(&making) {
        remove(&making)?;
        return Err(error);
    }
    remove(&entry)?;
    fs::rename(&making, &entry)
        .with_context(|| format!("cannot rename {} to {key}", making.display()))?;
    Ok((entry, true))
}

/// Copies a program to a place where others may be about to run it.
pub(super) fn place(program: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let new = to.with_added_extension(format!("{}.new", std::process::id()));
    fs::copy(program, &new)
        .and_then(|_| fs::rename(&new, to))
        .with_context(|| format!("cannot copy {} to {}", program.display(), to.display()))
}

/// The kernel lets the lock go with the process.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!(
                "setup: waiting for another setup to end ({})",
                path.display()
            );
            file.lock().map(|()| file)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
    .with_context(|| format!("cannot lock {}", path.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
