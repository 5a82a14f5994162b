//! Peers that do not match what they seem to mean.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::{Finding, Rule, presumed, rules};
use crate::cluster::{Cluster, PodEntry};
use crate::policy::{Direction, Peer, Policy};
use crate::selector::Selector;
use crate::yaml;

pub(super) fn check(cluster: &Cluster, policy: &Policy, found: &mut Vec<Finding>) {
    let own = policy.id.namespace().unwrap_or_default();
    let selected: Vec<&PodEntry> = cluster
        .pod_entries_in(own)
        .filter(|entry| policy.selector.matches(&entry.labels))
        .collect();
    if let Some(first) = selected.first()
        && selected.iter().all(|entry| entry.pod.host_network)
    {
        found.push(Finding {
            rule: &rules::HOST_NETWORK,
            policy: policy.id.clone(),
            field: Some("spec.podSelector".to_owned()),
            pod: Some(first.pod.id.clone()),
            message: format!(
                "it selects {} pod(s), all on the network of their node: it isolates nothing",
                selected.len()
            ),
            fix: rules::HOST_NETWORK.fix.to_owned(),
        });
    }
    for direction in Direction::ALL {
        for rule in policy.rules(direction).unwrap_or_default() {
            let list = match direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            let peers = rule.peers.as_deref().unwrap_or_default();
            for (index, peer) in peers.iter().enumerate() {
                let add = |found: &mut Vec<Finding>, rule_kind: &'static Rule, message, fix| {
                    found.push(Finding {
                        rule: rule_kind,
                        policy: policy.id.clone(),
                        field: Some(format!("{}.{list}[{index}]", rule.path)),
                        pod: None,
                        message,
                        fix,
                    });
                };
                let Peer::Pods { namespaces, pods } = peer else {
                    continue;
                };
                if let Some(next) = peers.get(index + 1)
                    && let Some(message) = slipped(cluster, own, peer, next)
                {
                    let fix = rules::AND_OR_SLIP.fix.to_owned();
                    add(found, &rules::AND_OR_SLIP, message, fix);
                }
                // A peer after a namespaceSelector alone was judged together with it.
                let after_slip =
                    index > 0 && slipped(cluster, own, &peers[index - 1], peer).is_some();
                let matched = matching(cluster, own, namespaces.as_ref(), pods);
                match matched {
                    Matched::Pods => {}
                    Matched::HostNetworkOnly => {
                        let message = "every pod it matches is on the network of its node, where no selector matches it".to_owned();
                        let fix = rules::HOST_NETWORK.fix.to_owned();
                        add(found, &rules::HOST_NETWORK, message, fix);
                    }
                    Matched::Nothing if after_slip => {}
                    // Manifests of one application among others: its peers may be another's, and a namespace
                    // that is named may hold anything.
                    Matched::Nothing
                        if !presumed::is_whole(cluster)
                            && (namespaces.is_some()
                                || cluster.pods_in(own).next().is_none()
                                    && elsewhere(cluster, own, pods).is_none()) => {}
                    Matched::Nothing => {
                        let elsewhere = if namespaces.is_none() && !pods.selects_all() {
                            elsewhere(cluster, own, pods)
                        } else {
                            None
                        };
                        if let Some(namespace) = elsewhere {
                            let message = format!(
                                "its podSelector matches no pod in namespace {own}, but pods in namespace {namespace}: alone it looks in its own namespace only"
                            );
                            let selector = serde_json::json!({
                                "matchLabels": {"kubernetes.io/metadata.name": namespace}
                            });
                            let fix = format!(
                                "add `namespaceSelector: {}` to the same item",
                                yaml::flow(&selector)
                            );
                            add(found, &rules::PEER_OTHER_NAMESPACE, message, fix);
                        } else {
                            let text = api_peer(policy, direction, &rule.path, index)
                                .map_or_else(String::new, |peer| yaml::flow(&peer));
                            let message = format!("no pod matches {text}");
                            let fix = rules::PEER_MATCHES_NOTHING.fix.to_owned();
                            add(found, &rules::PEER_MATCHES_NOTHING, message, fix);
                        }
                    }
                }
            }
        }
    }
}

enum Matched {
    Nothing,
    HostNetworkOnly,
    Pods,
}

fn matching(
    cluster: &Cluster,
    own: &str,
    namespaces: Option<&Selector>,
    pods: &Selector,
) -> Matched {
    let mut matched = Matched::Nothing;
    for namespace in cluster.namespaces() {
        let in_scope = match namespaces {
            None => namespace == own,
            Some(selector) => cluster
                .namespace_entry(namespace)
                .is_some_and(|entry| selector.matches(&entry.label_set)),
        };
        if !in_scope {
            continue;
        }
        for entry in cluster.pod_entries_in(namespace) {
            if pods.matches(&entry.labels) {
                if !entry.pod.host_network {
                    return Matched::Pods;
                }
                matched = Matched::HostNetworkOnly;
            }
        }
    }
    matched
}

/// The first other namespace, by name, with pods that `pods` matches.
fn elsewhere(cluster: &Cluster, own: &str, pods: &Selector) -> Option<String> {
    cluster
        .namespaces()
        .filter(|namespace| *namespace != own)
        .filter(|namespace| {
            cluster
                .pod_entries_in(namespace)
                .any(|entry| pods.matches(&entry.labels))
        })
        .min()
        .map(str::to_owned)
}

/// Whether `peer`, a namespaceSelector alone, and `next`, a podSelector alone, look like one item torn in
/// two: the pods are nowhere in the own namespace but in the selected one.
fn slipped(cluster: &Cluster, own: &str, peer: &Peer, next: &Peer) -> Option<String> {
    let (
        Peer::Pods {
            namespaces: Some(namespaces),
            pods: all,
        },
        Peer::Pods {
            namespaces: None,
            pods,
        },
    ) = (peer, next)
    else {
        return None;
    };
    if !all.selects_all() || pods.selects_all() {
        return None;
    }
    let there = matches!(
        matching(cluster, own, Some(namespaces), pods),
        Matched::Pods
    );
    let here = matches!(matching(cluster, own, None, pods), Matched::Pods);
    (there && !here).then(|| {
        "this item allows every pod of the namespace, and the podSelector in the next item, which matches nothing in its own namespace, matches pods there: they were meant to be one item".to_owned()
    })
}

/// The peer as the API has it.
fn api_peer(
    policy: &Policy,
    direction: Direction,
    path: &str,
    index: usize,
) -> Option<NetworkPolicyPeer> {
    let rule: usize = path.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
    let spec = policy.spec();
    let peers = match direction {
        Direction::Ingress => &spec.ingress.as_ref()?.get(rule)?.from,
        Direction::Egress => &spec.egress.as_ref()?.get(rule)?.to,
    };
    peers.as_ref()?.get(index).cloned()
}
