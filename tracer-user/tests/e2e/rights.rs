//! What the agent's account may do.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;

/// The account's rights are those the agent uses: each reading verb on each kind, writing Events, and no other.
pub(crate) fn are_those_of_a_reader(cluster: &Cluster<'_>) -> Result<()> {
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
    for (verb, may) in [
        ("create", true),
        ("patch", true),
        ("list", false),
        ("delete", false),
    ] {
        let resource = "events.events.k8s.io";
        ensure!(
            cluster.agent_may(verb, resource)? == may,
            "{verb} {resource}: expected {may}"
        );
    }
    for resource in ["secrets", "configmaps"] {
        ensure!(!cluster.agent_may("list", resource)?, "may list {resource}");
    }
    Ok(())
}

impl Cluster<'_> {
    fn agent_may(&self, verb: &str, resource: &str) -> Result<bool> {
        let account = "--as=system:serviceaccount:tracer:tracer";
        // It exits with 1 where the answer is no.
        let asked = ["auth", "can-i", verb, resource, "-A", account];
        match self.plane.kubectl(&asked) {
            Ok(answer) => Ok(answer.trim() == "yes"),
            Err(error) if format!("{error:#}").contains("failed (exit status: 1): ") => Ok(false),
            Err(error) => Err(error),
        }
    }
}
