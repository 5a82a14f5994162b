//! What stands behind a Service, and who is seen to send to it.

use tracer_policy::model::{Endpoints, from_endpoint_slice};

use super::*;

fn service(spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a}}, spec: {{{spec}}}}}"
    )
}

fn slice(endpoints: &str) -> Endpoints {
    let object = serde_saphyr::from_str(&format!(
        "{{metadata: {{name: s-1, namespace: a, labels: {{kubernetes.io/service-name: s}}}}, addressType: IPv4, \
         apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, \
         endpoints: [{endpoints}], ports: [{{name: '', port: 8080}}]}}"
    ))
    .unwrap();
    from_endpoint_slice(&object).unwrap().unwrap()
}

fn backends(verdict: &Verdict) -> Vec<String> {
    let hop = verdict.service.as_ref().unwrap();
    hop.endpoints
        .iter()
        .map(|endpoint| format!("{}:{}", endpoint.ip, endpoint.port))
        .collect()
}

#[test]
fn without_endpoints_a_service_leads_to_the_pods_it_selects() {
    for (target, port) in [("8081", 8081), ("http", 8080)] {
        let mut cluster = base(&[("a", "podSelector: {}, ingress: [{ports: [{port: 8080}]}]")]);
        apply(
            &mut cluster,
            &service(&format!(
                "clusterIP: 10.43.0.6, selector: {{app: web}}, ports: [{{port: 80, targetPort: {target}}}]"
            )),
        );
        let verdict = cluster.evaluate(&tcp("b/client", "10.43.0.6", 80));
        assert_eq!(verdict.is_allowed(), port == 8080);
        assert_eq!(backends(&verdict), [format!("10.42.1.5:{port}")]);
        assert_eq!(
            verdict.notes,
            ["no endpoints of Service a/s are given: judged by the pods that it selects"]
        );
        // Endpoints that say there is none are to be believed.
        apply(
            &mut cluster,
            "{apiVersion: v1, kind: Endpoints, metadata: {name: s, namespace: a}}",
        );
        unknown(
            &cluster,
            &tcp("b/client", "10.43.0.6", 80),
            "has no endpoint",
        );
    }
}

#[test]
fn what_is_denied_to_everybody_is_denied_to_who_is_not_known() {
    for (rules, is_denied) in [
        ("[]", true),
        ("[{ports: [{protocol: UDP}]}]", true),
        ("[{to: [{podSelector: {}}]}]", false),
        ("[{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]", false),
        ("[{ports: [{port: 80}]}]", false),
        ("[{}]", false),
    ] {
        let spec = format!("podSelector: {{}}, policyTypes: [Egress], egress: {rules}");
        let mut cluster = base(&[("b", &spec)]);
        apply(
            &mut cluster,
            &service("clusterIP: 10.43.0.6, ports: [{port: 80}]"),
        );
        for port in [80, 81] {
            let flow = tcp("b/client", "10.43.0.6", port);
            if is_denied {
                let verdict = denied(&cluster, &flow);
                assert_eq!(verdict.egress.verdict, SideVerdict::Denied);
                assert_eq!(verdict.ingress.verdict, SideVerdict::Unknown);
            } else {
                unknown(&cluster, &flow, "Service a/s");
            }
        }
    }
}

#[test]
fn endpoints_that_are_not_ready_get_traffic_where_none_is() {
    let open = "{addresses: [10.42.1.5]";
    let closed = "{addresses: [10.42.2.7]";
    let mut cluster = base(&[("b", "podSelector: {}")]);
    apply(
        &mut cluster,
        &service("clusterIP: 10.43.0.6, ports: [{port: 80}]"),
    );
    let mut told = |endpoints: &str| {
        cluster.apply_endpoints(slice(endpoints));
        let verdict = cluster.evaluate(&tcp("192.0.2.1", "10.43.0.6", 80));
        (backends(&verdict).join(" "), verdict.notes.len())
    };
    let (open_at, closed_at) = ("10.42.1.5:8080".to_owned(), "10.42.2.7:8080".to_owned());
    for (ready, not_ready) in [
        ("}", ", conditions: {ready: false}}"),
        (
            ", conditions: {ready: true}}",
            ", conditions: {ready: false, serving: true}}",
        ),
        (
            ", conditions: {ready: false, serving: true, terminating: true}}",
            ", conditions: {ready: false, serving: false, terminating: true}}",
        ),
    ] {
        let notes = usize::from(ready.contains("terminating"));
        let both = format!("{open}{ready}, {closed}{not_ready}");
        assert_eq!(told(&both), (open_at.clone(), notes));
        assert_eq!(
            told(&format!("{closed}{not_ready}")),
            (closed_at.clone(), 1)
        );
    }
    // Endpoints say it in two lists; the Service's own selector, by the pods' condition.
    let mut cluster = base(&[]);
    apply(
        &mut cluster,
        &service("clusterIP: 10.43.0.6, selector: {team: x}, ports: [{port: 80}]"),
    );
    let mut web = cluster.pod("a", "web").unwrap().clone();
    web.labels.insert("team".into(), "x".into());
    let mut other = web.clone();
    other.id.name = "other".into();
    other.ips = vec!["10.42.1.6".parse().unwrap()];
    other.ready = Some(false);
    cluster.apply_pod(web);
    cluster.apply_pod(other);
    let flow = tcp("192.0.2.1", "10.43.0.6", 80);
    assert_eq!(backends(&cluster.evaluate(&flow)), ["10.42.1.5:80"]);
    apply(
        &mut cluster,
        &service(
            "clusterIP: 10.43.0.6, selector: {team: x}, publishNotReadyAddresses: true, ports: [{port: 80}]",
        ),
    );
    assert_eq!(
        backends(&cluster.evaluate(&flow)),
        ["10.42.1.5:80", "10.42.1.6:80"]
    );
    apply(
        &mut cluster,
        "{apiVersion: v1, kind: Endpoints, metadata: {name: s, namespace: a}, subsets: [{addresses: [{ip: 10.42.1.6}], \
         notReadyAddresses: [{ip: 10.42.1.5}], ports: [{port: 80}]}]}",
    );
    assert_eq!(backends(&cluster.evaluate(&flow)), ["10.42.1.6:80"]);
}

/// `a/web` on n1 behind port 30080 of every node, and behind a load balancer's address.
fn with_node_port(policies: &[(&str, &str)], more: &str) -> Cluster {
    let mut cluster = base(policies);
    apply(
        &mut cluster,
        &format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a}}, spec: {{clusterIP: 10.43.0.6, {more} \
             externalIPs: [203.0.113.9], ports: [{{port: 80, nodePort: 30080}}]}}}}\n---\n\
             {{apiVersion: v1, kind: Endpoints, metadata: {{name: s, namespace: a}}, \
             subsets: [{{addresses: [{{ip: 10.42.1.5}}], ports: [{{port: 8080}}]}}]}}"
        ),
    );
    cluster
}

#[test]
fn a_node_port_is_judged_by_what_stands_behind_it() {
    let closed = with_node_port(&[("a", "podSelector: {}, policyTypes: [Ingress]")], "");
    let flow = tcp("192.0.2.1", "10.10.0.12", 30080);
    let verdict = denied(&closed, &flow);
    assert_eq!(backends(&verdict), ["10.42.1.5:8080"]);
    assert!(
        verdict.service.unwrap().id.to_string() == "a/s"
            && closed.service_at_node_port(30080, Protocol::Udp).is_none()
    );
    // Not a Service's port: the node's own.
    allowed(&closed, &tcp("192.0.2.1", "10.10.0.12", 30081));
    let open = with_node_port(
        &[("a", "podSelector: {}, ingress: [{ports: [{port: 8080}]}]")],
        "",
    );
    allowed(&open, &flow);
    let mut gone = open.clone();
    gone.remove_service(&tracer_policy::model::ObjectRef::new("a", "s"));
    assert!(gone.evaluate(&flow).service.is_none());
}

#[test]
fn a_node_may_stand_for_the_sender_where_the_traffic_policy_lets_it() {
    let sender = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.1/32}}]}]";
    let nodes = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.10.0.12/32}}, {ipBlock: {cidr: 10.42.2.0/30}}]}]";
    let both = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]";
    let local = "externalTrafficPolicy: Local,";
    for to in ["10.10.0.12", "203.0.113.9"] {
        let flow = tcp(
            "192.0.2.1",
            to,
            if to.starts_with("10.") { 30080 } else { 80 },
        );
        unknown(
            &with_node_port(&[("a", sender)], ""),
            &flow,
            "externalTrafficPolicy: Cluster",
        );
        let is_node_port = flow.port == Some(30080);
        if is_node_port {
            unknown(
                &with_node_port(&[("a", nodes)], ""),
                &flow,
                "externalTrafficPolicy",
            );
            allowed(&with_node_port(&[("a", both)], ""), &flow);
            // The endpoint is on the other node.
            unknown(
                &with_node_port(&[("a", sender)], local),
                &flow,
                "has no endpoint",
            );
        } else {
            allowed(&with_node_port(&[("a", sender)], local), &flow);
            denied(&with_node_port(&[("a", nodes)], local), &flow);
        }
    }
    let on_its_node = tcp("192.0.2.1", "10.10.0.11", 30080);
    allowed(&with_node_port(&[("a", sender)], local), &on_its_node);
    denied(&with_node_port(&[("a", nodes)], local), &on_its_node);
    // A Service's own address keeps the sender's.
    allowed(
        &with_node_port(&[("a", sender)], ""),
        &tcp("192.0.2.1", "10.43.0.6", 80),
    );
}

#[test]
fn the_sender_may_see_the_node_or_the_endpoint() {
    let to_pod =
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]";
    let to_node =
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.10.0.0/24}}]}]";
    let (own, other) = (
        tcp("b/client", "10.10.0.12", 30080),
        tcp("b/client", "10.10.0.11", 30080),
    );
    for (spec, at_own) in [(to_pod, true), (to_node, false)] {
        let cluster = with_node_port(&[("b", spec)], "");
        assert_eq!(cluster.evaluate(&own).is_allowed(), at_own);
        unknown(&cluster, &other, "the node's address or the endpoint's");
    }
    let neither = with_node_port(&[("b", "podSelector: {}, policyTypes: [Egress]")], "");
    denied(&neither, &own);
    denied(&neither, &other);
}

#[test]
fn k3s_lets_pods_reach_the_node_ports_of_their_own_node() {
    let cluster = base(&[("b", "podSelector: {}, policyTypes: [Egress]")]);
    let judged = |to: &str, port, profile| {
        let verdict = cluster.evaluate_as(&tcp("b/client", to, port), profile);
        (verdict.is_allowed(), verdict.egress.exemption)
    };
    for port in [30000, 32767] {
        assert_eq!(
            judged("10.10.0.12", port, Profile::K3S),
            (true, Some(Exemption::PodToOwnNodePort))
        );
        assert!(!judged("10.10.0.12", port, Profile::CALICO).0);
        assert!(!judged("10.10.0.12", port, Profile::K3S.without_exemptions()).0);
    }
    for (to, port) in [
        ("10.10.0.12", 29999),
        ("10.10.0.12", 32768),
        ("10.10.0.11", 30000),
    ] {
        assert!(!judged(to, port, Profile::K3S).0, "{to} {port}");
    }
}
