//! Drops that wait a moment, for a pod or a policy that is not known yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::queue::Record;
use crate::decode::RawDrop;

/// How long a drop waits for a pod whose address is not known yet.
const LATE: Duration = Duration::from_secs(3);
/// How long one that policies allow waits for what may have changed: nodes may hear of it before we do.
const DISPUTED: Duration = Duration::from_millis(1500);
/// Drops of either kind that wait at most; more are shown at once.
const AT_MOST: usize = 1024;

/// A drop with what it was made from.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) raw: RawDrop,
    pub(super) time: Timestamp,
    pub(super) record: Record,
    /// Records taken until then, with this one.
    pub(super) number: u64,
}

/// A drop that need not wait any more.
#[derive(Debug)]
pub(super) enum Released {
    /// Its pods are known, or will not be.
    Known(Held),
    /// What policies say of it now is what they say.
    Settled(Held),
}

#[derive(Debug)]
struct Entry {
    held: Held,
    /// When to give up.
    until: Instant,
}

/// Drops that wait, of each kind the longest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    unknown: VecDeque<Entry>,
    /// As many of these, from the front, are no better known than when they were looked at last.
    looked_at: usize,
    disputed: VecDeque<Entry>,
}

impl Waiting {
    /// Whether there is room for a drop of a pod that is not known.
    pub(super) fn has_room(&self) -> bool {
        self.unknown.len() < AT_MOST
    }

    /// Keeps back a drop of a pod that is not known.
    pub(super) fn hold(&mut self, held: Held, now: Instant) {
        if self.looked_at == self.unknown.len() {
            self.looked_at += 1;
        }
        let until = now + LATE;
        self.unknown.push_back(Entry { held, until });
    }

    /// Keeps back a drop that policies allow; or hands it back, where there is no room.
    pub(super) fn hold_disputed(&mut self, held: Held, now: Instant) -> Option<Held> {
        if self.disputed.len() >= AT_MOST {
            return Some(held);
        }
        let until = now + DISPUTED;
        self.disputed.push_back(Entry { held, until });
        None
    }

    /// The cluster is another, so that everything is to be looked at again.
    pub(super) const fn look_again(&mut self) {
        self.looked_at = 0;
    }

    /// Brings times up to a clock that was set.
    pub(super) fn clock_was_set(&mut self, step: SignedDuration) {
        for entry in self.unknown.iter_mut().chain(&mut self.disputed) {
            let time = &mut entry.held.time;
            *time = time.checked_add(step).unwrap_or(*time);
        }
    }

    /// The records that wait.
    pub(super) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.unknown.iter().chain(&self.disputed);
        all.map(|entry| entry.held.record.bytes())
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.disputed.is_empty()
    }

    /// The number of the first record that waits.
    pub(super) fn first(&self) -> Option<u64> {
        let all = self.unknown.iter().chain(&self.disputed);
        all.map(|entry| entry.held.number).min()
    }

    /// A drop that need not wait any more.
    pub(super) fn release(
        &mut self,
        now: Instant,
        is_known: impl Fn(&Held) -> bool,
    ) -> Option<Released> {
        if let Some(entry) = self.disputed.pop_front_if(|entry| entry.until <= now) {
            return Some(Released::Settled(entry.held));
        }
        if let Some(entry) = self.unknown.pop_front_if(|entry| entry.until <= now) {
            self.looked_at = self.looked_at.saturating_sub(1);
            return Some(Released::Known(entry.held));
        }
        let mut rest = self.unknown.iter().skip(self.looked_at);
        let Some(ahead) = rest.position(|entry| is_known(&entry.held)) else {
            self.looked_at = self.unknown.len();
            return None;
        };
        self.looked_at += ahead;
        let entry = self.unknown.remove(self.looked_at)?;
        Some(Released::Known(entry.held))
    }

    /// A drop, whether it may go or not.
    pub(super) fn release_any(&mut self) -> Option<Held> {
        let entry = self
            .unknown
            .pop_front()
            .or_else(|| self.disputed.pop_front());
        entry.map(|entry| entry.held)
    }

    /// When one has waited long enough, at the earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = [self.unknown.front(), self.disputed.front()];
        first.into_iter().flatten().map(|entry| entry.until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::pipeline::tests::{WEB, raw};

    fn held(source_port: u16) -> Held {
        let mut raw = raw("192.0.2.1", WEB);
        raw.flow.as_mut().unwrap().source_port = Some(source_port);
        Held {
            raw,
            time: Timestamp::UNIX_EPOCH,
            record: Record::of(b"record"),
            number: source_port.into(),
        }
    }

    fn port(released: Option<Released>) -> Option<u16> {
        match released? {
            Released::Known(held) | Released::Settled(held) => held.raw.flow?.source_port,
        }
    }

    #[test]
    fn each_is_looked_at_once_until_the_cluster_changes() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for port in 0..100 {
            waiting.hold(held(port), now);
        }
        let looks = Cell::new(0);
        let known = |wanted: [u16; 2]| {
            let looks = &looks;
            move |held: &Held| {
                looks.set(looks.get() + 1);
                let port = held.raw.flow.as_ref().unwrap().source_port.unwrap();
                wanted.contains(&port)
            }
        };
        assert_eq!(port(waiting.release(now, known([7, 90]))), None);
        assert_eq!(looks.get(), 0, "they were when they came");
        waiting.look_again();
        assert_eq!(port(waiting.release(now, known([7, 90]))), Some(7));
        assert_eq!(port(waiting.release(now, known([7, 90]))), Some(90));
        waiting.hold(held(100), now);
        assert_eq!(port(waiting.release(now, known([100, 100]))), Some(100));
        assert_eq!(port(waiting.release(now, known([7, 90]))), None);
        assert_eq!(looks.get(), 101);
        let late = now + LATE;
        let rest = std::iter::from_fn(|| port(waiting.release(late, known([7, 90]))));
        assert_eq!(rest.count(), 98);
        assert_eq!(looks.get(), 101, "who has waited is not looked at");
    }

    #[test]
    fn who_waits_for_policies_waits_for_less() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.hold(held(1), now);
        assert!(waiting.hold_disputed(held(2), now).is_none());
        assert_eq!(waiting.records().count(), 2);
        assert_eq!(waiting.next(), Some(now + DISPUTED));
        assert!(waiting.release(now, |_| false).is_none());
        let released = waiting.release(now + DISPUTED, |_| false);
        assert!(matches!(released, Some(Released::Settled(_))));
        assert_eq!(waiting.next(), Some(now + LATE));
        let mut refused = (0..=AT_MOST).filter_map(|_| waiting.hold_disputed(held(3), now));
        assert!(refused.next().is_some() && refused.next().is_none());
    }
}
