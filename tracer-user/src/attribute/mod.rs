//! Raw drop → attributed, explained, classified drop: the pure middle of the pipeline in one call.

mod again;
mod inner;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tracer_policy::Cluster;
use tracer_policy::model::{Handler, Probe, ProbeKind};

use crate::classify::{self, Classified, Tracking};
use crate::correlate::Correlator;
use crate::decode::{Action, Device, Hook, Icmp, RawDrop, Story};
use crate::enrich::{Ends, PodRanges, stranger, tell};
use crate::explain::explain;
use crate::record::{
    Class, Drop, DropAction, DropInfo, IcmpHeader, Peer, PeerKind, PolicyVerdict, ProbeInfo,
};

/// Of a packet that policies do not allow anyway.
const INVALID: &str =
    "conntrack calls it INVALID, which most enforcers drop before they ask a policy";

/// Network namespaces in which connection tracking is at work: where it knew a packet.
#[derive(Clone, Debug, Default)]
struct AtWork(HashSet<u32>);

impl AtWork {
    /// Namespaces remembered, at most: a node has one that matters, and one a pod.
    const MOST: usize = 4096;

    /// Whether it is where a packet was dropped.
    fn at_work(&mut self, raw: &RawDrop) -> bool {
        let Some(netns) = raw.netns else {
            return false;
        };
        if raw.story.tracked == Some(true) && self.0.len() < Self::MOST {
            self.0.insert(netns);
        }
        self.0.contains(&netns)
    }
}

/// Knows the node and, where there is one, the cluster.
#[derive(Clone, Debug)]
pub struct Attributor {
    node: String,
    cluster: Option<Arc<Cluster>>,
    ranges: PodRanges,
    correlator: Correlator,
    tracking: AtWork,
    /// Whether the cluster is whole enough to be asked.
    known: bool,
    /// Whether it changes as the real one does.
    live: bool,
}

impl Attributor {
    /// `cluster`: `None` leaves addresses as they are.
    pub fn new(node: String, cluster: Option<Arc<Cluster>>) -> Self {
        let ranges = cluster.as_deref().map(PodRanges::of).unwrap_or_default();
        Self {
            node,
            cluster,
            ranges,
            correlator: Correlator::default(),
            tracking: AtWork::default(),
            known: true,
            live: false,
        }
    }

    /// Over a cluster that is followed: from `cluster`, which is `known` where it is worth being asked.
    pub fn live(node: String, cluster: Cluster, known: bool) -> Self {
        Self {
            known,
            live: true,
            ..Self::new(node, Some(Arc::new(cluster)))
        }
    }

    /// The cluster, where there is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// The cluster, to be changed; [`Attributor::nodes_changed`] is to follow where nodes were.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        Arc::make_mut(self.cluster.get_or_insert_default())
    }

    /// Learns from nodes anew which addresses are pods'.
    pub fn nodes_changed(&mut self) {
        self.ranges = self
            .cluster
            .as_deref()
            .map(PodRanges::of)
            .unwrap_or_default();
    }

    /// Brings what is remembered up to a clock that was set ahead by `step`, or back.
    pub fn clock_was_set(&mut self, step: SignedDuration) {
        self.correlator.clock_was_set(step);
        if self.cluster.is_some() {
            self.cluster_mut().clock_was_set(step);
        }
    }

    /// Whether the cluster is whole enough to be asked; before that, drops stay addresses.
    pub const fn set_known(&mut self, known: bool) {
        self.known = known;
    }

    /// Whether both ends of a drop are somebody the cluster knows, or nobody's of whom it could; not where one
    /// had been a pod's that is gone, and may be another's who is not known yet.
    pub fn knows(&self, raw: &RawDrop, time: Timestamp) -> bool {
        match (&raw.flow, self.cluster.as_deref()) {
            (Some(flow), Some(cluster)) => {
                !Ends::of(flow, &raw.story, time, cluster, &self.ranges).has_unheld()
                    && [flow.source, flow.destination]
                        .iter()
                        .all(|ip| !cluster.is_leftover(*ip, time))
            }
            _ => true,
        }
    }

    /// Attributes a drop that happened at `time` on this node.
    pub fn attribute(&mut self, raw: &RawDrop, time: Timestamp) -> Drop {
        let mut drop = self.judge(raw, time);
        self.correlate(&mut drop);
        drop
    }

    /// Adds to a judged drop what those before it tell. They are to come in the order of their times, as far as
    /// may be.
    pub fn correlate(&mut self, drop: &mut Drop) {
        if let Some(cluster) = &self.cluster {
            self.correlator.correlate(drop, cluster);
        }
    }

    /// As [`Attributor::attribute`], but for what only the drops before it tell.
    pub fn judge(&mut self, raw: &RawDrop, time: Timestamp) -> Drop {
        let mut drop = bare(raw, time, self.node.clone());
        let at_work = self.tracking.at_work(raw);
        let (Some(flow), Some(cluster)) = (&raw.flow, &self.cluster) else {
            return drop;
        };
        if !self.known {
            return drop;
        }
        let ends = Ends::of(flow, &raw.story, time, cluster, &self.ranges);
        let (source, destination) = ends.peers(cluster);
        drop.source = Some(source);
        drop.destination = Some(destination);
        if let Some(carried) = &raw.inner {
            let story = Story::default();
            let ends = Ends::of(&carried.flow, &story, time, cluster, &self.ranges);
            drop.inner = Some(Box::new(inner::record(carried, ends.peers(cluster))));
        }
        let explained = explain(raw, &ends, cluster);
        let reply = explained.as_ref().map_or_else(
            || {
                flow.tcp_flags
                    .is_some_and(crate::decode::TcpFlags::is_syn_ack)
            },
            |explained| explained.reply,
        );
        let Classified { mut class, probe } = classify::classify(&ends, reply, cluster);
        let tracking = Tracking::of(raw, at_work);
        let verdict = explained.as_ref().map(|explained| explained.policy.verdict);
        if verdict == Some(PolicyVerdict::Allowed) {
            if tracking != Tracking::Valid {
                class = Some(Class::ConntrackInvalid);
            } else if let Some(young) = classify::race(&ends, cluster) {
                class = Some(Class::PolicyRace);
                drop.notes.push(young);
            }
        } else if tracking == Tracking::Invalid {
            drop.notes.push(INVALID.to_owned());
        }
        drop.class = class;
        drop.probe = probe.map(probe_info);
        drop.symptom = classify::symptom(flow, raw.action, class, probe);
        drop.hint = classify::hint(&ends, class, explained.as_ref(), cluster, self.live)
            .or_else(|| inner::hint(raw, flow));
        let policy = explained.map(|explained| explained.policy);
        drop.direction = policy.as_ref().and_then(|policy| policy.direction);
        drop.policy = policy;
        drop
    }
}

/// What the packet alone tells.
fn bare(raw: &RawDrop, time: Timestamp, node: String) -> Drop {
    let flow = raw.flow.as_ref();
    let (hook, datapath) = hook_names(raw.hook);
    let (action, reply) = match raw.action {
        None => (None, None),
        Some(Action::Drop) => (Some(DropAction::Drop), None),
        Some(Action::RejectIcmp(icmp)) => {
            let v6 = flow.is_some_and(|flow| flow.source.is_ipv6());
            (Some(DropAction::Reject), Some(icmp_name(icmp, v6)))
        }
        Some(Action::RejectTcpReset) => (Some(DropAction::Reject), Some("tcp reset".to_owned())),
    };
    let ends = flow.map(|flow| {
        let mut source = unknown(flow.source, flow.source_port);
        let mut destination = unknown(flow.destination, flow.destination_port);
        tell(&raw.story, &mut source, &mut destination);
        (source, destination)
    });
    let (source, destination) = ends.unzip();
    let chain = raw.story.chain.map(|chain| chain.to_string());
    let carried = raw.inner.as_ref().map(|carried| {
        let flow = &carried.flow;
        let ends = (
            unknown(flow.source, flow.source_port),
            unknown(flow.destination, flow.destination_port),
        );
        Box::new(inner::record(carried, ends))
    });
    Drop {
        time,
        node,
        count: raw.count,
        direction: None,
        class: None,
        source,
        destination,
        protocol: flow.map(|flow| flow.protocol.to_string()),
        tcp_flags: flow
            .and_then(|flow| flow.tcp_flags)
            .map(|flags| flags.names().map(str::to_owned).collect()),
        icmp: flow.and_then(|flow| flow.icmp).map(|icmp| IcmpHeader {
            kind: icmp.kind,
            code: icmp.code,
        }),
        inner: carried,
        drop: DropInfo {
            reason: raw.reason.name.clone(),
            action,
            reply,
            hook: chain.or_else(|| hook.map(str::to_owned)),
            location: raw.location.symbol.clone(),
            datapath: datapath.map(str::to_owned),
            programs: Vec::new(),
            enforcer: None,
            candidates: Vec::new(),
            evidence: Vec::new(),
            interface: raw.interface.as_ref().map(|(_, name)| name.clone()),
            input_interface: name(raw.story.devices.input.as_ref()),
            output_interface: name(raw.story.devices.output.as_ref()),
            netns: raw.netns,
        },
        policy: None,
        probe: None,
        symptom: None,
        hint: None,
        notes: Vec::new(),
    }
}

fn name(device: Option<&Device>) -> Option<String> {
    device?.name.clone()
}

fn unknown(ip: std::net::IpAddr, port: Option<u16>) -> Peer {
    stranger(ip, port, PeerKind::Unknown)
}

/// The hook and the datapath as the record names them.
const fn hook_names(hook: Option<Hook>) -> (Option<&'static str>, Option<&'static str>) {
    match hook {
        None => (None, None),
        Some(Hook::Netfilter) => (None, Some("netfilter")),
        Some(Hook::TcIngress) => (Some("tc ingress"), Some("tc")),
        Some(Hook::TcEgress) => (Some("tc egress"), Some("tc")),
        Some(Hook::Xdp) => (Some("xdp"), Some("xdp")),
        Some(Hook::CgroupEgress) => (Some("cgroup egress"), Some("cgroup")),
        Some(Hook::SocketFilter) => (Some("socket filter"), Some("socket")),
        Some(Hook::Security) => (Some("security"), Some("lsm")),
    }
}

/// An ICMP error by the name iptables gives it (`--reject-with`).
fn icmp_name(icmp: Icmp, v6: bool) -> String {
    let name = match (v6, icmp.kind, icmp.code) {
        (false, 3, 0) => "net-unreachable",
        (false, 3, 1) => "host-unreachable",
        (false, 3, 2) => "proto-unreachable",
        (false, 3, 3) | (true, 1, 4) => "port-unreachable",
        (false, 3, 9) => "net-prohibited",
        (false, 3, 10) => "host-prohibited",
        (false, 3, 13) => "admin-prohibited",
        (true, 1, 0) => "no-route",
        (true, 1, 1) => "adm-prohibited",
        (true, 1, 3) => "addr-unreachable",
        (true, 1, 5) => "policy-fail",
        (true, 1, 6) => "reject-route",
        _ => return format!("icmp {}/{}", icmp.kind, icmp.code),
    };
    format!("{} {name}", if v6 { "icmp6" } else { "icmp" })
}

/// The ICMP error of that name.
fn icmp_named(name: &str) -> Option<Icmp> {
    let mut refusals = (0..16).flat_map(|code| {
        [
            (false, Icmp { kind: 3, code }),
            (true, Icmp { kind: 1, code }),
        ]
    });
    refusals
        .find(|(v6, icmp)| icmp_name(*icmp, *v6) == name)
        .map(|(_, icmp)| icmp)
}

fn probe_info(probe: &Probe) -> ProbeInfo {
    ProbeInfo {
        kind: match probe.kind {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Lifecycle => "lifecycle",
        }
        .to_owned(),
        container: probe.container.clone(),
        handler: match &probe.handler {
            Handler::Http { tls: false, .. } => "http",
            Handler::Http { tls: true, .. } => "https",
            Handler::Tcp => "tcp",
            Handler::Grpc => "grpc",
        }
        .to_owned(),
        port: probe.port,
        period_seconds: probe.period_seconds,
    }
}

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod tests;
