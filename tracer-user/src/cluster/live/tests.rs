use jiff::Timestamp;
use serde_json::{Value, json};
use tracer_policy::model::ObjectRef;
use tracer_policy::{Cluster, Owner, Role};

use super::*;
use crate::cluster::Kind;
use crate::cluster::object::{Object, Unknown};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn apply(kind: Kind, object: &Value) -> Update {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let id = ObjectRef::new(text("namespace"), text("name"));
    Update::Apply(
        kind,
        id,
        Object::read(kind, object, Unknown::Ignore).unwrap(),
    )
}

fn pod(name: &str, ip: &str) -> Update {
    apply(
        Kind::Pod,
        &json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "node-a", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "startTime": at(0).to_string()}}),
    )
}

fn owner(cluster: &Cluster, ip: &str, second: i64) -> String {
    match cluster.owner_at(ip.parse().unwrap(), at(second), Role::Receiver) {
        Some(Owner::Pod(pod)) => pod.id.name.clone(),
        Some(Owner::Node(node, _)) => node.name.clone(),
        Some(_) => "nobody".into(),
        None => "open".into(),
    }
}

#[test]
fn what_a_new_list_lacks_is_gone_and_remembered() {
    let (mut keeper, mut cluster) = (Keeper::default(), Cluster::new());
    let mut tell = |cluster: &mut Cluster, second, update| {
        keeper.apply(update, at(second), cluster);
    };
    for update in [
        Update::Begin(Kind::Pod),
        pod("a", "10.42.0.1"),
        pod("b", "10.42.0.2"),
        Update::End(Kind::Pod),
    ] {
        tell(&mut cluster, 1, update);
    }
    // The watch was lost; meanwhile b went and c came.
    tell(&mut cluster, 2, Update::Begin(Kind::Pod));
    tell(&mut cluster, 2, pod("a", "10.42.0.1"));
    assert_eq!(
        owner(&cluster, "10.42.0.2", 2),
        "b",
        "the list is not whole"
    );
    tell(&mut cluster, 2, pod("c", "10.42.0.3"));
    tell(&mut cluster, 10, Update::End(Kind::Pod));
    assert!(cluster.pod("n", "b").is_none());
    assert_eq!(owner(&cluster, "10.42.0.2", 9), "b");
    assert_eq!(owner(&cluster, "10.42.0.3", 9), "c");
    tell(
        &mut cluster,
        11,
        Update::Delete(Kind::Pod, ObjectRef::new("n", "a")),
    );
    assert_eq!(owner(&cluster, "10.42.0.1", 10), "a");
    assert_eq!(owner(&cluster, "10.42.0.1", 11 + 121), "nobody");
}

#[test]
fn the_state_is_whole_once_every_kind_was_listed_or_never_will_be() {
    let (mut keeper, mut cluster) = (Keeper::default(), Cluster::new());
    assert!(!keeper.is_whole());
    keeper.expect([Kind::Pod, Kind::EndpointSlice]);
    keeper.apply(Update::Begin(Kind::Pod), at(0), &mut cluster);
    assert!(!keeper.is_whole());
    keeper.apply(Update::End(Kind::Pod), at(0), &mut cluster);
    assert!(!keeper.is_whole());
    keeper.apply(Update::Absent(Kind::EndpointSlice), at(0), &mut cluster);
    assert!(keeper.is_whole());
}

#[test]
fn the_hosts_own_addresses_outlive_a_change_of_its_node() {
    let mut keeper = Keeper::new("node-a".into(), vec!["10.42.0.1".parse().unwrap()]);
    let mut cluster = Cluster::new();
    let node = |ip: &str| {
        apply(
            Kind::Node,
            &json!({"metadata": {"name": "node-a"}, "spec": {},
                "status": {"addresses": [{"type": "InternalIP", "address": ip}]}}),
        )
    };
    assert!(keeper.apply(node("192.0.2.1"), at(0), &mut cluster));
    assert!(keeper.apply(node("192.0.2.2"), at(1), &mut cluster));
    assert_eq!(owner(&cluster, "10.42.0.1", 2), "node-a");
    assert_eq!(owner(&cluster, "192.0.2.2", 2), "node-a");
    assert_eq!(owner(&cluster, "192.0.2.1", 2), "nobody");
}

#[test]
fn an_address_that_the_host_gives_up_is_its_no_more() {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let mut keeper = Keeper::new("node-a".into(), ips(&["10.42.0.1", "192.0.2.1"]));
    let mut cluster = Cluster::new();
    let node = apply(
        Kind::Node,
        &json!({"metadata": {"name": "node-a"}, "spec": {},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}),
    );
    keeper.apply(node, at(0), &mut cluster);
    assert!(!keeper.host_has(ips(&["10.42.0.1", "192.0.2.1"]), &mut cluster));
    assert!(keeper.host_has(ips(&["10.42.0.2"]), &mut cluster));
    let owners = ["10.42.0.1", "10.42.0.2", "192.0.2.1"].map(|ip| owner(&cluster, ip, 1));
    assert_eq!(owners, ["nobody", "node-a", "node-a"]);
    // An address stays whose it is.
    assert!(keeper.host_has(ips(&["10.42.0.2", "10.42.0.3"]), &mut cluster));
    assert_eq!(owner(&cluster, "10.42.0.2", 1), "node-a");
}

#[test]
fn health_says_what_is_missing_and_since_when() {
    let status = Status::default();
    assert_eq!(status.health(), Health::Starting);
    status.listing("pods");
    assert_eq!(status.health(), Health::Starting);
    status.synced("pods");
    assert!(status.health().is_synced());
    assert!(status.unread("nodes", "no".into()));
    assert!(!status.unread("nodes", "no".into()), "said once");
    assert_eq!(status.health(), Health::Partial(vec!["nodes".into()]));
    status.synced("nodes");
    assert!(status.answered(at(5)).is_none());
    assert!(status.silent("refused".into()));
    assert!(!status.silent("refused".into()), "said once");
    let text = status.health().to_string();
    assert!(text.contains("1970-01-12T13:46:45Z (refused)"), "{text}");
    assert!(status.answered(at(20)).is_some());
    assert_eq!(status.health(), Health::Starting, "nothing came yet");
    status.followed("pods");
    status.followed("nodes");
    assert!(status.health().is_synced());
}
