use std::net::SocketAddr;

use tracer_policy::model::Protocol;

use super::{Attributor, icmp_named};
use crate::decode::{
    Action, Carrier, Chain, Device, Devices, DropReason, Flow, Hook, Icmp, Inner, Location,
    Process, RawDrop, Story, TcpFlags,
};
use crate::record::{CarrierKind, Class, Drop, DropAction, PolicyVerdict};

impl Attributor {
    /// What this cluster says of a recorded drop. Time, node and what the kernel told stay as recorded.
    pub fn again(&mut self, recorded: &Drop) -> Drop {
        let mut drop = self.attribute(&raw(recorded), recorded.time);
        drop.node.clone_from(&recorded.node);
        drop.drop = recorded.drop.clone();
        if self.cluster.is_none() || recorded.source.is_none() {
            return recorded.clone();
        }
        drop
    }
}

/// The part of a recorded drop that the kernel told.
fn raw(drop: &Drop) -> RawDrop {
    let flow = || {
        let (source, destination) = (drop.source.as_ref()?, drop.destination.as_ref()?);
        Some(Flow {
            source: source.ip,
            destination: destination.ip,
            protocol: protocol(drop.protocol.as_deref()?)?,
            source_port: source.port,
            destination_port: destination.port,
            tcp_flags: drop
                .tcp_flags
                .as_ref()
                .map(|names| TcpFlags::from_names(names.iter().map(String::as_str))),
            icmp: drop.icmp.map(|icmp| Icmp {
                kind: icmp.kind,
                code: icmp.code,
            }),
        })
    };
    let details = &drop.drop;
    RawDrop {
        ktime_ns: 0,
        count: drop.count,
        reason: DropReason {
            number: 0,
            name: details.reason.clone(),
        },
        location: Location {
            address: 0,
            symbol: details.location.clone(),
        },
        hook: match (details.datapath.as_deref(), details.hook.as_deref()) {
            (Some("netfilter"), _) => Some(Hook::Netfilter),
            (_, Some("tc ingress")) => Some(Hook::TcIngress),
            (_, Some("tc egress")) => Some(Hook::TcEgress),
            (Some("xdp"), _) => Some(Hook::Xdp),
            (Some("cgroup"), _) => Some(Hook::CgroupEgress),
            (Some("socket"), _) => Some(Hook::SocketFilter),
            (Some("lsm"), _) => Some(Hook::Security),
            _ => None,
        },
        action: match (details.action, details.reply.as_deref()) {
            (Some(DropAction::Drop), _) => Some(Action::Drop),
            (Some(DropAction::Reject), Some("tcp reset")) => Some(Action::RejectTcpReset),
            (Some(DropAction::Reject), reply) => reply.and_then(icmp_named).map(Action::RejectIcmp),
            (None, _) => None,
        },
        interface: details.interface.clone().map(|name| (0, name)),
        netns: details.netns,
        mark: 0,
        length: 0,
        flow: flow(),
        packet: bytes::Bytes::new(),
        story: story(drop),
        inner: inner(drop),
    }
}

/// What it carries, as the record has it.
fn inner(drop: &Drop) -> Option<Inner> {
    let carried = drop.inner.as_ref()?;
    Some(Inner {
        carrier: match carried.carrier {
            CarrierKind::Vxlan => Carrier::Vxlan(carried.vni.unwrap_or_default()),
            CarrierKind::Ip => Carrier::Ip,
            CarrierKind::IcmpError => Carrier::IcmpError,
        },
        flow: Flow {
            source: carried.source.ip,
            destination: carried.destination.ip,
            protocol: protocol(&carried.protocol)?,
            source_port: carried.source.port,
            destination_port: carried.destination.port,
            tcp_flags: None,
            icmp: None,
        },
    })
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::from_name(name).or_else(|| name.parse().ok().map(Protocol::from_number))
}

/// The packet's way, as the record has it.
fn story(drop: &Drop) -> Story {
    let process = drop.source.as_ref().and_then(|peer| peer.process.as_ref());
    let original = drop.destination.as_ref().and_then(|peer| peer.original);
    let policy = drop.policy.as_ref();
    // Of what policies allowed it was said that conntrack had lost it, or conntrack knew it.
    let is_known = policy.is_some_and(|policy| policy.verdict == PolicyVerdict::Allowed)
        && drop.class != Some(Class::ConntrackInvalid);
    Story {
        tracked: is_known.then_some(true),
        devices: Devices {
            input: device(drop.drop.input_interface.as_ref()),
            output: device(drop.drop.output_interface.as_ref()),
        },
        chain: drop.drop.hook.as_deref().and_then(Chain::from_name),
        original: original.map(|original| SocketAddr::new(original.ip, original.port)),
        process: process.map(|process| Process {
            pid: process.pid,
            name: process.name.clone(),
        }),
    }
}

fn device(name: Option<&String>) -> Option<Device> {
    Some(Device {
        index: 0,
        name: Some(name?.clone()),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_the_sender_got_is_read_again() {
        let mut drop: Drop =
            serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
        drop.drop.action = Some(DropAction::Reject);
        for (reply, kind, code) in [
            ("icmp port-unreachable", 3, 3),
            ("icmp host-prohibited", 3, 10),
            ("icmp6 adm-prohibited", 1, 1),
        ] {
            drop.drop.reply = Some(reply.into());
            let action = Some(Action::RejectIcmp(Icmp { kind, code }));
            assert_eq!(raw(&drop).action, action, "{reply}");
        }
        // By a later version, perhaps.
        drop.drop.reply = Some("icmp what".into());
        assert_eq!(raw(&drop).action, None);
    }

    #[test]
    fn without_a_cluster_a_record_stays_what_it_is() {
        let drop: Drop = serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
        let again = Attributor::new("other".into(), None).again(&drop);
        assert_eq!(again, drop);
        assert!(drop.time > Timestamp::UNIX_EPOCH);
    }
}
