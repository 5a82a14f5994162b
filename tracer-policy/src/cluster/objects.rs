//! Namespaces, pods and nodes: in, out and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Cluster, NamespaceEntry, PodEntry, PodId, unlink};
use crate::intern::{LabelSet, Symbols as _};
use crate::model::{Labels, Namespace, Node, NodeAddressKind, ObjectRef, Pod};
use crate::policy::Direction;

/// The label the API server puts on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

impl Cluster {
    /// Adds or replaces a namespace.
    pub fn apply_namespace(&mut self, namespace: Namespace) {
        let entry = self.ensure_namespace(&namespace.name);
        entry.exists = true;
        self.set_namespace_labels(&namespace.name, namespace.labels);
    }

    /// Forgets a namespace's labels; what lives in it is removed on its own.
    pub fn remove_namespace(&mut self, name: &str) {
        let Some(entry) = self.namespaces.get_mut(name) else {
            return;
        };
        entry.exists = false;
        if entry.is_empty() {
            self.namespaces.remove(name);
        } else {
            self.set_namespace_labels(name, Labels::new());
        }
    }

    /// The entry of a namespace, made where something lives in a namespace not applied (yet).
    pub(super) fn ensure_namespace(&mut self, name: &str) -> &mut NamespaceEntry {
        if !self.namespaces.contains_key(name) {
            self.namespaces
                .insert(name.to_owned(), NamespaceEntry::default());
            self.set_namespace_labels(name, Labels::new());
        }
        self.namespaces.entry(name.to_owned()).or_default()
    }

    fn set_namespace_labels(&mut self, name: &str, mut labels: Labels) {
        labels.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
        let set = LabelSet::new(&labels, &mut self.interner);
        if let Some(entry) = self.namespaces.get_mut(name) {
            entry.labels = labels;
            entry.label_set = set;
        }
    }

    /// Drops a namespace's entry with the last thing that lived in it.
    pub(super) fn tidy_namespace(&mut self, name: &str) {
        if self
            .namespaces
            .get(name)
            .is_some_and(NamespaceEntry::is_empty)
        {
            self.namespaces.remove(name);
        }
    }

    /// The names of all namespaces that exist or that something lives in, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name).map(|entry| &entry.labels)
    }

    /// Adds or replaces a pod.
    pub fn apply_pod(&mut self, pod: Pod) {
        self.put_pod(pod, None);
    }

    pub(super) fn put_pod(&mut self, pod: Pod, learned: Option<Timestamp>) {
        let (namespace, name) = (pod.id.namespace.clone(), pod.id.name.clone());
        let labels = LabelSet::new(&pod.labels, &mut self.interner);
        let entry = self.ensure_namespace(&namespace);
        let known = entry.pods.get(&name).copied();
        let isolating = Direction::ALL.map(|direction| {
            entry
                .policies
                .values()
                .filter(|p| p.isolates(direction) && p.selector.matches(&labels))
                .cloned()
                .collect()
        });
        let id = match known {
            Some(id) => id,
            None => self.free.pop().unwrap_or_else(|| {
                self.pods.push(None);
                PodId::try_from(self.pods.len() - 1).unwrap_or(PodId::MAX)
            }),
        };
        let entry = Arc::new(PodEntry {
            pod,
            labels,
            isolating,
            learned,
        });
        let old = self.pods[id as usize].replace(Arc::clone(&entry));
        self.relink_pod(id, old.as_deref(), Some(&entry));
        self.ensure_namespace(&namespace).pods.insert(name, id);
    }

    /// Removes a pod.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(id) = self
            .namespaces
            .get_mut(namespace)
            .and_then(|entry| entry.pods.remove(name))
        else {
            return;
        };
        let old = self.pods[id as usize].take();
        self.relink_pod(id, old.as_deref(), None);
        self.free.push(id);
        self.tidy_namespace(namespace);
    }

    fn relink_pod(&mut self, id: PodId, old: Option<&PodEntry>, new: Option<&PodEntry>) {
        // Addresses: a finished or hostNetwork pod owns none. One that stays keeps its place among
        // several claimants, so that the newest pod wins and not the one last patched.
        let owned = |entry: Option<&PodEntry>| match entry {
            Some(e) if !e.pod.host_network && !e.pod.phase.finished() => e.pod.ips.clone(),
            _ => Vec::new(),
        };
        let (was, is) = (owned(old), owned(new));
        for ip in was.iter().filter(|ip| !is.contains(ip)) {
            unlink(&mut self.pods_by_ip, ip, &id);
            self.pod_blocks.remove(*ip);
        }
        for ip in is.iter().filter(|ip| !was.contains(ip)) {
            self.pods_by_ip.entry(*ip).or_default().push(id);
            self.pod_blocks.add(*ip);
        }
        if let Some(node) = old.and_then(|e| e.pod.node.as_ref())
            && let Some(ids) = self.pods_by_node.get_mut(node)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.pods_by_node.remove(node);
            }
        }
        if let Some(node) = new.and_then(|e| e.pod.node.as_ref()) {
            self.pods_by_node
                .entry(node.clone())
                .or_default()
                .insert(id);
        }
        if let Some(old) = old {
            self.dataplane.forget_pod(&old.pod);
        }
        if let Some(new) = new {
            self.dataplane.see_pod(&new.pod);
        }
    }

    /// A pod by name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pod_entry(namespace, name).map(|entry| &entry.pod)
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten().map(|entry| &entry.pod)
    }

    /// The pods of a namespace, by name.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.pod_entries_in(namespace).map(|entry| &entry.pod)
    }

    pub(crate) fn pod_entries_in(&self, namespace: &str) -> impl Iterator<Item = &PodEntry> {
        self.namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|entry| entry.pods.values())
            .filter_map(|id| self.pod_by_id(*id))
    }

    /// The pods of a node, in no order.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods_by_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id| self.pod_by_id(*id))
            .map(|entry| &entry.pod)
    }

    /// How many pods there are.
    pub fn pod_count(&self) -> usize {
        self.pods.len() - self.free.len()
    }

    /// Adds or replaces a node.
    pub fn apply_node(&mut self, node: Node) {
        self.remove_node(&node.name);
        for address in &node.addresses {
            let names = self.nodes_by_ip.entry(address.ip).or_default();
            if !names.contains(&node.name) {
                names.push(node.name.clone());
            }
        }
        self.dataplane.see_node(&node);
        self.nodes.insert(node.name.clone(), Arc::new(node));
    }

    /// Removes a node.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(old) = self.nodes.remove(name) {
            for address in &old.addresses {
                unlink(&mut self.nodes_by_ip, &address.ip, &old.name);
            }
            self.dataplane.forget_node(&old);
        }
    }

    /// Adds what pods say of the nodes they run on (`status.hostIP`) where no object does.
    pub fn add_nodes_of_pods(&mut self) {
        let mut told: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for pod in self.pods().filter(|pod| !pod.phase.finished()) {
            for ip in pod
                .host_ips
                .iter()
                .filter(|ip| self.node_at(**ip).is_none())
            {
                let name = pod.node.clone().unwrap_or_else(|| ip.to_string());
                told.entry(name).or_default().insert(*ip);
            }
        }
        for (name, ips) in told {
            let mut node = self.node(&name).cloned().unwrap_or_else(|| Node {
                name,
                labels: Labels::new(),
                addresses: Vec::new(),
                pod_cidrs: Vec::new(),
                control_plane: false,
            });
            for ip in ips {
                node.add_address(ip, NodeAddressKind::Internal);
            }
            self.apply_node(node);
        }
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).map(AsRef::as_ref)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(AsRef::as_ref)
    }

    /// The pods of a namespace that carry all of these labels, by name.
    pub fn pods_with_labels<'a>(
        &'a self,
        namespace: &str,
        wanted: &'a Labels,
    ) -> impl Iterator<Item = &'a Pod> {
        let mut known = self.interner.known();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(key, value)| (known.sym(key), known.sym(value)))
            .collect();
        self.namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|entry| entry.pods.values())
            .filter_map(|id| self.pod_by_id(*id))
            .filter(move |entry| {
                wanted
                    .iter()
                    .all(|(key, value)| entry.labels.get(key) == Some(value))
            })
            .map(|entry| &entry.pod)
    }

    /// A pod by reference.
    pub fn pod_at(&self, id: &ObjectRef) -> Option<&Pod> {
        self.pod(&id.namespace, &id.name)
    }
}
