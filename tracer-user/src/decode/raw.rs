//! One dropped packet, decoded but not yet attributed to anyone.

use std::net::IpAddr;

use bytes::Bytes;
use tracer_policy::model::Protocol;

use super::{Inner, Story};

/// One dropped packet as the kernel reported it. What the kernel could not tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDrop {
    /// When, in nanoseconds of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`).
    pub ktime_ns: u64,
    /// How many packets this record stands for; at least 1.
    pub count: u64,
    /// Why, by the running kernel's own name.
    pub reason: DropReason,
    /// Where in the kernel.
    pub location: Location,
    /// At which kind of hook, where reason or location give it away.
    pub hook: Option<Hook>,
    /// What was done to the packet, where the kernel can tell.
    pub action: Option<Action>,
    /// Interface index in its network namespace, and its name.
    pub interface: Option<(u32, String)>,
    /// Network namespace (inode number, as in `/proc/PID/ns/net`).
    pub netns: Option<u32>,
    /// `skb->mark`.
    pub mark: u32,
    /// Packet length in bytes from the network header on, as it was on the wire.
    pub length: u32,
    /// Addresses, ports and flags; `None` where the packet is no IP packet or too short to tell.
    pub flow: Option<Flow>,
    /// What it carries. Of repeats, what the flow's first packet did: flows with other ends inside are others.
    pub inner: Option<Inner>,
    /// The packet's first bytes from the network header on, 128 at most.
    pub packet: Bytes,
    /// What is known of its way.
    pub story: Story,
}

/// A drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DropReason {
    /// The number, which differs from kernel to kernel.
    pub number: u32,
    /// The name from the running kernel's BTF without `SKB_DROP_REASON_` (`NETFILTER_DROP`), or the
    /// number in decimal where the kernel has no name for it.
    pub name: String,
}

/// Where in the kernel a packet was freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The address; 0 where the kernel withholds it.
    pub address: u64,
    /// `symbol+0xoffset`, where kallsyms can be read.
    pub symbol: Option<String>,
}

/// The kind of hook a packet died at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// netfilter (iptables, nftables), hook not told apart further.
    Netfilter,
    /// tc ingress of the interface.
    TcIngress,
    /// tc egress of the interface.
    TcEgress,
    /// XDP.
    Xdp,
    /// A cgroup program on egress.
    CgroupEgress,
    /// A socket filter or a cgroup program on ingress.
    SocketFilter,
    /// A Linux security module.
    Security,
}

/// What was done to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Dropped without a word.
    Drop,
    /// Dropped, and the sender told with this ICMP (or ICMPv6) message.
    RejectIcmp(Icmp),
    /// Dropped, and the sender told with a TCP reset.
    RejectTcpReset,
}

/// An ICMP or `ICMPv6` type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// The 5-tuple and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Source port, for protocols that have ports and where the header was there to read.
    pub source_port: Option<u16>,
    /// Destination port, likewise.
    pub destination_port: Option<u16>,
    /// TCP flags, for TCP.
    pub tcp_flags: Option<TcpFlags>,
    /// Type and code, for ICMP and `ICMPv6`.
    pub icmp: Option<Icmp>,
}

/// The flags byte of a TCP header (`FIN` is bit 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// Names of the flags that are set, in header order from the lowest bit.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }

    /// Whether it resets a connection.
    pub const fn is_reset(self) -> bool {
        self.0 & 0b100 != 0
    }

    /// From names as [`TcpFlags::names`] gives them; others are passed over.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let bit = |name| Self::NAMES.iter().position(|known| *known == name);
        Self(
            names
                .into_iter()
                .filter_map(bit)
                .fold(0, |flags, bit| flags | 1 << bit),
        )
    }

    /// A connection's first packet: SYN without ACK.
    pub const fn is_initial_syn(self) -> bool {
        self.0 & 0b1_0010 == 0b0_0010
    }

    /// The answer to a connection's first packet: SYN with ACK.
    pub const fn is_syn_ack(self) -> bool {
        self.0 & 0b1_0010 == 0b1_0010
    }
}
