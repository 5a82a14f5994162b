//! How current the state is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

/// What is known of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not listed yet.
    Listing,
    /// Listed whole, and followed.
    Synced,
    /// We may not read it.
    Forbidden(String),
}

#[derive(Debug, Default)]
struct Inner {
    resources: BTreeMap<String, State>,
    /// The last time the server answered.
    answered: Option<Timestamp>,
    /// Why it does not answer, since when.
    silent: Option<(Timestamp, String)>,
    /// When the state was written that we started from.
    snapshot: Option<Timestamp>,
}

/// How current the state is. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<Inner>>);

/// How current the state is, at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything listed and followed.
    Synced,
    /// Not everything is listed yet.
    Starting,
    /// The server has not answered since: this is what was last known.
    Stale {
        /// When it last answered, if it ever did.
        since: Option<Timestamp>,
        /// Why not.
        problem: String,
    },
    /// Some resources may not be read.
    Partial(Vec<String>),
}

impl Health {
    /// Whether the state is whole and current.
    pub const fn is_synced(&self) -> bool {
        matches!(self, Self::Synced)
    }
}

/// One clear sentence.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => f.write_str("cluster state is current"),
            Self::Starting => f.write_str("cluster state is being listed"),
            Self::Stale {
                since: Some(since),
                problem,
            } => write!(
                f,
                "the API server has not answered since {since:.0} ({problem}); working from what was known then"
            ),
            Self::Stale {
                since: None,
                problem,
            } => write!(f, "the API server does not answer ({problem})"),
            Self::Partial(resources) => write!(
                f,
                "may not list {}: grant it, see deploy/; what they would say is missing",
                resources.join(", ")
            ),
        }
    }
}

impl Status {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked while holding it left plain facts.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn listing(&self, resource: &str) {
        let mut inner = self.inner();
        inner
            .resources
            .entry(resource.to_owned())
            .or_insert(State::Listing);
    }

    pub(super) fn synced(&self, resource: &str) {
        self.inner()
            .resources
            .insert(resource.to_owned(), State::Synced);
    }

    /// Whether this is news.
    pub(super) fn forbidden(&self, resource: &str, problem: String) -> bool {
        let forbidden = State::Forbidden(problem);
        let before = self
            .inner()
            .resources
            .insert(resource.to_owned(), forbidden.clone());
        before != Some(forbidden)
    }

    /// The server answered; whether it had been silent.
    pub(super) fn answered(&self, now: Timestamp) -> bool {
        let mut inner = self.inner();
        inner.answered = Some(now);
        inner.silent.take().is_some()
    }

    /// The server did not answer; whether this is news.
    pub(super) fn silent(&self, now: Timestamp, problem: String) -> bool {
        let mut inner = self.inner();
        let news = inner.silent.is_none();
        let since = inner.silent.take().map_or(now, |(since, _)| since);
        inner.silent = Some((since, problem));
        news
    }

    /// The state started from a snapshot written at `time`.
    pub fn started_from_snapshot(&self, time: Timestamp) {
        self.inner().snapshot = Some(time);
    }

    /// How current the state is.
    pub fn health(&self) -> Health {
        let inner = self.inner();
        if let Some((_, problem)) = &inner.silent {
            return Health::Stale {
                since: inner.answered.or(inner.snapshot),
                problem: problem.clone(),
            };
        }
        let states = || inner.resources.values();
        if inner.resources.is_empty() || states().any(|state| *state == State::Listing) {
            return Health::Starting;
        }
        let forbidden: Vec<_> = inner
            .resources
            .iter()
            .filter(|(_, state)| matches!(state, State::Forbidden(_)))
            .map(|(name, _)| name.clone())
            .collect();
        if forbidden.is_empty() {
            Health::Synced
        } else {
            Health::Partial(forbidden)
        }
    }
}
