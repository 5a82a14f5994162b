//! What the application will see: the words of Go's and libc's errors, since these are what people
//! search for.

use tracer_policy::model::{Probe, ProbeKind, Protocol};

use crate::decode::{Action, Flow, Icmp};
use crate::record::Class;

/// What comes of a packet's death; `None` where nobody notices.
pub fn symptom(
    flow: &Flow,
    action: Option<Action>,
    class: Option<Class>,
    probe: Option<&Probe>,
) -> Option<String> {
    if is_neighbour_discovery(flow) {
        return Some("IPv6 neighbours are not found: no route to host".to_owned());
    }
    if class == Some(Class::IcmpControl) {
        return Some(
            "large packets vanish or errors come late (path MTU, time exceeded)".to_owned(),
        );
    }
    let outcome = match flow.protocol {
        Protocol::Tcp => tcp(flow, action, class, probe.is_some()),
        Protocol::Udp if class == Some(Class::Dns) => match action {
            Some(Action::RejectIcmp(_)) => "lookup fails: connection refused",
            _ => "lookup fails: i/o timeout",
        },
        Protocol::Udp | Protocol::Sctp => match action {
            Some(Action::RejectIcmp(icmp)) => refused(flow.protocol, icmp),
            _ => "i/o timeout",
        },
        Protocol::Icmp | Protocol::Icmpv6 => match action {
            Some(Action::RejectIcmp(_)) => "ping: destination unreachable",
            _ => "ping: 100% packet loss",
        },
        Protocol::Other(_) => return None,
    };
    let Some(probe) = probe else {
        return Some(match class.and_then(teller) {
            Some(teller) => format!("{teller}: {outcome}"),
            None => outcome.to_owned(),
        });
    };
    let kind = match probe.kind {
        ProbeKind::Startup => "startup probe failed",
        ProbeKind::Readiness => "readiness probe failed",
        ProbeKind::Liveness => "liveness probe failed",
        ProbeKind::Lifecycle => "lifecycle hook failed",
    };
    Some(format!("{kind}: {outcome}"))
}

/// Where people meet the error when it is not the sender's own log.
const fn teller(class: Class) -> Option<&'static str> {
    match class {
        Class::Webhook => Some("failed calling webhook"),
        Class::AggregatedApi => Some("the server is currently unable to handle the request"),
        Class::MetricsScrape => Some("Prometheus target down"),
        Class::IngressController => Some("ingress answers 502 or 504"),
        _ => None,
    }
}

/// Router and neighbour solicitation, advertisement and redirect (RFC 4861).
fn is_neighbour_discovery(flow: &Flow) -> bool {
    flow.protocol == Protocol::Icmpv6
        && flow
            .icmp
            .is_some_and(|icmp| (133..=137).contains(&icmp.kind))
}

fn tcp(flow: &Flow, action: Option<Action>, class: Option<Class>, probe: bool) -> &'static str {
    let opening = flow
        .tcp_flags
        .is_none_or(|flags| flags.is_initial_syn() || flags.is_syn_ack());
    match action {
        Some(Action::RejectTcpReset) if opening => "connection refused",
        Some(Action::RejectTcpReset) => "connection reset by peer",
        Some(Action::RejectIcmp(icmp)) if opening => refused(flow.protocol, icmp),
        // An established socket takes ICMP errors for passing trouble and goes on sending.
        _ if probe => "context deadline exceeded",
        _ if opening => "i/o timeout",
        _ if class == Some(Class::ApiserverEgress) => "net/http: TLS handshake timeout",
        _ => "TLS handshake timeout, EOF or i/o timeout",
    }
}

/// The error a socket gets for an ICMP message: `icmp_err_convert` in `net/ipv4/icmp.c` and `tab_unreach`
/// in `net/ipv6/icmp.c`.
fn refused(protocol: Protocol, icmp: Icmp) -> &'static str {
    match (icmp.kind, icmp.code) {
        (3, 2) => "protocol not available",
        (3, 3) | (1, 4) => "connection refused",
        (3, 0 | 6 | 9 | 11) | (1, 0) => "network is unreachable",
        (3, _) | (1, 3) => "no route to host",
        (1, 1 | 5 | 6) => "permission denied",
        _ if protocol == Protocol::Tcp => "i/o timeout",
        _ => "host unreachable",
    }
}
