//! The product as it is installed: the image in containerd, the manifests in a real API server, the agent in
//! a pod, and the incident upon pods that a real kubelet probes.
//!
//! `cargo xtask test --only e2e` builds what this needs and runs it.

mod cluster;
mod prometheus;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::enforcer::{Backend, Hook, InstalledRule, Rule, Verdict};
use lab::{BROKEN_POLICY, plan};
use serde_json::Value;
use tracer_policy::model::Protocol;

use cluster::{API_PORT, Cluster, until};
use prometheus::Prometheus;

/// A Vault with a readiness probe, and one that calls the API server each second.
const PODS: &str = include_str!("pods.yaml");

/// How long a kubelet, a controller or the agent may take to notice something.
const PATIENCE: Duration = Duration::from_mins(1);

const PROBES: [&str; 3] = [
    r#"class="kubelet-probe""#,
    r#"namespace="vault""#,
    r#"workload="vault-0""#,
];
const CALLS: [&str; 3] = [
    r#"class="apiserver-egress""#,
    r#"namespace="vault""#,
    r#"workload="vault-1""#,
];
const INVISIBLE: &str = "tracer_invisible_drops_total";

#[test]
#[ignore = "needs a Kubernetes: `cargo xtask test --only e2e`"]
fn the_incident_befalls_a_cluster_and_the_agent_tells() -> Result<()> {
    let lab = lab::Lab::new(lab::Wiring::Bridge)?;
    let mut cluster = Cluster::start(&lab)?;
    cluster.apply(include_str!("../../../deploy/tracer.yaml"))?;
    cluster.agent_is_ready()?;
    account_may_read_and_nothing_else(&cluster)?;
    let prometheus = Prometheus::start(lab.node())?;
    prometheus.wait_scraped()?;

    cluster.apply(PODS)?;
    cluster.wait_ready("vault", "vault-0", "True")?;
    cluster.wait_ready("vault", "vault-1", "True")?;
    let before = cluster.metric(INVISIBLE, &[])?;
    ensure!(before == 0, "{before} drops before there is a policy");

    cluster.apply(BROKEN_POLICY)?;
    let probes = drop_probes(&cluster)?;
    let calls = drop_calls(&cluster)?;
    cluster.wait_ready("vault", "vault-0", "False")?;
    until(PATIENCE, "the agent counts both kinds of drops", || {
        Ok(cluster.metric(INVISIBLE, &PROBES)? > 0 && cluster.metric(INVISIBLE, &CALLS)? > 0)
    })?;
    events_name_pod_and_policy(&cluster)?;
    for alert in ["KubeletProbeDropped", "ApiServerEgressDropped"] {
        until(PATIENCE, &format!("{alert} fires"), || {
            Ok(prometheus.firing()?.contains(alert))
        })?;
    }
    let firing = prometheus.firing()?;
    ensure!(
        !firing.contains("EventsLost") && !firing.contains("AgentDown"),
        "alerts without a cause: {firing:?}"
    );

    // Without an API server the agent goes on from what it knows.
    cluster.plane.stop_api_server();
    let known = cluster.metric(INVISIBLE, &PROBES)?;
    until(PATIENCE, "probes are counted without an API server", || {
        Ok(cluster.metric(INVISIBLE, &PROBES)? > known)
    })?;
    cluster.plane.start_api_server()?;

    // No packet was missed or counted twice in all of this, and none is somebody else's.
    cluster.delete("vault", "vault-0")?;
    cluster.delete("vault", "vault-1")?;
    for (rule, labels) in [(&probes, &PROBES), (&calls, &CALLS)] {
        let dropped = rule.packets()?;
        ensure!(dropped > 0, "the firewall dropped nothing of {labels:?}");
        until(PATIENCE, "the agent counts as many as the firewall", || {
            Ok(cluster.metric(INVISIBLE, labels)? == dropped)
        })
        .with_context(|| format!("the firewall dropped {dropped} of {labels:?}"))?;
    }
    let all = cluster.metric(INVISIBLE, &[])?;
    let ours = probes.packets()? + calls.packets()?;
    ensure!(all == ours, "{all} counted, {ours} dropped");
    ensure!(
        cluster.agent_restarts()? == 0,
        "the agent did not live through the API server's absence"
    );
    probes.remove()?;
    calls.remove()?;

    // A new agent begins anew, and sees what the old one saw.
    let old = cluster.agent_name()?;
    cluster.delete("tracer", &old)?;
    cluster.agent_is_ready()?;
    ensure!(cluster.agent_name()? != old, "the agent was not replaced");
    cluster.apply(PODS)?;
    cluster.wait_ready("vault", "vault-0", "True")?;
    let probes = drop_probes(&cluster)?;
    until(PATIENCE, "the new agent counts drops", || {
        Ok(cluster.metric(INVISIBLE, &PROBES)? > 0)
    })?;
    probes.remove()
}

/// As a policy's enforcer would: the kubelet's packets to vault-0, on their way out of the node.
fn drop_probes<'a>(cluster: &Cluster<'a>) -> Result<InstalledRule<'a>> {
    let rule = Rule {
        backend: Backend::IptablesNft,
        hook: Hook::Output,
        protocol: Protocol::Tcp,
        source: None,
        destination: cluster.address("vault", "vault-0")?,
        port: Some(plan::VAULT_PORT),
        verdict: Verdict::Drop,
    };
    rule.install(cluster.lab.node())
}

/// What vault-1 sends to the API server, after its Service's address was translated.
fn drop_calls<'a>(cluster: &Cluster<'a>) -> Result<InstalledRule<'a>> {
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Forward,
        protocol: Protocol::Tcp,
        source: Some(cluster.address("vault", "vault-1")?),
        destination: plan::MASTER.v4.into(),
        port: Some(API_PORT),
        verdict: Verdict::Drop,
    };
    rule.install(cluster.lab.node())
}

/// `tracer watch` on the node, by the stream of the agent in its pod.
fn events_name_pod_and_policy(cluster: &Cluster<'_>) -> Result<()> {
    for class in ["kubelet-probe", "apiserver-egress"] {
        let arguments = ["watch", "--class", class, "--last", "1", "-o", "json"];
        let printed = cluster.tracer_on_node(&arguments)?;
        let line = printed.lines().next().context("no event was printed")?;
        let event: Value = serde_json::from_str(line)?;
        ensure!(
            event.to_string().contains("vault-policy"),
            "the policy is not named: {event:#}"
        );
    }
    Ok(())
}

/// The account's rights are those the agent uses: each reading verb on each kind, and no other.
fn account_may_read_and_nothing_else(cluster: &Cluster<'_>) -> Result<()> {
    for resource in [
        "namespaces",
        "pods",
        "nodes",
        "services",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "networkpolicies.networking.k8s.io",
    ] {
        for (verb, may) in [
            ("list", true),
            ("watch", true),
            ("create", false),
            ("update", false),
            ("patch", false),
            ("delete", false),
        ] {
            ensure!(
                cluster.agent_may(verb, resource)? == may,
                "{verb} {resource}: expected {may}"
            );
        }
    }
    for resource in ["secrets", "configmaps"] {
        ensure!(!cluster.agent_may("list", resource)?, "may list {resource}");
    }
    Ok(())
}
