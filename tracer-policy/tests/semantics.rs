//! What upstream's tables do not cover: families, nodes, hostNetwork, finished pods, Services, replies, and
//! each reading a dataplane profile decides.
#![expect(clippy::unwrap_used, reason = "a broken fixture should fail the test")]

mod common;

use common::{apply, cluster};
use tracer_policy::model::{Phase, Protocol};
use tracer_policy::{
    Cluster, End, Exemption, Failed, Flow, Outcome, Owner, Profile, ProfileName, SideVerdict,
    Verdict,
};

/// Two nodes, a pod on each, one on the first node's network; `a/web` declares named ports.
const BASE: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: {team: b}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.42.1.0/24}, status: {addresses: [{type: InternalIP, address: 10.10.0.11}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDR: 10.42.2.0/24}, status: {addresses: [{type: InternalIP, address: 10.10.0.12}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec:
  nodeName: n1
  initContainers: [{name: i, restartPolicy: Always, ports: [{name: side, containerPort: 9000}]}]
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {phase: Running, podIP: 10.42.1.5, podIPs: [{ip: 10.42.1.5}, {ip: "fd00::1:5"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: b, labels: {app: client}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {phase: Running, podIP: 10.42.2.7, podIPs: [{ip: 10.42.2.7}, {ip: "fd00::2:7"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: a, labels: {app: host}}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: c}]}
status: {phase: Running, podIP: 10.10.0.11, podIPs: [{ip: 10.10.0.11}]}
"#;

fn base(policies: &[(&str, &str)]) -> Cluster {
    let mut cluster = cluster(BASE);
    for (index, (namespace, spec)) in policies.iter().enumerate() {
        apply(
            &mut cluster,
            &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p{index}, namespace: {namespace}}}, spec: {{{spec}}}}}"
            ),
        );
    }
    cluster.set_profile(Some(Profile::SPEC));
    cluster
}

fn tcp(from: &str, to: &str, port: u16) -> Flow {
    Flow::tcp(from.parse().unwrap(), to.parse().unwrap(), port)
}

fn with(protocol: Protocol, port: Option<u16>, mut flow: Flow) -> Flow {
    flow.protocol = protocol;
    flow.port = port;
    flow
}

#[track_caller]
fn allowed(cluster: &Cluster, flow: &Flow) -> Verdict {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Allowed, "{flow}: {verdict:?}");
    verdict
}

#[track_caller]
fn denied(cluster: &Cluster, flow: &Flow) -> Verdict {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Denied, "{flow}: {verdict:?}");
    verdict
}

#[track_caller]
fn unknown(cluster: &Cluster, flow: &Flow, reason: &str) {
    let verdict = cluster.evaluate(flow);
    assert_eq!(verdict.verdict, Outcome::Unknown, "{flow}: {verdict:?}");
    let got = verdict.reason.unwrap();
    assert!(got.contains(reason), "{got}");
}

#[test]
fn types_default_by_what_the_sections_hold() {
    // (spec, isolates ingress, isolates egress)
    let cases = [
        ("podSelector: {}", true, false),
        ("podSelector: {}, policyTypes: []", true, false),
        ("podSelector: {}, egress: []", true, false),
        ("podSelector: {}, egress: null", true, false),
        (
            "podSelector: {}, egress: [{to: [{podSelector: {}}]}]",
            true,
            true,
        ),
        ("podSelector: {}, policyTypes: [Egress]", false, true),
        (
            "podSelector: {}, policyTypes: [Egress], ingress: [{}]",
            false,
            true,
        ),
        (
            "podSelector: {}, policyTypes: [Ingress, Egress]",
            true,
            true,
        ),
        ("policyTypes: [Ingress]", true, false),
    ];
    for (spec, ingress, egress) in cases {
        let cluster = base(&[("a", spec)]);
        let is_denied = |flow| cluster.evaluate(&flow).is_denied();
        assert_eq!(is_denied(tcp("b/client", "a/web", 1)), ingress, "{spec}");
        assert_eq!(is_denied(tcp("a/web", "b/client", 1)), egress, "{spec}");
    }
}

#[test]
fn null_empty_and_empty_rule_are_three_things() {
    for (ingress, is_open) in [
        ("ingress: null", false),
        ("ingress: []", false),
        ("ingress: [{}]", true),
        ("ingress: [{from: null, ports: null}]", true),
        ("ingress: [{from: [], ports: []}]", true),
    ] {
        let cluster = base(&[("a", &format!("podSelector: {{}}, {ingress}"))]);
        for flow in [tcp("b/client", "a/web", 1), tcp("192.0.2.1", "a/web", 1)] {
            assert_eq!(
                cluster.evaluate(&flow).is_allowed(),
                is_open,
                "{ingress}: {flow}"
            );
        }
        let verdict = cluster.evaluate(&tcp("b/client", "a/web", 1));
        if !is_open {
            let miss = verdict.ingress.nearest_miss.unwrap();
            assert_eq!((miss.failed, miss.rule), (Failed::NoRules, None));
        }
    }
}

#[test]
fn an_empty_namespace_selector_is_every_pod_and_no_address() {
    let cluster = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]",
    )]);
    allowed(&cluster, &tcp("b/client", "a/web", 1));
    denied(&cluster, &tcp("192.0.2.1", "a/web", 1));
    denied(&cluster, &tcp("10.10.0.12", "a/web", 1));
}

#[test]
fn one_item_is_and_two_items_are_or() {
    let both = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: web}}}]}]";
    let either = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: web}}}]}]";
    let miss = denied(&base(&[("a", both)]), &tcp("b/client", "a/web", 1))
        .ingress
        .nearest_miss;
    assert_eq!(miss.unwrap().failed, Failed::Peer);
    allowed(&base(&[("a", either)]), &tcp("b/client", "a/web", 1));
}

#[test]
fn ip_blocks_mask_subtract_and_keep_to_their_family() {
    let block = |block: &str| {
        base(&[(
            "a",
            &format!("podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{{block}}}}}]}}]"),
        )])
    };
    let host_bits = block("cidr: 192.0.2.77/24");
    allowed(&host_bits, &tcp("192.0.2.1", "a/web", 1));
    denied(&host_bits, &tcp("192.0.3.1", "a/web", 1));
    let except = block("cidr: 192.0.2.0/24, except: [192.0.2.128/25, 192.0.2.1/32]");
    allowed(&except, &tcp("192.0.2.2", "a/web", 1));
    let miss = denied(&except, &tcp("192.0.2.1", "a/web", 1))
        .ingress
        .nearest_miss
        .unwrap();
    assert!(miss.wanted.contains("except"), "{}", miss.wanted);
    denied(&except, &tcp("192.0.2.200", "a/web", 1));
    let v6 = block(r#"cidr: "2001:db8::/32", except: ["2001:db8:1::/48"]"#);
    allowed(&v6, &tcp("2001:db8::1", "fd00::1:5", 1));
    denied(&v6, &tcp("2001:db8:1::1", "fd00::1:5", 1));
    denied(&v6, &tcp("192.0.2.1", "a/web", 1));
    denied(
        &block("cidr: 0.0.0.0/0"),
        &tcp("2001:db8::1", "fd00::1:5", 1),
    );
    allowed(
        &block(r#"cidr: "::/0""#),
        &tcp("2001:db8::1", "fd00::1:5", 1),
    );
    allowed(
        &block("cidr: 192.0.2.0/24"),
        &tcp("::ffff:192.0.2.1", "a/web", 1),
    );
}

#[test]
fn named_ports_mean_name_number_and_protocol_on_the_destination() {
    let named = |name: &str, protocol: &str| {
        base(&[(
            "a",
            &format!(
                "podSelector: {{}}, ingress: [{{ports: [{{port: {name}, protocol: {protocol}}}]}}]"
            ),
        )])
    };
    let http = named("http", "TCP");
    allowed(&http, &tcp("b/client", "a/web", 8080));
    let miss = denied(&http, &tcp("b/client", "a/web", 8081))
        .ingress
        .nearest_miss
        .unwrap();
    assert_eq!(
        (miss.failed, &*miss.wanted),
        (Failed::Port, "ports: [{port: http, protocol: TCP}]")
    );
    assert_eq!(miss.got, "port 8081/TCP");
    let udp = with(Protocol::Udp, Some(8080), tcp("b/client", "a/web", 8080));
    assert_eq!(
        denied(&http, &udp).ingress.nearest_miss.unwrap().failed,
        Failed::Protocol
    );
    // The container's protocol counts, not only the rule's.
    denied(&named("http", "UDP"), &udp);
    denied(&named("dns", "TCP"), &tcp("b/client", "a/web", 53));
    let dns = with(Protocol::Udp, Some(53), tcp("b/client", "a/web", 53));
    allowed(&named("dns", "UDP"), &dns);
    allowed(&named("side", "TCP"), &tcp("b/client", "a/web", 9000));
    denied(&named("nosuch", "TCP"), &tcp("b/client", "a/web", 8080));

    // In egress too a name is the destination pod's, and no address has one.
    let out = base(&[(
        "b",
        "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]",
    )]);
    allowed(&out, &tcp("b/client", "a/web", 8080));
    denied(&out, &tcp("b/client", "a/web", 80));
    denied(&out, &tcp("b/client", "192.0.2.1", 8080));
}

#[test]
fn end_port_is_inclusive_and_protocol_defaults_to_tcp() {
    let cluster = base(&[(
        "a",
        "podSelector: {}, ingress: [{ports: [{port: 100, endPort: 110}]}]",
    )]);
    for (port, is_open) in [
        (99, false),
        (100, true),
        (105, true),
        (110, true),
        (111, false),
    ] {
        let verdict = cluster.evaluate(&tcp("b/client", "a/web", port));
        assert_eq!(verdict.is_allowed(), is_open, "{port}");
    }
    denied(
        &cluster,
        &with(Protocol::Udp, Some(105), tcp("b/client", "a/web", 1)),
    );
    let sctp = base(&[(
        "a",
        "podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]",
    )]);
    allowed(
        &sctp,
        &with(Protocol::Sctp, Some(9), tcp("b/client", "a/web", 1)),
    );
    denied(&sctp, &tcp("b/client", "a/web", 9));
}

#[test]
fn what_has_no_ports_matches_rules_without_ports_only() {
    let ping = |to: &str| with(Protocol::Icmp, None, tcp("b/client", to, 1));
    let listed = base(&[(
        "a",
        "podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP}]}]",
    )]);
    let miss = denied(&listed, &ping("a/web"))
        .ingress
        .nearest_miss
        .unwrap();
    assert_eq!(miss.failed, Failed::Protocol);
    assert!(miss.got.contains("no port list can match"), "{}", miss.got);
    let open = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]",
    )]);
    allowed(&open, &ping("a/web"));
    denied(
        &open,
        &with(Protocol::Other(47), None, tcp("192.0.2.1", "a/web", 1)),
    );
}

#[test]
fn a_flow_without_its_port_is_decided_where_no_port_matters() {
    let no_port = with(Protocol::Tcp, None, tcp("b/client", "a/web", 1));
    let any = base(&[(
        "a",
        "podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]",
    )]);
    allowed(&any, &no_port);
    let one = base(&[("a", "podSelector: {}, ingress: [{ports: [{port: 80}]}]")]);
    unknown(&one, &no_port, "names no port");
    let other_peer = base(&[(
        "a",
        "podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]",
    )]);
    denied(&other_peer, &no_port);
}

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
    unknown(&cluster, &tcp("b/client", "a/web", 1), "has no address yet");
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

const SERVICE: &str = r"
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: a}, spec: {clusterIP: 10.43.0.5, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: a}
subsets:
- addresses: [{ip: 10.42.1.5}, {ip: 10.42.2.7}]
  ports: [{name: http, port: 8080}]
";

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

#[test]
fn a_policy_that_does_not_compile_is_named_and_never_guessed() {
    let mut cluster = base(&[("a", "podSelector: {matchLabels: {app: web}}")]);
    let broken = |spec: &str| -> k8s_openapi::api::networking::v1::NetworkPolicy {
        serde_saphyr::from_str(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: bad, namespace: a}}, spec: {{{spec}}}}}"
        ))
        .unwrap()
    };
    let cases = [
        (
            "podSelector: {}, policyTypes: [ingress]",
            "spec.policyTypes[0]: `ingress`",
        ),
        (
            "ingress: [{from: [{}]}]",
            "spec.ingress[0].from[0]: names no peer",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]",
            "spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0`",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]",
            "ipBlock.cidr",
        ),
        (
            "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}]",
            "spec.egress[0].to[0].ipBlock.except[0]: `x`",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "ipBlock cannot stand beside",
        ),
        (
            "ingress: [{ports: [{protocol: tcp}]}]",
            "spec.ingress[0].ports[0].protocol: `tcp`",
        ),
        (
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "`ICMP` is no protocol of a policy port",
        ),
        (
            "ingress: [{}, {ports: [{}, {port: 70000}]}]",
            "spec.ingress[1].ports[1].port: 70000",
        ),
        ("ingress: [{ports: [{port: 0}]}]", "port: 0 is no port"),
        (
            r#"ingress: [{ports: [{port: "80"}]}]"#,
            "`80` is no port name",
        ),
        (
            "ingress: [{ports: [{port: 80, endPort: 79}]}]",
            "spec.ingress[0].ports[0].endPort: 79 is below",
        ),
        (
            "ingress: [{ports: [{port: web, endPort: 79}]}]",
            "needs a numeric `port`",
        ),
        (
            "ingress: [{ports: [{endPort: 79}]}]",
            "needs a numeric `port`",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            "ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}]}]",
            "namespaceSelector.matchExpressions[0].operator",
        ),
    ];
    for (spec, wanted) in cases {
        let error = cluster
            .apply_network_policy(&broken(spec))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("NetworkPolicy a/bad: ") && error.contains(wanted),
            "{error}"
        );
        unknown(
            &cluster,
            &tcp("b/client", "a/web", 1),
            "what a/bad allows is not known",
        );
    }
    // What another policy allows stays allowed: policies only add.
    apply(
        &mut cluster,
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p9, namespace: a}, spec: {ingress: [{}]}}",
    );
    allowed(&cluster, &tcp("b/client", "a/web", 1));
    cluster.remove_network_policy("a", "bad");
    cluster.remove_network_policy("a", "p9");
    denied(&cluster, &tcp("b/client", "a/web", 1));
    let unnamed = k8s_openapi::api::networking::v1::NetworkPolicy::default();
    assert!(
        cluster
            .apply_network_policy(&unnamed)
            .unwrap_err()
            .to_string()
            .contains("metadata.name")
    );
}

#[test]
fn every_isolating_policy_and_the_nearest_miss() {
    let cluster = base(&[
        ("a", "podSelector: {}"),
        (
            "a",
            "podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 1}]}, {from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: 9}]}]",
        ),
        (
            "a",
            "podSelector: {matchLabels: {app: other}}, ingress: [{}]",
        ),
        ("b", "podSelector: {}, ingress: [{}]"),
    ]);
    let verdict = denied(&cluster, &tcp("b/client", "a/web", 80));
    let names: Vec<String> = verdict
        .ingress
        .isolating
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["a/p0", "a/p1"]);
    assert_eq!(verdict.egress.verdict, SideVerdict::NotIsolated);
    let miss = verdict.ingress.nearest_miss.unwrap();
    assert_eq!(miss.rule.as_deref(), Some("spec.ingress[1]"));
    assert_eq!((miss.failed, miss.item), (Failed::Port, 0));
    let names: Vec<_> = cluster
        .isolating("b", "client", tracer_policy::Direction::Ingress)
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["b/p3"]);
}

#[test]
fn lookups() {
    let mut cluster = base(&[("a", "podSelector: {}")]);
    assert_eq!(cluster.pod_count(), 3);
    assert_eq!(cluster.pods_on("n1").count(), 2);
    assert_eq!(
        cluster.pods_in("a").map(|p| &p.id.name).collect::<Vec<_>>(),
        ["host", "web"]
    );
    assert_eq!(cluster.namespace_labels("b").unwrap()["team"], "b");
    assert_eq!(
        cluster.namespace_labels("b").unwrap()["kubernetes.io/metadata.name"],
        "b"
    );
    assert_eq!(cluster.nodes().count(), 2);
    assert_eq!(cluster.policies().count(), 1);
    assert!(!cluster.is_api_server("192.168.1.100".parse().unwrap(), 6443));
    apply(
        &mut cluster,
        "{apiVersion: v1, kind: Endpoints, metadata: {name: kubernetes, namespace: default}, subsets: [{addresses: [{ip: 192.168.1.100}, {ip: 192.168.1.101}], ports: [{name: https, port: 6444}]}]}\n---\n{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.43.0.1, ports: [{name: https, port: 443}]}}",
    );
    assert_eq!(cluster.api_server_endpoints().len(), 2);
    for (ip, port, is_it) in [
        ("192.168.1.101", 6444, true),
        ("192.168.1.101", 6443, false),
        ("10.43.0.1", 443, true),
        ("10.43.0.1", 6444, false),
    ] {
        assert_eq!(
            cluster.is_api_server(ip.parse().unwrap(), port),
            is_it,
            "{ip}:{port}"
        );
    }
    cluster.remove_node("n1");
    assert_eq!(
        cluster.owner("10.10.0.11".parse().unwrap()),
        Owner::External
    );
    cluster.remove_pod("a", "web");
    cluster.remove_pod("a", "nosuch");
    assert_eq!(cluster.pod_count(), 2);
    assert!(cluster.pod("a", "web").is_none());
    assert_eq!(cluster.pods_on("n1").count(), 1);
    let id: End = "a/web".parse().unwrap();
    assert_eq!(id, End::pod("a", "web"));
}
