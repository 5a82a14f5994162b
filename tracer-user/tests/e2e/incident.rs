//! The incident, from the policy that looks right to the one that cures it.

use std::collections::BTreeSet;
use std::process::Child;

use anyhow::{Context, Result, ensure};
use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::{BROKEN_POLICY, plan};
use serde_json::Value;
use tracer_policy::model::Protocol;

use crate::agent::{CALLS, Invisible, PROBES};
use crate::cluster::{Cluster, printed, until};
use crate::enforcement::Enforcement;
use crate::outage::replace_agent;
use crate::prometheus::Prometheus;
use crate::rights;

/// Vault with a readiness probe, and one that calls the API server.
const PODS: &str = include_str!("pods.yaml");

/// Brings Vault's pods, and waits until they are well.
pub(crate) fn bring_pods(cluster: &Cluster<'_>) -> Result<()> {
    cluster.apply(PODS)?;
    cluster.wait_ready("vault", PROBES.pod, "True")?;
    cluster.wait_ready("vault", CALLS.pod, "True")?;
    calls_get_through(cluster, 1)
}

/// As K3s's own kube-router enforces the policy: calls are rejected, probes are not.
pub(crate) fn rejects_calls_only(
    cluster: &Cluster<'_>,
    enforcement: &mut Enforcement,
) -> Result<()> {
    let prometheus = Prometheus::start(cluster.lab.node())?;
    prometheus.wait_scraped()?;
    cluster.apply(BROKEN_POLICY)?;
    rights::events_are_needed(cluster, || enforcement.sync(cluster))?;
    let probes = Traffic::of_probes(cluster)?;
    seen_by_prometheus(&prometheus, &[CALLS])?;
    probes.goes_on()?;
    probes.rule.remove()?;
    cluster
        .wait_ready("vault", PROBES.pod, "True")
        .context("the node reaches its own pods")?;
    let dropped = cluster.counted_invisible(PROBES)?;
    ensure!(
        dropped == 0,
        "{dropped} probes were counted, none was dropped"
    );
    let firing = prometheus.firing()?;
    ensure!(!firing.contains(PROBES.alert), "{firing:?}");
    forget_policies(cluster, enforcement)
}

/// Both kinds of traffic are dropped, and everyone who should tell tells.
pub(crate) fn strikes(cluster: &Cluster<'_>, enforcement: &mut Enforcement) -> Result<Drops> {
    let prometheus = Prometheus::start(cluster.lab.node())?;
    prometheus.wait_scraped()?;
    // Each ends with the second drop of its class.
    let watches = [PROBES, CALLS].map(|kind| {
        cluster.spawn_tracer(&["watch", "--class", kind.class, "-o", "json", "--count", "2"])
    });
    cluster.apply(BROKEN_POLICY)?;
    enforcement.sync(cluster)?;
    cluster.wait_ready("vault", PROBES.pod, "False")?;
    seen_by_prometheus(&prometheus, &[PROBES, CALLS])?;
    lines_tell_the_story(cluster)?;
    events_tell_the_story(cluster)?;
    let mut drops = String::new();
    for watch in watches {
        drops += &told(watch?)?;
    }
    Ok(Drops(drops))
}

/// Drops as `tracer watch -o json` printed them.
pub(crate) struct Drops(String);

/// What tracer suggests for these drops goes in, and nothing more is dropped.
pub(crate) fn is_cured(
    cluster: &Cluster<'_>,
    enforcement: &mut Enforcement,
    drops: &Drops,
) -> Result<()> {
    let suggested = cluster.tracer(&["suggest", "--input", "-"], &drops.0)?;
    ensure!(
        suggested.contains("kind: NetworkPolicy"),
        "suggested: {suggested}"
    );
    cluster.apply(&suggested)?;
    enforcement.sync(cluster)?;
    cluster
        .wait_ready("vault", PROBES.pod, "True")
        .with_context(|| format!("with this in force:\n{suggested}"))?;
    calls_get_through(cluster, 1).with_context(|| format!("with this in force:\n{suggested}"))?;
    let dropped = enforcement.agrees(cluster)?;
    let probes = Traffic::of_probes(cluster)?;
    probes.goes_on()?;
    calls_get_through(cluster, 3)?;
    probes.rule.remove()?;
    let after = enforcement.agrees(cluster)?;
    ensure!(
        after == dropped,
        "{} more packets were dropped with the suggestion in force:\n{suggested}",
        after - dropped
    );
    forget_policies(cluster, enforcement)
}

/// Takes away the Events of drops until now, which has an end: who wrote them starts anew, and will tell again.
pub(crate) fn forget_events(cluster: &Cluster<'_>) -> Result<()> {
    replace_agent(cluster)?;
    cluster.wait_agent()?;
    let delete = ["-n", "vault", "delete", "events", "--all"];
    cluster.plane.kubectl(&delete).map(drop)
}

fn forget_policies(cluster: &Cluster<'_>, enforcement: &mut Enforcement) -> Result<()> {
    let delete = ["-n", "vault", "delete", "networkpolicies", "--all"];
    cluster.plane.kubectl(&delete)?;
    enforcement.sync(cluster)?;
    enforcement.agrees(cluster).map(drop)
}

/// The drops are in Prometheus, and their alerts fire; no others do.
fn seen_by_prometheus(prometheus: &Prometheus<'_>, kinds: &[Invisible]) -> Result<()> {
    for kind in kinds {
        let Invisible { class, pod, .. } = kind;
        let increase = format!(
            "increase(tracer_invisible_drops_total{{class=\"{class}\",namespace=\"vault\",workload=\"{pod}\"}}[1m])"
        );
        until(&format!("Prometheus has {increase}"), || {
            Ok(prometheus
                .value(&increase)?
                .is_some_and(|value| value > 0.0))
        })?;
    }
    let expected: BTreeSet<_> = kinds.iter().map(|kind| kind.alert.to_owned()).collect();
    let mut firing = BTreeSet::new();
    until(&format!("these fire: {expected:?}"), || {
        firing = prometheus.firing()?;
        Ok(firing.is_superset(&expected))
    })?;
    // With the alerts' patience shortened, others may tell of a single scrape that was late.
    let of_classes: BTreeSet<_> = firing
        .into_iter()
        .filter(|alert| alert.ends_with("Dropped"))
        .collect();
    ensure!(of_classes == expected, "these fire: {of_classes:?}");
    Ok(())
}

/// `tracer watch` on the node, as its administrator reads it.
fn lines_tell_the_story(cluster: &Cluster<'_>) -> Result<()> {
    let lines = [
        (
            PROBES,
            format!("vault/vault-0:{}", plan::VAULT_PORT),
            "ingress",
        ),
        (CALLS, "vault/vault-1".to_owned(), "egress"),
    ];
    for (kind, whose, hint) in lines {
        let printed = cluster.tracer(&["watch", "--class", kind.class, "--last", "1"], "")?;
        for word in [
            kind.class,
            &whose,
            "vault/vault-policy",
            &format!("allow {hint}"),
        ] {
            ensure!(printed.contains(word), "`{word}` is not in: {printed}");
        }
    }
    Ok(())
}

/// `kubectl describe pod` and the policy's own Events, where people look first.
fn events_tell_the_story(cluster: &Cluster<'_>) -> Result<()> {
    for (kind, hint) in [(PROBES, "ingress"), (CALLS, "egress")] {
        // An Event is named as the alert on the same traffic is.
        let words = [kind.alert, "vault/vault-policy", &format!("allow {hint}")];
        let is_told =
            |line: &str| line.contains("Warning") && words.iter().all(|word| line.contains(word));
        until(
            &format!("{}'s description tells {words:?}", kind.pod),
            || Ok(cluster.describe("vault", kind.pod)?.lines().any(is_told)),
        )
        .with_context(|| cluster.describe("vault", kind.pod).unwrap_or_default())?;
        let of_policy = [
            "-n",
            "vault",
            "get",
            "events",
            "--field-selector",
            "involvedObject.kind=NetworkPolicy,involvedObject.name=vault-policy",
        ];
        let pod = format!("pod vault/{}", kind.pod);
        until(&format!("an Event of the policy names {pod}"), || {
            let events = cluster.plane.kubectl(&of_policy)?;
            Ok(events
                .lines()
                .any(|line| line.contains(kind.alert) && line.contains(&pod)))
        })?;
    }
    Ok(())
}

/// What a watch printed: each line names the policy.
fn told(watch: Child) -> Result<String> {
    let lines = printed(watch)?;
    for line in lines.lines() {
        let drop: Value = serde_json::from_str(line)?;
        let isolating = &drop["policy"]["isolating"][0];
        ensure!(
            drop["policy"]["verdict"] == "denied" && isolating["name"] == "vault-policy",
            "the policy is not named: {drop:#}"
        );
    }
    Ok(lines)
}

/// Packets on their way out of the node, whatever becomes of them after.
struct Traffic<'a> {
    rule: lab::enforcer::InstalledRule<'a>,
}

impl<'a> Traffic<'a> {
    fn of_probes(cluster: &Cluster<'a>) -> Result<Self> {
        let rule = Rule {
            backend: Backend::Nftables,
            hook: Hook::Output,
            protocol: Protocol::Tcp,
            source: None,
            destination: cluster.address("vault", PROBES.pod)?,
            port: Some(plan::VAULT_PORT),
            verdict: Verdict::Accept,
        };
        let rule = rule.install(cluster.lab.node())?;
        Ok(Self { rule })
    }

    fn goes_on(&self) -> Result<()> {
        let enough = self.rule.packets()? + 10;
        until(
            "more probes are sent",
            || Ok(self.rule.packets()? >= enough),
        )
    }
}

/// Waits for that many more calls that reach the API server.
fn calls_get_through(cluster: &Cluster<'_>, more: usize) -> Result<()> {
    let connected = || -> Result<usize> {
        let log = cluster.logs("vault", CALLS.pod)?;
        Ok(log.lines().filter(|line| *line == "connected").count())
    };
    let enough = connected()? + more;
    until("calls reach the API server", || Ok(connected()? >= enough))
}
