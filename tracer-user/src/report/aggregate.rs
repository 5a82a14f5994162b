//! Drops in, findings out, in bounded memory however many drops there are.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use tracer_policy::Cluster;

use super::bounded::{Few, name, sentence};
use super::finding::Finding;
use super::histogram::Scale;
use super::key::{Key, Standing};
use crate::curable;
use crate::cure::{self, Flows};
use crate::record::{Class, Drop, Peer};

/// Findings that are told apart; what comes after is put together whatever addresses and ports it has, and
/// after that whoever it was, by class, side and verdict.
const FINDINGS: usize = 1024;
const WITHOUT_ADDRESSES: usize = 256;

/// Flows that are told apart when they are counted.
pub(super) const FLOWS: usize = 1 << 18;

/// Flows that the fix is made for, and those of one finding.
const TO_FIX: usize = 1024;
const TO_FIX_OF_ONE: usize = 256;

/// A policy's change that drops came after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) policy: String,
    pub(super) time: Timestamp,
    pub(super) by: Option<String>,
    pub(super) created: bool,
}

/// What recorded drops come to.
#[derive(Debug, Default)]
pub struct Aggregate {
    findings: Vec<Finding>,
    places: HashMap<Key, usize>,
    pub(super) scale: Scale,
    pub(super) span: Option<(Timestamp, Timestamp)>,
    pub(super) nodes: Few<String, 256>,
    pub(super) packets: u64,
    pub(super) lines: u64,
    pub(super) changes: Few<Change, 24>,
    /// By their hashes, which take less room than they.
    distinct: HashSet<u64>,
    pub(super) to_fix: Flows,
    /// Whether there were more flows to fix than are looked at.
    pub(super) more_to_fix: bool,
    /// What no policy can cure: why, and what it was.
    pub(super) incurable: Few<(String, String), 256>,
}

impl Aggregate {
    /// Takes one drop. `cluster`: of whom the fix will be.
    pub fn add(&mut self, drop: &Drop, cluster: Option<&Cluster>) {
        let ends = cure::ends(drop);
        let at = drop.time.as_nanosecond();
        self.lines += 1;
        self.packets = self.packets.saturating_add(drop.count);
        self.nodes.add(name(&drop.node), drop.count);
        self.scale.widen(at);
        let (first, last) = self.span.unwrap_or((drop.time, drop.time));
        self.span = Some((first.min(drop.time), last.max(drop.time)));
        if let Some(change) = drop
            .policy
            .as_ref()
            .and_then(|policy| policy.change.as_ref())
        {
            let change = Change {
                policy: name(&change.policy),
                time: change.time,
                by: change.by.as_deref().map(name),
                created: change.created,
            };
            self.changes.add(change, drop.count);
        }
        self.tell_apart(drop);
        let place = self.place(Key::of(drop, ends), drop.time);
        let flow = match cluster.map(|cluster| curable::flow(drop, cluster)) {
            Some(Ok(flow)) => Some(flow),
            Some(Err(curable::Incurable { what, why })) => {
                let why = (sentence(&why.to_string()), name(&what));
                self.incurable.add(why, drop.count);
                None
            }
            None => None,
        };
        let finding = &mut self.findings[place];
        finding.add(drop, ends);
        finding.lane.add(self.scale, at, drop.count);
        if let Some(flow) = flow {
            let full = finding.flows.len() >= TO_FIX_OF_ONE;
            // A full finding's own flows are still known.
            let most = if full { 0 } else { TO_FIX };
            match self.to_fix.add(flow, most) {
                Some(place) if !full => {
                    finding.flows.insert(place);
                }
                Some(_) => {}
                None => self.more_to_fix = true,
            }
        }
    }

    /// How many flows there were; whether there were more.
    pub(super) fn flows(&self) -> (usize, bool) {
        (self.distinct.len(), self.distinct.len() >= FLOWS)
    }

    /// The findings, those that matter most first.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.sort_by_key(|finding| {
            let forgotten = finding.key.class.is_some_and(Class::is_invisible);
            (
                finding.key.standing,
                !forgotten,
                std::cmp::Reverse(finding.packets),
                finding.first,
            )
        });
        findings
    }

    /// The flows that policies denied, as recorded.
    pub(super) fn denied(&self) -> HashSet<usize> {
        self.findings
            .iter()
            .filter(|finding| finding.key.standing == Standing::Denied)
            .flat_map(|finding| finding.flows.iter().copied())
            .collect()
    }

    /// The place of the finding that has this key, which may be a new one.
    fn place(&mut self, key: Key, time: Timestamp) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let key = match self.findings.len() {
            ..FINDINGS => key,
            found => {
                let folded = key.without_addresses();
                let room = found < FINDINGS + WITHOUT_ADDRESSES;
                if room || self.places.contains_key(&folded) {
                    folded
                } else {
                    key.without_names()
                }
            }
        };
        let folded = self.findings.len() >= FINDINGS;
        *self.places.entry(key.clone()).or_insert_with(|| {
            self.findings.push(Finding::new(key, time, folded));
            self.findings.len() - 1
        })
    }

    /// Counts a drop's flow where it is a new one.
    fn tell_apart(&mut self, drop: &Drop) {
        if self.distinct.len() >= FLOWS {
            return;
        }
        let end = |peer: &Peer| (peer.ip, peer.port);
        let flow = (
            drop.source.as_ref().map(end),
            drop.destination.as_ref().map(end),
            &drop.protocol,
        );
        let mut hasher = DefaultHasher::new();
        flow.hash(&mut hasher);
        self.distinct.insert(hasher.finish());
    }
}

#[cfg(test)]
mod tests;
