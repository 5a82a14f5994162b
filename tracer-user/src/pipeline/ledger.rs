//! What was counted and told, kept in a file, so that an agent that is killed goes on where it ended.
//!
//! First line: a [`Head`] as JSON. The rest: [`Marks`] as bytes. It is only ever replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::kernel::{Marks, Settled};
use crate::pipeline::Losses;
use crate::sink::metrics::{Metrics, Series};

/// Version of the file; others are not read.
const FORMAT: u32 = 1;

/// No ledger of ours is larger: a million flows, and 40,000 series.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// The counters.
    series: Vec<Series>,
    /// Records that could not be decoded.
    undecoded: u64,
}

/// What an earlier agent left.
#[derive(Debug)]
pub struct Past {
    /// What it told.
    pub marks: Marks,
    head: Head,
}

impl Past {
    /// Reads a ledger; `None` where there is none that can be used, which is said.
    pub fn read(path: &Path) -> Option<Self> {
        match read(path) {
            Ok(past) => Some(past),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(
                    "what was counted before is not known: {}: {error}",
                    path.display()
                );
                None
            }
        }
    }

    /// Goes on counting where the earlier agent ended.
    pub fn restore(&self, metrics: &Metrics, losses: &Losses) {
        metrics.restore(&self.head.series);
        losses.restore(self.head.undecoded);
    }
}

fn read(path: &Path) -> io::Result<Past> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    let foreign = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no ledger of this version",
        )
    };
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(foreign)?;
    let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|_| foreign())?;
    let marks = Marks::from_bytes(&bytes[end + 1..]).ok_or_else(foreign)?;
    if head.format != FORMAT {
        return Err(foreign());
    }
    Ok(Past { marks, head })
}

/// Keeps the ledger. Lives with the sinks, so that it holds exactly what they were given.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    metrics: Arc<Metrics>,
    losses: Arc<Losses>,
    settled: Settled,
    caught_up: watch::Sender<bool>,
    failed: bool,
}

impl Ledger {
    /// Into a file at `path`.
    pub fn new(
        path: PathBuf,
        metrics: Arc<Metrics>,
        losses: Arc<Losses>,
        settled: Settled,
    ) -> Self {
        Self {
            path,
            metrics,
            losses,
            settled,
            caught_up: watch::Sender::new(false),
            failed: false,
        }
    }

    /// Becomes true when everything that was counted before the start is in the metrics.
    pub fn caught_up(&self) -> watch::Receiver<bool> {
        self.caught_up.subscribe()
    }

    /// Writes it: `marks` are of records that the sinks have been given.
    pub(super) fn write(&mut self, marks: &Marks) {
        match self.replace(marks) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(
                    "{}: {error}; after a crash drops may be counted twice",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
        // Also where it could not be written: flows must be let go of all the same.
        self.settled.settle(marks);
        if marks.are_caught_up() {
            self.caught_up.send_replace(true);
        }
    }

    fn replace(&self, marks: &Marks) -> io::Result<()> {
        let head = Head {
            format: FORMAT,
            series: self.metrics.series(),
            undecoded: self.losses.decode(),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&marks.to_bytes());
        let new = self.path.with_extension("new");
        private(&new)?.write_all(&bytes)?;
        fs::rename(new, &self.path)
    }
}

/// A new file that nobody else may read: it says who talked to whom.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = private(&folder.path().join("ledger")).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
