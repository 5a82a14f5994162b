//! Counts to the packet, however fast packets come and whatever is full: the firewall's own counter is
//! what they are held against.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::enforcer::{Backend, Hook, InstalledRule, Rule, Verdict};
use lab::traffic::{Until, settled, udp_flood};
use lab::{Lab, Wiring};
use rustix::process::{Pid, Signal, kill_process};
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::watch;

const FLOWS: u16 = 20_000;

pub(crate) fn rule(lab: &Lab) -> Result<InstalledRule<'_>> {
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Forward,
        protocol: Protocol::Udp,
        source: None,
        destination: lab.pod("vault-0").addresses().v4.into(),
        port: None,
        verdict: Verdict::Drop,
    };
    rule.install(lab.node())
}

pub(crate) fn destinations(lab: &Lab, flows: u16) -> Vec<SocketAddrV4> {
    let vault = lab.pod("vault-0").addresses().v4;
    (1..=flows)
        .map(|port| SocketAddrV4::new(vault, port))
        .collect()
}

/// Floods, and holds what the agent counts under these labels against the rule's counter.
pub(crate) fn flood(
    agent: &Agent<'_>,
    rule: &InstalledRule<'_>,
    flows: u16,
    packets: u64,
    labels: &[&str],
) -> Result<()> {
    let to = destinations(agent.lab, flows);
    let before = rule.packets()?;
    udp_flood(agent.lab.remote(), &to, Until::Packets(packets))?;
    let dropped = settled(before + packets, || rule.packets())?;
    // As long as it goes on: a busy machine takes its time.
    let mut counted = 0;
    loop {
        let before = counted;
        counted = agent.until("tracer_drops_total", labels, dropped)?;
        if counted >= dropped || counted == before {
            break;
        }
    }
    let lost = agent.sum("tracer_events_lost_total", &[])?;
    let all = agent.sum("tracer_drops_total", &[])?;
    ensure!(
        counted == dropped,
        "{flows} flows: {dropped} dropped, {counted} counted; {lost} lost by its own word; {all} with other labels too"
    );
    Ok(())
}

#[test]
fn floods_of_one_flow_and_of_many_are_counted_to_the_packet() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let vault = [r#"destination_workload="vault""#];
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--flows", "32768"]).unwrap();
    flood(&agent, &rule, 1, 200_000, &vault).unwrap();
    flood(&agent, &rule, FLOWS, 3 * u64::from(FLOWS), &vault).unwrap();

    // Stopped, it reads neither ring nor table; the ring has room for less than that many flows.
    let process = Pid::from_child(&agent.child);
    let ports: Vec<_> = destinations(&lab, FLOWS + 10_000)
        .into_iter()
        .skip(usize::from(FLOWS))
        .collect();
    kill_process(process, Signal::STOP).unwrap();
    udp_flood(lab.remote(), &ports, Until::Packets(30_000)).unwrap();
    kill_process(process, Signal::CONT).unwrap();
    flood(&agent, &rule, 1, 1, &vault).unwrap();
    agent.stop().unwrap();
}

#[test]
fn what_finds_no_room_in_the_table_is_counted_by_its_reason() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--flows", "100"]).unwrap();
    let packets = 3 * u64::from(FLOWS);
    // Workload and class of what found no room are not known.
    flood(
        &agent,
        &rule,
        FLOWS,
        packets,
        &[&format!("reason=\"{}\"", watch::reason("NETFILTER_DROP"))],
    )
    .unwrap();
    let text = agent.get("/metrics").unwrap();
    let roomless: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("tracer_flow_table_evictions_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(roomless > 0 && roomless < packets, "{roomless}");
    agent.stop().unwrap();
}

#[test]
fn flows_that_are_over_make_room_for_others() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let vault = [r#"destination_workload="vault""#];
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--flows", "100"]).unwrap();
    // More than there is room for: the table is full then.
    let reason = format!("reason=\"{}\"", watch::reason("NETFILTER_DROP"));
    flood(&agent, &rule, 200, 200, &[&reason]).unwrap();
    let full = agent.sum("tracer_drops_total", &vault).unwrap();
    assert!(full < 200, "{full} of 200 flows found room for 100");
    // One that finds room is known by its destination; every other is counted by its reason alone.
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut new = destinations(&lab, 2_000).into_iter().skip(200);
    loop {
        assert!(Instant::now() < deadline, "no flow has left the table");
        let to = new.next().unwrap();
        udp_flood(lab.remote(), &[to], Until::Packets(1)).unwrap();
        let dropped = rule.packets().unwrap();
        let counted = agent.until("tracer_drops_total", &[&reason], dropped);
        assert_eq!(counted.unwrap(), dropped);
        if agent.sum("tracer_drops_total", &vault).unwrap() > full {
            break;
        }
    }
    assert_eq!(agent.sum("tracer_events_lost_total", &[]).unwrap(), 0);
    agent.stop().unwrap();
}
