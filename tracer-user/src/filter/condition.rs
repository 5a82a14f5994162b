//! One condition and how it is written on the command line.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::record::{Class, Direction, Drop, Peer};

/// Which end of a flow a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Either end.
    Either,
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// One condition on a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The pod at an end.
    Pod(Side, PodPattern),
    /// A namespace at either end.
    Namespace(String),
    /// An address or a range at either end.
    Ip(IpNet),
    /// A port at either end.
    Port(u16),
    /// The protocol, as in the JSON.
    Protocol(String),
    /// The traffic class.
    Class(Class),
    /// An isolating policy, `namespace/name` or a name alone.
    Policy {
        /// Its namespace, any where absent.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// The node it happened on.
    Node(String),
    /// The drop reason, without `SKB_DROP_REASON_`.
    Reason(String),
    /// The side whose isolation it met.
    Direction(Direction),
}

/// What conditions of one kind share; see [`super::Filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they repeat the conditions' names")]
pub enum Kind {
    Pod,
    SourcePod,
    DestinationPod,
    Namespace,
    Ip,
    Port,
    Protocol,
    Class,
    Policy,
    Node,
    Reason,
    Direction,
}

/// A value that does not fit its option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither an address nor a range.
    #[error("expected an IP address or a range such as 10.42.0.0/16")]
    Ip,
    /// Not a pod.
    #[error(
        "expected NAMESPACE/NAME, NAMESPACE/ for a whole namespace, or NAME; a trailing * matches any ending"
    )]
    Pod,
    /// Not a protocol.
    #[error("expected TCP, UDP, SCTP, ICMP, ICMPv6 or a protocol number")]
    Protocol,
    /// Not a policy.
    #[error("expected NAMESPACE/NAME or NAME")]
    Policy,
}

impl Condition {
    /// The kind, within which conditions widen.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pod(Side::Either, _) => Kind::Pod,
            Self::Pod(Side::Source, _) => Kind::SourcePod,
            Self::Pod(Side::Destination, _) => Kind::DestinationPod,
            Self::Namespace(_) => Kind::Namespace,
            Self::Ip(_) => Kind::Ip,
            Self::Port(_) => Kind::Port,
            Self::Protocol(_) => Kind::Protocol,
            Self::Class(_) => Kind::Class,
            Self::Policy { .. } => Kind::Policy,
            Self::Node(_) => Kind::Node,
            Self::Reason(_) => Kind::Reason,
            Self::Direction(_) => Kind::Direction,
        }
    }

    /// Reads `--ip`.
    pub fn ip(value: &str) -> Result<Self, ParseError> {
        value
            .parse::<IpNet>()
            .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
            .map(Self::Ip)
            .map_err(|_| ParseError::Ip)
    }

    /// Reads `--protocol`, in any case.
    pub fn protocol(value: &str) -> Result<Self, ParseError> {
        const NAMES: [&str; 5] = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"];
        if let Some(name) = NAMES
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(value))
        {
            return Ok(Self::Protocol(name.to_owned()));
        }
        let number = value.parse::<u8>().map_err(|_| ParseError::Protocol)?;
        Ok(Self::Protocol(
            tracer_policy::model::Protocol::from_number(number).to_string(),
        ))
    }

    /// Reads `--policy`.
    pub fn policy(value: &str) -> Result<Self, ParseError> {
        let (namespace, name) = match value.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, value),
        };
        if name.is_empty() || namespace.is_some_and(str::is_empty) || name.contains('/') {
            return Err(ParseError::Policy);
        }
        Ok(Self::Policy {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// Reads `--reason`, with or without the kernel's prefix, in any case.
    pub fn reason(value: &str) -> Self {
        let upper = value.to_ascii_uppercase();
        Self::Reason(
            upper
                .strip_prefix("SKB_DROP_REASON_")
                .unwrap_or(&upper)
                .to_owned(),
        )
    }

    /// Whether a drop meets the condition.
    pub fn matches(&self, drop: &Drop) -> bool {
        let ends = || drop.source.iter().chain(&drop.destination);
        match self {
            Self::Pod(Side::Either, pod) => ends().any(|peer| pod.matches(peer)),
            Self::Pod(Side::Source, pod) => drop.source.iter().any(|peer| pod.matches(peer)),
            Self::Pod(Side::Destination, pod) => {
                drop.destination.iter().any(|peer| pod.matches(peer))
            }
            Self::Namespace(namespace) => {
                ends().any(|peer| peer.namespace.as_ref() == Some(namespace))
            }
            Self::Ip(net) => ends().any(|peer| {
                net.contains(&peer.ip)
                    || peer
                        .service
                        .as_ref()
                        .is_some_and(|service| net.contains(&service.ip))
            }),
            Self::Port(port) => ends().any(|peer| {
                peer.port == Some(*port)
                    || peer
                        .service
                        .as_ref()
                        .is_some_and(|service| service.port == *port)
            }),
            Self::Protocol(protocol) => drop.protocol.as_ref() == Some(protocol),
            Self::Class(class) => drop.class == Some(*class),
            Self::Policy { namespace, name } => drop.policy.iter().any(|policy| {
                policy.isolating.iter().any(|isolating| {
                    isolating.name == *name
                        && (namespace.is_none() || isolating.namespace == *namespace)
                })
            }),
            Self::Node(node) => drop.node == *node,
            Self::Reason(reason) => drop.drop.reason.eq_ignore_ascii_case(reason),
            Self::Direction(direction) => drop.direction == Some(*direction),
        }
    }
}

/// `namespace/name`, `namespace/`, `name`; a trailing `*` in the name matches any ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPattern {
    namespace: Option<String>,
    name: String,
    prefix: bool,
}

impl PodPattern {
    /// Reads `--pod`, `--from-pod`, `--to-pod`; `default_namespace` is what `-n` says.
    pub fn parse(value: &str, default_namespace: Option<&str>) -> Result<Self, ParseError> {
        let (namespace, name) = match value.split_once('/') {
            Some(("", _)) => return Err(ParseError::Pod),
            Some((namespace, name)) => (Some(namespace), name),
            None => (default_namespace, value),
        };
        if name.contains('/') || (name.is_empty() && !value.contains('/')) {
            return Err(ParseError::Pod);
        }
        let (name, prefix) = match name.strip_suffix('*') {
            Some(start) => (start, true),
            None => (name, name.is_empty()),
        };
        if name.contains('*') {
            return Err(ParseError::Pod);
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            prefix,
        })
    }

    fn matches(&self, peer: &Peer) -> bool {
        let Some(pod) = &peer.pod else { return false };
        let name = if self.prefix {
            pod.starts_with(&self.name)
        } else {
            *pod == self.name
        };
        name && (self.namespace.is_none() || self.namespace == peer.namespace)
    }
}
