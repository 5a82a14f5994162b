//! The few facts about Kubernetes objects that decide a packet's fate.
//!
//! These types are what is kept in memory for a whole cluster, so each holds only what evaluation,
//! attribution and advice read. `from_api` turns the API's own types into them.

mod api_call;
mod change;
mod cluster;
mod from_api;
mod node;
mod pod;
mod service;

pub use api_call::{ApiCall, ApiCallKind};
pub use change::Change;
pub use cluster::Namespace;
pub use from_api::{ObjectError, from_endpoint_slice, from_endpoints, from_template};
pub use node::{Node, NodeAddress, NodeAddressKind};
pub use pod::{ContainerPort, Handler, Phase, Pod, Probe, ProbeKind, Workload};
pub use service::{Endpoint, EndpointPort, Endpoints, Readiness, Service, ServicePort, TargetPort};

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl ObjectRef {
    /// `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// SCTP (132).
    Sctp,
    /// `ICMP` for IPv4 (1).
    Icmp,
    /// `ICMPv6` (58).
    Icmpv6,
    /// Any other IP protocol number.
    Other(u8),
}

impl Protocol {
    /// From an IP protocol number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            132 => Self::Sctp,
            other => Self::Other(other),
        }
    }

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }

    /// From the API's spelling (`TCP`, `UDP`, `SCTP`); `ICMP` and `ICMPv6` are taken too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            "ICMP" => Some(Self::Icmp),
            "ICMPv6" => Some(Self::Icmpv6),
            _ => None,
        }
    }

    /// Whether the protocol has ports, so that a `NetworkPolicy` port list can match it.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Sctp => f.write_str("SCTP"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Icmpv6 => f.write_str("ICMPv6"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}
