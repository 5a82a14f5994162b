//! One firewall rule at one hook, seen by the real program: every backend, hook, family, protocol and
//! verdict. The whole event has to be right, and its count is the rule's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::plan::{NODE, POD_GATEWAY, REMOTE};
use lab::{Family, Lab, Netns, Wiring, kernel, traffic};
use serde_json::json;
use tracer_policy::model::Protocol;

use crate::enforcers::send;
use crate::expect::{Event, Port, alone, external, node, on, sent_here, through, vault_0};
use crate::watch::{self, Answer, Told, Watch};

const PORT: u16 = 8200;

#[derive(Clone, Copy, Debug)]
struct Case {
    backend: Backend,
    hook: Hook,
    family: Family,
    protocol: Protocol,
    verdict: Verdict,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in [
        Backend::IptablesNft,
        Backend::IptablesLegacy,
        Backend::Nftables,
    ] {
        for hook in [Hook::Forward, Hook::Input, Hook::Output] {
            for family in [Family::V4, Family::V6] {
                let icmp = match family {
                    Family::V4 => Protocol::Icmp,
                    Family::V6 => Protocol::Icmpv6,
                };
                for protocol in [Protocol::Tcp, Protocol::Udp, icmp] {
                    for verdict in [
                        Verdict::Drop,
                        Verdict::Reject,
                        Verdict::RejectWithReset,
                        Verdict::Accept,
                    ] {
                        if verdict != Verdict::RejectWithReset || protocol == Protocol::Tcp {
                            cases.push(Case {
                                backend,
                                hook,
                                family,
                                protocol,
                                verdict,
                            });
                        }
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_rule_is_seen_whole_and_counted_exactly() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let watch = Watch::start(&lab, Family::V4).unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        if let Err(error) = check(&lab, &watch, case) {
            wrong.push(format!("{case:?}: {error:#}"));
        }
    }
    if let Err(error) = watch.stop() {
        wrong.push(format!("{error:#}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What pods on different nodes say to each other, dropped by a host's firewall.
#[test]
fn a_tunnels_packet_shows_what_it_carries() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let watch = Watch::start(&lab, Family::V4).unwrap();
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Input,
        protocol: Protocol::Udp,
        source: None,
        destination: NODE.v4.into(),
        port: Some(VXLAN),
        verdict: Verdict::Drop,
    };
    let rule = rule.install(lab.node()).unwrap();
    let to = SocketAddr::new(NODE.v4.into(), VXLAN);
    let pod = lab.pod("vault-0").addresses().v4;
    // Of one flow outside, and two inside.
    for port in [PORT, 8201] {
        let before = rule.packets().unwrap();
        traffic::udp_send(lab.master(), to, 3, &frame(REMOTE.v4, pod, port)).unwrap();
        let counted = traffic::until_counted(3, || Ok(rule.packets()? - before)).unwrap();
        assert_eq!(counted, 3);
        // The repeats are told like the first.
        let events = watch.drops(counted).unwrap();
        let [event] = events.as_slice() else {
            panic!("{events:#?}");
        };
        assert_eq!(
            event["inner"],
            json!({"carrier": "vxlan", "vni": 1, "protocol": "UDP",
                "source": external(REMOTE.v4.into(), Port::Number(12345)),
                "destination": vault_0(pod.into(), Port::Number(port))}),
            "{event:#}",
        );
        let hint = event["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("allow UDP 8472 (VXLAN)"), "{hint}");
    }
    watch.stop().unwrap();
}

/// flannel's port.
const VXLAN: u16 = 8472;

/// VXLAN's header, Ethernet's, and a datagram from port 12345.
fn frame(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    bytes.extend([0; 12]);
    bytes.extend([0x08, 0x00]);
    bytes.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(12345_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

fn check(lab: &Lab, watch: &Watch, case: Case) -> Result<()> {
    let way = Way::of(lab, case);
    let rule = Rule {
        backend: case.backend,
        hook: case.hook,
        protocol: case.protocol,
        source: None,
        destination: way.to,
        port: case.protocol.has_ports().then_some(PORT),
        verdict: case.verdict,
    };
    let rule = rule.install(lab.node())?;
    let sent = send(way.from, SocketAddr::new(way.to, PORT), case.protocol)?;
    let counted = traffic::until_counted(sent, || rule.packets())?;
    rule.remove()?;
    ensure!(counted >= sent, "of {sent} packets it met {counted}");
    if case.verdict == Verdict::Accept {
        // What it let through must not turn up; if it did, the next case would trip over it.
        return Ok(());
    }
    ensure!(counted == sent, "of {sent} packets it met {counted}");
    let mut events = watch.drops(counted)?;
    for event in &mut events {
        // Rules are read every few seconds, and here come and go in between: `whose.rs` is about them.
        for of_the_rules in ["enforcer", "candidates", "evidence"] {
            if let Some(drop) = event["drop"].as_object_mut() {
                drop.remove(of_the_rules);
            }
        }
    }
    watch.is_told(events, way.event(watch, case, counted).json())
}

/// Where packets go for a hook of the node: through it to a pod, from a pod to it, from it to a pod.
struct Way<'a> {
    from: &'a Netns,
    source: IpAddr,
    to: IpAddr,
}

impl<'a> Way<'a> {
    fn of(lab: &'a Lab, case: Case) -> Self {
        let family = case.family;
        let vault = lab.pod("vault-0");
        let pod = vault.addresses().of(family);
        let (from, source, to) = match case.hook {
            Hook::Forward => (lab.remote(), REMOTE.of(family), pod),
            Hook::Input => (vault.netns(), pod, NODE.of(family)),
            Hook::Output => (lab.node(), POD_GATEWAY.of(family), pod),
        };
        Self { from, source, to }
    }

    fn event(&self, watch: &Watch, case: Case, count: u64) -> Event {
        let protocol = case.protocol;
        let (client, server) = (Port::sender(protocol), Port::receiver(protocol, PORT));
        let (source, to) = (self.source, self.to);
        let on = on(protocol, PORT);
        let by_selector =
            |ip: IpAddr| format!("node node-1 ({ip}), an address no podSelector can match");
        let (direction, class, source_end, destination_end, interface, got, hint) = match case.hook
        {
            Hook::Forward => (
                "ingress",
                "external",
                external(source, client),
                vault_0(to, server),
                "eth0",
                format!("{source}, an address outside the cluster"),
                format!("allow ingress from {} (ipBlock){on}", alone(source)),
            ),
            Hook::Input => (
                "egress",
                "pod-to-node",
                vault_0(source, client),
                node("node-1", to, server),
                "cni0",
                by_selector(to),
                format!("allow egress to {} (ipBlock){on}", alone(to)),
            ),
            Hook::Output => {
                // A kubelet probes `status.podIP` alone, which is the IPv4 one here.
                let probe = protocol == Protocol::Tcp && case.family == Family::V4;
                let hint = if probe {
                    format!(
                        "allow ingress from the node's own address {}{on} (ipBlock)",
                        alone(source)
                    )
                } else {
                    format!("allow ingress from {} (ipBlock){on}", alone(source))
                };
                (
                    "ingress",
                    if probe {
                        "kubelet-probe"
                    } else {
                        "node-to-pod"
                    },
                    sent_here(node("node-1", source, client)),
                    vault_0(to, server),
                    "cni0",
                    by_selector(source),
                    hint,
                )
            }
        };
        let (input, output) = match case.hook {
            Hook::Forward => (Some(interface), Some("cni0")),
            Hook::Input => (Some(interface), None),
            Hook::Output => (None, Some(interface)),
        };
        let drop = json!({
            "reason": kernel::reason("NETFILTER_DROP"),
            "hook": match case.hook {
                Hook::Forward => "FORWARD",
                Hook::Input => "INPUT",
                Hook::Output => "OUTPUT",
            },
            "datapath": "netfilter",
            "interface": interface,
        });
        let mut drop = through(drop, input, output);
        let answer = match case.verdict {
            Verdict::Reject => Some(Answer::Icmp),
            Verdict::RejectWithReset => Some(Answer::Reset),
            Verdict::Drop | Verdict::Accept => None,
        };
        let told = watch.tell(&mut drop, answer, case.family, protocol);
        Event {
            count,
            direction,
            class,
            source: source_end,
            destination: destination_end,
            protocol,
            drop,
            got,
            grade: "proven",
            symptom: symptom(class, protocol, told == Told::Answered),
            hint,
        }
    }
}

fn symptom(class: &str, protocol: Protocol, told: bool) -> String {
    let text = match (protocol, told) {
        (Protocol::Tcp | Protocol::Udp, true) => "connection refused",
        (Protocol::Tcp, false) if class == "kubelet-probe" => "context deadline exceeded",
        (Protocol::Tcp | Protocol::Udp, false) => "i/o timeout",
        (_, true) => "ping: destination unreachable",
        (_, false) => "ping: 100% packet loss",
    };
    if class == "kubelet-probe" {
        format!("liveness probe failed: {text}")
    } else {
        text.to_owned()
    }
}
