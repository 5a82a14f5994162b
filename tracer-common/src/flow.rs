//! The table of flows: the first packet of a flow goes to user space, the others are only counted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::carried;
use crate::event::{DropEvent, field};
use crate::packet::{Headers, ethertype, has, protocol};

/// Bytes of a [`DropEvent`] before its packet.
pub const HEAD: usize = core::mem::offset_of!(DropEvent, packet);

/// What packets of a flow have in common; the source port is left out.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct FlowKey {
    /// [`Headers::source`].
    pub source: [u8; 16],
    /// [`Headers::destination`].
    pub destination: [u8; 16],
    /// [`DropEvent::location`].
    pub location: u64,
    /// [`DropEvent::reason`].
    pub reason: u32,
    /// [`DropEvent::ifindex`].
    pub ifindex: u32,
    /// [`DropEvent::netns`].
    pub netns: u32,
    /// Destination port; ICMP type and code; for what is no IP packet, the ethertype.
    pub port: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// 4 or 6; 0 for what is no IP packet.
    pub version: u8,
    /// [`DropEvent::reply_type`].
    pub reply_type: u8,
    /// [`DropEvent::reply_code`].
    pub reply_code: u8,
    /// SYN and ACK of the TCP flags: opening, answering and going on are told apart, as policies do.
    pub opening: u8,
    /// Bits of [`field`] that are told apart: whether the sender was answered, and whether the flow begins anew.
    pub fields: u8,
    /// [`DropEvent::carried`].
    pub carried: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 64 && align_of::<FlowKey>() == 8);

/// Brings [`field::TCP_RESET`] to a free bit of [`FlowKey::fields`].
const RESET_SHIFT: u32 = 9;
const _: () = assert!(field::TCP_RESET >> RESET_SHIFT == 1 && field::ICMP_REPLY < 1 << 8);
/// The same for [`field::ANEW`].
const ANEW_SHIFT: u32 = 12;
const _: () = assert!(field::ANEW >> ANEW_SHIFT == 0xf0 && field::ICMP_REPLY < 0x10);

/// Odd numbers without a pattern: the fractional parts of the square roots of the first eight primes, as in
/// SHA-512, with the lowest bit set.
const FACTORS: [u64; size_of::<FlowKey>() / 8] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// TCP's SYN and ACK.
const OPENING: u8 = 0x12;

impl FlowKey {
    /// The flow a record belongs to.
    #[must_use]
    pub fn of(event: &DropEvent) -> Self {
        let mut key = Self::default();
        key.fill(event);
        key
    }

    /// [`FlowKey::of`] into memory of the caller's: the kernel program's stack is small.
    #[inline(always)]
    pub fn fill(&mut self, event: &DropEvent) {
        self.fill_circumstances(event);
        self.fill_headers(event);
    }

    /// Tells most flows apart, in each of its bits: a sum of products is a few cycles, as none waits for
    /// another.
    #[must_use]
    #[inline(always)]
    pub fn digest(&self) -> u32 {
        let words: &[u64; size_of::<Self>() / 8] = zerocopy::transmute_ref!(self);
        let mut sum = 0u64;
        for (word, factor) in words.iter().zip(FACTORS) {
            // What differs high up in a word is brought down, as products carry upwards only.
            sum = sum.wrapping_add((word ^ word >> 32).wrapping_mul(factor));
        }
        (sum >> 32) as u32
    }

    /// What is not in the packet.
    #[inline(always)]
    pub fn fill_circumstances(&mut self, event: &DropEvent) {
        self.location = event.location;
        self.reason = event.reason;
        self.ifindex = event.ifindex;
        self.netns = event.netns;
        self.reply_type = event.reply_type;
        self.reply_code = event.reply_code;
        let reset = (event.fields & field::TCP_RESET) >> RESET_SHIFT;
        let anew = (event.fields & field::ANEW) >> ANEW_SHIFT;
        self.fields = ((event.fields & field::ICMP_REPLY | reset | anew) & 0xff) as u8;
    }

    /// The flow of a packet that begins it anew, in the taking of this number.
    #[inline(always)]
    pub fn begin_anew(&mut self, event: &mut DropEvent, taking: u32) {
        let anew = taking << field::ANEW_SHIFT & field::ANEW;
        event.fields |= anew;
        self.fields |= ((anew >> ANEW_SHIFT) & 0xff) as u8;
    }

    /// What is in the packet, parsed.
    #[inline(always)]
    pub fn fill_headers(&mut self, event: &DropEvent) {
        let headers: &Headers = &event.headers;
        self.source = headers.source;
        self.destination = headers.destination;
        self.port = if event.fields & field::HEADERS == 0 {
            event.ethertype
        } else if headers.has & has::ICMP != 0 {
            u16::from_be_bytes([headers.icmp_type, headers.icmp_code])
        } else {
            headers.destination_port
        };
        self.protocol = headers.protocol;
        self.version = headers.version;
        self.opening = headers.tcp_flags & OPENING;
        self.carried = event.carried;
    }

    /// What is in the packet, from its first bytes, of which `there` are the packet's: the same as parsing
    /// them and [`FlowKey::fill_headers`], for packets without anything out of the ordinary. Most are such,
    /// and most are repeats, of which nothing else is asked. `false` for others, those among them that carry
    /// another packet; the key is half filled then.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a byte or two out of a word"
    )]
    pub fn fill_plain(&mut self, glance: &Glance, there: u32, ethertype: u16) -> bool {
        // In words, as bytes would be copied one by one; the first byte is the lowest.
        let word = |index: usize| u64::from_le(glance.0[index]);
        let (first, second) = (word(0), word(1));
        match first as u8 {
            // Without options.
            0x45 if ethertype == ethertype::IPV4 || ethertype == 0 => {
                // "More fragments", and the offset, in bytes 6 and 7.
                if first >> 48 & 0xff3f != 0 {
                    return false;
                }
                let (third, fifth) = (word(2), word(4));
                self.version = 4;
                self.source = address(second >> 32, 0);
                self.destination = address(third & 0xffff_ffff, 0);
                self.fill_transport((second >> 8) as u8, third >> 32, fifth >> 8, there, 20)
            }
            0x60..=0x6f if ethertype == ethertype::IPV6 || ethertype == 0 => {
                self.version = 6;
                self.source = address(second, word(2));
                self.destination = address(word(3), word(4));
                self.fill_transport((first >> 48) as u8, word(5), word(6) >> 40, there, 40)
            }
            _ => false,
        }
    }

    /// `begin`: the transport header's first four bytes; `flags`: its fourteenth.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a byte or two out of a word"
    )]
    fn fill_transport(
        &mut self,
        protocol: u8,
        begin: u64,
        flags: u64,
        there: u32,
        at: u32,
    ) -> bool {
        self.protocol = protocol;
        self.opening = 0;
        self.carried = 0;
        match protocol {
            protocol::TCP => {
                self.port = u16::from_be((begin >> 16) as u16);
                self.opening = flags as u8 & OPENING;
                there >= at + 14
            }
            protocol::UDP => {
                self.port = u16::from_be((begin >> 16) as u16);
                there >= at + 4 && !carried::is_vxlan(self.port)
            }
            protocol::SCTP => {
                self.port = u16::from_be((begin >> 16) as u16);
                there >= at + 4
            }
            protocol::ICMP | protocol::ICMPV6 => {
                self.port = u16::from_be(begin as u16);
                there >= at + 2 && !carried::is_error(protocol, begin as u8)
            }
            _ => false,
        }
    }
}

/// Bytes of a packet that [`FlowKey::fill_plain`] looks at: an IPv6 header and a TCP header.
pub const GLANCE: usize = 64;

/// The first bytes of a packet, from its network header on, as words.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Glance(pub [u64; GLANCE / 8]);

/// An address from two little-endian words.
#[inline(always)]
const fn address(low: u64, high: u64) -> [u8; 16] {
    zerocopy::transmute!([low.to_le(), high.to_le()])
}

/// How far a time may be behind that the programs read once a tick of the timer: at its slowest rate (`CONFIG_HZ=100`).
pub const COARSE_NS: u64 = 10_000_000;

/// What is kept of a flow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowValue {
    /// Packets so far.
    pub packets: u64,
    /// When the last one was dropped, as [`DropEvent::ktime_ns`], or up to [`COARSE_NS`] before.
    pub last_ns: u64,
    /// The first one's record without its packet, as words: bytes would be copied one by one.
    pub head: [u64; HEAD / 8],
}

const _: () = assert!(HEAD.is_multiple_of(8));
const _: () = assert!(size_of::<FlowValue>() == HEAD + 16);

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::handover::LAST_TAKING;

    fn event(change: impl FnOnce(&mut DropEvent)) -> DropEvent {
        let mut event = DropEvent::new_zeroed();
        event.fields = field::HEADERS | field::INTERFACE;
        event.headers.version = 4;
        event.headers.protocol = 6;
        event.headers.has = has::PORTS | has::TCP_FLAGS;
        event.headers.tcp_flags = 2;
        event.headers.source_port = 40_000;
        event.headers.destination_port = 8200;
        change(&mut event);
        event
    }

    #[test]
    fn the_source_port_and_the_time_make_no_other_flow() {
        let one = FlowKey::of(&event(|_| {}));
        let other = FlowKey::of(&event(|event| {
            event.headers.source_port = 1;
            event.ktime_ns = 9;
            event.length = 5;
            event.headers.tcp_flags |= 8;
        }));
        assert_eq!(one, other);
    }

    #[test]
    fn whatever_else_is_shown_does() {
        let changes: [fn(&mut DropEvent); 10] = [
            |event| event.headers.source[3] = 1,
            |event| event.headers.destination[3] = 1,
            |event| event.headers.destination_port = 1,
            |event| event.headers.protocol = 17,
            |event| event.headers.tcp_flags = 16,
            |event| event.reason = 1,
            |event| event.location = 1,
            |event| event.ifindex = 1,
            |event| event.netns = 1,
            |event| event.fields |= field::ICMP_REPLY,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_ne!(
                FlowKey::of(&event(|_| {})),
                FlowKey::of(&event(change)),
                "{index}"
            );
        }
    }

    #[test]
    fn what_begins_anew_is_another_flow_here_and_there() {
        let event = event(|event| event.fields |= field::ICMP_REPLY | field::TCP_RESET);
        let before = FlowKey::of(&event);
        let anew = |taking| {
            let (mut key, mut event) = (before, event);
            key.begin_anew(&mut event, taking);
            assert_eq!(key, FlowKey::of(&event));
            key
        };
        for taking in 1..=LAST_TAKING {
            assert_ne!(anew(taking), before);
            for earlier in 1..taking {
                assert_ne!(anew(taking), anew(earlier));
            }
        }
    }

    /// Flows that differ in a port or an address as floods do: about as far apart as by chance.
    #[test]
    fn digests_spread() {
        fn low(index: u32) -> u16 {
            index.try_into().unwrap()
        }
        let slot = |index: u32, change: fn(&mut DropEvent, u32)| {
            let digest = FlowKey::of(&event(|event| change(event, index))).digest();
            // Bits of both ends are in use.
            (digest & 0x3fff) << 3 | digest >> 29
        };
        let changes: [fn(&mut DropEvent, u32); 5] = [
            |event, index| event.headers.destination_port = low(index),
            |event, index| event.headers.source[..4].copy_from_slice(&index.to_be_bytes()),
            |event, index| event.headers.destination[12..].copy_from_slice(&index.to_be_bytes()),
            |event, index| event.netns = index,
            |event, index| {
                event.headers.source[2..4].copy_from_slice(&(low(index) / 128).to_be_bytes());
                event.headers.destination_port = low(index) % 128;
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut taken = [0u8; 1 << 14];
            for index in 0..16_384 {
                let slot = slot(index, change) as usize;
                taken[slot / 8] |= 1 << (slot % 8);
            }
            let taken: u32 = taken.iter().map(|byte| byte.count_ones()).sum();
            // By chance it would be 15,412.
            assert!(taken > 14_500, "{number}: {taken}");
        }
    }

    /// The short way and the long way to a key, of one packet.
    fn both(packet: &[u8], ethertype: u16) -> (Option<FlowKey>, FlowKey) {
        let mut event = DropEvent::new_zeroed();
        event.ethertype = ethertype;
        if let Some(headers) = crate::parse(packet, ethertype) {
            event.headers = headers;
            event.fields = field::HEADERS;
            event.carried = carried(packet, &headers);
        }
        let mut glance = Glance::new_zeroed();
        let there = packet.len().min(GLANCE);
        glance.as_mut_bytes()[..there].copy_from_slice(&packet[..there]);
        // What stands behind a packet is not the packet's.
        glance.as_mut_bytes()[there..].fill(0xa5);
        let mut key = FlowKey::default();
        let is_plain = key.fill_plain(&glance, there.try_into().unwrap(), ethertype);
        (is_plain.then_some(key), FlowKey::of(&event))
    }

    fn ipv4(protocol: u8, transport: &[u8]) -> [u8; 60] {
        let mut packet = [0; 60];
        packet[0] = 0x45;
        packet[8..10].copy_from_slice(&[64, protocol]);
        packet[12..20].copy_from_slice(&[10, 42, 0, 1, 10, 42, 1, 11]);
        packet[20..20 + transport.len()].copy_from_slice(transport);
        packet
    }

    fn ipv6(protocol: u8, transport: &[u8]) -> [u8; 80] {
        let mut packet = [0; 80];
        packet[0] = 0x60;
        packet[6..8].copy_from_slice(&[protocol, 64]);
        for (index, byte) in packet[8..40].iter_mut().enumerate() {
            *byte = u8::try_from(index).unwrap() + 1;
        }
        packet[40..40 + transport.len()].copy_from_slice(transport);
        packet
    }

    #[test]
    fn a_glance_at_a_plain_packet_finds_the_same_key() {
        let tcp = [0x9c, 0x40, 0x20, 0x08, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x12];
        for (protocol, transport) in [
            (protocol::TCP, &tcp[..]),
            (protocol::UDP, &tcp[..8]),
            (protocol::SCTP, &tcp[..12]),
            (protocol::ICMP, &[13, 0, 1, 2]),
            (protocol::ICMPV6, &[133, 0, 1, 2]),
        ] {
            for ethertype in [0, ethertype::IPV4] {
                let (short, long) = both(&ipv4(protocol, transport), ethertype);
                assert_eq!(short, Some(long), "{protocol} {ethertype:x}");
            }
            for ethertype in [0, ethertype::IPV6] {
                let (short, long) = both(&ipv6(protocol, transport), ethertype);
                assert_eq!(short, Some(long), "{protocol} {ethertype:x}");
            }
        }
        let (_, long) = both(&ipv4(protocol::TCP, &tcp), 0);
        assert_eq!((long.port, long.opening), (8200, 0x12));
    }

    /// Each byte, each bit of it, each length: no key, or the one that parsing finds.
    #[test]
    fn a_glance_never_finds_another_key() {
        let tcp = [0x9c, 0x40, 0x20, 0x08, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02];
        let mut found = 0;
        let mut hold = |packet: &[u8], ethertype| {
            let (short, long) = both(packet, ethertype);
            if let Some(short) = short {
                assert_eq!(short, long, "{packet:02x?} {ethertype:x}");
                found += 1;
            }
        };
        let packets: [&[u8]; 4] = [
            &ipv4(protocol::TCP, &tcp),
            &ipv4(protocol::ICMP, &[8, 0]),
            &ipv6(protocol::TCP, &tcp),
            &ipv6(protocol::FRAGMENT, &[6, 0, 0, 0]),
        ];
        let types = [
            0,
            ethertype::IPV4,
            ethertype::IPV6,
            ethertype::VLAN,
            ethertype::QINQ,
            0x88cc,
        ];
        for packet in packets {
            for ethertype in types {
                for length in 0..=packet.len() {
                    hold(&packet[..length], ethertype);
                }
                for byte in 0..packet.len() {
                    for value in 0..=255 {
                        let mut changed = [0; 80];
                        changed[..packet.len()].copy_from_slice(packet);
                        changed[byte] = value;
                        hold(&changed[..packet.len()], ethertype);
                    }
                }
            }
        }
        assert!(found > 10_000, "{found}");
    }

    #[test]
    fn icmp_has_its_type_and_code_for_a_port() {
        let icmp = |kind, code| {
            FlowKey::of(&event(|event| {
                event.headers.has = has::ICMP;
                event.headers.icmp_type = kind;
                event.headers.icmp_code = code;
            }))
        };
        assert_eq!(icmp(3, 4).port, 0x0304);
        assert_ne!(icmp(8, 0), icmp(0, 8));
    }
}
