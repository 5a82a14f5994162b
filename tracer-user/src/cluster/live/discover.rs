//! Follows each resource that the server offers, also those that come later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connect::cause;
use super::follow::{Follower, Out};
use super::link::{HEARTBEAT, Link};
use super::resources::{Offer, Source, offered};
use super::status::Status;
use super::update::Update;
use crate::cluster::Kind;

/// How often the server is asked what it offers: CRDs are installed and removed at any time.
const AGAIN: Duration = Duration::from_mins(1);
/// How long to wait before asking again where it did not say, at first; and at the least.
const SOON: Duration = Duration::from_millis(500);

/// What is unread where the server does not say what it offers.
const GROUPS: &str = "API groups";

/// What is followed, and by whom.
struct Followed {
    version: String,
    task: JoinHandle<()>,
}

pub(super) struct Discovery {
    pub(super) link: Arc<Link>,
    pub(super) status: Status,
    pub(super) out: Out,
    pub(super) stop: CancellationToken,
    followed: HashMap<Kind, Followed>,
    /// Kinds of which it was said that there are none.
    absent: HashSet<Kind>,
    /// Kinds that their followers no longer find.
    doubted: HashSet<Kind>,
}

impl Discovery {
    pub(super) fn new(link: Arc<Link>, status: Status, out: Out, stop: CancellationToken) -> Self {
        Self {
            link,
            status,
            out,
            stop,
            followed: HashMap::new(),
            absent: HashSet::new(),
            doubted: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let (missing, mut missed) = mpsc::channel(Kind::ALL.len());
        let mut pause = SOON;
        let mut back = self.link.back();
        loop {
            let asked = {
                let known = |kind| {
                    let followed = self.followed.get(&kind)?;
                    (!self.doubted.contains(&kind)).then(|| followed.version.clone())
                };
                offered(&self.link.client(), known).await
            };
            let next = match asked {
                Ok(offers) => {
                    self.doubted.clear();
                    self.status.absent(GROUPS);
                    for (kind, offer) in offers {
                        self.take(kind, offer, &missing).await;
                    }
                    pause = SOON;
                    AGAIN
                }
                Err(error) => {
                    self.failed(&error);
                    let next = pause;
                    pause = (pause * 2).min(HEARTBEAT);
                    next
                }
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                Ok(()) = back.changed() => {}
                Some(kind) = missed.recv() => {
                    self.doubted.insert(kind);
                    // A CRD that goes takes its group with it a moment later.
                    tokio::time::sleep(SOON).await;
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn take(&mut self, kind: Kind, offer: Offer, missing: &mpsc::Sender<Kind>) {
        let resource = kind.resource();
        match offer {
            Offer::Source(source) => {
                let version = &source.resource.api_version;
                let same = |followed: &Followed| followed.version == *version;
                if self.followed.get(&kind).is_some_and(same) {
                    return;
                }
                self.end(kind).await;
                self.absent.remove(&kind);
                self.status.listing(&resource);
                self.follow(source, missing);
            }
            Offer::Unavailable(problem) => {
                // Who follows it already finds out by itself.
                if !self.followed.contains_key(&kind)
                    && self.status.unread(&resource, problem.clone())
                {
                    tracing::warn!(
                        resource,
                        problem,
                        "cannot be listed: verdicts that hang on it are unknown until it can"
                    );
                    self.absent.remove(&kind);
                    self.out.send(Update::Unread(kind)).await;
                }
            }
            Offer::No => {
                let went = self.end(kind).await;
                if self.absent.insert(kind) || went {
                    self.status.absent(&resource);
                    self.out.send(Update::Absent(kind)).await;
                }
            }
        }
    }

    fn follow(&mut self, source: Source, missing: &mpsc::Sender<Kind>) {
        let (kind, version) = (source.kind, source.resource.api_version.clone());
        let follower = Follower {
            link: Arc::clone(&self.link),
            source,
            status: self.status.clone(),
            out: self.out.clone(),
            missing: missing.clone(),
            stop: self.stop.clone(),
        };
        let task = tokio::spawn(follower.run());
        self.followed.insert(kind, Followed { version, task });
    }

    /// Ends following a kind; whether it was followed.
    async fn end(&mut self, kind: Kind) -> bool {
        let Some(followed) = self.followed.remove(&kind) else {
            return false;
        };
        followed.task.abort();
        // Once this returns, it says nothing any more.
        let _ = followed.task.await;
        true
    }

    fn failed(&self, error: &kube::Error) {
        match error {
            kube::Error::Api(answer) if answer.code == 401 => self.link.doubt(),
            kube::Error::Api(answer) if answer.code < 500 && self.followed.is_empty() => {
                let problem = answer.message.clone();
                if self.status.unread(GROUPS, problem.clone()) {
                    tracing::warn!(
                        problem,
                        "what the API server offers may not be listed: addresses only; grant it (ClusterRole \
                         system:discovery)"
                    );
                }
            }
            error => {
                tracing::debug!(error = %cause(error), "the API server does not say what it offers");
            }
        }
    }
}
