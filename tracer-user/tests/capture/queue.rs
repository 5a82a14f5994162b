//! What netfilter queues for a program, as some enforcers of policies do, and no program takes.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use tracer::decode::Hook;
use tracer::kernel::{Flavour, Options};

use crate::folded;
use crate::stage::{PACKETS, capture, packets, possible, sends, wait_until};

#[test]
fn what_nobody_takes_from_the_queue_is_a_policys_drop() {
    if !possible(&["iptables", "ip"]) {
        return;
    }
    for flavour in [Flavour::Btf, Flavour::Raw] {
        let options = Options {
            flavour: Some(flavour),
            ..Options::default()
        };
        let work = || {
            iptables(&[
                "-A", "INPUT", "-p", "udp", "--dport", "4444", "-j", "NFQUEUE",
            ]);
            sends(IpAddr::V4(Ipv4Addr::LOCALHOST), 4444);
            wait_until(|| queued() >= PACKETS.into());
            queued()
        };
        let (drops, counters, queued) = capture(&options, work, packets(PACKETS.into()));
        assert_eq!(queued, u64::from(PACKETS));
        assert_eq!(
            folded(&drops),
            queued,
            "{flavour:?} {counters:?} {drops:#?}"
        );
        for drop in &drops {
            assert_eq!(drop.hook, Some(Hook::Netfilter), "{drop:#?}");
            assert_eq!(drop.reason.name, "NOT_SPECIFIED");
            assert_eq!(drop.flow.and_then(|flow| flow.destination_port), Some(4444));
        }
    }
}

fn iptables(arguments: &[&str]) -> String {
    let output = Command::new("iptables")
        .args(arguments)
        .output()
        .expect("iptables");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Packets that the rule has met.
fn queued() -> u64 {
    let listing = iptables(&["-nvxL", "INPUT"]);
    let rule = listing.lines().find(|line| line.contains("NFQUEUE"));
    let packets = rule.and_then(|rule| rule.split_whitespace().next());
    packets.expect("a rule").parse().expect("its packets")
}
