//! What the programs saw, lost and cost.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aya::sys::Stats;

use super::error::Error;
use super::streaks::States;

/// Packets, summed over all CPUs since the programs were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dropped for a reason nobody asked for.
    pub ignored: u64,
    /// First packets of a flow, handed to user space at once.
    pub recorded: u64,
    /// Further packets of a flow, counted in the table.
    pub folded: u64,
    /// Counted by their reason alone: the table of flows was full.
    pub overflowed: u64,
    /// Of these, without IP headers that could be read.
    pub unparsed: u64,
    /// First packets that came a little later, out of the table, because the ring was full.
    pub ring_full: u64,
    /// Lost: the packet's memory could not be read.
    pub unreadable: u64,
    /// Lost, at most: dropped in an interrupt in the middle of another drop on the same CPU. The kernel counts
    /// them where it does not start the program a second time, whatever the reason for the drop was.
    pub nested: u64,
    /// Rejects seen through `icmp:icmp_send`.
    pub rejects: u64,
}

impl Counters {
    /// Drops of interest that did not get to user space, at most.
    pub const fn lost(&self) -> u64 {
        self.unreadable + self.nested
    }
}

/// What the programs cost. Grows only while the kernel measures (see
/// [`super::Options::measure_cost`], or `kernel.bpf_stats_enabled`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time in the programs.
    pub time: Duration,
    /// Runs that were measured.
    pub runs: u64,
}

/// Reads counters and cost; cheap to clone.
#[derive(Clone)]
pub struct Meter {
    states: States,
    programs: Arc<Programs>,
    flows: Arc<AtomicUsize>,
    capacity: u32,
}

/// What runs in the kernel.
pub(super) struct Programs {
    /// At `kfree_skb`.
    pub(super) drops: OwnedFd,
    /// At what answers senders.
    pub(super) answers: Vec<OwnedFd>,
}

impl Meter {
    /// `flows`: entries of the table of flows, of `capacity`.
    pub(super) fn new(
        states: States,
        programs: Programs,
        flows: Arc<AtomicUsize>,
        capacity: u32,
    ) -> Self {
        Self {
            states,
            flows,
            capacity,
            programs: Arc::new(programs),
        }
    }

    /// What was captured and lost until now.
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut sum = Counters {
            // Of the others, what is missed is an answer, not a drop.
            nested: fdinfo(&self.programs.drops, "recursion_misses"),
            ..Counters::default()
        };
        for state in self.states.read()? {
            sum.ignored += state.ignored;
            sum.recorded += state.recorded;
            sum.folded += state.folded;
            sum.overflowed += state.overflowed;
            sum.unparsed += state.unparsed;
            sum.ring_full += state.ring_full;
            sum.unreadable += state.unreadable;
            sum.nested += state.nested;
            sum.rejects += state.rejects;
        }
        Ok(sum)
    }

    /// How many flows are in the kernel's table, as of the last look at it (there is one a second while
    /// there is news), and how many have room.
    pub fn flows(&self) -> (usize, u32) {
        (self.flows.load(Ordering::Relaxed), self.capacity)
    }

    /// What the programs cost until now.
    pub fn cost(&self) -> Cost {
        let sum = |key| {
            let Programs { drops, answers } = &*self.programs;
            let all = answers.iter().chain([drops]);
            all.map(|program| fdinfo(program, key)).sum()
        };
        Cost {
            time: Duration::from_nanos(sum("run_time_ns")),
            runs: sum("run_cnt"),
        }
    }
}

/// A number the kernel shows of a program; 0 for what it does not show.
///
/// aya's `ProgramInfo` has no `recursion_misses`; the text has all of them.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/syscall.c> (`bpf_prog_show_fdinfo`)
fn fdinfo(program: &OwnedFd, key: &str) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    fs::read_to_string(path)
        .ok()
        .and_then(|text| number(&text, key))
        .unwrap_or(0)
}

/// The number after `key:` in an fdinfo text.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
        .trim()
        .parse()
        .ok()
}

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
#[error(
    "what tracer costs is not measured, which takes CAP_SYS_ADMIN (or set sysctl kernel.bpf_stats_enabled=1 on the node): {0}"
)]
pub(super) struct NotMeasured(std::io::Error);

/// Has the kernel measure all BPF programs for as long as the result is open (since Linux 5.8; needs
/// `CAP_SYS_ADMIN`).
pub(super) fn measure() -> Result<OwnedFd, NotMeasured> {
    aya::sys::enable_stats(Stats::RunTime).map_err(|error| NotMeasured(error.io_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_key() {
        let text =
            "pos:\t0\nprog_id:\t42\nrun_time_ns:\t1700\nrun_cnt:\t10\nrecursion_misses:\t3\n";
        assert_eq!(number(text, "run_cnt"), Some(10));
        assert_eq!(number(text, "recursion_misses"), Some(3));
        assert_eq!(number(text, "run"), None);
        assert_eq!(number(text, "verified_insns"), None);
    }

    #[test]
    fn lost_is_everything_that_did_not_arrive() {
        let counters = Counters {
            ignored: 1,
            recorded: 10,
            folded: 5,
            overflowed: 6,
            unparsed: 2,
            ring_full: 100,
            unreadable: 1000,
            nested: 10_000,
            rejects: 4,
        };
        assert_eq!(counters.lost(), 11_000);
    }
}
