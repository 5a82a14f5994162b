//! One sentence: what to do.

use std::net::IpAddr;

use ipnet::IpNet;
use tracer_policy::Cluster;
use tracer_policy::model::Pod;

use crate::enrich::Ends;
use crate::record::{Class, Direction, PolicyInfo, PolicyVerdict};

/// What to do about a drop, right for its class.
pub fn hint(
    ends: &Ends<'_>,
    reply: bool,
    class: Option<Class>,
    policy: Option<&PolicyInfo>,
    cluster: &Cluster,
) -> Option<String> {
    match class {
        Some(Class::CloudMetadata) => {
            return Some(
                "leave it blocked unless the pod really needs the cloud's metadata".into(),
            );
        }
        Some(Class::IcmpControl) => {
            return Some(
                "no NetworkPolicy can name ICMP: look at the CNI and the host firewall".into(),
            );
        }
        _ => {}
    }
    let policy = policy?;
    match policy.verdict {
        PolicyVerdict::Unknown => return None,
        PolicyVerdict::Allowed => {
            return Some(
                "no policy denies this: look for a stale rule, a CNI bug or a host firewall".into(),
            );
        }
        PolicyVerdict::Denied => {}
    }
    let flow = ends.flow;
    let (client, server, port) = if reply {
        (flow.destination, flow.source, flow.source_port)
    } else {
        (flow.source, flow.destination, flow.destination_port)
    };
    let on = port
        .map(|port| format!(" on {} {port}", flow.protocol))
        .unwrap_or_default();
    let (client_pod, server_pod) = if reply {
        (ends.destination_pod(), ends.source_pod())
    } else {
        (ends.source_pod(), ends.destination_pod())
    };
    Some(match (class, policy.direction) {
        (Some(Class::KubeletProbe), _) => {
            format!(
                "allow ingress from the node's own address {}{on} (ipBlock)",
                host(client)
            )
        }
        (Some(Class::ApiserverEgress), _) => {
            let (ip, port, more) = api_server(cluster, server, port);
            let more = if more > 0 {
                format!(" and {more} more masters")
            } else {
                String::new()
            };
            let on = port
                .map(|port| format!(" on {} {port}", flow.protocol))
                .unwrap_or_default();
            format!(
                "allow egress to the API server {}{more}{on} (ipBlock)",
                host(ip)
            )
        }
        (Some(Class::Dns), Some(Direction::Egress) | None) => {
            format!(
                "allow egress to {}{on}, UDP and TCP",
                whom(server_pod, server)
            )
        }
        (_, Some(Direction::Ingress)) => {
            format!("allow ingress from {}{on}", whom(client_pod, client))
        }
        (_, Some(Direction::Egress) | None) => {
            format!("allow egress to {}{on}", whom(server_pod, server))
        }
    })
}

/// The API server's own address and port, after translation, and how many more there are.
fn api_server(cluster: &Cluster, seen: IpAddr, port: Option<u16>) -> (IpAddr, Option<u16>, usize) {
    let endpoints = cluster.api_server_endpoints();
    let first = endpoints
        .iter()
        .find(|(ip, _)| *ip == seen)
        .or_else(|| endpoints.first());
    match first {
        Some((ip, own)) => (*ip, Some(*own), endpoints.len() - 1),
        None => (seen, port, 0),
    }
}

fn whom(pod: Option<&Pod>, ip: IpAddr) -> String {
    match pod {
        Some(pod) => {
            let name = pod
                .workload
                .as_ref()
                .map_or(&pod.id.name, |workload| &workload.name);
            format!("{}/{name}", pod.id.namespace)
        }
        None => format!("{} (ipBlock)", host(ip)),
    }
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}
