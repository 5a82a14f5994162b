//! How much of what the kernel has counted was told: kept outside the process, so that the next one
//! tells the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracer_common::{DropEvent, FlowKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What was told of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(in super::super) struct Told {
    /// The flow.
    pub(in super::super) key: FlowKey,
    /// Packets.
    pub(in super::super) packets: u64,
    /// When its first packet came: the same flow may leave the table and come again.
    pub(in super::super) first_ns: u64,
}

/// What was told of one generation of programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct MarkSet {
    pub(in super::super) generation: String,
    pub(in super::super) flows: Vec<Told>,
    /// By the number of the reason.
    pub(in super::super) overflow: Vec<(u32, u64)>,
}

/// What was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub(in super::super) sets: Vec<MarkSet>,
    /// Which marks of this process they are, from 1 on.
    pub(in super::super) number: u64,
    /// They have everything that was counted before the process started.
    pub(in super::super) caught_up: bool,
}

/// Which marks are kept where a crash cannot reach them; shared between who writes them and who forgets
/// flows.
#[derive(Clone, Debug, Default)]
pub struct Settled(Arc<AtomicU64>);

impl Settled {
    /// The marks of this number are kept, and all before them.
    pub fn settle(&self, number: u64) {
        self.0.store(number, Ordering::Release);
    }

    /// The number of the last ones.
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Marks {
    /// Which marks of this process they are, from 1 on.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether they have everything that was counted before this process started.
    pub const fn are_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Takes back that records were told: whoever took them has not dealt with them yet.
    pub fn take_back<'record>(&mut self, records: impl Iterator<Item = &'record [u8]>) {
        let mut back = HashMap::<FlowKey, u64>::new();
        for event in records.filter_map(|record| DropEvent::read_from_bytes(record).ok()) {
            *back.entry(FlowKey::of(&event)).or_default() += event.count;
        }
        if back.is_empty() {
            return;
        }
        for told in self.sets.iter_mut().flat_map(|set| &mut set.flows) {
            // A flow may be in several sets: what is to be told of all of them together is what counts.
            if let Some(packets) = back.get_mut(&told.key) {
                let here = told.packets.min(*packets);
                told.packets -= here;
                *packets -= here;
            }
        }
    }

    /// Marks of one record that was told.
    #[cfg(test)]
    pub(crate) fn of_record(number: u64, event: &DropEvent) -> Self {
        let told = Told {
            key: FlowKey::of(event),
            packets: event.count,
            first_ns: event.ktime_ns,
        };
        Self {
            sets: vec![MarkSet {
                generation: "this".into(),
                flows: vec![told],
                overflow: Vec::new(),
            }],
            number,
            caught_up: true,
        }
    }

    /// Packets that they say were told.
    #[cfg(test)]
    pub(crate) fn packets(&self) -> u64 {
        let flows = self.sets.iter().flat_map(|set| &set.flows);
        flows.map(|told| told.packets).sum()
    }

    pub(in super::super) fn of(&self, generation: &str) -> Option<&MarkSet> {
        self.sets.iter().find(|set| set.generation == generation)
    }

    /// The names of the generations these marks are of.
    pub fn generations(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|set| set.generation.as_str())
    }

    /// As bytes, for a file that only this machine reads, with these programs or with newer ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        let flows: usize = self.sets.iter().map(|set| set.flows.len()).sum();
        let mut bytes = Vec::with_capacity(64 + flows * size_of::<Told>());
        put(&mut bytes, self.sets.len());
        for set in &self.sets {
            put(&mut bytes, set.generation.len());
            bytes.extend_from_slice(set.generation.as_bytes());
            put(&mut bytes, set.flows.len());
            bytes.extend_from_slice(set.flows.as_bytes());
            put(&mut bytes, set.overflow.len());
            for (reason, packets) in &set.overflow {
                bytes.extend_from_slice(&reason.to_ne_bytes());
                bytes.extend_from_slice(&packets.to_ne_bytes());
            }
        }
        bytes
    }

    /// From [`Marks::to_bytes`]; `None` for anything else.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut marks = Self::default();
        for _ in 0..length(&mut bytes)? {
            let name = length(&mut bytes)?;
            let generation = String::from_utf8(part(&mut bytes, name)?.to_vec()).ok()?;
            let flows = length(&mut bytes)?.checked_mul(size_of::<Told>())?;
            let flows = part(&mut bytes, flows)?
                .chunks_exact(size_of::<Told>())
                .map(Told::read_from_bytes)
                .collect::<Result<_, _>>()
                .ok()?;
            let mut overflow = Vec::new();
            for _ in 0..length(&mut bytes)? {
                let reason = part(&mut bytes, 4)?.try_into().ok()?;
                let packets = part(&mut bytes, 8)?.try_into().ok()?;
                overflow.push((u32::from_ne_bytes(reason), u64::from_ne_bytes(packets)));
            }
            marks.sets.push(MarkSet {
                generation,
                flows,
                overflow,
            });
        }
        bytes.is_empty().then_some(marks)
    }
}

fn put(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&(length as u64).to_ne_bytes());
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    let length = part(bytes, 8)?.try_into().ok()?;
    usize::try_from(u64::from_ne_bytes(length)).ok()
}

fn part<'bytes>(bytes: &mut &'bytes [u8], length: usize) -> Option<&'bytes [u8]> {
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn marks() -> Marks {
        let mut event = DropEvent::new_zeroed();
        event.reason = 7;
        Marks {
            sets: vec![
                MarkSet {
                    generation: "old".into(),
                    ..MarkSet::default()
                },
                MarkSet {
                    generation: "new".into(),
                    flows: vec![Told {
                        key: FlowKey::of(&event),
                        packets: 9,
                        first_ns: 1,
                    }],
                    overflow: vec![(3, 4)],
                },
            ],
            ..Marks::default()
        }
    }

    #[test]
    fn bytes_and_back() {
        let bytes = marks().to_bytes();
        assert_eq!(Marks::from_bytes(&bytes), Some(marks()));
        for cut in 0..bytes.len() {
            assert_eq!(Marks::from_bytes(&bytes[..cut]), None, "{cut}");
        }
        let mut more = bytes.clone();
        more.push(0);
        assert_eq!(Marks::from_bytes(&more), None);
        assert_eq!(Marks::from_bytes(&[0xff; 64]), None);
    }

    fn held(reason: u32, count: u64) -> DropEvent {
        let mut event = DropEvent::new_zeroed();
        event.reason = reason;
        event.count = count;
        event
    }

    #[test]
    fn what_is_held_back_was_not_told() {
        let mut marks = marks();
        let held = [held(7, 2), held(8, 1), held(7, 1)];
        let records = held.iter().map(IntoBytes::as_bytes);
        marks.take_back(records.chain([&b"no record"[..]]));
        assert_eq!(marks.sets[1].flows[0].packets, 6);
    }

    #[test]
    fn of_a_flow_in_two_generations_no_more_is_taken_back_than_was_held() {
        let mut marks = marks();
        marks.sets[0].flows = vec![Told {
            packets: 2,
            ..marks.sets[1].flows[0]
        }];
        marks.take_back([held(7, 5).as_bytes()].into_iter());
        let left: u64 = marks.sets.iter().map(|set| set.flows[0].packets).sum();
        assert_eq!(left, 2 + 9 - 5);
    }
}
