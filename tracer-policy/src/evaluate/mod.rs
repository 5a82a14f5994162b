//! Evaluation of one flow.

mod party;
mod peer;
mod port;
mod service;
mod side;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use crate::cluster::{Cluster, Role};
use crate::flow::{End, Flow, Icmp};
use crate::model::Protocol;
use crate::ordered;
use crate::policy::{Direction, Policy};
use crate::profile::{Profile, ProfileName};
use crate::verdict::{Exemption, Outcome, Side, SideVerdict, Verdict};
pub(crate) use party::{Party, Who};
pub(crate) use port::{PortMatch, matches as match_ports};
pub(crate) use side::{Judged, namespaced};

/// What the API server gives out as node ports by default (`--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// What a flow is judged by.
pub(crate) struct Judge<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) profile: Profile,
    /// Policies that count as applied although the cluster does not hold them.
    pub(crate) overlay: &'a [Policy],
    /// Of which packet; `None`: of whatever would come now.
    pub(crate) packet: Option<Packet>,
}

/// A packet of a flow, seen on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When.
    pub time: Timestamp,
    /// Whether it answers the flow: then it came from whom the flow goes to.
    pub reply: bool,
}

impl Packet {
    /// What an end of its flow is to it: the one that opens it, or the other.
    const fn role(self, opens: bool) -> Role {
        if opens == self.reply {
            Role::Receiver
        } else {
            Role::Sender
        }
    }
}

/// A flow between two known parties, with addresses of one family.
pub(crate) struct Pair<'a> {
    pub(crate) from: &'a Party<'a>,
    pub(crate) to: &'a Party<'a>,
    pub(crate) from_ip: Option<IpAddr>,
    pub(crate) to_ip: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) icmp: Option<Icmp>,
    through_service: bool,
}

impl Cluster {
    /// Judges a flow by the cluster's profile.
    pub fn evaluate(&self, flow: &Flow) -> Verdict {
        self.evaluate_as(flow, self.profile())
    }

    /// Judges a flow by a given profile.
    pub fn evaluate_as(&self, flow: &Flow, profile: Profile) -> Verdict {
        Judge {
            cluster: self,
            profile,
            overlay: &[],
            packet: None,
        }
        .verdict(flow)
    }

    /// Judges a packet of a flow: addresses are those of the pods that had them then, as far as that is
    /// remembered.
    pub fn evaluate_at(&self, flow: &Flow, profile: Profile, packet: Packet) -> Verdict {
        Judge {
            cluster: self,
            profile,
            overlay: &[],
            packet: Some(packet),
        }
        .verdict(flow)
    }

    /// Judges a packet that answers a flow: it passes where the flow passes.
    ///
    /// `reply` is the packet's own flow and `source_port` its source port, which is the port the answered
    /// flow was opened to.
    pub fn evaluate_reply(&self, reply: &Flow, source_port: Option<u16>) -> Verdict {
        self.evaluate(&Flow {
            from: reply.to.clone(),
            to: reply.from.clone(),
            port: source_port,
            protocol: reply.protocol,
            // Of the answer, not of what it answers.
            icmp: None,
        })
    }

    /// Judges a flow as if `overlay` were applied as well.
    pub fn evaluate_with(&self, flow: &Flow, profile: Profile, overlay: &[Policy]) -> Verdict {
        Judge {
            cluster: self,
            profile,
            overlay,
            packet: None,
        }
        .verdict(flow)
    }
}

impl Judge<'_> {
    fn unknown(&self, reason: String) -> Verdict {
        Verdict {
            verdict: Outcome::Unknown,
            reason: Some(reason),
            ingress: Side::unknown(),
            egress: Side::unknown(),
            profile: self.profile.name,
            service: None,
            notes: Vec::new(),
        }
    }

    /// Who an end of the flow is: the one that opens it, or the other.
    fn party<'a>(&'a self, end: &End, opens: bool) -> Result<Party<'a>, String> {
        let packet = self.packet.map(|packet| (packet.time, packet.role(opens)));
        Party::of(self.cluster, end, packet)
    }

    pub(crate) fn verdict(&self, flow: &Flow) -> Verdict {
        if let Some(verdict) = self.of_claimants(flow) {
            return verdict;
        }
        let from = match self.party(&flow.from, true) {
            Ok(party) => party,
            Err(reason) => return self.unknown(reason),
        };
        if let End::Ip(ip) = flow.to
            && let Some(verdict) = self.through_service(&from, ip.to_canonical(), flow)
        {
            return verdict;
        }
        match self.party(&flow.to, false) {
            Ok(to) => self.parties(&from, &to, flow.port, flow, false),
            Err(reason) => self.unknown(reason),
        }
    }

    /// Judges a flow by each of the pods that claim the address of an end, where it cannot be said whose it is.
    /// (What was on its way at a known time is the history's matter.)
    fn of_claimants(&self, flow: &Flow) -> Option<Verdict> {
        if self.packet.is_some() {
            return None;
        }
        let claimed = |end: &End| match end {
            End::Ip(ip) => self.cluster.claimants(ip.to_canonical()),
            End::Pod(_) => Vec::new(),
        };
        let (mut end, mut pods) = (&flow.from, claimed(&flow.from));
        let is_from = !pods.is_empty();
        if !is_from {
            (end, pods) = (&flow.to, claimed(&flow.to));
        }
        let mut verdicts = pods.iter().map(|entry| {
            let mut flow = flow.clone();
            let end = End::Pod(entry.pod.id.clone());
            *(if is_from {
                &mut flow.from
            } else {
                &mut flow.to
            }) = end;
            self.verdict(&flow)
        });
        let mut first = verdicts.next()?;
        let differs = verdicts.any(|other| other.verdict != first.verdict);
        let names: Vec<_> = pods.iter().map(|entry| entry.pod.id.to_string()).collect();
        let claim = format!("{end} is claimed by pods {}", names.join(" and "));
        if differs {
            return Some(self.unknown(format!(
                "{claim}, and policies decide differently by which of them has it"
            )));
        }
        first.notes.push(claim);
        Some(first)
    }

    /// Judges a flow between two parties, over each family they share.
    fn parties(
        &self,
        from: &Party<'_>,
        to: &Party<'_>,
        port: Option<u16>,
        flow: &Flow,
        through_service: bool,
    ) -> Verdict {
        let pair = |from_ip, to_ip| Pair {
            from,
            to,
            from_ip,
            to_ip,
            port,
            protocol: flow.protocol,
            icmp: flow.icmp,
            through_service,
        };
        let mut addresses = party::shared_families(from.ips(), to.ips());
        // Ends of different families cannot meet, but each has the address an ipBlock is held against.
        let (from_ip, to_ip) = addresses
            .next()
            .unwrap_or_else(|| (from.ips().first().copied(), to.ips().first().copied()));
        let first_to = to_ip;
        let mut verdict = self.pair(&pair(from_ip, to_ip));
        for (from_ip, to_ip) in addresses {
            let other = self.pair(&pair(from_ip, to_ip));
            if other.verdict != verdict.verdict {
                verdict.notes.push(format!(
                    "this holds for {}; for {} the verdict is {}",
                    family(first_to),
                    family(to_ip),
                    match other.verdict {
                        Outcome::Allowed => "allowed",
                        Outcome::Denied => "denied",
                        Outcome::Unknown => "unknown",
                    }
                ));
            }
        }
        verdict
    }

    fn pair(&self, pair: &Pair<'_>) -> Verdict {
        let mut egress = self.side(pair, Direction::Egress);
        let mut ingress = self.side(pair, Direction::Ingress);
        let mut notes = Vec::new();
        if let Some(exemption) = self.exemption(pair) {
            let applies = |direction| match exemption {
                Exemption::NodeToOwnPod => direction == Direction::Ingress,
                Exemption::PodToOwnNode | Exemption::PodToOwnNodePort => {
                    direction == Direction::Egress
                }
                Exemption::Loopback | Exemption::Hairpin | Exemption::Icmp => true,
            };
            for (direction, judged) in [
                (Direction::Egress, &mut egress),
                (Direction::Ingress, &mut ingress),
            ] {
                if applies(direction) {
                    judged.exempt(exemption);
                }
            }
        } else if self.profile.name == ProfileName::Spec
            && ingress.side.verdict == SideVerdict::Denied
            && is_own_node(&pair.from.who, &pair.to.who)
        {
            notes.push(
                "most dataplanes let a node reach its own pods; profile `spec` does not assume it"
                    .to_owned(),
            );
        }
        let verdicts = [egress.side.verdict, ingress.side.verdict];
        let (verdict, reason) = if verdicts.contains(&SideVerdict::Denied) {
            (Outcome::Denied, None)
        } else if verdicts.contains(&SideVerdict::Unknown) {
            (
                Outcome::Unknown,
                egress.undecided.take().or(ingress.undecided.take()),
            )
        } else {
            match self.unread(pair) {
                Some(reason) => (Outcome::Unknown, Some(reason)),
                None => (Outcome::Allowed, None),
            }
        };
        if verdict == Outcome::Denied
            && let Some(reason) = self.cluster.unread_for(pod_namespaces(pair))
        {
            notes.push(reason);
        }
        Verdict {
            verdict,
            reason,
            ingress: ingress.side,
            egress: egress.side,
            profile: self.profile.name,
            service: None,
            notes,
        }
    }

    /// What could not be read that may stop a pair which nothing known stops.
    fn unread(&self, pair: &Pair<'_>) -> Option<String> {
        let policies = self.cluster.unread_for(pod_namespaces(pair));
        let ends = [(&pair.from.who, pair.from_ip), (&pair.to.who, pair.to_ip)];
        policies.or_else(|| {
            ends.into_iter()
                .filter(|(who, _)| matches!(who, Who::External))
                .find_map(|(_, ip)| self.cluster.unread_at(ip?))
        })
    }

    fn side(&self, pair: &Pair<'_>, direction: Direction) -> Judged {
        let subject = match direction {
            Direction::Ingress => pair.to,
            Direction::Egress => pair.from,
        };
        match &subject.who {
            Who::Pod { entry, .. } if self.cluster.ordered().is_empty() => {
                namespaced(self, pair, direction, entry)
            }
            Who::Pod { entry, .. } => ordered::judge(self, pair, direction, entry),
            Who::Node(_) | Who::External | Who::Untold => Judged::not_isolated(),
        }
    }

    /// Why the dataplane would let this pair through whatever the policies say.
    fn exemption(&self, pair: &Pair<'_>) -> Option<Exemption> {
        let profile = &self.profile;
        let (from, to) = (&pair.from.who, &pair.to.who);
        if let (Who::Pod { entry: a, .. }, Who::Pod { entry: b, .. }) = (from, to)
            && a.pod.id == b.pod.id
        {
            if !pair.through_service {
                return Some(Exemption::Loopback);
            }
            if profile.pod_reaches_itself {
                return Some(Exemption::Hairpin);
            }
        }
        if profile.icmp_passes && passes_as_icmp(pair) {
            return Some(Exemption::Icmp);
        }
        if profile.node_reaches_own_pods && is_own_node(from, to) {
            return Some(Exemption::NodeToOwnPod);
        }
        if profile.pod_reaches_own_node && is_own_node(to, from) {
            return Some(Exemption::PodToOwnNode);
        }
        if profile.pod_reaches_own_node_ports
            && pair.port.is_some_and(|port| NODE_PORTS.contains(&port))
            && is_own_node(to, from)
        {
            return Some(Exemption::PodToOwnNodePort);
        }
        None
    }
}

/// The namespaces of the ends that are pods.
fn pod_namespaces<'a>(pair: &Pair<'a>) -> [Option<&'a str>; 2] {
    [pair.from, pair.to].map(|party| match &party.who {
        Who::Pod { entry, .. } => Some(entry.pod.id.namespace.as_str()),
        Who::Node(_) | Who::External | Who::Untold => None,
    })
}

/// Whether kube-router's common chain accepts a message: echo requests, errors, neighbour discovery. One of
/// which nothing more is known counts as such.
fn passes_as_icmp(pair: &Pair<'_>) -> bool {
    let is_one_of = |kinds: &[u8]| pair.icmp.is_none_or(|icmp| kinds.contains(&icmp.kind));
    match pair.protocol {
        Protocol::Icmp => is_one_of(&[3, 8, 11]),
        Protocol::Icmpv6 => is_one_of(&[1, 3, 128, 133, 134, 135, 136]),
        _ => false,
    }
}

fn is_own_node(node: &Who<'_>, pod: &Who<'_>) -> bool {
    match (node, pod) {
        (Who::Node(Some(node)), Who::Pod { entry, .. }) => entry.pod.node.as_deref() == Some(*node),
        _ => false,
    }
}

fn family(ip: Option<IpAddr>) -> &'static str {
    match ip {
        Some(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}
