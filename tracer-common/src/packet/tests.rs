//! Packets written out by hand, header by header.

extern crate std;

use std::vec::Vec;

use super::{Headers, ethertype, has, parse, protocol};

/// An IPv4 header of `20 + options` bytes from 10.42.1.7 to 192.168.1.100.
fn ipv4(protocol: u8, fragment: u16, options: &[u8]) -> Vec<u8> {
    let words = u8::try_from((20 + options.len()) / 4).unwrap();
    let mut packet = std::vec![0x40 | words, 0, 0, 0, 0, 1];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 42, 1, 7, 192, 168, 1, 100]);
    packet.extend(options);
    packet
}

/// An IPv6 header from `fd00::7` to `fd00::100`, followed by extension headers.
fn ipv6(next: u8, extensions: &[&[u8]]) -> Vec<u8> {
    let mut packet = std::vec![0x60, 0, 0, 0, 0, 0, next, 64];
    for last in [[0, 7], [1, 0]] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(last);
    }
    for extension in extensions {
        packet.extend(*extension);
    }
    packet
}

/// A TCP header from port 40000 to 6443.
fn tcp(flags: u8) -> Vec<u8> {
    let mut header = std::vec![0x9c, 0x40, 0x19, 0x2b];
    header.extend([0; 8]);
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn v4(packet: &[u8]) -> Headers {
    parse(packet, ethertype::IPV4).expect("an IPv4 packet")
}

fn v6(packet: &[u8]) -> Headers {
    parse(packet, ethertype::IPV6).expect("an IPv6 packet")
}

fn assert_tcp(headers: &Headers) {
    assert_eq!(headers.protocol, protocol::TCP);
    assert_eq!(
        (headers.source_port, headers.destination_port),
        (40000, 6443)
    );
    assert_eq!(headers.tcp_flags, 0x02);
    assert_eq!(headers.has & !has::FRAGMENT, has::PORTS | has::TCP_FLAGS);
}

#[test]
fn tcp_over_ipv4() {
    let headers = v4(&[ipv4(6, 0x4000, &[]), tcp(0x02)].concat());
    assert_tcp(&headers);
    assert_eq!(headers.version, 4);
    assert_eq!(headers.source[..5], [10, 42, 1, 7, 0]);
    assert_eq!(headers.destination[..5], [192, 168, 1, 100, 0]);
    assert_eq!(headers.has & has::FRAGMENT, 0, "DF is no fragment");
}

#[test]
fn ipv4_options_are_stepped_over() {
    let headers = v4(&[ipv4(6, 0, &[1; 40]), tcp(0x02)].concat());
    assert_tcp(&headers);
}

#[test]
fn ipv4_fragments() {
    let first = v4(&[ipv4(6, 0x2000, &[]), tcp(0x02)].concat());
    assert_tcp(&first);
    assert_ne!(first.has & has::FRAGMENT, 0);
    // Payload that looks like a TCP header is none.
    let later = v4(&[ipv4(6, 0x00b9, &[]), tcp(0x02)].concat());
    assert_eq!(later.has, has::FRAGMENT);
    assert_eq!((later.source_port, later.destination_port), (0, 0));
    assert_eq!(later.protocol, protocol::TCP);
}

#[test]
fn udp_sctp_and_icmp() {
    for number in [protocol::UDP, protocol::SCTP] {
        let headers = v4(&[ipv4(number, 0, &[]), std::vec![0, 53, 0x80, 1]].concat());
        assert_eq!((headers.source_port, headers.destination_port), (53, 32769));
        assert_eq!(headers.has, has::PORTS);
    }
    let headers = v4(&[ipv4(1, 0, &[]), std::vec![3, 4]].concat());
    assert_eq!((headers.icmp_type, headers.icmp_code), (3, 4));
    assert_eq!(headers.has, has::ICMP);
    let headers = v6(&ipv6(58, &[&[135, 0, 0, 0]]));
    assert_eq!((headers.icmp_type, headers.has), (135, has::ICMP));
}

#[test]
fn a_protocol_without_ports_has_none() {
    let headers = v4(&[ipv4(47, 0, &[]), std::vec![0x9c, 0x40, 0x19, 0x2b]].concat());
    assert_eq!((headers.protocol, headers.has), (47, 0));
}

#[test]
fn tcp_over_ipv6() {
    let headers = v6(&ipv6(6, &[&tcp(0x02)]));
    assert_tcp(&headers);
    assert_eq!(headers.version, 6);
    assert_eq!(
        headers.source,
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
    );
    assert_eq!(headers.destination[14..], [1, 0]);
}

#[test]
fn ipv6_extension_chain() {
    let hop_by_hop = [60, 0, 5, 2, 0, 0, 1, 0];
    let mut destination_options = [0; 16];
    destination_options[..2].copy_from_slice(&[43, 1]);
    let routing = [51, 0, 0, 0, 0, 0, 0, 0];
    // 24 bytes: (4 + 2) * 4.
    let mut authentication = [0; 24];
    authentication[..2].copy_from_slice(&[44, 4]);
    let fragment = [6, 0, 0, 1, 0, 0, 0, 9];
    let headers = v6(&ipv6(
        0,
        &[
            &hop_by_hop,
            &destination_options,
            &routing,
            &authentication,
            &fragment,
            &tcp(0x02),
        ],
    ));
    assert_tcp(&headers);
    assert_ne!(headers.has & has::FRAGMENT, 0);
}

#[test]
fn a_later_ipv6_fragment_has_no_ports() {
    let headers = v6(&ipv6(44, &[&[6, 0, 0x05, 0xa8, 0, 0, 0, 9], &tcp(0x02)]));
    assert_eq!(
        (headers.protocol, headers.has),
        (protocol::TCP, has::FRAGMENT)
    );
}

#[test]
fn an_endless_extension_chain_ends() {
    let link: &[u8] = &[60, 0, 0, 0, 0, 0, 0, 0];
    let headers = v6(&ipv6(60, &[link; 40]));
    assert_eq!((headers.protocol, headers.has), (60, has::CUT_SHORT));
    // As long as is followed.
    let mut chain = std::vec![link; super::EXTENSIONS - 1];
    let last: &[u8] = &[6, 0, 0, 0, 0, 0, 0, 0];
    let tcp = tcp(0x02);
    chain.extend([last, &tcp]);
    assert_tcp(&v6(&ipv6(60, &chain)));
}

#[test]
fn vlan_tags_are_stepped_over() {
    let inner = [ipv4(6, 0, &[]), tcp(0x02)].concat();
    let tagged = [&[0, 5, 0x08, 0x00], &inner[..]].concat();
    assert_tcp(&parse(&tagged[..], ethertype::VLAN).unwrap());
    let twice = [&[0, 7, 0x81, 0x00], &tagged[..]].concat();
    assert_tcp(&parse(&twice[..], ethertype::QINQ).unwrap());
    let thrice = [&[0, 9, 0x81, 0x00], &twice[..]].concat();
    assert_eq!(parse(&thrice[..], ethertype::QINQ), None);
}

#[test]
fn an_unknown_ethertype_is_told_by_the_version() {
    let packet = [ipv4(6, 0, &[]), tcp(0x02)].concat();
    assert_tcp(&parse(&packet[..], 0).unwrap());
    assert_tcp(&parse(&ipv6(6, &[&tcp(0x02)])[..], 0).unwrap());
    // ARP, and a version that contradicts the link layer.
    assert_eq!(parse(&packet[..], 0x0806), None);
    assert_eq!(parse(&packet[..], ethertype::IPV6), None);
}

#[test]
fn malformed_and_truncated() {
    let mut packet = [ipv4(6, 0, &[]), tcp(0x02)].concat();
    packet[0] = 0x44;
    assert_eq!(
        parse(&packet[..], ethertype::IPV4),
        None,
        "header of 16 bytes"
    );
    packet[0] = 0x4f;
    let headers = v4(&packet);
    assert_eq!(headers.has, has::CUT_SHORT, "header longer than the packet");

    let whole4 = [ipv4(6, 0, &[]), tcp(0x02)].concat();
    let whole6 = ipv6(0, &[&[6, 0, 0, 0, 0, 0, 0, 0], &tcp(0x02)]);
    for (whole, ethertype, ip, full) in [
        (whole4, ethertype::IPV4, 20, 34),
        (whole6, ethertype::IPV6, 40, 62),
    ] {
        for length in 0..whole.len() {
            let parsed = parse(&whole[..length], ethertype);
            assert_eq!(parsed.is_some(), length >= ip, "{length}");
            if let Some(headers) = parsed {
                assert_eq!(headers.has & has::CUT_SHORT != 0, length < full, "{length}");
                assert_eq!(
                    headers.has & has::PORTS != 0,
                    length >= full - 10,
                    "{length}"
                );
            }
        }
    }
}
