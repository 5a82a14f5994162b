//! What kind of traffic it was: by packet and cluster state, never by a port number alone.

mod api_call;
mod dns;
mod hint;
mod node_port;
mod probe;
mod race;
mod symptom;
mod workload;

pub use hint::hint;
pub use race::race;
pub use symptom::symptom;

use std::net::IpAddr;

use tracer_policy::model::{Probe, Protocol};
use tracer_policy::{Cluster, Owner, is_metadata_service};

use crate::decode::{Flow, Hook, Point, RawDrop};
use crate::enrich::{Ends, Known};
use crate::record::Class;

/// A flow's class, and the probe it belongs to where it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified<'a> {
    /// The class; `None` between nodes, which is no traffic of pods, and where an end is not known.
    pub class: Option<Class>,
    /// For a kubelet probe: which.
    pub probe: Option<&'a Probe>,
}

/// Classifies a packet; `reply` turns it round, so that an answer has the class of its question.
pub fn classify<'a>(ends: &Ends<'a>, reply: bool, cluster: &'a Cluster) -> Classified<'a> {
    let flow = ends.flow;
    let way = if reply {
        Way {
            client: ends.destination,
            server: ends.source,
            server_ip: flow.source,
            port: flow.source_port,
            protocol: flow.protocol,
        }
    } else {
        Way {
            client: ends.source,
            server: ends.destination,
            server_ip: flow.destination,
            port: flow.destination_port,
            protocol: flow.protocol,
        }
    };
    let class = |class| Classified {
        class: Some(class),
        probe: None,
    };
    if is_metadata_service(way.server_ip, way.port) {
        return class(Class::CloudMetadata);
    }
    if is_control(flow) {
        return class(Class::IcmpControl);
    }
    if matches!(way.client, Owner::Pod(_)) && way.is_api_server(cluster) {
        return class(Class::ApiserverEgress);
    }
    if dns::serves(&way, cluster) {
        return class(Class::Dns);
    }
    if ends.source_known != Known::Yes || ends.destination_known != Known::Yes {
        return Classified {
            class: None,
            probe: None,
        };
    }
    if workload::is_scrape(&way, cluster) {
        return class(Class::MetricsScrape);
    }
    match (way.client, way.server) {
        (Owner::Node(node, _), Owner::Pod(pod)) => match probe::of(node, pod, &way) {
            Some(probe) => Classified {
                class: Some(Class::KubeletProbe),
                probe: Some(probe),
            },
            None if let Some(call) = api_call::class(&way, cluster) => class(call),
            None if node_port::is_through(&way, cluster) => class(Class::NodePort),
            None => class(Class::NodeToPod),
        },
        (Owner::Pod(_), Owner::Pod(_)) if let Some(call) = api_call::class(&way, cluster) => {
            class(call)
        }
        (Owner::Pod(_), Owner::Pod(_)) if node_port::is_through(&way, cluster) => {
            class(Class::NodePort)
        }
        (Owner::Pod(_), Owner::Pod(_)) if workload::is_from_ingress(&way, cluster) => {
            class(Class::IngressController)
        }
        (Owner::Pod(_), Owner::Pod(_)) if workload::are_peers(&way) => {
            class(Class::StatefulsetPeer)
        }
        // A Service's address that was not translated yet stands for the pods behind it.
        (Owner::Pod(_), Owner::Pod(_) | Owner::Service(_)) => class(Class::PodToPod),
        (Owner::Pod(_), Owner::Node(..)) => class(Class::PodToNode),
        (Owner::Node(..), Owner::Node(..) | Owner::Service(_)) => Classified {
            class: None,
            probe: None,
        },
        _ => class(Class::External),
    }
}

/// A flow from who opens it to who serves it.
#[derive(Clone, Copy)]
struct Way<'a> {
    client: Owner<'a>,
    server: Owner<'a>,
    server_ip: IpAddr,
    port: Option<u16>,
    protocol: Protocol,
}

impl Way<'_> {
    /// Whether it goes to the API server: an endpoint of Service `default/kubernetes`, or its virtual
    /// address before translation.
    fn is_api_server(&self, cluster: &Cluster) -> bool {
        self.protocol == Protocol::Tcp
            && self
                .port
                .is_some_and(|port| cluster.is_api_server(self.server_ip, port))
    }
}

/// What is to be made of connection tracking and a packet that netfilter dropped.
///
/// kube-router and Calico drop what conntrack calls INVALID before any policy is asked: stragglers of a
/// closed connection, packets that took another way than the first. That is no disagreement between
/// API and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// It was not INVALID, or nothing speaks for that.
    Valid,
    /// It may have been: it does not open a connection.
    Doubtful,
    /// It was.
    Invalid,
}

impl Tracking {
    /// `at_work`: whether connection tracking is known to look at packets where this one was.
    pub fn of(raw: &RawDrop, at_work: bool) -> Self {
        if raw.hook != Some(Hook::Netfilter) {
            return Self::Valid;
        }
        // Before these it may not have been looked at yet.
        let is_past = raw.story.chain.is_some_and(|chain| {
            !chain.bridge
                && matches!(
                    chain.point,
                    Point::Input | Point::Forward | Point::Postrouting
                )
        });
        let flags = raw.flow.as_ref().and_then(|flow| flow.tcp_flags);
        match raw.story.tracked {
            Some(true) => Self::Valid,
            Some(false) if at_work && is_past => Self::Invalid,
            _ if flags.is_some_and(|flags| !flags.is_initial_syn()) => Self::Doubtful,
            _ => Self::Valid,
        }
    }
}

/// ICMP that reports errors or keeps links alive: destination unreachable (path MTU among it), time
/// exceeded, parameter problem; for IPv6 also packet too big and neighbour discovery.
fn is_control(flow: &Flow) -> bool {
    let Some(icmp) = flow.icmp else { return false };
    match flow.protocol {
        Protocol::Icmp => matches!(icmp.kind, 3 | 11 | 12),
        Protocol::Icmpv6 => matches!(icmp.kind, 1..=4 | 133..=137),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
