//! The checks between a record's bytes and a [`RawDrop`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use tracer_common::{ABI, CAPTURE, DropEvent, Headers, MAGIC, ethertype, field, has};
use tracer_policy::model::Protocol;
use zerocopy::FromBytes;

use super::{
    Action, Chain, DropReason, Flow, Hook, Icmp, Location, Point, RawDrop, Story, TcpFlags,
    devices, inner, story,
};

/// Why a record is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the size a record has.
    #[error("a record of {got} bytes instead of {wanted}")]
    Size {
        /// Its size in bytes.
        got: usize,
        /// The size a record has.
        wanted: usize,
    },
    /// Does not begin like a record.
    #[error("no record of tracer's: it begins with {0:#010x}")]
    Foreign(u32),
    /// Written by another version of the kernel programs.
    #[error("a record of ABI version {0} instead of {ABI}")]
    Abi(u16),
    /// Says of itself what cannot be.
    #[error("a record with an impossible {0}")]
    Impossible(&'static str),
}

/// Names for the numbers in a record.
pub trait Resolve: Send {
    /// Name of a drop reason, without `SKB_DROP_REASON_`.
    fn reason(&self, number: u32) -> Option<String>;
    /// `symbol+0xoffset` of an address in the kernel.
    fn symbol(&mut self, address: u64) -> Option<String>;
}

/// Which answers to senders would have been seen. What is not there leaves open whether a packet was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a function of the kernel's own, and any may be missing"
)]
pub struct Answers {
    /// ICMP errors.
    pub icmp: bool,
    /// `ICMPv6` errors.
    pub icmpv6: bool,
    /// TCP resets over IPv4.
    pub reset: bool,
    /// TCP resets over IPv6.
    pub reset6: bool,
    /// ICMP errors, by a tracepoint, which misses none; the others are heard by kprobes.
    pub icmp_traced: bool,
    /// Since when the kprobes hang there, as [`DropEvent::ktime_ns`]: what an earlier process left in the kernel may
    /// have been dropped while none did.
    pub since_ns: u64,
}

impl Answers {
    /// Whether every answer that netfilter has for such a packet would have been seen.
    const fn all_to(self, event: &DropEvent) -> bool {
        let listened = event.fields & field::DEAF == 0 && event.ktime_ns >= self.since_ns;
        let (icmp, reset) = match event.headers.version {
            4 => (self.icmp_traced || self.icmp && listened, self.reset),
            6 => (self.icmpv6 && listened, self.reset6),
            _ => return false,
        };
        icmp && (reset && listened || event.headers.protocol != Protocol::Tcp.number())
    }
}

/// Decodes records. Looks each name up once.
pub struct Decoder {
    resolve: Box<dyn Resolve>,
    answers: Answers,
    reasons: HashMap<u32, String>,
    symbols: HashMap<u64, Option<String>>,
}

impl Decoder {
    /// A decoder that asks `resolve` for names.
    pub fn new(resolve: Box<dyn Resolve>) -> Self {
        Self {
            resolve,
            answers: Answers::default(),
            reasons: HashMap::new(),
            symbols: HashMap::new(),
        }
    }

    /// Says which answers to senders would have been seen; none by default.
    #[must_use]
    pub const fn seeing(mut self, answers: Answers) -> Self {
        self.answers = answers;
        self
    }

    /// Decodes one record, whole.
    pub fn decode(&mut self, record: &[u8]) -> Result<RawDrop, DecodeError> {
        let event = check(record)?;
        let reason = self.reason(&event);
        let location = Location {
            address: event.location,
            symbol: self.symbol(event.location),
        };
        let hook = if event.fields & field::REASON == 0 {
            // Where netfilter's verdict is carried out nothing else is freed; where tc's is, unknown protocols are.
            let ip = event.fields & field::HEADERS != 0 || ethertype::is_ip(event.ethertype);
            let hook = location.symbol.as_deref().and_then(hook_at);
            hook.filter(|hook| ip || *hook == Hook::Netfilter)
        } else {
            let unspecified = reason.name == UNSPECIFIED;
            let symbol = location.symbol.as_deref().filter(|_| unspecified);
            hook(&reason.name).or_else(|| at(&UNREASONED, symbol?))
        };
        let packet = &event.packet[..usize::from(event.captured)];
        let interface = interface(&event);
        let mut story = self.story(&event, hook);
        story.devices = devices::devices(&event, hook, story.chain, interface.as_ref());
        Ok(RawDrop {
            ktime_ns: event.ktime_ns,
            count: event.count,
            hook,
            action: action(&event, hook, &story, self.answers),
            reason,
            location,
            interface,
            netns: (event.fields & field::NETNS != 0).then_some(event.netns),
            mark: event.mark,
            length: event.length,
            flow: (event.fields & field::HEADERS != 0)
                .then(|| flow(&event.headers))
                .transpose()?,
            inner: (event.fields & field::HEADERS != 0)
                .then(|| inner::inner(&event.headers, packet))
                .flatten(),
            packet: if event.fields & field::REMEMBERED == 0 {
                Bytes::copy_from_slice(packet)
            } else {
                Bytes::new()
            },
            story,
        })
    }

    fn reason(&mut self, event: &DropEvent) -> DropReason {
        let number = event.reason;
        let name = if event.fields & field::REASON == 0 {
            "NOT_SPECIFIED".to_owned()
        } else {
            self.reasons
                .entry(number)
                .or_insert_with(|| {
                    self.resolve
                        .reason(number)
                        .unwrap_or_else(|| number.to_string())
                })
                .clone()
        };
        DropReason { number, name }
    }

    fn story(&mut self, event: &DropEvent, hook: Option<Hook>) -> Story {
        let asked = hook == Some(Hook::Netfilter) && event.fields & field::CALLER != 0;
        let caller = asked.then(|| self.symbol(event.caller)).flatten();
        Story {
            chain: caller.as_deref().and_then(Chain::of_caller),
            original: story::original(event),
            process: story::process(event),
            tracked: story::tracked(event),
            devices: devices::Devices::default(),
        }
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        self.symbols
            .entry(address)
            .or_insert_with(|| self.resolve.symbol(address))
            .clone()
    }
}

/// Is it a record, of this version, that holds together?
fn check(record: &[u8]) -> Result<DropEvent, DecodeError> {
    let wanted = size_of::<DropEvent>();
    let size = DecodeError::Size {
        got: record.len(),
        wanted,
    };
    // Foreign bytes are told from cut-off ones where there are enough to tell.
    let (magic, _) = u32::read_from_prefix(record).map_err(|_| size)?;
    if magic != MAGIC {
        return Err(DecodeError::Foreign(magic));
    }
    let (abi, _) = u16::read_from_prefix(&record[4..]).map_err(|_| size)?;
    if abi != ABI {
        return Err(DecodeError::Abi(abi));
    }
    let event = DropEvent::read_from_bytes(record).map_err(|_| size)?;
    if usize::from(event.size) != wanted {
        return Err(DecodeError::Impossible("size"));
    }
    if event.count == 0 {
        return Err(DecodeError::Impossible("packet count of 0"));
    }
    if usize::from(event.captured) > CAPTURE {
        return Err(DecodeError::Impossible("capture length"));
    }
    Ok(event)
}

/// The kind of hook, from the reason's name.
fn hook(reason: &str) -> Option<Hook> {
    Some(match reason {
        "NETFILTER_DROP" => Hook::Netfilter,
        "TC_INGRESS" | "QDISC_INGRESS" => Hook::TcIngress,
        "TC_EGRESS" | "QDISC_EGRESS" => Hook::TcEgress,
        "XDP" => Hook::Xdp,
        "BPF_CGROUP_EGRESS" => Hook::CgroupEgress,
        "SOCKET_FILTER" => Hook::SocketFilter,
        "SECURITY_HOOK" => Hook::Security,
        _ => return None,
    })
}

/// The functions of the kernel that free what a hook drops. Each asks the hook itself, or does so inlined.
///
/// <https://github.com/torvalds/linux/blob/v5.10/net/netfilter/core.c> (`nf_hook_slow`),
/// <https://github.com/torvalds/linux/blob/v5.10/net/core/dev.c> (`sch_handle_ingress`, `sch_handle_egress`)
pub(crate) const PLACES: [(Hook, &[&str]); 3] = [
    (Hook::Netfilter, &["nf_hook_slow", "nf_hook_slow_list"]),
    (Hook::TcIngress, &["__netif_receive_skb_core"]),
    (Hook::TcEgress, &["__dev_queue_xmit"]),
];

/// The reason of what gives none.
pub(crate) const UNSPECIFIED: &str = "NOT_SPECIFIED";

/// The functions that free what somebody decided, and give no reason on any kernel: what no program takes from
/// netfilter's queue, what one that took it does not let through, and what a program at a netkit device drops.
///
/// <https://github.com/torvalds/linux/blob/v6.18/net/netfilter/nf_queue.c>,
/// <https://github.com/torvalds/linux/blob/v6.18/net/netfilter/nfnetlink_queue.c> (before 6.11 in the former),
/// <https://github.com/torvalds/linux/blob/v6.18/drivers/net/netkit.c>
pub(crate) const UNREASONED: [(Hook, &[&str]); 3] = [
    (Hook::Netfilter, &["nf_queue"]),
    (Hook::Netfilter, &["nf_reinject", "nfqnl_reinject"]),
    (Hook::TcEgress, &["netkit_xmit"]),
];

/// The kind of hook, from where an IP packet was freed: on kernels that do not say why.
fn hook_at(symbol: &str) -> Option<Hook> {
    at(&PLACES, symbol).or_else(|| at(&UNREASONED, symbol))
}

fn at(places: &[(Hook, &[&str])], symbol: &str) -> Option<Hook> {
    let function = symbol.split(['+', '.']).next()?;
    places
        .iter()
        .find(|(_, functions)| functions.contains(&function))
        .map(|(hook, _)| *hook)
}

/// A seen answer is a reject. Without one, a packet that netfilter dropped was not answered where every answer
/// would have been seen; one that the kernel's rate limit held back was none. The bridge's own rules, and those at
/// a device, answer by other functions. The other hooks cannot answer at all.
fn action(
    event: &DropEvent,
    hook: Option<Hook>,
    story: &Story,
    answers: Answers,
) -> Option<Action> {
    if event.fields & field::ICMP_REPLY != 0 {
        return Some(Action::RejectIcmp(Icmp {
            kind: event.reply_type,
            code: event.reply_code,
        }));
    }
    if event.fields & field::TCP_RESET != 0 {
        // A reset is asked to be reset, too, and is not.
        let is_reset =
            event.headers.has & has::TCP_FLAGS != 0 && TcpFlags(event.headers.tcp_flags).is_reset();
        return Some(if is_reset {
            Action::Drop
        } else {
            Action::RejectTcpReset
        });
    }
    match hook? {
        Hook::Netfilter => {
            let unheard = story
                .chain
                .is_some_and(|chain| chain.bridge || chain.point == Point::Ingress);
            let seen = event.fields & field::HEADERS != 0 && answers.all_to(event);
            (seen && !unheard).then_some(Action::Drop)
        }
        Hook::TcIngress
        | Hook::TcEgress
        | Hook::Xdp
        | Hook::CgroupEgress
        | Hook::SocketFilter
        | Hook::Security => Some(Action::Drop),
    }
}

/// The interface, if what the kernel program found was one: some packets keep other things where
/// their device would be.
fn interface(event: &DropEvent) -> Option<(u32, String)> {
    if event.fields & field::INTERFACE == 0 || event.ifindex == 0 {
        return None;
    }
    Some((event.ifindex, devices::device_name(&event.ifname)?))
}

pub(super) fn flow(headers: &Headers) -> Result<Flow, DecodeError> {
    let has = |part| headers.has & part != 0;
    Ok(Flow {
        source: address(headers.version, &headers.source)?,
        destination: address(headers.version, &headers.destination)?,
        protocol: Protocol::from_number(headers.protocol),
        source_port: has(has::PORTS).then_some(headers.source_port),
        destination_port: has(has::PORTS).then_some(headers.destination_port),
        tcp_flags: has(has::TCP_FLAGS).then_some(TcpFlags(headers.tcp_flags)),
        icmp: has(has::ICMP).then_some(Icmp {
            kind: headers.icmp_type,
            code: headers.icmp_code,
        }),
    })
}

fn address(version: u8, bytes: &[u8; 16]) -> Result<IpAddr, DecodeError> {
    match version {
        4 => Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        6 => Ok(Ipv6Addr::from(*bytes).into()),
        _ => Err(DecodeError::Impossible("IP version")),
    }
}

#[cfg(test)]
mod tests;
