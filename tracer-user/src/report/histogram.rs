//! Packets over time in a bounded number of intervals, although nothing says before the end how long it all takes.

use std::collections::BTreeMap;

/// Intervals that all of a recording is divided into, at most.
pub(super) const MOST: i128 = 200;

/// The shortest interval: 2^20 ns, about a millisecond.
const SHORTEST: u32 = 20;

/// How long an interval is, and the intervals there are. All lanes share it.
///
/// An interval is a power of two of nanoseconds long and begins at a multiple of its length, so that two
/// neighbours make one of the next length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    shift: u32,
    range: Option<(i128, i128)>,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            shift: SHORTEST,
            range: None,
        }
    }
}

impl Scale {
    /// Makes room for a time, in nanoseconds.
    pub(super) fn widen(&mut self, at: i128) {
        let (first, last) = self.range.unwrap_or((at, at));
        let (first, last) = (first.min(at), last.max(at));
        self.range = Some((first, last));
        while (last >> self.shift) - (first >> self.shift) >= MOST {
            self.shift += 1;
        }
    }

    /// An interval's length in nanoseconds.
    pub(super) const fn interval(self) -> i128 {
        1 << self.shift
    }
}

/// Packets over time of one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    shift: u32,
    packets: BTreeMap<i128, u64>,
}

impl Histogram {
    /// Counts packets at a time that `scale` has room for.
    pub(super) fn add(&mut self, scale: Scale, at: i128, packets: u64) {
        self.fit(scale);
        let count = self.packets.entry(at >> scale.shift).or_default();
        *count = count.saturating_add(packets);
    }

    /// The beginnings of its intervals in nanoseconds, and the packets in each that has any.
    pub(super) fn intervals(&mut self, scale: Scale) -> impl Iterator<Item = (i128, u64)> {
        self.fit(scale);
        self.packets
            .iter()
            .map(move |(index, packets)| (index << scale.shift, *packets))
    }

    /// Puts intervals together until they are as long as the scale's.
    fn fit(&mut self, scale: Scale) {
        let coarser = scale.shift.saturating_sub(self.shift);
        self.shift = scale.shift;
        if coarser == 0 || self.packets.is_empty() {
            return;
        }
        for (index, packets) in std::mem::take(&mut self.packets) {
            let count = self.packets.entry(index >> coarser).or_default();
            *count = count.saturating_add(packets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn no_packet_is_lost_and_intervals_stay_few_however_long_it_takes() {
        let mut scale = Scale::default();
        let (mut early, mut late) = (Histogram::default(), Histogram::default());
        let mut add = |lane: &mut Histogram, at, packets| {
            scale.widen(at);
            lane.add(scale, at, packets);
        };
        // Out of order, before the epoch, and years apart.
        add(&mut early, 10 * SECOND, 1);
        add(&mut early, -10 * SECOND, 2);
        for second in 0..5000 {
            add(&mut late, second * SECOND, 1);
        }
        add(&mut late, 400_000_000 * SECOND, 7);
        let intervals: Vec<_> = late.intervals(scale).collect();
        assert_eq!(intervals.iter().map(|(_, n)| n).sum::<u64>(), 5007);
        assert_eq!(early.intervals(scale).map(|(_, n)| n).sum::<u64>(), 3);
        assert!(i128::try_from(intervals.len()).unwrap() <= MOST);
        let span = 400_000_010 * SECOND;
        assert!(scale.interval() * MOST >= span && scale.interval() * MOST < 4 * span);
        // Each interval holds what fell into it.
        let (last, packets) = *intervals.last().unwrap();
        assert_eq!(packets, 7);
        assert!(last <= 400_000_000 * SECOND && 400_000_000 * SECOND < last + scale.interval());
    }

    #[test]
    fn a_moment_is_one_interval() {
        let mut scale = Scale::default();
        let mut lane = Histogram::default();
        scale.widen(5 * SECOND);
        lane.add(scale, 5 * SECOND, u64::MAX);
        lane.add(scale, 5 * SECOND, 1);
        assert_eq!(lane.intervals(scale).count(), 1);
        assert_eq!(scale.interval(), 1 << SHORTEST);
    }
}
