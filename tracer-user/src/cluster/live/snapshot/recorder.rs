//! Writes changes down as they come, on a thread of its own: a disk may be slow, or full.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::super::update::Update;
use super::journal::Journal;
use super::{Snapshot, journal_of, line};
use crate::cluster::Kind;

/// Changes on their way to the disk.
const UNDER_WAY: usize = 1024;
/// How long the cluster's changes wait for the disk, once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is written until when the cluster was followed.
const STAMP_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// What is to be written.
#[derive(Debug)]
enum Entry {
    Begin(Kind),
    Line(Kind, Vec<u8>),
    Unread(Kind, Vec<u8>),
    End(Kind),
    Empty(Kind),
    AsOf(Timestamp),
}

/// Has changes written down. Once the disk does not keep up it does so no more, and says it.
#[derive(Clone, Debug)]
pub struct Recorder {
    entries: mpsc::Sender<Entry>,
    overrun: Arc<AtomicBool>,
}

impl Snapshot {
    /// Has it kept from now on, until every clone of the recorder is gone.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn keep(self) -> io::Result<Recorder> {
        let (recorder, write) = self.channel();
        thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(write)?;
        Ok(recorder)
    }

    /// Who has changes written down, and what writes them.
    pub(super) fn channel(self) -> (Recorder, impl FnOnce() + Send + 'static) {
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        let overrun = Arc::new(AtomicBool::new(false));
        let recorder = Recorder {
            entries: sender,
            overrun: Arc::clone(&overrun),
        };
        let writer = Writer {
            snapshot: self,
            journals: HashMap::new(),
            overrun,
            said: false,
        };
        (recorder, move || writer.run(receiver))
    }
}

impl Recorder {
    /// Has a change written down.
    pub(in super::super) async fn record(&self, update: &Update) {
        let entry = match update {
            Update::Begin(kind) => Entry::Begin(*kind),
            Update::End(kind) => Entry::End(*kind),
            Update::Absent(kind) => Entry::Empty(*kind),
            Update::Apply(kind, ..)
            | Update::Unreadable(kind, _)
            | Update::Delete(kind, _)
            | Update::Unread(kind) => {
                let mut bytes = Vec::new();
                // What was made from JSON is JSON again without fail.
                if serde_json::to_writer(&mut bytes, &line(update)).is_err() {
                    return;
                }
                bytes.push(b'\n');
                match update {
                    Update::Unread(_) => Entry::Unread(*kind, bytes),
                    _ => Entry::Line(*kind, bytes),
                }
            }
        };
        self.send(entry).await;
    }

    /// The state is whole, and was followed till `now`.
    pub(in super::super) async fn as_of(&self, now: Timestamp) {
        self.send(Entry::AsOf(now)).await;
    }

    async fn send(&self, entry: Entry) {
        if self.overrun.load(Ordering::Relaxed) {
            return;
        }
        if let Err(mpsc::error::SendTimeoutError::Timeout(_)) =
            self.entries.send_timeout(entry, PATIENCE).await
            && !self.overrun.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the disk does not keep up: without an API server, the next agent will start from no snapshot"
            );
        }
    }
}

struct Writer {
    snapshot: Snapshot,
    journals: HashMap<Kind, Journal>,
    overrun: Arc<AtomicBool>,
    /// That something could not be written was said.
    said: bool,
}

impl Writer {
    fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(first) = entries.blocking_recv() {
            let mut next = Some(first);
            while let Some(entry) = next {
                if self.overrun.load(Ordering::Relaxed) {
                    return self.give_up();
                }
                self.take(entry);
                next = entries.try_recv().ok();
            }
            for kind in Kind::ALL {
                self.on(kind, Journal::flush);
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Begin(kind) => {
                self.open(kind);
                self.on(kind, Journal::begin);
            }
            Entry::Unread(kind, bytes) => {
                self.open(kind);
                self.on(kind, |journal| journal.write(&bytes));
            }
            Entry::Line(kind, bytes) => self.on(kind, |journal| journal.write(&bytes)),
            Entry::End(kind) => self.on(kind, Journal::end),
            Entry::Empty(kind) => {
                self.open(kind);
                self.on(kind, Journal::empty);
            }
            Entry::AsOf(now) => self.stamp(now),
        }
    }

    fn open(&mut self, kind: Kind) {
        let path = journal_of(&self.snapshot.folder, kind);
        self.journals
            .entry(kind)
            .or_insert_with(|| Journal::new(path));
    }

    /// Does something to a kind's journal; where that fails, the kind has none until it is listed again.
    fn on(&mut self, kind: Kind, write: impl FnOnce(&mut Journal) -> io::Result<()>) {
        let Some(journal) = self.journals.get_mut(&kind) else {
            return;
        };
        if let Err(error) = write(journal) {
            journal.give_up();
            self.journals.remove(&kind);
            self.say(&error);
        }
    }

    fn say(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                "{}: {error}; without an API server, the next agent will know less",
                self.snapshot.folder.display()
            );
        }
    }

    fn stamp(&mut self, now: Timestamp) {
        let stamp = &mut self.snapshot.stamp;
        if stamp
            .as_of
            .is_some_and(|before| now.duration_since(before).abs() < STAMP_EVERY)
        {
            return;
        }
        stamp.as_of = Some(now);
        if let Err(error) = stamp.write(&self.snapshot.folder) {
            self.say(&error);
        }
    }

    fn give_up(mut self) {
        for journal in self.journals.values_mut() {
            journal.give_up();
        }
        self.snapshot.stamp.as_of = None;
        if let Err(error) = self.snapshot.stamp.write(&self.snapshot.folder) {
            self.say(&error);
        }
    }
}
