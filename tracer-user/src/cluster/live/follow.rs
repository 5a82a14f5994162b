//! Lists and watches one resource.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracer_policy::model::ObjectRef;

use super::connect::cause;
use super::link::Link;
use super::list::plain;
use super::pause::{Pauses, some_of};
use super::resources::Source;
use super::snapshot::Recorder;
use super::status::Status;
use super::update::Update;
use crate::cluster::Kind;
use crate::cluster::object::{Object, Unknown};

/// Objects a page of a list: what is held of the API's own form at a time.
const PAGE: u32 = 50;
/// How long one watch call lasts, in seconds: a connection that died without a word is noticed after that.
const WATCH_FOR: u32 = 120;
/// After this long without a word the server is not there any more.
const PATIENCE: Duration = Duration::from_secs(WATCH_FOR as u64 + 5);
/// How long to wait before trying again what was refused: at first, and at most.
const REFUSED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// What failed, and may work the next time.
const FAILED: [Duration; 2] = [Duration::from_millis(800), Duration::from_secs(5)];
/// An outage longer than this may have ended with another server, which knows nothing of our versions.
const LONG: Duration = Duration::from_mins(1);

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

/// Nobody wants changes any more.
struct Unwanted;

/// Why it cannot be followed for now.
enum Trouble {
    Unwanted,
    Failed(kube::Error),
}

impl From<Unwanted> for Trouble {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

/// How far it has come.
#[derive(Default)]
struct Progress {
    /// Up to where changes were seen, once it was listed whole.
    version: Option<String>,
    /// Whether it ever was, since it could not be read.
    was_listed: bool,
    /// It may be listed but not watched: a list alone is no state then.
    watch_refused: bool,
}

impl Follower {
    pub(super) async fn run(self) {
        let resource = self.source.kind.resource();
        let mut progress = Progress::default();
        let mut refused = Pauses::new(REFUSED[0], REFUSED[1]);
        let mut failed = Pauses::new(FAILED[0], FAILED[1]);
        let mut back = self.link.back();
        loop {
            let ended = tokio::select! {
                ended = self.follow(&mut progress, &resource) => Some(ended),
                Ok(()) = back.changed() => None,
                () = self.stop.cancelled() => return,
            };
            let pause = match ended {
                // The server was away, and this connection may be one to where it was.
                None => None,
                Some(Ok(())) => Some(some_of(FAILED[0])),
                Some(Err(Trouble::Unwanted)) => return,
                Some(Err(Trouble::Failed(error))) => {
                    let refusal = self.failed(&error, &resource, &mut progress).await;
                    let pauses = if refusal { &mut refused } else { &mut failed };
                    Some(pauses.next())
                }
            };
            let is_back = match pause {
                None => true,
                Some(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => false,
                    Ok(()) = back.changed() => true,
                    () = self.stop.cancelled() => return,
                },
            };
            if is_back {
                if *back.borrow_and_update() > LONG {
                    progress.version = None;
                }
                tokio::time::sleep(some_of(FAILED[0])).await;
            }
        }
    }

    /// Lists where that is to be done, and watches for a while.
    async fn follow(&self, progress: &mut Progress, resource: &str) -> Result<(), Trouble> {
        let api = Api::<DynamicObject>::all_with(self.link.client(), &self.source.resource);
        let mut whole = true;
        let version = match progress.version.clone() {
            Some(version) => version,
            None => {
                let version = self.list(&api, resource).await?;
                whole = !progress.watch_refused;
                if whole {
                    self.listed(progress, &version, resource).await?;
                }
                version
            }
        };
        let params = WatchParams::default().timeout(WATCH_FOR);
        let mut events = pin!(within(PATIENCE, api.watch(&params, &version)).await?);
        if !whole {
            progress.watch_refused = false;
            self.listed(progress, &version, resource).await?;
        }
        self.status.followed(resource);
        while let Ok(Some(event)) = tokio::time::timeout(PATIENCE, events.next()).await {
            let version = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let version = object.resource_version();
                    self.send(self.apply(object, resource)).await?;
                    version
                }
                WatchEvent::Deleted(object) => {
                    let (id, version) = (id(&object), object.resource_version());
                    self.status.readable(resource, &id);
                    self.send(Update::Delete(self.source.kind, id)).await?;
                    version
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status.boxed()).into()),
            };
            progress.version = version.filter(|version| !version.is_empty());
        }
        Ok(())
    }

    /// All there is, page by page; up to where that is.
    async fn list(&self, api: &Api<DynamicObject>, resource: &str) -> Result<String, Trouble> {
        let mut params = ListParams::default().limit(PAGE);
        let mut begun = false;
        loop {
            let page = within(PATIENCE, api.list(&params)).await?;
            if !begun {
                begun = true;
                self.status.anew(resource);
                self.send(Update::Begin(self.source.kind)).await?;
            }
            for object in page.items {
                self.send(self.apply(object, resource)).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// The list is whole.
    async fn listed(
        &self,
        progress: &mut Progress,
        version: &str,
        resource: &str,
    ) -> Result<(), Unwanted> {
        self.send(Update::End(self.source.kind)).await?;
        self.status.synced(resource);
        progress.version = Some(version.to_owned());
        progress.was_listed = true;
        Ok(())
    }

    async fn send(&self, update: Update) -> Result<(), Unwanted> {
        self.out.send(update).await.then_some(()).ok_or(Unwanted)
    }

    /// Whether it was refused, rather than failed for once.
    async fn failed(&self, error: &kube::Error, resource: &str, progress: &mut Progress) -> bool {
        tracing::debug!(resource, error = %cause(error), "watching again");
        let failing = |problem| self.status.failing(resource, problem, Timestamp::now());
        let kube::Error::Api(answer) = error else {
            failing(cause(error));
            return false;
        };
        match answer.code {
            401 => {
                failing(answer.message.clone());
                self.link.doubt();
                true
            }
            403 => {
                progress.watch_refused |= progress.version.is_some();
                progress.version = None;
                progress.was_listed = false;
                let why = "may not be listed and watched: grant it as deploy/ does; until then";
                self.unread(resource, &answer.message, why).await;
                true
            }
            404 => {
                progress.version = None;
                // Full: it has been told.
                let _ = self.missing.try_send(self.source.kind);
                true
            }
            code => {
                failing(answer.message.clone());
                if code == 410 {
                    // The server has forgotten what was then.
                    progress.version = None;
                }
                // What was listed once is merely old now; what never was is missing.
                if code >= 500 && !progress.was_listed {
                    let why = "cannot be listed: until it can,";
                    self.unread(resource, &answer.message, why).await;
                }
                false
            }
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

    /// An object as a change; one that cannot be understood is said, and left as it was.
    fn apply(&self, object: DynamicObject, resource: &str) -> Update {
        let (kind, id) = (self.source.kind, id(&object));
        match Object::read(kind, &plain(object, &self.source), Unknown::Ignore) {
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

/// An answer, unless it takes too long.
async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or_else(|elapsed| Err(kube::Error::Service(Box::new(elapsed))))
}

/// Namespace and name; the namespace is empty for kinds that have none.
fn id(object: &DynamicObject) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}
