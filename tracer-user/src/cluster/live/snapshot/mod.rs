//! The cluster's state on disk, for an agent that starts while the API server is out of reach.
//!
//! A folder, of one cluster: `stamp.json` says of which and until when it was followed, and each kind has a
//! journal, `pods.jsonl`: one change a line, in the form it is used in and no more of the object than that.
//! A list replaces its kind's journal as a whole; a journal that has grown is written anew without what is
//! gone. Nothing of it is held in memory.

mod journal;
mod read;
mod recorder;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracer_policy::Cluster;
use tracer_policy::model::ObjectRef;

use super::update::{Keeper, Update};
use crate::cluster::Kind;
use crate::cluster::object::Object;

pub use recorder::Recorder;

/// Version of the folder and its files; others are not read.
const FORMAT: u32 = 2;
const STAMP: &str = "stamp.json";
const LOCK: &str = "lock";
const JOURNAL: &str = "jsonl";

/// What the folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    format: u32,
    /// Which cluster.
    cluster: String,
    /// The API server answered last then; `None`: nothing whole is there yet.
    as_of: Option<Timestamp>,
}

/// A line of a journal. `O` is the object, or what stands for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<O> {
    /// The object is there, in this form.
    Apply(ObjectRef, O),
    /// It is there and could not be understood.
    Unreadable(ObjectRef),
    /// It is gone.
    Delete(ObjectRef),
    /// The kind could not be read.
    Unread(()),
}

/// The folder, which no other process has while this is alive.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    stamp: Stamp,
    _lock: File,
}

impl Snapshot {
    /// Opens `folder`, and makes it where it is not there. What it holds of another cluster than `cluster`, or
    /// in another version, is removed.
    ///
    /// # Errors
    /// Where the folder cannot be had, or another agent has it.
    pub fn open(folder: &Path, cluster: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = create(&folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another agent has it")
            }
            TryLockError::Error(error) => error,
        })?;
        let found = fs::read(folder.join(STAMP))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok())
            .filter(|stamp| stamp.format == FORMAT && stamp.cluster == cluster);
        let stamp = match found {
            Some(stamp) => stamp,
            None => {
                clear(folder)?;
                let stamp = Stamp {
                    format: FORMAT,
                    cluster: cluster.to_owned(),
                    as_of: None,
                };
                stamp.write(folder)?;
                stamp
            }
        };
        Ok(Self {
            folder: folder.to_owned(),
            stamp,
            _lock: lock,
        })
    }

    /// Brings into `cluster` what is there, and says from when it is; `None` where nothing whole is there.
    ///
    /// Kinds whose journal cannot be used count as unread, which is said.
    pub fn restore(&self, keeper: &mut Keeper, cluster: &mut Cluster) -> Option<Timestamp> {
        let as_of = self.stamp.as_of?;
        for kind in Kind::ALL {
            let mut take = |update| {
                keeper.apply(update, as_of, cluster);
            };
            if let Err(error) = read::updates(&journal_of(&self.folder, kind), kind, &mut take) {
                tracing::warn!(
                    "{}: {error}; until they are listed, {} are not known",
                    self.folder.display(),
                    kind.resource()
                );
                take(Update::Unread(kind));
            }
        }
        keeper.begin_anew();
        Some(as_of)
    }
}

impl Stamp {
    fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(STAMP);
        let new = path.with_extension("new");
        let mut file = create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(new, path)
    }
}

fn journal_of(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(format!("{}.{JOURNAL}", kind.resource()))
}

/// A change as a line; `None`: it is none of a journal's.
fn line(update: &Update) -> Option<Line<&Object>> {
    match update {
        Update::Apply(_, id, object) => Some(Line::Apply(id.clone(), object)),
        Update::Unreadable(_, id) => Some(Line::Unreadable(id.clone())),
        Update::Delete(_, id) => Some(Line::Delete(id.clone())),
        Update::Unread(_) => Some(Line::Unread(())),
        Update::Begin(_) | Update::End(_) | Update::Absent(_) => None,
    }
}

/// An empty file that only its owner reads: these tell of every pod of the cluster.
fn create(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn clear(folder: &Path) -> io::Result<()> {
    for kind in Kind::ALL {
        match fs::remove_file(journal_of(folder, kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
