//! Records as bytes, written out as the kernel program writes them.

use super::super::{Device, Devices, Process};
use super::*;

/// A record of a SYN from 10.42.1.7:40000 to 192.168.1.100:6443 that tc dropped on `vethA`.
fn record() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(b"drop");
    bytes.extend(ABI.to_le_bytes());
    bytes.extend(304u16.to_le_bytes());
    bytes.extend(123_456_789u64.to_le_bytes()); // ktime
    bytes.extend(1u64.to_le_bytes()); // count
    bytes.extend(0xffff_ffff_81aa_107du64.to_le_bytes()); // location
    bytes.extend(0x49u32.to_le_bytes()); // reason
    bytes.extend(0b1_0111u32.to_le_bytes()); // interface, netns, headers, reason
    bytes.extend(7u32.to_le_bytes()); // ifindex
    bytes.extend(0xf000_0099u32.to_le_bytes()); // netns
    bytes.extend(0x2_0000u32.to_le_bytes()); // mark
    bytes.extend(60u32.to_le_bytes()); // length
    bytes.extend(3u16.to_le_bytes()); // captured
    bytes.extend(0x0800u16.to_le_bytes());
    bytes.extend([0; 8]); // reply, reserved
    bytes.extend([10, 42, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([192, 168, 1, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(40000u16.to_le_bytes());
    bytes.extend(6443u16.to_le_bytes());
    bytes.extend([4, 6, 0x02, 0, 0, 0b11, 0, 0]);
    bytes.extend(b"vethA\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend(0xffff_ffff_81aa_2000u64.to_le_bytes()); // caller
    bytes.extend([10, 43, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // original destination
    bytes.extend(b"kubelet\0\0\0\0\0\0\0\0\0");
    bytes.extend(4711u32.to_le_bytes()); // pid
    bytes.extend(443u16.to_le_bytes()); // original port
    bytes.extend([0; 2]);
    bytes.extend([0x45, 0x00, 0x00]);
    bytes.resize(304, 0);
    bytes
}

const FIELDS: usize = 36;
const REASON: usize = 32;
const LOCATION: usize = 24;
const ETHERTYPE: usize = 58;

struct Names;

impl Resolve for Names {
    fn reason(&self, number: u32) -> Option<String> {
        let name = match number {
            12 => "NETFILTER_DROP",
            0x49 => "TC_INGRESS",
            3 => "NO_SOCKET",
            _ => return None,
        };
        Some(name.to_owned())
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        let name = match address {
            0xffff_ffff_81aa_107d => "nf_hook_slow+0x7d",
            0xffff_ffff_81aa_2000 => "ip_forward+0x20",
            0xffff_ffff_81bb_0009 => "__netif_receive_skb_core.constprop.0+0x9",
            _ => return None,
        };
        Some(name.to_owned())
    }
}

fn decode(record: &[u8]) -> Result<RawDrop, DecodeError> {
    Decoder::new(Box::new(Names)).decode(record)
}

#[test]
fn a_whole_record() {
    let drop = decode(&record()).unwrap();
    assert_eq!(
        drop,
        RawDrop {
            ktime_ns: 123_456_789,
            count: 1,
            reason: DropReason {
                number: 0x49,
                name: "TC_INGRESS".to_owned(),
            },
            location: Location {
                address: 0xffff_ffff_81aa_107d,
                symbol: Some("nf_hook_slow+0x7d".to_owned()),
            },
            hook: Some(Hook::TcIngress),
            action: Some(Action::Drop),
            interface: Some((7, "vethA".to_owned())),
            netns: Some(0xf000_0099),
            mark: 0x2_0000,
            length: 60,
            flow: Some(Flow {
                source: [10, 42, 1, 7].into(),
                destination: [192, 168, 1, 100].into(),
                protocol: Protocol::Tcp,
                source_port: Some(40000),
                destination_port: Some(6443),
                tcp_flags: Some(TcpFlags(0x02)),
                icmp: None,
            }),
            packet: Bytes::from_static(&[0x45, 0, 0]),
            story: Story {
                devices: Devices {
                    input: Some(Device {
                        index: 7,
                        name: Some("vethA".to_owned()),
                    }),
                    output: None,
                },
                ..Story::default()
            },
            inner: None,
        }
    );
}

#[test]
fn every_truncation_is_an_error() {
    let whole = record();
    for length in 0..whole.len() {
        assert_eq!(
            decode(&whole[..length]),
            Err(DecodeError::Size {
                got: length,
                wanted: 304
            })
        );
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(
        decode(&longer),
        Err(DecodeError::Size { got: 305, .. })
    ));
}

#[test]
fn foreign_bytes_and_other_versions_are_errors() {
    assert_eq!(decode(&[0; 256]), Err(DecodeError::Foreign(0)));
    let mut other = record();
    other[4] = 1;
    assert_eq!(decode(&other), Err(DecodeError::Abi(1)));
}

#[test]
fn what_cannot_be_is_an_error() {
    let broken = |at: usize, byte: u8| {
        let mut record = record();
        record[at] = byte;
        decode(&record)
    };
    assert_eq!(broken(6, 8), Err(DecodeError::Impossible("size")));
    assert_eq!(
        broken(16, 0),
        Err(DecodeError::Impossible("packet count of 0"))
    );
    assert_eq!(
        broken(56, 129),
        Err(DecodeError::Impossible("capture length"))
    );
    assert_eq!(broken(104, 5), Err(DecodeError::Impossible("IP version")));
}

#[test]
fn what_the_kernel_could_not_tell_is_absent() {
    let mut record = record();
    record[FIELDS] = 0;
    let drop = decode(&record).unwrap();
    assert_eq!(drop.interface, None);
    assert_eq!(drop.netns, None);
    assert_eq!(drop.flow, None);
    assert_eq!(drop.reason.name, "NOT_SPECIFIED");
    // The place tells that.
    assert_eq!((drop.hook, drop.action), (Some(Hook::Netfilter), None));
}

#[test]
fn without_reasons_the_place_tells_the_hook() {
    let mut record = record();
    record[FIELDS] &= !(1 << 4);
    let drop = decode(&record).unwrap();
    assert_eq!(drop.reason.name, "NOT_SPECIFIED");
    assert_eq!((drop.hook, drop.action), (Some(Hook::Netfilter), None));
    assert_eq!(
        hook_at("__netif_receive_skb_core.constprop.0+0x10"),
        Some(Hook::TcIngress)
    );
    assert_eq!(hook_at("__dev_queue_xmit+0xc6d"), Some(Hook::TcEgress));
    assert_eq!(hook_at("tcp_v4_rcv+0x9e"), None);
    // Without headers that can be read, too.
    record[FIELDS] &= !(1 << 2);
    record[ETHERTYPE..ETHERTYPE + 2].copy_from_slice(&0x88cc_u16.to_le_bytes());
    assert_eq!(decode(&record).unwrap().hook, Some(Hook::Netfilter));
    // At tc what is no IP packet nobody's policy dropped: that place frees unknown protocols too.
    record[LOCATION..LOCATION + 8].copy_from_slice(&0xffff_ffff_81bb_0009_u64.to_le_bytes());
    assert_eq!(decode(&record).unwrap().hook, None);
    record[ETHERTYPE..ETHERTYPE + 2].copy_from_slice(&0x0800_u16.to_le_bytes());
    assert_eq!(decode(&record).unwrap().hook, Some(Hook::TcIngress));
}

#[test]
fn a_name_that_is_none_makes_no_interface() {
    for name in [*b"\0ethA\0", *b"vet\xffA\0", *b"ve/hA\0", *b"ve hA\0"] {
        let mut record = record();
        record[112..118].copy_from_slice(&name);
        assert_eq!(decode(&record).unwrap().interface, None, "{name:?}");
    }
    let mut record = record();
    record[112..128].fill(b'x');
    assert_eq!(decode(&record).unwrap().interface, None, "no NUL");
}

#[test]
fn netfilter_leaves_open_what_was_done_unless_a_reply_was_seen() {
    let mut record = record();
    record[REASON] = 12;
    let drop = decode(&record).unwrap();
    assert_eq!((drop.hook, drop.action), (Some(Hook::Netfilter), None));

    record[FIELDS] |= 1 << 3;
    record[60..62].copy_from_slice(&[3, 13]);
    let drop = decode(&record).unwrap();
    let reply = Icmp { kind: 3, code: 13 };
    assert_eq!(drop.action, Some(Action::RejectIcmp(reply)));
}

#[test]
fn what_would_have_been_answered_in_sight_was_dropped_without_a_word() {
    const PROTOCOL: usize = 105;
    let all = Answers {
        icmp: true,
        icmpv6: true,
        reset: true,
        reset6: true,
        ..Answers::default()
    };
    let action = |record: &[u8], answers| {
        let mut decoder = Decoder::new(Box::new(Names)).seeing(answers);
        decoder.decode(record).unwrap().action
    };
    let mut record = record();
    record[REASON] = 12;
    assert_eq!(record[104..106], [4, 6], "TCP over IPv4");
    assert_eq!(action(&record, all), Some(Action::Drop));
    for blind in [
        Answers {
            reset: false,
            ..all
        },
        Answers { icmp: false, ..all },
    ] {
        assert_eq!(action(&record, blind), None, "{blind:?}");
    }
    let over_ipv6 = Answers {
        icmpv6: false,
        reset6: false,
        ..all
    };
    assert_eq!(action(&record, over_ipv6), Some(Action::Drop));
    let mut datagram = record.clone();
    datagram[PROTOCOL] = 17;
    let no_reset = Answers {
        reset: false,
        ..all
    };
    assert_eq!(action(&datagram, no_reset), Some(Action::Drop));
    // Kprobes miss what happens while user space is at the tables, and before they hang; a tracepoint does not.
    let mut deaf = datagram.clone();
    deaf[FIELDS + 1] |= 1 << 4;
    let late = Answers {
        since_ns: u64::MAX,
        ..all
    };
    for (record, answers) in [(&deaf, all), (&datagram, late)] {
        assert_eq!(action(record, answers), None);
        let traced = Answers {
            icmp_traced: true,
            ..answers
        };
        assert_eq!(action(record, traced), Some(Action::Drop));
    }
    // What has no headers may be anything.
    let mut other = record.clone();
    other[FIELDS] &= !(1 << 2);
    assert_eq!(action(&other, all), None);
}

#[test]
fn a_reset_is_an_answer_but_not_to_a_reset() {
    let mut record = record();
    record[REASON] = 12;
    record[FIELDS + 1] |= 1 << 1;
    let drop = decode(&record).unwrap();
    assert_eq!(drop.action, Some(Action::RejectTcpReset));
    record[106] = 0b100;
    assert_eq!(decode(&record).unwrap().action, Some(Action::Drop));
}

#[test]
fn reasons_without_name_or_hook() {
    let mut record = record();
    record[REASON] = 3;
    let drop = decode(&record).unwrap();
    assert_eq!((drop.hook, drop.action), (None, None));
    record[REASON] = 0xee;
    assert_eq!(decode(&record).unwrap().reason.name, "238");
}

#[test]
fn ipv6_icmp() {
    let mut record = record();
    record[68..84].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    record[84..100].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    record[104..110].copy_from_slice(&[6, 58, 0, 135, 0, 0b100]);
    let flow = decode(&record).unwrap().flow.unwrap();
    assert_eq!(flow.source, "fd00::1".parse::<IpAddr>().unwrap());
    assert_eq!(flow.destination, "ff02::2".parse::<IpAddr>().unwrap());
    assert_eq!(flow.protocol, Protocol::Icmpv6);
    assert_eq!((flow.source_port, flow.destination_port), (None, None));
    assert_eq!(flow.tcp_flags, None);
    assert_eq!(flow.icmp, Some(Icmp { kind: 135, code: 0 }));
}

#[test]
fn its_story_is_told_as_far_as_it_is_known() {
    let mut record = record();
    record[REASON..REASON + 4].copy_from_slice(&12u32.to_le_bytes());
    assert_eq!(decode(&record).unwrap().story, Story::default());
    record[FIELDS..FIELDS + 4].copy_from_slice(&0b1_1101_0111u32.to_le_bytes());
    assert_eq!(
        decode(&record).unwrap().story,
        Story {
            chain: Chain::from_name("FORWARD"),
            original: Some("10.43.0.1:443".parse().unwrap()),
            process: Some(Process {
                pid: 4711,
                name: "kubelet".to_owned(),
            }),
            tracked: None,
            // The hook alone does not say which of two devices it was at.
            devices: Devices::default(),
        }
    );
    for (bits, tracked) in [(0b01, Some(true)), (0b10, Some(false)), (0b11, None)] {
        let fields: u32 = 0b1_0111 | bits << 10;
        record[FIELDS..FIELDS + 4].copy_from_slice(&fields.to_le_bytes());
        assert_eq!(decode(&record).unwrap().story.tracked, tracked, "{bits:b}");
    }
    record[FIELDS..FIELDS + 4].copy_from_slice(&0b1_1101_0111u32.to_le_bytes());
    // Who asked is of no matter where it was not netfilter that was asked.
    record[REASON..REASON + 4].copy_from_slice(&0x49u32.to_le_bytes());
    assert_eq!(decode(&record).unwrap().story.chain, None);
}
