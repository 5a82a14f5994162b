//! From the first bytes of a packet to its 5-tuple.
//!
//! The kernel program and user space run this same code. It allocates nothing, every loop has a
//! constant bound, and it only sees bytes through [`PacketBytes`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ethertypes, <https://www.iana.org/assignments/ieee-802-numbers>.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;

    /// Whether it is one of IP's.
    #[inline(always)]
    #[must_use]
    pub const fn is_ip(ethertype: u16) -> bool {
        matches!(ethertype, IPV4 | IPV6)
    }
}

/// IP protocol numbers, <https://www.iana.org/assignments/protocol-numbers>.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// An IPv4 packet: RFC 2003.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// An IPv6 packet: RFC 2473.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// `ICMPv6`.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
    /// Host Identity Protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// Bits of [`Headers::has`].
pub mod has {
    /// `source_port` and `destination_port`.
    pub const PORTS: u8 = 1 << 0;
    /// `tcp_flags`.
    pub const TCP_FLAGS: u8 = 1 << 1;
    /// `icmp_type` and `icmp_code`.
    pub const ICMP: u8 = 1 << 2;
    /// The packet is a fragment: first, middle or last.
    pub const FRAGMENT: u8 = 1 << 3;
    /// The headers go on beyond the bytes at hand, or the chain of extension headers is longer than
    /// `EXTENSIONS`; `protocol` is the last one that could be read.
    pub const CUT_SHORT: u8 = 1 << 4;
}

/// IPv6 extension headers that are followed.
pub const EXTENSIONS: usize = 6;

/// VLAN tags that are stepped over.
const VLAN_TAGS: usize = 2;

/// Bytes of a packet, from its network header on.
pub trait PacketBytes {
    /// The `N` bytes at `offset`, or `None` where not all of them are there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl PacketBytes for [u8] {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.get(offset..)?.first_chunk().copied()
    }
}

/// What the headers of an IP packet say.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C, align(4))]
pub struct Headers {
    /// Source address; IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// Destination address; IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Source port, in host byte order.
    pub source_port: u16,
    /// Destination port, in host byte order.
    pub destination_port: u16,
    /// 4 or 6.
    pub version: u8,
    /// Transport protocol, see [`protocol`].
    pub protocol: u8,
    /// Byte 13 of the TCP header: FIN is bit 0.
    pub tcp_flags: u8,
    /// ICMP or `ICMPv6` type.
    pub icmp_type: u8,
    /// ICMP or `ICMPv6` code.
    pub icmp_code: u8,
    /// Bits of [`has`]: which of the fields above hold something.
    pub has: u8,
    /// Where the transport header is, in bytes from the network header; 0 where there is none.
    pub transport: u16,
}

const _: () = assert!(size_of::<Headers>() == 44);

/// Parses a packet whose link layer called it `ethertype` (0 where it did not say).
///
/// `None` where it is no IP packet, is malformed, or is cut off inside its IP header.
#[inline(always)]
pub fn parse(packet: &(impl PacketBytes + ?Sized), ethertype: u16) -> Option<Headers> {
    let mut headers = Headers::default();
    parse_into(packet, ethertype, &mut headers).map(|()| headers)
}

/// [`parse`] into memory of the caller's, all zero: the kernel program's stack is small, and it knows
/// how to zero. On `None` what it left there means nothing.
#[inline(always)]
pub fn parse_into(
    packet: &(impl PacketBytes + ?Sized),
    ethertype: u16,
    headers: &mut Headers,
) -> Option<()> {
    let mut ethertype = ethertype;
    let mut start = 0;
    for _ in 0..VLAN_TAGS {
        if ethertype != ethertype::VLAN && ethertype != ethertype::QINQ {
            break;
        }
        // Tag control information, then the ethertype of what follows.
        ethertype = u16::from_be_bytes(packet.load::<2>(start + 2)?);
        start += 4;
    }
    let [first] = packet.load::<1>(start)?;
    match (ethertype, first >> 4) {
        (ethertype::IPV4 | 0, 4) => ipv4(packet, start, first, headers),
        (ethertype::IPV6 | 0, 6) => ipv6(packet, start, headers),
        _ => None,
    }
}

/// RFC 791.
#[inline(always)]
fn ipv4(
    packet: &(impl PacketBytes + ?Sized),
    start: u32,
    first: u8,
    headers: &mut Headers,
) -> Option<()> {
    let header_length = u32::from(first & 0x0f) * 4;
    if header_length < 20 {
        return None;
    }
    headers.version = 4;
    let [protocol] = packet.load::<1>(start + 9)?;
    headers.protocol = protocol;
    headers.source[..4].copy_from_slice(&packet.load::<4>(start + 12)?);
    headers.destination[..4].copy_from_slice(&packet.load::<4>(start + 16)?);

    // "More fragments" (0x2000) and the offset; 0x4000 is "don't fragment".
    let flags_and_offset = u16::from_be_bytes(packet.load::<2>(start + 6)?);
    let offset = flags_and_offset & 0x1fff;
    if flags_and_offset & 0x2000 != 0 || offset != 0 {
        headers.has |= has::FRAGMENT;
    }
    // Only the first fragment holds the transport header.
    if offset == 0 {
        transport(packet, start + header_length, headers);
    }
    Some(())
}

/// RFC 8200.
#[inline(always)]
fn ipv6(packet: &(impl PacketBytes + ?Sized), start: u32, headers: &mut Headers) -> Option<()> {
    headers.version = 6;
    let [mut protocol] = packet.load::<1>(start + 6)?;
    headers.source = packet.load::<16>(start + 8)?;
    headers.destination = packet.load::<16>(start + 24)?;

    let mut offset = start + 40;
    for _ in 0..EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        let Some([next, length, high, low]) = packet.load::<4>(offset) else {
            break;
        };
        let size = match protocol {
            protocol::FRAGMENT => {
                headers.has |= has::FRAGMENT;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    // Not the first fragment: what follows is payload.
                    headers.protocol = next;
                    return Some(());
                }
                8
            }
            // In units of 4 bytes, less 2: RFC 4302.
            protocol::AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        protocol = next;
        offset += size;
    }
    headers.protocol = protocol;
    if is_extension(protocol) {
        headers.has |= has::CUT_SHORT;
    } else {
        transport(packet, offset, headers);
    }
    Some(())
}

#[inline(always)]
const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Ports, flags or type and code, as far as they are there.
#[inline(always)]
fn transport(packet: &(impl PacketBytes + ?Sized), offset: u32, headers: &mut Headers) {
    headers.transport = u16::try_from(offset).unwrap_or(0);
    match headers.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDPLITE => {
            let Some([s1, s0, d1, d0]) = packet.load::<4>(offset) else {
                headers.has |= has::CUT_SHORT;
                return;
            };
            headers.source_port = u16::from_be_bytes([s1, s0]);
            headers.destination_port = u16::from_be_bytes([d1, d0]);
            headers.has |= has::PORTS;
            if headers.protocol == protocol::TCP {
                let Some([flags]) = packet.load::<1>(offset + 13) else {
                    headers.has |= has::CUT_SHORT;
                    return;
                };
                headers.tcp_flags = flags;
                headers.has |= has::TCP_FLAGS;
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some([kind, code]) = packet.load::<2>(offset) else {
                headers.has |= has::CUT_SHORT;
                return;
            };
            headers.icmp_type = kind;
            headers.icmp_code = code;
            headers.has |= has::ICMP;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
