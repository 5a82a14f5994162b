//! The lab's policy enforcers, seen by the real program: the whole event for each kind of traffic, and
//! as many packets as the enforcer says it dropped.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::enforcer::{Attach, Backend, Enforcer, KubeRouter, Tc};
use lab::plan::{
    KUBERNETES_SERVICE, MASTER, NODE, POD_GATEWAY, REMOTE, dns_service, kubernetes_service,
};
use lab::traffic::{self, Request, TcpOutcome};
use lab::{BROKEN_POLICY, Family, Lab, Netns, Policies, Wiring, kernel};
use serde_json::{Value, json};
use tracer_policy::model::Protocol;

use crate::expect::{
    Event, Port, alone, by_service, coredns, external, node, sent_here, service, through, vault_0,
};
use crate::watch::{self, Answer, Told, Watch};

/// For what nobody answers; below the first retransmission of a SYN.
const ONE_SYN: Duration = Duration::from_millis(100);
/// For what has to succeed, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(10);
/// CoreDNS as the engine names it.
const COREDNS: &str = "pod kube-system/coredns-6799fbcd5-x8mzq with labels \
                       {k8s-app: kube-dns, pod-template-hash: \"6799fbcd5\"}";
const PORT: u16 = 8200;

/// What is sent, and the event that has to come of it.
struct Case<'a> {
    name: &'static str,
    from: &'a Netns,
    to: SocketAddr,
    event: Event,
}

impl Case<'_> {
    /// Sends, and holds tracer's word against the enforcer's.
    fn check(mut self, lab: &Lab, watch: &Watch, enforcer: &dyn Enforcer) -> Result<()> {
        let before = enforcer.dropped(lab)?;
        let sent = send(self.from, self.to, self.event.protocol)?;
        let dropped = || Ok(enforcer.dropped(lab)? - before);
        let dropped = traffic::until_counted(sent, dropped)?;
        ensure!(dropped == sent, "of {sent} packets it dropped {dropped}");
        let events = watch.drops(dropped)?;
        self.event.count = dropped;
        watch.is_told(events, self.event.json())
    }
}

/// Sends what is to be dropped, and says how many packets that was.
pub(crate) fn send(from: &Netns, to: SocketAddr, protocol: Protocol) -> Result<u64> {
    Ok(match protocol {
        Protocol::Tcp => {
            let before = traffic::repeated_syns(from)?;
            traffic::tcp_connect(from, to, ONE_SYN)?;
            1 + traffic::repeated_syns(from)? - before
        }
        Protocol::Udp => traffic::udp_send(from, to, 3, b"lab")?.packets,
        _ => traffic::ping(from, to.ip(), 2, Duration::from_millis(20))?.sent,
    })
}

/// The parts of an event that go with who is denied what.
struct Denied {
    direction: &'static str,
    class: &'static str,
    got: String,
    hint: String,
}

fn by_selector(name: &str, ip: IpAddr) -> String {
    format!("node {name} ({ip}), an address no podSelector can match")
}

/// Pings of the family.
fn icmp(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::Icmp,
        Family::V6 => Protocol::Icmpv6,
    }
}

#[test]
fn tc_drops_both_ways() {
    for (attach, wiring) in [
        (Attach::Tcx, Wiring::Bridge),
        (Attach::Clsact, Wiring::Routed),
    ] {
        if !attach.is_here() {
            continue;
        }
        let Some(lab) = watch::lab(wiring) else {
            return;
        };
        tc(&lab, attach).unwrap_or_else(|error| panic!("{attach:?} {wiring:?}: {error:#}"));
    }
}

fn tc(lab: &Lab, attach: Attach) -> Result<()> {
    let mut tc = Tc::new(attach);
    tc.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    for family in [Family::V4, Family::V6] {
        let watch = Watch::start(lab, family)?;
        let mut wrong = Vec::new();
        // Vault to Vault, replies included.
        let peer = lab.vault("vault-1", family);
        let allowed = traffic::tcp_connect(lab.pod("vault-0").netns(), peer, PATIENCE)?;
        ensure!(allowed == TcpOutcome::Connected, "{allowed:?}");
        for case in tc_cases(lab, family) {
            let name = case.name;
            if let Err(error) = case.check(lab, &watch, &tc) {
                wrong.push(format!("{family:?} {name}: {error:#}"));
            }
        }
        if let Err(error) = watch.stop() {
            wrong.push(format!("{error:#}"));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    tc.remove(lab)
}

fn tc_cases(lab: &Lab, family: Family) -> Vec<Case<'_>> {
    let vault = lab.pod("vault-0");
    let pod = vault.addresses().of(family);
    let to_vault = SocketAddr::new(pod, PORT);
    let kubelet = match lab.wiring() {
        Wiring::Bridge => POD_GATEWAY,
        Wiring::Routed => NODE,
    }
    .of(family);
    let remote = REMOTE.of(family);
    let master = MASTER.of(family);
    let dns = lab.pod("coredns").addresses().of(family);
    let drop = |reason: &str, hook: &str| {
        json!({
            "reason": kernel::reason(reason),
            "action": "drop",
            "hook": hook,
            "datapath": "tc",
            "programs": [{"name": if hook == "tc egress" { "lab_to_pod" } else { "lab_from_pod" }}],
            "interface": vault.host_interface(),
        })
    };
    let here = Some(vault.host_interface());
    let to_pod = |input| through(drop("TC_EGRESS", "tc egress"), input, here);
    let (to_pod, passed_to_pod) = (to_pod(None), to_pod(Some("eth0")));
    let from_pod = through(drop("TC_INGRESS", "tc ingress"), here, None);
    let event =
        |protocol, source, destination, drop: &Value, denied: Denied, symptom: &str| Event {
            count: 0,
            direction: denied.direction,
            class: denied.class,
            source,
            destination,
            protocol,
            drop: drop.clone(),
            got: denied.got,
            grade: "proven",
            symptom: symptom.to_owned(),
            hint: denied.hint,
        };
    // A kubelet probes `status.podIP` alone, which is the IPv4 one here.
    let probes = family == Family::V4;
    let icmp = icmp(family);
    let from_vault = |protocol| vault_0(pod, Port::sender(protocol));
    vec![
        Case {
            name: "a request from the node at the probe's port",
            from: lab.node(),
            to: to_vault,
            event: event(
                Protocol::Tcp,
                sent_here(node("node-1", kubelet, Port::sender(Protocol::Tcp))),
                vault_0(pod, Port::Number(PORT)),
                &to_pod,
                Denied {
                    direction: "ingress",
                    class: if probes {
                        "kubelet-probe"
                    } else {
                        "node-to-pod"
                    },
                    got: by_selector("node-1", kubelet),
                    hint: if probes {
                        format!(
                            "allow ingress from the node's own address {} on TCP 8200 (ipBlock)",
                            alone(kubelet)
                        )
                    } else {
                        format!(
                            "allow ingress from {} (ipBlock) on TCP 8200",
                            alone(kubelet)
                        )
                    },
                },
                if probes {
                    "liveness probe failed: context deadline exceeded"
                } else {
                    "i/o timeout"
                },
            ),
        },
        Case {
            name: "datagrams from outside",
            from: lab.remote(),
            to: to_vault,
            event: event(
                Protocol::Udp,
                external(remote, Port::sender(Protocol::Udp)),
                vault_0(pod, Port::Number(PORT)),
                &passed_to_pod,
                Denied {
                    direction: "ingress",
                    class: "external",
                    got: format!("{remote}, an address outside the cluster"),
                    hint: format!("allow ingress from {} (ipBlock) on UDP 8200", alone(remote)),
                },
                "i/o timeout",
            ),
        },
        Case {
            name: "pings from outside",
            from: lab.remote(),
            to: to_vault,
            event: event(
                icmp,
                external(remote, Port::None),
                vault_0(pod, Port::None),
                &passed_to_pod,
                Denied {
                    direction: "ingress",
                    class: "external",
                    got: format!("{remote}, an address outside the cluster"),
                    hint: format!("allow ingress from {} (ipBlock)", alone(remote)),
                },
                "ping: 100% packet loss",
            ),
        },
        Case {
            name: "the API server by its Service",
            from: vault.netns(),
            to: kubernetes_service(family),
            event: event(
                Protocol::Tcp,
                from_vault(Protocol::Tcp),
                service("default", "kubernetes", KUBERNETES_SERVICE.of(family), 443),
                &from_pod,
                Denied {
                    direction: "egress",
                    class: "apiserver-egress",
                    got: by_selector("master", master),
                    hint: format!(
                        "allow egress to the API server {} on TCP 6443 (ipBlock)",
                        alone(master)
                    ),
                },
                "i/o timeout",
            ),
        },
        Case {
            name: "lookups",
            from: vault.netns(),
            to: SocketAddr::new(dns, 53),
            event: event(
                Protocol::Udp,
                from_vault(Protocol::Udp),
                coredns(dns, Port::Number(53)),
                &from_pod,
                Denied {
                    direction: "egress",
                    class: "dns",
                    got: COREDNS.to_owned(),
                    hint: "allow egress to kube-system/coredns on UDP 53 and TCP 53".to_owned(),
                },
                "lookup fails: i/o timeout",
            ),
        },
        Case {
            name: "pings of the master",
            from: vault.netns(),
            to: SocketAddr::new(master, 0),
            event: event(
                icmp,
                from_vault(icmp),
                node("master", master, Port::None),
                &from_pod,
                Denied {
                    direction: "egress",
                    class: "pod-to-node",
                    got: by_selector("master", master),
                    hint: format!("allow egress to {} (ipBlock)", alone(master)),
                },
                "ping: 100% packet loss",
            ),
        },
    ]
}

#[test]
fn kube_router_rejects() {
    for backend in [Backend::IptablesNft, Backend::IptablesLegacy] {
        let Some(lab) = watch::lab(Wiring::Bridge) else {
            return;
        };
        kube_router(&lab, backend).unwrap_or_else(|error| panic!("{backend:?}: {error:#}"));
    }
}

fn kube_router(lab: &Lab, backend: Backend) -> Result<()> {
    let mut kube_router = KubeRouter::new(backend);
    kube_router.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    for family in [Family::V4, Family::V6] {
        let watch = Watch::start(lab, family)?;
        let mut wrong = Vec::new();
        // What kube-router lets through: the node to its own pods, and pings.
        let probe = Request::probe(lab.vault("vault-0", family), "/v1/sys/health", PATIENCE);
        let probed = lab.https().get(lab.node(), &probe)?;
        ensure!(probed.is_success(), "{probed:?}");
        let ip = lab.pod("vault-0").addresses().of(family);
        let ping = traffic::ping(lab.remote(), ip, 1, PATIENCE)?;
        ensure!(ping.received == 1, "{ping:?}");
        for case in kube_router_cases(lab, &watch, family) {
            let name = case.name;
            if let Err(error) = case.check(lab, &watch, &kube_router) {
                wrong.push(format!("{family:?} {name}: {error:#}"));
            }
        }
        if let Err(error) = watch.stop() {
            wrong.push(format!("{error:#}"));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    kube_router.remove(lab)
}

/// Bridged packets die with their way out as their device: `__br_forward` sets it before the hook.
fn kube_router_cases<'a>(lab: &'a Lab, watch: &Watch, family: Family) -> Vec<Case<'a>> {
    let vault = lab.pod("vault-0");
    let pod = vault.addresses().of(family);
    let remote = REMOTE.of(family);
    let master = MASTER.of(family);
    let own_node = NODE.of(family);
    let dns = lab.pod("coredns").addresses().of(family);
    let answer = |drop: &mut Value| {
        // All of it is rejected by ICMP, whatever the protocol.
        watch.tell(drop, Some(Answer::Icmp), family, Protocol::Tcp)
    };
    let told = answer(&mut json!({})) == Told::Answered;
    let drop = |hook: &str, interface: &str, input: &str, output: Option<&str>| {
        let drop = json!({
            "reason": kernel::reason("NETFILTER_DROP"),
            "hook": hook,
            "datapath": "netfilter",
            "interface": interface,
        });
        let mut drop = through(drop, Some(input), output);
        answer(&mut drop);
        drop["enforcer"] = json!("kube-router");
        drop["evidence"] = if told {
            json!(["chains KUBE-POD-FW-*", "it rejects by ICMP"])
        } else {
            json!(["chains KUBE-POD-FW-*"])
        };
        drop
    };
    let refused = |otherwise: &'static str| {
        if told {
            "connection refused"
        } else {
            otherwise
        }
    };
    let event = |protocol,
                 source,
                 destination,
                 (hook, interface, input, output): (&str, &str, &str, Option<&str>),
                 denied: Denied,
                 symptom: &str| Event {
        count: 0,
        direction: denied.direction,
        class: denied.class,
        source,
        destination,
        protocol,
        drop: drop(hook, interface, input, output),
        got: denied.got,
        grade: "proven",
        symptom: symptom.to_owned(),
        hint: denied.hint,
    };
    let from_vault = |protocol| vault_0(pod, Port::sender(protocol));
    // The bridge has it at the port that it is to leave by.
    let bridged = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|pod| lab.pod(pod).host_interface());
        ("FORWARD", to, from, Some(to))
    };
    vec![
        Case {
            name: "a client outside",
            from: lab.remote(),
            to: SocketAddr::new(pod, PORT),
            event: event(
                Protocol::Tcp,
                external(remote, Port::sender(Protocol::Tcp)),
                vault_0(pod, Port::Number(PORT)),
                ("FORWARD", "eth0", "eth0", Some("cni0")),
                Denied {
                    direction: "ingress",
                    class: "external",
                    got: format!("{remote}, an address outside the cluster"),
                    hint: format!("allow ingress from {} (ipBlock) on TCP 8200", alone(remote)),
                },
                refused("i/o timeout"),
            ),
        },
        Case {
            name: "a pod of the same node",
            from: lab.pod("coredns").netns(),
            to: SocketAddr::new(pod, PORT),
            event: event(
                Protocol::Tcp,
                coredns(dns, Port::sender(Protocol::Tcp)),
                vault_0(pod, Port::Number(PORT)),
                bridged("coredns", "vault-0"),
                Denied {
                    direction: "ingress",
                    class: "pod-to-pod",
                    got: COREDNS.to_owned(),
                    hint: "allow ingress from kube-system/coredns on TCP 8200".to_owned(),
                },
                refused("i/o timeout"),
            ),
        },
        Case {
            name: "the API server by its Service",
            from: vault.netns(),
            to: kubernetes_service(family),
            event: event(
                Protocol::Tcp,
                from_vault(Protocol::Tcp),
                by_service(
                    node("master", master, Port::Number(6443)),
                    "default",
                    "kubernetes",
                    kubernetes_service(family),
                ),
                ("FORWARD", "cni0", "cni0", Some("eth0")),
                Denied {
                    direction: "egress",
                    class: "apiserver-egress",
                    got: by_selector("master", master),
                    hint: format!(
                        "allow egress to the API server {} on TCP 6443 (ipBlock)",
                        alone(master)
                    ),
                },
                refused("i/o timeout"),
            ),
        },
        Case {
            name: "lookups",
            from: vault.netns(),
            to: dns_service(family),
            event: event(
                Protocol::Udp,
                from_vault(Protocol::Udp),
                by_service(
                    coredns(dns, Port::Number(53)),
                    "kube-system",
                    "kube-dns",
                    dns_service(family),
                ),
                bridged("vault-0", "coredns"),
                Denied {
                    direction: "egress",
                    class: "dns",
                    got: COREDNS.to_owned(),
                    hint: "allow egress to kube-system/coredns on UDP 53 and TCP 53".to_owned(),
                },
                if told {
                    "lookup fails: connection refused"
                } else {
                    "lookup fails: i/o timeout"
                },
            ),
        },
        Case {
            name: "the pod's own node",
            from: vault.netns(),
            to: SocketAddr::new(own_node, 9100),
            event: event(
                Protocol::Udp,
                from_vault(Protocol::Udp),
                node("node-1", own_node, Port::Number(9100)),
                ("INPUT", "cni0", "cni0", None),
                Denied {
                    direction: "egress",
                    class: "pod-to-node",
                    got: by_selector("node-1", own_node),
                    hint: format!("allow egress to {} (ipBlock) on UDP 9100", alone(own_node)),
                },
                refused("i/o timeout"),
            ),
        },
    ]
}
