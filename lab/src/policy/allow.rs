//! Resolved policies flattened into what passes each pod's door.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracer_policy::model::Protocol;

use super::pods::PodFacts;
use super::resolve::{Block, Peers, Port, PortNumber, Resolved, Rule};

/// Which side of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// One thing a pod may receive or send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allow {
    /// The pod, by its place in the list the policies were resolved against.
    pub(crate) pod: usize,
    pub(crate) direction: Direction,
    pub(crate) peer: IpNet,
    /// `None`: any, ports and all.
    pub(crate) protocol: Option<Protocol>,
    /// Destination ports, both ends included; `None`: any.
    pub(crate) ports: Option<(u16, u16)>,
}

/// Who is isolated, and what passes nevertheless.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AllowList {
    pub(crate) isolated: Vec<(usize, Direction)>,
    pub(crate) allows: Vec<Allow>,
}

impl AllowList {
    pub(crate) fn new(policies: &[Resolved], pods: &[PodFacts]) -> Self {
        let mut list = Self::default();
        for policy in policies {
            for (direction, rules) in [
                (Direction::Ingress, &policy.ingress),
                (Direction::Egress, &policy.egress),
            ] {
                let Some(rules) = rules else { continue };
                for &pod in &policy.pods {
                    if !list.isolated.contains(&(pod, direction)) {
                        list.isolated.push((pod, direction));
                    }
                    for rule in rules {
                        list.add(pod, direction, rule, pods);
                    }
                }
            }
        }
        list
    }

    fn add(&mut self, pod: usize, direction: Direction, rule: &Rule, pods: &[PodFacts]) {
        for (peer, peer_pod) in peers(rule.peers.as_ref(), pods) {
            // Ports are the destination's, and so are their names.
            let destination = match direction {
                Direction::Ingress => Some(pod),
                Direction::Egress => peer_pod,
            };
            let mut allow = |protocol, ports| {
                self.allows.push(Allow {
                    pod,
                    direction,
                    peer,
                    protocol,
                    ports,
                });
            };
            match &rule.ports {
                None => allow(None, None),
                Some(ports) => {
                    for port in ports {
                        for range in numbers(port, destination, pods) {
                            allow(Some(port.protocol), range);
                        }
                    }
                }
            }
        }
    }
}

/// Each peer as a prefix, with the pod it is where it is one.
fn peers(peers: Option<&Peers>, pods: &[PodFacts]) -> Vec<(IpNet, Option<usize>)> {
    let Some(peers) = peers else {
        let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        return all.map(|net| (net, None)).to_vec();
    };
    let pods = peers.pods.iter().flat_map(|&at| {
        pods[at]
            .ips
            .iter()
            .map(move |&ip| (IpNet::from(ip), Some(at)))
    });
    let blocks = peers
        .blocks
        .iter()
        .flat_map(|block| subtract(block).into_iter().map(|net| (net, None)));
    pods.chain(blocks).collect()
}

/// The numbers a port entry stands for at `destination`; a name nobody there has stands for none.
fn numbers(port: &Port, destination: Option<usize>, pods: &[PodFacts]) -> Vec<Option<(u16, u16)>> {
    match &port.number {
        PortNumber::Any => vec![None],
        PortNumber::Range(first, last) => vec![Some((*first, *last))],
        PortNumber::Named(name) => destination
            .into_iter()
            .flat_map(|at| &pods[at].ports)
            .filter(|(own, _, protocol)| own == name && *protocol == port.protocol)
            .map(|&(_, number, _)| Some((number, number)))
            .collect(),
    }
}

/// A block without its exceptions, as prefixes.
pub(super) fn subtract(block: &Block) -> Vec<IpNet> {
    let mut left = vec![block.cidr];
    for hole in &block.except {
        left = left
            .into_iter()
            .flat_map(|net| without(net, hole))
            .collect();
    }
    left
}

fn without(net: IpNet, hole: &IpNet) -> Vec<IpNet> {
    if hole.contains(&net) {
        return Vec::new();
    }
    if !net.contains(hole) {
        return vec![net];
    }
    // Halve until the hole is one of the halves.
    let halves = net.subnets(net.prefix_len() + 1);
    halves
        .into_iter()
        .flatten()
        .flat_map(|half| without(half, hole))
        .collect()
}

/// An address as IPv6, IPv4 mapped, and how many bits of prefix that adds.
pub(crate) fn mapped(net: &IpNet) -> ([u8; 16], u8) {
    match net.addr() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), 96 + net.prefix_len()),
        IpAddr::V6(ip) => (ip.octets(), net.prefix_len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policies;

    fn block(cidr: &str, except: &[&str]) -> Block {
        Block {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn exceptions_leave_exactly_the_rest() {
        let left = subtract(&block("10.0.0.0/30", &["10.0.0.1/32"]));
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        assert_eq!(left, ["10.0.0.0/32", "10.0.0.2/31"]);
        assert!(subtract(&block("10.0.0.0/30", &["10.0.0.0/8"])).is_empty());
        assert_eq!(subtract(&block("10.0.0.0/30", &["fd00::/8"])).len(), 1);
    }

    #[test]
    fn the_incident_allows_vault_to_vault_only() {
        let pods = PodFacts::planned();
        let policies = Policies::parse(crate::BROKEN_POLICY).unwrap();
        let list = AllowList::new(&policies.resolve(&pods).unwrap(), &pods);
        assert_eq!(list.isolated.len(), 4);
        let mut peers: Vec<_> = list
            .allows
            .iter()
            .map(|allow| allow.peer.to_string())
            .collect();
        peers.sort();
        peers.dedup();
        let vault = [
            "10.42.1.10/32",
            "10.42.1.11/32",
            "fd00:10:42:1::10/128",
            "fd00:10:42:1::11/128",
        ];
        assert_eq!(peers, vault);
        assert!(list.allows.iter().all(|allow| allow.protocol.is_none()));
    }

    #[test]
    fn a_name_is_looked_up_at_the_destination() {
        let pods = PodFacts::planned();
        let yaml = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: default}\n\
                    spec: {policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: dns, protocol: UDP}]}]}";
        let policies = Policies::parse(yaml).unwrap();
        let list = AllowList::new(&policies.resolve(&pods).unwrap(), &pods);
        assert_eq!(list.isolated, [(3, Direction::Egress)]);
        let peers: Vec<_> = list
            .allows
            .iter()
            .map(|allow| (allow.peer.addr(), allow.ports))
            .collect();
        let dns = pods[2].ips.iter().map(|&ip| (ip, Some((53, 53))));
        assert_eq!(peers, dns.collect::<Vec<_>>());
    }
}
