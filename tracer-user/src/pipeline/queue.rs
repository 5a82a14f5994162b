//! A bounded queue of records that neither side allocates for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::kernel::{Handed, Marks};

/// The longest record the kernel side sends, in bytes.
const RECORD_BYTES: usize = size_of::<tracer_common::DropEvent>();

/// Room beside the records: however many of those there are, marks get through, and who is waiting is woken.
const SPARE: usize = 4;

/// One record, copied.
#[derive(Debug)]
pub(super) struct Record {
    length: usize,
    bytes: [u8; RECORD_BYTES],
}

impl Record {
    /// A record longer than any of ours is cut; the decoder refuses it by its length.
    pub(super) fn of(record: &[u8]) -> Self {
        let length = record.len().min(RECORD_BYTES);
        let mut bytes = [0; RECORD_BYTES];
        bytes[..length].copy_from_slice(&record[..length]);
        Self { length, bytes }
    }

    /// The record's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "a box for each record is what the queue is there to avoid"
)]
enum Item {
    Record(Record),
    /// What was told up to here.
    Mark(Box<Marks>),
    /// Nothing but a reason to look elsewhere.
    Wake,
}

/// What came of waiting.
#[expect(
    clippy::large_enum_variant,
    reason = "a box for each record is what the queue is there to avoid"
)]
pub(super) enum Next {
    /// A record.
    Record(Record),
    /// What was told up to here.
    Mark(Box<Marks>),
    /// Someone woke us, or the time is up.
    Woken,
    /// The sender is gone and the queue is empty.
    End,
}

/// The reader's end.
pub(super) struct Sender {
    items: Arc<mpsc::SyncSender<Item>>,
    /// For how many records there is room.
    room: Arc<AtomicUsize>,
}

/// The sinks' end.
pub(super) struct Receiver {
    items: mpsc::Receiver<Item>,
    room: Arc<AtomicUsize>,
    woken: Arc<AtomicBool>,
}

/// Wakes who waits for records, to look at something else.
#[derive(Clone, Debug)]
pub struct Waker {
    /// Weak, so that the queue ends with its sender.
    items: Weak<mpsc::SyncSender<Item>>,
    woken: Arc<AtomicBool>,
}

impl Waker {
    /// Wakes it; a full queue needs no waking.
    pub fn wake(&self) {
        let Some(items) = self.items.upgrade() else {
            return;
        };
        if !self.woken.swap(true, Ordering::AcqRel) && items.try_send(Item::Wake).is_err() {
            self.woken.store(false, Ordering::Release);
        }
    }
}

/// A queue of `records` at most; its memory is taken at once.
pub(super) fn bounded(records: usize) -> (Sender, Receiver, Waker) {
    let (sender, items) = mpsc::sync_channel(records + SPARE);
    let sender = Arc::new(sender);
    let room = Arc::new(AtomicUsize::new(records));
    let woken = Arc::new(AtomicBool::new(false));
    let waker = Waker {
        items: Arc::downgrade(&sender),
        woken: Arc::clone(&woken),
    };
    let receiver = Receiver {
        items,
        room: Arc::clone(&room),
        woken,
    };
    let sender = Sender {
        items: sender,
        room,
    };
    (sender, receiver, waker)
}

impl Sender {
    /// Copies a record in.
    pub(super) fn send(&self, record: &[u8]) -> Handed {
        if self.room.load(Ordering::Acquire) == 0 {
            // The other end has the only other hold of it.
            return if Arc::strong_count(&self.room) > 1 {
                Handed::Full
            } else {
                Handed::Gone
            };
        }
        let handed = self.put(Item::Record(Record::of(record)));
        if handed == Handed::Taken {
            self.room.fetch_sub(1, Ordering::AcqRel);
        }
        handed
    }

    /// Says what was told up to here.
    pub(super) fn mark(&self, marks: Marks) -> Handed {
        self.put(Item::Mark(Box::new(marks)))
    }

    fn put(&self, item: Item) -> Handed {
        match self.items.try_send(item) {
            Ok(()) => Handed::Taken,
            Err(mpsc::TrySendError::Full(_)) => Handed::Full,
            Err(mpsc::TrySendError::Disconnected(_)) => Handed::Gone,
        }
    }
}

impl Receiver {
    /// The next record or mark if one is there.
    pub(super) fn try_next(&self) -> Option<Next> {
        loop {
            match self.taken(self.items.try_recv().ok()?) {
                Next::Woken => {}
                next => return Some(next),
            }
        }
    }

    /// Waits for the next record, for no longer than `until`.
    pub(super) fn next(&self, until: Option<Instant>) -> Next {
        let item = match until {
            None => self.items.recv().map_err(|_| Next::End),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                self.items
                    .recv_timeout(wait.max(Duration::from_millis(1)))
                    .map_err(|error| match error {
                        mpsc::RecvTimeoutError::Timeout => Next::Woken,
                        mpsc::RecvTimeoutError::Disconnected => Next::End,
                    })
            }
        };
        item.map_or_else(|other| other, |item| self.taken(item))
    }

    /// Makes room for another.
    fn taken(&self, item: Item) -> Next {
        match item {
            Item::Record(record) => {
                self.room.fetch_add(1, Ordering::AcqRel);
                Next::Record(record)
            }
            Item::Mark(marks) => Next::Mark(marks),
            Item::Wake => {
                self.woken.store(false, Ordering::Release);
                Next::Woken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(next: Next) -> Option<Vec<u8>> {
        match next {
            Next::Record(record) => Some(record.bytes().to_vec()),
            Next::Mark(_) => Some(b"(mark)".to_vec()),
            Next::Woken => Some(b"(woken)".to_vec()),
            Next::End => None,
        }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_a_full_queue_refuses() {
        let (sender, receiver, _waker) = bounded(2);
        assert_eq!(sender.send(b"one"), Handed::Taken);
        assert_eq!(sender.send(b""), Handed::Taken);
        assert_eq!(sender.send(b"three"), Handed::Full);
        drop(sender);
        assert_eq!(bytes(receiver.try_next().unwrap()), Some(b"one".to_vec()));
        assert_eq!(bytes(receiver.next(None)), Some(Vec::new()));
        assert!(receiver.try_next().is_none());
        assert_eq!(bytes(receiver.next(None)), None);
    }

    #[test]
    fn a_queue_that_nobody_reads_is_gone_not_full() {
        let (sender, receiver, _waker) = bounded(1);
        assert_eq!(sender.send(b"one"), Handed::Taken);
        assert_eq!(sender.send(b"two"), Handed::Full);
        drop(receiver);
        assert_eq!(sender.send(b"two"), Handed::Gone);
        assert_eq!(sender.mark(Marks::default()), Handed::Gone);
    }

    #[test]
    fn a_mark_keeps_its_place_among_the_records_and_finds_room_where_they_do_not() {
        let (sender, receiver, _waker) = bounded(2);
        assert_eq!(sender.send(b"one"), Handed::Taken);
        assert_eq!(sender.mark(Marks::default()), Handed::Taken);
        assert_eq!(sender.send(b"two"), Handed::Taken);
        assert_eq!(sender.send(b"three"), Handed::Full);
        assert_eq!(sender.mark(Marks::default()), Handed::Taken);
        let taken = || bytes(receiver.try_next()?);
        assert_eq!(taken(), Some(b"one".to_vec()));
        assert_eq!(sender.send(b"four"), Handed::Taken);
        let rest: Vec<_> = std::iter::from_fn(&taken).collect();
        assert_eq!(rest, [&b"(mark)"[..], b"two", b"(mark)", b"four"]);
        while sender.mark(Marks::default()) == Handed::Taken {}
        assert_eq!(
            std::iter::from_fn(|| receiver.try_next()).count(),
            2 + SPARE
        );
    }

    #[test]
    fn an_overlong_record_is_cut_not_a_panic() {
        let (sender, receiver, _waker) = bounded(1);
        assert_eq!(sender.send(&[7; RECORD_BYTES + 1]), Handed::Taken);
        let taken = bytes(receiver.try_next().unwrap()).unwrap();
        assert_eq!(taken.len(), RECORD_BYTES);
    }

    #[test]
    fn a_waker_wakes_once_and_takes_no_more_room() {
        let (sender, receiver, waker) = bounded(2);
        waker.wake();
        waker.wake();
        assert_eq!(sender.send(b"one"), Handed::Taken);
        assert_eq!(bytes(receiver.next(None)), Some(b"(woken)".to_vec()));
        assert_eq!(bytes(receiver.next(None)), Some(b"one".to_vec()));
        waker.wake();
        assert_eq!(bytes(receiver.next(None)), Some(b"(woken)".to_vec()));
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(bytes(receiver.next(Some(soon))), Some(b"(woken)".to_vec()));
    }
}
