//! Verdicts: what the policies say of a flow. They serialise as the lines of `tracer explain --batch`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::model::ObjectRef;
use crate::policy::PolicyRef;
use crate::profile::ProfileName;

/// The verdict on one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Both sides taken together.
    pub verdict: Outcome,
    /// Why it is unknown, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The receiver's side.
    pub ingress: Side,
    /// The sender's side.
    pub egress: Side,
    /// The dataplane profile it was judged by.
    pub profile: ProfileName,
    /// The Service the flow went through, where `to` is a Service's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceHop>,
    /// What else the reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether the flow is let through.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Outcome::Allowed
    }

    /// Whether a policy stops the flow.
    pub fn is_denied(&self) -> bool {
        self.verdict == Outcome::Denied
    }
}

/// Both sides taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Both sides let it through.
    Allowed,
    /// At least one side does not.
    Denied,
    /// A fact is missing that the verdict hangs on.
    Unknown,
}

/// What one side's policies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The verdict.
    pub verdict: SideVerdict,
    /// Every policy that isolates this side's pod in this direction, by name. They deny jointly.
    pub isolating: Vec<PolicyRef>,
    /// Every rule that lets the flow through.
    pub allowed_by: Vec<RuleRef>,
    /// Where a rule says so: the rule that denies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<RuleRef>,
    /// Where it is denied: the rule that came nearest to allowing it, and what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<NearestMiss>,
    /// Where no rule lets it through but the dataplane does all the same: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exemption: Option<Exemption>,
}

impl Side {
    /// A side without any isolating policy.
    pub(crate) const fn not_isolated() -> Self {
        Self {
            verdict: SideVerdict::NotIsolated,
            isolating: Vec::new(),
            allowed_by: Vec::new(),
            denied_by: None,
            nearest_miss: None,
            exemption: None,
        }
    }

    /// A side nothing can be said of.
    pub(crate) const fn unknown() -> Self {
        let mut side = Self::not_isolated();
        side.verdict = SideVerdict::Unknown;
        side
    }
}

/// What one side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideVerdict {
    /// Isolated, and a rule (or an exemption) lets the flow through.
    Allowed,
    /// Isolated, and nothing lets it through.
    Denied,
    /// No policy isolates this side, or this side is no pod.
    NotIsolated,
    /// A fact is missing that the verdict hangs on.
    Unknown,
}

/// Why a dataplane lets a flow through that no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exemption {
    /// A pod to its own address: that never leaves the pod.
    Loopback,
    /// A pod to itself through a Service.
    Hairpin,
    /// A node to a pod of its own.
    NodeToOwnPod,
    /// A pod to its own node.
    PodToOwnNode,
    /// A pod to a node port of its own node.
    PodToOwnNodePort,
    /// ICMP, which the dataplane accepts ahead of policies.
    Icmp,
}

impl Exemption {
    /// For people.
    pub const fn as_sentence(self) -> &'static str {
        match self {
            Self::Loopback => "a pod's traffic to its own address never leaves the pod",
            Self::Hairpin => "this dataplane lets a pod reach itself through a Service",
            Self::NodeToOwnPod => "this dataplane lets a node reach its own pods",
            Self::PodToOwnNode => "this dataplane lets a pod reach its own node",
            Self::PodToOwnNodePort => {
                "this dataplane lets a pod reach the node ports of its own node"
            }
            Self::Icmp => "this dataplane accepts ICMP ahead of policies",
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// The rule's path: `spec.ingress[0]`.
    pub rule: Arc<str>,
}

impl Serialize for RuleRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(flatten)]
            policy: &'a PolicyRef,
            rule: &'a str,
        }
        Flat {
            policy: &self.policy,
            rule: &self.rule,
        }
        .serialize(s)
    }
}

/// The rule that came nearest to allowing a flow, and what failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearestMiss {
    /// The policy, as `namespace/name`.
    #[serde(serialize_with = "as_text")]
    pub policy: PolicyRef,
    /// The rule's path (`spec.ingress[0]`); absent where the policy has no rule in this direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// The element that failed.
    pub failed: Failed,
    /// Which item of the rule's peers or ports came nearest.
    #[serde(skip)]
    pub item: usize,
    /// What the rule wants, in the words of its YAML.
    pub wanted: Arc<str>,
    /// What the flow was.
    pub got: String,
}

fn as_text<S: Serializer>(policy: &PolicyRef, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(policy)
}

/// The element of a rule that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failed {
    /// There is no rule in this direction.
    NoRules,
    /// The other end is none of the peers.
    Peer,
    /// The other end would be a peer, were it in another namespace.
    Namespace,
    /// The protocol is none of the ports'.
    Protocol,
    /// The port is none of the ports.
    Port,
}

impl Failed {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRules => "no-rules",
            Self::Peer => "peer",
            Self::Namespace => "namespace",
            Self::Protocol => "protocol",
            Self::Port => "port",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Service a flow goes through: policies judge what comes out behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceHop {
    /// The Service.
    #[serde(flatten)]
    pub id: ObjectRef,
    /// Its endpoints that were judged, each with its verdict.
    pub endpoints: Vec<EndpointVerdict>,
}

/// An endpoint of a Service, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointVerdict {
    /// Address.
    pub ip: IpAddr,
    /// Port, after translation.
    pub port: u16,
    /// The verdict for this endpoint.
    pub verdict: Outcome,
}
