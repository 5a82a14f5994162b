//! Kubernetes Events: what `kubectl describe pod` and `kubectl get events` show of drops.
//!
//! Each object has one Event a reason and action, counted on while drops go on. The sink decides what is
//! told, and never waits; a task of its own talks to the API server.

mod note;
mod writer;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use crate::decode::RawDrop;
use crate::record::Drop;
use note::{About, Note, notes};

pub use writer::Writer;

/// An Event is written again after this long, if there were drops meanwhile. Shorter than the library's
/// memory of what it wrote (6 min), so that it counts on.
const AGAIN: Duration = Duration::from_mins(5);
/// Events told of, at most; what is more comes when others have grown old.
const REMEMBERED: usize = 4096;
/// Events on their way to the API server.
const UNDER_WAY: usize = 256;
/// At most this many at once, and then one each so often: as client-go's own limit for one source.
const BURST: u32 = 25;
const EACH: Duration = Duration::from_secs(3);

/// What of an Event tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    about: About,
    reason: String,
    action: &'static str,
}

/// Takes drops, and has Events written of them.
#[derive(Debug)]
pub struct Events {
    node: String,
    notes: mpsc::Sender<Note>,
    told: HashMap<Key, Instant>,
    budget: Budget,
    counted: IntCounterVec,
}

/// A sink for the drops of `node`, and who writes. `counted` has the label `result`.
pub fn events(node: &str, counted: IntCounterVec) -> (Events, Writer) {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let events = Events {
        node: node.to_owned(),
        notes: sender,
        told: HashMap::new(),
        budget: Budget::new(Instant::now()),
        counted: counted.clone(),
    };
    (events, Writer::new(node, receiver, counted))
}

impl Events {
    fn take(&mut self, drop: &Drop, now: Instant) {
        for note in notes(drop, &self.node) {
            let key = Key {
                about: note.about.clone(),
                reason: note.reason.clone(),
                action: note.action,
            };
            let is_recent = |at: &Instant| now.duration_since(*at) < AGAIN;
            if self.told.get(&key).is_some_and(is_recent) {
                continue;
            }
            if self.told.len() >= REMEMBERED {
                self.told.retain(|_, at| is_recent(at));
            }
            let told = self.told.len() < REMEMBERED
                && self.budget.take(now)
                && self.notes.try_send(note).is_ok();
            if told {
                self.told.insert(key, now);
            } else {
                self.counted.with_label_values(&["suppressed"]).inc();
            }
        }
    }
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
