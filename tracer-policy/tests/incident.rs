//! The incident the project was born from: the policy is explained and cured.
#![expect(clippy::unwrap_used, reason = "a broken fixture should fail the test")]

mod common;

use tracer_policy::model::{Labels, Workload};
use tracer_policy::{
    CiliumPolicy, Cluster, Direction, Exemption, Failed, Flow, Profile, Refusal, SideVerdict,
    explain, suggest,
};

const CLUSTER: &str = include_str!("incident/cluster.yaml");
const BROKEN: &str = include_str!("incident/broken-policy.yaml");
const FINAL: &str = include_str!("incident/final-policy.yaml");

fn cluster_with(policy: &str) -> Cluster {
    let mut cluster = common::cluster(CLUSTER);
    common::apply(&mut cluster, policy);
    cluster
}

fn flow(from: &str, to: &str, port: u16) -> Flow {
    Flow::tcp(from.parse().unwrap(), to.parse().unwrap(), port)
}

fn probe() -> Flow {
    flow("10.10.0.11", "vault/vault-0", 8200)
}

fn to_api_server() -> Flow {
    flow("vault/vault-0", "10.43.0.1", 443)
}

#[test]
fn explain_names_the_policy_and_the_peer() {
    let cluster = cluster_with(BROKEN);
    let verdict = cluster.evaluate(&probe());
    assert!(verdict.is_denied());
    assert_eq!(verdict.egress.verdict, SideVerdict::NotIsolated);
    let miss = verdict.ingress.nearest_miss.unwrap();
    assert_eq!(miss.policy.to_string(), "vault/vault-policy");
    assert_eq!(miss.rule.as_deref(), Some("spec.ingress[0]"));
    assert_eq!(miss.failed, Failed::Peer);
    assert_eq!(
        &*miss.wanted,
        "from: [{podSelector: {matchLabels: {app.kubernetes.io/name: vault}}}]"
    );
    assert!(
        miss.got.contains("node worker (10.10.0.11)"),
        "{}",
        miss.got
    );

    let verdict = cluster.evaluate(&to_api_server());
    assert!(verdict.is_denied());
    let hop = verdict.service.unwrap();
    assert_eq!(hop.id.to_string(), "default/kubernetes");
    assert_eq!(hop.endpoints[0].port, 6443);
    assert_eq!(
        verdict.egress.nearest_miss.unwrap().rule.as_deref(),
        Some("spec.egress[0]")
    );
}

#[test]
fn the_verdict_as_json() {
    let cluster = cluster_with(BROKEN);
    let denied = cluster.evaluate(&flow("vault/vault-0", "192.168.1.100", 6443));
    insta::assert_json_snapshot!("denied", denied);
    let allowed = cluster.evaluate(&flow("vault/vault-0", "vault/vault-1", 8201));
    insta::assert_json_snapshot!("allowed", allowed);
}

#[test]
fn suggest_comes_to_the_two_rules() {
    let mut cluster = cluster_with(BROKEN);
    let flows = [
        probe(),
        flow("10.10.0.11", "10.42.1.11", 8200),
        to_api_server(),
        flow("vault/vault-1", "192.168.1.100", 6443),
    ];
    let advice = suggest(&cluster, &flows);
    assert_eq!(advice.refusals, []);
    let yaml = advice.to_yaml();
    insta::assert_snapshot!("suggestions", yaml);

    // What is printed is what was proven.
    common::apply(&mut cluster, &yaml);
    for flow in &flows {
        assert!(cluster.evaluate(flow).is_allowed(), "{flow}");
    }
    assert!(
        cluster
            .evaluate(&flow("10.10.0.11", "vault/vault-0", 8201))
            .is_denied()
    );
    assert!(
        cluster
            .evaluate(&flow("10.10.0.12", "vault/vault-0", 8200))
            .is_denied()
    );
    assert!(
        cluster
            .evaluate(&flow("vault/vault-0", "192.168.1.100", 443))
            .is_denied()
    );
    assert_eq!(
        suggest(&cluster, &flows[..1]).refusals,
        [(flows[0].clone(), Refusal::Allowed)]
    );
}

#[test]
fn a_gateway_seen_is_every_nodes_gateway() {
    let cluster = cluster_with(BROKEN);
    let advice = suggest(&cluster, &[flow("10.42.1.1", "vault/vault-0", 8200)]);
    let yaml = advice.to_yaml();
    for cidr in ["cidr: 10.42.0.1/32", "cidr: 10.42.1.1/32"] {
        assert!(yaml.contains(cidr), "{yaml}");
    }
    assert!(!yaml.contains("10.10.0.11/32"), "{yaml}");
}

#[test]
fn what_the_dataplane_would_let_through_anyway_is_said() {
    let mut cluster = cluster_with(BROKEN);
    cluster.set_profile(Some(Profile::K3S));
    let advice = suggest(&cluster, &[probe()]);
    let notes = &advice.suggestions[0].notes;
    assert!(
        notes.iter().any(|note| note.contains("by profile `k3s`")),
        "{notes:?}"
    );
}

#[test]
fn a_workloads_own_selector_is_taken_as_it_is() {
    let own = Labels::from([("vault-sealed".into(), "true".into())]);
    let advised = |labels: &Labels| {
        let mut cluster = cluster_with(BROKEN);
        let vault = Workload {
            kind: "StatefulSet".into(),
            name: "vault".into(),
        };
        cluster.apply_workload_selector("vault", vault, labels.clone());
        let advice = suggest(&cluster, &[to_api_server()]);
        let spec = advice.suggestions[0].policy.spec.clone().unwrap();
        spec.pod_selector.unwrap().match_labels.unwrap()
    };
    // The isolating policy's own selector stands beside it, so that nothing is isolated anew.
    let isolating = ("app.kubernetes.io/name".to_owned(), "vault".to_owned());
    let mut wanted = own.clone();
    wanted.extend([isolating]);
    assert_eq!(advised(&own), wanted);
    // What the pod does not carry, or only one revision of it, selects nothing that lasts.
    for unfit in [("app", "other"), ("controller-revision-hash", "vault-1")] {
        let unfit = Labels::from([(unfit.0.into(), unfit.1.into())]);
        assert!(advised(&unfit).contains_key("component"), "{unfit:?}");
    }
}

#[test]
fn what_a_node_port_lets_in_is_said() {
    let mut cluster = cluster_with(BROKEN);
    let notes = |cluster: &Cluster| suggest(cluster, &[probe()]).suggestions[0].notes.clone();
    let said = |notes: &[String]| notes.iter().any(|note| note.contains("NodePort"));
    common::apply(
        &mut cluster,
        "{apiVersion: v1, kind: Endpoints, metadata: {name: ui, namespace: vault}, subsets: [{addresses: [{ip: 10.42.1.10}], ports: [{port: 8200}]}]}\n---\n{apiVersion: v1, kind: Service, metadata: {name: ui, namespace: vault}, spec: {clusterIP: 10.43.0.7, ports: [{port: 80, targetPort: 8200}]}}",
    );
    assert!(!said(&notes(&cluster)));
    common::apply(
        &mut cluster,
        "{apiVersion: v1, kind: Service, metadata: {name: ui, namespace: vault}, spec: {type: NodePort, clusterIP: 10.43.0.7, ports: [{port: 80, targetPort: 8200, nodePort: 30080}]}}",
    );
    assert!(said(&notes(&cluster)), "{:?}", notes(&cluster));
}

#[test]
fn cilium_is_told_by_identity() {
    let mut cluster = cluster_with(BROKEN);
    cluster.set_profile(Some(Profile::CILIUM));
    let to_kubelet = flow("vault/vault-0", "10.10.0.11", 10250);
    let advice = suggest(&cluster, &[probe(), to_api_server(), to_kubelet]);
    assert!(advice.suggestions.is_empty());
    let wanted = [
        ("fromEntities: [host, remote-node]", true),
        ("toEntities: [kube-apiserver]", true),
        // All nodes together have a name: more than was asked for.
        ("toEntities: [host, remote-node]", false),
    ];
    for ((_, refusal), (wanted, given)) in advice.refusals.iter().zip(wanted) {
        let Refusal::CiliumEntity { needed, policy } = refusal else {
            panic!("{refusal}");
        };
        assert_eq!((*needed, policy.is_some()), (wanted, given));
    }
    assert_eq!(advice.refusals.len(), 3);
    let policies = advice.cilium_policies();
    let yaml: Vec<String> = policies.iter().map(CiliumPolicy::to_yaml).collect();
    insta::assert_snapshot!("cilium", yaml.join("---\n"));
    for text in &yaml {
        let object: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(object["kind"], "CiliumNetworkPolicy");
    }
}

#[test]
fn what_no_policy_cures_is_refused() {
    let cluster = cluster_with(BROKEN);
    let refused = |flow: Flow| {
        let advice = suggest(&cluster, std::slice::from_ref(&flow));
        assert!(advice.suggestions.is_empty(), "{}", advice.to_yaml());
        advice.refusals[0].1.clone()
    };
    let to = |ip: &str| flow("vault/vault-0", ip, 80);
    assert_eq!(refused(to("vault/vault-1")), Refusal::Allowed);
    assert!(matches!(
        refused(to("10.42.1.77")),
        Refusal::StalePodAddress(_)
    ));
    assert!(matches!(refused(to("224.0.0.1")), Refusal::NotAHost(_)));
    assert!(matches!(
        refused(to("255.255.255.255")),
        Refusal::NotAHost(_)
    ));
    for cloud in ["169.254.169.254", "100.100.100.200", "168.63.129.16"] {
        assert!(
            matches!(refused(to(cloud)), Refusal::Metadata(_)),
            "{cloud}"
        );
    }
    // No packet comes from a Service's address, and none is left of what was sent to it.
    assert_eq!(
        refused(flow("10.43.0.10", "vault/vault-0", 8200)).to_string(),
        "10.43.0.10 is the virtual address of Service kube-system/kube-dns, which no packet that a policy judges \
         bears: name who stands behind it"
    );
    assert!(matches!(
        refused(to("10.43.0.77")),
        Refusal::UnknownService(..)
    ));
    assert_eq!(refused(to("2001:db8::1")), Refusal::NoSharedFamily);
    assert_eq!(
        refused(flow("2001:db8::1", "vault/vault-0", 8200)),
        Refusal::NoSharedFamily
    );
    assert!(matches!(
        refused(flow("vault/none", "192.0.2.1", 80)),
        Refusal::Unknown(_)
    ));
    let mut ping = to("192.0.2.1");
    ping.protocol = tracer_policy::model::Protocol::Icmp;
    ping.port = None;
    assert!(matches!(refused(ping), Refusal::NoWordsFor(_)));
    let mut no_port = to("192.0.2.1");
    no_port.port = None;
    assert_eq!(refused(no_port), Refusal::NoPort);
    let closed = cluster_with(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: vault}, spec: {policyTypes: [Ingress, Egress]}}",
    );
    assert_eq!(
        suggest(&closed, &[to("vault/vault-0")]).refusals[0].1,
        Refusal::Exempt(Exemption::Loopback)
    );
}

#[test]
fn the_final_policy_leaves_dns_closed() {
    let mut cluster = cluster_with(FINAL);
    assert!(cluster.evaluate(&probe()).is_allowed());
    assert!(cluster.evaluate(&to_api_server()).is_allowed());
    let mut dns = flow("vault/vault-0", "10.43.0.10", 53);
    dns.protocol = tracer_policy::model::Protocol::Udp;
    let verdict = cluster.evaluate(&dns);
    assert!(verdict.is_denied());
    let miss = verdict.egress.nearest_miss.unwrap();
    assert_eq!(miss.rule.as_deref(), Some("spec.egress[1]"));
    assert_eq!(miss.failed, Failed::Namespace);
    let advice = suggest(
        &cluster,
        &[dns.clone(), flow("vault/vault-0", "10.43.0.10", 53)],
    );
    assert_eq!(advice.suggestions.len(), 1);
    assert_eq!(advice.suggestions[0].direction, Direction::Egress);
    common::apply(&mut cluster, &advice.suggestions[0].to_yaml());
    assert!(cluster.evaluate(&dns).is_allowed());
}

/// The explanation as plain text.
fn told(cluster: &Cluster, flow: &Flow) -> String {
    let lines = explain::lines(cluster, flow, &cluster.evaluate(flow));
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn told_to_people() {
    let broken = cluster_with(BROKEN);
    insta::assert_snapshot!("told_probe", told(&broken, &probe()));
    insta::assert_snapshot!("told_api_server", told(&broken, &to_api_server()));
    let last = cluster_with(FINAL);
    let mut dns = flow("vault/vault-0", "10.43.0.10", 53);
    dns.protocol = tracer_policy::model::Protocol::Udp;
    insta::assert_snapshot!("told_dns", told(&last, &dns));
    insta::assert_snapshot!(
        "told_port",
        told(&last, &flow("vault/vault-0", "192.168.1.100", 443))
    );
}
