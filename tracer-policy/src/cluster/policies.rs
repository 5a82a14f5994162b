//! Policies: in, out, and whom they isolate.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{Cluster, PodEntry};
use crate::model::Pod;
use crate::policy::{CompileError, Direction, Policy, PolicyRef};

impl Cluster {
    /// Adds or replaces a `NetworkPolicy`.
    ///
    /// # Errors
    ///
    /// Where the API server would refuse it. The policy is then kept as one whose rules are not known:
    /// verdicts that hang on it say so.
    pub fn apply_network_policy(&mut self, policy: &NetworkPolicy) -> Result<(), CompileError> {
        match Policy::compile(policy, &mut self.interner) {
            Ok(compiled) => {
                self.insert_policy(compiled);
                Ok(())
            }
            Err(error) => {
                let broken = Policy::broken(policy, error.clone(), &mut self.interner);
                self.insert_policy(broken);
                Err(error)
            }
        }
    }

    /// Adds or replaces a `NetworkPolicy` of which not all could be read: `policy` is what could, and its
    /// rules are not known because of `error`. Verdicts that hang on it say so.
    pub fn apply_unreadable_network_policy(&mut self, policy: &NetworkPolicy, error: CompileError) {
        let broken = Policy::broken(policy, error, &mut self.interner);
        self.insert_policy(broken);
    }

    /// Compiles a `NetworkPolicy` against this cluster without adding it.
    ///
    /// # Errors
    ///
    /// Where the API server would refuse it.
    pub fn compile(&self, policy: &NetworkPolicy) -> Result<Policy, CompileError> {
        Policy::compile(policy, &mut self.interner.known())
    }

    /// Whether a policy selects a pod of its namespace, by the pod's labels.
    pub fn selects(&self, policy: &Policy, pod: &Pod) -> bool {
        policy.id().namespace() == Some(&pod.id.namespace)
            && self
                .pod_entry(&pod.id.namespace, &pod.id.name)
                .is_some_and(|entry| policy.selector.matches(&entry.labels))
    }

    fn insert_policy(&mut self, policy: Policy) {
        let namespace = policy.id().namespace().unwrap_or_default().to_owned();
        let policy = Arc::new(policy);
        let old = self
            .ensure_namespace(&namespace)
            .policies
            .insert(policy.id().name().to_owned(), Arc::clone(&policy));
        self.reselect(&namespace, old.as_ref(), Some(&policy));
    }

    /// Removes a `NetworkPolicy`.
    pub fn remove_network_policy(&mut self, namespace: &str, name: &str) {
        let old = self
            .namespaces
            .get_mut(namespace)
            .and_then(|entry| entry.policies.remove(name));
        if let Some(old) = old {
            self.reselect(namespace, Some(&old), None);
            self.tidy_namespace(namespace);
        }
    }

    /// Brings the lists of isolating policies of a namespace's pods up to date.
    fn reselect(&mut self, namespace: &str, old: Option<&Arc<Policy>>, new: Option<&Arc<Policy>>) {
        let Some(entry) = self.namespaces.get(namespace) else {
            return;
        };
        for id in entry.pods.values() {
            let Some(slot) = self.pods.get_mut(*id as usize).and_then(Option::as_mut) else {
                continue;
            };
            let was = old.is_some_and(|p| p.selector.matches(&slot.labels));
            let is = new.is_some_and(|p| p.selector.matches(&slot.labels));
            if !was && !is {
                continue;
            }
            let pod = Arc::make_mut(slot);
            for direction in Direction::ALL {
                let list = &mut pod.isolating[direction as usize];
                if let Some(old) = old.filter(|_| was) {
                    list.retain(|p| !Arc::ptr_eq(p, old));
                }
                if let Some(new) = new.filter(|p| is && p.isolates(direction)) {
                    let at = list.partition_point(|p| p.id() < new.id());
                    list.insert(at, Arc::clone(new));
                }
            }
        }
    }

    /// All policies, in no order across namespaces, by name within one.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.namespaces
            .values()
            .flat_map(|entry| entry.policies.values())
            .map(AsRef::as_ref)
    }

    /// The policies of a namespace, by name.
    pub fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        self.namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|entry| entry.policies.values())
            .map(AsRef::as_ref)
    }

    /// A policy by name.
    pub fn policy(&self, namespace: &str, name: &str) -> Option<&Policy> {
        self.namespaces
            .get(namespace)?
            .policies
            .get(name)
            .map(AsRef::as_ref)
    }

    /// Whether there is a policy of this name, of whatever kind; `namespace` is empty for kinds without one.
    pub fn has_policy(&self, namespace: &str, name: &str) -> bool {
        self.policy(namespace, name).is_some()
            || self.ordered().iter().any(|policy| {
                let id = policy.id();
                id.namespace().unwrap_or("") == namespace && id.name() == name
            })
    }

    /// The policies that isolate a pod in a direction, by name.
    pub fn isolating(
        &self,
        namespace: &str,
        pod: &str,
        direction: Direction,
    ) -> impl Iterator<Item = &PolicyRef> {
        self.pod_entry(namespace, pod)
            .into_iter()
            .flat_map(move |entry| PodEntry::isolating(entry, direction))
            .map(|policy| policy.id())
    }
}
