//! What falls because conntrack does not know its connection, not by a policy.

use std::io::Write as _;
use std::net::TcpStream;

use lab::{Family, Wiring};

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
