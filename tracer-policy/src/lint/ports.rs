//! Addresses and ports of Services in rules that are judged behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Finding, behind, presumed, rules};
use crate::cluster::{Cluster, PodEntry};
use crate::model::{NodeAddressKind, Protocol};
use crate::policy::{Direction, Peer, Policy, PortNumber, Rule};
use crate::service_range;

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
    let list = list_of(direction);
    for (index, peer) in rule.peers.iter().flatten().enumerate() {
        let Peer::Ip { cidr, .. } = peer else {
            continue;
        };
        let message = if cidr.prefix_len() == cidr.max_prefix_len() {
            service_at(cluster, cidr.addr())
        } else {
            services_in(cluster, cidr)
        };
        if let Some(message) = message {
            found.push(Finding {
                rule: &rules::SERVICE_IP,
                policy: policy.id.clone(),
                field: Some(format!("{}.{list}[{index}].ipBlock.cidr", rule.path)),
                pod: None,
                message,
                fix: rules::SERVICE_IP.fix.to_owned(),
            });
        }
    }
}

const fn list_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

fn service_at(cluster: &Cluster, ip: IpAddr) -> Option<String> {
    if cluster.node_at(ip).is_some() || cluster.pod_entry_at(ip).is_some() {
        return None;
    }
    let service = cluster.services_by_ip(ip).next()?;
    Some(format!(
        "{ip} is the virtual address of Service {}: packets are judged by the endpoint's address",
        service.id
    ))
}

/// How much wider than what is seen of the Services' range a range may be and mean no more than them, by the
/// usual ones: a /16, and a /108 of IPv6.
const SERVICE_RANGE: (u8, u8) = (16, 108);

/// A range that has Services' addresses in it, and nothing else the cluster knows.
fn services_in(cluster: &Cluster, cidr: &IpNet) -> Option<String> {
    let v4 = matches!(cidr, IpNet::V4(_));
    let seen = service_range::of(cluster, v4)?;
    let usual = if v4 { SERVICE_RANGE.0 } else { SERVICE_RANGE.1 };
    let within = seen.contains(cidr);
    let around = cidr.contains(&seen) && cidr.prefix_len() >= usual;
    if !(within || around) || service_range::holds_nodes_or_pods(cluster, cidr) {
        return None;
    }
    Some(format!(
        "{cidr} holds virtual addresses of Services ({seen} by those there are): packets are judged by the endpoint's \
         address"
    ))
}

/// Ranges with nodes in them, and nothing else the cluster knows.
fn node_ranges(
    cluster: &Cluster,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    found: &mut Vec<Finding>,
) {
    let list = list_of(direction);
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

/// A rule's port that a Service of its destinations has while none of them listens there, and a name that none
/// of them has.
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
        let (first, last) = match &port.number {
            PortNumber::Range(first, last) => (*first, *last),
            PortNumber::Any => continue,
            PortNumber::Named(name) => {
                let elsewhere = direction == Direction::Egress && !presumed::is_whole(cluster);
                if !elsewhere && !any_has(&destinations, name, port.protocol) {
                    found.push(Finding {
                        rule: &rules::NAMED_PORT,
                        policy: policy.id.clone(),
                        field: Some(format!("{}.ports[{index}].port", rule.path)),
                        pod: None,
                        message: format!(
                            "no pod that it lets traffic reach ({} of them) has a {} port named {name}",
                            destinations.len(),
                            port.protocol
                        ),
                        fix: rules::NAMED_PORT.fix.to_owned(),
                    });
                }
                continue;
            }
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

fn any_has(pods: &[&PodEntry], name: &str, protocol: Protocol) -> bool {
    let mut ports = pods.iter().flat_map(|entry| &entry.pod.ports);
    ports.any(|port| port.protocol == protocol && port.name.as_deref() == Some(name))
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
