//! What fits together over time: the first drop after a policy's change, and a pod that is not ready for
//! want of the API server.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tracer_policy::Cluster;
use tracer_policy::model::ObjectRef;

use crate::record::{Class, Drop, PolicyChange, PolicyRef, PolicyVerdict};

/// How long after a policy's change the first drop is still told to come after it.
const AFTER_CHANGE: SignedDuration = SignedDuration::from_mins(10);
/// How long a dropped probe explains why a pod is not ready.
const AFTER_PROBE: SignedDuration = SignedDuration::from_mins(2);
/// Entries kept, at least, before old ones are looked for.
const KEPT: usize = 1024;

/// Remembers what was seen of late.
#[derive(Clone, Debug, Default)]
pub struct Correlator {
    /// Changes of policies that were told, with the time of the drop.
    told: HashMap<(PolicyRef, Timestamp), Timestamp>,
    /// The last dropped probe of a pod.
    probes: HashMap<ObjectRef, Timestamp>,
    /// As many probes are kept before old ones are looked for.
    room: usize,
}

impl Correlator {
    /// Adds to a drop what only those before it show.
    pub fn correlate(&mut self, drop: &mut Drop, cluster: &Cluster) {
        self.after_change(drop, cluster);
        self.readiness(drop, cluster);
    }

    /// Brings what is remembered up to a clock that was set ahead by `step`, or back.
    pub fn clock_was_set(&mut self, step: SignedDuration) {
        for time in self.told.values_mut().chain(self.probes.values_mut()) {
            *time = time.checked_add(step).unwrap_or(*time);
        }
    }

    fn after_change(&mut self, drop: &mut Drop, cluster: &Cluster) {
        let time = drop.time;
        let Some(policy) = &mut drop.policy else {
            return;
        };
        if policy.verdict != PolicyVerdict::Denied {
            return;
        }
        let latest = policy
            .isolating
            .iter()
            .filter_map(|id| {
                let change = cluster
                    .policy(id.namespace.as_deref()?, &id.name)?
                    .changed()?;
                Some((id, change))
            })
            .filter(|(_, change)| {
                let age = time.duration_since(change.time);
                age >= SignedDuration::ZERO && age <= AFTER_CHANGE
            })
            .max_by_key(|(_, change)| change.time);
        let Some((id, change)) = latest else { return };
        let key = (id.clone(), change.time);
        if self.told.contains_key(&key) {
            return;
        }
        forget(&mut self.told, time, AFTER_CHANGE);
        self.told.insert(key, time);

        let name = match &id.namespace {
            Some(namespace) => format!("{namespace}/{}", id.name),
            None => id.name.clone(),
        };
        let by = change.manager.as_deref();
        drop.notes.push(format!(
            "first drop {} s after {name} was {}{}{}",
            time.duration_since(change.time).as_secs(),
            if change.created { "created" } else { "changed" },
            if by.is_some() { ", by " } else { "" },
            by.unwrap_or_default(),
        ));
        policy.change = Some(PolicyChange {
            policy: name,
            time: change.time,
            by: change.manager.clone(),
            created: change.created,
        });
    }

    /// An application that cannot reach the API server often fails its probes without one of them being
    /// dropped.
    fn readiness(&mut self, drop: &mut Drop, cluster: &Cluster) {
        let time = drop.time;
        match drop.class {
            Some(Class::KubeletProbe) => {
                if let Some(pod) = pod_of(drop.destination.as_ref()) {
                    if self.probes.len() >= self.room.max(KEPT) {
                        forget(&mut self.probes, time, AFTER_PROBE);
                        // Else a cluster of many pods would have them all looked at for each drop.
                        self.room = self.probes.len() * 2;
                    }
                    self.probes.insert(pod, time);
                }
            }
            Some(Class::ApiserverEgress) => {
                let Some(id) = pod_of(drop.source.as_ref()) else {
                    return;
                };
                let fails = cluster
                    .pod(&id.namespace, &id.name)
                    .is_some_and(|pod| pod.ready == Some(false) && !pod.probes.is_empty());
                let probe_dropped = self
                    .probes
                    .get(&id)
                    .is_some_and(|last| time.duration_since(*last) <= AFTER_PROBE);
                if fails && !probe_dropped {
                    drop.notes.push(format!(
                        "{} is not ready though none of its probes is dropped: it likely waits for the API \
                         server",
                        id.name
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Drops entries that no longer matter, so that the map stays small.
fn forget<K>(seen: &mut HashMap<K, Timestamp>, now: Timestamp, after: SignedDuration) {
    seen.retain(|_, time| now.duration_since(*time) <= after);
}

fn pod_of(peer: Option<&crate::record::Peer>) -> Option<ObjectRef> {
    let peer = peer?;
    Some(ObjectRef::new(
        peer.namespace.as_deref()?,
        peer.pod.as_deref()?,
    ))
}

#[cfg(test)]
mod tests;
