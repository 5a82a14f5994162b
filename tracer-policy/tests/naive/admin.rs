//! Administrators' policies over a small world, judged as their API's text reads.
//!
//! <https://network-policy-api.sigs.k8s.io/reference/spec/>

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};
use tracer_policy::model::{Pod, Protocol};
use tracer_policy::{Cluster, Flow, PolicyKind};

use super::judge::{Side, World, in_cidr, selects};

/// A world with administrators' policies, those of the first tier in order of priority.
#[derive(Clone, Debug)]
pub struct Governed {
    pub world: World,
    pub admin: Vec<Policy>,
    pub baseline: Option<Policy>,
}

#[derive(Clone, Debug)]
pub struct Policy {
    pub namespaces: LabelSelector,
    /// `None`: every pod of the namespaces.
    pub pods: Option<LabelSelector>,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub action: &'static str,
    pub peers: Vec<Peer>,
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug)]
pub enum Peer {
    Namespaces(LabelSelector),
    Pods(LabelSelector, LabelSelector),
    Networks(Vec<&'static str>),
}

#[derive(Clone, Debug)]
pub enum Port {
    Number(Protocol, u16),
    Range(Protocol, u16, u16),
    Named(&'static str),
}

impl Governed {
    pub fn allows(&self, flow: &Flow) -> bool {
        let (from, to) = (self.world.side(&flow.from), self.world.side(&flow.to));
        if let (Side::Pod(a), Side::Pod(b)) = (&from, &to)
            && a.id == b.id
        {
            return true;
        }
        self.direction_allows("Egress", &from, &to, &to, flow)
            && self.direction_allows("Ingress", &to, &from, &to, flow)
    }

    /// The first tier by priority, where `Pass` skips the rest of it; then the `NetworkPolicies`, if any isolates
    /// the pod; else the baseline.
    fn direction_allows(
        &self,
        direction: &str,
        subject: &Side<'_>,
        other: &Side<'_>,
        destination: &Side<'_>,
        flow: &Flow,
    ) -> bool {
        let Side::Pod(pod) = subject else {
            return true;
        };
        let first = |policies: &mut dyn Iterator<Item = &Policy>| {
            policies
                .filter(|policy| self.is_about(policy, pod))
                .flat_map(|policy| match direction {
                    "Ingress" => &policy.ingress,
                    _ => &policy.egress,
                })
                .find(|rule| self.matches(rule, other, destination, flow))
                .map(|rule| rule.action)
        };
        match first(&mut self.admin.iter()) {
            Some("Allow") => return true,
            Some("Deny") => return false,
            Some("Pass") | None => {}
            Some(action) => panic!("action {action}"),
        }
        if self.world.is_isolated(direction, pod) {
            return self
                .world
                .direction_allows(direction, subject, other, destination, flow);
        }
        first(&mut self.baseline.iter()) != Some("Deny")
    }

    fn in_namespaces(&self, selector: &LabelSelector, pod: &Pod) -> bool {
        let mut all = self.world.namespaces.iter();
        let namespace = all.find(|n| n.name == pod.id.namespace);
        selects(selector, &namespace.unwrap().labels)
    }

    fn is_about(&self, policy: &Policy, pod: &Pod) -> bool {
        let of_pods = policy.pods.as_ref();
        self.in_namespaces(&policy.namespaces, pod)
            && of_pods.is_none_or(|selector| selects(selector, &pod.labels))
    }

    fn matches(&self, rule: &Rule, other: &Side<'_>, destination: &Side<'_>, flow: &Flow) -> bool {
        let peer = |peer: &Peer| match (peer, other) {
            (Peer::Namespaces(namespaces), Side::Pod(pod)) => self.in_namespaces(namespaces, pod),
            (Peer::Pods(namespaces, pods), Side::Pod(pod)) => {
                self.in_namespaces(namespaces, pod) && selects(pods, &pod.labels)
            }
            (Peer::Namespaces(_) | Peer::Pods(..), Side::Outside(_)) => false,
            // "Note that cluster-internal traffic will be checked against the rule as well."
            (Peer::Networks(networks), Side::Pod(pod)) => {
                networks.iter().any(|cidr| in_cidr(cidr, pod.ips[0]))
            }
            (Peer::Networks(networks), Side::Outside(ip)) => {
                networks.iter().any(|cidr| in_cidr(cidr, *ip))
            }
        };
        let number = flow.port.unwrap();
        let port = |port: &Port| match port {
            Port::Number(protocol, own) => *protocol == flow.protocol && *own == number,
            Port::Range(protocol, first, last) => {
                *protocol == flow.protocol && (*first..=*last).contains(&number)
            }
            Port::Named(name) => match destination {
                Side::Outside(_) => false,
                Side::Pod(pod) => pod.ports.iter().any(|declared| {
                    declared.name.as_deref() == Some(name)
                        && declared.protocol == flow.protocol
                        && declared.port == number
                }),
            },
        };
        rule.peers.iter().any(peer) && rule.ports.as_ref().is_none_or(|all| all.iter().any(port))
    }
}

/// In which version of the API the policies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// AdminNetworkPolicy and BaselineAdminNetworkPolicy.
    Alpha1,
    /// ClusterNetworkPolicy in two tiers.
    Alpha2,
}

/// Puts the policies into a cluster, in an order that says nothing.
pub fn govern(cluster: &mut Cluster, governed: &Governed, version: Version) {
    for (priority, policy) in governed.admin.iter().enumerate().rev() {
        let (kind, tier) = match version {
            Version::Alpha1 => (PolicyKind::AdminNetworkPolicy, None),
            Version::Alpha2 => (PolicyKind::ClusterNetworkPolicy, Some("Admin")),
        };
        let mut object = policy.object(version, &format!("admin-{priority}"));
        object["spec"]["priority"] = json!(priority * 10);
        apply(cluster, kind, tier, object);
    }
    if let Some(policy) = &governed.baseline {
        let mut object = policy.object(version, "default");
        let (kind, tier) = match version {
            Version::Alpha1 => (PolicyKind::BaselineAdminNetworkPolicy, None),
            Version::Alpha2 => {
                object["spec"]["priority"] = json!(0);
                (PolicyKind::ClusterNetworkPolicy, Some("Baseline"))
            }
        };
        apply(cluster, kind, tier, object);
    }
}

fn apply(cluster: &mut Cluster, kind: PolicyKind, tier: Option<&str>, mut object: Value) {
    if let Some(tier) = tier {
        object["spec"]["tier"] = json!(tier);
    }
    if let Err(error) = cluster.apply_ordered(kind, &object) {
        panic!("{error}: {object:#}");
    }
}

impl Policy {
    fn object(&self, version: Version, name: &str) -> Value {
        let subject = match &self.pods {
            None => json!({"namespaces": self.namespaces}),
            Some(pods) => {
                json!({"pods": {"namespaceSelector": self.namespaces, "podSelector": pods}})
            }
        };
        let rules = |rules: &[Rule], field: &str| -> Vec<Value> {
            rules
                .iter()
                .map(|rule| rule.object(version, field))
                .collect()
        };
        json!({
            "metadata": {"name": name},
            "spec": {
                "subject": subject,
                "ingress": rules(&self.ingress, "from"),
                "egress": rules(&self.egress, "to"),
            },
        })
    }
}

impl Rule {
    fn object(&self, version: Version, field: &str) -> Value {
        let action = match (version, self.action) {
            (Version::Alpha2, "Allow") => "Accept",
            (_, action) => action,
        };
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|peer| match peer {
                Peer::Namespaces(selector) => json!({"namespaces": selector}),
                Peer::Pods(namespaces, pods) => {
                    json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})
                }
                Peer::Networks(networks) => json!({"networks": networks}),
            })
            .collect();
        let mut object = json!({"action": action, field: peers});
        if let Some(ports) = &self.ports {
            let (field, ports): (_, Vec<_>) = match version {
                Version::Alpha1 => ("ports", ports.iter().map(Port::alpha1).collect()),
                Version::Alpha2 => ("protocols", ports.iter().map(Port::alpha2).collect()),
            };
            object[field] = json!(ports);
        }
        object
    }
}

impl Port {
    fn alpha1(&self) -> Value {
        match self {
            Self::Number(protocol, port) => {
                json!({"portNumber": {"protocol": protocol.to_string(), "port": port}})
            }
            Self::Range(protocol, start, end) => {
                json!({"portRange": {"protocol": protocol.to_string(), "start": start, "end": end}})
            }
            Self::Named(name) => json!({"namedPort": name}),
        }
    }

    fn alpha2(&self) -> Value {
        let of = |protocol: &Protocol, port: Value| {
            let protocol = protocol.to_string().to_lowercase();
            json!({protocol: {"destinationPort": port}})
        };
        match self {
            Self::Number(protocol, port) => of(protocol, json!({"number": port})),
            Self::Range(protocol, start, end) => {
                of(protocol, json!({"range": {"start": start, "end": end}}))
            }
            Self::Named(name) => json!({"destinationNamedPort": name}),
        }
    }
}
