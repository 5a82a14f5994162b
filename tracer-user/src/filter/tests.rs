use super::*;

fn probe() -> Drop {
    serde_json::from_str(
        r#"{"time":"2026-11-23T10:01:02.123456789Z","node":"node-a","count":1,"direction":"ingress",
        "class":"kubelet-probe","source":{"ip":"10.42.1.1","port":40000,"kind":"node","node":"node-a"},
        "destination":{"ip":"10.42.1.10","port":8200,"kind":"pod","namespace":"vault","pod":"vault-0"},
        "protocol":"TCP","tcp_flags":["SYN"],"drop":{"reason":"TC_EGRESS","action":"drop"},
        "policy":{"verdict":"denied","grade":"proven","direction":"ingress",
        "isolating":[{"kind":"NetworkPolicy","namespace":"vault","name":"vault-policy"}]}}"#,
    )
    .unwrap()
}

fn pod(side: Side, pattern: &str) -> Condition {
    Condition::Pod(side, PodPattern::parse(pattern, None).unwrap())
}

#[test]
fn each_condition_matches_what_it_names_and_nothing_else() {
    let drop = probe();
    let cases = [
        (pod(Side::Either, "vault/vault-0"), true),
        (pod(Side::Either, "vault/vault-1"), false),
        (pod(Side::Either, "vault/"), true),
        (pod(Side::Either, "vault-*"), true),
        (pod(Side::Either, "other/vault-*"), false),
        (pod(Side::Source, "vault/vault-0"), false),
        (pod(Side::Destination, "vault/vault-0"), true),
        (Condition::Namespace("vault".into()), true),
        (Condition::Namespace("default".into()), false),
        (Condition::ip("10.42.1.0/24").unwrap(), true),
        (Condition::ip("10.42.1.1").unwrap(), true),
        (Condition::ip("10.42.2.1").unwrap(), false),
        (Condition::Port(8200), true),
        (Condition::Port(8201), false),
        (Condition::protocol("tcp").unwrap(), true),
        (Condition::protocol("6").unwrap(), true),
        (Condition::protocol("udp").unwrap(), false),
        (Condition::Class(crate::record::Class::KubeletProbe), true),
        (Condition::Class(crate::record::Class::Dns), false),
        (Condition::policy("vault/vault-policy").unwrap(), true),
        (Condition::policy("vault-policy").unwrap(), true),
        (Condition::policy("other/vault-policy").unwrap(), false),
        (Condition::Node("node-a".into()), true),
        (Condition::Node("node-b".into()), false),
        (Condition::reason("skb_drop_reason_tc_egress"), true),
        (Condition::reason("TC_INGRESS"), false),
        (
            Condition::Direction(crate::record::Direction::Ingress),
            true,
        ),
        (
            Condition::Direction(crate::record::Direction::Egress),
            false,
        ),
    ];
    for (condition, expected) in cases {
        assert_eq!(condition.matches(&drop), expected, "{condition:?}");
    }
}

#[test]
fn same_kind_widens_other_kind_narrows_and_negation_excludes() {
    let drop = probe();
    let mut filter = Filter::default();
    assert!(filter.passes(&drop), "no condition lets everything through");
    filter.push(Condition::Port(1), false);
    assert!(!filter.passes(&drop));
    filter.push(Condition::Port(8200), false);
    assert!(filter.passes(&drop), "one port of two is enough");
    filter.push(Condition::Node("node-a".into()), false);
    assert!(filter.passes(&drop));
    filter.push(Condition::reason("TC_EGRESS"), true);
    assert!(!filter.passes(&drop), "an excluded reason wins");
}

#[test]
fn values_that_do_not_fit_are_refused() {
    assert_eq!(Condition::ip("10.42"), Err(ParseError::Ip));
    assert_eq!(Condition::protocol("quic"), Err(ParseError::Protocol));
    assert_eq!(Condition::policy("a/b/c"), Err(ParseError::Policy));
    assert_eq!(Condition::policy("/b"), Err(ParseError::Policy));
    for bad in ["", "/x", "a/b/c", "a/*b"] {
        assert_eq!(
            PodPattern::parse(bad, None),
            Err(ParseError::Pod),
            "{bad:?}"
        );
    }
}
