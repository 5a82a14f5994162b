//! Changes of the cluster, and the one who keeps the state by them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use jiff::Timestamp;
use tracer_policy::model::ObjectRef;
use tracer_policy::{Cluster, Decides};

use crate::cluster::Kind;
use crate::cluster::host;
use crate::cluster::object::{self, Object};

/// A change.
#[derive(Clone, Debug)]
pub enum Update {
    /// An object was added or changed.
    Apply(Kind, ObjectRef, Object),
    /// An object is there that could not be understood: what was known of it stays.
    Unreadable(Kind, ObjectRef),
    /// An object is gone.
    Delete(Kind, ObjectRef),
    /// A list of all objects of this kind begins.
    Begin(Kind),
    /// The list is whole: what was not in it is gone.
    End(Kind),
    /// There is nothing of this kind: the server does not have it, or no longer.
    Absent(Kind),
    /// This kind cannot be listed or followed, so that its objects are not known until it can.
    Unread(Kind),
}

/// Keeps the state by the changes that come.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Objects held, by kind.
    held: HashMap<Kind, HashSet<ObjectRef>>,
    /// Objects of the list that is being read.
    fresh: HashMap<Kind, HashSet<ObjectRef>>,
    /// Kinds that were listed whole, or of which it is known that they cannot be.
    listed: HashSet<Kind>,
    expected: HashSet<Kind>,
    host: Option<(String, Vec<IpAddr>)>,
}

impl Keeper {
    /// `node` has `addresses` beside those its object names: the host's own.
    pub fn new(node: String, addresses: Vec<IpAddr>) -> Self {
        Self {
            host: Some((node, addresses)),
            ..Self::default()
        }
    }

    /// The host's addresses as they are now; whether they are others.
    pub fn host_has(&mut self, now: Vec<IpAddr>, cluster: &mut Cluster) -> bool {
        let Some((node, addresses)) = &mut self.host else {
            return false;
        };
        if *addresses == now {
            return false;
        }
        *addresses = now;
        host::merge(cluster, node, addresses);
        true
    }

    /// Which kinds are to be listed before the state is whole.
    pub fn expect(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        self.expected.extend(kinds);
    }

    /// Whether every kind was listed once.
    pub fn is_whole(&self) -> bool {
        !self.expected.is_empty() && self.expected.iter().all(|kind| self.listed.contains(kind))
    }

    /// What is held counts as old: every kind is to be listed before the state is whole.
    pub(super) fn begin_anew(&mut self) {
        self.listed.clear();
    }

    /// Applies a change that became known at `now`; whether nodes changed, hence pod ranges.
    pub fn apply(&mut self, update: Update, now: Timestamp, cluster: &mut Cluster) -> bool {
        match update {
            Update::Apply(kind, id, object) => {
                understood(kind, &id, true, cluster);
                if let Some(fresh) = self.fresh.get_mut(&kind) {
                    fresh.insert(id.clone());
                }
                self.held.entry(kind).or_default().insert(id);
                self.put(kind, object, now, cluster)
            }
            Update::Unreadable(kind, id) => {
                understood(kind, &id, false, cluster);
                if let Some(fresh) = self.fresh.get_mut(&kind) {
                    fresh.insert(id.clone());
                }
                self.held.entry(kind).or_default().insert(id);
                false
            }
            Update::Delete(kind, id) => {
                if let Some(held) = self.held.get_mut(&kind) {
                    held.remove(&id);
                }
                take(kind, &id, now, cluster);
                kind == Kind::Node
            }
            Update::Begin(kind) => {
                self.fresh.insert(kind, HashSet::new());
                false
            }
            Update::End(kind) => {
                let fresh = self.fresh.remove(&kind).unwrap_or_default();
                self.listed(kind, fresh, now, cluster)
            }
            Update::Absent(kind) => {
                self.fresh.remove(&kind);
                self.listed(kind, HashSet::new(), now, cluster)
            }
            Update::Unread(kind) => {
                self.listed.insert(kind);
                if let Some(decides) = kind.decides() {
                    cluster.mark_unread(&kind.resource(), decides);
                }
                false
            }
        }
    }

    /// A kind's objects are these and no others; whether nodes changed.
    fn listed(
        &mut self,
        kind: Kind,
        fresh: HashSet<ObjectRef>,
        now: Timestamp,
        cluster: &mut Cluster,
    ) -> bool {
        self.listed.insert(kind);
        cluster.mark_read(&kind.resource());
        let held = self.held.entry(kind).or_default();
        let gone: Vec<_> = held.difference(&fresh).cloned().collect();
        *held = fresh;
        for id in &gone {
            take(kind, id, now, cluster);
        }
        kind == Kind::Node && !gone.is_empty()
    }

    fn put(&self, kind: Kind, object: Object, now: Timestamp, cluster: &mut Cluster) -> bool {
        if let Err(error) = object.succeed(cluster, now) {
            tracing::warn!(%error, "an object is not as the API says");
        }
        if kind != Kind::Node {
            return false;
        }
        if let Some((node, addresses)) = &self.host {
            host::merge(cluster, node, addresses);
        }
        true
    }
}

/// A policy that could not be understood leaves verdicts open; of other objects the last form has to do.
fn understood(kind: Kind, id: &ObjectRef, understood: bool, cluster: &mut Cluster) {
    let Some(decides @ Decides::Policies) = kind.decides() else {
        return;
    };
    let name = || format!("{} {}", kind.name(), id.to_string().trim_start_matches('/'));
    if !understood {
        cluster.mark_unread(&name(), decides);
    } else if cluster.unread(decides).next().is_some() {
        cluster.mark_read(&name());
    }
}

fn take(kind: Kind, id: &ObjectRef, now: Timestamp, cluster: &mut Cluster) {
    understood(kind, id, true, cluster);
    object::retire(kind, id, cluster, now);
}
