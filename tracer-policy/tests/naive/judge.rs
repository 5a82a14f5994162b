//! A second evaluator, written from the API's own text alone and as plainly as it reads: nothing is
//! compiled, indexed or remembered. It works on API objects and knows pods and addresses only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tracer_policy::model::{Namespace, Pod, Protocol};
use tracer_policy::{End, Flow};

/// A small cluster as plain lists.
#[derive(Clone, Debug)]
pub struct World {
    pub namespaces: Vec<Namespace>,
    pub pods: Vec<Pod>,
    pub policies: Vec<NetworkPolicy>,
}

pub enum Side<'a> {
    Pod(&'a Pod),
    Outside(IpAddr),
}

impl World {
    pub fn side(&self, end: &End) -> Side<'_> {
        match end {
            End::Pod(id) => Side::Pod(self.pods.iter().find(|p| p.id == *id).unwrap()),
            End::Ip(ip) => match self.pods.iter().find(|p| p.ips.contains(ip)) {
                Some(pod) => Side::Pod(pod),
                None => Side::Outside(*ip),
            },
        }
    }

    /// "In order for a connection from a source pod to a destination pod to be allowed, both the egress
    /// policy on the source pod and the ingress policy on the destination pod need to allow it."
    pub fn allows(&self, flow: &Flow) -> bool {
        let (from, to) = (self.side(&flow.from), self.side(&flow.to));
        if let (Side::Pod(a), Side::Pod(b)) = (&from, &to)
            && a.id == b.id
        {
            return true; // "a Pod cannot block access to itself"
        }
        self.direction_allows("Egress", &from, &to, &to, flow)
            && self.direction_allows("Ingress", &to, &from, &to, flow)
    }

    pub fn direction_allows(
        &self,
        policy_type: &str,
        subject: &Side<'_>,
        other: &Side<'_>,
        destination: &Side<'_>,
        flow: &Flow,
    ) -> bool {
        let Side::Pod(pod) = subject else {
            return true;
        };
        let isolating = self.isolating(policy_type, pod);
        if isolating.is_empty() {
            return true;
        }
        isolating.iter().any(|policy| {
            let spec = policy.spec.as_ref().unwrap();
            let rules: Vec<(_, _)> = if policy_type == "Ingress" {
                let rules = spec.ingress.clone().unwrap_or_default();
                rules.into_iter().map(|r| (r.from, r.ports)).collect()
            } else {
                let rules = spec.egress.clone().unwrap_or_default();
                rules.into_iter().map(|r| (r.to, r.ports)).collect()
            };
            rules.iter().any(|(peers, ports)| {
                self.peers_match(peers.as_deref(), &pod.id.namespace, other)
                    && ports_match(ports.as_deref(), destination, flow)
            })
        })
    }

    fn isolating(&self, policy_type: &str, pod: &Pod) -> Vec<&NetworkPolicy> {
        self.policies
            .iter()
            .filter(|p| p.metadata.namespace.as_deref() == Some(&pod.id.namespace))
            .filter(|p| {
                let spec = p.spec.as_ref().unwrap();
                spec.pod_selector
                    .as_ref()
                    .is_none_or(|s| selects(s, &pod.labels))
            })
            .filter(|p| types(p).iter().any(|t| t == policy_type))
            .collect()
    }

    pub fn is_isolated(&self, policy_type: &str, pod: &Pod) -> bool {
        !self.isolating(policy_type, pod).is_empty()
    }

    /// "If this field is empty or missing, this rule matches all sources."
    fn peers_match(
        &self,
        peers: Option<&[NetworkPolicyPeer]>,
        own_namespace: &str,
        other: &Side<'_>,
    ) -> bool {
        let peers = peers.unwrap_or_default();
        peers.is_empty()
            || peers
                .iter()
                .any(|p| self.peer_matches(p, own_namespace, other))
    }

    fn peer_matches(&self, peer: &NetworkPolicyPeer, own: &str, other: &Side<'_>) -> bool {
        if let Some(block) = &peer.ip_block {
            return match other {
                Side::Outside(ip) => block_contains(block, *ip),
                Side::Pod(pod) => block_contains(block, pod.ips[0]),
            };
        }
        let Side::Pod(pod) = other else {
            return false;
        };
        let namespace_matches = match &peer.namespace_selector {
            None => pod.id.namespace == own,
            Some(selector) => {
                let namespace = self.namespaces.iter().find(|n| n.name == pod.id.namespace);
                selects(selector, &namespace.unwrap().labels)
            }
        };
        let pod_matches = peer
            .pod_selector
            .as_ref()
            .is_none_or(|s| selects(s, &pod.labels));
        namespace_matches && pod_matches
    }
}

/// "If no policyTypes are specified ... this will default to Ingress; and Egress if it contains an egress
/// section."
fn types(policy: &NetworkPolicy) -> Vec<String> {
    let spec = policy.spec.as_ref().unwrap();
    if let Some(types) = &spec.policy_types
        && !types.is_empty()
    {
        return types.clone();
    }
    let mut types = vec!["Ingress".to_owned()];
    if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
        types.push("Egress".to_owned());
    }
    types
}

pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    for (key, value) in selector.match_labels.iter().flatten() {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let listed = |value: &String| expression.values.iter().flatten().any(|v| v == value);
        let holds = match expression.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("operator {other}"),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// Bit by bit, so as to share nothing with the engine.
pub fn in_cidr(cidr: &str, ip: IpAddr) -> bool {
    let (address, length) = cidr.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (address.parse().unwrap(), ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            (0..length).all(|bit| (net.to_bits() ^ ip.to_bits()) >> (31 - bit) & 1 == 0)
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            (0..length).all(|bit| (net.to_bits() ^ ip.to_bits()) >> (127 - bit) & 1 == 0)
        }
        _ => false,
    }
}

fn block_contains(block: &IPBlock, ip: IpAddr) -> bool {
    in_cidr(&block.cidr, ip) && !block.except.iter().flatten().any(|e| in_cidr(e, ip))
}

/// "If this field is empty or missing, this rule matches all ports."
fn ports_match(ports: Option<&[NetworkPolicyPort]>, destination: &Side<'_>, flow: &Flow) -> bool {
    let ports = ports.unwrap_or_default();
    ports.is_empty()
        || ports
            .iter()
            .any(|port| port_matches(port, destination, flow))
}

fn port_matches(port: &NetworkPolicyPort, destination: &Side<'_>, flow: &Flow) -> bool {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    if Protocol::from_name(protocol) != Some(flow.protocol) {
        return false;
    }
    let number = i32::from(flow.port.unwrap());
    match &port.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            number >= *first && number <= port.end_port.unwrap_or(*first)
        }
        Some(IntOrString::String(name)) => match destination {
            Side::Outside(_) => false,
            Side::Pod(pod) => pod.ports.iter().any(|declared| {
                declared.name.as_deref() == Some(name)
                    && declared.protocol == flow.protocol
                    && i32::from(declared.port) == number
            }),
        },
    }
}
