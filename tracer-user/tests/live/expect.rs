//! Whole events as they have to be, on the lab's cluster with the incident's policy in force.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};
use tracer_policy::model::Protocol;

/// An expected event; what is the same in all of them is filled in by [`Event::json`].
#[derive(Clone, Debug)]
pub struct Event {
    /// Packets, all lines of the flow taken together.
    pub count: u64,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `class`.
    pub class: &'static str,
    /// Sender, from [`vault_0`] and its like.
    pub source: Value,
    /// Receiver.
    pub destination: Value,
    /// Protocol.
    pub protocol: Protocol,
    /// `drop`, without what differs from run to run.
    pub drop: Value,
    /// `policy.nearest_miss.got`.
    pub got: String,
    /// `policy.grade`.
    pub grade: &'static str,
    /// `symptom`.
    pub symptom: String,
    /// `hint`.
    pub hint: String,
}

impl Event {
    /// The whole event.
    pub fn json(self) -> Value {
        let (rule, wanted) = match self.direction {
            "ingress" => (
                "spec.ingress[0]",
                "from: [{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}}]",
            ),
            _ => (
                "spec.egress[0]",
                "to: [{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}}]",
            ),
        };
        let mut event = json!({
            "node": "node-1",
            "count": self.count,
            "direction": self.direction,
            "class": self.class,
            "source": self.source,
            "destination": self.destination,
            "protocol": self.protocol.to_string(),
            "drop": self.drop,
            "policy": {
                "verdict": "denied",
                "grade": self.grade,
                "direction": self.direction,
                "isolating": [
                    {"kind": "NetworkPolicy", "namespace": "vault", "name": "vault-policy"}
                ],
                "nearest_miss": {
                    "policy": "vault/vault-policy",
                    "rule": rule,
                    "failed": "peer",
                    "wanted": wanted,
                    "got": self.got,
                },
            },
            "symptom": self.symptom,
            "hint": self.hint,
        });
        match self.protocol {
            Protocol::Tcp => event["tcp_flags"] = json!(["SYN"]),
            Protocol::Icmp => event["icmp"] = json!({"type": 8, "code": 0}),
            Protocol::Icmpv6 => event["icmp"] = json!({"type": 128, "code": 0}),
            _ => {}
        }
        if self.class == "kubelet-probe" {
            event["probe"] = json!({
                "kind": "liveness",
                "container": "vault",
                "handler": "https",
                "port": 8200,
                "period_seconds": 10,
            });
        }
        event
    }
}

/// Pod `vault/vault-0`.
pub fn vault_0(ip: IpAddr, port: Port) -> Value {
    end(json!({
        "ip": ip,
        "port": port.json(),
        "kind": "pod",
        "namespace": "vault",
        "pod": "vault-0",
        "workload": "vault",
        "node": "node-1",
        "labels": {
            "app.kubernetes.io/name": "vault",
            "apps.kubernetes.io/pod-index": "0",
            "statefulset.kubernetes.io/pod-name": "vault-0",
        },
    }))
}

/// The cluster's DNS pod.
pub fn coredns(ip: IpAddr, port: Port) -> Value {
    end(json!({
        "ip": ip,
        "port": port.json(),
        "kind": "pod",
        "namespace": "kube-system",
        "pod": "coredns-6799fbcd5-x8mzq",
        "workload": "coredns",
        "node": "node-1",
        "labels": {"k8s-app": "kube-dns", "pod-template-hash": "6799fbcd5"},
    }))
}

/// A node's own address.
pub fn node(name: &str, ip: IpAddr, port: Port) -> Value {
    end(json!({"ip": ip, "port": port.json(), "kind": "node", "node": name}))
}

/// The end that a process of this machine sends from: the test itself, by the thread that enters the node's
/// namespace.
pub fn sent_here(mut end: Value) -> Value {
    end["process"] = json!({"pid": std::process::id(), "name": "node-1"});
    end
}

/// The end that a packet was sent on to, by its Service.
pub fn by_service(mut end: Value, namespace: &str, name: &str, to: SocketAddr) -> Value {
    let (ip, port) = (to.ip(), to.port());
    end["service"] = json!({"namespace": namespace, "name": name, "ip": ip, "port": port});
    end["original"] = json!({"ip": ip, "port": port});
    end
}

/// A drop of a packet that came in there, and was to go out there.
pub fn through(mut drop: Value, input: Option<&str>, output: Option<&str>) -> Value {
    drop["input_interface"] = json!(input);
    drop["output_interface"] = json!(output);
    end(drop)
}

/// A host outside the cluster.
pub fn external(ip: IpAddr, port: Port) -> Value {
    end(json!({"ip": ip, "port": port.json(), "kind": "external"}))
}

/// A Service's virtual address, not yet translated.
pub fn service(namespace: &str, name: &str, ip: IpAddr, port: u16) -> Value {
    json!({
        "ip": ip,
        "port": port,
        "kind": "service",
        "service": {"namespace": namespace, "name": name, "ip": ip, "port": port},
    })
}

/// A port of an expected end.
#[derive(Clone, Copy, Debug)]
pub enum Port {
    /// The protocol has none.
    None,
    /// A sender's: checked to be an ephemeral one, then taken out.
    Ephemeral,
    /// A receiver's.
    Number(u16),
}

impl Port {
    /// A sender's.
    pub const fn sender(protocol: Protocol) -> Self {
        if protocol.has_ports() {
            Self::Ephemeral
        } else {
            Self::None
        }
    }

    /// A receiver's.
    pub const fn receiver(protocol: Protocol, number: u16) -> Self {
        if protocol.has_ports() {
            Self::Number(number)
        } else {
            Self::None
        }
    }

    fn json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Ephemeral => json!("ephemeral"),
            Self::Number(number) => json!(number),
        }
    }
}

/// ` on TCP 8200`, as hints have it; nothing for protocols without ports.
pub fn on(protocol: Protocol, number: u16) -> String {
    if protocol.has_ports() {
        format!(" on {protocol} {number}")
    } else {
        String::new()
    }
}

/// An address as the prefix that matches it alone.
pub fn alone(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

/// Fails with the paths at which events are not as wanted.
pub fn same(events: &[Value], wanted: &[Value]) -> Result<()> {
    let mut different = Vec::new();
    differences("", &json!(events), &json!(wanted), &mut different);
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

fn differences(path: &str, got: &Value, wanted: &Value, found: &mut Vec<String>) {
    let keys: BTreeSet<String> = match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            got.keys().chain(wanted.keys()).cloned().collect()
        }
        (Value::Array(got), Value::Array(wanted)) if got.len() == wanted.len() => {
            (0..got.len()).map(|at| at.to_string()).collect()
        }
        _ => {
            if got != wanted {
                found.push(format!("{path}: got {got}, wanted {wanted}"));
            }
            return;
        }
    };
    let absent = Value::Null;
    for key in keys {
        let part = |value: &Value| match value {
            Value::Array(list) => key.parse().ok().and_then(|at: usize| list.get(at)).cloned(),
            value => value.get(&key).cloned(),
        };
        let got = part(got).unwrap_or(absent.clone());
        let wanted = part(wanted).unwrap_or(absent.clone());
        differences(&format!("{path}/{key}"), &got, &wanted, found);
    }
}

/// Absent is not null.
fn end(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        let known: Map<_, _> = std::mem::take(object)
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        *object = known;
    }
    value
}
