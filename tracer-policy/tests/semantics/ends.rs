//! Who the ends of a flow are.

use super::*;

#[test]
fn host_network_pods_are_their_node() {
    let selecting = base(&[("a", "podSelector: {}, policyTypes: [Ingress, Egress]")]);
    // Neither isolated by a selector that names it ...
    let verdict = allowed(&selecting, &tcp("b/client", "a/host", 80));
    assert_eq!(verdict.ingress.verdict, SideVerdict::NotIsolated);
    allowed(&selecting, &tcp("a/host", "192.0.2.1", 80));
    // ... nor matched by one.
    let peer = base(&[(
        "b",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]",
    )]);
    let miss = denied(&peer, &tcp("a/host", "b/client", 80))
        .ingress
        .nearest_miss
        .unwrap();
    assert!(miss.got.contains("node n1"), "{}", miss.got);
    let block = base(&[(
        "b",
        "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.10.0.11/32}}]}]",
    )]);
    allowed(&block, &tcp("a/host", "b/client", 80));
    assert!(
        matches!(block.owner("10.10.0.11".parse().unwrap()), Owner::Node(n, _) if n.name == "n1")
    );
}

#[test]
fn finished_pods_own_nothing() {
    let mut cluster = base(&[("a", "podSelector: {}")]);
    let mut done = cluster.pod("a", "web").unwrap().clone();
    let ip = done.ips[0];
    done.phase = Phase::Succeeded;
    cluster.apply_pod(done.clone());
    assert_eq!(cluster.owner(ip), Owner::External);
    allowed(&cluster, &tcp("b/client", "10.42.1.5", 80));
    unknown(&cluster, &tcp("b/client", "a/web", 80), "has finished");
    // Its address goes to whoever has it now.
    let mut heir = done.clone();
    heir.id.name = "heir".into();
    heir.phase = Phase::Pending;
    cluster.apply_pod(heir);
    assert!(matches!(cluster.owner(ip), Owner::Pod(p) if p.id.name == "heir"));
    // Of two that claim it the newer has it, also when the older one changes once more.
    let mut old = done;
    old.phase = Phase::Running;
    cluster.apply_pod(old.clone());
    old.labels.insert("x".into(), "y".into());
    cluster.remove_pod("a", "heir");
    let mut newer = old.clone();
    newer.id.name = "newer".into();
    cluster.apply_pod(newer);
    old.labels.clear();
    cluster.apply_pod(old);
    assert!(matches!(cluster.owner(ip), Owner::Pod(p) if p.id.name == "newer"));
    cluster.remove_pod("a", "newer");
    assert!(matches!(cluster.owner(ip), Owner::Pod(p) if p.id.name == "web"));
}

#[test]
fn a_pod_without_an_address_is_judged_where_none_matters() {
    let mut cluster = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: new}}}]}, {from: [{ipBlock: {cidr: 10.42.0.0/16}}], ports: [{port: 1}]}]",
    )]);
    let mut pod = cluster.pod("b", "client").unwrap().clone();
    pod.ips.clear();
    cluster.apply_pod(pod.clone());
    let reason = "pod b/client has no address yet, and policy a/p0 asks for one";
    unknown(&cluster, &tcp("b/client", "a/web", 1), reason);
    denied(&cluster, &tcp("b/client", "a/web", 2));
    pod.id.namespace = "a".into();
    pod.labels.insert("app".into(), "new".into());
    cluster.apply_pod(pod);
    allowed(&cluster, &tcp("a/client", "a/web", 1));
}

#[test]
fn dual_stack_pods_are_judged_in_both_families() {
    let cluster = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.42.2.0/24}}]}]",
    )]);
    let verdict = allowed(&cluster, &tcp("b/client", "a/web", 1));
    assert_eq!(
        verdict.notes,
        ["this holds for IPv4; for IPv6 the verdict is denied"]
    );
    denied(&cluster, &tcp("fd00::2:7", "fd00::1:5", 1));
    denied(&cluster, &tcp("b/client", "fd00::1:5", 1));
    assert_eq!(
        allowed(&cluster, &tcp("b/client", "10.42.1.5", 1)).notes,
        [""; 0]
    );
}

#[test]
fn who_is_not_there_is_unknown() {
    let cluster = base(&[]);
    unknown(
        &cluster,
        &tcp("a/nosuch", "a/web", 1),
        "a/nosuch is not in the cluster",
    );
    unknown(
        &cluster,
        &tcp("a/web", "nosuch/web", 1),
        "nosuch/web is not in the cluster",
    );
}

#[test]
fn replies_pass_where_what_they_answer_passes() {
    let cluster = base(&[(
        "a",
        "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 8080}]}]",
    )]);
    // a/web answers from 8080 to the client's 40000.
    let reply = tcp("a/web", "b/client", 40000);
    denied(&cluster, &reply);
    assert!(cluster.evaluate_reply(&reply, Some(8080)).is_allowed());
    assert!(cluster.evaluate_reply(&reply, Some(8081)).is_denied());
}

#[test]
fn a_service_is_judged_by_what_stands_behind_it() {
    let mut cluster = base(&[
        ("a", "podSelector: {}, ingress: [{ports: [{port: 80}]}]"),
        (
            "b",
            "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.43.0.5/32}}]}]",
        ),
    ]);
    apply(&mut cluster, SERVICE);
    assert!(
        matches!(cluster.owner("10.43.0.5".parse().unwrap()), Owner::Service(s) if s.id.name == "web")
    );
    // Neither the virtual address nor the Service's port is what policies see.
    let verdict = denied(&cluster, &tcp("b/client", "10.43.0.5", 80));
    assert_eq!(verdict.egress.verdict, SideVerdict::Denied);
    assert_eq!(verdict.ingress.verdict, SideVerdict::Denied);
    let hop = verdict.service.unwrap();
    assert_eq!(hop.endpoints.len(), 2);
    assert!(hop.endpoints.iter().all(|e| e.port == 8080));
    unknown(
        &cluster,
        &tcp("b/client", "10.43.0.5", 81),
        "does not serve port 81/TCP",
    );
    let dns = with(Protocol::Udp, Some(53), tcp("b/client", "10.43.0.5", 1));
    unknown(&cluster, &dns, "has no endpoint for port 53/UDP");

    let behind = cluster.services_behind("10.42.1.5".parse().unwrap(), 8080, Protocol::Tcp);
    assert_eq!(behind.len(), 1);
    assert!(
        cluster
            .services_behind("10.42.1.5".parse().unwrap(), 80, Protocol::Tcp)
            .is_empty()
    );

    // One endpoint closed, one open.
    cluster.remove_network_policy("b", "p1");
    let verdict = denied(&cluster, &tcp("a/host", "10.43.0.5", 80));
    assert_eq!(
        verdict.notes,
        [
            "most dataplanes let a node reach its own pods; profile `spec` does not assume it",
            "the verdict differs by endpoint: this one holds for 1 of 2"
        ]
    );
    cluster.remove_network_policy("a", "p0");
    allowed(&cluster, &tcp("a/host", "10.43.0.5", 80));
    let (endpoints, service) = ("web#0", tracer_policy::model::ObjectRef::new("a", "web"));
    cluster.remove_endpoints(&tracer_policy::model::ObjectRef::new("a", endpoints));
    unknown(&cluster, &tcp("a/host", "10.43.0.5", 80), "has no endpoint");
    cluster.remove_service(&service);
    allowed(&cluster, &tcp("a/host", "10.43.0.5", 80));
}

#[test]
fn of_several_endpoints_the_gravest_is_shown_and_the_first_of_equals() {
    // The second endpoint, b/client, is the closed one.
    let mut cluster = base(&[("b", "podSelector: {}")]);
    apply(&mut cluster, SERVICE);
    let verdict = denied(&cluster, &tcp("10.99.0.1", "10.43.0.5", 80));
    assert_eq!(
        verdict.ingress.nearest_miss.unwrap().policy.to_string(),
        "b/p0"
    );
    let mut both = base(&[("a", "podSelector: {}"), ("b", "podSelector: {}")]);
    apply(&mut both, SERVICE);
    let verdict = denied(&both, &tcp("10.99.0.1", "10.43.0.5", 80));
    assert_eq!(
        verdict.ingress.nearest_miss.unwrap().policy.to_string(),
        "a/p0"
    );
}

#[test]
fn the_note_on_own_nodes_is_for_own_nodes_only() {
    let cluster = base(&[("a", "podSelector: {}")]);
    assert_eq!(
        denied(&cluster, &tcp("10.10.0.11", "a/web", 80))
            .notes
            .len(),
        1
    );
    assert_eq!(
        denied(&cluster, &tcp("10.10.0.12", "a/web", 80)).notes,
        [""; 0]
    );
    assert_eq!(
        denied(&cluster, &tcp("b/client", "a/web", 80)).notes,
        [""; 0]
    );
    let strict = Profile::K3S.without_exemptions();
    let own = cluster.evaluate_as(&tcp("10.10.0.11", "a/web", 80), strict);
    assert_eq!(own.notes, [""; 0]);
    let open = base(&[("a", "podSelector: {}, ingress: [{}]")]);
    assert_eq!(
        allowed(&open, &tcp("10.10.0.11", "a/web", 80)).notes,
        [""; 0]
    );
}

#[test]
fn a_host_network_pod_has_its_own_address_or_else_its_nodes_internal_one() {
    let from = |cidr: &str| {
        let spec =
            format!("podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]");
        base(&[("b", &spec)])
    };
    let mut without = from("10.10.0.11/32");
    let mut host = without.pod("a", "host").unwrap().clone();
    host.ips.clear();
    without.apply_pod(host.clone());
    allowed(&without, &tcp("a/host", "b/client", 1));
    let mut other = from("10.10.0.21/32");
    host.ips = vec!["10.10.0.21".parse().unwrap()];
    other.apply_pod(host);
    allowed(&other, &tcp("a/host", "b/client", 1));
}

#[test]
fn of_pods_with_one_address_the_last_that_started_has_it() {
    let mut cluster = base(&[("a", "podSelector: {matchLabels: {app: web}}")]);
    let web = cluster.pod("a", "web").unwrap().clone();
    let at = |second| Some(jiff::Timestamp::from_second(second).unwrap());
    let mut apply = |name: &str, started| {
        let mut pod = web.clone();
        pod.id.name = name.into();
        pod.started = started;
        if name != "web" {
            pod.labels.clear();
        }
        cluster.apply_pod(pod);
        cluster.clone()
    };
    let (to, from) = (
        tcp("b/client", "10.42.1.5", 80),
        tcp("10.42.1.5", "b/client", 80),
    );
    apply("web", at(10));
    let earlier = apply("other", at(9));
    denied(&earlier, &to);
    assert_eq!(earlier.evaluate(&to).notes, [""; 0]);
    let later = apply("other", at(11));
    allowed(&later, &to);
    assert!(
        matches!(later.owner("10.42.1.5".parse().unwrap()), Owner::Pod(p) if p.id.name == "other")
    );
    for started in [at(10), None] {
        let open = apply("other", started);
        unknown(
            &open,
            &to,
            "10.42.1.5 is claimed by pods a/web and a/other, and policies decide",
        );
        let verdict = allowed(&open, &from);
        assert_eq!(
            verdict.notes,
            ["10.42.1.5 is claimed by pods a/web and a/other"]
        );
    }
}

#[test]
fn pods_tell_of_the_nodes_they_run_on_where_no_object_does() {
    let pods = |mut cluster: Cluster| {
        for (name, node, host) in [
            ("one", "nodeName: n9,", "10.10.0.99"),
            ("two", "nodeName: n1,", "10.10.0.11"),
            ("three", "", "10.10.0.77"),
        ] {
            apply(
                &mut cluster,
                &format!(
                    "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: b}}, spec: {{{node} containers: []}}, \
                     status: {{hostIP: {host}, hostIPs: [{{ip: {host}}}, {{ip: \"fd00::9\"}}]}}}}"
                ),
            );
        }
        cluster.add_nodes_of_pods();
        cluster
    };
    let cluster = pods(base(&[("b", "podSelector: {}")]));
    let name = |ip: &str| match cluster.owner(ip.parse().unwrap()) {
        Owner::Node(node, _) => Some(node.name.clone()),
        _ => None,
    };
    assert_eq!(name("10.10.0.99").as_deref(), Some("n9"));
    assert_eq!(name("10.10.0.77").as_deref(), Some("10.10.0.77"));
    assert_eq!(name("10.10.0.11").as_deref(), Some("n1"));
    assert_eq!(
        cluster.node("n1").unwrap().pod_cidrs.len(),
        1,
        "it stays as its object has it"
    );
    let own = cluster.evaluate_as(&tcp("10.10.0.99", "b/one", 1), Profile::K3S);
    assert_eq!(own.ingress.exemption, Some(Exemption::NodeToOwnPod));
}
