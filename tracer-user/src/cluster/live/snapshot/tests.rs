use std::thread;

use serde_json::{Value, json};
use tracer_policy::{Cluster, Decides};

use super::*;
use crate::cluster::object::Unknown;

const CLUSTER: &str = "https://10.43.0.1 1";

/// An object of the API, as it is used.
fn object(kind: Kind, name: &str, spec: Value) -> Update {
    let mut object = spec;
    object["apiVersion"] = kind.version().into();
    object["kind"] = kind.name().into();
    object["metadata"] = json!({"name": name, "namespace": "n", "uid": format!("uid-{name}"),
        "labels": {"app": name}, "creationTimestamp": "2026-01-01T00:00:00Z"});
    let id = ObjectRef::new("n", name);
    let object = Object::read(kind, &object, Unknown::Ignore).unwrap();
    Update::Apply(kind, id, object)
}

fn pod(name: &str, ip: &str) -> Update {
    let spec = json!({
        "spec": {"nodeName": "node-a", "containers": [{"name": "c",
            "ports": [{"name": "http", "containerPort": 8200}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/health", "scheme": "HTTPS"}}}]},
        "status": {"phase": "Running", "podIP": ip, "startTime": "2026-01-01T00:00:00Z"}});
    object(Kind::Pod, name, spec)
}

fn closed(name: &str) -> Update {
    object(
        Kind::NetworkPolicy,
        name,
        json!({"spec": {"podSelector": {}}}),
    )
}

/// All that is in `updates`, each kind in a list of its own, and nothing of other kinds.
fn listed(updates: &[Update]) -> Vec<Update> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let own = |update: &&Update| matches!(update, Update::Apply(own, ..) if *own == kind);
        let own: Vec<_> = updates.iter().filter(own).cloned().collect();
        if own.is_empty() {
            all.push(Update::Absent(kind));
        } else {
            all.push(Update::Begin(kind));
            all.extend(own);
            all.push(Update::End(kind));
        }
    }
    all
}

/// Writes these down as an agent of `cluster` would, to its end.
async fn write(folder: &Path, cluster: &str, updates: Vec<Update>) {
    let (recorder, write) = Snapshot::open(folder, cluster).unwrap().channel();
    let writer = thread::spawn(write);
    for update in &updates {
        recorder.record(update).await;
    }
    recorder.as_of(now()).await;
    drop(recorder);
    writer.join().unwrap();
}

fn now() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

/// The state that the next agent starts from.
fn restored(folder: &Path, cluster: &str) -> Option<Cluster> {
    let snapshot = Snapshot::open(folder, cluster).unwrap();
    let mut state = Cluster::new();
    let as_of = snapshot.restore(&mut Keeper::default(), &mut state)?;
    assert_eq!(as_of, now());
    Some(state)
}

fn unread(state: &Cluster) -> Vec<&str> {
    let mut unread: Vec<_> = state.unread(Decides::Policies).collect();
    unread.extend(state.unread(Decides::Ends));
    unread
}

#[tokio::test]
async fn every_kind_comes_back_as_it_was() {
    let service = json!({"name": "web", "namespace": "n"});
    let webhooks = json!({"webhooks": [{"name": "w.x.y", "clientConfig": {"service": service}}]});
    let calico = json!({"spec": {"selector": "all()", "order": 7}});
    let specs = [
        (Kind::Namespace, json!({})),
        (
            Kind::Node,
            json!({"spec": {"podCIDRs": ["10.42.0.0/24", "fd00::/64"]},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        ),
        (
            Kind::Service,
            json!({"spec": {"clusterIPs": ["10.43.0.9"], "selector": {"app": "web"},
                "ports": [{"port": 443, "nodePort": 30443}]}}),
        ),
        (
            Kind::Endpoints,
            json!({"subsets": [{"addresses": [{"ip": "10.42.0.9"}], "ports": [{"port": 1, "protocol": "UDP"}]}]}),
        ),
        (
            Kind::EndpointSlice,
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.9"]}],
                "ports": [{"port": 8443}]}),
        ),
        (Kind::AdminNetworkPolicy, json!({"spec": {"priority": 3}})),
        (Kind::BaselineAdminNetworkPolicy, json!({"spec": {}})),
        (Kind::ClusterNetworkPolicy, json!({"spec": {"priority": 3}})),
        (Kind::CalicoTier, json!({"spec": {"order": 3}})),
        (Kind::CalicoNetworkPolicy, calico.clone()),
        (Kind::GlobalNetworkPolicy, calico),
        (
            Kind::CalicoNetworkSet,
            json!({"spec": {"nets": ["10.0.0.0/8"]}}),
        ),
        (
            Kind::GlobalNetworkSet,
            json!({"spec": {"nets": ["10.0.0.0/8"]}}),
        ),
        (Kind::ValidatingWebhooks, webhooks.clone()),
        (Kind::MutatingWebhooks, webhooks),
        (
            Kind::ApiService,
            json!({"spec": {"service": service, "groupPriorityMinimum": 1, "versionPriority": 1}}),
        ),
    ];
    let mut updates: Vec<_> = specs
        .into_iter()
        .map(|(kind, spec)| object(kind, "one", spec))
        .collect();
    updates.extend([pod("one", "10.42.0.9"), closed("one")]);
    assert_eq!(updates.len(), Kind::ALL.len());

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), CLUSTER, listed(&updates)).await;
    for update in updates {
        let Update::Apply(kind, ..) = &update else {
            panic!("{update:?}")
        };
        let mut read = Vec::new();
        let path = journal_of(folder.path(), *kind);
        read::updates(&path, *kind, &mut |update| read.push(update)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", [update]));
    }
    let state = restored(folder.path(), CLUSTER).unwrap();
    assert!(state.pod("n", "one").is_some());
    assert_eq!(unread(&state), Vec::<&str>::new());
}

#[tokio::test]
async fn what_went_and_what_came_since_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let mut updates = listed(&[pod("a", "10.42.0.1"), pod("b", "10.42.0.2")]);
    updates.push(Update::Delete(Kind::Pod, ObjectRef::new("n", "a")));
    updates.push(pod("c", "10.42.0.3"));
    write(folder.path(), CLUSTER, updates).await;
    let has = |names: [bool; 3]| {
        let state = restored(folder.path(), CLUSTER).unwrap();
        assert_eq!(
            ["a", "b", "c"].map(|name| state.pod("n", name).is_some()),
            names
        );
    };
    has([false, true, true]);
    // A list that was not whole changes nothing.
    write(folder.path(), CLUSTER, vec![Update::Begin(Kind::Pod)]).await;
    has([false, true, true]);
    write(folder.path(), CLUSTER, listed(&[pod("a", "10.42.0.1")])).await;
    has([true, false, false]);
}

#[tokio::test]
async fn what_could_not_be_read_is_not_taken_for_absent() {
    let folder = tempfile::tempdir().unwrap();
    let unreadable = ObjectRef::new("n", "odd");
    let mut updates = listed(&[closed("a")]);
    updates.push(Update::Unreadable(Kind::NetworkPolicy, unreadable));
    updates.push(Update::Unread(Kind::Namespace));
    write(folder.path(), CLUSTER, updates).await;
    let state = restored(folder.path(), CLUSTER).unwrap();
    assert_eq!(unread(&state), ["NetworkPolicy n/odd", "namespaces"]);
}

#[tokio::test]
async fn another_clusters_state_is_not_used_nor_kept() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), CLUSTER, listed(&[pod("a", "10.42.0.1")])).await;
    assert!(restored(folder.path(), "https://10.43.0.1 2").is_none());
    assert!(!journal_of(folder.path(), Kind::Pod).exists());
    assert!(restored(folder.path(), CLUSTER).is_none());
}

#[tokio::test]
async fn a_half_written_line_costs_itself_and_a_foreign_one_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let all = || listed(&[pod("a", "10.42.0.1"), closed("a")]);
    write(folder.path(), CLUSTER, all()).await;
    let pods = journal_of(folder.path(), Kind::Pod);
    let whole = fs::read(&pods).unwrap();
    let spoilt = |tail: &str| {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(tail.as_bytes());
        fs::write(&pods, bytes).unwrap();
        restored(folder.path(), CLUSTER).unwrap()
    };
    let state = spoilt(r#"{"delete":{"namespace":"n","na"#);
    assert!(state.pod("n", "a").is_some());
    assert_eq!(unread(&state), Vec::<&str>::new());

    let state = spoilt("what is this?\n{\"unread\":null}\n");
    assert!(state.pod("n", "a").is_none());
    assert_eq!(unread(&state), ["pods"]);

    // Unread by the next agent too: what follows a half written line is a line of its own.
    spoilt(r#"{"delete":{"namespace":"n","na"#);
    write(folder.path(), CLUSTER, vec![Update::Unread(Kind::Pod)]).await;
    let state = restored(folder.path(), CLUSTER).unwrap();
    assert!(state.pod("n", "a").is_some());
    assert_eq!(unread(&state), ["pods"]);
}

#[tokio::test]
async fn a_journal_does_not_grow_with_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut updates = listed(&[pod("a", "10.42.0.1"), pod("b", "10.42.0.2")]);
    updates.extend((0..5000).map(|turn| pod("b", &format!("10.42.1.{}", turn % 250))));
    write(folder.path(), CLUSTER, updates).await;
    let lines = fs::read_to_string(journal_of(folder.path(), Kind::Pod))
        .unwrap()
        .lines()
        .count();
    assert!(lines < 1100, "{lines} lines of two pods");
    let state = restored(folder.path(), CLUSTER).unwrap();
    assert!(state.pod("n", "a").is_some());
    let last = "10.42.1.249".parse::<std::net::IpAddr>().unwrap();
    assert_eq!(state.pod("n", "b").unwrap().ips, [last]);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_the_snapshot_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (recorder, write) = Snapshot::open(&path, CLUSTER).unwrap().channel();
    fs::remove_dir_all(&path).unwrap();
    for update in listed(&[pod("a", "10.42.0.1"), closed("a")]) {
        recorder.record(&update).await;
    }
    recorder.as_of(now()).await;
    drop(recorder);
    thread::spawn(write).join().unwrap();
    assert!(restored(&path, CLUSTER).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_waited_for_once() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), CLUSTER, listed(&[pod("a", "10.42.0.1")])).await;
    let (recorder, write) = Snapshot::open(folder.path(), CLUSTER).unwrap().channel();
    let start = tokio::time::Instant::now();
    for _ in 0..5000 {
        recorder.record(&pod("b", "10.42.0.2")).await;
    }
    assert!(start.elapsed().as_secs() <= 6, "{:?}", start.elapsed());
    // Where changes are missing, nothing of it is true any more.
    thread::spawn(write).join().unwrap();
    assert!(restored(folder.path(), CLUSTER).is_none());
}

#[test]
fn two_agents_do_not_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let one = Snapshot::open(folder.path(), CLUSTER).unwrap();
    let error = Snapshot::open(folder.path(), CLUSTER).unwrap_err();
    assert_eq!(error.to_string(), "another agent has it");
    drop(one);
    Snapshot::open(folder.path(), CLUSTER).unwrap();
}
