//! What was counted and told, kept in a file, so that an agent that is killed goes on where it ended.
//!
//! First line: a [`Head`] as JSON. The rest: [`Marks`] as bytes. It is only ever replaced as a whole.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Losses;
use super::waiting::Waiting;
use crate::kernel::{Marks, Settled};
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
    /// Marks of records that may not all have been given to the sinks.
    pending: VecDeque<Pending>,
    /// The last marks, where the ledger has less, and no record has come since.
    owed: Option<Marks>,
    failed: bool,
}

/// Marks that are to be settled.
#[derive(Debug)]
struct Pending {
    number: u64,
    are_caught_up: bool,
    /// Records taken until then.
    taken: u64,
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
            pending: VecDeque::new(),
            owed: None,
            failed: false,
        }
    }

    /// Becomes true when everything that was counted before the start is in the metrics.
    pub fn caught_up(&self) -> watch::Receiver<bool> {
        self.caught_up.subscribe()
    }

    /// Writes what the sinks were given: `marks` are of the records taken so far, `taken` in number, of which
    /// some wait.
    pub(super) fn keep(&mut self, mut marks: Marks, taken: u64, waiting: &Waiting) {
        self.pending.push_back(Pending {
            number: marks.number(),
            are_caught_up: marks.are_caught_up(),
            taken,
        });
        self.owed = None;
        if !waiting.is_empty() {
            self.owed = Some(marks.clone());
            marks.take_back(waiting.records());
        }
        self.write(&marks);
        self.settle(waiting.first());
    }

    /// A record is taken that is not in the last marks: there will be others.
    pub(super) fn take(&mut self) {
        self.owed = None;
    }

    /// Whether the sinks have been given what waited at the last marks, once nothing waits any more.
    pub(super) const fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// Nothing waits any more.
    pub(super) fn all_given(&mut self) {
        if let Some(marks) = self.owed.take() {
            self.write(&marks);
            self.settle(None);
        }
    }

    /// Settles marks whose records the sinks were all given. `first`: the number of the first record that waits.
    fn settle(&mut self, first: Option<u64>) {
        let is_given = |pending: &mut Pending| first.is_none_or(|first| first > pending.taken);
        while let Some(given) = self.pending.pop_front_if(is_given) {
            self.settled.settle(given.number);
            if given.are_caught_up {
                self.caught_up.send_replace(true);
            }
        }
    }

    /// Where it cannot be written, flows must be let go of all the same.
    fn write(&mut self, marks: &Marks) {
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
