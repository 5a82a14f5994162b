//! Cluster state that changes while drops come in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Stages;
use super::outlet::Outlet;
use super::queue::Record;
use crate::attribute::Attributor;
use crate::cluster::live::{Keeper, Updates};
use crate::decode::RawDrop;

/// How long drops wait for the first whole state.
const START: Duration = Duration::from_secs(5);
/// How long a drop waits for a pod whose address is not known yet.
const LATE: Duration = Duration::from_secs(3);
/// Drops that wait at most; more are shown at once.
const WAITING: usize = 1024;
/// How often pods that are gone are forgotten.
const TIDY: Duration = Duration::from_secs(30);

/// A drop that waits.
#[derive(Debug)]
struct Waiting {
    raw: RawDrop,
    time: Timestamp,
    /// When to give up.
    until: Instant,
    /// What it was made from.
    record: Record,
}

/// Keeps an [`Attributor`] up to date, and drops back that cannot be attributed yet.
#[derive(Debug)]
pub struct Following {
    updates: Updates,
    keeper: Keeper,
    /// Drops that came before their pod was known.
    waiting: VecDeque<Waiting>,
    tidy: Instant,
    /// Until when drops wait for the first whole state.
    start: Option<Instant>,
}

impl Following {
    /// `updates` from a live cluster, applied through `keeper`.
    pub fn new(updates: Updates, keeper: Keeper) -> Self {
        let now = Instant::now();
        Self {
            updates,
            keeper,
            waiting: VecDeque::new(),
            tidy: now + TIDY,
            start: Some(now + START),
        }
    }

    /// Applies what has come, and tidies up now and then.
    pub(super) fn catch_up(&mut self, stages: &mut Stages, outlet: &mut Outlet) {
        let now = stages.clock.now();
        self.follow_clock(stages);
        let attributor = &mut stages.attributor;
        let mut changed = false;
        let mut nodes = false;
        while let Ok(update) = self.updates.receiver.try_recv() {
            nodes |= self.keeper.apply(update, now, attributor.cluster_mut());
            changed = true;
        }
        if nodes {
            attributor.nodes_changed();
        }
        if changed && self.keeper.is_whole() {
            attributor.set_known(true);
            self.updates.status.caught_up();
            self.start = None;
        }
        if Instant::now() >= self.tidy {
            attributor.cluster_mut().forget_gone(now);
            self.tidy = Instant::now() + TIDY;
            // Who is not known any more may only be out of sight.
            if self.keeper.is_whole() && self.updates.status.health().is_synced() {
                outlet.tidy(attributor.cluster_mut());
            }
        }
    }

    /// When a record was made.
    pub(super) fn time(&mut self, raw: &RawDrop, stages: &mut Stages) -> Timestamp {
        let time = stages.clock.wall(raw.ktime_ns);
        self.follow_clock(stages);
        time
    }

    /// Where the clock was set, all that was told by it is off by the same.
    fn follow_clock(&mut self, stages: &mut Stages) {
        let Some(step) = stages.clock.take_step() else {
            return;
        };
        stages.attributor.clock_was_set(step);
        for one in &mut self.waiting {
            one.time = one.time.checked_add(step).unwrap_or(one.time);
        }
    }

    /// Until when to wait before the first drop is looked at: the first whole state is worth a moment.
    pub(super) fn start(&self) -> Option<Instant> {
        self.start.filter(|until| Instant::now() < *until)
    }

    /// Whether a drop's pod is not known yet, and there is room for it to wait.
    pub(super) fn must_wait(
        &self,
        raw: &RawDrop,
        time: Timestamp,
        attributor: &Attributor,
    ) -> bool {
        self.waiting.len() < WAITING && !attributor.knows(raw, time)
    }

    /// Keeps a drop back.
    pub(super) fn hold(&mut self, raw: RawDrop, time: Timestamp, record: Record) {
        self.waiting.push_back(Waiting {
            raw,
            time,
            until: Instant::now() + LATE,
            record,
        });
    }

    /// The records that wait.
    pub(super) fn held(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.iter().map(|waiting| waiting.record.bytes())
    }

    /// A drop that need not wait any more.
    pub(super) fn release(&mut self, attributor: &Attributor) -> Option<(RawDrop, Timestamp)> {
        let now = Instant::now();
        let ready = self
            .waiting
            .iter()
            .position(|one| one.until <= now || attributor.knows(&one.raw, one.time))?;
        let one = self.waiting.remove(ready)?;
        Some((one.raw, one.time))
    }

    /// A drop that waits, whether it may go or not: the end has come.
    pub(super) fn release_any(&mut self) -> Option<(RawDrop, Timestamp)> {
        let one = self.waiting.pop_front()?;
        Some((one.raw, one.time))
    }

    /// When something is to be done at the latest.
    pub(super) fn next(&self) -> Instant {
        self.waiting
            .front()
            .map_or(self.tidy, |one| one.until.min(self.tidy))
    }
}
