//! Kubernetes Events: what `kubectl describe pod` and `kubectl get events` show of drops.
//!
//! Each object has one Event a reason and action, counted on while drops go on. The sink decides what is
//! told, and never waits; a task of its own talks to the API server.

mod note;
mod recorder;
mod writer;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio::sync::{mpsc, watch};

use crate::decode::RawDrop;
use crate::record::Drop;
use note::{Key, Note, notes};

pub use writer::Writer;

/// An Event is written again after this long, if there were drops meanwhile. Shorter than the
/// recorder's memory of what it wrote, so that it counts on.
const AGAIN: Duration = Duration::from_mins(5);
/// Events told of, at most; what is more comes when others have grown old.
const REMEMBERED: usize = 4096;
/// Events on their way to the API server.
const UNDER_WAY: usize = 256;
/// At most this many at once, and then one each so often: as client-go's own limit for one source.
const BURST: u32 = 25;
const EACH: Duration = Duration::from_secs(3);

/// Takes drops, and has Events written of them.
#[derive(Debug)]
pub struct Events {
    node: String,
    notes: mpsc::Sender<Note>,
    told: HashMap<Key, Instant>,
    /// Those that are counted as suppressed, and when they were.
    suppressed: HashMap<Key, Instant>,
    budget: Budget,
    counted: IntCounterVec,
    waiting: Waiting,
}

/// Events that are neither written nor given up.
#[derive(Clone, Debug)]
struct Waiting(watch::Sender<usize>);

impl Waiting {
    fn more(&self) {
        self.0.send_modify(|waiting| *waiting += 1);
    }

    fn fewer(&self) {
        self.0
            .send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

/// A sink for the drops of `node`, and who writes. `counted` has the label `result`.
pub fn events(node: &str, counted: IntCounterVec) -> (Events, Writer) {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let waiting = Waiting(watch::Sender::new(0));
    let events = Events {
        node: node.to_owned(),
        notes: sender,
        told: HashMap::new(),
        suppressed: HashMap::new(),
        budget: Budget::new(Instant::now()),
        counted: counted.clone(),
        waiting: waiting.clone(),
    };
    (events, Writer::new(node, receiver, counted, waiting))
}

impl Events {
    /// How many Events are neither written nor given up.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.0.subscribe()
    }

    /// Hands one to the writer, where there is room.
    fn send(&self, note: Note) -> bool {
        // Before the writer can count it out.
        self.waiting.more();
        let sent = self.notes.try_send(note).is_ok();
        if !sent {
            self.waiting.fewer();
        }
        sent
    }

    fn take(&mut self, drop: &Drop, now: Instant) {
        for note in notes(drop, &self.node) {
            let key = note.key();
            if is_recent(&self.told, &key, now) {
                continue;
            }
            let told = has_room(&mut self.told, now) && self.budget.take(now) && self.send(note);
            if told {
                self.told.insert(key, now);
            } else if !is_recent(&self.suppressed, &key, now) {
                // An Event, however many drops it would have told of.
                self.counted.with_label_values(&["suppressed"]).inc();
                if has_room(&mut self.suppressed, now) {
                    self.suppressed.insert(key, now);
                }
            }
        }
    }
}

fn is_recent(seen: &HashMap<Key, Instant>, key: &Key, now: Instant) -> bool {
    let at = seen.get(key);
    at.is_some_and(|at| now.duration_since(*at) < AGAIN)
}

/// Whether one more can be remembered, old ones being forgotten if need be.
fn has_room(seen: &mut HashMap<Key, Instant>, now: Instant) -> bool {
    if seen.len() >= REMEMBERED {
        seen.retain(|_, at| now.duration_since(*at) < AGAIN);
    }
    seen.len() < REMEMBERED
}

impl super::Sink for Events {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
        self.take(drop, Instant::now());
        Ok(())
    }
}

/// How many may be told.
#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= EACH {
            self.left += 1;
            self.since += EACH;
        }
        if self.left == BURST {
            self.since = now;
        }
        let has = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has
    }
}

#[cfg(test)]
mod tests;
