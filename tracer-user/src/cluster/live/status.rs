//! How current the state is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracer_policy::model::ObjectRef;

/// A resource that has not been followed for longer than this is not current.
const BEHIND: Duration = Duration::from_secs(30);

/// What is known of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not listed yet.
    Listing,
    /// Listed whole, and followed.
    Synced,
    /// Listed whole, and to be followed again: the server was away.
    Resuming,
    /// It cannot be read, and why: mostly, we may not.
    Unread(String),
}

/// Why nothing new comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The server does not answer.
    Silent,
    /// The server does not take our credentials.
    Refused,
}

/// Since when a resource cannot be followed.
#[derive(Debug)]
struct Failing {
    since: Instant,
    time: Timestamp,
    problem: String,
}

#[derive(Debug, Default)]
struct Inner {
    resources: BTreeMap<String, State>,
    /// Objects that could not be understood.
    unreadable: BTreeSet<(String, ObjectRef)>,
    /// The last time the server answered.
    answered: Option<Timestamp>,
    trouble: Option<(Trouble, String)>,
    /// When the trouble began.
    troubled: Option<Instant>,
    /// Resources that cannot be followed for now.
    failing: BTreeMap<String, Failing>,
    /// When the state was written that is worked from until all is listed.
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
    /// The server does not take our credentials: this is what was last known.
    Refused {
        /// When it last did, if it ever did.
        since: Option<Timestamp>,
        /// What it says.
        problem: String,
    },
    /// The server answers, but this resource has not been followed since.
    Behind {
        /// Which.
        resource: String,
        /// Until when it was.
        since: Timestamp,
        /// Why not.
        problem: String,
    },
    /// Some resources cannot be read.
    Partial(Vec<String>),
}

/// From when a state is that is not current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// The server answered last then, and the state was followed till then.
    Answered(Timestamp),
    /// It was written to disk then, by an agent that ran before.
    Snapshot(Timestamp),
}

impl AsOf {
    /// The time.
    pub const fn time(self) -> Timestamp {
        match self {
            Self::Answered(time) | Self::Snapshot(time) => time,
        }
    }
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
            Self::Refused { since, problem } => {
                write!(
                    f,
                    "the API server does not take our credentials ({problem}): renew them, they are read again \
                     by themselves"
                )?;
                match since {
                    Some(since) => {
                        write!(f, "; working from what was known at {since:.0}")
                    }
                    None => Ok(()),
                }
            }
            Self::Behind {
                resource,
                since,
                problem,
            } => write!(
                f,
                "{resource} cannot be followed since {since:.0} ({problem}); working from what was known then"
            ),
            Self::Partial(resources) => write!(
                f,
                "cannot list {}: grant it, see deploy/; verdicts that hang on it are unknown",
                resources.join(", ")
            ),
        }
    }
}

/// What [`Health`] says, and what else there is to say.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.health().fmt(f)?;
        if let Some(AsOf::Snapshot(time)) = self.as_of() {
            write!(f, "; working from the snapshot of {time:.0}")?;
        }
        match self.unreadable_objects() {
            0 => Ok(()),
            objects => write!(
                f,
                "; {objects} objects could not be understood, see the log"
            ),
        }
    }
}

impl Inner {
    /// What was listed once and has not been followed for longest, where that is for too long.
    fn behind(&self) -> Option<(&String, &Failing)> {
        let was_listed = |resource: &String| {
            let state = self.resources.get(resource);
            matches!(state, Some(State::Synced | State::Resuming))
        };
        self.failing
            .iter()
            .filter(|(resource, failing)| failing.since.elapsed() > BEHIND && was_listed(resource))
            .min_by_key(|(_, failing)| failing.since)
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
        let mut inner = self.inner();
        inner.failing.remove(resource);
        inner.resources.insert(resource.to_owned(), State::Synced);
    }

    /// Its changes come.
    pub(super) fn followed(&self, resource: &str) {
        let mut inner = self.inner();
        inner.failing.remove(resource);
        if let Some(state) = inner.resources.get_mut(resource)
            && *state == State::Resuming
        {
            *state = State::Synced;
        }
    }

    /// Its changes do not come, from `now` if they came before.
    pub(super) fn failing(&self, resource: &str, problem: String, now: Timestamp) {
        let mut inner = self.inner();
        let failing = inner.failing.entry(resource.to_owned());
        let failing = failing.or_insert_with(|| Failing {
            since: Instant::now(),
            time: now,
            problem: String::new(),
        });
        failing.problem = problem;
    }

    /// There is no such resource, or no longer.
    pub(super) fn absent(&self, resource: &str) {
        let mut inner = self.inner();
        inner.resources.remove(resource);
        inner.failing.remove(resource);
        inner.unreadable.retain(|(own, _)| own != resource);
    }

    /// Whether this is news.
    pub(super) fn unread(&self, resource: &str, problem: String) -> bool {
        let unread = State::Unread(problem);
        let before = self
            .inner()
            .resources
            .insert(resource.to_owned(), unread.clone());
        before != Some(unread)
    }

    /// An object could not be understood; whether this is news.
    pub(super) fn unreadable(&self, resource: &str, id: &ObjectRef) -> bool {
        self.inner()
            .unreadable
            .insert((resource.to_owned(), id.clone()))
    }

    /// An object could be understood, or is gone.
    pub(super) fn readable(&self, resource: &str, id: &ObjectRef) {
        let mut inner = self.inner();
        if !inner.unreadable.is_empty() {
            inner.unreadable.remove(&(resource.to_owned(), id.clone()));
        }
    }

    /// The list of a resource begins anew.
    pub(super) fn anew(&self, resource: &str) {
        self.inner().unreadable.retain(|(own, _)| own != resource);
    }

    /// How many objects could not be understood; their last readable form is kept.
    pub fn unreadable_objects(&self) -> usize {
        self.inner().unreadable.len()
    }

    /// The server answered; for how long it had been silent or had refused us, where it had. What was followed
    /// before is not yet again.
    pub(super) fn answered(&self, now: Timestamp) -> Option<Duration> {
        let mut inner = self.inner();
        inner.answered = Some(now);
        inner.trouble.take()?;
        for state in inner.resources.values_mut() {
            if *state == State::Synced {
                *state = State::Resuming;
            }
        }
        inner.troubled.take().map(|since| since.elapsed())
    }

    /// The server did not answer; whether this is news.
    pub(super) fn silent(&self, problem: String) -> bool {
        self.trouble(Trouble::Silent, problem)
    }

    /// The server does not take our credentials; whether this is news.
    pub(super) fn refused(&self, problem: String) -> bool {
        self.trouble(Trouble::Refused, problem)
    }

    fn trouble(&self, trouble: Trouble, problem: String) -> bool {
        let mut inner = self.inner();
        inner.troubled.get_or_insert_with(Instant::now);
        let before = inner.trouble.replace((trouble, problem));
        before.is_none_or(|(before, _)| before != trouble)
    }

    /// The state is one that was written at `time`, until [`Status::caught_up`].
    pub fn started_from_snapshot(&self, time: Timestamp) {
        self.inner().snapshot = Some(time);
    }

    /// Everything was listed: nothing is left of the snapshot.
    pub fn caught_up(&self) {
        self.inner().snapshot = None;
    }

    /// From when the state is, where it is not current and this is known.
    pub fn as_of(&self) -> Option<AsOf> {
        let inner = self.inner();
        let behind = inner.behind().map(|(_, failing)| failing.time);
        let answered = inner.answered.filter(|_| inner.trouble.is_some());
        let answered = behind.or(answered);
        inner
            .snapshot
            .map(AsOf::Snapshot)
            .or(answered.map(AsOf::Answered))
    }

    /// Until when the cluster was followed: by us, or by whom the snapshot is of.
    pub fn followed_until(&self) -> Option<Timestamp> {
        let inner = self.inner();
        let behind = inner.behind().map(|(_, failing)| failing.time);
        inner.snapshot.or(behind).or(inner.answered)
    }

    /// Whether the server is silent or refuses us.
    pub fn is_in_trouble(&self) -> bool {
        self.inner().trouble.is_some()
    }

    /// How current the state is.
    pub fn health(&self) -> Health {
        let inner = self.inner();
        let since = inner.answered;
        match &inner.trouble {
            Some((Trouble::Silent, problem)) => {
                return Health::Stale {
                    since,
                    problem: problem.clone(),
                };
            }
            Some((Trouble::Refused, problem)) => {
                return Health::Refused {
                    since,
                    problem: problem.clone(),
                };
            }
            None => {}
        }
        if let Some((resource, failing)) = inner.behind() {
            return Health::Behind {
                resource: resource.clone(),
                since: failing.time,
                problem: failing.problem.clone(),
            };
        }
        let begins = |state: &State| matches!(state, State::Listing | State::Resuming);
        if inner.resources.is_empty() || inner.resources.values().any(begins) {
            return Health::Starting;
        }
        let unread: Vec<_> = inner
            .resources
            .iter()
            .filter(|(_, state)| matches!(state, State::Unread(_)))
            .map(|(name, _)| name.clone())
            .collect();
        if unread.is_empty() {
            Health::Synced
        } else {
            Health::Partial(unread)
        }
    }
}
