//! The least policies that let given flows through, each proven before it is shown.
//!
//! Suggestions are additive: a user's own objects are never edited. One object is made for each workload
//! and blocked direction; it selects pods that are isolated in that direction already, so that it
//! isolates nothing anew.

mod cilium;
mod draft;
mod legs;
mod peers;
mod prove;
mod render;
mod target;

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use thiserror::Error;

use crate::cluster::Cluster;
use crate::flow::Flow;
use crate::model::{ObjectRef, Protocol};
use crate::policy::Direction;
use crate::verdict::{Exemption, RuleRef};

pub use cilium::CiliumPolicy;

/// What comes of asking for suggestions.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// Objects to add.
    pub suggestions: Vec<Suggestion>,
    /// Flows for which there is none, and why.
    pub refusals: Vec<(Flow, Refusal)>,
}

/// An object to add, proven to let its flows through and to have no part that is not needed.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// The object.
    pub policy: NetworkPolicy,
    /// The direction it opens; its `policyTypes` names this one only.
    pub direction: Direction,
    /// The flows it was made for, as they arrive behind any Service.
    pub flows: Vec<Flow>,
    /// Everything else and these flows: each (peer, pod, port) that was denied in this direction and no
    /// longer is.
    pub newly_allowed: Vec<NewlyAllowed>,
    /// What the reader should know before applying it.
    pub notes: Vec<String>,
    /// Why each rule is there, in the order of the rules.
    reasons: Vec<String>,
}

/// Something a suggestion newly allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NewlyAllowed {
    /// The pod whose isolation is opened.
    pub pod: ObjectRef,
    /// The other end: `namespace/pod` or an address.
    pub peer: String,
    /// The destination port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Why there is no suggestion for a flow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No policy stops it.
    #[error(
        "the policies let it through: no policy can cure this. Look at the host's firewall, a stale rule set of the CNI, or routing"
    )]
    Allowed,
    /// The traffic never meets a policy.
    #[error("{}: no policy can cure this", .0.as_sentence())]
    Exempt(Exemption),
    /// A policy that NetworkPolicies cannot override says no.
    #[error(
        "{} {} {} denies it, and no NetworkPolicy can override that: change that rule, or allow it by one ahead of it",
        .0.policy.kind().as_str(), .0.policy, .0.rule
    )]
    Overruled(RuleRef),
    /// A policy for pods that no NetworkPolicy isolates says no.
    #[error(
        "{} {} {} denies it to pods that no NetworkPolicy isolates: change that rule, or write a NetworkPolicy with all that the pod needs",
        .0.policy.kind().as_str(), .0.policy, .0.rule
    )]
    Baseline(RuleRef),
    /// The verdict is not known.
    #[error("the verdict is not known: {0}")]
    Unknown(String),
    /// The flow names no port.
    #[error("it names no port: a rule without ports would allow all of them")]
    NoPort,
    /// `NetworkPolicy` has no words for the protocol.
    #[error(
        "NetworkPolicy ports cannot name {0}: a rule for it would have to allow every protocol"
    )]
    NoWordsFor(Protocol),
    /// A cloud's metadata service, which hands out credentials.
    #[error(
        "{0} is the cloud's metadata service, which hands out credentials: allow it by hand if it is meant"
    )]
    Metadata(IpAddr),
    /// An address no rule should name.
    #[error("{0} is no address of one host")]
    NotAHost(IpAddr),
    /// An address of the pod network that no known pod owns.
    #[error(
        "{0} lies in the pod network but no known pod owns it: its owner is gone, or the cluster's state is older than the flow"
    )]
    StalePodAddress(IpAddr),
    /// No packet bears a Service's address once it is on its way.
    #[error(
        "{0} is the virtual address of Service {1}, which no packet that a policy judges bears: name who stands behind it"
    )]
    ServiceAddress(IpAddr, ObjectRef),
    /// An address that a Service had, or has that is not known.
    #[error(
        "{0} lies among the ClusterIPs there are ({1}), and no known Service has it: it is gone, or the cluster's \
         state is older than the flow"
    )]
    UnknownService(IpAddr, IpNet),
    /// One end speaks IPv4 only, the other IPv6.
    #[error("the ends have no address of the same family: there can be no such flow")]
    NoSharedFamily,
    /// The pod cannot be told apart.
    #[error("pod {0} has no label that outlives it: give its workload one")]
    NoStableLabel(ObjectRef),
    /// Cilium does not match nodes by address.
    #[error(
        "Cilium matches nodes by identity, not by ipBlock: it takes a CiliumNetworkPolicy with {needed}, or policy-cidr-match-mode with nodes in it"
    )]
    CiliumEntity {
        /// How such a policy names the other end.
        needed: &'static str,
        /// The policy, where it opens no more than was asked for.
        policy: Option<Box<CiliumPolicy>>,
    },
    /// The candidate did not stand its proof.
    #[error("no candidate stood its proof: {0}")]
    Unproven(String),
}

/// The least objects that let `flows` through, and which flows there is none for.
///
/// Flows are taken as seen: where the profile would exempt one (a node to its own pod) it is judged
/// without the exemption, since a flow that needs a cure was not exempted.
pub fn suggest(cluster: &Cluster, flows: &[Flow]) -> Advice {
    let profile = cluster.profile().without_exemptions();
    let mut advice = Advice::default();
    let mut drafts = draft::Drafts::default();
    let mut seen = HashSet::new();
    for flow in flows {
        if !seen.insert(flow) {
            continue;
        }
        match legs::of(cluster, profile, flow) {
            Ok(legs) => {
                for leg in legs {
                    if let Err(refusal) = drafts.add(cluster, profile, &leg) {
                        advice.refusals.push((flow.clone(), refusal));
                        break;
                    }
                }
            }
            Err(refusal) => advice.refusals.push((flow.clone(), refusal)),
        }
    }
    for draft in drafts.finish(cluster) {
        match prove::prove(cluster, profile, draft) {
            Ok(suggestion) => advice.suggestions.push(suggestion),
            Err((flows, refusal)) => {
                advice
                    .refusals
                    .extend(flows.into_iter().map(|flow| (flow, refusal.clone())));
            }
        }
    }
    advice
}
