//! The packet within a packet: what a tunnel carries, or what an ICMP error is about.

use tracer_common::{Headers, ethertype, has, is_error, is_vxlan, parse, protocol, vxlan};

use super::Flow;
use super::decoder::flow;

/// Lengths in bytes.
const VXLAN: usize = vxlan::HEADER as usize;
const ETHERNET: usize = vxlan::ETHERNET as usize;
/// Type, code, checksum, and four bytes of the type's own.
const ICMP: usize = 8;

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// How.
    pub carrier: Carrier,
    /// Its own headers.
    pub flow: Flow,
}

/// In what a packet is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// VXLAN, with its network identifier.
    Vxlan(u32),
    /// IP in IP.
    Ip,
    /// An ICMP error is about it.
    IcmpError,
}

/// What the packet of these headers carries, as far as its first bytes show; `packet` begins with its network
/// header.
pub(super) fn inner(headers: &Headers, packet: &[u8]) -> Option<Inner> {
    let rest = packet.get(usize::from(headers.transport)..)?;
    let (carrier, ethertype, inside) = match headers.protocol {
        protocol::UDP if is_vxlan(headers.destination_port) => {
            let header = rest.get(8..)?;
            let vni = header.get(..VXLAN)?;
            if vni[0] & vxlan::HAS_VNI == 0 {
                return None;
            }
            let frame = &header[VXLAN..];
            let kind = frame.get(ETHERNET - 2..ETHERNET)?;
            (
                Carrier::Vxlan(u32::from_be_bytes([0, vni[4], vni[5], vni[6]])),
                u16::from_be_bytes([kind[0], kind[1]]),
                &frame[ETHERNET..],
            )
        }
        protocol::IPV4 => (Carrier::Ip, ethertype::IPV4, rest),
        protocol::IPV6 => (Carrier::Ip, ethertype::IPV6, rest),
        number if headers.has & has::ICMP != 0 && is_error(number, headers.icmp_type) => {
            let ethertype = match number {
                protocol::ICMP => ethertype::IPV4,
                _ => ethertype::IPV6,
            };
            (Carrier::IcmpError, ethertype, rest.get(ICMP..)?)
        }
        _ => return None,
    };
    // A transport header at offset 0 there is none.
    if headers.transport == 0 {
        return None;
    }
    let headers = parse(inside, ethertype)?;
    let flow = flow(&headers).ok()?;
    Some(Inner { carrier, flow })
}

#[cfg(test)]
mod tests {
    use tracer_policy::model::Protocol;

    use super::*;

    /// An IPv4 header without options.
    fn ipv4(protocol: u8, from: u8, to: u8) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend([10, 0, 0, from, 10, 0, 0, to]);
        bytes
    }

    fn udp(port: u16) -> Vec<u8> {
        let mut bytes = vec![0x30, 0x39];
        bytes.extend(port.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn of(packet: &[u8]) -> Option<Inner> {
        inner(&parse(packet, 0).unwrap(), packet)
    }

    /// 10.0.0.1:12345 to 10.0.0.2:53, UDP.
    fn lookup() -> Vec<u8> {
        [ipv4(17, 1, 2), udp(53)].concat()
    }

    fn assert_lookup(inner: &Inner) {
        assert_eq!(
            (inner.flow.source, inner.flow.destination),
            ([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        );
        assert_eq!(inner.flow.protocol, Protocol::Udp);
        assert_eq!(inner.flow.destination_port, Some(53));
    }

    #[test]
    fn vxlan_carries_a_frame() {
        let frame = [&[0; 12][..], &[0x08, 0x00], &lookup()].concat();
        for port in vxlan::PORTS {
            let header = [0x08, 0, 0, 0, 0, 0x01, 0x02, 0];
            let packet = [ipv4(17, 8, 9), udp(port), header.to_vec(), frame.clone()].concat();
            let inner = of(&packet).unwrap();
            assert_eq!(inner.carrier, Carrier::Vxlan(0x102));
            assert_lookup(&inner);
            for end in 0..packet.len() {
                if let Some(headers) = parse(&packet[..end], 0) {
                    let inner = super::inner(&headers, &packet[..end]);
                    assert!(inner.is_none_or(|inner| inner.flow.source.is_ipv4()));
                }
            }
        }
        // Another port's payload is nobody's tunnel, nor is a header without an identifier.
        let header = [0x08, 0, 0, 0, 0, 0, 1, 0];
        let other = [ipv4(17, 8, 9), udp(53), header.to_vec(), frame.clone()].concat();
        assert_eq!(of(&other), None);
        let header = [0, 0, 0, 0, 0, 0, 1, 0];
        let other = [ipv4(17, 8, 9), udp(8472), header.to_vec(), frame].concat();
        assert_eq!(of(&other), None);
    }

    #[test]
    fn ip_carries_ip() {
        let inner = of(&[ipv4(4, 8, 9), lookup()].concat()).unwrap();
        assert_eq!(inner.carrier, Carrier::Ip);
        assert_lookup(&inner);
    }

    #[test]
    fn an_icmp_error_is_about_a_packet() {
        let unreachable = vec![3, 3, 0, 0, 0, 0, 0, 0];
        let inner = of(&[ipv4(1, 2, 1), unreachable, lookup()].concat()).unwrap();
        assert_eq!(inner.carrier, Carrier::IcmpError);
        assert_lookup(&inner);
        let echo = vec![8, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(&[ipv4(1, 2, 1), echo, lookup()].concat()), None);
    }

    #[test]
    fn a_later_fragment_carries_nothing_that_can_be_read() {
        let mut header = ipv4(4, 8, 9);
        header[7] = 1;
        assert_eq!(of(&[header, lookup()].concat()), None);
    }
}
