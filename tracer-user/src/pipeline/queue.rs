//! A bounded queue of records that neither side allocates for.

use std::sync::mpsc;

/// The longest record the kernel side sends, in bytes.
const RECORD_BYTES: usize = size_of::<tracer_common::DropEvent>();

/// One record, copied.
pub(super) struct Record {
    length: usize,
    bytes: [u8; RECORD_BYTES],
}

impl Record {
    /// The record's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The reader's end.
pub(super) struct Sender(mpsc::SyncSender<Record>);

/// The sinks' end.
pub(super) struct Receiver(mpsc::Receiver<Record>);

/// A queue of `records` at most; its memory is taken at once.
pub(super) fn bounded(records: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::sync_channel(records);
    (Sender(sender), Receiver(receiver))
}

impl Sender {
    /// Copies a record in; false where the queue is full.
    ///
    /// A record longer than any of ours is cut; the decoder refuses it by its length.
    pub(super) fn send(&self, record: &[u8]) -> bool {
        let length = record.len().min(RECORD_BYTES);
        let mut bytes = [0; RECORD_BYTES];
        bytes[..length].copy_from_slice(&record[..length]);
        self.0.try_send(Record { length, bytes }).is_ok()
    }
}

impl Receiver {
    /// The next record if one is there.
    pub(super) fn try_next(&self) -> Option<Record> {
        self.0.try_recv().ok()
    }

    /// Waits for the next record; `None` once the sender is gone and the queue is empty.
    pub(super) fn next(&self) -> Option<Record> {
        self.0.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_a_full_queue_refuses() {
        let (sender, receiver) = bounded(2);
        assert!(sender.send(b"one"));
        assert!(sender.send(b""));
        assert!(!sender.send(b"three"));
        drop(sender);
        assert_eq!(receiver.try_next().unwrap().bytes(), b"one");
        assert_eq!(receiver.next().unwrap().bytes(), b"");
        assert!(receiver.next().is_none());
        assert!(receiver.try_next().is_none());
    }

    #[test]
    fn an_overlong_record_is_cut_not_a_panic() {
        let (sender, receiver) = bounded(1);
        assert!(sender.send(&[7; RECORD_BYTES + 1]));
        assert_eq!(receiver.next().unwrap().bytes().len(), RECORD_BYTES);
    }
}
