//! What is wrong with a policy, and where.

use thiserror::Error;

use super::PolicyKind;

/// A policy the API server would not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} {policy}: {field}: {problem}", .kind.as_str())]
pub struct CompileError {
    /// What kind of policy.
    pub kind: PolicyKind,
    /// `namespace/name`.
    pub policy: String,
    /// The field's path, such as `spec.ingress[0].ports[1].port`.
    pub field: String,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Something that is not known here, or that the API would refuse.
    #[error("{0}")]
    Unsupported(String),
    /// A required field is absent.
    #[error("is missing")]
    Missing,
    /// Not a CIDR.
    #[error("`{0}` is no CIDR: write an address and a prefix length, such as 10.42.0.0/24")]
    Cidr(String),
    /// An unknown policy type.
    #[error("`{0}` is no policy type: write Ingress or Egress")]
    PolicyType(String),
    /// An unknown protocol.
    #[error("`{0}` is no protocol of a policy port: write TCP, UDP or SCTP")]
    Protocol(String),
    /// A number that is no port.
    #[error("{0} is no port: ports go from 1 to 65535")]
    PortNumber(i32),
    /// A string that is no port name.
    #[error("`{0}` is no port name: a name has a letter in it, a number is written without quotes")]
    PortName(String),
    /// `endPort` without a numeric `port` before it.
    #[error("needs a numeric `port` beside it")]
    EndPortAlone,
    /// `endPort` below `port`.
    #[error("{end} is below `port` {port}")]
    EndPortBelow {
        /// `endPort`.
        end: u16,
        /// `port`.
        port: u16,
    },
    /// A peer that names nothing.
    #[error("names no peer: give podSelector, namespaceSelector or ipBlock")]
    EmptyPeer,
    /// A peer that is both.
    #[error("ipBlock cannot stand beside podSelector or namespaceSelector in one peer")]
    MixedPeer,
    /// An unknown operator of a label selector.
    #[error("`{0}` is no operator: write In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("operator {0} needs at least one value")]
    ValuesMissing(String),
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {0} takes no values")]
    ValuesNotAllowed(String),
}
