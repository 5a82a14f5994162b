//! Selectors that name a workload's pods and no others, today and after the next roll-out.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Refusal;
use crate::cluster::Cluster;
use crate::model::{Labels, ObjectRef, Pod};
use crate::policy::Direction;

/// Labels that controllers give one pod or one revision.
const VOLATILE: [&str; 11] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "job-name",
    "controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "app.kubernetes.io/version",
];

/// Labels that by convention say what a workload is.
const IDENTITY: [&str; 9] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app",
    "k8s-app",
    "component",
    "name",
    "role",
    "tier",
];

/// Labels that select the pod's workload: those it selects its pods by itself. Where that is not known, those
/// that all its pods share and that outlive each of them, and of these only the conventional ones where they
/// select the same pods.
pub(super) fn stable_labels(cluster: &Cluster, pod: &Pod) -> Result<Labels, Refusal> {
    if let Some(own) = cluster.workload_selector(pod) {
        let lasting = own
            .keys()
            .all(|key| !VOLATILE.contains(&key.as_str()) && pod.labels.get(key) == own.get(key));
        if lasting && !own.is_empty() {
            return Ok(own.clone());
        }
    }
    let mut labels = pod.labels.clone();
    labels.retain(|key, _| !VOLATILE.contains(&key.as_str()));
    if let Some(workload) = &pod.workload {
        let siblings = cluster
            .pods_in(&pod.id.namespace)
            .filter(|other| other.workload.as_ref() == Some(workload));
        for sibling in siblings {
            labels.retain(|key, value| sibling.labels.get(key) == Some(value));
        }
    }
    let mut identity = labels.clone();
    identity.retain(|key, _| IDENTITY.contains(&key.as_str()));
    if !identity.is_empty() {
        let selected = |labels: &Labels| -> BTreeSet<ObjectRef> {
            cluster
                .pods_with_labels(&pod.id.namespace, labels)
                .map(|pod| pod.id.clone())
                .collect()
        };
        if selected(&identity) == selected(&labels) {
            labels = identity;
        }
    }
    if labels.is_empty() {
        return Err(Refusal::NoStableLabel(pod.id.clone()));
    }
    Ok(labels)
}

/// The `podSelector` of a suggestion for `pod`: its workload's labels, and whatever of an isolating
/// policy's own selector they leave out. So it selects only what that policy isolates already, also among
/// pods yet to come.
pub(super) fn selector(
    cluster: &Cluster,
    pod: &Pod,
    direction: Direction,
) -> Result<LabelSelector, Refusal> {
    let labels = stable_labels(cluster, pod)?;
    let extra = |selector: &LabelSelector| {
        let labels = selector.match_labels.iter().flatten();
        labels
            .filter(|(key, value)| pod.labels.get(*key) == Some(*value))
            .count()
            + 2 * selector.match_expressions.as_ref().map_or(0, Vec::len)
    };
    // Of several, the one that asks for least beyond the workload's own labels.
    let guard = cluster
        .isolating(&pod.id.namespace, &pod.id.name, direction)
        .filter_map(|id| cluster.policy(id.namespace()?, id.name()))
        .map(|policy| policy.spec().pod_selector.clone().unwrap_or_default())
        .min_by_key(|selector| {
            let mut beyond = selector.clone();
            if let Some(wanted) = &mut beyond.match_labels {
                wanted.retain(|key, value| labels.get(key) != Some(value));
            }
            extra(&beyond)
        })
        .unwrap_or_default();
    let mut all = labels;
    all.extend(guard.match_labels.unwrap_or_default());
    Ok(LabelSelector {
        match_labels: Some(all),
        match_expressions: guard.match_expressions.filter(|list| !list.is_empty()),
    })
}
