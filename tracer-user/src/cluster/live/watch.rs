//! Lists and watches, one task a resource, and one that asks whether the server is still there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracer_policy::model::ObjectRef;

use super::connect::{ConnectError, Found, cause, connect};
use super::list::plain;
use super::resources::{Source, offered};
use super::status::Status;
use super::update::Update;
use crate::cluster::Kind;
use crate::cluster::object::{Object, Unknown};

/// Objects a page of a list: what is held of the API's own form at a time.
const PAGE: u32 = 100;
/// Changes under way between the tasks and the one who keeps the state.
const UNDER_WAY: usize = 256;
/// How often the server is asked whether it is there, and how long it may take to say so.
const HEARTBEAT: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long one watch call lasts, in seconds: a connection that died without a word is noticed after that.
const WATCH_FOR: u32 = 120;

/// Changes as they come.
#[derive(Debug)]
pub struct Updates {
    /// The changes, for whoever keeps the state.
    pub receiver: mpsc::Receiver<Update>,
    /// How current they are.
    pub status: Status,
}

/// Follows the cluster until `stop` is cancelled. `wake` is called after each change.
///
/// The server need not be there yet.
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn watch(
    found: &Found,
    stop: CancellationToken,
    wake: Arc<dyn Fn() + Send + Sync>,
) -> Result<Updates, ConnectError> {
    let (client, url) = connect(found).await?;
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let status = Status::default();
    let out = Out { sender, wake };
    tokio::spawn(heartbeat(client.clone(), url, status.clone(), stop.clone()));
    tokio::spawn(start(client, status.clone(), out, stop));
    Ok(Updates { receiver, status })
}

#[derive(Clone)]
struct Out {
    sender: mpsc::Sender<Update>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Out {
    /// Whether anyone still wants changes.
    async fn send(&self, update: Update) -> bool {
        let sent = self.sender.send(update).await.is_ok();
        (self.wake)();
        sent
    }
}

/// Finds out what the server offers, however long that takes, and follows each of it.
async fn start(client: Client, status: Status, out: Out, stop: CancellationToken) {
    let mut pause = Duration::from_millis(500);
    let sources = loop {
        match offered(&client).await {
            Ok(sources) => break sources,
            Err(error) => {
                tracing::debug!(error = %cause(&error), "the API server does not say what it offers");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(HEARTBEAT);
    };
    for source in &sources {
        status.listing(&source.resource.plural);
    }
    for kind in Kind::ALL {
        if !sources.iter().any(|source| source.kind == kind) {
            out.send(Update::Absent(kind)).await;
        }
    }
    for source in sources {
        let api = Api::<DynamicObject>::all_with(client.clone(), &source.resource);
        tokio::spawn(follow(
            api,
            source,
            status.clone(),
            out.clone(),
            stop.clone(),
        ));
    }
}

async fn follow(
    api: Api<DynamicObject>,
    source: Source,
    status: Status,
    out: Out,
    stop: CancellationToken,
) {
    let config = watcher::Config::default()
        .page_size(PAGE)
        .timeout(WATCH_FOR);
    let mut events = watcher(api, config).default_backoff().boxed();
    let resource = source.resource.plural.clone();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        let wanted = match event {
            None => return,
            Some(Ok(event)) => {
                if matches!(event, Event::InitDone) {
                    status.synced(&resource);
                }
                match change(event, &source) {
                    Some(update) => out.send(update).await,
                    None => true,
                }
            }
            Some(Err(error)) => {
                if let Some(problem) = forbidden(&error) {
                    if status.forbidden(&resource, problem.clone()) {
                        tracing::warn!(
                            resource,
                            problem,
                            "may not be listed: working without it; grant it as deploy/ does"
                        );
                    }
                    out.send(Update::Absent(source.kind)).await
                } else {
                    tracing::debug!(resource, error = %cause(&error), "watching again");
                    true
                }
            }
        };
        if !wanted {
            return;
        }
    }
}

/// An event as a change; an object that cannot be read is said and left as it was.
fn change(event: Event<DynamicObject>, source: &Source) -> Option<Update> {
    let kind = source.kind;
    match event {
        Event::Init => Some(Update::Begin(kind)),
        Event::InitDone => Some(Update::End(kind)),
        Event::Delete(object) => Some(Update::Delete(kind, id(&object))),
        Event::Apply(object) | Event::InitApply(object) => {
            let id = id(&object);
            match Object::read(kind, plain(object, source), Unknown::Ignore) {
                Ok(object) => Some(Update::Apply(kind, id, object)),
                Err(error) => {
                    tracing::warn!(%error, "an object is not as the API says");
                    None
                }
            }
        }
    }
}

/// Namespace and name; the namespace is empty for kinds that have none.
fn id(object: &DynamicObject) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn forbidden(error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    (status.code == 403).then(|| status.message.clone())
}

/// Whether the server answers at all: a watch that is quiet looks the same either way.
async fn heartbeat(client: Client, url: String, status: Status, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let asked = tokio::time::timeout(ANSWER_WITHIN, client.apiserver_version()).await;
        let now = Timestamp::now();
        let problem = match asked {
            // An answer that is a refusal is an answer.
            Ok(Ok(_) | Err(kube::Error::Api(_))) => None,
            Ok(Err(error)) => Some(cause(&error)),
            Err(_) => Some("no answer within 5 s".to_owned()),
        };
        match problem {
            None => {
                if status.answered(now) {
                    tracing::info!(server = url, "the API server answers again");
                }
            }
            Some(problem) => {
                if status.silent(now, problem.clone()) {
                    tracing::warn!(
                        server = url,
                        problem,
                        "the API server does not answer: working from what was last known"
                    );
                }
            }
        }
    }
}
