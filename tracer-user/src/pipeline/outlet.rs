//! The end of the line: filter, sinks, and when it is enough.

use std::io;

use tracer_policy::Cluster;

use crate::decode::RawDrop;
use crate::filter::Filter;
use crate::record::Drop;
use crate::sink::Sink;

/// Filters drops and hands them to every sink.
pub struct Outlet {
    filter: Filter,
    sinks: Vec<Box<dyn Sink>>,
    limit: Option<u64>,
    outcome: Outcome,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records that passed the filter.
    pub shown: u64,
    /// Packets they stand for.
    pub packets: u64,
    /// Records that the filter held back.
    pub filtered: u64,
}

impl Outlet {
    /// `limit`: how many records are enough.
    pub fn new(filter: Filter, sinks: Vec<Box<dyn Sink>>, limit: Option<u64>) -> Self {
        Self {
            filter,
            sinks,
            limit,
            outcome: Outcome::default(),
        }
    }

    /// Takes one drop; whether more are wanted.
    ///
    /// # Errors
    /// What a sink says.
    pub fn accept(&mut self, drop: &Drop, raw: Option<&RawDrop>) -> io::Result<bool> {
        if self.is_full() {
            return Ok(false);
        }
        if !self.filter.passes(drop) {
            self.outcome.filtered += 1;
            return Ok(true);
        }
        for sink in &mut self.sinks {
            sink.accept(drop, raw)?;
        }
        self.outcome.shown += 1;
        self.outcome.packets += drop.count;
        Ok(!self.is_full())
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.outcome.shown >= limit)
    }

    /// Brings out what sinks hold back.
    ///
    /// # Errors
    /// What a sink says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.flush())
    }

    /// Has sinks forget what is of nobody who is in `cluster`.
    pub fn tidy(&mut self, cluster: &Cluster) {
        for sink in &mut self.sinks {
            sink.tidy(cluster);
        }
    }

    /// What came of it so far.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet")
            .field("filter", &self.filter)
            .field("limit", &self.limit)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::filter::Condition;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u16>>>);

    impl Sink for Seen {
        fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
            self.0
                .lock()
                .unwrap()
                .push(drop.destination.as_ref().unwrap().port.unwrap());
            Ok(())
        }
    }

    fn probe(port: u16) -> Drop {
        let mut drop: Drop =
            serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
        drop.count = 2;
        drop.destination.as_mut().unwrap().port = Some(port);
        drop
    }

    #[test]
    fn the_limit_counts_what_passed_the_filter() {
        let seen = Seen::default();
        let mut filter = Filter::default();
        filter.push(Condition::Port(1), true);
        let mut outlet = Outlet::new(filter, vec![Box::new(seen.clone())], Some(2));
        assert!(outlet.accept(&probe(1), None).unwrap());
        assert!(outlet.accept(&probe(2), None).unwrap());
        assert!(!outlet.accept(&probe(3), None).unwrap(), "two are enough");
        assert!(!outlet.accept(&probe(4), None).unwrap());
        assert_eq!(*seen.0.lock().unwrap(), [2, 3]);
        assert_eq!(
            outlet.outcome(),
            Outcome {
                shown: 2,
                packets: 4,
                filtered: 1
            }
        );
    }
}
