//! What has to hold of any bytes at all. The fuzzer looks for bytes of which it does not; the bytes that it found
//! interesting are tried by `cargo test`, too (`tracer-user/tests/corpus.rs`).
#![expect(clippy::unwrap_used, reason = "a panic is what the fuzzer looks for")]

use std::fs;

use jiff::Timestamp;
use tracer::attribute::Attributor;
use tracer::decode::{Decoder, Resolve};
use tracer_common::{
    ABI, CAPTURE, DropEvent, Headers, MAGIC, RECORD, carried, ethertype, has, parse, protocol,
};

/// A packet's headers. The first byte chooses what the link layer says.
pub fn headers(data: &[u8]) {
    let Some((first, packet)) = data.split_first() else {
        return;
    };
    let ethertypes = [
        0,
        ethertype::IPV4,
        ethertype::IPV6,
        ethertype::VLAN,
        ethertype::QINQ,
    ];
    let ethertype = ethertypes[usize::from(*first) % ethertypes.len()];
    let whole = parse(packet, ethertype);
    if let Some(headers) = &whole {
        holds_together(headers, packet);
        carries(headers, packet, ethertype);
    }
    // Fewer bytes say less, and nothing else.
    for end in 0..packet.len().min(CAPTURE) {
        let Some(part) = parse(&packet[..end], ethertype) else {
            continue;
        };
        let whole = whole.as_ref().expect("a part parses, the whole does not");
        assert_eq!(part.version, whole.version);
        assert_eq!(part.source, whole.source);
        assert_eq!(part.destination, whole.destination);
        let more = part.has & !has::CUT_SHORT & !whole.has;
        assert_eq!(more, 0, "a part shows what the whole does not");
        if part.has & has::PORTS != 0 {
            assert_eq!(part.destination_port, whole.destination_port);
        }
    }
}

fn holds_together(headers: &Headers, packet: &[u8]) {
    assert!(matches!(headers.version, 4 | 6));
    let transport = usize::from(headers.transport);
    if headers.has & has::PORTS != 0 {
        let bytes = &packet[transport..];
        assert_eq!(headers.source_port.to_be_bytes(), bytes[..2]);
        assert_eq!(headers.destination_port.to_be_bytes(), bytes[2..4]);
    } else {
        assert_eq!((headers.source_port, headers.destination_port), (0, 0));
    }
    if headers.has & has::TCP_FLAGS != 0 {
        assert_eq!(headers.tcp_flags, packet[transport + 13]);
    }
    if headers.has & has::ICMP != 0 {
        assert_eq!(
            [headers.icmp_type, headers.icmp_code],
            packet[transport..][..2]
        );
    }
}

/// What a packet carries is a flow's, and a flow's source port is not.
fn carries(headers: &Headers, packet: &[u8], ethertype: u16) {
    let sum = carried(packet, headers);
    let may_carry = match headers.protocol {
        protocol::UDP => headers.has & has::PORTS != 0,
        protocol::ICMP | protocol::ICMPV6 => headers.has & has::ICMP != 0,
        protocol::IPV4 | protocol::IPV6 => headers.transport != 0,
        _ => false,
    };
    assert!(may_carry || sum == 0, "{headers:?} carries nothing");
    if headers.protocol == protocol::UDP && headers.has & has::PORTS != 0 {
        let mut other = packet.to_vec();
        other[usize::from(headers.transport)] ^= 0xff;
        let headers = parse(&other[..], ethertype).unwrap();
        assert_eq!(carried(&other[..], &headers), sum);
    }
}

struct Names;

impl Resolve for Names {
    fn reason(&self, number: u32) -> Option<String> {
        let names = ["NETFILTER_DROP", "TC_INGRESS", "TC_EGRESS", "XDP"];
        names
            .get(usize::try_from(number).ok()?)
            .map(|name| (*name).to_owned())
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        match address {
            0 => None,
            1 => Some("ip_forward+0x20".to_owned()),
            _ => Some("nf_hook_slow+0x7d".to_owned()),
        }
    }
}

/// A record from the kernel, as it comes, and with the beginning that lets it in.
pub fn record(data: &[u8]) {
    let mut decoder = Decoder::new(Box::new(Names));
    let mut attributor = Attributor::new("node".to_owned(), None);
    let mut let_in = [0; size_of::<DropEvent>()];
    let room = data.len().min(let_in.len() - 8);
    let_in[8..8 + room].copy_from_slice(&data[..room]);
    let_in[..4].copy_from_slice(&MAGIC.to_ne_bytes());
    let_in[4..6].copy_from_slice(&ABI.to_ne_bytes());
    let_in[6..8].copy_from_slice(&RECORD.to_ne_bytes());
    for bytes in [data, &let_in] {
        let Ok(raw) = decoder.decode(bytes) else {
            continue;
        };
        assert!(raw.count > 0 && raw.packet.len() <= CAPTURE);
        let drop = attributor.attribute(&raw, Timestamp::UNIX_EPOCH);
        let line = serde_json::to_string(&drop).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(
            serde_json::from_str::<tracer::record::Drop>(&line).unwrap(),
            drop
        );
        // A recording shows the same again.
        assert_eq!(attributor.again(&drop), drop);
    }
}

/// A file that is said to hold a cluster's objects.
pub fn cluster(data: &[u8]) {
    // Memory, in effect: the reader wants a file.
    let path = format!("/dev/shm/tracer-fuzz-{}.yaml", std::process::id());
    fs::write(&path, data).unwrap();
    let loaded = tracer::cluster::load(path.as_ref());
    let readable = tracer::cluster::load_what_can_be_read(path.as_ref());
    let _ = fs::remove_file(&path);
    for loaded in [&loaded, &readable] {
        match loaded {
            Ok(loaded) => {
                for warning in loaded.warnings() {
                    assert!(!warning.to_string().is_empty());
                }
                for flow in flows(&loaded.cluster) {
                    let verdict = loaded.cluster.evaluate(&flow);
                    assert_eq!(
                        verdict.reason.is_some(),
                        verdict.verdict == tracer_policy::Outcome::Unknown
                    );
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // Whoever goes on past errors reads the same where there is none.
    if let Ok(whole) = loaded {
        assert_eq!(whole.used, readable.unwrap().used);
    }
}

/// Some between the first pods and the outside, by name and by address.
fn flows(cluster: &tracer_policy::Cluster) -> Vec<tracer_policy::Flow> {
    use tracer_policy::{End, Flow};
    let mut ends = vec![End::Ip([192, 0, 2, 1].into())];
    for pod in cluster.pods().take(3) {
        ends.push(End::Pod(pod.id.clone()));
        ends.extend(pod.ips.iter().copied().map(End::Ip));
    }
    let services = cluster.services().take(2);
    ends.extend(services.flat_map(|own| own.ips.iter().copied().map(End::Ip)));
    let pairs = ends
        .iter()
        .flat_map(|from| ends.iter().map(move |to| (from, to)));
    pairs
        .map(|(from, to)| Flow::tcp(from.clone(), to.clone(), 80))
        .collect()
}
