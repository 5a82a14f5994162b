//! The kernel's table of flows, seen from user space: which packets were only counted, and what has been
//! told of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracer_common::{
    ABI, CAPTURE, DropEvent, FlowKey, FlowValue, HEAD, MAGIC, REASONS, RECORD, field,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::error::Error;
use super::pin::{MarkSet, Told as Mark};
use super::table::{KernelTables, Silent, Tables};

/// A flow without packets for this long is taken out of the table where that is nearly full, whatever is set.
const IDLE_UNDER_PRESSURE: Duration = Duration::from_secs(5);
/// Nearly full: so many of ten entries are taken.
const PRESSURE_TENTHS: usize = 9;

/// The kernel's tables, and how much of them has been told.
///
/// What is to be told is told in rounds, each flow once a round: where more flows go on than are taken at a
/// time, those that come first in the table would else be told again and again, and the others never.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub(super) struct Flows<T = KernelTables> {
    tables: T,
    capacity: usize,
    /// A flow without packets for this long is taken out of the table.
    idle: Duration,
    /// Flows in the table, as of the last look, for others to read.
    entries: Arc<AtomicUsize>,
    told: HashMap<FlowKey, Told>,
    overflow_told: HashMap<u32, u64>,
    /// Last words of flows that the queue refused.
    left_over: Vec<DropEvent>,
    /// The number of the next marks.
    next_marks: u64,
    /// The number of the first marks that have all that was told.
    told_in: u64,
    /// What was counted by the last look: nothing new, nothing to do.
    seen: Counted,
    /// Packets found no room of late.
    overflowed: bool,
    round: u64,
    /// Something was refused: the round goes on.
    owing: bool,
    /// Something was left for the next round, or to the ring, which may be full.
    behind: bool,
    /// Everything was told that was counted before the start.
    caught_up: bool,
    aged: Instant,
}

/// What was told of a flow.
#[derive(Clone, Debug)]
struct Told {
    packets: u64,
    /// Its first packet's time tells it from the same flow after it had left the table.
    first_ns: u64,
    /// In which round it was told last out of the table.
    round: u64,
    /// The number of the first marks that have it.
    marks: u64,
    /// The first packet, where it carries another: its repeats carry the same.
    carrier: Option<Box<Packet>>,
}

/// A packet's first bytes, and how many they are.
#[derive(Clone, Debug)]
struct Packet {
    bytes: [u8; CAPTURE],
    captured: u16,
}

impl Packet {
    fn of(event: &DropEvent) -> Option<Box<Self>> {
        (event.carried != 0 && event.captured != 0).then(|| {
            Box::new(Self {
                bytes: event.packet,
                captured: event.captured,
            })
        })
    }
}

/// What the programs have counted of late, see [`Flows::sweep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) folded: u64,
    pub(super) overflowed: u64,
    pub(super) ring_full: u64,
}

/// When a look at the table is taken, on the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) now_ns: u64,
    /// What was not told of a flow that began at this time or later is left to the ring.
    pub(super) fresh_ns: u64,
    /// The number of the last marks that are kept elsewhere. A flow is taken out of the table only where they
    /// have what was told of it; where there are none, none is.
    pub(super) kept_marks: Option<u64>,
}

impl<T: Tables> Flows<T> {
    /// A flow without packets for `idle` leaves the table; `entries` is told how full that is; `marks`: what
    /// another process told of these tables.
    pub(super) fn new(
        tables: T,
        capacity: u32,
        idle: Duration,
        entries: Arc<AtomicUsize>,
        marks: Option<&MarkSet>,
    ) -> Result<Self, Error> {
        let mut flows = Self {
            tables,
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            idle,
            entries,
            // At once, so that records are taken without allocating.
            told: HashMap::with_capacity(usize::try_from(capacity).unwrap_or(0)),
            overflow_told: HashMap::new(),
            left_over: Vec::new(),
            next_marks: 1,
            told_in: 1,
            seen: Counted::default(),
            overflowed: true,
            round: 1,
            owing: true,
            behind: false,
            caught_up: false,
            aged: Instant::now(),
        };
        if let Some(marks) = marks {
            flows.remember(marks)?;
        }
        Ok(flows)
    }

    /// Goes on where another process ended.
    fn remember(&mut self, marks: &MarkSet) -> Result<(), Error> {
        let marked: HashMap<_, _> = marks.flows.iter().map(|mark| (mark.key, mark)).collect();
        let told = &mut self.told;
        self.tables.each(|key, value| {
            let first_ns = first_ns(&value);
            if let Some(mark) = marked.get(&key)
                && mark.first_ns == first_ns
            {
                let remembered = Told {
                    packets: mark.packets,
                    first_ns,
                    round: 0,
                    marks: 0,
                    carrier: None,
                };
                told.insert(key, remembered);
            }
            true
        })?;
        self.overflow_told = marks.overflow.iter().copied().collect();
        Ok(())
    }

    /// Whether anything was told since the last marks.
    pub(super) const fn is_unmarked(&self) -> bool {
        self.told_in == self.next_marks
    }

    /// The number of the first marks that have all that was told.
    pub(super) const fn told_in(&self) -> u64 {
        self.told_in
    }

    /// What was told.
    pub(super) fn marks(&mut self, generation: String) -> MarkSet {
        self.next_marks += 1;
        let flows = self.told.iter().map(|(key, told)| Mark {
            key: *key,
            packets: told.packets,
            first_ns: told.first_ns,
        });
        let overflow = self.overflow_told.iter();
        MarkSet {
            generation,
            flows: flows.collect(),
            overflow: overflow
                .map(|(reason, packets)| (*reason, *packets))
                .collect(),
        }
    }

    /// The last marks were not taken: it is to give them again.
    pub(super) const fn mark_again(&mut self) {
        self.told_in = self.next_marks;
    }

    /// A record from the ring, the first of its flow: hands it on, unless the table was quicker.
    pub(super) fn first(&mut self, record: &[u8], each: &mut impl FnMut(&[u8]) -> bool) {
        let Ok(event) = DropEvent::read_from_bytes(record) else {
            // Not ours to judge: the decoder counts it.
            each(record);
            return;
        };
        let key = FlowKey::of(&event);
        if self.told.contains_key(&key) {
            return;
        }
        if each(record) {
            let told = Told {
                packets: event.count,
                first_ns: event.ktime_ns,
                // Its other packets are still to be told in this one.
                round: self.round - 1,
                marks: self.next_marks,
                carrier: Packet::of(&event),
            };
            self.told.insert(key, told);
            self.told_in = self.next_marks;
        } else {
            self.owing = true;
        }
    }

    /// Hands on what was counted since the last look, one record a flow. What is refused is handed on at
    /// the next. Where `counted` is not known, everything is looked at.
    pub(super) fn sweep(
        &mut self,
        counted: Option<Counted>,
        look: Look,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let news = counted != Some(self.seen) || self.owing || self.behind;
        let under_pressure = self.idle.min(IDLE_UNDER_PRESSURE);
        let aging = self.aged.elapsed() >= under_pressure;
        if !news && !aging {
            return Ok(());
        }
        self.overflowed |= counted.is_none_or(|counted| counted.overflowed != self.seen.overflowed);
        self.seen = counted.unwrap_or_default();
        if !self.owing {
            self.round += 1;
        }
        self.left_over.retain(|record| !each(record.as_bytes()));
        let pass = self.pass(look, each)?;
        self.owing = !self.left_over.is_empty() || !pass.whole;
        if !pass.whole {
            return Ok(());
        }
        self.entries.store(pass.entries, Ordering::Relaxed);
        if self.overflowed {
            self.overflows(look.now_ns, each)?;
        }
        self.caught_up |= !self.owing;
        if aging {
            self.aged = Instant::now();
            let full = pass.entries * 10 >= self.capacity * PRESSURE_TENTHS;
            let limit = if full { under_pressure } else { self.idle };
            let mut idle = pass.idle;
            idle.retain(|flow| look.now_ns.saturating_sub(flow.last_ns) >= nanos(limit));
            self.take(&idle, limit, each)?;
        }
        Ok(())
    }

    /// Goes through the table until something is refused.
    fn pass(&mut self, look: Look, each: &mut impl FnMut(&[u8]) -> bool) -> Result<Pass, Error> {
        self.behind = false;
        let Self {
            tables,
            told,
            told_in,
            behind,
            ..
        } = self;
        let (round, marks) = (self.round, self.next_marks);
        let mut entries = 0;
        let mut idle = Vec::new();
        let whole = tables.each(|key, value| {
            entries += 1;
            let known = told.get_mut(&key);
            let before = known.as_ref().map_or(0, |known| known.packets);
            if value.packets <= before {
                if let Some(known) = known
                    && look.kept_marks.is_some_and(|kept| known.marks <= kept)
                {
                    idle.push(Silent {
                        key,
                        packets: value.packets,
                        last_ns: value.last_ns,
                    });
                }
                return true;
            }
            let first_ns = first_ns(&value);
            let waits = known
                .as_ref()
                .map_or(first_ns >= look.fresh_ns, |known| known.round == round);
            if waits {
                *behind = true;
                return true;
            }
            let carrier = known.as_ref().and_then(|known| known.carrier.as_deref());
            if !each(record(&value, value.packets - before, carrier).as_bytes()) {
                return false;
            }
            if let Some(known) = known {
                known.packets = value.packets;
                known.first_ns = first_ns;
                known.round = round;
                known.marks = marks;
            } else {
                let new = Told {
                    packets: value.packets,
                    first_ns,
                    round,
                    marks,
                    carrier: None,
                };
                told.insert(key, new);
            }
            *told_in = marks;
            true
        })?;
        Ok(Pass {
            whole,
            entries,
            idle,
        })
    }

    /// Whether something was refused and will be handed on again.
    pub(super) const fn is_owing(&self) -> bool {
        self.owing
    }

    /// Whether something was refused that the tables do not have any more.
    pub(super) const fn has_last_words(&self) -> bool {
        !self.left_over.is_empty()
    }

    /// Whether everything was told that was counted before the start.
    pub(super) const fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Takes flows out of the table; what was counted up to the last moment is handed on.
    fn take(
        &mut self,
        idle: &[Silent],
        limit: Duration,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        if idle.is_empty() {
            return Ok(());
        }
        let Self {
            tables,
            told,
            left_over,
            ..
        } = self;
        tables.take(idle, limit, |key, value| {
            let known = told.remove(&key);
            let before = known.as_ref().map_or(0, |known| known.packets);
            if value.packets > before {
                let carrier = known.as_ref().and_then(|known| known.carrier.as_deref());
                let last = record(&value, value.packets - before, carrier);
                if !each(last.as_bytes()) {
                    left_over.push(last);
                }
            }
        })?;
        self.owing |= !self.left_over.is_empty();
        self.told_in = self.next_marks;
        Ok(())
    }

    fn overflows(
        &mut self,
        now_ns: u64,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        for index in 0..REASONS {
            let packets = self.tables.overflowed(index)?;
            let told = self.overflow_told.get(&index).copied().unwrap_or(0);
            if packets <= told {
                continue;
            }
            if !each(roomless(index, packets - told, now_ns).as_bytes()) {
                self.owing = true;
                return Ok(());
            }
            self.overflow_told.insert(index, packets);
            self.told_in = self.next_marks;
        }
        self.overflowed = false;
        Ok(())
    }
}

/// What came of going through the table.
struct Pass {
    /// Nothing was refused.
    whole: bool,
    entries: usize,
    /// Flows that may leave it, once they have been silent for long enough.
    idle: Vec<Silent>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When a flow's first packet was dropped.
const fn first_ns(value: &FlowValue) -> u64 {
    value.head[FIRST_NS]
}

/// Where the head, in words, says when.
const FIRST_NS: usize = std::mem::offset_of!(DropEvent, ktime_ns) / 8;

/// The record of a flow's first packet, for `packets` more of it, without their bytes, unless they carry others.
fn record(value: &FlowValue, packets: u64, carrier: Option<&Packet>) -> DropEvent {
    let mut event = DropEvent::new_zeroed();
    event.as_mut_bytes()[..HEAD].copy_from_slice(value.head.as_bytes());
    event.count = packets;
    // The last packet's time may be told by a clock that is behind the first one's.
    event.ktime_ns = value.last_ns.max(first_ns(value));
    event.captured = 0;
    if let Some(carrier) = carrier {
        event.packet = carrier.bytes;
        event.captured = carrier.captured;
        event.fields |= field::REMEMBERED;
    }
    event
}

/// A record for packets of which nothing but the reason is known.
fn roomless(index: u32, packets: u64, now_ns: u64) -> DropEvent {
    let mut event = DropEvent::new_zeroed();
    event.magic = MAGIC;
    event.abi = ABI;
    event.size = RECORD;
    event.ktime_ns = now_ns;
    event.count = packets;
    event.reason = tracer_common::reason_at(index);
    // 0 stands for none, on kernels that tell none, and for those the bitmap has no bit for.
    event.fields = if index == 0 { 0 } else { field::REASON };
    event
}

#[cfg(test)]
mod tests;
