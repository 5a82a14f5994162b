//! How much of what the kernel has counted was told: kept outside the process, so that the next one
//! tells the rest.

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
    /// These marks are kept.
    pub fn settle(&self, marks: &Marks) {
        self.0.store(marks.number, Ordering::Release);
    }

    /// The number of the last ones.
    pub(in super::super) fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Marks {
    /// Whether they have everything that was counted before this process started.
    pub const fn are_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Takes back that a record was told: whoever took it has not dealt with it yet.
    pub fn take_back(&mut self, record: &[u8]) {
        let Ok(event) = DropEvent::read_from_bytes(record) else {
            return;
        };
        let key = FlowKey::of(&event);
        for set in &mut self.sets {
            if let Some(told) = set.flows.iter_mut().find(|told| told.key == key) {
                told.packets = told.packets.saturating_sub(event.count);
                return;
            }
        }
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

    #[test]
    fn what_is_held_back_was_not_told() {
        let mut event = DropEvent::new_zeroed();
        event.reason = 7;
        event.count = 2;
        let mut marks = marks();
        marks.take_back(event.as_bytes());
        assert_eq!(marks.sets[1].flows[0].packets, 7);
        marks.take_back(b"no record");
        event.reason = 8;
        marks.take_back(event.as_bytes());
        assert_eq!(marks.sets[1].flows[0].packets, 7);
    }
}
