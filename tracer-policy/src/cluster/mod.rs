//! The cluster in memory: an index over objects, changed one object at a time.

mod addresses;
mod api_calls;
mod backends;
mod blocks;
mod dataplane;
mod former;
mod history;
mod objects;
mod policies;
mod services;
mod sizes;
mod unread;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::intern::{Interner, LabelSet};
use crate::model::{ApiCall, Endpoints, Labels, Node, ObjectRef, Pod, Protocol, Service, Workload};
use crate::ordered::{NetworkSet, OrderedPolicy, Tier};
use crate::policy::{Direction, Policy};
use crate::profile::Profile;

pub use addresses::Owner;
pub(crate) use backends::Backends;
pub use former::Former;
pub(crate) use history::Claim;
pub use history::Role;
pub use unread::Decides;

/// Everything about a cluster that decides a packet's fate.
///
/// Objects are applied and removed one by one, in any order; each change costs what it touches. Cloning
/// shares the objects.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    interner: Interner,
    namespaces: HashMap<String, NamespaceEntry>,
    pods: Vec<Option<Arc<PodEntry>>>,
    free: Vec<PodId>,
    pods_by_ip: HashMap<IpAddr, Vec<PodId>>,
    pod_blocks: blocks::Blocks,
    pods_by_node: HashMap<String, BTreeSet<PodId>>,
    nodes: BTreeMap<String, Arc<Node>>,
    nodes_by_ip: HashMap<IpAddr, Vec<String>>,
    services: BTreeMap<ObjectRef, Arc<Service>>,
    services_by_ip: HashMap<IpAddr, Vec<ObjectRef>>,
    services_by_node_port: HashMap<(u16, Protocol), Vec<ObjectRef>>,
    endpoints: BTreeMap<ObjectRef, Arc<Endpoints>>,
    endpoints_by_service: HashMap<ObjectRef, BTreeSet<ObjectRef>>,
    endpoints_by_ip: HashMap<IpAddr, Vec<ObjectRef>>,
    ordered: Vec<Arc<OrderedPolicy>>,
    api_calls: Vec<ApiCall>,
    tiers: Vec<Tier>,
    network_sets: Vec<NetworkSet>,
    history: history::History,
    formers: former::Formers,
    dataplane: dataplane::Signs,
    profile: Option<Profile>,
    unread: unread::Unread,
    workload_selectors: HashMap<(String, Workload), Labels>,
}

type PodId = u32;

/// A namespace that exists, or that something lives in.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceEntry {
    /// Whether the object itself was applied.
    exists: bool,
    labels: Labels,
    pub(crate) label_set: LabelSet,
    pods: BTreeMap<String, PodId>,
    policies: BTreeMap<String, Arc<Policy>>,
}

impl NamespaceEntry {
    pub(crate) const fn labels(&self) -> &Labels {
        &self.labels
    }

    fn is_empty(&self) -> bool {
        !self.exists && self.pods.is_empty() && self.policies.is_empty()
    }
}

/// A pod with what is worked out ahead.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    pub(crate) pod: Pod,
    pub(crate) labels: LabelSet,
    /// Policies that isolate it, by name: ingress, egress.
    isolating: [Vec<Arc<Policy>>; 2],
    /// When its addresses became known here, by our own clock.
    learned: Option<Timestamp>,
}

impl PodEntry {
    pub(crate) fn isolating(&self, direction: Direction) -> &[Arc<Policy>] {
        &self.isolating[direction as usize]
    }
}

impl Cluster {
    /// A cluster without objects.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn interner(&self) -> &Interner {
        &self.interner
    }

    pub(crate) const fn interner_mut(&mut self) -> &mut Interner {
        &mut self.interner
    }

    pub(crate) fn ordered(&self) -> &[Arc<OrderedPolicy>] {
        &self.ordered
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    pub(crate) const fn tiers_mut(&mut self) -> &mut Vec<Tier> {
        &mut self.tiers
    }

    pub(crate) fn network_sets(&self) -> &[NetworkSet] {
        &self.network_sets
    }

    pub(crate) const fn network_sets_mut(&mut self) -> &mut Vec<NetworkSet> {
        &mut self.network_sets
    }

    pub(crate) const fn ordered_mut(&mut self) -> &mut Vec<Arc<OrderedPolicy>> {
        &mut self.ordered
    }

    pub(crate) fn namespace_entry(&self, name: &str) -> Option<&NamespaceEntry> {
        self.namespaces.get(name)
    }

    pub(crate) fn pod_entry(&self, namespace: &str, name: &str) -> Option<&PodEntry> {
        let id = *self.namespaces.get(namespace)?.pods.get(name)?;
        self.pod_by_id(id)
    }

    fn pod_by_id(&self, id: PodId) -> Option<&PodEntry> {
        self.pods.get(id as usize)?.as_deref()
    }
}

/// Removes `value` from the list at `key`, and the list with its last value.
fn unlink<K: Eq + Hash, V: PartialEq>(map: &mut HashMap<K, Vec<V>>, key: &K, value: &V) {
    if let Some(list) = map.get_mut(key) {
        list.retain(|v| v != value);
        if list.is_empty() {
            map.remove(key);
        }
    }
}
