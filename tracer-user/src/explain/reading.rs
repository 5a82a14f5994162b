//! Which way round a packet's flow is: does it ask, or does it answer?

use std::net::IpAddr;

use tracer_policy::model::Protocol;
use tracer_policy::{Cluster, Owner};

use crate::decode::TcpFlags;
use crate::enrich::Ends;

/// The lowest port that a kernel gives a client by itself (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL: u16 = 32768;

/// Which way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It goes to who serves.
    Question,
    /// It comes from who serves.
    Answer,
    /// It may be either.
    Unclear,
    /// It reports on another flow, or keeps a link alive: neither.
    Aside,
}

/// One end of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

pub(super) fn of(ends: &Ends<'_>, cluster: &Cluster) -> Reading {
    let flow = ends.flow;
    let source = Half {
        owner: ends.source,
        ip: flow.source,
        port: flow.source_port,
    };
    let destination = Half {
        owner: ends.destination,
        ip: flow.destination,
        port: flow.destination_port,
    };
    let icmp = flow.icmp.map(|icmp| icmp.kind);
    read(
        (source, destination),
        flow.protocol,
        flow.tcp_flags,
        icmp,
        cluster,
    )
}

/// Reads TCP flags and ICMP types first, then what is declared to listen, then who has a client's port.
pub(crate) fn read(
    (source, destination): (Half<'_>, Half<'_>),
    protocol: Protocol,
    flags: Option<TcpFlags>,
    icmp: Option<u8>,
    cluster: &Cluster,
) -> Reading {
    match (flags, icmp) {
        (Some(flags), _) if flags.is_initial_syn() => return Reading::Question,
        (Some(flags), _) if flags.is_syn_ack() => return Reading::Answer,
        // Echo request and reply of either family.
        (_, Some(8 | 128)) => return Reading::Question,
        (_, Some(0 | 129)) => return Reading::Answer,
        (_, Some(_)) => return Reading::Aside,
        _ => {}
    }
    let (Some(from), Some(to)) = (source.port, destination.port) else {
        return Reading::Question;
    };
    let answers = serves(source.owner, source.ip, from, protocol, cluster);
    let asks = serves(destination.owner, destination.ip, to, protocol, cluster);
    match (asks, answers) {
        (true, false) => Reading::Question,
        (false, true) => Reading::Answer,
        _ if from < FIRST_EPHEMERAL && to >= FIRST_EPHEMERAL => Reading::Answer,
        _ if to < FIRST_EPHEMERAL && from >= FIRST_EPHEMERAL => Reading::Question,
        _ => Reading::Unclear,
    }
}

/// Whether something is declared to listen there: a container port or probe, a Service, an endpoint.
fn serves(owner: Owner<'_>, ip: IpAddr, port: u16, protocol: Protocol, cluster: &Cluster) -> bool {
    if let Owner::Pod(pod) = owner {
        let declared = pod
            .ports
            .iter()
            .any(|own| own.port == port && own.protocol == protocol);
        let probed = || protocol == Protocol::Tcp && pod.probes.iter().any(|own| own.port == port);
        if declared || probed() {
            return true;
        }
    }
    cluster.service_at(ip, port, protocol).is_some()
        || !cluster.services_behind(ip, port, protocol).is_empty()
}
