//! Whose rules dropped a packet, told from rules as the projects make them.

use std::net::SocketAddr;

use anyhow::Result;
use lab::plan::NODE;
use lab::{Family, Lab, Wiring, traffic};
use serde_json::{Value, json};

use crate::watch::{self, Watch};

const PORT: u16 = 9100;

/// Rules for `nft`, or for `iptables-restore` of a backend, and what is to be told.
struct Shape {
    with: &'static [&'static str],
    rules: &'static str,
    enforcer: &'static str,
    evidence: &'static str,
}

/// As far as they matter: the chains by which each project drops, reached the way they are.
const SHAPES: [Shape; 7] = [
    Shape {
        with: &["nft", "-f", "-"],
        rules: "table ip calico {
            chain filter-cali-wl-to-host { udp dport 9100 counter drop; }
            chain filter-INPUT { type filter hook input priority 0; policy accept; jump filter-cali-wl-to-host; }
        }",
        enforcer: "calico-nftables",
        evidence: "table calico",
    },
    Shape {
        with: &["iptables-nft-restore"],
        rules: "*filter\n:cali-INPUT - [0:0]\n:cali-wl-to-host - [0:0]\n-A INPUT -j cali-INPUT\n\
                -A cali-INPUT -j cali-wl-to-host\n-A cali-wl-to-host -p udp --dport 9100 -j DROP\nCOMMIT\n",
        enforcer: "calico-iptables",
        evidence: "chains cali-*",
    },
    Shape {
        with: &["iptables-legacy-restore"],
        rules: "*filter\n:cali-INPUT - [0:0]\n:cali-wl-to-host - [0:0]\n-A INPUT -j cali-INPUT\n\
                -A cali-INPUT -j cali-wl-to-host\n-A cali-wl-to-host -p udp --dport 9100 -j DROP\nCOMMIT\n",
        enforcer: "calico-iptables",
        evidence: "chains cali-*",
    },
    Shape {
        with: &["iptables-nft-restore"],
        rules: "*filter\n:INPUT DROP [0:0]\n:ufw-before-input - [0:0]\n-A INPUT -j ufw-before-input\n\
                -A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n\
                -A ufw-before-input -p tcp -j ACCEPT\nCOMMIT\n",
        enforcer: "ufw",
        evidence: "chains ufw-*",
    },
    Shape {
        with: &["nft", "-f", "-"],
        rules: "table inet firewalld {
            chain filter_IN_public { udp dport 9100 reject with icmpx admin-prohibited; }
            chain filter_INPUT { type filter hook input priority 10; policy accept;
                ct state invalid drop; jump filter_IN_public; }
        }",
        enforcer: "firewalld",
        evidence: "table firewalld",
    },
    Shape {
        with: &["nft", "-f", "-"],
        rules: "table inet verdicts {
            chain no { drop; }
            map ports { type inet_service : verdict; elements = { 9100 : goto no, 9200 : drop }; }
            chain input { type filter hook input priority 0; policy accept;
                ct state vmap { established : accept, invalid : drop }; udp dport vmap @ports; }
        }
        table ip calico {
            chain filter-INPUT { type filter hook input priority 0; policy accept;
                ct state vmap { invalid : drop }; }
        }",
        enforcer: "host-firewall",
        evidence: "chain no of table inet verdicts",
    },
    Shape {
        with: &["nft", "-f", "-"],
        rules: "table inet site {
            chain input { type filter hook input priority 0; policy accept; udp dport 9100 drop; }
        }",
        enforcer: "host-firewall",
        evidence: "chain input of table inet site",
    },
];

#[test]
fn rules_are_told_apart_by_whose_they_are() {
    for shape in SHAPES {
        let Some(lab) = watch::lab(Wiring::Bridge) else {
            return;
        };
        let (program, arguments) = shape.with.split_first().unwrap();
        lab.node()
            .run_with_input(program, arguments, shape.rules)
            .unwrap();
        let drop = dropped(&lab).unwrap();
        assert_eq!(drop["enforcer"], shape.enforcer, "{program}: {drop:#}");
        let evidence = drop["evidence"].as_array().unwrap();
        assert!(
            evidence.contains(&json!(shape.evidence)),
            "{program}: {drop:#}"
        );
    }
}

#[test]
fn where_two_may_have_been_it_both_are_named() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let [calico, .., site] = &SHAPES;
    for shape in [calico, site] {
        lab.node()
            .run_with_input("nft", &["-f", "-"], shape.rules)
            .unwrap();
    }
    let drop = dropped(&lab).unwrap();
    assert_eq!(drop["enforcer"], Value::Null, "{drop:#}");
    assert_eq!(
        drop["candidates"],
        json!(["calico-nftables", "host-firewall"]),
        "{drop:#}"
    );
}

/// What is told of a datagram from a pod to its node.
fn dropped(lab: &Lab) -> Result<Value> {
    let watch = Watch::start(lab, Family::V4)?;
    let to = SocketAddr::new(NODE.v4.into(), PORT);
    traffic::udp_send(lab.pod("vault-0").netns(), to, 1, b"lab")?;
    let events = watch.drops(1)?;
    watch.stop()?;
    Ok(events[0]["drop"].clone())
}
