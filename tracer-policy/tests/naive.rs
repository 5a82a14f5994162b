//! The engine against an evaluator written from the API's text alone, on random small clusters.
#![expect(
    clippy::unwrap_used,
    reason = "a broken generator should fail the test"
)]

#[path = "naive/admin.rs"]
mod admin;
#[path = "naive/crowd.rs"]
mod crowd;
#[path = "naive/judge.rs"]
mod judge;
#[path = "naive/worlds.rs"]
mod worlds;

use std::collections::HashSet;

use admin::{Version, govern};
use crowd::crowd;
use judge::World;
use proptest::prelude::*;
use tracer_policy::{Cluster, Direction, End, Flow, Outcome, Refusal, SideVerdict, suggest};
use worlds::{cluster, flows, governed, world};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn engine_and_api_text_agree(world in world()) {
        let cluster = cluster(&world);
        for flow in flows(&world) {
            let verdict = cluster.evaluate(&flow);
            prop_assert_eq!(
                verdict.is_allowed(), world.allows(&flow),
                "{}: {}", flow, serde_json::to_string(&verdict).unwrap()
            );
            prop_assert_eq!(verdict.is_denied(), !verdict.is_allowed());
            for side in [&verdict.ingress, &verdict.egress] {
                prop_assert_eq!(side.nearest_miss.is_some(), side.verdict == SideVerdict::Denied);
                prop_assert_eq!(side.isolating.is_empty(), side.verdict == SideVerdict::NotIsolated);
            }
        }
    }

    /// The same where not everyone has an address of its own.
    #[test]
    fn engine_and_api_text_agree_on_hosts_finished_pods_and_services(crowd in crowd()) {
        let cluster = crowd.cluster();
        for flow in crowd.flows() {
            let verdict = cluster.evaluate(&flow);
            let told = || format!("{flow}: {}", serde_json::to_string(&verdict).unwrap());
            match crowd.allows(&flow) {
                Some(allowed) => {
                    prop_assert_eq!(verdict.is_allowed(), allowed, "{}", told());
                    prop_assert_eq!(verdict.is_denied(), !allowed, "{}", told());
                }
                // Nobody is there, and what is denied to everyone is denied.
                None => prop_assert!(verdict.verdict != Outcome::Allowed, "{}", told()),
            }
        }
    }

    /// The same where administrators have a say, in either version of their API.
    #[test]
    fn engine_and_the_administrators_api_agree(governed in governed()) {
        for version in [Version::Alpha1, Version::Alpha2] {
            let mut cluster = cluster(&governed.world);
            govern(&mut cluster, &governed, version);
            for flow in flows(&governed.world) {
                let verdict = cluster.evaluate(&flow);
                prop_assert_eq!(
                    verdict.is_allowed(), governed.allows(&flow),
                    "{:?} {}: {}", version, flow, serde_json::to_string(&verdict).unwrap()
                );
                prop_assert_eq!(verdict.is_denied(), !verdict.is_allowed());
            }
        }
    }

    /// Whatever came and went before, the index is as if it had been built from what is left.
    #[test]
    fn history_leaves_no_trace(before in world(), after in world(), removed in 0usize..5) {
        let mut cluster = cluster(&before);
        for policy in before.policies.iter().skip(removed) {
            let namespace = policy.metadata.namespace.as_deref().unwrap();
            cluster.remove_network_policy(namespace, policy.metadata.name.as_deref().unwrap());
        }
        for pod in before.pods.iter().take(removed) {
            cluster.remove_pod(&pod.id.namespace, &pod.id.name);
        }
        change(&mut cluster, &before, &after);
        for flow in flows(&after) {
            prop_assert_eq!(cluster.evaluate(&flow).is_allowed(), after.allows(&flow), "{}", flow);
        }
    }
}

/// From one world to the next, in the order a watch might bring it: policies, pods, namespaces.
fn change(cluster: &mut Cluster, before: &World, after: &World) {
    for policy in &before.policies {
        let (name, namespace) = (&policy.metadata.name, &policy.metadata.namespace);
        let stays = after
            .policies
            .iter()
            .any(|p| (&p.metadata.name, &p.metadata.namespace) == (name, namespace));
        if !stays {
            cluster.remove_network_policy(namespace.as_deref().unwrap(), name.as_deref().unwrap());
        }
    }
    for policy in &after.policies {
        cluster.apply_network_policy(policy).unwrap();
    }
    for pod in &before.pods {
        if !after.pods.iter().any(|p| p.id == pod.id) {
            cluster.remove_pod(&pod.id.namespace, &pod.id.name);
        }
    }
    for pod in &after.pods {
        cluster.apply_pod(pod.clone());
    }
    for namespace in &before.namespaces {
        cluster.remove_namespace(&namespace.name);
    }
    for namespace in &after.namespaces {
        cluster.apply_namespace(namespace.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A suggestion lets its flow through, denies nothing that was allowed, and allows nothing but what
    /// it lists.
    #[test]
    fn suggestions_do_what_they_say(world in world(), pick in any::<prop::sample::Index>()) {
        let cluster = cluster(&world);
        let all = flows(&world);
        let denied: Vec<&Flow> = all.iter().filter(|flow| !world.allows(flow)).collect();
        prop_assume!(!denied.is_empty());
        let flow = denied[pick.index(denied.len())];
        let advice = suggest(&cluster, std::slice::from_ref(flow));
        let families = |end: &End| {
            let ips = match end {
                End::Ip(ip) => vec![*ip],
                End::Pod(id) => world.pods.iter().find(|p| p.id == *id).unwrap().ips.clone(),
            };
            [true, false].map(|v4| ips.iter().any(|ip| ip.is_ipv4() == v4))
        };
        let (from, to) = (families(&flow.from), families(&flow.to));
        let meet = (0..2).any(|family| from[family] && to[family]);
        let unnamed = |refusal: &Refusal| match refusal {
            Refusal::NoStableLabel(_) => true,
            Refusal::NoSharedFamily => !meet,
            _ => false,
        };
        prop_assert!(meet || advice.suggestions.is_empty(), "{}:\n{}", flow, advice.to_yaml());
        prop_assert!(advice.refusals.iter().all(|(_, r)| unnamed(r)), "{:?}", advice.refusals);
        let mut cured = world.clone();
        cured.policies.extend(advice.suggestions.iter().map(|s| s.policy.clone()));
        if advice.refusals.is_empty() {
            prop_assert!(cured.allows(flow), "{}:\n{}", flow, advice.to_yaml());
        }
        let listed: HashSet<(String, String, u16, bool)> = advice
            .suggestions
            .iter()
            .flat_map(|s| s.newly_allowed.iter().map(|n| {
                (n.pod.to_string(), n.peer.clone(), n.port, s.direction == Direction::Ingress)
            }))
            .collect();
        for other in &all {
            match (world.allows(other), cured.allows(other)) {
                (true, false) => prop_assert!(false, "{other} was allowed before"),
                (false, true) => {
                    let name = |end: &End| match end {
                        End::Ip(ip) => match world.pods.iter().find(|p| p.ips.contains(ip)) {
                            Some(pod) => [pod.id.to_string(), ip.to_string()],
                            None => [ip.to_string(), ip.to_string()],
                        },
                        End::Pod(id) => {
                            let pod = world.pods.iter().find(|p| p.id == *id).unwrap();
                            [id.to_string(), pod.ips[0].to_string()]
                        }
                    };
                    let (from, to) = (name(&other.from), name(&other.to));
                    let port = other.port.unwrap();
                    let is_listed = to.iter().any(|to| from.iter().any(|from| {
                        listed.contains(&(to.clone(), from.clone(), port, true))
                            || listed.contains(&(from.clone(), to.clone(), port, false))
                    }));
                    prop_assert!(is_listed, "{other} is allowed unsaid:\n{}", advice.to_yaml());
                }
                _ => {}
            }
        }
        // Every suggestion is needed.
        for (index, left_out) in advice.suggestions.iter().enumerate() {
            let mut without = cured.clone();
            without.policies.remove(world.policies.len() + index);
            prop_assert!(!without.allows(flow), "{} is not needed", left_out.to_yaml());
        }
    }
}
