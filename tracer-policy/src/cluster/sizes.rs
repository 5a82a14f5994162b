//! How much a cluster holds.

use super::Cluster;

impl Cluster {
    /// How many objects there are, by kind: the plural of the API's, and `ordered-policies` for all that have
    /// an order (`AdminNetworkPolicy`, Calico's, ...).
    pub fn sizes(&self) -> [(&'static str, usize); 7] {
        let exist = self.namespaces.values().filter(|entry| entry.exists);
        let policies = self.namespaces.values().map(|entry| entry.policies.len());
        [
            ("namespaces", exist.count()),
            ("pods", self.pod_count()),
            ("nodes", self.nodes.len()),
            ("services", self.services.len()),
            ("endpoints", self.endpoints.len()),
            ("networkpolicies", policies.sum()),
            ("ordered-policies", self.ordered.len()),
        ]
    }
}
