//! The readings a dataplane profile decides.

use super::*;

/// What each profile says of `flow`.
fn by_profile(cluster: &Cluster, flow: &Flow) -> [Outcome; 4] {
    [
        Profile::K3S,
        Profile::CALICO,
        Profile::CILIUM,
        Profile::SPEC,
    ]
    .map(|profile| cluster.evaluate_as(flow, profile).verdict)
}

#[test]
fn each_open_reading_follows_the_profile() {
    use Outcome::{Allowed as Y, Denied as N};
    let mut cluster = base(&[("a", "podSelector: {}, policyTypes: [Ingress, Egress]")]);
    apply(&mut cluster, SERVICE);
    //                                                        k3s calico cilium spec
    let node_to_own = tcp("10.10.0.11", "a/web", 80);
    assert_eq!(by_profile(&cluster, &node_to_own), [Y, Y, Y, N]);
    let gateway_to_own = tcp("10.42.1.1", "a/web", 80);
    assert_eq!(by_profile(&cluster, &gateway_to_own), [Y, Y, Y, N]);
    assert_eq!(
        by_profile(&cluster, &tcp("a/host", "a/web", 80)),
        [Y, Y, Y, N]
    );
    assert_eq!(
        by_profile(&cluster, &tcp("10.10.0.12", "a/web", 80)),
        [N; 4]
    );
    assert_eq!(
        by_profile(&cluster, &tcp("a/web", "10.10.0.11", 80)),
        [N; 4]
    );
    let ping = with(Protocol::Icmp, None, tcp("b/client", "a/web", 1));
    assert_eq!(by_profile(&cluster, &ping), [Y, N, N, N]);
    for (protocol, kind, passes) in [
        (Protocol::Icmp, 8, true),
        (Protocol::Icmp, 13, false),
        (Protocol::Icmpv6, 135, true),
        (Protocol::Icmpv6, 143, false),
    ] {
        let mut message = with(protocol, None, tcp("b/client", "a/web", 1));
        message.icmp = Some(tracer_policy::Icmp { kind, code: None });
        let verdict = cluster.evaluate_as(&message, Profile::K3S);
        assert_eq!(verdict.is_allowed(), passes, "{protocol} {kind}");
    }
    // To itself, directly and through its Service.
    assert_eq!(by_profile(&cluster, &tcp("a/web", "a/web", 80)), [Y; 4]);
    let hairpin = cluster.evaluate_as(&tcp("a/web", "10.43.0.5", 80), Profile::SPEC);
    assert_eq!(hairpin.service.unwrap().endpoints[0].verdict, Y);
    let hairpin = cluster.evaluate_as(&tcp("a/web", "10.43.0.5", 80), Profile::K3S);
    assert_eq!(hairpin.service.unwrap().endpoints[0].verdict, N);

    let exempt = cluster.evaluate_as(&node_to_own, Profile::K3S).ingress;
    assert_eq!(exempt.exemption, Some(Exemption::NodeToOwnPod));
    assert_eq!(exempt.isolating.len(), 1);
    let strict = Profile::K3S.without_exemptions();
    assert_eq!(cluster.evaluate_as(&node_to_own, strict).verdict, N);
    let lenient = Profile {
        pod_reaches_own_node: true,
        ..Profile::SPEC
    };
    let to_own_node = cluster.evaluate_as(&tcp("a/web", "10.10.0.11", 80), lenient);
    assert_eq!(to_own_node.egress.exemption, Some(Exemption::PodToOwnNode));
    assert_eq!(
        cluster
            .evaluate_as(&tcp("a/web", "10.10.0.12", 80), lenient)
            .verdict,
        N
    );
    // The exemption is the node's, not the receiver's other side: a denied egress stays denied.
    assert_eq!(cluster.evaluate_as(&node_to_own, lenient).verdict, N);
}

#[test]
fn what_an_ip_block_matches_follows_the_profile() {
    use Outcome::{Allowed as Y, Denied as N};
    let cluster = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]",
    )]);
    assert_eq!(
        by_profile(&cluster, &tcp("b/client", "a/web", 80)),
        [Y, Y, N, Y]
    );
    assert_eq!(
        by_profile(&cluster, &tcp("10.10.0.12", "a/web", 80)),
        [Y, Y, N, Y]
    );
    assert_eq!(by_profile(&cluster, &tcp("10.99.0.1", "a/web", 80)), [Y; 4]);
}

#[test]
fn the_profile_is_detected_and_said() {
    let mut cluster = base(&[]);
    cluster.set_profile(None);
    let detect = |cluster: &Cluster| cluster.detected_profile().name;
    assert_eq!(detect(&cluster), ProfileName::Spec);
    let k3s = r"{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {node.kubernetes.io/instance-type: k3s}}}";
    apply(&mut cluster, k3s);
    assert_eq!(detect(&cluster), ProfileName::K3s);
    let agent = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: kube-system, labels: {{k8s-app: {name}}}}}, spec: {{containers: []}}}}"
        )
    };
    apply(&mut cluster, &agent("calico-node"));
    assert_eq!(detect(&cluster), ProfileName::Calico);
    assert_eq!(
        cluster.evaluate(&tcp("a/web", "b/client", 1)).profile,
        ProfileName::Calico
    );
    apply(&mut cluster, &agent("cilium"));
    assert_eq!(detect(&cluster), ProfileName::Cilium);
    cluster.remove_pod("kube-system", "cilium");
    cluster.remove_pod("kube-system", "calico-node");
    assert_eq!(detect(&cluster), ProfileName::K3s);
    cluster.remove_node("n1");
    assert_eq!(detect(&cluster), ProfileName::Spec);
    assert!(
        cluster
            .detected_profile()
            .because
            .contains("no pod or node")
    );
}
