//! What CPUs have counted beside the table of flows.

use std::sync::Arc;

use aya::maps::{Map, MapData, PerCpuArray};
use tracer_common::{CpuState, FlowKey, Streak};

use super::error::{Error, boxed};

const WORDS: usize = size_of::<CpuState>() / 8;

/// The state of all CPUs; cheap to clone.
#[derive(Clone)]
pub(super) struct States(Arc<PerCpuArray<MapData, [u64; WORDS]>>);

/// Packets of a flow that the table does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) packets: u64,
    /// As [`tracer_common::FlowValue::last_ns`].
    pub(super) last_ns: u64,
}

impl States {
    pub(super) fn new(state: Map) -> Result<Self, Error> {
        Ok(Self(Arc::new(PerCpuArray::try_from(state).map_err(boxed)?)))
    }

    /// One a CPU.
    pub(super) fn read(&self) -> Result<impl Iterator<Item = CpuState> + use<>, Error> {
        let states = self.0.get(&0, 0).map_err(boxed)?;
        let states: Vec<CpuState> = states
            .iter()
            .map(|words| zerocopy::transmute!(*words))
            .collect();
        Ok(states.into_iter())
    }

    /// The flows that have packets beside the table, each once.
    pub(super) fn going_on(&self) -> Result<Vec<FlowKey>, Error> {
        let mut flows = Vec::new();
        for streak in self.streaks()? {
            if streak.packets > 0 && is_whole(&streak) && !flows.contains(&streak.key) {
                flows.push(streak.key);
            }
        }
        Ok(flows)
    }

    /// The flows that have packets beside the table, or may have.
    pub(super) fn held(&self) -> Result<Vec<FlowKey>, Error> {
        let held = |streak: &Streak| streak.packets > 0 || !is_whole(streak);
        Ok(self
            .streaks()?
            .filter(held)
            .map(|streak| streak.key)
            .collect())
    }

    /// What stands beside the table of one flow. To be added to what the table said *before*: then nothing is
    /// counted twice that goes into the table just now.
    pub(super) fn beside(&self, flow: &FlowKey) -> Result<Beside, Error> {
        let first: Vec<_> = self.streaks()?.collect();
        let second: Vec<_> = self.streaks()?.collect();
        Ok(beside(&first, &second, flow))
    }

    fn streaks(&self) -> Result<impl Iterator<Item = Streak> + use<>, Error> {
        Ok(self.read()?.map(|state| state.streak))
    }
}

/// By two looks, because a CPU of another kind may show what it writes in another order: what was the same
/// streak in both was one in the first.
fn beside(first: &[Streak], second: &[Streak], flow: &FlowKey) -> Beside {
    let mut sum = Beside::default();
    for (one, again) in first.iter().zip(second) {
        let is_one = is_whole(one) && is_whole(again) && one.begun == again.begun;
        if is_one && one.key == *flow && again.key == *flow {
            sum.packets += one.packets;
            sum.last_ns = sum.last_ns.max(one.last_ns);
        }
    }
    sum
}

/// Whether a streak was read between two beginnings.
const fn is_whole(streak: &Streak) -> bool {
    streak.begun == streak.begins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streak(port: u16, number: u64, packets: u64) -> Streak {
        Streak {
            begun: number,
            key: FlowKey {
                port,
                ..FlowKey::default()
            },
            packets,
            last_ns: packets,
            since_ns: 1,
            begins: number,
        }
    }

    #[test]
    fn streaks_of_all_cpus_add_up() {
        let streaks = [streak(1, 1, 5), streak(2, 9, 7), streak(1, 3, 6)];
        let sum = beside(&streaks, &streaks, &streaks[0].key);
        let expected = Beside {
            packets: 11,
            last_ns: 6,
        };
        assert_eq!(sum, expected);
        let other = streak(3, 1, 1).key;
        assert_eq!(beside(&streaks, &streaks, &other), Beside::default());
    }

    #[test]
    fn what_may_be_another_flows_is_left_for_the_next_time() {
        let whole = streak(1, 4, 5);
        let begins = Streak { begins: 5, ..whole };
        let next = streak(1, 5, 1);
        let renamed = streak(2, 4, 5);
        for (first, second) in [
            (begins, begins),
            (begins, next),
            (whole, begins),
            (whole, next),
            (whole, renamed),
        ] {
            let sum = beside(&[first], &[second], &whole.key);
            assert_eq!(sum, Beside::default(), "{first:?} {second:?}");
        }
        // More came meanwhile: they are the next look's.
        let more = Streak {
            packets: 8,
            ..whole
        };
        assert_eq!(beside(&[whole], &[more], &whole.key).packets, 5);
    }
}
