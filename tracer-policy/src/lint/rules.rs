//! The rules, each with its own page line.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Severity;

/// A kind of mistake. Its id never changes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The id people suppress it by.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub what: &'static str,
    /// Why it bites.
    pub why: &'static str,
    /// Where it bit someone; empty where no public thread is known.
    pub seen: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// `{"rule":"probe-blocked","severity":"error"}`, as part of a finding.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut out = s.serialize_struct("Rule", 2)?;
        out.serialize_field("rule", self.id)?;
        out.serialize_field("severity", &self.severity)?;
        out.end()
    }
}

macro_rules! rules {
    ($($name:ident = $id:literal, $severity:ident, $what:literal, $why:literal, $seen:literal, $fix:literal;)*) => {
        $(pub(super) static $name: Rule = Rule {
            id: $id, severity: Severity::$severity, what: $what, why: $why, seen: $seen, fix: $fix,
        };)*
        /// Every rule.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    PROBE_BLOCKED = "probe-blocked", Error,
        "an isolated pod has probes, and no rule lets its node's addresses in",
        "the kubelet probes from a node address, which no podSelector can match: the pod never gets ready, or is restarted again and again",
        "k3s-io/k3s#10030",
        "add an ingress rule with an ipBlock for every node's address and the probe port";
    PROBE_EXEMPT = "probe-exempt", Info,
        "an isolated pod's probes are let in by the dataplane's exemption for its own node alone, and by no rule",
        "that a node reaches its own pods whatever policies say is the dataplane's choice: under another one, or where the exemption fails, the pod never gets ready",
        "kubernetes-sigs/kind#3875, kubernetes-sigs/kube-network-policies#65",
        "add an ingress rule with an ipBlock for every node's address and the probe port";
    NODES_UNMENTIONED = "nodes-unmentioned", Info,
        "a policy's ingress rules name pods only, and the pods that it selects are not among the objects",
        "the kubelet's probes and the API server's calls come from node addresses, which no podSelector can match: whether the pods have any is not known",
        "k3s-io/k3s#10030",
        "where the pods have probes or serve webhooks, add an ingress rule with an ipBlock for the nodes' addresses; lint the policy with the workloads, or with --cluster, to be told";
    API_SERVER_BLOCKED = "apiserver-blocked", Warning,
        "an isolated pod mounts a service-account token and cannot reach the API server, or not all of its endpoints",
        "the API server is a process on the control-plane nodes and no pod, and policies judge its endpoint behind the Service",
        "rancher/rke2#5434, projectcalico/calico#6476",
        "add an egress rule with an ipBlock for every endpoint of default/kubernetes and its port, or set automountServiceAccountToken: false";
    API_SERVER_UNMENTIONED = "apiserver-unmentioned", Info,
        "a policy's egress rules do not let the API server be reached, and the pods that it selects are not among the objects",
        "the API server is a process on the control-plane nodes and no pod: whether the pods talk to it is not known",
        "rancher/rke2#5434",
        "where they do, add an egress rule with an ipBlock for every endpoint of default/kubernetes and its port";
    WEBHOOK_BLOCKED = "webhook-blocked", Error,
        "pods that serve a webhook or an aggregated API are closed to the API server",
        "the API server calls from a control-plane node's address, which no podSelector can match: with failurePolicy Fail nobody can create or change the objects concerned",
        "kubernetes/kubernetes#128162, rancher/rke2#745",
        "add an ingress rule with an ipBlock for every control-plane node's address and the pod's own port";
    DNS_BLOCKED = "dns-blocked", Error,
        "a pod with isolated egress cannot reach the cluster's DNS, or not all of its endpoints",
        "nearly every connection starts with a lookup, and fails with a timeout that names something else",
        "ahmetb/kubernetes-network-policy-recipes#98",
        "add an egress rule to the DNS pods (namespaceSelector and podSelector in one item) on port 53, UDP and TCP";
    DNS_UNMENTIONED = "dns-unmentioned", Warning,
        "a policy's egress rules do not let the cluster's DNS be reached, and the pods that it selects are not among the objects",
        "nearly every connection starts with a lookup, and fails with a timeout that names something else",
        "ahmetb/kubernetes-network-policy-recipes#98",
        "add an egress rule to the DNS pods (namespaceSelector and podSelector in one item) on port 53, UDP and TCP";
    DNS_UDP_ONLY = "dns-udp-only", Warning,
        "a pod may ask the cluster's DNS over UDP but not over TCP",
        "answers too long for a datagram are asked for again over TCP, so some names fail and others do not",
        "antrea-io/antrea#4130, kubernetes/kubernetes#35377",
        "add port 53 with protocol TCP beside UDP";
    PEER_OTHER_NAMESPACE = "peer-in-other-namespace", Error,
        "a podSelector without a namespaceSelector matches nothing in its own namespace, and something elsewhere",
        "a podSelector alone looks in the policy's own namespace only: the rule lets nothing through",
        "projectcalico/calico#5170",
        "add a namespaceSelector to the same item";
    PEER_MATCHES_NOTHING = "peer-matches-nothing", Info,
        "a peer's selectors match no pod there is",
        "the label may be on the Deployment and not on its pods, be missing on the namespace, or be misspelt",
        "prometheus-community/helm-charts#221",
        "compare the selectors with the labels of the pods themselves, and of their namespace";
    AND_OR_SLIP = "and-or-slip", Warning,
        "a namespaceSelector and a podSelector stand in two items, and the pods meant seem to live in that namespace",
        "two items allow either: every pod of that namespace, and pods with that label in the own one",
        "ahmetb/kubernetes-network-policy-recipes#98",
        "write both selectors in one item (one dash)";
    SERVICE_IP = "service-ip-in-rule", Warning,
        "an ipBlock names the virtual address of a Service, or a range of them",
        "policies judge a packet after the Service's address was translated: the rule never matches",
        "cilium/cilium#33525",
        "name the endpoints: select the pods behind the Service, or give their addresses";
    SERVICE_PORT = "service-port-in-rule", Warning,
        "a rule names the port of a Service where its endpoints listen on another",
        "policies judge the endpoint's port: the rule never matches",
        "cert-manager/cert-manager#5787, paradigmxyz/centaur#212",
        "name the target port";
    NAMED_PORT = "named-port-missing", Warning,
        "a rule names a port that none of the pods it is about has",
        "a name means the container port of that name and protocol on the destination pod: without it the rule never matches",
        "",
        "write the container port's name as the pods have it, or its number";
    HOST_NETWORK = "selects-host-network", Warning,
        "a policy selects, or a peer matches, nothing but pods on the network of their node",
        "such a pod's traffic is the node's: no policy isolates it and no selector matches it",
        "projectcalico/libcalico-go#1060",
        "use an ipBlock with the nodes' addresses, or take the pod off the host network";
    WIDE_NODE_RANGE = "wide-node-range", Info,
        "an ipBlock that is there for nodes covers far more than the nodes",
        "whatever else gets an address of that range is let through too",
        "rancher/rancher#14085",
        "name each node's address as /32 (/128)";
    TYPES_OMITTED = "policy-types-omitted", Warning,
        "a policy with egress rules only leaves policyTypes out",
        "Ingress is then implied: the policy denies everything that comes in as well",
        "cilium/cilium#3351, kubernetes/website#24582",
        "write policyTypes: [Egress], or add the ingress rules that are meant";
    STATEFUL_SET_CLOSED = "statefulset-peers-closed", Warning,
        "the pods of a StatefulSet cannot reach each other on a port they declare",
        "members of a cluster (Raft, gossip, replication) never find each other",
        "hashicorp/vault-helm#481",
        "add a rule for the set's own labels in both directions";
}
