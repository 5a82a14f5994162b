//! A family of counters that cannot grow without bound.

use std::collections::HashMap;
use std::sync::Mutex;

use prometheus::{IntCounter, IntCounterVec};

/// What a label says once its family is full.
const OTHER: &str = "other";

/// A counter family with `N` labels, those from `foldable_from` on naming objects of the cluster:
/// once there are `max_series` series, these become `other`.
#[derive(Debug)]
pub struct Capped<const N: usize> {
    family: IntCounterVec,
    folded: IntCounter,
    foldable_from: usize,
    max_series: usize,
    series: Mutex<HashMap<[String; N], IntCounter>>,
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
        let mut series = self
            .series
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = labels.map(str::to_owned);
        if let Some(counter) = series.get(&key) {
            counter.inc_by(packets);
            return;
        }
        if series.len() < self.max_series {
            let counter = self.family.with_label_values(&labels);
            counter.inc_by(packets);
            series.insert(key, counter);
            return;
        }
        let mut rest = labels;
        rest[self.foldable_from..].fill(OTHER);
        self.family.with_label_values(&rest).inc_by(packets);
        self.folded.inc_by(packets);
    }
}
