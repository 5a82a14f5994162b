//! Policies whose pods are not among the objects: what the pods would lack is told of one that bears the
//! labels that are asked for.

use std::collections::BTreeSet;

use super::reach::Reach;
use super::{Finding, Rule, presumed, rules};
use crate::cluster::Cluster;
use crate::model::{Labels, ObjectRef, Pod, Protocol};
use crate::policy::{Direction, Peer, Policy};

/// In manifests only: a cluster's policy without pods has nobody to harm.
pub(super) fn check(cluster: &Cluster, dns_pod: Option<&ObjectRef>, found: &mut Vec<Finding>) {
    // What is asked ahead of NetworkPolicies may say anything of pods that are not known.
    if presumed::is_whole(cluster) || cluster.ordered_policies().next().is_some() {
        return;
    }
    let lonely: Vec<&Policy> = cluster
        .policies()
        .filter(|policy| policy.broken.is_none() && selects_nobody(cluster, policy))
        .collect();
    if lonely.is_empty() {
        return;
    }
    let mut populated = cluster.clone();
    for policy in &lonely {
        populated.apply_pod(pod_of(policy));
    }
    // Labels of policies that were judged: those that select the same are judged together.
    let mut told: BTreeSet<(&str, String, Labels)> = BTreeSet::new();
    let mut nothing = Vec::new();
    let reach = Reach::new(&populated, dns_pod, &mut nothing);
    for policy in lonely {
        let pod = pod_of(policy);
        let Some(pod) = populated
            .pod_at(&pod.id)
            .filter(|pod| populated.selects(policy, pod))
        else {
            continue;
        };
        let mut tell = |rule: &'static Rule, message: String| {
            let labels = pod.labels.clone();
            if told.insert((rule.id, pod.id.namespace.clone(), labels)) {
                found.push(Finding {
                    rule,
                    policy: policy.id.clone(),
                    field: None,
                    pod: None,
                    message,
                    fix: rule.fix.to_owned(),
                });
            }
        };
        // Without any rule it is a default deny, and others are to open it.
        let opens = |direction| {
            policy
                .rules(direction)
                .is_some_and(|rules| !rules.is_empty())
        };
        if opens(Direction::Egress) {
            if let Some((_, at)) = reach.dns_over(pod, Protocol::Udp) {
                let message = format!(
                    "the pods that it selects, none of which is here, cannot reach the cluster's DNS {at}"
                );
                tell(&rules::DNS_UNMENTIONED, message);
            }
            if reach.presumed_api_server(pod).is_some() {
                let message = "the pods that it selects, none of which is here, cannot reach the API server: no rule has an ipBlock on port 6443 or 443";
                tell(&rules::API_SERVER_UNMENTIONED, message.to_owned());
            }
        }
        if opens(Direction::Ingress) && names_pods_only(&populated, pod) {
            let message = "the pods that it selects, none of which is here, let in pods only: no address of a node can match";
            tell(&rules::NODES_UNMENTIONED, message.to_owned());
        }
    }
}

fn selects_nobody(cluster: &Cluster, policy: &Policy) -> bool {
    let namespace = policy.id.namespace().unwrap_or_default();
    let mut pods = cluster.pod_entries_in(namespace);
    !pods.any(|entry| policy.selector.matches(&entry.labels))
}

/// Whether every rule that lets anything in to the pod names its peers by their labels.
fn names_pods_only(cluster: &Cluster, pod: &Pod) -> bool {
    let ids = cluster.isolating(&pod.id.namespace, &pod.id.name, Direction::Ingress);
    ids.filter_map(|id| cluster.policy(id.namespace()?, id.name()))
        .flat_map(|policy| policy.rules(Direction::Ingress).unwrap_or_default())
        .all(|rule| {
            let peers = rule.peers.as_deref();
            peers.is_some_and(|peers| peers.iter().all(|peer| matches!(peer, Peer::Pods { .. })))
        })
}

/// A pod as the policy selects them, as far as its selector says what they bear. No object can have its name.
fn pod_of(policy: &Policy) -> Pod {
    let selector = policy.spec().pod_selector.clone().unwrap_or_default();
    let mut labels: Labels = selector.match_labels.unwrap_or_default();
    for expression in selector.match_expressions.into_iter().flatten() {
        let value = match expression.operator.as_str() {
            "In" => expression.values.into_iter().flatten().next(),
            "Exists" => Some(String::new()),
            _ => None,
        };
        if let Some(value) = value {
            labels.entry(expression.key).or_insert(value);
        }
    }
    Pod {
        labels,
        ..Pod::named(ObjectRef::new(
            policy.id.namespace().unwrap_or_default(),
            format!("of policy {}", policy.id.name()),
        ))
    }
}
