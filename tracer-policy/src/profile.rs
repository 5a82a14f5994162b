//! Dataplane profiles: the readings the API leaves open, by the name of who enforces it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The name of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProfileName {
    /// K3s's own kube-router.
    K3s,
    /// Calico, iptables, nftables or eBPF.
    Calico,
    /// Cilium.
    Cilium,
    /// The API alone: no exemption is assumed that a dataplane may or may not grant.
    #[default]
    Spec,
}

impl ProfileName {
    /// Every name.
    pub const ALL: [Self; 4] = [Self::K3s, Self::Calico, Self::Cilium, Self::Spec];

    /// As the user writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Calico => "calico",
            Self::Cilium => "cilium",
            Self::Spec => "spec",
        }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ProfileName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A profile name nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no dataplane profile: write k3s, calico, cilium or spec")]
pub struct ParseProfileError(String);

impl FromStr for ProfileName {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| ParseProfileError(text.to_owned()))
    }
}

/// How a dataplane reads what the API leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a reading of its own, and any combination may occur"
)]
pub struct Profile {
    /// Whose reading this is.
    pub name: ProfileName,
    /// An `ipBlock` matches the address of a pod as well.
    pub ipblock_matches_pods: bool,
    /// An `ipBlock` matches the address of a node as well.
    pub ipblock_matches_nodes: bool,
    /// A node reaches its own pods whatever their policies say.
    pub node_reaches_own_pods: bool,
    /// A pod reaches its own node whatever its policies say.
    pub pod_reaches_own_node: bool,
    /// A pod reaches the node ports (30000 to 32767) of its own node whatever its policies say.
    pub pod_reaches_own_node_ports: bool,
    /// A pod reaches itself through a Service whatever its policies say. (Its own address it always
    /// reaches: that traffic never leaves the pod.)
    pub pod_reaches_itself: bool,
    /// ICMP passes whatever the policies say.
    pub icmp_passes: bool,
}

impl Profile {
    /// K3s's kube-router (`pkg/controllers/netpol`): the pod chain accepts `--src-type LOCAL` and ICMP
    /// echo, unreachable and time-exceeded before any policy; egress is hooked on INPUT as well, so a
    /// pod's own node is policed, its node ports excepted.
    pub const K3S: Self = Self {
        name: ProfileName::K3s,
        ipblock_matches_pods: true,
        ipblock_matches_nodes: true,
        node_reaches_own_pods: true,
        pod_reaches_own_node: false,
        pod_reaches_own_node_ports: true,
        pod_reaches_itself: false,
        icmp_passes: true,
    };

    /// Calico: host to local workload is not policed (felix `static.go`, `tc.c`); workload to host is.
    pub const CALICO: Self = Self {
        name: ProfileName::Calico,
        ipblock_matches_pods: true,
        ipblock_matches_nodes: true,
        node_reaches_own_pods: true,
        pod_reaches_own_node: false,
        pod_reaches_own_node_ports: false,
        pod_reaches_itself: false,
        icmp_passes: false,
    };

    /// Cilium: identities first; an `ipBlock` matches neither pods nor nodes (unless
    /// `policy-cidr-match-mode` has `nodes`), and the own host is always let in.
    pub const CILIUM: Self = Self {
        name: ProfileName::Cilium,
        ipblock_matches_pods: false,
        ipblock_matches_nodes: false,
        node_reaches_own_pods: true,
        pod_reaches_own_node: false,
        pod_reaches_own_node_ports: false,
        pod_reaches_itself: true,
        icmp_passes: false,
    };

    /// The API alone, as the e2e tests of Kubernetes read it. Node and pod are policed against each
    /// other: the API text lets a pod's own node in, yet dataplanes that drop it exist, and a verdict
    /// that assumes the exemption would hide the very drop one is looking for.
    pub const SPEC: Self = Self {
        name: ProfileName::Spec,
        ipblock_matches_pods: true,
        ipblock_matches_nodes: true,
        node_reaches_own_pods: false,
        pod_reaches_own_node: false,
        pod_reaches_own_node_ports: false,
        pod_reaches_itself: true,
        icmp_passes: false,
    };

    /// The profile of that name.
    pub const fn named(name: ProfileName) -> Self {
        match name {
            ProfileName::K3s => Self::K3S,
            ProfileName::Calico => Self::CALICO,
            ProfileName::Cilium => Self::CILIUM,
            ProfileName::Spec => Self::SPEC,
        }
    }

    /// The same readings without any exemption for nodes, ICMP or a pod's own Service: what holds for a
    /// packet that was seen to be dropped where the exemption should have let it pass.
    #[must_use]
    pub const fn without_exemptions(mut self) -> Self {
        self.node_reaches_own_pods = false;
        self.pod_reaches_own_node = false;
        self.pod_reaches_own_node_ports = false;
        self.pod_reaches_itself = false;
        self.icmp_passes = false;
        self
    }
}

/// Which profile a cluster's own objects point to, and what gave it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The profile.
    pub name: ProfileName,
    /// One sentence for people.
    pub because: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ProfileName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert_eq!(Profile::named(name).name, name);
        }
        let error = "k8s".parse::<ProfileName>().unwrap_err().to_string();
        assert!(error.contains("k3s, calico, cilium or spec"), "{error}");
    }
}
