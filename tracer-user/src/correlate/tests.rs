use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use tracer_policy::model::{Namespace, Pod};

use super::*;

fn at(time: &str) -> Timestamp {
    format!("2026-01-01T{time}Z").parse().unwrap()
}

fn cluster(ready: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.apply_namespace(Namespace {
        name: "vault".into(),
        labels: tracer_policy::model::Labels::new(),
    });
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": "vault-0", "namespace": "vault"},
        "spec": {"nodeName": "node-a", "containers": [{
            "name": "vault", "ports": [{"containerPort": 8200}],
            "readinessProbe": {"httpGet": {"port": 8200}}}]},
        "status": {"phase": "Running", "podIP": "10.42.1.10",
            "conditions": [{"type": "Ready", "status": ready}]}}))
    .unwrap();
    cluster.apply_pod(Pod::try_from(&pod).unwrap());
    let policy = serde_json::from_value(json!({
        "metadata": {"name": "vault-policy", "namespace": "vault",
            "creationTimestamp": "2026-01-01T09:00:00Z",
            "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-01-01T10:00:00Z"}]},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}))
    .unwrap();
    cluster.apply_network_policy(&policy).unwrap();
    cluster
}

fn probe(time: &str) -> Drop {
    let mut drop: Drop = serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
    drop.time = at(time);
    drop
}

/// The probe's way back to front, to the API server.
fn to_api_server(time: &str) -> Drop {
    let mut drop = probe(time);
    std::mem::swap(&mut drop.source, &mut drop.destination);
    drop.class = Some(Class::ApiserverEgress);
    drop
}

#[test]
fn the_first_drop_after_a_change_says_so_and_the_next_does_not() {
    let (cluster, mut correlator) = (cluster("True"), Correlator::default());
    let mut before = probe("09:59:59");
    correlator.correlate(&mut before, &cluster);
    assert!(before.notes.is_empty());
    let mut first = probe("10:00:04");
    correlator.correlate(&mut first, &cluster);
    assert_eq!(
        first.notes,
        ["first drop 4 s after vault/vault-policy was changed, by kubectl"]
    );
    let change = first.policy.unwrap().change.unwrap();
    assert_eq!(
        (change.time, change.by.as_deref(), change.created),
        (at("10:00:00"), Some("kubectl"), false)
    );
    let mut second = probe("10:00:05");
    correlator.correlate(&mut second, &cluster);
    assert!(second.notes.is_empty());
    let mut late = probe("10:10:01");
    Correlator::default().correlate(&mut late, &cluster);
    assert!(late.notes.is_empty(), "no news any more");
}

#[test]
fn an_unready_pod_cut_off_from_the_api_server_waits_for_it() {
    let notes = |ready: &str, drops: &mut [Drop]| {
        let (cluster, mut correlator) = (cluster(ready), Correlator::default());
        for drop in &mut *drops {
            correlator.correlate(drop, &cluster);
        }
        drops.last().unwrap().notes.join("; ")
    };
    assert!(
        notes("False", &mut [to_api_server("12:00:00")]).starts_with("vault-0 is not ready though")
    );
    assert_eq!(notes("True", &mut [to_api_server("12:00:00")]), "");
    // Its probes are dropped: that is reason enough.
    assert_eq!(
        notes("False", &mut [probe("12:00:00"), to_api_server("12:01:00")]),
        ""
    );
    assert_ne!(
        notes("False", &mut [probe("12:00:00"), to_api_server("12:03:00")]),
        ""
    );
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_a_probe_for_longer() {
    let (cluster, mut correlator) = (cluster("False"), Correlator::default());
    correlator.correlate(&mut probe("11:00:00"), &cluster);
    correlator.clock_was_set(SignedDuration::from_hours(-1));
    let mut soon = to_api_server("10:01:00");
    correlator.correlate(&mut soon, &cluster);
    assert!(!soon.notes.iter().any(|note| note.contains("is not ready")));
    let mut late = to_api_server("10:03:00");
    correlator.correlate(&mut late, &cluster);
    assert!(late.notes.iter().any(|note| note.contains("is not ready")));
}
