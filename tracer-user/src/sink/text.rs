//! Words shared by the outputs for people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anstyle::{AnsiColor, Style};

use crate::record::{CarrierKind, Drop, Inner, Peer, PeerKind, PolicyInfo, PolicyVerdict};

/// Time and other things that only frame the line.
pub(super) const DIM: Style = Style::new().dimmed();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Whom it concerns.
pub(super) const NAME: Style = AnsiColor::Cyan.on_default();
/// What to do.
pub(super) const CURE: Style = AnsiColor::Green.on_default();
/// Who denies.
pub(super) const POLICY: Style = AnsiColor::Yellow.on_default();

/// `vault/vault-0`, `node-a(10.42.1.1)`, or the address.
pub(super) fn peer(peer: Option<&Peer>) -> String {
    let Some(peer) = peer else {
        return "?".to_owned();
    };
    match (&peer.namespace, &peer.pod, &peer.node) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, _, Some(node)) if peer.kind == PeerKind::Node => format!("{node}({})", peer.ip),
        _ => match (&peer.service, peer.kind) {
            (Some(service), PeerKind::Service) => format!("{}/{}", service.namespace, service.name),
            _ => peer.ip.to_string(),
        },
    }
}

/// As [`peer`], with the port where there is one.
pub(super) fn peer_with_port(end: Option<&Peer>) -> String {
    let mut text = peer(end);
    if let Some(Peer {
        port: Some(port),
        ip,
        ..
    }) = end
    {
        if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            text = format!("[{ip}]");
        }
        let _ = write!(text, ":{port}");
    }
    text
}

/// Who sent: as [`peer`], with the process where it was one of this machine.
pub(crate) fn source(end: Option<&Peer>) -> String {
    let mut text = peer(end);
    if let Some(process) = end.and_then(|end| end.process.as_ref()) {
        let _ = write!(text, " [{}]", process.name);
    }
    text
}

/// The hook, with the programs that stand there: `tc egress (cil_to_container)`.
pub(crate) fn hook(drop: &Drop) -> Option<String> {
    let hook = drop.drop.hook.as_deref()?;
    let names: Vec<_> = names(drop).collect();
    Some(if names.is_empty() {
        hook.to_owned()
    } else {
        format!("{hook} ({})", names.join(", "))
    })
}

/// The interface; of a packet that passes through, both: `cni0->eth0`.
pub(super) fn interface(drop: &Drop) -> Option<String> {
    match (&drop.drop.input_interface, &drop.drop.output_interface) {
        (Some(input), Some(output)) => Some(format!("{input}->{output}")),
        _ => drop.drop.interface.clone(),
    }
}

fn names(drop: &Drop) -> impl Iterator<Item = &str> {
    let programs = drop.drop.programs.iter();
    programs.filter_map(|program| program.name.as_deref())
}

/// What is said of a drop in sentences, beside its hint.
pub(crate) fn notes(drop: &Drop) -> impl Iterator<Item = Cow<'_, str>> {
    let carried = drop.inner.as_deref().map(inner);
    let own = enforcer(drop).into_iter().chain(carried).map(Cow::Owned);
    own.chain(drop.notes.iter().map(|note| Cow::Borrowed(note.as_str())))
}

/// Whose rules dropped it, and what says so: `dropped by kube-router (chains KUBE-POD-FW-*; it rejects by ICMP)`.
fn enforcer(drop: &Drop) -> Option<String> {
    let details = &drop.drop;
    if let Some(enforcer) = &details.enforcer {
        let evidence = details.evidence.join("; ");
        return Some(if evidence.is_empty() {
            format!("dropped by {enforcer}")
        } else {
            format!("dropped by {enforcer} ({evidence})")
        });
    }
    let candidates = &details.candidates;
    (!candidates.is_empty()).then(|| format!("dropped by one of {}", candidates.join(", ")))
}

/// What a packet carries: `carries vault/vault-0 → 10.43.0.10:53 UDP (VXLAN 1)`.
fn inner(inner: &Inner) -> String {
    let flow = format!(
        "{} → {} {}",
        source(Some(&inner.source)),
        destination(Some(&inner.destination)),
        inner.protocol
    );
    match (inner.carrier, inner.vni) {
        (CarrierKind::Vxlan, Some(vni)) => format!("carries {flow} (VXLAN {vni})"),
        (CarrierKind::Vxlan, None) => format!("carries {flow} (VXLAN)"),
        (CarrierKind::Ip, _) => format!("carries {flow} (IP in IP)"),
        (CarrierKind::IcmpError, _) => format!("an error about {flow}"),
    }
}

/// To whom: as [`peer_with_port`], with the Service or the address that led there.
pub(crate) fn destination(end: Option<&Peer>) -> String {
    let mut text = peer_with_port(end);
    let Some(original) = end.and_then(|end| end.original) else {
        return text;
    };
    let _ = match end.and_then(|end| end.service.as_ref()) {
        Some(service) => write!(
            text,
            " (by {}/{}:{})",
            service.namespace, service.name, original.port
        ),
        None => write!(
            text,
            " (by {})",
            SocketAddr::new(original.ip, original.port)
        ),
    };
    text
}

/// Protocol, with the ICMP type and code where it is ICMP.
pub(super) fn protocol(drop: &Drop) -> String {
    match (&drop.protocol, drop.icmp) {
        (Some(protocol), Some(icmp)) => format!("{protocol} {}/{}", icmp.kind, icmp.code),
        (Some(protocol), None) => protocol.clone(),
        (None, _) => "?".to_owned(),
    }
}

/// Who denies it: one policy, how many more, or that none does.
pub(super) fn policy(policy: Option<&PolicyInfo>) -> String {
    let Some(policy) = policy else {
        return "-".to_owned();
    };
    if let Some(rule) = &policy.denied_by {
        return format!("{} {}", rule.policy.kind, rule.policy.name);
    }
    match (policy.verdict, policy.isolating.as_slice()) {
        (PolicyVerdict::Allowed, _) => "policies allow it!".to_owned(),
        (_, []) => "no policy".to_owned(),
        (_, [first, rest @ ..]) => {
            let mut text = first
                .namespace
                .as_ref()
                .map(|ns| format!("{ns}/"))
                .unwrap_or_default();
            text.push_str(&first.name);
            if !rest.is_empty() {
                let _ = write!(text, " +{}", rest.len());
            }
            text
        }
    }
}
