//! Policies without the pods that they select.

use std::collections::BTreeSet;

use super::{BROKEN, FINAL, common, found, ids};

fn alone(spec: &str) -> BTreeSet<&'static str> {
    ids(&common::cluster(&one(spec)))
}

fn one(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
    )
}

const DNS: &str = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";

#[test]
fn the_broken_policy_gives_its_mistakes_away_alone() {
    let cluster = common::cluster(BROKEN);
    assert_eq!(
        ids(&cluster),
        BTreeSet::from([
            "apiserver-unmentioned",
            "dns-unmentioned",
            "nodes-unmentioned"
        ])
    );
    let dns = found(&cluster, "dns-unmentioned");
    assert_eq!(
        (dns.policy.to_string().as_str(), dns.pod),
        ("vault/vault-policy", None)
    );
    // The nodes are there, and so is the API server; the DNS rule selects nothing.
    assert_eq!(
        ids(&common::cluster(FINAL)),
        BTreeSet::from(["dns-unmentioned", "peer-in-other-namespace"])
    );
}

#[test]
fn what_is_mentioned_is_not_missed() {
    let api = "{to: [{ipBlock: {cidr: 192.168.1.100/32}}], ports: [{port: 6443}]}";
    assert_eq!(
        alone(&format!("policyTypes: [Egress], egress: [{DNS}, {api}]")),
        BTreeSet::new()
    );
    assert_eq!(
        alone(&format!("policyTypes: [Egress], egress: [{DNS}]")),
        BTreeSet::from(["apiserver-unmentioned"])
    );
    for open in [
        "ingress: [{ports: [{port: 80}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 192.168.1.0/24}}]}]",
    ] {
        assert_eq!(alone(open), BTreeSet::new(), "{open}");
    }
    // A default deny: others open what is needed.
    assert_eq!(alone("policyTypes: [Ingress, Egress]"), BTreeSet::new());
    // Together with others of the same pods.
    let pair = format!(
        "{}\n---\n{}",
        one("policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]"),
        one(&format!("policyTypes: [Egress], egress: [{DNS}]")).replace("name: p", "name: dns")
    );
    assert_eq!(
        ids(&common::cluster(&pair)),
        BTreeSet::from(["apiserver-unmentioned"])
    );
}

#[test]
fn a_policy_with_pods_or_in_a_cluster_is_judged_by_them() {
    let spec = "policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]";
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: []}}";
    let with_pod = ids(&common::cluster(&format!("{}\n---\n{pod}", one(spec))));
    assert_eq!(
        with_pod,
        BTreeSet::from(["apiserver-blocked", "dns-blocked"])
    );
    let mut cluster = super::incident("");
    common::apply(&mut cluster, &one(spec));
    // Nobody is harmed; that its peer, the namespace's own pods, matches nothing is worth a note.
    assert_eq!(ids(&cluster), BTreeSet::from(["peer-matches-nothing"]));
}
