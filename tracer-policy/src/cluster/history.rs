//! Who had an address a moment ago: packets are judged a little after they were dropped, and pods come
//! and go meanwhile.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Cluster, Owner, PodEntry};
use crate::model::{ObjectRef, Pod};

/// How long a pod is remembered after it gave its address up.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(2);
/// How long after that packets it sent may still be under way.
const STRAGGLERS: SignedDuration = SignedDuration::from_secs(1);
/// Kubernetes keeps times to the second, so that a pod may be a second older than it says.
const PRECISION: SignedDuration = SignedDuration::from_secs(1);

/// Pods that had an address, the latest last.
#[derive(Clone, Debug, Default)]
pub(super) struct History(HashMap<IpAddr, Vec<Gone>>);

/// A pod that had an address, with the policies that isolated it then.
#[derive(Clone, Debug)]
struct Gone {
    entry: Arc<PodEntry>,
    until: Timestamp,
}

impl History {
    fn remember(&mut self, entry: &Arc<PodEntry>, ip: IpAddr, until: Timestamp) {
        let list = self.0.entry(ip).or_default();
        list.retain(|gone| until.duration_since(gone.until) <= REMEMBERED);
        list.push(Gone {
            entry: Arc::clone(entry),
            until,
        });
    }

    /// What was known of a pod last.
    pub(super) fn entry_of(&self, pod: &Pod) -> Option<&PodEntry> {
        let lists = pod
            .ips
            .iter()
            .filter_map(|ip| self.0.get(&ip.to_canonical()));
        let gone = lists
            .flatten()
            .rfind(|gone| gone.entry.pod.id == pod.id && gone.entry.pod.uid == pod.uid)?;
        Some(&gone.entry)
    }

    /// The first of the pods that gave the address up after `time`.
    fn before(&self, ip: IpAddr, time: Timestamp) -> Option<&PodEntry> {
        let gone = self.0.get(&ip)?.iter().find(|gone| gone.until > time)?;
        Some(&gone.entry)
    }

    /// The last pod that gave the address up, if it may still be what a packet at `time` has the address from.
    fn last(&self, ip: IpAddr, time: Timestamp, role: Role) -> Option<&PodEntry> {
        let gone = self.0.get(&ip)?.last()?;
        let limit = match role {
            Role::Sender => STRAGGLERS,
            Role::Receiver => REMEMBERED,
        };
        (time.duration_since(gone.until) <= limit).then_some(&*gone.entry)
    }
}

/// Which end of a packet an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who sent it: that takes having the address.
    Sender,
    /// Who was to get it: clients go on sending to an address that was given up.
    Receiver,
}

impl PodEntry {
    /// From when the pod may have had its addresses: its start, which is told by the clock of its node. It
    /// was not after we knew of them.
    fn since(&self) -> Option<Timestamp> {
        let started = self.pod.started?;
        Some(self.learned.map_or(started, |learned| learned.min(started)))
    }
}

/// Who had an address at a time.
pub(crate) enum Claim<'a> {
    /// This pod.
    Pod(&'a PodEntry),
    /// One of several pods, and it cannot be said which; or one that is not known yet.
    Open,
    /// No pod.
    Nobody,
}

impl Cluster {
    /// As [`Cluster::owner`], of an end of a packet at `time`; `None` where a pod had the address then and it
    /// cannot be said which.
    ///
    /// A pod that gave the address up since is remembered for two minutes, if it was taken away with
    /// [`Cluster::retire_pod`]; before `time`, only as who was to get the packet. A pod that started later than
    /// `time` is not the owner.
    pub fn owner_at(&self, ip: IpAddr, time: Timestamp, role: Role) -> Option<Owner<'_>> {
        match self.claim(ip.to_canonical(), Some((time, role))) {
            Claim::Pod(entry) => Some(Owner::Pod(&entry.pod)),
            Claim::Open => None,
            Claim::Nobody => Some(self.owner(ip)),
        }
    }

    /// When a pod started, by the clock of its node; but not after it was known here.
    pub fn started(&self, pod: &Pod) -> Option<Timestamp> {
        self.entry_of(pod).map_or(pod.started, PodEntry::since)
    }

    /// Whether who [`Cluster::owner_at`] names gave the address up before `time`, and nobody is known to have it
    /// since: maybe the next one is not known yet.
    pub fn is_leftover(&self, ip: IpAddr, time: Timestamp) -> bool {
        let ip = ip.to_canonical();
        self.pod_entry_at(ip).is_none()
            && self.history.before(ip, time).is_none()
            && self.history.last(ip, time, Role::Receiver).is_some()
    }

    pub(crate) fn claim(&self, ip: IpAddr, packet: Option<(Timestamp, Role)>) -> Claim<'_> {
        let living = self.pod_entry_at(ip);
        let Some((time, role)) = packet else {
            return living.map_or(Claim::Nobody, Claim::Pod);
        };
        let last = |role| self.history.last(ip, time, role);
        let started = living.and_then(PodEntry::since);
        match (self.history.before(ip, time), living) {
            // The new pod had started, but a pod gets its address some time after.
            (Some(_), Some(_)) if started.is_none_or(|started| started <= time) => Claim::Open,
            (Some(gone), _) => Claim::Pod(gone),
            (None, Some(_)) if started.is_some_and(|started| started > time + PRECISION) => {
                last(role).map_or(Claim::Open, Claim::Pod)
            }
            (None, Some(entry)) => Claim::Pod(entry),
            (None, None) => match last(role) {
                Some(gone) => Claim::Pod(gone),
                // Whoever sent it has the address since, and is not known yet.
                None if last(Role::Receiver).is_some() => Claim::Open,
                None => Claim::Nobody,
            },
        }
    }

    /// Removes a pod and remembers that it had its addresses until `time`.
    pub fn retire_pod(&mut self, id: &ObjectRef, time: Timestamp) {
        self.remember(id, &[], time);
        self.remove_pod(&id.namespace, &id.name);
    }

    /// Adds or replaces a pod, and remembers addresses that it gives up with that at `time`: by finishing,
    /// or by being another pod of the same name.
    pub fn succeed_pod(&mut self, pod: Pod, time: Timestamp) {
        let old = self
            .pod_entry(&pod.id.namespace, &pod.id.name)
            .filter(|old| old.pod.uid == pod.uid);
        let same = old.is_some();
        let learned = old
            .filter(|old| old.pod.ips.iter().any(|ip| pod.ips.contains(ip)))
            .and_then(|old| old.learned)
            .or_else(|| (!pod.ips.is_empty()).then_some(time));
        let kept = if same && !pod.phase.finished() {
            pod.ips.as_slice()
        } else {
            &[]
        };
        self.remember(&pod.id, kept, time);
        if !same {
            self.remove_pod(&pod.id.namespace, &pod.id.name);
        }
        self.put_pod(pod, learned);
    }

    /// Forgets pods and policies that were gone long before `now`.
    pub fn forget_gone(&mut self, now: Timestamp) {
        self.formers.forget(now);
        self.history.0.retain(|_, list| {
            list.retain(|gone| now.duration_since(gone.until) <= REMEMBERED);
            !list.is_empty()
        });
    }

    /// Brings the times that were told by our own clock up to it, once it was set ahead by `step`, or back.
    pub fn clock_was_set(&mut self, step: SignedDuration) {
        for gone in self.history.0.values_mut().flatten() {
            gone.until = moved(gone.until, step);
        }
        for until in self.formers.times() {
            *until = moved(*until, step);
        }
        for slot in self.pods.iter_mut().flatten() {
            if let Some(learned) = slot.learned {
                Arc::make_mut(slot).learned = Some(moved(learned, step));
            }
        }
    }

    fn remember(&mut self, id: &ObjectRef, kept: &[IpAddr], time: Timestamp) {
        let Some(entry) = self.pod_entry_shared(id) else {
            return;
        };
        if entry.pod.host_network || entry.pod.phase.finished() {
            return;
        }
        for ip in entry.pod.ips.iter().filter(|ip| !kept.contains(ip)) {
            self.history.remember(&entry, ip.to_canonical(), time);
        }
    }

    fn pod_entry_shared(&self, id: &ObjectRef) -> Option<Arc<PodEntry>> {
        let slot = *self.namespaces.get(&id.namespace)?.pods.get(&id.name)?;
        self.pods.get(slot as usize)?.clone()
    }
}

/// No clock of ours leaves the years that there are timestamps for.
fn moved(time: Timestamp, step: SignedDuration) -> Timestamp {
    time.checked_add(step).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Pod};
    use crate::{End, Flow, Packet};

    const IP: &str = "10.42.0.5";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn pod(name: &str, started: i64) -> Pod {
        let object = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("{name}-{started}"),
                "labels": {"app": name}},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": IP, "startTime": at(started).to_string()}}))
        .unwrap();
        Pod::try_from(&object as &k8s_openapi::api::core::v1::Pod).unwrap()
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.apply_namespace(Namespace {
            name: "n".into(),
            labels: crate::model::Labels::new(),
        });
        cluster
    }

    fn owner(cluster: &Cluster, second: i64) -> String {
        owner_as(Role::Sender, cluster, second)
    }

    fn owner_as(role: Role, cluster: &Cluster, second: i64) -> String {
        match cluster.owner_at(IP.parse().unwrap(), at(second), role) {
            Some(Owner::Pod(pod)) => pod.uid.clone().unwrap(),
            Some(_) => "nobody".into(),
            None => "open".into(),
        }
    }

    #[test]
    fn a_reused_address_never_blames_the_new_owner() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("old", 0), at(0));
        cluster.retire_pod(&ObjectRef::new("n", "old"), at(10));
        assert_eq!(owner(&cluster, 9), "old-0");
        assert_eq!(owner(&cluster, 11), "old-0", "its last words");
        let leftover =
            |cluster: &Cluster, second| cluster.is_leftover(IP.parse().unwrap(), at(second));
        assert_eq!(
            [9, 10, 11, 10 + 121].map(|second| leftover(&cluster, second)),
            [false, true, true, false]
        );
        cluster.succeed_pod(pod("new", 20), at(21));
        assert_eq!(owner(&cluster, 9), "old-0");
        assert_eq!(owner(&cluster, 12), "open", "none of the two sent it");
        assert_eq!(owner_as(Role::Receiver, &cluster, 12), "old-0");
        assert!(!leftover(&cluster, 12), "the next one is known");
        assert_eq!(owner(&cluster, 19), "new-20", "to the second");
        assert_eq!(owner(&cluster, 21), "new-20");
    }

    #[test]
    fn an_address_that_was_given_up_sends_nothing_and_is_still_sent_to() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("old", 0), at(0));
        cluster.retire_pod(&ObjectRef::new("n", "old"), at(10));
        let as_both =
            |second| [Role::Sender, Role::Receiver].map(|role| owner_as(role, &cluster, second));
        assert_eq!(as_both(11), ["old-0", "old-0"]);
        assert_eq!(as_both(12), ["open", "old-0"]);
        assert_eq!(as_both(10 + 120), ["open", "old-0"]);
        assert_eq!(as_both(10 + 121), ["nobody", "nobody"]);
    }

    #[test]
    fn a_start_by_a_clock_that_is_ahead_does_not_hide_a_pod_we_know() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("old", 0), at(0));
        cluster.retire_pod(&ObjectRef::new("n", "old"), at(10));
        cluster.succeed_pod(pod("new", 3600), at(12));
        for role in [Role::Sender, Role::Receiver] {
            assert_eq!(owner_as(role, &cluster, 9), "old-0");
            assert_eq!(owner_as(role, &cluster, 12), "new-3600");
            assert_eq!(owner_as(role, &cluster, 20), "new-3600");
        }
        let started = cluster.pod("n", "new").and_then(|pod| cluster.started(pod));
        assert_eq!(started, Some(at(12)));
        // Its next form tells nothing new of its address.
        cluster.succeed_pod(pod("new", 3600), at(500));
        assert_eq!(owner(&cluster, 20), "new-3600");
    }

    #[test]
    fn a_clock_that_is_set_takes_the_memory_along() {
        for step in [-3600, 3600] {
            let mut cluster = cluster();
            cluster.succeed_pod(pod("old", 0), at(0));
            cluster.retire_pod(&ObjectRef::new("n", "old"), at(10));
            cluster.succeed_pod(pod("other", 3), at(20));
            cluster.retire_pod(&ObjectRef::new("n", "other"), at(30));
            cluster.clock_was_set(SignedDuration::from_secs(step));
            assert_eq!(owner(&cluster, step + 9), "old-0", "{step}");
            assert_eq!(owner(&cluster, step + 25), "other-3", "{step}");
            assert_eq!(owner(&cluster, step + 32), "open", "{step}");
            assert_eq!(owner(&cluster, step + 30 + 121), "nobody", "{step}");
            // What is remembered since is no longer than what was before.
            cluster.succeed_pod(pod("new", 40), at(step + 40));
            cluster.clock_was_set(SignedDuration::from_secs(-step));
            assert_eq!(owner(&cluster, 38), "open", "{step}");
            assert_eq!(owner(&cluster, 40), "new-40", "{step}");
            cluster.forget_gone(at(30 + 121));
            assert!(cluster.history.0.is_empty(), "{step}");
        }
    }

    #[test]
    fn two_at_once_are_left_open() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("old", 0), at(0));
        cluster.succeed_pod(pod("new", 20), at(21));
        cluster.retire_pod(&ObjectRef::new("n", "old"), at(30));
        assert_eq!(owner(&cluster, 10), "old-0");
        assert_eq!(owner(&cluster, 25), "open");
        assert_eq!(owner(&cluster, 30), "new-20");
    }

    #[test]
    fn a_pod_of_the_same_name_is_another_pod() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("db-0", 0), at(0));
        cluster.succeed_pod(pod("db-0", 10), at(10));
        assert_eq!(owner(&cluster, 5), "db-0-0");
        assert_eq!(owner(&cluster, 10), "db-0-10");
    }

    #[test]
    fn a_finished_pod_has_given_its_address_up() {
        let mut cluster = cluster();
        cluster.succeed_pod(pod("job", 0), at(0));
        let mut finished = pod("job", 0);
        finished.phase = crate::model::Phase::Succeeded;
        cluster.succeed_pod(finished, at(10));
        assert_eq!(owner(&cluster, 5), "job-0");
        assert_eq!(owner(&cluster, 10 + 121), "nobody");
        cluster.forget_gone(at(10 + 121));
        assert_eq!(owner(&cluster, 5), "nobody");
    }

    #[test]
    fn a_gone_pod_is_judged_by_the_policies_it_had() {
        let mut cluster = cluster();
        let policy = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "closed", "namespace": "n"},
            "spec": {"podSelector": {"matchLabels": {"app": "old"}}}}))
        .unwrap();
        cluster.apply_network_policy(&policy).unwrap();
        cluster.succeed_pod(pod("old", 0), at(0));
        cluster.retire_pod(&ObjectRef::new("n", "old"), at(10));
        cluster.succeed_pod(pod("new", 20), at(21));
        let flow = Flow::tcp(
            End::Ip("192.0.2.1".parse().unwrap()),
            End::Ip(IP.parse().unwrap()),
            80,
        );
        let profile = cluster.profile();
        let judged = |second, reply| {
            let time = at(second);
            cluster.evaluate_at(&flow, profile, Packet { time, reply })
        };
        assert!(judged(5, false).is_denied());
        assert!(judged(21, false).is_allowed());
        assert!(judged(15, false).is_denied(), "it went to the old one");
        assert!(judged(15, true).is_allowed(), "the old one did not answer");
    }
}
