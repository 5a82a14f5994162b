//! Cilium's own policies, where it knows the other end by what it is and by no address.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use super::draft::PortDraft;
use super::legs::Leg;
use super::render::comment;
use super::{Advice, Refusal};
use crate::cluster::Cluster;
use crate::flow::Flow;
use crate::model::Pod;
use crate::policy::Direction;
use crate::yaml;

/// A `CiliumNetworkPolicy` that lets nodes in, or the API server be reached, on the ports seen. No engine has judged
/// it: the kind is not read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiliumPolicy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The direction that it opens.
    pub direction: Direction,
    /// The flows it was made for.
    pub flows: Vec<Flow>,
    entities: &'static [&'static str],
    selector: Value,
    ports: BTreeSet<PortDraft>,
}

/// By whose name Cilium knows a node at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// Whatever a node's processes send.
    Any,
    /// To the API server.
    ApiServer,
    /// To another process of one node: only all of them together have a name.
    One,
}

/// Why there is no NetworkPolicy for a leg to or from a node, with Cilium's own in its place where there is one.
pub(super) fn refusal(
    cluster: &Cluster,
    leg: &Leg,
    selector: &LabelSelector,
    node: Node,
) -> Refusal {
    let (needed, entities): (_, Option<&'static [&'static str]>) = match node {
        Node::Any => (
            "fromEntities: [host, remote-node]",
            Some(&["host", "remote-node"]),
        ),
        Node::ApiServer => ("toEntities: [kube-apiserver]", Some(&["kube-apiserver"])),
        // More than was seen.
        Node::One => ("toEntities: [host, remote-node]", None),
    };
    let policy = entities.and_then(|entities| {
        let pod = cluster.pod_at(&leg.subject)?;
        isolates_nothing_anew(cluster, leg, selector).then(|| CiliumPolicy {
            namespace: pod.id.namespace.clone(),
            name: name(pod, leg.direction),
            direction: leg.direction,
            flows: vec![leg.flow.clone()],
            entities,
            selector: serde_json::to_value(selector).unwrap_or_default(),
            ports: BTreeSet::from([(leg.flow.protocol, leg.port)]),
        })
    });
    Refusal::CiliumEntity {
        needed,
        policy: policy.map(Box::new),
    }
}

/// Objects of this kind are not read, so that a name is only likely to be free.
fn name(pod: &Pod, direction: Direction) -> String {
    let base = pod.workload.as_ref().map_or(&pod.id.name, |w| &w.name);
    format!("{base}-allow-{}-entities", direction.as_str())
}

/// Whether each pod that the selector selects is isolated in that direction already: a `CiliumNetworkPolicy` isolates
/// as a NetworkPolicy does.
fn isolates_nothing_anew(cluster: &Cluster, leg: &Leg, selector: &LabelSelector) -> bool {
    let probe = NetworkPolicy {
        metadata: ObjectMeta {
            name: Some("probe".to_owned()),
            namespace: Some(leg.subject.namespace.clone()),
            ..Default::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector.clone()),
            ..Default::default()
        }),
    };
    let Ok(compiled) = cluster.compile(&probe) else {
        return false;
    };
    cluster
        .pods_in(&leg.subject.namespace)
        .filter(|pod| !pod.host_network && !pod.phase.finished())
        .filter(|pod| cluster.selects(&compiled, pod))
        .all(|pod| {
            let id = &pod.id;
            let mut isolating = cluster.isolating(&id.namespace, &id.name, leg.direction);
            isolating.next().is_some()
        })
}

impl Advice {
    /// What Cilium's own policies let through of the flows that no NetworkPolicy can: one object for each workload
    /// and direction.
    pub fn cilium_policies(&self) -> Vec<CiliumPolicy> {
        let mut found: BTreeMap<(String, Direction, String), CiliumPolicy> = BTreeMap::new();
        for (_, refusal) in &self.refusals {
            let Refusal::CiliumEntity {
                policy: Some(policy),
                ..
            } = refusal
            else {
                continue;
            };
            let key = (
                policy.namespace.clone(),
                policy.direction,
                yaml::flow(&policy.selector),
            );
            let known = found
                .entry(key)
                .or_insert_with(|| CiliumPolicy::clone(policy));
            known.ports.extend(&policy.ports);
            known.flows.extend(policy.flows.clone());
        }
        let mut policies: Vec<CiliumPolicy> = found.into_values().collect();
        let mut taken = BTreeSet::new();
        for policy in &mut policies {
            let base = policy.name.clone();
            let mut count = 1;
            while !taken.insert((policy.namespace.clone(), policy.name.clone())) {
                count += 1;
                policy.name = format!("{base}-{count}");
            }
            let mut seen = BTreeSet::new();
            policy.flows.retain(|flow| seen.insert(flow.to_string()));
        }
        policies
    }
}

impl CiliumPolicy {
    /// The object as one YAML document that ends in a newline, without a `---` line.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        for flow in &self.flows {
            comment(&mut out, "", &format!("Lets through: {flow}"));
        }
        let opens = match self.direction {
            Direction::Ingress => {
                "It lets every node's own processes in on these ports, kubelet probes among them, and nobody else."
            }
            Direction::Egress => {
                "It lets the API server be reached on these ports, on every node that runs one, and nobody else."
            }
        };
        for line in [
            "Not proven: a CiliumNetworkPolicy is not judged here. Cilium knows nodes by what they are and by no address \
             (policy-cidr-match-mode without nodes), so that no NetworkPolicy can name them.",
            opens,
            "Its pods are isolated in this direction already, by NetworkPolicies.",
            "Check that no CiliumNetworkPolicy of this name is there: applying this would replace it.",
        ] {
            comment(&mut out, "", line);
        }
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|(protocol, port)| {
                json!({"port": port.to_string(), "protocol": protocol.to_string()})
            })
            .collect();
        let peers = match self.direction {
            Direction::Ingress => "fromEntities",
            Direction::Egress => "toEntities",
        };
        let object = json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "endpointSelector": self.selector,
                self.direction.as_str(): [{peers: self.entities, "toPorts": [{"ports": ports}]}],
            },
        });
        for line in yaml::block(&object, "") {
            out.push_str(&line.text);
            out.push('\n');
        }
        out
    }
}
