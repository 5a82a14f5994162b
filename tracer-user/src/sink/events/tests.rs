use std::sync::{Arc, Mutex};

use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use prometheus::Opts;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::writer::AFTER_FAILURE;
use super::*;
use crate::record::{Class, PolicyVerdict};

const NODE: &str = "node-a";

fn probe() -> Drop {
    let mut drop: Drop =
        serde_json::from_str(include_str!("../../../tests/data/probe.json")).unwrap();
    drop.destination.as_mut().unwrap().uid = Some("u-1".to_owned());
    drop
}

/// A drop of another pod each.
fn of_pod(number: usize) -> Drop {
    let mut drop = probe();
    drop.destination.as_mut().unwrap().pod = Some(format!("vault-{number}"));
    drop.policy.as_mut().unwrap().isolating.clear();
    drop
}

fn counter() -> IntCounterVec {
    IntCounterVec::new(Opts::new("events", "events"), &["result"]).unwrap()
}

fn count(counter: &IntCounterVec, result: &str) -> u64 {
    counter.with_label_values(&[result]).get()
}

#[test]
fn the_pod_and_the_policy_are_told_in_one_line_each() {
    let notes = notes(&probe(), NODE);
    let texts: Vec<_> = notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "ingress from node-a(10.42.1.1) to port 8200 TCP dropped (readiness probe failed: context deadline \
             exceeded): no rule of vault/vault-policy allows it; allow ingress from the node's addresses \
             (10.42.1.1/32) on TCP 8200",
            "pod vault/vault-0: ingress from node-a(10.42.1.1) to port 8200 TCP dropped (readiness probe failed: \
             context deadline exceeded); allow ingress from the node's addresses (10.42.1.1/32) on TCP 8200",
        ]
    );
    let pod = &notes[0];
    assert_eq!(
        (pod.reason.as_str(), pod.action),
        ("KubeletProbeDropped", "DropIngress")
    );
    assert_eq!(
        (pod.about.kind, pod.about.uid.as_deref()),
        ("Pod", Some("u-1"))
    );
    assert_eq!(
        (notes[1].about.kind, notes[1].about.name.as_str()),
        ("NetworkPolicy", "vault-policy")
    );
}

#[test]
fn a_disagreement_is_told_to_the_pod_alone_and_what_is_not_known_to_nobody() {
    let mut drop = probe();
    drop.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed;
    let told = notes(&drop, NODE);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].reason, "DropDisagreesWithPolicies");
    drop.policy.as_mut().unwrap().verdict = PolicyVerdict::Unknown;
    assert!(notes(&drop, NODE).is_empty());
    assert!(notes(&probe(), "node-b").is_empty(), "its own agent tells");
    drop = probe();
    drop.policy = None;
    assert!(notes(&drop, NODE).is_empty());
}

#[test]
fn a_long_story_is_cut_at_a_character() {
    let mut drop = probe();
    drop.hint = Some("ü".repeat(2000));
    for note in notes(&drop, NODE) {
        assert!(note.text.len() <= 1024 && note.text.ends_with("ü…"));
    }
}

#[test]
fn repeats_are_told_again_after_a_while_only() {
    let (mut events, mut writer) = events(NODE, counter());
    let start = Instant::now();
    for second in 0..AGAIN.as_secs() {
        events.take(&probe(), start + Duration::from_secs(second));
    }
    assert_eq!(writer.waiting(), 2, "pod and policy");
    events.take(&probe(), start + AGAIN);
    assert_eq!(writer.waiting(), 2);
    let mut other = probe();
    other.class = Some(Class::NodeToPod);
    events.take(&other, start + AGAIN);
    assert_eq!(writer.waiting(), 2, "another kind of traffic");
    assert_eq!(count(&events.counted, "suppressed"), 0);
}

#[test]
fn a_storm_is_cut_off_and_counted() {
    let (mut events, mut writer) = events(NODE, counter());
    let start = Instant::now();
    for number in 0..100 {
        events.take(&of_pod(number), start);
    }
    assert_eq!(writer.waiting(), 25);
    assert_eq!(count(&events.counted, "suppressed"), 75);
    assert_eq!(*events.waiting().borrow(), 25);
    // The same again: it is not the drops that are counted.
    for number in 0..100 {
        events.take(&of_pod(number), start);
    }
    assert_eq!(count(&events.counted, "suppressed"), 75);
    for number in 100..110 {
        events.take(&of_pod(number), start + 4 * EACH);
    }
    assert_eq!(writer.waiting(), 4);
    assert_eq!(count(&events.counted, "suppressed"), 75 + 6);
}

/// The status with which an Event on the object of that name is answered.
type Status = fn(&str) -> u16;

/// What a server was sent, and what it says to that.
#[derive(Clone)]
struct Server {
    sent: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<Mutex<Status>>,
    asked: Arc<Mutex<usize>>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            sent: Arc::default(),
            status: Arc::new(Mutex::new(|_| 200)),
            asked: Arc::default(),
        }
    }
}

impl Server {
    fn client(&self) -> Client {
        let own = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let own = own.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body: Value = serde_json::from_slice(&body)?;
                *own.asked.lock().unwrap() += 1;
                let about = body["regarding"]["name"].as_str().unwrap_or_default();
                let status = own.status.lock().unwrap()(about);
                let answer = if status == 200 {
                    let call = format!("{} {}", parts.method, parts.uri.path());
                    own.sent.lock().unwrap().push((call, body.clone()));
                    body
                } else {
                    json!({"kind": "Status", "status": "Failure", "code": status, "message": "no",
                        "reason": "", "metadata": {}})
                };
                let bytes = answer.to_string().into_bytes();
                let answer = Response::builder().status(status).body(Body::from(bytes))?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer)
            }
        });
        Client::new(service, "default")
    }

    fn answers(&self, status: Status) {
        *self.status.lock().unwrap() = status;
    }

    async fn until_sent(&self, number: usize) -> Vec<(String, Value)> {
        for _ in 0..600 {
            let sent = self.sent.lock().unwrap().clone();
            if sent.len() >= number {
                return sent;
            }
            // The test's own time, which only goes on while everything waits.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{number} calls wanted: {:?}", self.sent.lock().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_created_and_then_counted_on() {
    let server = Server::default();
    let (mut events, writer) = events(NODE, counter());
    let stop = CancellationToken::new();
    let task = tokio::spawn(writer.run(server.client(), stop.clone()));
    let start = Instant::now();
    events.take(&of_pod(0), start);
    events.take(&of_pod(0), start + AGAIN);
    let sent = server.until_sent(2).await;
    let path = "/apis/events.k8s.io/v1/namespaces/vault/events";
    assert_eq!(sent[0].0, format!("POST {path}"));
    assert!(
        sent[1].0.starts_with(&format!("PATCH {path}/vault-0.")),
        "{}",
        sent[1].0
    );
    let event = &sent[0].1;
    assert_eq!(event["regarding"]["kind"], "Pod");
    assert_eq!(event["regarding"]["uid"], "u-1");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "KubeletProbeDropped");
    assert_eq!(event["reportingController"], "tracer");
    assert_eq!(event["reportingInstance"], NODE);
    assert_eq!(sent[1].1["series"]["count"], 2);
    assert_eq!(count(&events.counted, "written"), 2);
    assert_eq!(*events.waiting().borrow(), 0);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_somebody_deleted_is_created_anew() {
    let server = Server::default();
    let (mut events, writer) = events(NODE, counter());
    let stop = CancellationToken::new();
    let task = tokio::spawn(writer.run(server.client(), stop.clone()));
    let start = Instant::now();
    events.take(&of_pod(0), start);
    server.until_sent(1).await;
    // What counts on names no object.
    server.answers(|about| if about.is_empty() { 404 } else { 200 });
    events.take(&of_pod(0), start + AGAIN);
    let sent = server.until_sent(2).await;
    assert!(sent[1].0.starts_with("POST "), "{}", sent[1].0);
    assert_eq!(count(&events.counted, "written"), 2);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_server_is_away_events_wait_and_keep_their_order() {
    for status in [(|_| 503) as Status, |_| 429, |_| 401] {
        let server = Server::default();
        server.answers(status);
        let (mut events, writer) = events(NODE, counter());
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(server.client(), stop.clone()));
        events.take(&probe(), Instant::now());
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(count(&events.counted, "written"), 0);
        server.answers(|_| 200);
        let sent = server.until_sent(2).await;
        assert_eq!(sent[0].1["regarding"]["kind"], "Pod");
        assert_eq!(sent[1].1["regarding"]["kind"], "NetworkPolicy");
        assert_eq!(count(&events.counted, "failed"), 0);
        stop.cancel();
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_finds_fault_with_blocks_nothing() {
    for (status, asked) in [
        (
            (|pod| if pod == "vault-0" { 422 } else { 200 }) as Status,
            3,
        ),
        (|pod| if pod == "vault-0" { 400 } else { 200 }, 3),
        (|pod| if pod == "vault-0" { 413 } else { 200 }, 3),
        (|pod| if pod == "vault-0" { 403 } else { 200 }, 5),
    ] {
        let server = Server::default();
        server.answers(status);
        let (mut events, writer) = events(NODE, counter());
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(server.client(), stop.clone()));
        let start = tokio::time::Instant::now();
        for number in 0..3 {
            events.take(&of_pod(number), Instant::now());
        }
        server.until_sent(2).await;
        assert!(start.elapsed() < AFTER_FAILURE, "others do not wait");
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(count(&events.counted, "written"), 2);
        assert_eq!(count(&events.counted, "failed"), 1);
        assert_eq!(*server.asked.lock().unwrap(), asked);
        stop.cancel();
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_is_kept_for_a_while_and_not_without_bound() {
    let server = Server::default();
    server.answers(|_| 403);
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let counted = counter();
    let waiting = Waiting(watch::Sender::new(100));
    let writer = Writer::new(NODE, receiver, counted.clone(), waiting.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(writer.run(server.client(), stop.clone()));
    for number in 0..100 {
        let [note] = notes(&of_pod(number), NODE).try_into().unwrap();
        sender.send(note).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&counted, "failed"), 36, "64 are kept");
    assert_eq!(*waiting.0.borrow(), 64);
    server.answers(|_| 200);
    let sent = server.until_sent(64).await;
    assert_eq!(sent[0].1["regarding"]["name"], "vault-36");
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn what_fits_together_with_a_drop_is_told_too() {
    let mut drop = probe();
    let change = "first drop 4 s after vault/vault-policy was changed, by kubectl";
    drop.notes = vec![change.to_owned()];
    for note in notes(&drop, NODE) {
        let hint = drop.hint.as_deref().unwrap();
        let end = format!("; {change}; {hint}");
        assert!(note.text.ends_with(&end), "{}", note.text);
    }
}

#[test]
fn events_and_metrics_agree_on_what_is_a_disagreement() {
    for class in Class::ALL {
        let mut drop = probe();
        drop.class = Some(class);
        drop.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed;
        let metrics = crate::sink::metrics::Metrics::new(10).unwrap();
        metrics.observe(&drop);
        let counted = metrics
            .series()
            .iter()
            .any(|series| series.metric == "tracer_disagreements_total");
        let told = !notes(&drop, NODE).is_empty();
        let explained = matches!(class, Class::ConntrackInvalid | Class::PolicyRace);
        assert_eq!((counted, told), (!explained, !explained), "{class:?}");
    }
}

#[test]
fn an_event_is_named_as_the_alert_on_the_same_traffic() {
    let reasons: Vec<_> = Class::ALL
        .iter()
        .map(|class| format!("{}Dropped", note::camel(class.as_str())))
        .collect();
    let rules = include_str!("../../../../deploy/prometheus/rules.yaml");
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .filter(|alert| alert.ends_with("Dropped"))
        .collect();
    assert!(alerts.contains(&"ApiServerEgressDropped"), "{alerts:?}");
    for alert in alerts {
        assert!(reasons.iter().any(|reason| reason == alert), "{alert}");
    }
}
