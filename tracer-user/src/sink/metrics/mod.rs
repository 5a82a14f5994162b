//! Prometheus metrics: counters of packets, never an address or a port as a label.

mod capped;
mod read;

pub use capped::{Capped, Series};
pub use read::{Losses, Sizes};

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use tracer_policy::Cluster;
use tracer_policy::model::Pod;

use crate::decode::RawDrop;
use crate::record::{Class, Direction, Drop, DropAction, Peer, PolicyVerdict};
use read::ReadAtScrape;

/// How long a series stays when nothing it is of is there any more: a few scrapes, so that its last packets
/// are seen.
const EXPIRY: Duration = Duration::from_mins(15);

/// All metrics of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    drops: Capped<8>,
    policy_drops: Capped<4>,
    invisible: Capped<3>,
    disagreements: Capped<3>,
    events: IntCounterVec,
    read: Mutex<ReadAtScrape>,
}

const DROPS: (&str, [&str; 8]) = (
    "tracer_drops_total",
    [
        "direction",
        "class",
        "reason",
        "action",
        "source_namespace",
        "source_workload",
        "destination_namespace",
        "destination_workload",
    ],
);
const POLICY_DROPS: (&str, [&str; 4]) = (
    "tracer_policy_drops_total",
    ["direction", "class", "policy_namespace", "policy"],
);
const INVISIBLE: (&str, [&str; 3]) = (
    "tracer_invisible_drops_total",
    ["class", "namespace", "workload"],
);
const DISAGREEMENTS: (&str, [&str; 3]) = (
    "tracer_disagreements_total",
    ["direction", "namespace", "workload"],
);

impl Metrics {
    /// Registers everything; each family keeps at most `max_series` series before it folds new ones
    /// into `other`.
    ///
    /// # Errors
    /// Only where two metrics share a name, which is a defect.
    pub fn new(max_series: usize) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let folded = IntCounterVec::new(
            Opts::new(
                "tracer_series_folded_total",
                "Packets counted under `other` because a metric had reached --max-series.",
            ),
            &["metric"],
        )?;
        registry.register(Box::new(folded.clone()))?;
        let capped = Family {
            registry: &registry,
            folded: &folded,
            max_series,
        };

        let metrics = Self {
            drops: capped.counter(
                DROPS,
                "Packets dropped, by what they were and whose.",
                4,
            )?,
            policy_drops: capped.counter(
                POLICY_DROPS,
                "Packets dropped and denied by policy, once for each policy that isolates the pod.",
                2,
            )?,
            invisible: capped.counter(
                INVISIBLE,
                "Packets dropped of the traffic nobody thinks of: kubelet probes, pods to the API server.",
                1,
            )?,
            disagreements: capped.counter(
                DISAGREEMENTS,
                "Packets that the API's policies allow and the node dropped.",
                1,
            )?,
            events: IntCounterVec::new(
                Opts::new(
                    "tracer_kubernetes_events_total",
                    "Kubernetes Events by what became of them: written, failed, or suppressed at first because there were too many.",
                ),
                &["result"],
            )?,
            read: Mutex::new(ReadAtScrape::register(&registry)?),
            registry,
        };
        metrics
            .registry
            .register(Box::new(metrics.events.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new(
                "tracer_build_info",
                "Always 1; the version is in the label.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(build))?;
        Ok(metrics)
    }

    /// The counter of Kubernetes Events, by `result`.
    pub fn events(&self) -> IntCounterVec {
        self.events.clone()
    }

    /// Counts one drop.
    pub fn observe(&self, drop: &Drop) {
        let direction = drop.direction.map_or("", Direction::as_str);
        let class = drop.class.map_or("", Class::as_str);
        let action = match drop.drop.action {
            Some(DropAction::Drop) => "drop",
            Some(DropAction::Reject) => "reject",
            None => "",
        };
        let (source_namespace, source_workload) = owner(drop.source.as_ref());
        let (destination_namespace, destination_workload) = owner(drop.destination.as_ref());
        self.drops.add(
            [
                direction,
                class,
                &drop.drop.reason,
                action,
                source_namespace,
                source_workload,
                destination_namespace,
                destination_workload,
            ],
            drop.count,
        );
        // The pod whose isolation was met: the receiver on ingress, else the sender.
        let (namespace, workload) = match drop.direction {
            Some(Direction::Ingress) => (destination_namespace, destination_workload),
            None if source_namespace.is_empty() => (destination_namespace, destination_workload),
            Some(Direction::Egress) | None => (source_namespace, source_workload),
        };
        if drop.class.is_some_and(Class::is_invisible) {
            self.invisible.add([class, namespace, workload], drop.count);
        }
        let Some(policy) = &drop.policy else { return };
        match policy.verdict {
            PolicyVerdict::Denied => {
                // The rule that denies may be of a policy that isolates as well.
                let denied_by = policy.denied_by.iter().map(|rule| &rule.policy);
                let denied_by = denied_by.filter(|one| !policy.isolating.contains(one));
                for isolating in policy.isolating.iter().chain(denied_by) {
                    self.policy_drops.add(
                        [
                            policy.direction.map_or("", Direction::as_str),
                            class,
                            isolating.namespace.as_deref().unwrap_or(""),
                            &isolating.name,
                        ],
                        drop.count,
                    );
                }
            }
            PolicyVerdict::Allowed if drop.is_disagreement() => {
                self.disagreements
                    .add([direction, namespace, workload], drop.count);
            }
            PolicyVerdict::Allowed | PolicyVerdict::Unknown => {}
        }
    }

    /// All series of the counters of drops, for the process after this one.
    pub fn series(&self) -> Vec<Series> {
        let mut series = self.drops.export(DROPS.0, &DROPS.1);
        series.extend(self.policy_drops.export(POLICY_DROPS.0, &POLICY_DROPS.1));
        series.extend(self.invisible.export(INVISIBLE.0, &INVISIBLE.1));
        series.extend(self.disagreements.export(DISAGREEMENTS.0, &DISAGREEMENTS.1));
        series
    }

    /// Goes on counting where an earlier process ended. What it has no counter for is left out.
    pub fn restore(&self, series: &[Series]) {
        for one in series {
            match one.metric.as_str() {
                name if name == DROPS.0 => self.drops.restore(&DROPS.1, one),
                name if name == POLICY_DROPS.0 => self.policy_drops.restore(&POLICY_DROPS.1, one),
                name if name == INVISIBLE.0 => self.invisible.restore(&INVISIBLE.1, one),
                name if name == DISAGREEMENTS.0 => {
                    self.disagreements.restore(&DISAGREEMENTS.1, one);
                }
                _ => {}
            }
        }
    }

    /// Forgets series of workloads and policies that `cluster` has no longer and that have not counted for
    /// a quarter of an hour.
    pub fn expire(&self, cluster: &Cluster, now: Instant) {
        let Some(before) = now.checked_sub(EXPIRY) else {
            return;
        };
        let living = Living::of(cluster);
        self.drops.expire(
            before,
            |[.., source_in, source, destination_in, destination]| {
                living.has(source_in, source) && living.has(destination_in, destination)
            },
        );
        self.invisible.expire(before, |[_, namespace, workload]| {
            living.has(namespace, workload)
        });
        self.disagreements
            .expire(before, |[_, namespace, workload]| {
                living.has(namespace, workload)
            });
        self.policy_drops
            .expire(before, |[_, _, namespace, policy]| {
                cluster.has_policy(namespace, policy)
            });
    }

    /// Whether the cluster's state is whole and current, and until when it was followed.
    pub fn set_state(&self, synced: bool, followed_until: Option<Timestamp>) {
        self.read().set_state(synced, followed_until);
    }

    /// The text exposition format, with what others have counted and hold as of now.
    ///
    /// # Errors
    /// Where the encoder finds a metric it cannot write, which is a defect.
    pub fn render(&self, losses: Losses, sizes: &Sizes) -> prometheus::Result<String> {
        let read = self.read();
        read.set_losses(losses);
        read.set_sizes(sizes);
        read.set_series([
            (DROPS.0, self.drops.len()),
            (POLICY_DROPS.0, self.policy_drops.len()),
            (INVISIBLE.0, self.invisible.len()),
            (DISAGREEMENTS.0, self.disagreements.len()),
        ]);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn read(&self) -> std::sync::MutexGuard<'_, ReadAtScrape> {
        // A panic while holding it leaves counters that are still counters.
        self.read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whose series are of somebody who is there.
struct Living<'a>(HashSet<(&'a str, &'a str)>);

impl<'a> Living<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let of_pod = |pod: &'a Pod| {
            let workload = pod.workload.as_ref().map_or(&pod.id.name, |own| &own.name);
            (pod.id.namespace.as_str(), workload.as_str())
        };
        Self(cluster.pods().map(of_pod).collect())
    }

    /// An end that is no pod's is always there.
    fn has(&self, namespace: &str, workload: &str) -> bool {
        namespace.is_empty() || self.0.contains(&(namespace, workload))
    }
}

/// The sink that counts.
#[derive(Debug)]
pub struct Count(Arc<Metrics>);

impl Count {
    /// Counts into `metrics`.
    pub const fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }
}

impl super::Sink for Count {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> std::io::Result<()> {
        self.0.observe(drop);
        Ok(())
    }

    fn tidy(&mut self, cluster: &Cluster) {
        self.0.expire(cluster, Instant::now());
    }
}

fn owner(peer: Option<&Peer>) -> (&str, &str) {
    let Some(peer) = peer else { return ("", "") };
    (
        peer.namespace.as_deref().unwrap_or(""),
        // A pod without a controller is its own workload: its name is no churning series.
        peer.workload
            .as_deref()
            .or(peer.pod.as_deref())
            .unwrap_or(""),
    )
}

struct Family<'a> {
    registry: &'a Registry,
    folded: &'a IntCounterVec,
    max_series: usize,
}

impl Family<'_> {
    fn counter<const N: usize>(
        &self,
        (name, labels): (&str, [&str; N]),
        help: &str,
        foldable_from: usize,
    ) -> prometheus::Result<Capped<N>> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        self.registry.register(Box::new(family.clone()))?;
        let folded = self.folded.with_label_values(&[name]);
        Ok(Capped::new(family, folded, foldable_from, self.max_series))
    }
}

#[cfg(test)]
mod tests;
