use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::cluster::load;

fn cluster() -> Cluster {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incident.yaml");
    load(&path).unwrap().cluster
}

fn vault_0(port: u16) -> Value {
    json!({"ip": "10.42.1.10", "port": port, "kind": "pod", "namespace": "vault", "pod": "vault-0",
        "workload": "vault", "labels": {"app.kubernetes.io/name": "vault"}})
}

fn coredns(port: u16) -> Value {
    json!({"ip": "10.42.1.2", "port": port, "kind": "pod", "namespace": "kube-system",
        "pod": "coredns-7b9f-x2x", "workload": "coredns", "labels": {"k8s-app": "kube-dns"}})
}

fn outside(port: u16) -> Value {
    json!({"ip": "192.0.2.1", "port": port, "kind": "external"})
}

/// A dropped packet; `more` is merged over it.
fn packet(source: Value, destination: Value, protocol: &str, more: Value) -> Drop {
    let mut drop = serde_json::Map::new();
    for part in [
        json!({"time": "2026-11-23T10:01:02.123456789Z", "node": "node-a", "count": 1, "protocol": protocol,
            "drop": {"reason": "NETFILTER_DROP", "datapath": "netfilter"}}),
        more,
    ] {
        if let Value::Object(part) = part {
            drop.extend(part);
        }
    }
    drop.insert("source".into(), source);
    drop.insert("destination".into(), destination);
    serde_json::from_value(drop.into()).unwrap()
}

fn udp(source: Value, destination: Value) -> Drop {
    packet(source, destination, "UDP", json!({}))
}

fn tcp(source: Value, destination: Value, flags: &[&str]) -> Drop {
    packet(source, destination, "TCP", json!({"tcp_flags": flags}))
}

/// The flow as text, or what is refused and why.
fn told(drop: &Drop) -> String {
    match flow(drop, &cluster()) {
        Ok(flow) => flow.to_string(),
        Err(Incurable { what, why }) => format!("{what}: {why}"),
    }
}

#[test]
fn what_no_rule_dropped_is_refused_with_its_reason() {
    let syn = |more: Value| {
        let mut drop = packet(vault_0(40000), outside(443), "TCP", more);
        drop.tcp_flags = Some(vec!["SYN".to_owned()]);
        told(&drop)
    };
    assert_eq!(syn(json!({})), "vault/vault-0 → 192.0.2.1 port 443/TCP");
    let denied = json!({"verdict": "denied", "grade": "proven"});
    assert_eq!(
        syn(json!({"policy": denied})),
        "vault/vault-0 → 192.0.2.1 port 443/TCP"
    );
    for (more, says) in [
        (
            json!({"drop": {"reason": "IP_RPFILTER"}, "policy": denied}),
            "IP_RPFILTER (rp_filter: ",
        ),
        (
            json!({"drop": {"reason": "TCP_OFOMERGE"}}),
            "TCP_OFOMERGE, and no policy",
        ),
        (json!({"drop": {"reason": "SECURITY_HOOK"}}), "SELinux"),
        (
            json!({"drop": {"reason": "NOT_SPECIFIED"}}),
            "NOT_SPECIFIED",
        ),
        (
            json!({"policy": {"verdict": "allowed", "grade": "unexplained"}}),
            "the policies let it through when it was dropped",
        ),
        (json!({"class": "conntrack-invalid"}), "INVALID"),
        (json!({"class": "policy-race"}), "not in place yet"),
    ] {
        let text = syn(more.clone());
        assert!(text.contains(says), "{more}: {text}");
        assert!(
            text.starts_with("vault/vault-0 → 192.0.2.1 port 443/TCP: "),
            "{text}"
        );
    }
    // Kernels without reasons tell by the place.
    let placed = json!({"drop": {"reason": "NOT_SPECIFIED", "datapath": "netfilter"}});
    assert_eq!(syn(placed), "vault/vault-0 → 192.0.2.1 port 443/TCP");
    let bare: Drop = serde_json::from_value(json!({"time": "2026-11-23T10:01:02.123456789Z",
        "node": "node-a", "count": 1, "drop": {"reason": "NETFILTER_DROP"}}))
    .unwrap();
    assert!(told(&bare).contains("were not recorded"), "{}", told(&bare));
}

#[test]
fn a_pod_is_who_bears_its_name_wherever_it_is_now() {
    let from = |change: Value| {
        let mut source = vault_0(40000);
        for (field, value) in change.as_object().unwrap() {
            source[field.as_str()] = value.clone();
        }
        told(&tcp(source, outside(443), &["SYN"]))
    };
    // It has moved; somebody else may have its old address.
    assert_eq!(
        from(json!({"ip": "10.42.1.99"})),
        "vault/vault-0 → 192.0.2.1 port 443/TCP"
    );
    assert_eq!(
        from(json!({"ip": "10.42.1.11"})),
        "vault/vault-0 → 192.0.2.1 port 443/TCP"
    );
    // It is gone: its workload's other pods stand for it, else nobody does.
    assert_eq!(
        from(json!({"pod": "vault-7"})),
        "vault/vault-0 → 192.0.2.1 port 443/TCP"
    );
    assert_eq!(
        from(json!({"pod": "web-7", "workload": "web"})),
        "vault/web-7 → 192.0.2.1 port 443/TCP: pod vault/web-7 is gone, and 10.42.1.10, which it had, is pod \
         vault/vault-0's now: nobody is left to make a rule for"
    );
    let renamed = from(json!({"workload": "web"}));
    assert!(
        renamed.contains("of workload web then and is of vault now"),
        "{renamed}"
    );
}

#[test]
fn an_address_that_changed_hands_is_not_taken_for_its_new_owner() {
    let to = |destination: Value| told(&tcp(vault_0(40000), destination, &["SYN"]));
    for (was, says) in [
        (
            json!({"ip": "10.42.1.11", "port": 443, "kind": "external"}),
            "10.42.1.11 was outside the cluster when it was dropped and is pod vault/vault-1's now",
        ),
        (
            json!({"ip": "10.42.1.11", "port": 443, "kind": "node", "node": "old"}),
            "was an address of node old when it was dropped",
        ),
        (
            json!({"ip": "10.43.0.10", "port": 443, "kind": "service",
                "service": {"namespace": "shop", "name": "web", "ip": "10.43.0.10", "port": 443}}),
            "was the address of Service shop/web when it was dropped and is the address of Service kube-system/kube-dns \
             now",
        ),
    ] {
        let text = to(was);
        assert!(text.contains(says), "{text}");
    }
    for (same, name) in [
        (
            json!({"ip": "192.168.1.100", "port": 443, "kind": "node", "node": "master"}),
            "192.168.1.100",
        ),
        (
            json!({"ip": "10.42.1.11", "port": 443, "kind": "unknown"}),
            "10.42.1.11",
        ),
        (
            json!({"ip": "10.43.0.10", "port": 443, "kind": "service",
                "service": {"namespace": "kube-system", "name": "kube-dns", "ip": "10.43.0.10", "port": 443}}),
            "10.43.0.10",
        ),
    ] {
        assert_eq!(to(same), format!("vault/vault-0 → {name} port 443/TCP"));
    }
}

#[test]
fn an_answer_stands_for_what_was_asked() {
    let asked = "vault/vault-0 → kube-system/coredns-7b9f-x2x port 53/UDP";
    assert_eq!(told(&udp(vault_0(40000), coredns(53))), asked);
    assert_eq!(told(&udp(coredns(53), vault_0(40000))), asked);
    // By what is declared: 53/UDP is, whatever the client's port.
    assert_eq!(told(&udp(coredns(53), vault_0(5000))), asked);
    assert_eq!(told(&udp(vault_0(5000), coredns(53))), asked);
    // Nobody declares 5000 or 123: the client has a client's port.
    assert_eq!(
        told(&udp(outside(123), vault_0(40000))),
        "vault/vault-0 → 192.0.2.1 port 123/UDP"
    );
    assert_eq!(
        told(&tcp(outside(443), vault_0(40000), &["ACK"])),
        "vault/vault-0 → 192.0.2.1 port 443/TCP"
    );
    // What is asked is allowed: the answer needs no rule.
    let text = told(&tcp(
        vault_0(8200),
        json!({"ip": "10.42.1.11", "port": 40000, "kind": "pod",
        "namespace": "vault", "pod": "vault-1"}),
        &["SYN", "ACK"],
    ));
    assert!(
        text.starts_with(
            "the answer to vault/vault-1 → vault/vault-0 port 8200/TCP: an answer needs no rule"
        ),
        "{text}"
    );
}

#[test]
fn where_nobody_knows_who_asked_nothing_is_opened() {
    let text = told(&tcp(vault_0(40000), outside(41000), &["ACK"]));
    assert!(text.contains("cannot be said who opened it"), "{text}");
    let text = told(&udp(vault_0(40000), outside(41000)));
    assert!(text.contains("cannot be said who opened it"), "{text}");
    // A port that is no client's is asked, where nothing says otherwise.
    assert_eq!(
        told(&udp(vault_0(5000), outside(6000))),
        "vault/vault-0 → 192.0.2.1 port 6000/UDP"
    );
}
