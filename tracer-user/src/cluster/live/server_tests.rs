//! An API server that refuses, forgets and changes its mind, in this process: what a real one does rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body as Answer;
use axum::http::{Request, Response};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracer_policy::model::ObjectRef;
use tracer_policy::{Cluster, Decides};

use super::link::Link;
use super::list::list_over;
use super::watch::over;
use super::*;
use crate::cluster::Kind;

/// What a path answers: status and body. `PATH#TOKEN`: when asked to continue there; `PATH#whole`: when
/// asked for no pages; `PATH#watch`: when watched, one event or a refusal.
type Answers = BTreeMap<String, (u16, Value)>;

/// What the server says; a watch says no more than its first event, and does not end.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Answers>>, Arc<Mutex<Vec<String>>>);

impl Server {
    /// One that serves core and NetworkPolicies, all empty.
    fn new() -> Self {
        let server = Self::default();
        server.say("/version", 200, version());
        server.say(
            "/apis",
            200,
            json!({"groups": [{"name": "networking.k8s.io",
                "versions": [{"groupVersion": "networking.k8s.io/v1", "version": "v1"}]}]}),
        );
        server.say(
            "/apis/networking.k8s.io/v1",
            200,
            json!({"groupVersion": "networking.k8s.io/v1", "resources": [
                {"name": "networkpolicies", "singularName": "", "namespaced": true, "kind": "NetworkPolicy", "verbs": []}]}),
        );
        server.say(POLICIES, 200, list(&[], None));
        server
    }

    fn say(&self, path: &str, status: u16, body: Value) {
        self.0
            .lock()
            .unwrap()
            .insert(path.to_owned(), (status, body));
    }

    fn refuse(&self, path: &str, status: u16) {
        self.say(path, status, refusal(status));
    }

    /// Says nothing in particular any more.
    fn unsay(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    /// How often a path was asked for whole, or watched, since this was asked last.
    fn asked(&self, path: &str) -> (usize, usize) {
        let log = std::mem::take(&mut *self.1.lock().unwrap());
        let own = |uri: &&String| uri.split('?').next() == Some(path);
        let (watches, lists): (Vec<_>, Vec<_>) = log
            .iter()
            .filter(own)
            .partition(|uri| uri.contains("watch=true"));
        (lists.len(), watches.len())
    }

    fn watch(&self, uri: &str) -> (u16, Answer) {
        let answers = self.0.lock().unwrap();
        let path = uri.split('?').next().unwrap_or_default();
        let answer = answers
            .get("*")
            .or_else(|| answers.get(&format!("{path}#watch")));
        match answer {
            Some((status, event)) if *status == 200 => (200, endless(Some(event))),
            Some((status, refusal)) => (*status, Answer::from(refusal.to_string())),
            None => (200, endless(None)),
        }
    }

    fn answer(&self, uri: &str) -> (u16, Value) {
        let answers = self.0.lock().unwrap();
        let path = uri.split('?').next().unwrap_or_default();
        let page = uri
            .split(['?', '&'])
            .find_map(|word| word.strip_prefix("continue="));
        let page = page.or((!uri.contains("limit=")).then_some("whole"));
        let asked = page.and_then(|page| answers.get(&format!("{path}#{page}")));
        match answers.get("*").or(asked).or_else(|| answers.get(path)) {
            Some(answer) => answer.clone(),
            None if path.starts_with("/api/v1/") => (200, list(&[], None)),
            None => (404, refusal(404)),
        }
    }

    fn client(&self) -> Client {
        let own = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let own = own.clone();
            async move {
                let uri = request.uri().to_string();
                own.1.lock().unwrap().push(uri.clone());
                let (status, body) = if uri.contains("watch=true") {
                    own.watch(&uri)
                } else {
                    let (status, body) = own.answer(&uri);
                    (status, Answer::from(body.to_string()))
                };
                Response::builder().status(status).body(body)
            }
        });
        Client::new(service, "default")
    }
}

/// A stream that says one thing, if any.
fn endless(event: Option<&Value>) -> Answer {
    let said = event.map(|event| Ok::<_, std::io::Error>(format!("{event}\n")));
    let stream = futures_util::stream::iter(said).chain(futures_util::stream::pending());
    Answer::from_stream(stream)
}

const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

fn version() -> Value {
    let fields = [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ];
    fields.into_iter().map(|field| (field, "1")).collect()
}

fn refusal(status: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
        "message": format!("refused with {status}"), "reason": "Because"})
}

fn list(items: &[Value], next: Option<&str>) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": "7", "continue": next.unwrap_or_default()}})
}

fn closed(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": "1"}, "spec": {"podSelector": {}}})
}

/// A cluster that follows the server until the test ends.
struct Followed {
    updates: Updates,
    keeper: Keeper,
    cluster: Cluster,
    applied: BTreeSet<&'static str>,
    stop: CancellationToken,
}

impl Followed {
    fn new(server: &Server) -> Self {
        let stop = CancellationToken::new();
        let link = Link::of(server.client(), "test".to_owned(), None);
        let mut keeper = Keeper::default();
        keeper.expect([Kind::Pod, Kind::NetworkPolicy]);
        Self {
            updates: over(link, stop.clone(), Arc::new(|| {}), None),
            keeper,
            cluster: Cluster::new(),
            applied: BTreeSet::new(),
            stop,
        }
    }

    /// Applies what comes until it is so. Time is the test's own: waiting takes none.
    async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(10);
        while !so(self) {
            let next = tokio::time::timeout(Duration::from_secs(1), self.updates.receiver.recv());
            if let Ok(Some(update)) = next.await {
                self.apply(update);
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not {what}: {:?}",
                self.updates.status.health()
            );
        }
    }

    /// Applies what comes for a while, and checks that it is so all the time.
    async fn for_secs(&mut self, secs: u64, what: &str, so: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(secs);
        while tokio::time::Instant::now() < end {
            let next = tokio::time::timeout(Duration::from_secs(1), self.updates.receiver.recv());
            if let Ok(Some(update)) = next.await {
                self.apply(update);
            }
            assert!(so(self), "not {what}: {:?}", self.updates.status.health());
        }
    }

    fn policies(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.cluster.policies().map(|own| own.id().name()).collect();
        names.sort_unstable();
        names
    }

    fn apply(&mut self, update: Update) {
        if let Update::Apply(kind, ..) = &update {
            self.applied.insert(kind.name());
        }
        self.keeper
            .apply(update, Timestamp::now(), &mut self.cluster);
    }

    fn health(&self) -> Health {
        self.updates.status.health()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_listed_is_unknown_until_it_may() {
    let server = Server::new();
    server.refuse(POLICIES, 403);
    let mut followed = Followed::new(&server);
    followed.until("whole", |own| own.keeper.is_whole()).await;
    let partial = Health::Partial(vec!["networkpolicies.networking.k8s.io".to_owned()]);
    followed
        .until("partial", |own| own.health() == partial)
        .await;
    let unread = |own: &Followed| own.cluster.unread(Decides::Policies).count();
    assert_eq!(unread(&followed), 1);

    server.say(POLICIES, 200, list(&[closed("deny")], None));
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    followed.until("read", |own| unread(own) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_expire_are_said_and_taken_again() {
    let server = Server::new();
    let mut followed = Followed::new(&server);
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    server.refuse("*", 401);
    let refused = |own: &Followed| matches!(own.health(), Health::Refused { since: Some(_), .. });
    followed.until("refused", refused).await;
    let said = followed.updates.status.to_string();
    assert!(said.contains("does not take our credentials"), "{said}");
    server.unsay("*");
    followed
        .until("synced again", |own| own.health().is_synced())
        .await;
}

#[tokio::test(start_paused = true)]
async fn policies_installed_later_are_followed() {
    let server = Server::new();
    let mut followed = Followed::new(&server);
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    let calico = "crd.projectcalico.org/v1";
    let groups = json!({"groups": [
        {"name": "networking.k8s.io", "versions": [{"groupVersion": "networking.k8s.io/v1", "version": "v1"}]},
        {"name": "crd.projectcalico.org", "versions": [{"groupVersion": calico, "version": "v1"}]}]});
    server.say(
        "/apis/crd.projectcalico.org/v1",
        200,
        json!({"groupVersion": calico, "resources": [
            {"name": "globalnetworkpolicies", "singularName": "", "namespaced": false,
                "kind": "GlobalNetworkPolicy", "verbs": []}]}),
    );
    server.say(
        "/apis/crd.projectcalico.org/v1/globalnetworkpolicies",
        200,
        list(
            &[json!({"metadata": {"name": "deny", "resourceVersion": "1"},
            "spec": {"selector": "all()", "types": ["Ingress"]}})],
            None,
        ),
    );
    server.say("/apis", 200, groups);
    let applied = |own: &Followed| own.applied.contains(Kind::GlobalNetworkPolicy.name());
    followed.until("followed", applied).await;
    assert!(followed.health().is_synced());
}

#[tokio::test(start_paused = true)]
async fn policies_in_a_version_that_is_not_read_are_no_absent_ones() {
    let server = Server::new();
    let newer = "policy.networking.k8s.io/v9";
    server.say(
        "/apis",
        200,
        json!({"groups": [
            {"name": "networking.k8s.io", "versions": [{"groupVersion": "networking.k8s.io/v1", "version": "v1"}]},
            {"name": "policy.networking.k8s.io", "versions": [{"groupVersion": newer, "version": "v9"}]}]}),
    );
    server.say(
        "/apis/policy.networking.k8s.io/v9",
        200,
        json!({"groupVersion": newer, "resources": [
            {"name": "clusternetworkpolicies", "singularName": "", "namespaced": false,
                "kind": "ClusterNetworkPolicy", "verbs": []}]}),
    );
    let listed = list_over(server.client()).await.unwrap();
    let warnings: Vec<String> = listed.warnings().iter().map(ToString::to_string).collect();
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("clusternetworkpolicies") && one.contains(newer)),
        "{warnings:?}"
    );
    assert_eq!(listed.cluster.unread(Decides::Policies).count(), 1);
    let mut followed = Followed::new(&server);
    let unread = |own: &Followed| own.cluster.unread(Decides::Policies).count();
    followed.until("unread", |own| unread(own) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_in_a_new_list_stays_as_it_was() {
    let server = Server::new();
    server.say(POLICIES, 200, list(&[closed("deny")], None));
    let mut followed = Followed::new(&server);
    let policies = |own: &Followed| own.cluster.policies().count();
    followed.until("read", |own| policies(own) == 1).await;
    let id = ObjectRef::new("n", "deny");
    for update in [
        Update::Begin(Kind::NetworkPolicy),
        Update::Unreadable(Kind::NetworkPolicy, id.clone()),
        Update::End(Kind::NetworkPolicy),
    ] {
        followed.apply(update);
    }
    assert_eq!(policies(&followed), 1);
    assert_eq!(followed.cluster.unread(Decides::Policies).count(), 1);
    followed.apply(Update::Delete(Kind::NetworkPolicy, id));
    assert_eq!(policies(&followed), 0);
    assert_eq!(followed.cluster.unread(Decides::Policies).count(), 0);
}

#[tokio::test]
async fn a_list_whose_moment_is_forgotten_begins_anew() {
    let server = Server::new();
    let both = [closed("a"), closed("b")];
    server.say(POLICIES, 200, list(&both[..1], Some("next")));
    server.refuse(&format!("{POLICIES}#next"), 410);
    server.say(&format!("{POLICIES}#whole"), 200, list(&both, None));
    let loaded = list_over(server.client()).await.unwrap();
    assert_eq!(loaded.used.get("NetworkPolicy"), Some(&2), "none twice");
}

mod watching;
