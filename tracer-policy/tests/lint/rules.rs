//! What single rules say: torn items, Services' addresses, named ports.

use super::{found, ids, manifests, policy};

const KUBE_SYSTEM: &str =
    "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}";
const DNS: &str = "{podSelector: {matchLabels: {k8s-app: kube-dns}}}";

#[test]
fn torn_items_are_found_in_any_order_and_with_others_between() {
    let slip = |items: &[&str]| {
        let finding = found(
            &policy(&format!("ingress: [{{from: [{}]}}]", items.join(", "))),
            "and-or-slip",
        );
        (finding.field.unwrap(), finding.message)
    };
    let (field, message) = slip(&[DNS, KUBE_SYSTEM]);
    assert_eq!(field, "spec.ingress[0].from[1]");
    assert!(message.contains("podSelector in from[0]"), "{message}");
    let between = "{ipBlock: {cidr: 192.0.2.0/24}}";
    let (field, message) = slip(&[KUBE_SYSTEM, between, DNS]);
    assert_eq!(field, "spec.ingress[0].from[0]");
    assert!(message.contains("podSelector in from[2]"), "{message}");
    // Every namespace and some pods besides: the latter says nothing.
    let vault = "{podSelector: {matchLabels: {component: server}}}";
    let (_, message) = slip(&["{namespaceSelector: {}}", vault]);
    assert!(message.contains("matches pods in both"), "{message}");
    let own = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: vault}}}";
    assert!(slip(&[own, vault]).1.contains("matches pods in both"));
    // Of two rules, each means what it says.
    let two = policy(&format!(
        "ingress: [{{from: [{KUBE_SYSTEM}]}}, {{from: [{DNS}]}}]"
    ));
    assert!(!ids(&two).contains("and-or-slip"));
}

#[test]
fn ranges_of_services_in_either_direction() {
    let in_rule = |direction: &str, list: &str, cidr: &str| {
        ids(&policy(&format!(
            "policyTypes: [Ingress, Egress], {direction}: [{{{list}: [{{ipBlock: {{cidr: {cidr}}}}}]}}]"
        )))
        .contains("service-ip-in-rule")
    };
    for cidr in [
        "10.43.0.0/16",
        "10.43.0.0/24",
        "10.43.0.0/25",
        "10.43.0.10/32",
    ] {
        assert!(in_rule("egress", "to", cidr), "{cidr}");
        assert!(in_rule("ingress", "from", cidr), "{cidr}");
    }
    // These mean more than Services, or something else.
    for cidr in [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.42.0.0/15",
        "192.168.1.0/24",
        "10.44.0.0/16",
    ] {
        assert!(!in_rule("egress", "to", cidr), "{cidr}");
    }
}

#[test]
fn a_port_name_that_no_pod_has() {
    let ingress = |port: &str| policy(&format!("ingress: [{{ports: [{port}]}}]"));
    let finding = found(&ingress("{port: metrics}"), "named-port-missing");
    assert_eq!(
        finding.field.as_deref(),
        Some("spec.ingress[0].ports[0].port")
    );
    assert!(
        finding.message.contains("TCP port named metrics"),
        "{}",
        finding.message
    );
    assert!(!ids(&ingress("{port: https}")).contains("named-port-missing"));
    assert!(ids(&ingress("{port: https, protocol: UDP}")).contains("named-port-missing"));
    let egress = |port: &str| {
        ids(&policy(&format!(
            "policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}], ports: [{{port: {port}}}]}}]"
        )))
    };
    assert!(egress("dns-udp").contains("named-port-missing"));
    assert!(!egress("dns-tcp").contains("named-port-missing"));
    // The pods with it may be another folder's.
    let elsewhere = "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: metrics}]}]";
    assert!(!ids(&manifests(elsewhere)).contains("named-port-missing"));
}
