//! Addresses and ports of Services in rules that are judged behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, behind, rules};
use crate::cluster::{Cluster, PodEntry};
use crate::model::{NodeAddressKind, Protocol};
use crate::policy::{Direction, Peer, Policy, PortNumber, Rule};

pub(super) fn check(cluster: &Cluster, policy: &Policy, found: &mut Vec<Finding>) {
    for direction in Direction::ALL {
        for rule in policy.rules(direction).unwrap_or_default() {
            service_addresses(cluster, policy, direction, rule, found);
            node_ranges(cluster, policy, direction, rule, found);
            service_ports(cluster, policy, direction, rule, found);
        }
    }
}

fn service_addresses(
    cluster: &Cluster,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    found: &mut Vec<Finding>,
) {
    if direction == Direction::Ingress {
        return;
    }
    for (index, peer) in rule.peers.iter().flatten().enumerate() {
        let Peer::Ip { cidr, .. } = peer else {
            continue;
        };
        if cidr.prefix_len() != cidr.max_prefix_len() {
            continue;
        }
        let ip = cidr.addr();
        if cluster.node_at(ip).is_some() || cluster.pod_entry_at(ip).is_some() {
            continue;
        }
        if let Some(service) = cluster.services_by_ip(ip).next() {
            found.push(Finding {
                rule: &rules::SERVICE_IP,
                policy: policy.id.clone(),
                field: Some(format!("{}.to[{index}].ipBlock.cidr", rule.path)),
                pod: None,
                message: format!(
                    "{ip} is the virtual address of Service {}: packets are judged by the endpoint's address",
                    service.id
                ),
                fix: rules::SERVICE_IP.fix.to_owned(),
            });
        }
    }
}

/// Ranges with nodes in them, and nothing else the cluster knows.
fn node_ranges(
    cluster: &Cluster,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    found: &mut Vec<Finding>,
) {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    for (index, peer) in rule.peers.iter().flatten().enumerate() {
        let Peer::Ip { cidr, .. } = peer else {
            continue;
        };
        // Everything is meant as everything.
        if cidr.prefix_len() == 0 || cidr.prefix_len() == cidr.max_prefix_len() {
            continue;
        }
        let nodes = cluster
            .nodes()
            .flat_map(|node| &node.addresses)
            .filter(|a| a.kind == NodeAddressKind::Internal && cidr.contains(&a.ip))
            .count();
        let has_pods = cluster
            .nodes()
            .flat_map(|node| &node.pod_cidrs)
            .any(|pods| pods.contains(&cidr.network()) || cidr.contains(&pods.network()));
        if nodes > 0 && !has_pods {
            found.push(Finding {
                rule: &rules::WIDE_NODE_RANGE,
                policy: policy.id.clone(),
                field: Some(format!("{}.{list}[{index}].ipBlock.cidr", rule.path)),
                pod: None,
                message: format!(
                    "{cidr} covers {nodes} node address(es), and everything else in that range"
                ),
                fix: rules::WIDE_NODE_RANGE.fix.to_owned(),
            });
        }
    }
}

/// A rule's port that a Service of its destinations has, while none of them listens there.
fn service_ports(
    cluster: &Cluster,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    found: &mut Vec<Finding>,
) {
    let destinations = destinations(cluster, policy, direction, rule);
    if destinations.is_empty() {
        return;
    }
    for (index, port) in rule.ports.iter().flatten().enumerate() {
        let PortNumber::Range(first, last) = port.number else {
            continue;
        };
        if first != last {
            continue;
        }
        let listens = destinations.iter().any(|entry| {
            let mut declared = entry.pod.ports.iter();
            declared.any(|p| p.port == first && p.protocol == port.protocol)
        });
        if listens {
            continue;
        }
        if let Some((service, targets)) = translated(cluster, &destinations, first, port.protocol) {
            found.push(Finding {
                rule: &rules::SERVICE_PORT,
                policy: policy.id.clone(),
                field: Some(format!("{}.ports[{index}].port", rule.path)),
                pod: None,
                message: format!(
                    "{first}/{} is the port of Service {service}, whose endpoints listen on {targets}",
                    port.protocol
                ),
                fix: format!("write port {targets}"),
            });
        }
    }
}

/// The Service with that port whose endpoints, among these pods, listen on other ones.
fn translated(
    cluster: &Cluster,
    pods: &[&PodEntry],
    port: u16,
    protocol: Protocol,
) -> Option<(String, String)> {
    let ips: BTreeSet<IpAddr> = pods.iter().flat_map(|e| e.pod.ips.clone()).collect();
    cluster.services().find_map(|service| {
        let service_port = service
            .ports
            .iter()
            .find(|p| p.port == port && p.protocol == protocol)?;
        let targets: BTreeSet<u16> = cluster
            .backends(&service.id, service_port)
            .into_iter()
            .filter(|(ip, _)| ips.contains(ip))
            .map(|(_, target)| target)
            .chain(pods.iter().filter_map(|entry| {
                behind::by_selector(cluster, service, service_port, &entry.pod)
            }))
            .collect();
        if targets.is_empty() || targets.contains(&port) {
            return None;
        }
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        Some((service.id.to_string(), targets.join(", ")))
    })
}

/// The pods a rule lets traffic reach: the selected ones on ingress, its peers on egress.
fn destinations<'a>(
    cluster: &'a Cluster,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
) -> Vec<&'a PodEntry> {
    let own = policy.id.namespace().unwrap_or_default();
    match direction {
        Direction::Ingress => cluster
            .pod_entries_in(own)
            .filter(|entry| policy.selector.matches(&entry.labels))
            .collect(),
        Direction::Egress => {
            let mut found = Vec::new();
            for peer in rule.peers.iter().flatten() {
                let Peer::Pods { namespaces, pods } = peer else {
                    continue;
                };
                for namespace in cluster.namespaces() {
                    let in_scope = match namespaces {
                        None => namespace == own,
                        Some(selector) => cluster
                            .namespace_entry(namespace)
                            .is_some_and(|entry| selector.matches(&entry.label_set)),
                    };
                    if in_scope {
                        let entries = cluster.pod_entries_in(namespace);
                        found.extend(entries.filter(|entry| pods.matches(&entry.labels)));
                    }
                }
            }
            found
        }
    }
}
