//! What is closed in part, by a rule that denies, or open by an exemption alone.

use serde_json::json;
use tracer_policy::lint::lint;
use tracer_policy::{Cluster, PolicyKind, Profile, ProfileName};

use super::{BROKEN, common, found, ids, incident, manifests};

#[test]
fn the_probes_are_told_under_every_profile() {
    for name in ProfileName::ALL {
        let mut cluster = incident(BROKEN);
        cluster.set_profile(Some(Profile::named(name)));
        let exempt = name != ProfileName::Spec;
        let rule = if exempt {
            "probe-exempt"
        } else {
            "probe-blocked"
        };
        let finding = found(&cluster, rule);
        assert!(
            finding.message.contains("port 8200/TCP"),
            "{}",
            finding.message
        );
        let dataplane = format!("dataplane `{name}` does so by itself");
        assert_eq!(
            finding.message.contains(&dataplane),
            exempt,
            "{}",
            finding.message
        );
        let all = ids(&cluster);
        assert!(
            all.contains("apiserver-blocked") && all.contains("dns-blocked"),
            "{all:?}"
        );
        // Pods that do not run yet will have a node as well.
        let mut unplaced = manifests("policyTypes: [Ingress]");
        unplaced.set_profile(Some(Profile::named(name)));
        assert!(ids(&unplaced).contains(rule), "{name}");
    }
    // A rule lets them in: nothing hangs on the exemption.
    let mut open = super::policy("ingress: [{ports: [{port: 8200}]}]");
    open.set_profile(Some(Profile::K3S));
    assert!(!ids(&open).contains("probe-exempt"));
    // Another node's are not exempt.
    let mut elsewhere = incident(BROKEN);
    elsewhere.set_profile(Some(Profile::K3S));
    common::apply(
        &mut elsewhere,
        "{apiVersion: v1, kind: Pod, metadata: {name: lone, namespace: vault, labels: {app.kubernetes.io/name: vault}}, spec: {nodeName: gone, containers: [{name: c, ports: [{containerPort: 80}], livenessProbe: {tcpSocket: {port: 80}}}]}, status: {podIP: 10.42.7.7}}",
    );
    assert!(!ids(&elsewhere).contains("probe-blocked"));
}

#[test]
fn closed_endpoints_are_told_among_open_ones() {
    let mut cluster = incident(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: vault}, spec: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.1.100/32}}, {ipBlock: {cidr: 10.42.1.2/32}}]}]}}",
    );
    let told = |cluster: &Cluster| {
        let all = ids(cluster);
        ["apiserver-blocked", "dns-blocked"].map(|id| all.contains(id))
    };
    assert_eq!(told(&cluster), [false, false]);
    common::apply(
        &mut cluster,
        "{apiVersion: v1, kind: Endpoints, metadata: {name: kubernetes, namespace: default}, subsets: [{addresses: [{ip: 192.168.1.100}, {ip: 192.168.1.101}, {ip: 'fd00::1'}], ports: [{name: https, port: 6443}]}]}\n---\n\
         {apiVersion: v1, kind: Endpoints, metadata: {name: kube-dns, namespace: kube-system}, subsets: [{addresses: [{ip: 10.42.1.2}, {ip: 10.42.1.3}], ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}]}",
    );
    assert_eq!(told(&cluster), [true, true]);
    let api_server = found(&cluster, "apiserver-blocked").message;
    // The pods have no IPv6 address to reach the third one with.
    assert!(
        api_server.contains("at 1 of its 2 endpoints (192.168.1.101:6443)"),
        "{api_server}"
    );
    let dns = found(&cluster, "dns-blocked").message;
    assert!(
        dns.contains("at 1 of its 2 endpoints (10.42.1.3:53)"),
        "{dns}"
    );
}

#[test]
fn a_rule_that_denies_is_told_by_its_name() {
    let deny = |tier: (PolicyKind, &str), direction: &str, list: &str, peer: serde_json::Value| {
        let (kind, name) = tier;
        let mut cluster = incident("");
        let object = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind.as_str(),
            "metadata": {"name": name},
            "spec": {"priority": 10, "subject": {"namespaces": {}},
                direction: [{"action": "Deny", list: [peer]}]}});
        cluster.apply_ordered(kind, &object).unwrap();
        lint(&cluster)
    };
    let admin = (PolicyKind::AdminNetworkPolicy, "strict");
    let findings = deny(
        admin,
        "egress",
        "to",
        json!({"networks": ["192.168.1.0/24"]}),
    );
    let api_server = findings
        .iter()
        .find(|f| f.rule.id == "apiserver-blocked")
        .unwrap();
    assert_eq!(
        (
            api_server.policy.to_string().as_str(),
            api_server.field.as_deref()
        ),
        ("strict", Some("spec.egress[0]"))
    );
    assert!(
        api_server.fix.contains("no NetworkPolicy overrides"),
        "{}",
        api_server.fix
    );
    let dns =
        json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}});
    let findings = deny(admin, "egress", "to", dns);
    assert!(
        findings.iter().any(|f| f.rule.id == "dns-blocked"),
        "{findings:?}"
    );
    let findings = deny(admin, "ingress", "from", json!({"namespaces": {}}));
    assert!(
        !findings.iter().any(|f| f.rule.id == "probe-blocked"),
        "{findings:?}"
    );
}
