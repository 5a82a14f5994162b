//! What the agent's account may do, and that it needs to.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::outage::replace_agent;

/// Where Calico's resources may be; the agent reads them in one of both.
const CALICO: [(&str, &str); 2] = [("crd.projectcalico.org", "v1"), ("projectcalico.org", "v3")];

/// Policies of other kinds, as far as a server takes them that does not know them: group, version, kind, and
/// whether they are in namespaces.
const KINDS: [(&str, &str, &str, bool); 3] = [
    (
        "policy.networking.k8s.io",
        "v1alpha1",
        "AdminNetworkPolicy",
        false,
    ),
    (
        "policy.networking.k8s.io",
        "v1alpha1",
        "BaselineAdminNetworkPolicy",
        false,
    ),
    (
        "policy.networking.k8s.io",
        "v1alpha2",
        "ClusterNetworkPolicy",
        false,
    ),
];
const CALICO_KINDS: [(&str, bool); 5] = [
    ("Tier", false),
    ("NetworkPolicy", true),
    ("GlobalNetworkPolicy", false),
    ("NetworkSet", true),
    ("GlobalNetworkSet", false),
];

/// Without a right the agent names what it cannot do, each of them; given back, it goes on by itself.
pub(crate) fn are_all_needed(cluster: &Cluster<'_>) -> Result<()> {
    let role = Role::read(cluster)?;
    for (kind_group, version, kind, namespaced) in KINDS {
        install(cluster, kind_group, version, kind, namespaced)?;
    }
    for (group, version) in CALICO {
        for (kind, namespaced) in CALICO_KINDS {
            install(cluster, group, version, kind, namespaced)?;
        }
        let reads = role.reads(group);
        for verb in ["list", "watch"] {
            role.without(cluster, verb)?;
            let agent = replace_agent(cluster)?;
            let mut silent = Vec::new();
            until(&format!("the agent misses each right to {verb}"), || {
                let said = complaints(cluster, &agent)?;
                silent = reads
                    .iter()
                    .filter(|(group, resource)| !said.contains(&refusal(verb, group, resource)))
                    .collect();
                Ok(silent.is_empty())
            })
            .with_context(|| format!("it does not say so of {silent:?}"))?;
            until("/readyz names what cannot be read", || {
                let said = cluster.ask_agent("/readyz")?;
                Ok(verb == "watch" || reads.iter().all(|(_, resource)| said.contains(resource)))
            })?;
        }
        role.give_back(cluster)?;
        cluster.wait_synced(true)?;
    }
    let delete = ["delete", "customresourcedefinitions", "--all"];
    cluster.plane.kubectl(&delete)?;
    cluster.wait_agent()
}

/// Writing Events is a right that is missed once there is something to tell.
pub(crate) fn events_are_needed(
    cluster: &Cluster<'_>,
    strike: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let role = Role::read(cluster)?;
    role.without(cluster, "create")?;
    strike()?;
    let agent = cluster.agent()?;
    until("the agent misses the right to write Events", || {
        let said = complaints(cluster, &agent)?;
        Ok(said.contains(&refusal("create", "events.k8s.io", "events")))
    })?;
    role.give_back(cluster)
}

/// What the API server says of a right that is missing.
fn refusal(verb: &str, group: &str, resource: &str) -> String {
    format!("cannot {verb} resource \"{resource}\" in API group \"{group}\"")
}

/// The problems in an agent's log.
fn complaints(cluster: &Cluster<'_>, agent: &str) -> Result<String> {
    let problems = cluster.logs("tracer", agent)?;
    let problems = problems
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some(line["problem"].as_str()?.to_owned()));
    Ok(problems.collect::<Vec<_>>().join("\n"))
}

/// Has the server take objects of a kind, whatever is in them.
fn install(
    cluster: &Cluster<'_>,
    group: &str,
    version: &str,
    kind: &str,
    namespaced: bool,
) -> Result<()> {
    let singular = kind.to_lowercase();
    let plural = match singular.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{singular}s"),
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    });
    cluster
        .plane
        .kubectl_with_input(&["apply", "-f", "-"], &definition.to_string())?;
    let name = format!("crd/{plural}.{group}");
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        &name,
    ];
    cluster.plane.kubectl(&established).map(drop)
}

/// The agent's `ClusterRole`, as it was installed.
struct Role(Vec<Value>);

impl Role {
    fn read(cluster: &Cluster<'_>) -> Result<Self> {
        let role = cluster
            .plane
            .kubectl(&["get", "clusterrole", "tracer", "-o", "json"])?;
        let role: Value = serde_json::from_str(&role)?;
        let rules = role["rules"].as_array().context("a role without rules")?;
        Ok(Self(rules.clone()))
    }

    /// What it lets the agent read of what this server has, by group and resource.
    fn reads(&self, calico: &str) -> Vec<(String, String)> {
        let words = |rule: &Value, key: &str| -> Vec<String> {
            let words = rule[key].as_array().into_iter().flatten();
            words
                .filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect()
        };
        let mut reads = Vec::new();
        for rule in &self.0 {
            if !words(rule, "verbs").contains(&"list".to_owned()) {
                continue;
            }
            for group in words(rule, "apiGroups") {
                if group.ends_with("projectcalico.org") && group != calico {
                    continue;
                }
                for resource in words(rule, "resources") {
                    // Read where there are no EndpointSlices only.
                    if resource != "endpoints" {
                        reads.push((group.clone(), resource));
                    }
                }
            }
        }
        reads
    }

    /// Takes a verb away from all its rules.
    fn without(&self, cluster: &Cluster<'_>, verb: &str) -> Result<()> {
        let mut rules = self.0.clone();
        for rule in &mut rules {
            if let Some(verbs) = rule["verbs"].as_array_mut() {
                verbs.retain(|own| own != verb);
            }
        }
        put(cluster, &rules)?;
        let resource = if verb == "create" {
            "events.events.k8s.io"
        } else {
            "pods"
        };
        until("the right is gone", || {
            Ok(!cluster.agent_may(verb, resource)?)
        })
    }

    fn give_back(&self, cluster: &Cluster<'_>) -> Result<()> {
        put(cluster, &self.0)
    }
}

fn put(cluster: &Cluster<'_>, rules: &[Value]) -> Result<()> {
    let patch = json!({ "rules": rules }).to_string();
    let arguments = [
        "patch",
        "clusterrole",
        "tracer",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.plane.kubectl(&arguments).map(drop)
}

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
