//! What the kernel knows of a packet's way, beside the packet.

use std::net::{IpAddr, SocketAddr};

use tracer_common::{DropEvent, field};

use super::Devices;

/// What is known of a packet's way. What the kernel could not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// netfilter's hook.
    pub chain: Option<Chain>,
    /// Where it was sent to, if connection tracking had it sent elsewhere (DNAT).
    pub original: Option<SocketAddr>,
    /// Who sent it, where that was a process of this machine.
    pub process: Option<Process>,
    /// Whether connection tracking knew it, or was told to leave it alone. Where it did not, it has called the
    /// packet invalid, or is not at work there.
    pub tracked: Option<bool>,
    /// Where it came in and was to go out.
    pub devices: Devices,
}

/// A process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id, in the machine's own numbering.
    pub pid: u32,
    /// The command's name, 15 bytes of it at most.
    pub name: String,
}

/// A hook of netfilter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Of the bridge itself, not of IP.
    pub bridge: bool,
    /// Which.
    pub point: Point,
}

/// Where on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// At the device, before everything else.
    Ingress,
    /// Before routing.
    Prerouting,
    /// To this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// After routing.
    Postrouting,
    /// At the device, after everything else.
    Egress,
}

impl Point {
    const ALL: [Self; 7] = [
        Self::Ingress,
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
        Self::Egress,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "INGRESS",
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::Egress => "EGRESS",
        }
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bridge {
            f.write_str("bridge ")?;
        }
        f.write_str(self.point.as_str())
    }
}

impl Chain {
    /// As it is displayed.
    pub fn from_name(name: &str) -> Option<Self> {
        let (bridge, name) = match name.strip_prefix("bridge ") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let point = Point::ALL.into_iter().find(|one| one.as_str() == name)?;
        Some(Self { bridge, point })
    }

    /// The hook at which a function of the kernel asks netfilter, by its `symbol+0xoffset`. Functions
    /// that ask at more than one are not among them.
    ///
    /// <https://github.com/torvalds/linux/tree/v6.18/net/ipv4>, `ipv6`, `bridge`, `core/dev.c`: each
    /// `NF_HOOK` there.
    pub(super) fn of_caller(symbol: &str) -> Option<Self> {
        // The compiler's own endings: `ip_rcv.part.0+0x10`.
        let function = symbol.split(['+', '.']).next()?;
        let (bridge, point) = match function {
            "ip_rcv"
            | "ip_list_rcv"
            | "ip_sublist_rcv"
            | "ipv6_rcv"
            | "ipv6_list_rcv"
            | "ip6_sublist_rcv"
            | "nf_hook_slow_list"
            | "br_nf_pre_routing"
            | "br_nf_pre_routing_ipv6" => (false, Point::Prerouting),
            "ip_local_deliver" | "ip6_input" => (false, Point::Input),
            "ip_forward"
            | "ip6_forward"
            | "ipmr_queue_xmit"
            | "ipmr_queue_fwd_xmit"
            | "ip6mr_forward2"
            | "br_nf_forward"
            | "br_nf_forward_ip"
            | "br_nf_forward_arp" => (false, Point::Forward),
            "__ip_local_out"
            | "ip_local_out"
            | "ip_build_and_send_pkt"
            | "__ip_queue_xmit"
            | "raw_sendmsg"
            | "raw_send_hdrinc"
            | "__ip6_local_out"
            | "ip6_local_out"
            | "ip6_xmit"
            | "rawv6_sendmsg"
            | "rawv6_send_hdrinc"
            | "ndisc_send_skb"
            | "mld_sendpack"
            | "igmp6_send" => (false, Point::Output),
            "ip_output" | "ip_mc_output" | "ip6_output" | "br_nf_post_routing"
            | "xfrm_output_resume" => (false, Point::Postrouting),
            "__netif_receive_skb_core" => (false, Point::Ingress),
            "__dev_queue_xmit" => (false, Point::Egress),
            "br_handle_frame" => (true, Point::Prerouting),
            "br_pass_frame_up" | "br_netif_receive_skb" => (true, Point::Input),
            "__br_forward" => (true, Point::Forward),
            "br_forward_finish" => (true, Point::Postrouting),
            _ => return None,
        };
        Some(Self { bridge, point })
    }
}

/// Where the packet was sent to.
pub(super) fn original(event: &DropEvent) -> Option<SocketAddr> {
    if event.fields & field::ORIGINAL == 0 {
        return None;
    }
    let ip: IpAddr = match event.headers.version {
        4 => IpAddr::from(*event.original.first_chunk::<4>()?),
        6 => IpAddr::from(event.original),
        _ => return None,
    };
    Some(SocketAddr::new(ip, event.original_port))
}

/// Whether connection tracking knew it.
pub(super) const fn tracked(event: &DropEvent) -> Option<bool> {
    match (
        event.fields & field::TRACKED != 0,
        event.fields & field::UNTRACKED != 0,
    ) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// Who sent it.
pub(super) fn process(event: &DropEvent) -> Option<Process> {
    if event.fields & field::PROCESS == 0 {
        return None;
    }
    let name = event.other.split(|byte| *byte == 0).next()?;
    // Anyone may name himself anything (`PR_SET_NAME`), and it is written to terminals.
    let name = String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}");
    Some(Process {
        pid: event.other_number,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_go_by_who_asks_netfilter() {
        for (symbol, name) in [
            ("ip_local_deliver+0x5a", "INPUT"),
            ("ip6_forward+0x10", "FORWARD"),
            ("br_nf_forward_ip.part.0+0x1f", "FORWARD"),
            ("__ip_local_out+0x9c", "OUTPUT"),
            ("nf_hook_slow_list+0x80", "PREROUTING"),
            ("br_handle_frame+0x1", "bridge PREROUTING"),
        ] {
            let chain = Chain::of_caller(symbol).unwrap();
            assert_eq!(chain.to_string(), name, "{symbol}");
            assert_eq!(Chain::from_name(name), Some(chain));
        }
        assert_eq!(Chain::of_caller("nf_reinject+0x1"), None);
        assert_eq!(Chain::from_name("tc egress"), None);
    }
}
