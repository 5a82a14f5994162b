//! Calico's NetworkPolicy and GlobalNetworkPolicy, as `projectcalico.org/v3` or `crd.projectcalico.org/v1` have
//! them. A field that is not here is an error, never passed over.
//!
//! <https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy>

mod read;
mod selector;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{OrderedPolicy, Tier};
use crate::cluster::Cluster;
use crate::evaluate::{Pair, Party, Who};
use crate::model::{Labels, Protocol};
use crate::policy::{CompileError, PolicyKind, PortNumber, Problem};

pub(super) use read::{broken, plain_name, read};
use selector::Selector;

/// Whom a policy is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// Of a policy that is in one.
    pub(super) namespace: Option<String>,
    pub(super) namespaces: Option<Selector>,
    pub(super) pods: Selector,
}

impl Subject {
    pub(super) fn is(&self, who: &Who<'_>) -> bool {
        let Who::Pod { entry, namespace } = who else {
            return false;
        };
        let name = &entry.pod.id.namespace;
        self.namespace.as_ref().is_none_or(|own| own == name)
            && self
                .namespaces
                .as_ref()
                .is_none_or(|selector| selects_namespace(selector, name, namespace.labels()))
            && selects_pod(&self.pods, &entry.pod.labels, name, namespace.labels())
    }
}

/// What a rule asks of a flow: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Criteria {
    v6: Option<bool>,
    protocol: Option<Protocol>,
    not_protocol: Option<Protocol>,
    /// ICMP messages of this kind.
    icmp: Option<IcmpKind>,
    not_icmp: Option<IcmpKind>,
    source: Entity,
    destination: Entity,
}

/// A kind of ICMP messages: any type or code where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
struct IcmpKind {
    kind: Option<u8>,
    code: Option<u8>,
}

impl IcmpKind {
    fn is(self, pair: &Pair<'_>) -> Holds {
        if !matches!(pair.protocol, Protocol::Icmp | Protocol::Icmpv6) {
            return Some(false);
        }
        all([
            self.kind
                .map_or(Some(true), |own| Some(pair.icmp?.kind == own)),
            self.code
                .map_or(Some(true), |own| Some(pair.icmp?.code? == own)),
        ])
    }
}

/// What a rule asks of one end.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entity {
    nets: Option<Box<[IpNet]>>,
    not_nets: Box<[IpNet]>,
    selector: Option<Selector>,
    not_selector: Option<Selector>,
    /// The namespaces that the selector looks at.
    scope: Scope,
    ports: Option<Box<[PortNumber]>>,
    not_ports: Box<[PortNumber]>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Scope {
    /// All, and what is in none.
    #[default]
    Everything,
    /// This one: a namespaced policy's own.
    Namespace(String),
    Namespaces(Selector),
    /// What is in no namespace.
    Global,
}

/// Whether something holds; `None` where the flow does not say.
type Holds = Option<bool>;

impl Criteria {
    pub(super) fn hold(&self, cluster: &Cluster, pair: &Pair<'_>) -> Holds {
        if matches!(pair.from.who, Who::Untold) || matches!(pair.to.who, Who::Untold) {
            return None;
        }
        let is_v6 = pair.from_ip.or(pair.to_ip).map(|ip| ip.is_ipv6());
        let is_icmp = matches!(pair.protocol, Protocol::Icmp | Protocol::Icmpv6);
        all([
            self.v6.map_or(Some(true), |wanted| Some(is_v6? == wanted)),
            Some(self.protocol.is_none_or(|own| own == pair.protocol)),
            Some(self.not_protocol.is_none_or(|own| own != pair.protocol)),
            self.icmp.map_or(Some(true), |own| own.is(pair)),
            // It is about ICMP all the same.
            self.not_icmp.map_or(Some(true), |own| {
                if is_icmp {
                    own.is(pair).map(|is| !is)
                } else {
                    Some(false)
                }
            }),
            self.source.holds(cluster, pair.from, pair.from_ip),
            self.destination.holds(cluster, pair.to, pair.to_ip),
            // A flow has no source port of its own: clients take any.
            if self.source.ports.is_some() || !self.source.not_ports.is_empty() {
                None
            } else {
                Some(true)
            },
            self.destination.ports_hold(pair),
        ])
    }
}

/// False where one is, else open where one is.
fn all<const N: usize>(parts: [Holds; N]) -> Holds {
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

impl Entity {
    fn holds(&self, cluster: &Cluster, party: &Party<'_>, ip: Option<IpAddr>) -> Holds {
        let within = |nets: &[IpNet]| ip.map(|ip| nets.iter().any(|net| net.contains(&ip)));
        all([
            self.nets.as_deref().map_or(Some(true), within),
            if self.not_nets.is_empty() {
                Some(true)
            } else {
                within(&self.not_nets).map(|inside| !inside)
            },
            match (&self.selector, &self.scope) {
                (None, Scope::Everything | Scope::Namespace(_)) => Some(true),
                (selector, scope) => Some(selects(selector.as_ref(), scope, cluster, party, ip)),
            },
            self.not_selector.as_ref().map_or(Some(true), |selector| {
                Some(!selects(
                    Some(selector),
                    &Scope::Everything,
                    cluster,
                    party,
                    ip,
                ))
            }),
        ])
    }

    fn ports_hold(&self, pair: &Pair<'_>) -> Holds {
        if self.ports.is_none() && self.not_ports.is_empty() {
            return Some(true);
        }
        if !pair.protocol.has_ports() {
            return Some(self.ports.is_none());
        }
        let port = pair.port?;
        let is = |wanted: &PortNumber| match wanted {
            PortNumber::Any => true,
            PortNumber::Range(first, last) => (*first..=*last).contains(&port),
            PortNumber::Named(name) => match &pair.to.who {
                Who::Pod { entry, .. } => entry.pod.ports.iter().any(|own| {
                    own.port == port
                        && own.protocol == pair.protocol
                        && own.name.as_deref() == Some(name)
                }),
                Who::Node(_) | Who::External | Who::Untold => false,
            },
        };
        let wanted = self.ports.as_ref().is_none_or(|ports| ports.iter().any(is));
        Some(wanted && !self.not_ports.iter().any(is))
    }
}

/// Whether a selector, in its scope, is about an end: a pod, or an address of a set of networks.
fn selects(
    selector: Option<&Selector>,
    scope: &Scope,
    cluster: &Cluster,
    party: &Party<'_>,
    ip: Option<IpAddr>,
) -> bool {
    if let Who::Pod { entry, namespace } = &party.who {
        let name = &entry.pod.id.namespace;
        let in_scope = match scope {
            Scope::Everything => true,
            Scope::Namespace(own) => own == name,
            Scope::Namespaces(selector) => selects_namespace(selector, name, namespace.labels()),
            Scope::Global => false,
        };
        let selected = selector.is_none_or(|selector| {
            selects_pod(selector, &entry.pod.labels, name, namespace.labels())
        });
        if in_scope && selected {
            return true;
        }
    }
    let Some(ip) = ip else { return false };
    cluster.network_sets().iter().any(|set| {
        let in_scope = match (scope, &set.namespace) {
            (Scope::Everything, _) | (Scope::Global, None) => true,
            (Scope::Namespace(own), Some(name)) => own == name,
            (Scope::Namespaces(selector), Some(name)) => cluster
                .namespace_labels(name)
                .is_some_and(|labels| selects_namespace(selector, name, labels)),
            (Scope::Namespace(_) | Scope::Namespaces(_), None) | (Scope::Global, Some(_)) => false,
        };
        in_scope
            && set.nets.iter().any(|net| net.contains(&ip))
            && selector.is_none_or(|selector| {
                selector.matches(&|key| set.labels.get(key).map(String::as_str))
            })
    })
}

/// Pods have the labels Calico adds, and their namespace's with a prefix.
/// <https://docs.tigera.io/calico/latest/network-policy/policy-rules/namespace-policy>
fn selects_pod(
    selector: &Selector,
    labels: &Labels,
    namespace: &str,
    of_namespace: &Labels,
) -> bool {
    selector.matches(&|key| match key {
        "projectcalico.org/namespace" => Some(namespace),
        "projectcalico.org/orchestrator" => Some("k8s"),
        _ => labels
            .get(key)
            .or_else(|| of_namespace.get(key.strip_prefix("pcns.")?))
            .map(String::as_str),
    })
}

fn selects_namespace(selector: &Selector, name: &str, labels: &Labels) -> bool {
    selector.matches(&|key| match key {
        "projectcalico.org/name" => Some(name),
        _ => labels.get(key).map(String::as_str),
    })
}

/// A GlobalNetworkSet or NetworkSet: addresses with labels.
#[derive(Clone, Debug)]
pub(crate) struct NetworkSet {
    namespace: Option<String>,
    name: String,
    labels: Labels,
    nets: Box<[IpNet]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TierSpec {
    order: Option<f64>,
    default_action: Option<String>,
}

impl Cluster {
    /// Adds or replaces a Calico Tier, as JSON.
    ///
    /// # Errors
    ///
    /// Where it says something that is not known here; it then counts as the last tier.
    pub fn apply_calico_tier(&mut self, object: &Value) -> Result<(), CompileError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let spec = serde_json::from_value::<TierSpec>(object["spec"].clone());
        let (tier, error) = match spec {
            Ok(spec) => (
                Tier {
                    name: name.into(),
                    order: spec.order.unwrap_or(f64::INFINITY),
                    denies_rest: spec.default_action.as_deref() != Some("Pass"),
                },
                None,
            ),
            Err(error) => {
                let error = CompileError {
                    kind: PolicyKind::CalicoTier,
                    policy: name.to_owned(),
                    field: "spec".into(),
                    problem: Problem::Unsupported(error.to_string()),
                };
                (Tier::last(name), Some(error))
            }
        };
        self.set_tier(&tier);
        error.map_or(Ok(()), Err)
    }

    /// Removes a Calico Tier.
    pub fn remove_calico_tier(&mut self, name: &str) {
        self.tiers_mut().retain(|tier| *tier.name != *name);
        self.place(&Tier::last(name));
    }

    fn set_tier(&mut self, tier: &Tier) {
        let tiers = self.tiers_mut();
        tiers.retain(|own| own.name != tier.name);
        tiers.push(tier.clone());
        self.place(tier);
    }

    /// Moves the policies of a tier to where it stands now.
    fn place(&mut self, tier: &Tier) {
        let policies = self.ordered_mut();
        for policy in policies
            .iter_mut()
            .filter(|policy| policy.tier.name == tier.name && policy.id.kind().is_calico())
        {
            Arc::make_mut(policy).tier = tier.clone();
        }
        policies.sort_by(|a, b| OrderedPolicy::cmp(a, b));
    }

    /// Adds or replaces a Calico GlobalNetworkSet or NetworkSet, as JSON.
    ///
    /// # Errors
    ///
    /// Where one of its networks is none.
    pub fn apply_network_set(&mut self, object: &Value) -> Result<(), CompileError> {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let namespace = metadata["namespace"].as_str().map(str::to_owned);
        let mut nets = Vec::new();
        for (index, net) in object["spec"]["nets"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let text = net.as_str().unwrap_or_default();
            nets.push(read::net(text, || format!("spec.nets[{index}]")).map_err(
                |(field, problem)| CompileError {
                    kind: PolicyKind::CalicoNetworkSet,
                    policy: name.clone(),
                    field,
                    problem,
                },
            )?);
        }
        self.remove_network_set(namespace.as_deref(), &name);
        let labels = serde_json::from_value(metadata["labels"].clone()).unwrap_or_default();
        self.network_sets_mut().push(NetworkSet {
            namespace,
            name,
            labels,
            nets: nets.into(),
        });
        Ok(())
    }

    /// Removes a Calico GlobalNetworkSet or NetworkSet.
    pub fn remove_network_set(&mut self, namespace: Option<&str>, name: &str) {
        self.network_sets_mut()
            .retain(|set| set.name != name || set.namespace.as_deref() != namespace);
    }
}

#[cfg(test)]
mod tests;
