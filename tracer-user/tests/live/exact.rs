//! Counts to the packet: the firewall's own counter is what they are held against.

use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::enforcer::{Backend, Hook, InstalledRule, Rule, Verdict};
use lab::traffic::{Until, settled, udp_flood};
use lab::{Lab, Wiring, kernel};
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::watch;

/// Labels of what the rule drops, where its flow is known.
pub(crate) const VAULT: [&str; 1] = [r#"destination_workload="vault""#];

/// The label of all that it drops.
pub(crate) fn by_reason() -> String {
    format!("reason=\"{}\"", kernel::reason("NETFILTER_DROP"))
}

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
    is_counted(agent, labels, dropped)
}

/// Waits until the agent has counted as many, or counts on no more, and fails where it is another number.
pub(crate) fn is_counted(agent: &Agent<'_>, labels: &[&str], dropped: u64) -> Result<()> {
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
        "{dropped} dropped, {counted} counted; {lost} lost by its own word; {all} with other labels too"
    );
    Ok(())
}

/// A metric without labels.
pub(crate) fn value(agent: &Agent<'_>, metric: &str) -> Result<u64> {
    let text = agent.get("/metrics")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {metric}"))?.parse()?)
}

/// Fills a table that has room for 100 flows; returns how many packets are known by their destination.
fn fill(agent: &Agent<'_>, rule: &InstalledRule<'_>, reason: &str) -> Result<u64> {
    flood(agent, rule, 200, 200, &[reason])?;
    let known = agent.sum("tracer_drops_total", &VAULT)?;
    ensure!(known < 200, "{known} of 200 flows found room for 100");
    Ok(known)
}

#[test]
fn what_is_in_a_full_table_is_found_there() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--flows", "100"]).unwrap();
    let reason = by_reason();
    let there = fill(&agent, &rule, &reason).unwrap();
    // In turns with those that are not.
    flood(&agent, &rule, 200, 1_000, &[&reason]).unwrap();
    let counted = agent.until("tracer_drops_total", &VAULT, 6 * there);
    assert_eq!(counted.unwrap(), 6 * there);
    agent.stop().unwrap();
}

/// Flows that go on just when they have been silent for long enough to leave the table.
#[test]
fn what_comes_while_its_flow_is_taken_out_is_counted() {
    const IDLE: Duration = Duration::from_secs(1);
    const ROUNDS: usize = 10;
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--idle", "1s"]).unwrap();
    let to = destinations(&lab, 2_000);
    let parts = to.chunks(50);
    let every = IDLE.mul_f64(1.02) / u32::try_from(parts.len()).unwrap();
    let (mut next, mut sent) = (Instant::now(), 0);
    for part in parts.clone().cycle().take(ROUNDS * parts.len()) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let packets = part.len() as u64;
        udp_flood(lab.remote(), part, Until::Packets(packets)).unwrap();
        (next, sent) = (next + every, sent + packets);
    }
    let dropped = settled(sent, || rule.packets()).unwrap();
    is_counted(&agent, &VAULT, dropped).unwrap();
    agent.stop().unwrap();
}

#[test]
fn flows_that_are_over_make_room_for_others() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let rule = rule(&lab).unwrap();
    let agent = Agent::start_with(&lab, &["--flows", "100", "--idle", "1s"]).unwrap();
    let reason = by_reason();
    let full = fill(&agent, &rule, &reason).unwrap();
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
        if agent.sum("tracer_drops_total", &VAULT).unwrap() > full {
            break;
        }
    }
    // None is left where no more come, however few they are. Before Linux 5.14 flows are taken out by whole buckets
    // of the table, and the first that has any is not.
    let left = if kernel::knows("htab_map_lookup_and_delete_elem") {
        0
    } else {
        4
    };
    while value(&agent, "tracer_flow_table_entries").unwrap() > left {
        assert!(Instant::now() < deadline, "a flow stays in the table");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(agent.sum("tracer_events_lost_total", &[]).unwrap(), 0);
    agent.stop().unwrap();
}
