//! The kernel's table of flows, seen from user space: which packets were only counted, and what has been
//! told of them.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use tokio::time::Instant;
use tracer_common::{
    ABI, COARSE_NS, DropEvent, FlowKey, FlowValue, HEAD, MAGIC, REASONS, RECORD, field,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::error::{Error, boxed};
use super::pin::{MarkSet, Told as Mark};
use super::sys;

const KEY_WORDS: usize = size_of::<FlowKey>() / 8;
const VALUE_WORDS: usize = size_of::<FlowValue>() / 8;

type Table = aya::maps::HashMap<MapData, [u64; KEY_WORDS], [u64; VALUE_WORDS]>;

/// A flow without packets for this long is taken out of the table.
const IDLE: Duration = Duration::from_mins(1);
/// The same where the table is nearly full.
const IDLE_UNDER_PRESSURE: Duration = Duration::from_secs(5);
/// Nearly full: so many of ten entries are taken.
const PRESSURE_TENTHS: usize = 9;

/// The kernel's tables, and how much of them has been told.
pub(super) struct Flows {
    table: Table,
    /// The same once more, for what aya has no call for.
    table_fd: OwnedFd,
    overflow: PerCpuArray<MapData, u64>,
    capacity: usize,
    told: HashMap<FlowKey, Told>,
    overflow_told: HashMap<u32, u64>,
    /// Last words of flows that the queue refused.
    left_over: Vec<DropEvent>,
    /// Something was told since the last marks.
    unmarked: bool,
    /// What was counted by the last look: nothing new, nothing to do.
    seen: Counted,
    /// Something was left over at the last look.
    owing: bool,
    /// Something was left to the ring at the last look, which may be full.
    passed_over: bool,
    /// The kernel can hand out an entry and delete it in one step (since 5.14).
    can_take: bool,
    aged: Instant,
}

/// What was told of a flow.
#[derive(Clone, Copy, Debug)]
struct Told {
    packets: u64,
    /// Its first packet's time tells it from the same flow after it had left the table.
    first_ns: u64,
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
    /// A flow is taken out of the table only where its last packet came before: what was told of it is kept
    /// elsewhere then.
    pub(super) settled_ns: u64,
}

impl Flows {
    /// `marks`: what another process told of these tables.
    pub(super) fn new(
        table: Map,
        overflow: Map,
        capacity: u32,
        marks: Option<&MarkSet>,
    ) -> Result<Self, Error> {
        let Map::HashMap(data) = &table else {
            return Err(Error::Load("the map of flows is no hash table".into()));
        };
        let table_fd = data.fd().as_fd().try_clone_to_owned().map_err(boxed)?;
        let mut flows = Self {
            table_fd,
            table: Table::try_from(table).map_err(boxed)?,
            overflow: PerCpuArray::try_from(overflow).map_err(boxed)?,
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            // At once, so that records are taken without allocating.
            told: HashMap::with_capacity(usize::try_from(capacity).unwrap_or(0)),
            overflow_told: HashMap::new(),
            left_over: Vec::new(),
            unmarked: true,
            seen: Counted::default(),
            owing: true,
            passed_over: false,
            can_take: true,
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
        for entry in &self.table {
            let (key, value) = match entry {
                Ok((key, value)) => (key_of(key), value_of(value)),
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(boxed(error)),
            };
            let first_ns = first_ns(&value);
            if let Some(mark) = marked.get(&key)
                && mark.first_ns == first_ns
            {
                let packets = mark.packets;
                self.told.insert(key, Told { packets, first_ns });
            }
        }
        self.overflow_told = marks.overflow.iter().copied().collect();
        Ok(())
    }

    /// Whether anything was told since the last marks.
    pub(super) const fn is_unmarked(&self) -> bool {
        self.unmarked
    }

    /// What was told.
    pub(super) fn marks(&mut self, generation: String) -> MarkSet {
        self.unmarked = false;
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

    /// The last marks were not kept: it is to give them again.
    pub(super) const fn mark_again(&mut self) {
        self.unmarked = true;
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
            };
            self.told.insert(key, told);
            self.unmarked = true;
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
        let Look {
            now_ns,
            fresh_ns,
            settled_ns,
        } = look;
        let news = counted != Some(self.seen) || self.owing || self.passed_over;
        let aging = self.aged.elapsed() >= IDLE_UNDER_PRESSURE;
        if !news && !aging {
            return Ok(());
        }
        self.left_over.retain(|record| !each(record.as_bytes()));
        self.owing = !self.left_over.is_empty();
        self.passed_over = false;
        let mut idle = Vec::new();
        let mut entries = 0;
        for entry in &self.table {
            let (key, value) = match entry {
                Ok((key, value)) => (key_of(key), value_of(value)),
                // Entries come and go while we look.
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(boxed(error)),
            };
            entries += 1;
            let told = self.told.get(&key).map_or(0, |told| told.packets);
            if told == 0 && first_ns(&value) >= fresh_ns {
                self.passed_over = true;
            } else if value.packets > told {
                if each(record(&value, value.packets - told).as_bytes()) {
                    let told = Told {
                        packets: value.packets,
                        first_ns: first_ns(&value),
                    };
                    self.told.insert(key, told);
                    self.unmarked = true;
                } else {
                    self.owing = true;
                }
            } else if aging && value.last_ns.saturating_add(COARSE_NS) < settled_ns {
                idle.push((
                    key,
                    Duration::from_nanos(now_ns.saturating_sub(value.last_ns)),
                ));
            }
        }
        if self.owing || counted.is_none_or(|counted| counted.overflowed != self.seen.overflowed) {
            self.overflows(now_ns, each)?;
        }
        self.seen = counted.unwrap_or_default();
        if aging {
            self.aged = Instant::now();
            let full = entries * 10 >= self.capacity * PRESSURE_TENTHS;
            let limit = if full { IDLE_UNDER_PRESSURE } else { IDLE };
            for (key, age) in idle {
                if age >= limit && self.can_take {
                    self.take(&key, each)?;
                }
            }
        }
        Ok(())
    }

    /// After a look: up to when all that was counted has been handed on or refused.
    pub(super) const fn told_until(&self, look: Look) -> u64 {
        if self.passed_over {
            look.fresh_ns
        } else {
            look.now_ns
        }
    }

    /// Whether something was refused and will be handed on again.
    pub(super) const fn is_owing(&self) -> bool {
        self.owing
    }

    /// Takes a flow out of the table; what was counted up to the last moment is handed on.
    fn take(&mut self, key: &FlowKey, each: &mut impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let mut value = FlowValue::new_zeroed();
        let taken = sys::take(self.table_fd.as_fd(), key.as_bytes(), value.as_mut_bytes());
        match taken {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if is_unknown(&error) => {
                // Taken out in two steps it could lose a packet in between: it stays.
                self.can_take = false;
                return Ok(());
            }
            Err(source) => {
                return Err(Error::Io {
                    action: "take a flow out of the kernel's table",
                    path: None,
                    source,
                });
            }
        }
        let told = self.told.remove(key).map_or(0, |told| told.packets);
        self.unmarked = true;
        if value.packets > told {
            let last = record(&value, value.packets - told);
            if !each(last.as_bytes()) {
                self.left_over.push(last);
                self.owing = true;
            }
        }
        Ok(())
    }

    fn overflows(
        &mut self,
        now_ns: u64,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        for index in 0..REASONS {
            let packets: u64 = self.overflow.get(&index, 0).map_err(boxed)?.iter().sum();
            let told = self.overflow_told.get(&index).copied().unwrap_or(0);
            if packets <= told {
                continue;
            }
            if each(roomless(index, packets - told, now_ns).as_bytes()) {
                self.overflow_told.insert(index, packets);
                self.unmarked = true;
            } else {
                self.owing = true;
            }
        }
        Ok(())
    }
}

/// The kernel's own number, which no libc has (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;

/// What a map operation gives that the kernel does not know.
fn is_unknown(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP))
}

fn key_of(words: [u64; KEY_WORDS]) -> FlowKey {
    zerocopy::transmute!(words)
}

fn value_of(words: [u64; VALUE_WORDS]) -> FlowValue {
    zerocopy::transmute!(words)
}

/// When a flow's first packet was dropped.
const fn first_ns(value: &FlowValue) -> u64 {
    value.head[FIRST_NS]
}

/// Where the head, in words, says when.
const FIRST_NS: usize = std::mem::offset_of!(DropEvent, ktime_ns) / 8;

/// The record of a flow's first packet, for `packets` more of it, without their bytes.
fn record(value: &FlowValue, packets: u64) -> DropEvent {
    let mut event = DropEvent::new_zeroed();
    event.as_mut_bytes()[..HEAD].copy_from_slice(value.head.as_bytes());
    event.count = packets;
    // The last packet's time may be told by a clock that is behind the first one's.
    event.ktime_ns = value.last_ns.max(first_ns(value));
    event.captured = 0;
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
