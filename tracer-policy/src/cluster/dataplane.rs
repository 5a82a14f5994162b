//! Which dataplane enforces policies, as far as the cluster's own objects give it away.

use super::Cluster;
use crate::model::{Node, Pod};
use crate::profile::{Detected, Profile, ProfileName};

/// How many objects point to each dataplane.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    cilium_agents: usize,
    calico_agents: usize,
    k3s_nodes: usize,
}

enum Agent {
    Calico,
    Cilium,
}

/// The CNI's agent by the labels its manifests and charts set.
fn agent(pod: &Pod) -> Option<Agent> {
    match pod.labels.get("k8s-app").map(String::as_str) {
        Some("cilium") => Some(Agent::Cilium),
        // Canal runs Calico's policy engine.
        Some("calico-node" | "canal") => Some(Agent::Calico),
        _ => None,
    }
}

/// K3s's cloud controller sets the instance type; its supervisor the egress label.
fn is_k3s(node: &Node) -> bool {
    [
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
    ]
    .iter()
    .any(|key| node.labels.get(*key).is_some_and(|value| value == "k3s"))
        || node.labels.contains_key("egress.k3s.io/cluster")
}

impl Signs {
    pub(super) fn see_pod(&mut self, pod: &Pod) {
        match agent(pod) {
            Some(Agent::Cilium) => self.cilium_agents += 1,
            Some(Agent::Calico) => self.calico_agents += 1,
            None => {}
        }
    }

    pub(super) fn forget_pod(&mut self, pod: &Pod) {
        match agent(pod) {
            Some(Agent::Cilium) => self.cilium_agents -= 1,
            Some(Agent::Calico) => self.calico_agents -= 1,
            None => {}
        }
    }

    pub(super) fn see_node(&mut self, node: &Node) {
        self.k3s_nodes += usize::from(is_k3s(node));
    }

    pub(super) fn forget_node(&mut self, node: &Node) {
        self.k3s_nodes -= usize::from(is_k3s(node));
    }
}

impl Signs {
    const fn name(&self) -> ProfileName {
        if self.cilium_agents > 0 {
            ProfileName::Cilium
        } else if self.calico_agents > 0 {
            ProfileName::Calico
        } else if self.k3s_nodes > 0 {
            ProfileName::K3s
        } else {
            ProfileName::Spec
        }
    }
}

impl Cluster {
    /// Which profile the cluster's objects point to: its agents' pods first, then K3s's node labels
    /// (K3s runs its own kube-router unless another CNI is installed).
    pub fn detected_profile(&self) -> Detected {
        let signs = &self.dataplane;
        let name = signs.name();
        let because = match name {
            ProfileName::Cilium => format!("{} Cilium agent pod(s) run here", signs.cilium_agents),
            ProfileName::Calico => format!("{} Calico node pod(s) run here", signs.calico_agents),
            ProfileName::K3s => format!(
                "{} node(s) say they are K3s and no other CNI's agent runs here",
                signs.k3s_nodes
            ),
            ProfileName::Spec => "no pod or node gives the dataplane away".to_owned(),
        };
        Detected { name, because }
    }

    /// The profile flows are judged by: the one set, else the one detected.
    pub fn profile(&self) -> Profile {
        self.profile
            .unwrap_or_else(|| Profile::named(self.dataplane.name()))
    }

    /// Sets the profile; `None` goes back to detection.
    pub const fn set_profile(&mut self, profile: Option<Profile>) {
        self.profile = profile;
    }
}
