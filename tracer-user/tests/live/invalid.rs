//! What falls because conntrack does not know its connection, not by a policy.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use lab::{Family, Netns, Wiring};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use tracer_policy::model::Protocol;

use crate::enforcers::send;
use crate::watch::{self, Watch};

/// A connection that is older than conntrack's work here.
#[test]
fn what_conntrack_never_saw_is_not_the_policys() {
    let Some(lab) = watch::lab(Wiring::Routed) else {
        return;
    };
    let node = lab.node();
    // The Services' translation has conntrack at work.
    for family in ["ip", "ip6"] {
        node.run("nft", &["delete", "table", family, "services"])
            .unwrap();
    }
    let to = lab.vault("vault-0", Family::V4);
    let from = lab.pod("vault-1").netns();
    let mut stream = from.enter(|| TcpStream::connect(to)).unwrap().unwrap();
    let rules = "table inet stateful { chain forward { type filter hook forward priority 0; \
                 ct state invalid counter drop; }; }";
    node.run_with_input("nft", &["-f", "-"], rules).unwrap();
    // What it has not seen begin is not taken for a connection.
    node.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")
        .unwrap();
    let watch = Watch::start(&lab, Family::V4).unwrap();
    stream.write_all(b"lab").unwrap();
    let events = watch.drops(1).unwrap();
    node.run("nft", &["delete", "table", "inet", "stateful"])
        .unwrap();
    let event = &events[0];
    assert_eq!(event["class"], "conntrack-invalid", "{event:#}");
    assert_eq!(event["policy"]["verdict"], "allowed", "{event:#}");
    assert_eq!(event["drop"]["hook"], "FORWARD", "{event:#}");
}

/// SYNs: their flags say nothing of it, only what conntrack made of each does.
#[test]
fn what_conntrack_calls_invalid_is_told_from_what_it_knows() {
    let Some(lab) = watch::lab(Wiring::Routed) else {
        return;
    };
    let rules = "table inet stateful { chain forward { type filter hook forward priority 0; \
                 ct state invalid counter drop; tcp dport 8200 ct state new counter drop; }; }";
    let node = lab.node();
    node.run_with_input("nft", &["-f", "-"], rules).unwrap();
    for family in [Family::V4, Family::V6] {
        let watch = Watch::start(&lab, family).unwrap();
        // Not of one flow: repeats are told like a flow's first packet.
        let vault = lab.vault("vault-0", family);
        let other = SocketAddr::new(vault.ip(), 8201);
        let peer = lab.pod("vault-1").netns();
        for (from, verdict, class, invalid) in [
            (peer, "allowed", "statefulset-peer", "conntrack-invalid"),
            (lab.remote(), "denied", "external", "external"),
        ] {
            // The one that it knows also shows that it is at work.
            let known = send(from, vault, Protocol::Tcp).unwrap();
            for event in watch.drops(known).unwrap() {
                assert_eq!(event["class"], class, "{event:#}");
                assert_eq!(event["policy"]["verdict"], verdict, "{event:#}");
                assert!(event["notes"].is_null(), "{event:#}");
            }
            send_corrupt(from, other);
            let events = watch.drops(1).unwrap();
            let event = &events[0];
            assert_eq!(event["class"], invalid, "{event:#}");
            assert_eq!(event["policy"]["verdict"], verdict, "{event:#}");
            assert_eq!(event["drop"]["hook"], "FORWARD", "{event:#}");
            // What policies deny anyway stays what it is, and it is said.
            let notes = event["notes"].to_string();
            let noted = notes.contains("conntrack calls it INVALID");
            assert_eq!(noted, verdict == "denied", "{event:#}");
        }
        watch.stop().unwrap();
    }
}

/// Sends a SYN whose checksum is wrong: a router passes it on, conntrack does not take it for a connection.
fn send_corrupt(from: &Netns, to: SocketAddr) {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    // Its length in words, SYN; then the checksum, which is not worked out for a raw socket.
    segment[12..14].copy_from_slice(&[0x50, 0x02]);
    segment[16..18].copy_from_slice(&[0xde, 0xad]);
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let sent = from.enter(|| {
        let socket = socket(family, SocketType::RAW, Some(ipproto::TCP)).expect("a raw socket");
        // IPv6's have no port of their own to name here.
        let to = SocketAddr::new(to.ip(), 0);
        sendto(&socket, &segment, SendFlags::empty(), &to).expect("it is sent")
    });
    assert_eq!(sent.expect("the namespace"), segment.len());
}
