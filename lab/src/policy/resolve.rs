//! Selectors applied: from a policy's words to pods, addresses and ports.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tracer_policy::model::Protocol;

use super::Policies;
use super::pods::PodFacts;

impl Policies {
    pub(crate) fn resolve(&self, pods: &[PodFacts]) -> Result<Vec<Resolved>> {
        self.0
            .iter()
            .map(|policy| Resolved::new(policy, pods))
            .collect()
    }
}

/// A policy with its selectors applied. Pods are indices into the list it was resolved against.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pods: Vec<usize>,
    /// `None` where the policy does not isolate in that direction.
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

/// One item of `ingress` or `egress`.
#[derive(Debug)]
pub(crate) struct Rule {
    /// `None`: anyone.
    pub(crate) peers: Option<Peers>,
    /// `None`: any port of any protocol.
    pub(crate) ports: Option<Vec<Port>>,
}

/// Peers of a rule.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) pods: Vec<usize>,
    pub(crate) blocks: Vec<Block>,
}

/// An `ipBlock`.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) cidr: IpNet,
    pub(crate) except: Vec<IpNet>,
}

/// A port of a rule.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) number: PortNumber,
}

/// Which numbers a port entry means.
#[derive(Debug)]
pub(crate) enum PortNumber {
    Any,
    Range(u16, u16),
    Named(String),
}

/// Peers and ports of a rule, whichever section it stands in.
type ApiRule<'a> = (
    Option<&'a [NetworkPolicyPeer]>,
    Option<&'a [NetworkPolicyPort]>,
);

impl Resolved {
    fn new(policy: &NetworkPolicy, pods: &[PodFacts]) -> Result<Self> {
        let name = policy.metadata.name.clone().unwrap_or_default();
        let namespace = policy
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let empty = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&empty);
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let declared = |direction: &str| types.iter().any(|kind| kind == direction);
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());

        let rules = |list: Vec<ApiRule<'_>>| {
            list.into_iter()
                .map(|(peers, ports)| {
                    let peers = peers
                        .filter(|list| !list.is_empty())
                        .map(|list| resolve_peers(list, &namespace, pods));
                    let ports = ports
                        .filter(|list| !list.is_empty())
                        .map(|list| list.iter().map(resolve_port).collect::<Result<_>>());
                    Ok(Rule {
                        peers: peers.transpose()?,
                        ports: ports.transpose()?,
                    })
                })
                .collect::<Result<Vec<_>>>()
                .with_context(|| format!("policy {namespace}/{name}"))
        };
        let ingress = (types.is_empty() || declared("Ingress")).then(|| {
            let list = spec.ingress.iter().flatten();
            rules(
                list.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()))
                    .collect(),
            )
        });
        let egress = (declared("Egress") || types.is_empty() && has_egress).then(|| {
            let list = spec.egress.iter().flatten();
            rules(
                list.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()))
                    .collect(),
            )
        });
        let (ingress, egress) = (ingress.transpose()?, egress.transpose()?);
        let selector = spec.pod_selector.clone().unwrap_or_default();
        let selected = select(pods, |pod| {
            Ok(pod.namespace == namespace && matches(&selector, &pod.labels)?)
        })
        .with_context(|| format!("policy {namespace}/{name}: spec.podSelector"))?;
        Ok(Self {
            ingress,
            egress,
            pods: selected,
            namespace,
            name,
        })
    }
}

fn resolve_peers(list: &[NetworkPolicyPeer], own: &str, pods: &[PodFacts]) -> Result<Peers> {
    let mut peers = Peers::default();
    for peer in list {
        if let Some(block) = &peer.ip_block {
            let parse = |cidr: &String| {
                cidr.parse::<IpNet>()
                    .with_context(|| format!("ipBlock: `{cidr}` is not a CIDR"))
            };
            peers.blocks.push(Block {
                cidr: parse(&block.cidr)?.trunc(),
                except: block
                    .except
                    .iter()
                    .flatten()
                    .map(parse)
                    .collect::<Result<_>>()?,
            });
            continue;
        }
        let found = select(pods, |pod| {
            let in_namespace = match &peer.namespace_selector {
                None => pod.namespace == own,
                Some(selector) => {
                    let name = (
                        "kubernetes.io/metadata.name".to_owned(),
                        pod.namespace.clone(),
                    );
                    matches(selector, &BTreeMap::from([name]))?
                }
            };
            let by_label = match &peer.pod_selector {
                None => true,
                Some(selector) => matches(selector, &pod.labels)?,
            };
            Ok(in_namespace && by_label)
        })?;
        peers.pods.extend(found);
    }
    peers.pods.sort_unstable();
    peers.pods.dedup();
    Ok(peers)
}

fn resolve_port(port: &NetworkPolicyPort) -> Result<Port> {
    let name = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = Protocol::from_name(name)
        .filter(|protocol| protocol.has_ports())
        .with_context(|| format!("ports: protocol `{name}` is none of TCP, UDP, SCTP"))?;
    let number = |value: i32| u16::try_from(value).with_context(|| format!("port {value}"));
    let number = match (&port.port, port.end_port) {
        (None, _) => PortNumber::Any,
        (Some(IntOrString::Int(first)), None) => {
            PortNumber::Range(number(*first)?, number(*first)?)
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            PortNumber::Range(number(*first)?, number(last)?)
        }
        (Some(IntOrString::String(name)), _) => PortNumber::Named(name.clone()),
    };
    Ok(Port { protocol, number })
}

fn select(
    pods: &[PodFacts],
    mut wanted: impl FnMut(&PodFacts) -> Result<bool>,
) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (at, pod) in pods.iter().enumerate() {
        if wanted(pod)? {
            found.push(at);
        }
    }
    Ok(found)
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool> {
    let by_label = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let mut all = by_label;
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let listed =
            || value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value));
        all &= match expression.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => bail!("matchExpressions: unknown operator `{other}`"),
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_the_incident() {
        let pods = PodFacts::planned();
        let resolved = Policies::parse(crate::BROKEN_POLICY)
            .unwrap()
            .resolve(&pods)
            .unwrap();
        assert_eq!(resolved[0].pods, [0, 1]);
        let ingress = resolved[0].ingress.as_ref().unwrap();
        assert_eq!(ingress[0].peers.as_ref().unwrap().pods, [0, 1]);
        assert!(ingress[0].ports.is_none());
        assert_eq!(resolved[0].egress.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn names_what_is_wrong() {
        let wrong = |yaml: &str| {
            let policies = Policies::parse(yaml);
            let error = policies
                .and_then(|p| p.resolve(&PodFacts::planned()))
                .unwrap_err();
            format!("{error:#}")
        };
        assert_eq!(
            wrong("kind: Pod"),
            "document 1: expected kind NetworkPolicy, found `Pod`"
        );
        let cidr = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: ns}\n\
                    spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: ten}}]}]}";
        let error = wrong(cidr);
        assert!(
            error.starts_with("policy ns/p: ipBlock: `ten` is not a CIDR"),
            "{error}"
        );
    }
}
