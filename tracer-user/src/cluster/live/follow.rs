//! Lists and watches one resource.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracer_policy::model::ObjectRef;

use super::connect::cause;
use super::link::Link;
use super::list::plain;
use super::resources::Source;
use super::snapshot::Recorder;
use super::status::Status;
use super::update::Update;
use crate::cluster::Kind;
use crate::cluster::object::{Object, Unknown};

/// Objects a page of a list: what is held of the API's own form at a time.
const PAGE: u32 = 100;
/// How long one watch call lasts, in seconds: a connection that died without a word is noticed after that.
const WATCH_FOR: u32 = 120;
/// How long to wait before trying again what was refused: at first, and at most.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// Where changes go.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) sender: mpsc::Sender<Update>,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    /// Where they are written down.
    pub(super) recorder: Option<Recorder>,
}

impl Out {
    /// Whether anyone still wants changes.
    pub(super) async fn send(&self, update: Update) -> bool {
        if let Some(recorder) = &self.recorder {
            recorder.record(&update).await;
        }
        let sent = self.sender.send(update).await.is_ok();
        (self.wake)();
        sent
    }
}

pub(super) struct Follower {
    pub(super) link: Arc<Link>,
    pub(super) source: Source,
    pub(super) status: Status,
    pub(super) out: Out,
    /// Told where the resource is no longer found.
    pub(super) missing: mpsc::Sender<Kind>,
    pub(super) stop: CancellationToken,
}

/// Why a watch ended.
enum Ended {
    /// Nobody wants it any more.
    Done,
    /// It is to be listed anew; whether it had been listed whole.
    Again { listed: bool },
}

impl Follower {
    pub(super) async fn run(self) {
        let mut pause = RETRY;
        loop {
            match self.watch().await {
                Ended::Done => return,
                Ended::Again { listed: true } => pause = RETRY,
                Ended::Again { listed: false } => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.link.back() => {}
                () = self.stop.cancelled() => return,
            }
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    /// Lists and watches until that has to begin anew. What may pass, `watcher` tries again by itself.
    async fn watch(&self) -> Ended {
        let config = watcher::Config::default()
            .page_size(PAGE)
            .timeout(WATCH_FOR);
        let api = Api::<DynamicObject>::all_with(self.link.client(), &self.source.resource);
        let mut events = watcher(api, config).default_backoff().boxed();
        let resource = self.source.kind.resource();
        let mut listed = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.stop.cancelled() => return Ended::Done,
            };
            let wanted = match event {
                None => return Ended::Done,
                Some(Ok(event)) => {
                    match &event {
                        Event::Init => self.status.anew(&resource),
                        Event::InitDone => {
                            listed = true;
                            self.status.synced(&resource);
                        }
                        _ => {}
                    }
                    self.out.send(self.change(event, &resource)).await
                }
                Some(Err(error)) => match self.failed(&error, &resource, listed).await {
                    ControlFlow::Continue(wanted) => wanted,
                    ControlFlow::Break(()) => return Ended::Again { listed },
                },
            };
            if !wanted {
                return Ended::Done;
            }
        }
    }

    /// Breaks where the watch has to begin anew, with a new client maybe.
    async fn failed(
        &self,
        error: &watcher::Error,
        resource: &str,
        listed: bool,
    ) -> ControlFlow<(), bool> {
        tracing::debug!(resource, error = %cause(error), "watching again");
        let Some((code, problem)) = answer(error) else {
            return ControlFlow::Continue(true);
        };
        match code {
            401 => {
                self.link.doubt();
                ControlFlow::Break(())
            }
            403 => {
                self.unread(
                    resource,
                    problem,
                    "may not be listed and watched: grant it as deploy/ does; until then",
                )
                .await;
                ControlFlow::Break(())
            }
            404 => {
                // Full: it has been told.
                let _ = self.missing.try_send(self.source.kind);
                ControlFlow::Break(())
            }
            // `watcher` would start from the same version again and again.
            410 if matches!(error, watcher::Error::WatchStartFailed(_)) => ControlFlow::Break(()),
            // What was listed once is merely old now; what never was is missing.
            500.. if !listed => {
                self.unread(resource, problem, "cannot be listed: until it can,")
                    .await;
                ControlFlow::Continue(true)
            }
            _ => ControlFlow::Continue(true),
        }
    }

    async fn unread(&self, resource: &str, problem: &str, why: &str) {
        if self.status.unread(resource, problem.to_owned()) {
            tracing::warn!(
                resource,
                problem,
                "{why} verdicts that hang on it are unknown"
            );
            self.out.send(Update::Unread(self.source.kind)).await;
        }
    }

    /// An event as a change; an object that cannot be understood is said, and left as it was.
    fn change(&self, event: Event<DynamicObject>, resource: &str) -> Update {
        let kind = self.source.kind;
        match event {
            Event::Init => Update::Begin(kind),
            Event::InitDone => Update::End(kind),
            Event::Delete(object) => {
                let id = id(&object);
                self.status.readable(resource, &id);
                Update::Delete(kind, id)
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let id = id(&object);
                match Object::read(kind, plain(object, &self.source), Unknown::Ignore) {
                    Ok(object) => {
                        self.status.readable(resource, &id);
                        Update::Apply(kind, id, object)
                    }
                    Err(error) => {
                        if self.status.unreadable(resource, &id) {
                            tracing::warn!(%error, "an object is not as the API says: its last form is kept");
                        }
                        Update::Unreadable(kind, id)
                    }
                }
            }
        }
    }
}

/// Namespace and name; the namespace is empty for kinds that have none.
fn id(object: &DynamicObject) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// The status that the server answered with.
fn answer(error: &watcher::Error) -> Option<(u16, &str)> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some((status.code, &status.message)),
        _ => None,
    }
}
