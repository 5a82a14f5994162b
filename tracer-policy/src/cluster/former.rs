//! Policies that are gone, or were others a moment ago: nodes go on with them until they have followed.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::{Cluster, PodEntry};
use crate::evaluate::Who;
use crate::model::{ObjectRef, Pod};
use crate::ordered::OrderedPolicy;
use crate::policy::{CompileError, Direction, Policy, PolicyKind, PolicyRef};

/// How long they are remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(30);
/// As many are, at most: a flood of changes is more than anyone can tell apart.
const AT_MOST: usize = 1024;

/// Policies as they were, the latest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Formers(VecDeque<Past>);

#[derive(Clone, Debug)]
struct Past {
    policy: Form,
    until: Timestamp,
    deleted: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Network(Arc<Policy>),
    Ordered(Arc<OrderedPolicy>),
}

/// A policy that is no more what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former<'a> {
    /// Its name.
    pub policy: &'a PolicyRef,
    /// When that became known.
    pub until: Timestamp,
    /// Whether it is gone; else it was changed.
    pub deleted: bool,
}

impl Formers {
    fn remember(&mut self, policy: Form, until: Timestamp, deleted: bool) {
        if self.0.len() >= AT_MOST {
            self.0.pop_front();
        }
        self.0.push_back(Past {
            policy,
            until,
            deleted,
        });
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        self.0
            .retain(|past| now.duration_since(past.until) <= REMEMBERED);
    }

    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        self.0.iter_mut().map(|past| &mut past.until)
    }
}

impl Form {
    fn id(&self) -> &PolicyRef {
        match self {
            Self::Network(policy) => policy.id(),
            Self::Ordered(policy) => policy.id(),
        }
    }

    /// Whether it was one of those that decide about a pod.
    fn is_about(&self, who: &Who<'_>) -> bool {
        let Who::Pod { entry, .. } = who else {
            return false;
        };
        match self {
            Self::Network(policy) => {
                policy.id().namespace() == Some(&entry.pod.id.namespace)
                    && Direction::ALL.iter().any(|side| policy.isolates(*side))
                    && policy.selector.matches(&entry.labels)
            }
            Self::Ordered(policy) => policy.is_about(who),
        }
    }
}

impl Cluster {
    /// As [`Cluster::apply_network_policy`]; what it was before is remembered to have been so until `time`.
    ///
    /// # Errors
    /// As there.
    pub fn succeed_network_policy(
        &mut self,
        policy: &NetworkPolicy,
        time: Timestamp,
    ) -> Result<(), CompileError> {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let old = self.shared_policy(namespace, name);
        let applied = self.apply_network_policy(policy);
        if let Some(old) = old
            && self
                .policy(namespace, name)
                .is_some_and(|new| new.spec() != old.spec())
        {
            self.formers.remember(Form::Network(old), time, false);
        }
        applied
    }

    /// Removes a `NetworkPolicy`, and remembers that it was there until `time`.
    pub fn retire_network_policy(&mut self, id: &ObjectRef, time: Timestamp) {
        if let Some(old) = self.shared_policy(&id.namespace, &id.name) {
            self.formers.remember(Form::Network(old), time, true);
        }
        self.remove_network_policy(&id.namespace, &id.name);
    }

    /// As [`Cluster::apply_ordered`]; what it was before is remembered to have been so until `time`.
    ///
    /// # Errors
    /// As there.
    pub fn succeed_ordered(
        &mut self,
        kind: PolicyKind,
        object: &Value,
        time: Timestamp,
    ) -> Result<(), CompileError> {
        let metadata = |field: &str| object["metadata"][field].as_str();
        let namespace = (kind == PolicyKind::CalicoNetworkPolicy)
            .then(|| metadata("namespace").unwrap_or("default").to_owned());
        let name = metadata("name").unwrap_or_default().to_owned();
        let old = self.shared_ordered(kind, namespace.as_deref(), &name);
        let applied = self.apply_ordered(kind, object);
        if let Some(old) = old
            && self
                .shared_ordered(kind, namespace.as_deref(), &name)
                .is_none_or(|new| !new.decides_as(&old))
        {
            self.formers.remember(Form::Ordered(old), time, false);
        }
        applied
    }

    /// As [`Cluster::remove_ordered_object`], and remembers that it was there until `time`.
    pub fn retire_ordered_object(
        &mut self,
        kind: PolicyKind,
        namespace: Option<&str>,
        name: &str,
        time: Timestamp,
    ) {
        if let Some(old) = self.shared_ordered(kind, namespace, name) {
            self.formers.remember(Form::Ordered(old), time, true);
        }
        self.remove_ordered_object(kind, namespace, name);
    }

    /// What decided about a pod until of late and does not any more, or not in that way; the latest last.
    pub fn former_policies<'a>(&'a self, pod: &Pod) -> impl Iterator<Item = Former<'a>> {
        let who = self.entry_of(pod).and_then(|entry| {
            let namespace = self.namespace_entry(&pod.id.namespace)?;
            Some(Who::Pod { entry, namespace })
        });
        who.into_iter().flat_map(move |who| {
            let about = move |past: &&Past| past.policy.is_about(&who);
            self.formers.0.iter().filter(about).map(|past| Former {
                policy: past.policy.id(),
                until: past.until,
                deleted: past.deleted,
            })
        })
    }

    /// Of a pod that is there, or that was until of late.
    pub(super) fn entry_of(&self, pod: &Pod) -> Option<&PodEntry> {
        self.pod_entry(&pod.id.namespace, &pod.id.name)
            .filter(|entry| entry.pod.uid == pod.uid)
            .or_else(|| self.history.entry_of(pod))
    }

    fn shared_policy(&self, namespace: &str, name: &str) -> Option<Arc<Policy>> {
        self.namespaces.get(namespace)?.policies.get(name).cloned()
    }

    fn shared_ordered(
        &self,
        kind: PolicyKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<OrderedPolicy>> {
        let is = |policy: &&Arc<OrderedPolicy>| policy.is_of(kind, namespace, name);
        self.ordered().iter().find(is).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Namespace;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn cluster() -> (Cluster, Pod) {
        let mut cluster = Cluster::new();
        cluster.apply_namespace(Namespace {
            name: "n".into(),
            labels: crate::model::Labels::new(),
        });
        let object = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "1", "labels": {"app": "p"}},
            "spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.42.0.5"}});
        let object: k8s_openapi::api::core::v1::Pod = serde_json::from_value(object).unwrap();
        let pod = Pod::try_from(&object).unwrap();
        cluster.succeed_pod(pod.clone(), at(0));
        (cluster, pod)
    }

    fn policy(app: &str) -> NetworkPolicy {
        serde_json::from_value(json!({
            "metadata": {"name": "closed", "namespace": "n"},
            "spec": {"podSelector": {"matchLabels": {"app": app}}}}))
        .unwrap()
    }

    fn told(cluster: &Cluster, pod: &Pod) -> Vec<(String, i64, bool)> {
        let second = |time: Timestamp| time.as_second() - 1_000_000;
        cluster
            .former_policies(pod)
            .map(|former| {
                let name = former.policy.name().to_owned();
                (name, second(former.until), former.deleted)
            })
            .collect()
    }

    #[test]
    fn what_a_network_policy_was_is_remembered_of_the_pods_it_was_about() {
        let (mut cluster, pod) = cluster();
        cluster.succeed_network_policy(&policy("p"), at(1)).unwrap();
        cluster.succeed_network_policy(&policy("p"), at(2)).unwrap();
        assert_eq!(told(&cluster, &pod), [], "it is as it was");
        cluster
            .succeed_network_policy(&policy("other"), at(3))
            .unwrap();
        cluster.retire_network_policy(&ObjectRef::new("n", "closed"), at(4));
        cluster.succeed_network_policy(&policy("p"), at(5)).unwrap();
        cluster.retire_network_policy(&ObjectRef::new("n", "closed"), at(6));
        cluster.retire_network_policy(&ObjectRef::new("n", "closed"), at(7));
        let all = [
            ("closed".to_owned(), 3, false),
            ("closed".to_owned(), 6, true),
        ];
        assert_eq!(told(&cluster, &pod), all);
        cluster.retire_pod(&pod.id, at(8));
        assert_eq!(told(&cluster, &pod), all, "of a pod that is gone, too");
        cluster.clock_was_set(SignedDuration::from_hours(-1));
        cluster.forget_gone(at(6 + 31 - 3600));
        assert_eq!(told(&cluster, &pod), []);
    }

    #[test]
    fn so_is_what_an_ordered_one_was() {
        let (mut cluster, pod) = cluster();
        let kind = PolicyKind::AdminNetworkPolicy;
        let deny = |priority: u8, app: &str| {
            json!({"metadata": {"name": "deny"}, "spec": {
                "priority": priority,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}})
        };
        for (second, object) in [(1, deny(1, "p")), (2, deny(1, "p")), (3, deny(1, "other"))] {
            cluster.succeed_ordered(kind, &object, at(second)).unwrap();
        }
        cluster.retire_ordered_object(kind, None, "deny", at(4));
        assert_eq!(told(&cluster, &pod), [("deny".to_owned(), 3, false)]);
        cluster.succeed_ordered(kind, &deny(1, "p"), at(5)).unwrap();
        cluster.retire_ordered_object(kind, None, "deny", at(6));
        assert_eq!(
            told(&cluster, &pod).last(),
            Some(&("deny".to_owned(), 6, true))
        );
    }
}
