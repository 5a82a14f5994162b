//! Drops that are one thing: whose they were, how they were dropped, what the policies say.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::bounded::{Few, name, sentence};
use super::histogram::Histogram;
use super::key::Key;
use crate::cure::Ends;
use crate::record::{Drop, DropAction, Grade, NearestMiss, ProbeInfo};
use crate::sink::text;

/// What is known of drops with one key.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) key: Key,
    /// Whether it takes the place of several that there was no room for.
    pub(super) folded: bool,
    /// Packets.
    pub(super) packets: u64,
    /// When the first was dropped, and the last.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) lane: Histogram,
    /// The ends as they were seen: `vault/vault-0`, `node-a(10.42.1.1)`.
    pub(super) clients: Few<String, 24>,
    pub(super) servers: Few<String, 24>,
    /// The pods whose isolation it met, by namespace and name.
    pub(super) pods: Few<(String, String), 64>,
    pub(super) nodes: Few<String, 16>,
    pub(super) ways: Few<Way, 8>,
    pub(super) grades: Few<Grade, 3>,
    pub(super) misses: Few<Miss, 4>,
    pub(super) probes: Few<Probe, 4>,
    pub(super) symptoms: Few<String, 4>,
    pub(super) hints: Few<String, 3>,
    pub(super) notes: Few<String, 6>,
    /// Places among the report's flows.
    pub(super) flows: BTreeSet<usize>,
}

/// How a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The kernel's own name.
    pub(super) reason: String,
    pub(super) action: Option<DropAction>,
    pub(super) reply: Option<String>,
    /// With the programs that stand there.
    pub(super) hook: Option<String>,
    pub(super) datapath: Option<String>,
}

/// The rule that came nearest, and what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    /// Policy and rule.
    pub(super) rule: String,
    pub(super) failed: String,
    pub(super) wanted: String,
    pub(super) got: String,
}

/// A probe that did not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) kind: String,
    pub(super) container: String,
    pub(super) handler: String,
    pub(super) port: u16,
    pub(super) period: u32,
}

impl Finding {
    /// Nothing yet, from `time` on.
    pub(super) fn new(key: Key, time: Timestamp, folded: bool) -> Self {
        Self {
            key,
            folded,
            packets: 0,
            first: time,
            last: time,
            lane: Histogram::default(),
            clients: Few::default(),
            servers: Few::default(),
            pods: Few::default(),
            nodes: Few::default(),
            ways: Few::default(),
            grades: Few::default(),
            misses: Few::default(),
            probes: Few::default(),
            symptoms: Few::default(),
            hints: Few::default(),
            notes: Few::default(),
            flows: BTreeSet::new(),
        }
    }

    /// Takes one of its drops.
    pub(super) fn add(&mut self, drop: &Drop, ends: Option<Ends<'_>>) {
        let packets = drop.count;
        self.packets = self.packets.saturating_add(packets);
        self.first = self.first.min(drop.time);
        self.last = self.last.max(drop.time);
        self.nodes.add(name(&drop.node), packets);
        if let Some(ends) = ends {
            let client = text::source(Some(ends.client));
            let server = text::destination(Some(ends.server));
            self.clients.add(name(&client), packets);
            self.servers.add(name(&server), packets);
            let own = if self.key.befell_server() {
                ends.server
            } else {
                ends.client
            };
            if let (Some(namespace), Some(pod)) = (&own.namespace, &own.pod) {
                self.pods.add((name(namespace), name(pod)), packets);
            }
        }
        self.ways.add(
            Way {
                reason: name(&drop.drop.reason),
                action: drop.drop.action,
                reply: drop.drop.reply.as_deref().map(name),
                hook: text::hook(drop).as_deref().map(name),
                datapath: drop.drop.datapath.as_deref().map(name),
            },
            packets,
        );
        if let Some(policy) = &drop.policy {
            self.grades.add(policy.grade, packets);
            if let Some(miss) = &policy.nearest_miss {
                self.misses.add(Miss::of(miss), packets);
            }
        }
        if let Some(probe) = &drop.probe {
            self.probes.add(Probe::of(probe), packets);
        }
        for (words, few) in [
            (drop.symptom.as_deref(), &mut self.symptoms as &mut dyn Take),
            (drop.hint.as_deref(), &mut self.hints),
        ] {
            if let Some(words) = words {
                few.take(words, packets);
            }
        }
        for note in text::notes(drop) {
            self.notes.take(&note, packets);
        }
    }
}

/// Sentences, however many are kept.
trait Take {
    fn take(&mut self, words: &str, packets: u64);
}

impl<const N: usize> Take for Few<String, N> {
    fn take(&mut self, words: &str, packets: u64) {
        self.add(sentence(words), packets);
    }
}

impl Miss {
    fn of(miss: &NearestMiss) -> Self {
        let rule = match &miss.rule {
            Some(rule) => format!("{} {rule}", miss.policy),
            None => miss.policy.clone(),
        };
        Self {
            rule: name(&rule),
            failed: name(&miss.failed),
            wanted: sentence(&miss.wanted),
            got: sentence(&miss.got),
        }
    }
}

impl Probe {
    fn of(probe: &ProbeInfo) -> Self {
        Self {
            kind: name(&probe.kind),
            container: name(&probe.container),
            handler: name(&probe.handler),
            port: probe.port,
            period: probe.period_seconds,
        }
    }
}
