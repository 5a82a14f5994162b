//! From the kernel's clock to the time of day.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How often the two clocks are compared, in nanoseconds.
const COMPARE_EVERY_NS: i128 = 1_000_000_000;
/// A difference below this, in nanoseconds, is slewing and noise: following it would let two drops
/// change places.
const STEP_NS: i128 = 1_000_000;

/// How many times they are compared at once.
const SAMPLES: usize = 5;

/// Turns `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`) into the time of day, and follows when that is set.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_ns: i128,
    compared_ns: i128,
    /// How far it was set ahead since that was asked for, in nanoseconds.
    unasked: i128,
}

impl Clock {
    /// Compares the clocks.
    pub fn new() -> Self {
        let (offset_ns, compared_ns) = compare();
        Self {
            offset_ns,
            compared_ns,
            unasked: 0,
        }
    }

    /// The time of day, as [`Clock::wall`] would tell it of a packet that is dropped now.
    pub fn now(&mut self) -> Timestamp {
        self.wall(now_ns())
    }

    /// How far it was set, ahead or back, since this was asked last: times that it told before are off by that.
    pub fn take_step(&mut self) -> Option<SignedDuration> {
        let step_ns = std::mem::take(&mut self.unasked);
        SignedDuration::try_from_nanos_i128(step_ns).filter(|step| !step.is_zero())
    }

    /// The time of day of a kernel time in nanoseconds.
    pub fn wall(&mut self, ktime_ns: u64) -> Timestamp {
        let ktime_ns = i128::from(ktime_ns);
        if ktime_ns - self.compared_ns > COMPARE_EVERY_NS {
            let (offset_ns, compared_ns) = compare();
            self.follow(offset_ns, compared_ns);
        }
        // Only a clock set beyond the year 9999 has no such timestamp.
        Timestamp::from_nanosecond(ktime_ns + self.offset_ns).unwrap_or(Timestamp::MAX)
    }

    /// As if the time of day had been set `step` ahead; it is not looked at again for a day.
    #[cfg(test)]
    pub(crate) fn set_for_tests(&mut self, step: SignedDuration) {
        let tomorrow = i128::from(now_ns()) + 86_400_000_000_000;
        self.follow(self.offset_ns + step.as_nanos(), tomorrow);
    }

    fn follow(&mut self, offset_ns: i128, compared_ns: i128) {
        let step_ns = offset_ns - self.offset_ns;
        if step_ns.abs() > STEP_NS {
            self.offset_ns = offset_ns;
            self.unasked += step_ns;
        }
        self.compared_ns = compared_ns;
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// `bpf_ktime_get_ns` as of now.
pub(super) fn now_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Monotonic))).unwrap_or(0)
}

/// One clock read between two readings of the other.
#[derive(Clone, Copy, Debug)]
struct Sample {
    before: i128,
    wall: i128,
    after: i128,
}

impl Sample {
    fn take() -> Self {
        Self {
            before: nanoseconds(clock_gettime(ClockId::Monotonic)),
            wall: nanoseconds(clock_gettime(ClockId::Realtime)),
            after: nanoseconds(clock_gettime(ClockId::Monotonic)),
        }
    }
}

/// How far the time of day is ahead of the monotonic clock, and when that was; both in nanoseconds.
fn compare() -> (i128, i128) {
    tightest(std::array::from_fn::<_, SAMPLES, _>(|_| Sample::take()))
}

/// From the sample that leaves the least open: in the others the process may have been held up in between.
fn tightest(samples: [Sample; SAMPLES]) -> (i128, i128) {
    let best = samples.into_iter().reduce(|best, one| {
        if one.after - one.before < best.after - best.before {
            one
        } else {
            best
        }
    });
    best.map_or((0, 0), |best| {
        let middle = i128::midpoint(best.before, best.after);
        (best.wall - middle, middle)
    })
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock {
            offset_ns: 1_700_000_000_000_000_000,
            compared_ns: 5_000_000_000,
            unasked: 0,
        }
    }

    #[test]
    fn a_time_is_the_sum() {
        let time = clock().wall(5_000_000_123);
        assert_eq!(time.as_nanosecond(), 1_700_000_005_000_000_123);
    }

    #[test]
    fn of_several_comparisons_the_tightest_counts() {
        let sample = |before, took| Sample {
            before,
            // Read right after the first of the two.
            wall: before + 1_000,
            after: before + took,
        };
        // Held up for 10 ms, the first is off by half of that.
        let held_up = sample(0, 10_000_000);
        let samples = [held_up, sample(100, 20), sample(200, 4), held_up, held_up];
        assert_eq!(tightest(samples), (998, 202));
    }

    #[test]
    fn a_clock_that_was_set_is_followed_and_noise_is_not() {
        let mut clock = clock();
        let before = clock.offset_ns;
        clock.follow(before + STEP_NS, 6_000_000_000);
        assert_eq!((clock.offset_ns, clock.take_step()), (before, None));
        clock.follow(before - 3_600_000_000_000, 7_000_000_000);
        assert_eq!(clock.offset_ns, before - 3_600_000_000_000);
        assert_eq!(clock.compared_ns, 7_000_000_000);
        let steps = [clock.take_step(), clock.take_step()];
        assert_eq!(steps, [Some(SignedDuration::from_hours(-1)), None]);
    }

    #[test]
    fn now_is_now() {
        let ktime = nanoseconds(clock_gettime(ClockId::Monotonic));
        let time = Clock::new().wall(u64::try_from(ktime).unwrap());
        let difference = Timestamp::now().as_nanosecond() - time.as_nanosecond();
        assert!((0..60_000_000_000).contains(&difference), "{difference} ns");
    }
}
