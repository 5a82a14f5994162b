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
            let slips = slips(cluster, own, peers);
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
                if let Some(slip) = slips.iter().find(|slip| slip.namespaces == index) {
                    let fix = rules::AND_OR_SLIP.fix.to_owned();
                    add(found, &rules::AND_OR_SLIP, slip.message(list), fix);
                }
                // The other half of a torn item was judged together with it.
                let torn = slips.iter().any(|slip| slip.pods == index);
                let matched = matching(cluster, own, namespaces.as_ref(), pods);
                match matched {
                    Matched::Pods => {}
                    Matched::HostNetworkOnly => {
                        let message = "every pod it matches is on the network of its node, where no selector matches it".to_owned();
                        let fix = rules::HOST_NETWORK.fix.to_owned();
                        add(found, &rules::HOST_NETWORK, message, fix);
                    }
                    Matched::Nothing if torn => {}
                    // Manifests of one application among others: its peers may be another's, and a namespace
                    // that is named may hold anything.
                    Matched::Nothing
                        if !presumed::is_whole(cluster)
                            && (namespaces.is_some()
                                || cluster.pods_in(own).next().is_none()
                                    && (pods.selects_all()
                                        || elsewhere(cluster, own, pods).is_none())) => {}
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

/// One item that looks torn in two, by the items' indices.
struct Slip {
    namespaces: usize,
    pods: usize,
    /// Pods of the own namespace match as well.
    also_here: bool,
}

impl Slip {
    fn message(&self, list: &str) -> String {
        let other = format!("{list}[{}]", self.pods);
        if self.also_here {
            format!(
                "this item allows every pod of the namespace, and the podSelector in {other}, which alone means the own \
                 namespace, matches pods in both: if pods there were meant, they belong in one item"
            )
        } else {
            format!(
                "this item allows every pod of the namespace, and the podSelector in {other}, which matches nothing in \
                 its own namespace, matches pods there: they were meant to be one item"
            )
        }
    }
}

/// A namespaceSelector alone and a podSelector alone in one rule, where the pods are in the selected namespace. Each
/// namespaceSelector goes with the nearest such podSelector.
fn slips(cluster: &Cluster, own: &str, peers: &[Peer]) -> Vec<Slip> {
    let alone = |peer: &Peer| match peer {
        Peer::Pods {
            namespaces: None,
            pods,
        } => Some(pods.clone()).filter(|pods| !pods.selects_all()),
        _ => None,
    };
    let mut found = Vec::new();
    for (namespaces, peer) in peers.iter().enumerate() {
        let Peer::Pods {
            namespaces: Some(selector),
            pods: all,
        } = peer
        else {
            continue;
        };
        if !all.selects_all() {
            continue;
        }
        let mut others: Vec<(usize, Selector)> = peers
            .iter()
            .enumerate()
            .filter_map(|(index, other)| Some((index, alone(other)?)))
            .collect();
        others.sort_by_key(|(index, _)| (index.abs_diff(namespaces), *index < namespaces));
        let torn = others.iter().find(|(_, pods)| {
            let there = matching(cluster, own, Some(selector), pods);
            matches!(there, Matched::Pods)
        });
        if let Some((index, pods)) = torn {
            let here = matching(cluster, own, None, pods);
            found.push(Slip {
                namespaces,
                pods: *index,
                also_here: matches!(here, Matched::Pods),
            });
        }
    }
    found
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
