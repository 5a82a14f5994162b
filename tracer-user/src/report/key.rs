//! What makes drops one finding.

use std::fmt;
use std::net::IpAddr;

use super::bounded::name;
use crate::cure::Ends;
use crate::record::{Class, Direction, Drop, Peer, PeerKind, PolicyRef, PolicyVerdict};

/// Policies of a finding that are told apart; what is isolated by more is rare.
const POLICIES: usize = 16;

/// Drops that have all of this in common are one finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) standing: Standing,
    pub(super) class: Option<Class>,
    pub(super) direction: Option<Direction>,
    /// Who opened the connection.
    pub(super) client: Party,
    /// Whom it was opened to.
    pub(super) server: Party,
    /// Whether it was the answers that were dropped.
    pub(super) answer: bool,
    /// The server's port.
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<String>,
    /// Those that isolate the pod jointly, or the one whose rule says no.
    pub(super) policies: Vec<Policy>,
}

/// What the policies say, in the order of how much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Standing {
    /// They allow it, and the node dropped it.
    Disagreement,
    /// They deny it.
    Denied,
    /// Not known.
    Unknown,
    /// Nobody asked them: recorded without a cluster.
    Unasked,
    /// They have no say: no pod is at either end.
    NoPod,
    /// They allow it, and there is a cause that passes or lies elsewhere: a race, conntrack.
    Passing,
}

impl Standing {
    fn of(drop: &Drop) -> Self {
        let passing = matches!(
            drop.class,
            Some(Class::ConntrackInvalid | Class::PolicyRace)
        );
        match drop.policy.as_ref().map(|policy| policy.verdict) {
            None => Self::without_policy(drop),
            Some(PolicyVerdict::Unknown) => Self::Unknown,
            Some(PolicyVerdict::Denied) => Self::Denied,
            Some(PolicyVerdict::Allowed) if passing => Self::Passing,
            Some(PolicyVerdict::Allowed) => Self::Disagreement,
        }
    }

    /// Where nothing is said of policies: whether that is because no cluster was known.
    fn without_policy(drop: &Drop) -> Self {
        let ends = || [&drop.source, &drop.destination].into_iter().flatten();
        let pod = ends().any(|end| end.kind == PeerKind::Pod);
        let unknown = ends().all(|end| end.kind == PeerKind::Unknown);
        if pod || unknown {
            Self::Unasked
        } else {
            Self::NoPod
        }
    }
}

/// A policy by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Policy {
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// The rule that denies, where one does by itself.
    pub(super) rule: Option<String>,
}

impl Policy {
    fn of(policy: &PolicyRef, rule: Option<&str>) -> Self {
        Self {
            kind: name(&policy.kind),
            namespace: policy.namespace.as_deref().map(name),
            name: name(&policy.name),
            rule: rule.map(name),
        }
    }
}

/// `vault/vault-policy`, with the kind where that is not `NetworkPolicy`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != "NetworkPolicy" {
            write!(f, "{} ", self.kind)?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Who, of those that are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A workload's pods.
    Workload(String, String),
    /// A pod without a workload.
    Pod(String, String),
    /// Nodes, whichever.
    Nodes,
    /// A Service's virtual address.
    Service(String, String),
    /// The API server, wherever it was met.
    ApiServer,
    /// An address.
    Address(IpAddr),
    /// Not known.
    Unknown,
    /// Too many to tell apart.
    Various,
}

impl Party {
    pub(super) fn of(peer: &Peer) -> Self {
        let pair = |namespace: &str, of: &str| (name(namespace), name(of));
        match (peer.kind, &peer.namespace, &peer.workload, &peer.pod) {
            (PeerKind::Pod, Some(namespace), Some(workload), _) => {
                let (namespace, workload) = pair(namespace, workload);
                Self::Workload(namespace, workload)
            }
            (PeerKind::Pod, Some(namespace), None, Some(pod)) => {
                let (namespace, pod) = pair(namespace, pod);
                Self::Pod(namespace, pod)
            }
            (PeerKind::Node, ..) => Self::Nodes,
            (PeerKind::Service, ..) if let Some(service) = &peer.service => {
                let (namespace, service) = pair(&service.namespace, &service.name);
                Self::Service(namespace, service)
            }
            _ => Self::Address(peer.ip),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(namespace, name)
            | Self::Pod(namespace, name)
            | Self::Service(namespace, name) => write!(f, "{namespace}/{name}"),
            Self::Nodes => f.write_str("nodes"),
            Self::ApiServer => f.write_str("API server"),
            Self::Address(ip) => ip.fmt(f),
            Self::Unknown => f.write_str("unknown"),
            Self::Various => f.write_str("various"),
        }
    }
}

impl Key {
    /// What a drop is one of.
    pub(super) fn of(drop: &Drop, ends: Option<Ends<'_>>) -> Self {
        let isolating = drop.policy.iter().flat_map(|policy| {
            let rule = policy.denied_by.as_ref();
            let own = rule.map(|rule| Policy::of(&rule.policy, Some(&rule.rule)));
            let others = policy.isolating.iter().filter(move |_| rule.is_none());
            own.into_iter()
                .chain(others.map(|policy| Policy::of(policy, None)))
        });
        let server = match drop.class {
            Some(Class::ApiserverEgress) => Some(Party::ApiServer),
            _ => ends.map(|ends| Party::of(ends.server)),
        };
        Self {
            standing: Standing::of(drop),
            class: drop.class,
            direction: drop.direction,
            client: ends.map_or(Party::Unknown, |ends| Party::of(ends.client)),
            server: server.unwrap_or(Party::Unknown),
            answer: ends.is_some_and(|ends| ends.answer),
            port: ends.and_then(|ends| ends.server.port),
            protocol: drop.protocol.as_deref().map(name),
            policies: isolating.take(POLICIES).collect(),
        }
    }

    /// What is left where too many would be told apart: workloads, but no addresses and no ports.
    pub(super) fn without_addresses(&self) -> Self {
        let named = |party: &Party| match party {
            Party::Address(_) => Party::Various,
            named => named.clone(),
        };
        Self {
            client: named(&self.client),
            server: named(&self.server),
            port: None,
            ..self.clone()
        }
    }

    /// What is left where that would be too many still. There are few of these.
    pub(super) fn without_names(&self) -> Self {
        Self {
            standing: self.standing,
            class: self.class,
            direction: self.direction,
            client: Party::Various,
            server: Party::Various,
            answer: false,
            port: None,
            protocol: None,
            policies: Vec::new(),
        }
    }

    /// Whether the side that was isolated is the server's; where it is not known, the one that is a pod.
    pub(super) fn befell_server(&self) -> bool {
        match self.direction {
            Some(Direction::Ingress) => !self.answer,
            Some(Direction::Egress) => self.answer,
            None => matches!(self.server, Party::Workload(..) | Party::Pod(..)),
        }
    }
}
