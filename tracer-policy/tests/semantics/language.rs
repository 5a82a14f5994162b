//! What a policy says: types, selectors, blocks and ports.

use super::*;

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
