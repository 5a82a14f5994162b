//! The packet within the packet: what a tunnel carries, or what an ICMP error is about.
//!
//! The kernel program does not parse it; it only tells apart what has other ends.

use crate::packet::{Headers, PacketBytes, ethertype, has, protocol};

/// Flags and VNI of VXLAN, each with what is reserved: RFC 7348.
pub mod vxlan {
    /// Its ports, <https://www.iana.org/assignments/service-names-port-numbers>, and what Linux had before there
    /// was a number (flannel has it still).
    pub const PORTS: [u16; 2] = [4789, 8472];
    /// Its header's length in bytes.
    pub const HEADER: u32 = 8;
    /// "The VNI is valid", in the first byte.
    pub const HAS_VNI: u8 = 0x08;
    /// A frame's header: two addresses and the ethertype.
    pub const ETHERNET: u32 = 14;
}

/// A UDP header's length in bytes.
const UDP: u32 = 8;
/// An ICMP error's: type, code, checksum, and four bytes of the type's own.
const ICMP: u32 = 8;

/// Whether VXLAN goes to this port.
#[inline(always)]
#[must_use]
pub const fn is_vxlan(port: u16) -> bool {
    port == vxlan::PORTS[0] || port == vxlan::PORTS[1]
}

/// Whether an ICMP message of this type is about a packet: RFC 792, RFC 4443.
#[inline(always)]
#[must_use]
pub const fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        protocol::ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Whether an ICMP error is an answer to a packet that goes no further: `iptables`' and nftables' `reject` send
/// no others. A redirect is not, nor is a packet's being too big.
#[inline(always)]
#[must_use]
pub const fn is_refusal(protocol: u8, kind: u8, code: u8) -> bool {
    match protocol {
        protocol::ICMP => kind == 3 && code != 4,
        protocol::ICMPV6 => kind == 1,
        _ => false,
    }
}

/// Tells what a packet carries from what others do, by its ends, its protocol, its destination port and its
/// VXLAN; 0 where it carries nothing that can be read. As in [`crate::FlowKey`], the source port is left out.
#[inline(always)]
#[must_use]
pub fn carried(packet: &(impl PacketBytes + ?Sized), headers: &Headers) -> u32 {
    match look(packet, headers) {
        // 0 stands for nothing.
        Some(sum) => sum | 1,
        None => 0,
    }
}

#[inline(always)]
fn look(packet: &(impl PacketBytes + ?Sized), headers: &Headers) -> Option<u32> {
    if headers.transport == 0 {
        return None;
    }
    let transport = u32::from(headers.transport);
    let mut sum = 0;
    let at = match headers.protocol {
        protocol::UDP if headers.has & has::PORTS != 0 && is_vxlan(headers.destination_port) => {
            let [flags, _, _, _, vni @ ..] = packet.load::<8>(transport + UDP)?;
            if flags & vxlan::HAS_VNI == 0 {
                return None;
            }
            sum = mix(sum, u32::from_be_bytes(vni));
            let frame = transport + UDP + vxlan::HEADER;
            let kind = u16::from_be_bytes(packet.load::<2>(frame + vxlan::ETHERNET - 2)?);
            if kind != ethertype::IPV4 && kind != ethertype::IPV6 {
                return None;
            }
            frame + vxlan::ETHERNET
        }
        protocol::IPV4 | protocol::IPV6 => transport,
        number if headers.has & has::ICMP != 0 && is_error(number, headers.icmp_type) => {
            transport + ICMP
        }
        _ => return None,
    };
    let [first] = packet.load::<1>(at)?;
    let (number, ports) = match first >> 4 {
        4 => {
            sum = words(packet, at + 12, 2, sum)?;
            (
                packet.load::<1>(at + 9)?[0],
                at + u32::from(first & 0x0f) * 4,
            )
        }
        6 => {
            sum = words(packet, at + 8, 8, sum)?;
            (packet.load::<1>(at + 6)?[0], at + 40)
        }
        _ => return None,
    };
    sum = mix(sum, u32::from(number));
    if matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
        && let Some(port) = packet.load::<2>(ports + 2)
    {
        sum = mix(sum, u32::from(u16::from_be_bytes(port)));
    }
    Some(sum)
}

/// Adds so many words, at most eight.
#[inline(always)]
fn words(packet: &(impl PacketBytes + ?Sized), at: u32, count: u32, sum: u32) -> Option<u32> {
    let mut sum = sum;
    for word in 0..8 {
        if word < count {
            sum = mix(sum, u32::from_ne_bytes(packet.load::<4>(at + word * 4)?));
        }
    }
    Some(sum)
}

/// A step of a multiplicative hash; the odd number is 2^32 by the golden ratio.
#[inline(always)]
const fn mix(sum: u32, word: u32) -> u32 {
    (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::parse;

    /// An IPv4 header without options.
    fn ipv4(protocol: u8, to: u8) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend([10, 0, 0, 1, 10, 0, 0, to]);
        bytes
    }

    fn ports(from: u16, to: u16) -> Vec<u8> {
        let mut bytes = from.to_be_bytes().to_vec();
        bytes.extend(to.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn vxlan(vni: u8, inside: &[u8]) -> Vec<u8> {
        let header = [0x08, 0, 0, 0, 0, 0, vni, 0];
        let frame = [&[0; 12][..], &[0x08, 0x00], inside].concat();
        [ipv4(17, 9), ports(40_000, 8472), header.to_vec(), frame].concat()
    }

    fn of(packet: &[u8]) -> u32 {
        carried(packet, &parse(packet, 0).unwrap())
    }

    #[test]
    fn what_has_other_ends_is_told_apart_and_a_source_port_is_not() {
        let inside = |to, from, port| [ipv4(6, to), ports(from, port)].concat();
        let one = of(&vxlan(1, &inside(2, 1000, 80)));
        assert_ne!(one, 0);
        assert_eq!(one, of(&vxlan(1, &inside(2, 2000, 80))));
        let others = [
            of(&vxlan(2, &inside(2, 1000, 80))),
            of(&vxlan(1, &inside(3, 1000, 80))),
            of(&vxlan(1, &inside(2, 1000, 81))),
            of(&vxlan(1, &[ipv4(17, 2), ports(1000, 80)].concat())),
            of(&[ipv4(4, 9), inside(2, 1000, 80)].concat()),
        ];
        for other in others {
            assert!(other != 0 && other != one, "{others:x?} {one:x}");
        }
    }

    #[test]
    fn an_icmp_error_carries_a_packet_and_an_echo_does_not() {
        let about = [ipv4(6, 2), ports(1, 80)].concat();
        let icmp = |kind| [ipv4(1, 9), vec![kind, 0, 0, 0, 0, 0, 0, 0], about.clone()].concat();
        assert_ne!(of(&icmp(3)), 0);
        assert_eq!(of(&icmp(8)), 0);
    }

    #[test]
    fn what_goes_on_is_not_refused() {
        let [redirect, too_big, time_exceeded] = [(5, 1), (3, 4), (11, 0)];
        for (kind, code) in [redirect, too_big, time_exceeded] {
            assert!(!is_refusal(protocol::ICMP, kind, code), "{kind}/{code}");
        }
        // `icmp-port-unreachable`, `icmp-admin-prohibited`, and their IPv6 twins.
        assert!(is_refusal(protocol::ICMP, 3, 3) && is_refusal(protocol::ICMP, 3, 13));
        assert!(is_refusal(protocol::ICMPV6, 1, 4) && is_refusal(protocol::ICMPV6, 1, 1));
        assert!(!is_refusal(protocol::ICMPV6, 2, 0) && !is_refusal(protocol::ICMPV6, 137, 0));
    }

    #[test]
    fn most_packets_carry_none() {
        let plain = [ipv4(17, 2), ports(1, 53), vec![8; 60]].concat();
        assert_eq!(of(&plain), 0);
        let whole = vxlan(1, &[ipv4(6, 2), ports(1, 80)].concat());
        // Cut off before the addresses inside.
        assert_eq!(of(&whole[..20 + 8 + 8 + 14 + 12]), 0);
        let mut other = whole;
        other[28] = 0;
        assert_eq!(of(&other), 0);
    }
}
