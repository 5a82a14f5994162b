//! Cluster state that changes while drops come in.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Stages;
use super::outlet::Outlet;
use super::waiting::{Held, Released, Waiting};
use crate::attribute::Attributor;
use crate::cluster::host;
use crate::cluster::live::{Keeper, Updates};
use crate::decode::RawDrop;

/// How long drops wait for the first whole state.
const START: Duration = Duration::from_secs(5);
/// How often pods that are gone are forgotten.
const TIDY: Duration = Duration::from_secs(30);

/// Keeps an [`Attributor`] up to date, and drops back that cannot be attributed yet.
#[derive(Debug)]
pub struct Following {
    updates: Updates,
    keeper: Keeper,
    /// Drops that came before their pod was known, or the policy that denies them.
    pub(super) waiting: Waiting,
    /// Records taken so far.
    pub(super) taken: u64,
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
            waiting: Waiting::default(),
            taken: 0,
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
        if changed {
            self.waiting.look_again();
        }
        if changed && self.keeper.is_whole() {
            attributor.set_known(true);
            self.updates.status.caught_up();
            self.start = None;
        }
        if Instant::now() >= self.tidy {
            attributor.cluster_mut().forget_gone(now);
            // An address is given to an interface at any time. What cannot be read is as it was.
            if let Ok(addresses) = host::addresses()
                && self.keeper.host_has(addresses, attributor.cluster_mut())
            {
                attributor.nodes_changed();
            }
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
        self.waiting.clock_was_set(step);
    }

    /// Until when to wait before the first drop is looked at: the first whole state is worth a moment.
    pub(super) fn start(&self) -> Option<Instant> {
        self.start.filter(|until| Instant::now() < *until)
    }

    /// Keeps a drop back whose pod is not known yet, where there is room; else hands it back.
    pub(super) fn hold_unknown(&mut self, held: Held, attributor: &Attributor) -> Option<Held> {
        if !self.waiting.has_room() || attributor.knows(&held.raw, held.time) {
            return Some(held);
        }
        self.waiting.hold(held, Instant::now());
        None
    }

    /// A drop that need not wait any more.
    pub(super) fn release(&mut self, attributor: &Attributor) -> Option<Released> {
        let is_known = |held: &Held| attributor.knows(&held.raw, held.time);
        self.waiting.release(Instant::now(), is_known)
    }

    /// When something is to be done at the latest.
    pub(super) fn next(&self) -> Instant {
        let waiting = self.waiting.next();
        waiting.map_or(self.tidy, |until| until.min(self.tidy))
    }
}
