//! Starting servers, each with a log file, and waiting for what they promise.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::PROGRAMS;
use crate::netns::Netns;

/// How often a condition without an event of its own is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where a program is.
pub(super) fn find(program: &str) -> Result<PathBuf> {
    let folders = std::env::var_os(PROGRAMS)
        .with_context(|| format!("{PROGRAMS} is not set; run `cargo xtask test --only e2e`"))?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("`{program}` is in none of the folders of {PROGRAMS}"))
}

/// A server that is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(super) fn start(
        netns: &Netns,
        name: &'static str,
        program: &Path,
        folder: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let errors = file.try_clone()?;
        let child = netns.spawn(program, |command| {
            command
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(file)
                .stderr(errors);
            configure(command);
        })?;
        Ok(Self { name, child, log })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready`; fails with the end of the log when the server ends, or after `patience`.
    pub(super) fn wait(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready()? {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}\n{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {} s\n{}",
                    self.name,
                    patience.as_secs(),
                    self.last_words()
                );
            }
            thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
