//! Every enforcer of the lab under flood: the agent counts what the enforcer's own counter says, to the
//! packet, whatever is full and whatever happens to the agent meanwhile.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use lab::enforcer::{Attach, Backend, Enforcer, Hook, KubeRouter, Rule, Tc, Verdict};
use lab::plan::{MASTER, NODE, REMOTE};
use lab::traffic::{Until, settled, udp_flood};
use lab::{BROKEN_POLICY, Lab, Netns, Policies, Wiring};
use rustix::process::{Pid, Signal, kill_process};
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::exact::{self, is_counted, value};
use crate::restart::Pins;
use crate::watch;

/// How much a flood is.
struct Size {
    /// Packets of one flow.
    single: u64,
    /// Ports, that is flows, of each of two pairs of addresses.
    ports: u16,
    /// Options of an agent whose table has no room for them.
    roomless: &'static [&'static str],
}

/// `TRACER_FLOODS=small` is for a machine that is emulated: what it shows is whether the counts are right, not
/// what they cost.
fn size() -> Size {
    if std::env::var("TRACER_FLOODS").is_ok_and(|size| size == "small") {
        Size {
            single: 5_000,
            ports: 500,
            roomless: &["--flows", "400"],
        }
    } else {
        Size {
            single: 200_000,
            ports: 50_000,
            roomless: &[],
        }
    }
}

/// New flows while the agent is stopped, of which the smallest ring holds some 200.
const UNREAD: u16 = 1_000;
/// And what was counted is told soon.
const SMALL_RING: [&str; 4] = ["--ring-bytes", "65536", "--fold", "100ms"];
/// Packets and flows of each flood while the agent is killed and started again.
const BURST: (u64, u16) = (5_000, 50);

/// Where packets meet an enforcer, and how many it has dropped.
struct Place<'a> {
    name: String,
    /// Senders, and what they send to. What passes is neither answered nor missed.
    ways: Vec<(&'a Netns, Ipv4Addr)>,
    dropped: Box<dyn Fn() -> Result<u64> + Sync + 'a>,
}

impl Place<'_> {
    /// Sends to each of `ports` in turn until `packets` are sent, each way.
    fn flood(&self, ports: u16, packets: u64) -> Result<u64> {
        let mut sent = 0;
        for &(from, to) in &self.ways {
            let to: Vec<_> = (1..=ports)
                .map(|port| SocketAddrV4::new(to, port))
                .collect();
            sent += udp_flood(from, &to, Until::Packets(packets))?.packets;
        }
        Ok(sent)
    }
}

/// What the agents of a test have to have counted.
struct Tally<'a> {
    place: &'a Place<'a>,
    /// By other places.
    before: u64,
}

impl<'a> Tally<'a> {
    fn new(place: &'a Place<'a>, before: u64) -> Result<Self> {
        let dropped = (place.dropped)()?;
        ensure!(dropped == 0, "{dropped} packets before the first");
        Ok(Self { place, before })
    }

    /// Holds all that the agent counts against the enforcer's counter, once that has counted what was sent.
    fn holds(&self, agent: &Agent<'_>, sent: u64, when: &str) -> Result<u64> {
        let when = || format!("{}, {when}", self.place.name);
        let dropped = settled(sent, || (self.place.dropped)()).with_context(when)?;
        ensure!(
            dropped <= sent && dropped > sent / 2,
            "{}: of {sent} packets it dropped {dropped}",
            when()
        );
        is_counted(agent, &[], self.before + dropped).with_context(when)?;
        Ok(self.before + dropped)
    }
}

/// A flood of one flow, a full ring, a stopped and a killed agent; returns its successor, and what that has
/// counted.
fn ordeal<'lab>(
    pins: &Pins,
    agent: Agent<'lab>,
    place: &Place<'_>,
    before: u64,
) -> Result<(Agent<'lab>, u64)> {
    let tally = Tally::new(place, before)?;
    let mut sent = place.flood(1, size().single)?;
    tally.holds(&agent, sent, "one flow")?;

    // Stopped, it reads neither ring nor table.
    let process = Pid::from_child(&agent.child);
    kill_process(process, Signal::STOP)?;
    sent += place.flood(UNREAD, UNREAD.into())?;
    kill_process(process, Signal::CONT)?;
    let seen = tally.holds(&agent, sent, "stopped")?;

    // Killed while it goes on, until the next one has counted, too.
    let over = AtomicBool::new(false);
    let (agent, more) = thread::scope(|scope| -> Result<_> {
        let flood = scope.spawn(|| -> Result<u64> {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                sent += place.flood(BURST.1, BURST.0)?;
            }
            Ok(sent)
        });
        let restarted = || -> Result<Agent<'lab>> {
            let lab = agent.lab;
            agent.until("tracer_drops_total", &[], seen + 1)?;
            agent.kill()?;
            pins.start(lab, &SMALL_RING)
        };
        let restarted = restarted();
        over.store(true, Ordering::Relaxed);
        let sent = flood
            .join()
            .map_err(|_| anyhow::anyhow!("the flood fell"))??;
        Ok((restarted?, sent))
    })?;
    let counted = tally.holds(&agent, sent + more, "killed")?;
    Ok((agent, counted))
}

#[test]
fn rules_at_every_hook_of_every_backend() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let pins = Pins::new().unwrap();
    let mut agent = pins.start(&lab, &SMALL_RING).unwrap();
    let mut counted = 0;
    let vault = lab.pod("vault-0").addresses().v4;
    for backend in [
        Backend::IptablesNft,
        Backend::IptablesLegacy,
        Backend::Nftables,
    ] {
        for (hook, from, to) in [
            (Hook::Input, lab.remote(), NODE.v4),
            (Hook::Forward, lab.remote(), vault),
            (Hook::Output, lab.node(), vault),
        ] {
            for verdict in [Verdict::Drop, Verdict::Reject] {
                let rule = Rule {
                    backend,
                    hook,
                    protocol: Protocol::Udp,
                    source: None,
                    destination: to.into(),
                    port: None,
                    verdict,
                };
                let rule = rule.install(lab.node()).unwrap();
                let place = Place {
                    name: format!("{backend:?} {hook:?} {verdict:?}"),
                    ways: vec![(from, to)],
                    dropped: Box::new(|| rule.packets()),
                };
                (agent, counted) = ordeal(&pins, agent, &place, counted).unwrap();
                drop(place);
                rule.remove().unwrap();
            }
        }
    }
    agent.stop().unwrap();
}

#[test]
fn tc_in_both_directions() {
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
        let mut tc = Tc::new(attach);
        tc.install(&lab, &Policies::parse(BROKEN_POLICY).unwrap())
            .unwrap();
        let pins = Pins::new().unwrap();
        let mut agent = pins.start(&lab, &SMALL_RING).unwrap();
        let mut counted = 0;
        let vault = lab.pod("vault-0");
        for (to_pod, from, to) in [
            (true, lab.remote(), vault.addresses().v4),
            (false, vault.netns(), REMOTE.v4),
        ] {
            let place = Place {
                name: format!("{attach:?} {}", if to_pod { "egress" } else { "ingress" }),
                ways: vec![(from, to)],
                dropped: Box::new(|| {
                    let (to_pods, from_pods) = tc.dropped_by_direction()?;
                    Ok(if to_pod { to_pods } else { from_pods })
                }),
            };
            (agent, counted) = ordeal(&pins, agent, &place, counted).unwrap();
        }
        agent.stop().unwrap();
        tc.remove(&lab).unwrap();
    }
}

#[test]
fn kube_router_over_both_backends() {
    for backend in [Backend::IptablesNft, Backend::IptablesLegacy] {
        let Some(lab) = watch::lab(Wiring::Bridge) else {
            return;
        };
        let mut kube_router = KubeRouter::new(backend);
        kube_router
            .install(&lab, &Policies::parse(BROKEN_POLICY).unwrap())
            .unwrap();
        let pins = Pins::new().unwrap();
        let agent = pins.start(&lab, &SMALL_RING).unwrap();
        let vault = lab.pod("vault-0").addresses().v4;
        let place = Place {
            name: format!("kube-router {backend:?}"),
            ways: vec![(lab.remote(), vault)],
            dropped: Box::new(|| kube_router.dropped(&lab)),
        };
        let (agent, _) = ordeal(&pins, agent, &place, 0).unwrap();
        agent.stop().unwrap();
        drop(place);
        kube_router.remove(&lab).unwrap();
    }
}

/// Twice: in a table that has room for all flows, and in one that has not.
fn a_hundred_thousand_flows(lab: &Lab, place: &Place<'_>) -> Result<()> {
    let Size {
        ports, roomless, ..
    } = size();
    let flows = 2 * u64::from(ports);
    ensure!(place.ways.len() == 2, "two pairs of addresses");
    let mut sent = 0;
    for (more, fits) in [(&["--flows", "131072"][..], true), (roomless, false)] {
        let before = (place.dropped)()?;
        let agent = Agent::start_with(lab, more)?;
        sent += place.flood(ports, ports.into())?;
        let dropped = settled(sent, || (place.dropped)())? - before;
        ensure!(
            dropped == flows,
            "{}: of {flows} packets it dropped {dropped}",
            place.name
        );
        is_counted(&agent, &[], dropped).with_context(|| place.name.clone())?;
        let evicted = value(&agent, "tracer_flow_table_evictions_total")?;
        let entries = value(&agent, "tracer_flow_table_entries")?;
        ensure!(
            evicted + entries == flows && (evicted == 0) == fits,
            "{}: {entries} flows in the table, {evicted} not",
            place.name
        );
        agent.stop()?;
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_flows_at_a_rule() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let rule = exact::rule(&lab).unwrap();
    let vault = lab.pod("vault-0").addresses().v4;
    let place = Place {
        name: "nftables".to_owned(),
        ways: vec![(lab.remote(), vault), (lab.master(), vault)],
        dropped: Box::new(|| rule.packets()),
    };
    a_hundred_thousand_flows(&lab, &place).unwrap();
}

#[test]
fn a_hundred_thousand_flows_at_tc() {
    let Some(lab) = watch::lab(Wiring::Routed) else {
        return;
    };
    let mut tc = Tc::new(Attach::Clsact);
    tc.install(&lab, &Policies::parse(BROKEN_POLICY).unwrap())
        .unwrap();
    let vault = lab.pod("vault-0").netns();
    let place = Place {
        name: "tc".to_owned(),
        // Towards the pod, the table of connections would come first, and be full.
        ways: vec![(vault, REMOTE.v4), (vault, MASTER.v4)],
        dropped: Box::new(|| tc.dropped(&lab)),
    };
    a_hundred_thousand_flows(&lab, &place).unwrap();
    drop(place);
    tc.remove(&lab).unwrap();
}

#[test]
fn a_hundred_thousand_flows_at_kube_router() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let mut kube_router = KubeRouter::new(Backend::IptablesNft);
    kube_router
        .install(&lab, &Policies::parse(BROKEN_POLICY).unwrap())
        .unwrap();
    let vault = lab.pod("vault-0").addresses().v4;
    let place = Place {
        name: "kube-router".to_owned(),
        ways: vec![(lab.remote(), vault), (lab.master(), vault)],
        dropped: Box::new(|| kube_router.dropped(&lab)),
    };
    a_hundred_thousand_flows(&lab, &place).unwrap();
    drop(place);
    kube_router.remove(&lab).unwrap();
}
