//! One drop as the world sees it: the JSON of `-o json`, of the agent's stream and of `--record`.
//!
//! Field names follow Hubble's flow where it has one. Absent means unknown; nothing is made up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One drop, attributed and explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// When, from the kernel's clock; RFC 3339 with nanoseconds.
    #[serde(with = "rfc3339_nanos")]
    pub time: Timestamp,
    /// The node it happened on.
    pub node: String,
    /// Packets this record stands for.
    pub count: u64,
    /// Which side's isolation it met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// What kind of traffic it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Peer>,
    /// Who was to get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Peer>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or the protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Names of the TCP flags that were set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<Vec<String>>,
    /// ICMP type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpHeader>,
    /// The packet that it carries, or is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<Inner>>,
    /// How and where it was dropped.
    pub drop: DropInfo,
    /// What the policies say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyInfo>,
    /// The probe it belonged to, for `kubelet-probe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeInfo>,
    /// What the application will see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symptom: Option<String>,
    /// One sentence: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What else fits together with it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Drop {
    /// Whether API and node quarrel over it: the policies allow what the node dropped, and neither conntrack
    /// nor a matter of seconds explains that.
    pub fn is_disagreement(&self) -> bool {
        let allowed = |policy: &PolicyInfo| policy.verdict == PolicyVerdict::Allowed;
        self.policy.as_ref().is_some_and(allowed)
            && !matches!(
                self.class,
                Some(Class::ConntrackInvalid | Class::PolicyRace)
            )
    }
}

/// Which side's isolation a packet met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The receiver's.
    Ingress,
    /// The sender's.
    Egress,
}

impl Direction {
    /// As in JSON and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What kind of traffic it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The kubelet of the pod's own node to a declared probe port.
    KubeletProbe,
    /// A pod to the API server, by its Service address or an endpoint's.
    ApiserverEgress,
    /// A lookup at the cluster's DNS.
    Dns,
    /// The API server to an admission webhook.
    Webhook,
    /// The API server to an API that another server serves for it.
    AggregatedApi,
    /// A metrics collector to where metrics are offered.
    MetricsScrape,
    /// An ingress controller to a Service's pod.
    IngressController,
    /// Someone outside through a `NodePort` or a load balancer, seen with the address of where it came
    /// through.
    #[serde(rename = "nodeport")]
    NodePort,
    /// Pods of one `StatefulSet` among themselves.
    StatefulsetPeer,
    /// Any other traffic from a node's own address to a pod.
    NodeToPod,
    /// A pod to a node's own processes.
    PodToNode,
    /// Pod to pod.
    PodToPod,
    /// The cloud's metadata address.
    CloudMetadata,
    /// ICMP that carries errors or neighbour discovery.
    IcmpControl,
    /// Part of a connection that policies allow, dropped by netfilter: connection tracking does not
    /// know it, or no longer.
    ConntrackInvalid,
    /// Allowed by the policies as they are now, and dropped while a pod or a policy was so new that its
    /// rules may not have been in place.
    PolicyRace,
    /// One end is neither pod nor node.
    External,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 17] = [
        Self::KubeletProbe,
        Self::ApiserverEgress,
        Self::Dns,
        Self::Webhook,
        Self::AggregatedApi,
        Self::MetricsScrape,
        Self::IngressController,
        Self::NodePort,
        Self::StatefulsetPeer,
        Self::NodeToPod,
        Self::PodToNode,
        Self::PodToPod,
        Self::CloudMetadata,
        Self::IcmpControl,
        Self::ConntrackInvalid,
        Self::PolicyRace,
        Self::External,
    ];

    /// As in JSON and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KubeletProbe => "kubelet-probe",
            Self::ApiserverEgress => "apiserver-egress",
            Self::Dns => "dns",
            Self::Webhook => "webhook",
            Self::AggregatedApi => "aggregated-api",
            Self::MetricsScrape => "metrics-scrape",
            Self::IngressController => "ingress-controller",
            Self::NodePort => "nodeport",
            Self::StatefulsetPeer => "statefulset-peer",
            Self::NodeToPod => "node-to-pod",
            Self::PodToNode => "pod-to-node",
            Self::PodToPod => "pod-to-pod",
            Self::CloudMetadata => "cloud-metadata",
            Self::IcmpControl => "icmp-control",
            Self::ConntrackInvalid => "conntrack-invalid",
            Self::PolicyRace => "policy-race",
            Self::External => "external",
        }
    }

    /// Traffic that is easily forgotten when a policy is written: it gets its own metric.
    pub const fn is_invisible(self) -> bool {
        matches!(self, Self::KubeletProbe | Self::ApiserverEgress)
    }
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Address.
    pub ip: IpAddr,
    /// Port, for protocols that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the address belongs to.
    pub kind: PeerKind,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's workload, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The node: the pod's own, or the one whose address this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The Service the packet was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceInfo>,
    /// Where the packet was sent to, if it was sent on to this one (DNAT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Endpoint>,
    /// The process of this machine that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessInfo>,
    /// The pod's `metadata.uid`; not part of the record as others read it.
    #[serde(skip)]
    pub uid: Option<String>,
}

/// A packet within the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// In what it is carried.
    pub carrier: CarrierKind,
    /// VXLAN's network identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Who sent it.
    pub source: Peer,
    /// Who was to get it.
    pub destination: Peer,
    /// As in [`Drop::protocol`].
    pub protocol: String,
}

/// In what a packet is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierKind {
    /// VXLAN.
    Vxlan,
    /// IP in IP.
    Ip,
    /// An ICMP error, which is about it.
    IcmpError,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id, in the machine's own numbering.
    pub pid: u32,
    /// The command's name, 15 bytes of it at most.
    pub name: String,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// A pod.
    Pod,
    /// A node's own processes, hostNetwork pods among them.
    Node,
    /// A Service's virtual address.
    Service,
    /// Known not to be the cluster's.
    External,
    /// Not known.
    Unknown,
}

/// A Service and the port of it that was meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Virtual address.
    pub ip: IpAddr,
    /// The Service's port.
    pub port: u16,
}

/// ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpHeader {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// How and where a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// The running kernel's own name for the reason, without `SKB_DROP_REASON_`.
    pub reason: String,
    /// Silent or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<DropAction>,
    /// What the sender was told (`icmp port-unreachable`, `tcp reset`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// The hook (`tc egress`, `FORWARD`, `bridge INPUT`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// `symbol+0xoffset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// `netfilter`, `tc`, `xdp`, `cgroup`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<String>,
    /// The programs that stand at the tc hook where it was dropped, in the order they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramInfo>,
    /// Whose rules dropped it, where what stands at the hook leaves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcer: Option<String>,
    /// Whose rules may have dropped it, where more than one is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// What says whose it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The interface it was at, or, where it was not at one yet, the one its route leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The interface it came in at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_interface: Option<String>,
    /// The interface it was to go out at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_interface: Option<String>,
    /// Network namespace inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// A BPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// As in `bpftool prog show id`.
    pub id: u32,
    /// Its name, or that of its filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Silent or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DropAction {
    /// Silent.
    Drop,
    /// The sender was told.
    Reject,
}

/// What the policies say of a dropped packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// By the API, would it be let through?
    pub verdict: PolicyVerdict,
    /// How sure it is that a policy is why it was dropped.
    pub grade: Grade,
    /// The side that denies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Every policy that isolates the pod in that direction: they deny jointly.
    #[serde(default)]
    pub isolating: Vec<PolicyRef>,
    /// Where a rule says no by itself, as an AdminNetworkPolicy's may: that rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<DeniedBy>,
    /// The rule that came nearest to allowing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<NearestMiss>,
    /// On the first drop after one of the isolating policies was created or changed: that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<PolicyChange>,
}

/// A rule that denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedBy {
    /// The policy.
    #[serde(flatten)]
    pub policy: PolicyRef,
    /// The rule as a path (`spec.ingress[0]`).
    pub rule: String,
}

/// A policy's change that a drop came after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// When it was created or changed, to the second.
    pub time: Timestamp,
    /// By whom, as the API's field managers have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether it came to be then.
    pub created: bool,
}

/// By the API, would the packet be let through?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyVerdict {
    /// No.
    Denied,
    /// Yes: API and node disagree.
    Allowed,
    /// Not known.
    Unknown,
}

/// How sure it is that a policy is why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// The engine denies it and the packet died where policies are enforced.
    Proven,
    /// Points that way, with something left open.
    Likely,
    /// No policy explains it.
    Unexplained,
}

/// A policy by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRef {
    /// `NetworkPolicy`, ...
    pub kind: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// The rule that came nearest, and what failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestMiss {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// The rule as a path (`spec.ingress[0]`); absent where the policy has no rule in that direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The element that failed (`peer`, `namespace`, `port`, `protocol`, `no-rules`).
    pub failed: String,
    /// What the rule wants.
    pub wanted: String,
    /// What the packet was.
    pub got: String,
}

/// The probe a dropped packet belonged to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// `liveness`, `readiness`, `startup`, `lifecycle`.
    pub kind: String,
    /// Container.
    pub container: String,
    /// `http`, `https`, `tcp`, `grpc`.
    pub handler: String,
    /// Port.
    pub port: u16,
    /// Seconds between probes.
    pub period_seconds: u32,
}

/// RFC 3339 in UTC with exactly nine digits of a second, so that lines sort as text.
mod rfc3339_nanos {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{time:.9}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(d)
    }
}
