//! Policies in the form they are judged in.

mod compile;
mod error;
mod reference;

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;

use crate::model::{Change, Protocol};
use crate::selector::Selector;

pub use error::{CompileError, Problem};
pub use reference::{PolicyKind, PolicyRef};

/// Which side's isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The receiver's.
    Ingress,
    /// The sender's.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// As in `policyTypes`.
    pub const fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

/// A compiled `NetworkPolicy`.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) id: PolicyRef,
    pub(crate) selector: Selector,
    /// Rules by direction; `None` where the policy does not isolate in that direction.
    ingress: Option<Box<[Rule]>>,
    egress: Option<Box<[Rule]>>,
    /// Why the policy could not be compiled: whatever it selects, its rules are not known.
    pub(crate) broken: Option<Arc<CompileError>>,
    source: Arc<NetworkPolicySpec>,
    changed: Option<Change>,
}

impl Policy {
    /// Its name.
    pub const fn id(&self) -> &PolicyRef {
        &self.id
    }

    /// Whether it isolates the pods it selects in this direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        self.rules(direction).is_some()
    }

    /// When it was last changed, and by whom, where the object says.
    pub const fn changed(&self) -> Option<&Change> {
        self.changed.as_ref()
    }

    /// The specification as it was given.
    pub fn spec(&self) -> &NetworkPolicySpec {
        &self.source
    }

    /// The rules of one direction; `None` where it does not isolate there.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// A rule: lets through what one of its peers exchanges over one of its ports.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// `spec.ingress[0]`.
    pub(crate) path: Arc<str>,
    /// `None`: any peer, inside the cluster or out.
    pub(crate) peers: Option<Box<[Peer]>>,
    /// `None`: any port of any protocol.
    pub(crate) ports: Option<Box<[Port]>>,
    /// The peers and the ports as the YAML has them, on one line.
    pub(crate) peers_text: Arc<str>,
    pub(crate) ports_text: Arc<str>,
}

/// A peer of a rule.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Pods by labels.
    Pods {
        /// `None`: the policy's own namespace.
        namespaces: Option<Selector>,
        pods: Selector,
    },
    /// Addresses.
    Ip { cidr: IpNet, except: Box<[IpNet]> },
}

/// A port of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) number: PortNumber,
}

/// Which ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PortNumber {
    /// All of the protocol's.
    Any,
    /// From first to last, both included.
    Range(u16, u16),
    /// The container port of that name on the destination pod.
    Named(Box<str>),
}
