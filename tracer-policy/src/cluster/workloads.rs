//! What workloads select their pods by.

use super::Cluster;
use crate::model::{Labels, Pod, Workload};

impl Cluster {
    /// Says which labels a workload selects its pods by (`spec.selector.matchLabels`).
    pub fn apply_workload_selector(
        &mut self,
        namespace: &str,
        workload: Workload,
        match_labels: Labels,
    ) {
        self.workload_selectors
            .insert((namespace.to_owned(), workload), match_labels);
    }

    /// The labels that the workload of a pod selects it by, where that is known.
    pub fn workload_selector(&self, pod: &Pod) -> Option<&Labels> {
        let workload = pod.workload.clone()?;
        let key = (pod.id.namespace.clone(), workload);
        self.workload_selectors.get(&key)
    }
}
