//! What the kernel programs keep per CPU: their counters, and the note a reject leaves for its drop.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::FlowKey;

/// A reject's note is for a drop this soon after it, in nanoseconds; an older one was for a packet
/// that went another way, and whose memory has been used again since. A virtual CPU may be held up in between.
pub const NOTE_VALID_NS: u64 = 250_000_000;

/// In [`AnswerNote::reply`]: the answer is a TCP reset.
pub const NOTE_RESET: u32 = 1 << 16;

/// The reader is woken at most this often, in nanoseconds, unless the ring fills up.
///
/// The reader relies on it: it goes to sleep only after the ring was empty for longer than this.
pub const WAKE_EVERY_NS: u64 = 5_000_000;

/// A CPU walks the stack at most this often, in nanoseconds, in the long run: it takes longer than all the rest.
pub const WALK_EVERY_NS: u64 = 1_000_000;

/// So many times in a row, where it did not for a while: flows that begin together all have their story told.
pub const WALK_BURST: u64 = 64;

/// The sender of a packet is being told.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AnswerNote {
    /// The packet, by its `sk_buff`'s address; 0 for none.
    pub skb: u64,
    /// When, as [`crate::DropEvent::ktime_ns`].
    pub ktime_ns: u64,
    /// ICMP type in the lowest byte, code in the next; or [`NOTE_RESET`].
    pub reply: u32,
    /// Zero.
    pub reserved: u32,
}

/// The last answers of a CPU. Two: an interrupt may answer another packet between a process's answer and its drop.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AnswerNotes {
    last: AnswerNote,
    before: AnswerNote,
}

impl AnswerNotes {
    /// Adds one.
    #[inline(always)]
    pub const fn add(&mut self, note: AnswerNote) {
        if self.last.skb != 0 && self.last.skb != note.skb {
            self.before = self.last;
        }
        self.last = note;
    }

    /// Takes away the one for this packet.
    #[inline(always)]
    pub const fn take(&mut self, skb: u64) -> Option<&AnswerNote> {
        let note = if self.last.skb == skb {
            &mut self.last
        } else if self.before.skb == skb {
            &mut self.before
        } else {
            return None;
        };
        note.skb = 0;
        Some(note)
    }
}

/// State of one CPU. What a drop that nobody asked for needs comes first, in one line of the cache.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuState {
    /// Packets dropped for a reason nobody asked for.
    pub ignored: u64,
    /// Who was answered.
    pub notes: AnswerNotes,
    /// Not 0 while a drop is being worked on.
    pub busy: u32,
    /// Zero.
    pub reserved: u32,
    /// First packets of a flow, handed to user space.
    pub recorded: u64,
    /// Further packets of a flow, counted in its entry of the table.
    pub folded: u64,
    /// Counted by their reason alone: the table was full.
    pub overflowed: u64,
    /// Of these, without headers that could be read.
    pub unparsed: u64,
    /// First packets that were not handed over, because the ring was full; the table has them.
    pub ring_full: u64,
    /// Lost: the packet's memory could not be read.
    pub unreadable: u64,
    /// Lost: dropped in an interrupt while this CPU was at work on another drop.
    pub nested: u64,
    /// Rejects seen.
    pub rejects: u64,
    /// Up to when walks of the stack are used up, as [`crate::DropEvent::ktime_ns`].
    pub walks_ns: u64,
    /// The flow that goes on.
    pub streak: Streak,
}

const _: () = assert!(size_of::<CpuState>() == 240);

/// A streak is looked up in the table this often, in nanoseconds: who takes flows out of the table knows from
/// their time there which ones no CPU takes for granted.
pub const STREAK_NS: u64 = 100_000_000;

/// Packets of one flow that follow each other on a CPU, counted beside the table: what the table says of the
/// flow and what stands here add up. A flood is mostly one flow, and needs no look-up then.
///
/// Another CPU reads it from the first field to the last. What it has read belongs together where `begun` and
/// `begins` are the same, because a streak that begins or ends writes `begins` first and `begun` last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Streak {
    /// How many streaks have begun or ended.
    pub begun: u64,
    /// The flow.
    pub key: FlowKey,
    /// Its packets that the table does not have yet.
    pub packets: u64,
    /// When the last of them was dropped, as [`crate::FlowValue::last_ns`].
    pub last_ns: u64,
    /// When the flow was looked up.
    pub since_ns: u64,
    /// How many streaks begin, end, or have done so.
    pub begins: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(skb: u64, reply: u32) -> AnswerNote {
        AnswerNote {
            skb,
            ktime_ns: 1,
            reply,
            reserved: 0,
        }
    }

    fn take(notes: &mut AnswerNotes, skb: u64) -> Option<u32> {
        notes.take(skb).map(|note| note.reply)
    }

    #[test]
    fn an_answer_in_between_takes_no_other_ones_note() {
        let mut notes = AnswerNotes::default();
        notes.add(note(1, 10));
        notes.add(note(2, 20));
        assert_eq!(take(&mut notes, 3), None);
        assert_eq!(take(&mut notes, 2), Some(20));
        assert_eq!(take(&mut notes, 1), Some(10));
        assert_eq!(take(&mut notes, 1), None);
    }

    #[test]
    fn a_packet_that_is_answered_twice_has_one_note() {
        let mut notes = AnswerNotes::default();
        notes.add(note(1, 10));
        notes.add(note(2, 20));
        notes.add(note(2, 21));
        assert_eq!(take(&mut notes, 2), Some(21));
        assert_eq!(take(&mut notes, 2), None);
        assert_eq!(take(&mut notes, 1), Some(10));
    }
}
