//! The packet within a packet, as the record has it.

use crate::decode::{Carrier, Flow, Inner, RawDrop};
use crate::record::{self, CarrierKind, Peer};

/// With who its ends are.
pub(super) fn record(inner: &Inner, (source, destination): (Peer, Peer)) -> record::Inner {
    let (carrier, vni) = match inner.carrier {
        Carrier::Vxlan(vni) => (CarrierKind::Vxlan, Some(vni)),
        Carrier::Ip => (CarrierKind::Ip, None),
        Carrier::IcmpError => (CarrierKind::IcmpError, None),
    };
    record::Inner {
        carrier,
        vni,
        source,
        destination,
        protocol: inner.flow.protocol.to_string(),
    }
}

/// What to do where a tunnel's packet was dropped: no NetworkPolicy speaks of those.
pub(super) fn hint(raw: &RawDrop, flow: &Flow) -> Option<String> {
    let what = match (raw.inner.as_ref()?.carrier, flow.destination_port) {
        (Carrier::Vxlan(_), Some(port)) => format!("UDP {port} (VXLAN)"),
        (Carrier::Ip, _) => format!("IP protocol {} (IP in IP)", flow.protocol),
        _ => return None,
    };
    Some(format!(
        "a host firewall drops what pods on different nodes say to each other: allow {what} between the nodes"
    ))
}
