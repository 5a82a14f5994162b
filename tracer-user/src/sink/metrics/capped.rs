//! A family of counters that cannot grow without bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::{IntCounter, IntCounterVec};
use serde::{Deserialize, Serialize};

/// What a label says once its family is full.
const OTHER: &str = "other";

/// One series of a metric, as one process leaves it to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The metric's name.
    pub metric: String,
    /// Values by the labels' names.
    pub labels: BTreeMap<String, String>,
    /// Packets.
    pub packets: u64,
}

/// A counter family with `N` labels, those from `foldable_from` on naming objects of the cluster:
/// once there are `max_series` series, these become `other`.
#[derive(Debug)]
pub struct Capped<const N: usize> {
    family: IntCounterVec,
    folded: IntCounter,
    foldable_from: usize,
    max_series: usize,
    series: Mutex<Known<N>>,
}

/// Series at hand.
#[derive(Debug, Default)]
struct Known<const N: usize> {
    own: HashMap<[String; N], Own>,
    /// Those that others were folded into.
    others: HashMap<[String; N], IntCounter>,
}

#[derive(Debug)]
struct Own {
    counter: IntCounter,
    /// When it counted last.
    last: Instant,
}

impl Own {
    fn new(counter: IntCounter) -> Self {
        Self {
            counter,
            last: Instant::now(),
        }
    }
}

impl<const N: usize> Capped<N> {
    pub(super) fn new(
        family: IntCounterVec,
        folded: IntCounter,
        foldable_from: usize,
        max_series: usize,
    ) -> Self {
        Self {
            family,
            folded,
            foldable_from,
            max_series,
            series: Mutex::default(),
        }
    }

    /// Adds `packets` to the series of these labels.
    pub fn add(&self, labels: [&str; N], packets: u64) {
        let mut known = self.lock();
        let key = labels.map(str::to_owned);
        if let Some(own) = known.own.get_mut(&key) {
            own.counter.inc_by(packets);
            own.last = Instant::now();
            return;
        }
        if known.own.len() < self.max_series {
            let counter = self.family.with_label_values(&labels);
            counter.inc_by(packets);
            known.own.insert(key, Own::new(counter));
            return;
        }
        let mut rest = labels;
        rest[self.foldable_from..].fill(OTHER);
        known
            .others
            .entry(rest.map(str::to_owned))
            .or_insert_with(|| self.family.with_label_values(&rest))
            .inc_by(packets);
        self.folded.inc_by(packets);
    }

    /// Forgets series that have not counted since `before`, and that are of nobody who is there.
    pub(super) fn expire(&self, before: Instant, is_there: impl Fn(&[String; N]) -> bool) {
        let mut known = self.lock();
        known.own.retain(|labels, own| {
            let stays = own.last >= before || is_there(labels);
            if !stays {
                // It is there, as nobody else removes any.
                let _ = self.family.remove_label_values(labels);
            }
            stays
        });
    }

    /// How many series there are, those that others were folded into among them.
    pub(super) fn len(&self) -> usize {
        let known = self.lock();
        known.own.len() + known.others.len()
    }

    /// Every series, those that were folded too, with labels in the order of `names`.
    pub(super) fn export(&self, metric: &str, names: &[&str; N]) -> Vec<Series> {
        let known = self.lock();
        let own = known.own.iter().map(|(key, own)| (key, &own.counter));
        own.chain(&known.others)
            .map(|(values, counter)| Series {
                metric: metric.to_owned(),
                labels: names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .zip(values.iter().cloned())
                    .collect(),
                packets: counter.get(),
            })
            .collect()
    }

    /// Goes on with a series of an earlier process; one with other labels is left out.
    pub(super) fn restore(&self, names: &[&str; N], series: &Series) {
        let values = names.map(|name| series.labels.get(name).map(String::as_str));
        if series.labels.len() != N || values.contains(&None) {
            return;
        }
        let values = values.map(Option::unwrap_or_default);
        let counter = self.family.with_label_values(&values);
        counter.inc_by(series.packets);
        let mut known = self.lock();
        let rest = &values[self.foldable_from..];
        let key = values.map(str::to_owned);
        if rest.iter().all(|value| *value == OTHER) {
            known.others.insert(key, counter);
        } else {
            known.own.insert(key, Own::new(counter));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known<N>> {
        // A panic while holding it leaves counters that are still counters.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
