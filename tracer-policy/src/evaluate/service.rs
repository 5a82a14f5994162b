//! Flows to a Service's address: policies judge what comes out behind it.

use std::net::IpAddr;

use super::party::Party;
use super::{Judge, Pair};
use crate::cluster::Backends;
use crate::flow::{End, Flow};
use crate::model::{Service, ServicePort};
use crate::policy::Direction;
use crate::verdict::{EndpointVerdict, Outcome, ServiceHop, SideVerdict, Verdict};

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
        let service = cluster.services_by_ip(ip).next()?;
        if cluster.pod_entry_at(ip).is_some() {
            return None;
        }
        let Some((service, port)) = flow
            .port
            .and_then(|port| cluster.service_at(ip, port, flow.protocol))
        else {
            // A load balancer's address may be a node's own: other ports of it are the node's.
            if cluster.node_at(ip).is_some() {
                return None;
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
        Some(self.behind(from, flow, service, port, &backends))
    }

    fn behind(
        &self,
        from: &Party<'_>,
        flow: &Flow,
        service: &Service,
        port: &ServicePort,
        backends: &Backends,
    ) -> Verdict {
        let mut shown: Option<Verdict> = None;
        let mut endpoints = Vec::with_capacity(backends.serving.len());
        for (ip, port) in &backends.serving {
            let verdict = match self.party(&End::Ip(*ip), false) {
                Ok(to) => self.parties(from, &to, Some(*port), flow.protocol, true),
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
