//! One sentence: what to do.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tracer_policy::model::{ObjectRef, Protocol};
use tracer_policy::{Cluster, Owner};

use crate::enrich::{Ends, Known};
use crate::explain::Explanation;
use crate::record::{Class, Direction, PolicyVerdict};

/// What to do about a drop, right for its class. `live`: the cluster is followed, so that nobody need refresh it.
pub fn hint(
    ends: &Ends<'_>,
    class: Option<Class>,
    explained: Option<&Explanation>,
    cluster: &Cluster,
    live: bool,
) -> Option<String> {
    match class {
        Some(Class::CloudMetadata) => {
            return Some(
                "leave it blocked unless the pod really needs the cloud's metadata".into(),
            );
        }
        Some(Class::ConntrackInvalid) => {
            return Some(
                "not a policy: conntrack lost this connection (see nf_conntrack_tcp_be_liberal)"
                    .into(),
            );
        }
        Some(Class::PolicyRace) => {
            return Some(
                "no policy denies this: its rules were likely not in place yet; look again if it lasts"
                    .into(),
            );
        }
        Some(Class::IcmpControl) => {
            return Some(
                "no NetworkPolicy can name ICMP: look at the CNI and the host firewall".into(),
            );
        }
        _ => {}
    }
    let explained = explained?;
    let Explanation {
        policy,
        reply,
        reason,
        ..
    } = explained;
    let unheld = [
        (ends.source_known, ends.flow.source),
        (ends.destination_known, ends.flow.destination),
    ];
    if let Some((_, ip)) = unheld.iter().find(|(known, _)| *known == Known::Unheld) {
        let what = if live {
            "its pod came or went just then, or there is none"
        } else {
            "refresh --cluster"
        };
        return Some(format!(
            "no pod known here has {ip}, an address of the pods' range: {what}"
        ));
    }
    match policy.verdict {
        PolicyVerdict::Unknown => return reason.clone(),
        PolicyVerdict::Allowed => {
            return Some(
                "no policy denies this: look for a stale rule, a CNI bug or a host firewall".into(),
            );
        }
        PolicyVerdict::Denied => {}
    }
    if let Some(rule) = &policy.denied_by {
        let rank = if explained.overruled {
            "no NetworkPolicy can override it"
        } else {
            "a NetworkPolicy that isolates the pod and allows this would be asked first"
        };
        return Some(format!(
            "{} {} denies this by {}: {rank}",
            rule.policy.kind, rule.policy.name, rule.rule
        ));
    }
    let flow = ends.flow;
    let (client, server) = if *reply {
        (
            Named::of(ends.destination, flow.destination, None),
            Named::of(ends.source, flow.source, flow.source_port),
        )
    } else {
        (
            Named::of(ends.source, flow.source, None),
            Named::of(ends.destination, flow.destination, flow.destination_port),
        )
    };
    let server = server.behind_service(flow.protocol, cluster);
    let on = |port: Option<u16>| {
        port.map(|port| format!(" on {} {port}", flow.protocol))
            .unwrap_or_default()
    };
    Some(match (class, policy.direction) {
        (Some(Class::KubeletProbe), _) => {
            let (node, on) = (IpNet::from(client.ip), on(server.port));
            format!("allow ingress from the node's own address {node}{on} (ipBlock)")
        }
        (Some(Class::Webhook | Class::AggregatedApi), Some(Direction::Ingress)) => {
            let (node, on) = (IpNet::from(client.ip), on(server.port));
            format!(
                "allow ingress from the API server's nodes, of which this is {node}{on} (ipBlock)"
            )
        }
        (Some(Class::ApiserverEgress), _) => {
            let (ip, port, more) = api_server(cluster, &server);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more masters"),
            };
            let (ip, on) = (IpNet::from(ip), on(port));
            format!("allow egress to the API server {ip}{more}{on} (ipBlock)")
        }
        (Some(Class::Dns), Some(Direction::Egress) | None) => {
            let port = server.port.unwrap_or(super::dns::PORT);
            format!("allow egress to {server} on UDP {port} and TCP {port}")
        }
        (Some(Class::NodePort), Some(Direction::Ingress)) => {
            let (node, on) = (IpNet::from(client.ip), on(server.port));
            format!(
                "it came through a NodePort, which hides the sender behind {node}: set \
                 externalTrafficPolicy: Local, or allow ingress from {node}{on} (ipBlock)"
            )
        }
        (Some(Class::StatefulsetPeer), Some(side)) => {
            let on = on(server.port);
            format!(
                "let {server}'s pods reach each other: allow {} {} their own podSelector{on}, and the \
                 other direction where it is isolated",
                side.as_str(),
                match side {
                    Direction::Ingress => "from",
                    Direction::Egress => "to",
                },
            )
        }
        (_, Some(Direction::Ingress)) => {
            format!("allow ingress from {client}{}", on(server.port))
        }
        (_, Some(Direction::Egress) | None) => {
            format!("allow egress to {server}{}", on(server.port))
        }
    })
}

/// An end as a policy would name it.
struct Named {
    name: Option<String>,
    ip: IpAddr,
    port: Option<u16>,
    service: Option<ObjectRef>,
}

impl Named {
    fn of(owner: Owner<'_>, ip: IpAddr, port: Option<u16>) -> Self {
        let (name, service) = match owner {
            Owner::Pod(pod) => {
                let workload = pod.workload.as_ref();
                let name = workload.map_or(&pod.id.name, |workload| &workload.name);
                (Some(format!("{}/{name}", pod.id.namespace)), None)
            }
            Owner::Service(service) => (Some(service.id.to_string()), Some(service.id.clone())),
            Owner::Node(..) | Owner::External => (None, None),
        };
        Self {
            name,
            ip,
            port,
            service,
        }
    }

    /// Policies judge what stands behind a Service: its port is the endpoint's.
    fn behind_service(mut self, protocol: Protocol, cluster: &Cluster) -> Self {
        let Some(port) = self.port.filter(|_| self.service.is_some()) else {
            return self;
        };
        if let Some((service, own)) = cluster.service_at(self.ip, port, protocol) {
            let mut backends = cluster.backends(&service.id, own).into_iter();
            let same_family = backends.find(|(ip, _)| ip.is_ipv4() == self.ip.is_ipv4());
            self.port = same_family.map(|(_, port)| port).or(self.port);
        }
        self
    }
}

/// `namespace/workload`, or the address as an `ipBlock` has it.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{} (ipBlock)", IpNet::from(self.ip)),
        }
    }
}

/// The API server's own address and port, after translation, and how many more there are.
fn api_server(cluster: &Cluster, seen: &Named) -> (IpAddr, Option<u16>, usize) {
    let mut endpoints = cluster.api_server_endpoints();
    endpoints.retain(|(ip, _)| ip.is_ipv4() == seen.ip.is_ipv4());
    let first = endpoints
        .iter()
        .find(|(ip, _)| *ip == seen.ip)
        .or_else(|| endpoints.first());
    match first {
        Some((ip, port)) => (*ip, Some(*port), endpoints.len() - 1),
        None => (seen.ip, seen.port, 0),
    }
}
