//! Flows to a Service's address: policies judge what comes out behind it.

use std::net::IpAddr;

use super::party::{Party, Who};
use super::{Judge, Pair};
use crate::cluster::{Backends, PodEntry};
use crate::flow::{End, Flow};
use crate::model::{Service, ServicePort};
use crate::policy::Direction;
use crate::verdict::{EndpointVerdict, Outcome, ServiceHop, SideVerdict, Verdict};

/// What the way into a Service from outside may make of a flow's ends.
#[derive(Default)]
struct Entry<'a> {
    /// Who the receiver's policies may see instead of the sender.
    sources: Vec<Party<'a>>,
    /// Whom the sender's policies may see instead of the endpoint.
    target: Option<Party<'a>>,
}

impl Judge<'_> {
    /// Judges a flow to a Service's address by what stands behind it; `None` where `ip` is not judged as
    /// a Service's.
    pub(super) fn through_service(
        &self,
        from: &Party<'_>,
        ip: IpAddr,
        flow: &Flow,
    ) -> Option<Verdict> {
        let cluster = self.cluster;
        if cluster.pod_entry_at(ip).is_some() {
            return None;
        }
        let Some(service) = cluster.services_by_ip(ip).next() else {
            return self.through_node_port(from, ip, flow);
        };
        let Some((service, port)) = flow
            .port
            .and_then(|port| cluster.service_at(ip, port, flow.protocol))
        else {
            // A load balancer's address may be a node's own: other ports of it are the node's.
            if cluster.node_at(ip).is_some() {
                return self.through_node_port(from, ip, flow);
            }
            let what = flow.port.map_or_else(
                || format!("{} without a port", flow.protocol),
                |port| format!("port {port}/{}", flow.protocol),
            );
            return Some(self.nobody_behind(
                from,
                flow,
                format!(
                    "{ip} is the address of Service {}, which does not serve {what}",
                    service.id
                ),
            ));
        };
        let backends = cluster.serving_backends(service, port, ip.is_ipv4());
        let mut entry = Entry::default();
        // Whichever node it comes to.
        if service.external_ips.contains(&ip) && !service.keeps_sources {
            entry.sources.push(Party::node(None, Vec::new()));
        }
        Some(self.behind(from, flow, (service, port), &backends, &entry))
    }

    /// Judges a flow to a Service's port of a node; `None` where no Service answers there.
    fn through_node_port(&self, from: &Party<'_>, ip: IpAddr, flow: &Flow) -> Option<Verdict> {
        let cluster = self.cluster;
        let (node, _) = cluster.node_at(ip)?;
        let (service, port) = cluster.service_at_node_port(flow.port?, flow.protocol)?;
        let mut backends = cluster.serving_backends(service, port, ip.is_ipv4());
        let mut entry = Entry::default();
        if service.keeps_sources {
            backends.serving.retain(|(ip, _)| {
                let on_it =
                    |pod: &PodEntry| pod.pod.node.as_ref().is_none_or(|own| *own == node.name);
                cluster.pod_entry_at(*ip).is_none_or(on_it)
            });
        } else {
            let own = node
                .addresses
                .iter()
                .filter(|own| own.ip.is_ipv4() == ip.is_ipv4());
            entry
                .sources
                .extend(own.map(|own| Party::node(Some(&node.name), vec![own.ip])));
        }
        // Only the node itself translates what is sent to it.
        let elsewhere = match &from.who {
            Who::Pod { entry, .. } => entry.pod.node.as_ref() != Some(&node.name),
            Who::Node(_) | Who::External | Who::Untold => false,
        };
        entry.target = elsewhere.then(|| Party::node(Some(&node.name), vec![ip]));
        Some(self.behind(from, flow, (service, port), &backends, &entry))
    }

    fn behind(
        &self,
        from: &Party<'_>,
        flow: &Flow,
        (service, port): (&Service, &ServicePort),
        backends: &Backends,
        entry: &Entry<'_>,
    ) -> Verdict {
        let mut shown: Option<Verdict> = None;
        let mut endpoints = Vec::with_capacity(backends.serving.len());
        for (ip, port) in &backends.serving {
            let verdict = match self.party(&End::Ip(*ip), false) {
                Ok(to) => self.behind_entry(from, flow, (&to, *port), entry),
                Err(reason) => self.unknown(reason),
            };
            endpoints.push(EndpointVerdict {
                ip: *ip,
                port: *port,
                verdict: verdict.verdict,
            });
            let graver = |v: &Verdict| match v.verdict {
                Outcome::Allowed => 0,
                Outcome::Unknown => 1,
                Outcome::Denied => 2,
            };
            if shown.as_ref().is_none_or(|s| graver(&verdict) > graver(s)) {
                shown = Some(verdict);
            }
        }
        let Some(mut verdict) = shown else {
            let reason = format!(
                "Service {} has no endpoint for port {}/{}: no policy is asked",
                service.id, port.port, port.protocol
            );
            return self.nobody_behind(from, flow, reason);
        };
        let alike = endpoints
            .iter()
            .filter(|e| e.verdict == verdict.verdict)
            .count();
        if alike < endpoints.len() {
            verdict.notes.push(format!(
                "the verdict differs by endpoint: this one holds for {alike} of {}",
                endpoints.len()
            ));
        }
        if backends.none_ready {
            verdict
                .notes
                .push(format!("no endpoint of Service {} is ready", service.id));
        }
        if backends.by_selector {
            verdict.notes.push(format!(
                "no endpoints of Service {} are given: judged by the pods that it selects",
                service.id
            ));
        }
        verdict.service = Some(ServiceHop {
            id: service.id.clone(),
            endpoints,
        });
        verdict
    }

    /// Judges a flow to one endpoint; unknown where the verdict hangs on what the way in makes of its ends.
    fn behind_entry(
        &self,
        from: &Party<'_>,
        flow: &Flow,
        (to, port): (&Party<'_>, u16),
        entry: &Entry<'_>,
    ) -> Verdict {
        let mut verdict = self.parties(from, to, Some(port), flow, true);
        let (egress, ingress) = (&verdict.egress.verdict, &verdict.ingress.verdict);
        let passes = |side: &SideVerdict| match side {
            SideVerdict::Allowed | SideVerdict::NotIsolated => Some(true),
            SideVerdict::Denied => Some(false),
            SideVerdict::Unknown => None,
        };
        let by_source = entry.sources.iter().any(|source| {
            let seen = self.parties(source, to, Some(port), flow, true);
            passes(&seen.ingress.verdict) != passes(ingress)
        });
        let by_target = entry.target.as_ref().is_some_and(|target| {
            let seen = self.parties(from, target, flow.port, flow, false);
            passes(&seen.egress.verdict) != passes(egress)
        });
        let denied = (!by_source && passes(ingress) == Some(false))
            || (!by_target && passes(egress) == Some(false));
        if denied || !(by_source || by_target) || verdict.verdict == Outcome::Unknown {
            return verdict;
        }
        verdict.verdict = Outcome::Unknown;
        verdict.reason = Some(if by_source {
            verdict.ingress.verdict = SideVerdict::Unknown;
            "a node may put its own address in place of the sender's (externalTrafficPolicy: Cluster), and \
             policies decide differently by that"
                .to_owned()
        } else {
            verdict.egress.verdict = SideVerdict::Unknown;
            "the sender's policies decide differently by whether they see the node's address or the endpoint's"
                .to_owned()
        });
        verdict
    }

    /// Where nobody is known behind a Service: what the sender's policies deny whoever it is, is denied.
    fn nobody_behind(&self, from: &Party<'_>, flow: &Flow, reason: String) -> Verdict {
        let to = Party::untold();
        let pair = Pair {
            from,
            to: &to,
            from_ip: from.ips().first().copied(),
            to_ip: None,
            // Policies see the endpoint's.
            port: None,
            protocol: flow.protocol,
            icmp: flow.icmp,
            through_service: true,
        };
        let egress = self.side(&pair, Direction::Egress).side;
        let mut verdict = self.unknown(reason);
        if egress.verdict == SideVerdict::Denied {
            verdict.verdict = Outcome::Denied;
            verdict.notes.extend(verdict.reason.take());
            verdict.egress = egress;
        }
        verdict
    }
}
