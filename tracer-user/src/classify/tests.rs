use super::*;
use crate::decode::{Action, Icmp, TcpFlags};

fn flow(protocol: Protocol, icmp: Option<(u8, u8)>, flags: u8) -> Flow {
    Flow {
        source: "10.42.1.10".parse().unwrap(),
        destination: "192.0.2.1".parse().unwrap(),
        protocol,
        source_port: None,
        destination_port: None,
        tcp_flags: (protocol == Protocol::Tcp).then_some(TcpFlags(flags)),
        icmp: icmp.map(|(kind, code)| Icmp { kind, code }),
    }
}

#[test]
fn icmp_that_carries_errors_is_told_from_ping() {
    for (protocol, kind, control) in [
        (Protocol::Icmp, 8, false),
        (Protocol::Icmp, 0, false),
        (Protocol::Icmp, 3, true),
        (Protocol::Icmp, 11, true),
        (Protocol::Icmpv6, 128, false),
        (Protocol::Icmpv6, 2, true),
        (Protocol::Icmpv6, 135, true),
        (Protocol::Icmpv6, 3, true),
    ] {
        assert_eq!(
            is_control(&flow(protocol, Some((kind, 0)), 0)),
            control,
            "{protocol} {kind}"
        );
    }
}

#[test]
fn symptoms_are_the_words_people_search_for() {
    let reject = |kind, code| Some(Action::RejectIcmp(Icmp { kind, code }));
    let syn = flow(Protocol::Tcp, None, 2);
    let established = flow(Protocol::Tcp, None, 16);
    let api = Some(Class::ApiserverEgress);
    for (flow, action, class, expected) in [
        (&syn, None, None, "i/o timeout"),
        (&syn, Some(Action::Drop), None, "i/o timeout"),
        (&syn, reject(3, 3), None, "connection refused"),
        (&syn, reject(3, 13), None, "no route to host"),
        (&syn, reject(3, 0), None, "network is unreachable"),
        (&syn, reject(1, 4), None, "connection refused"),
        (&syn, reject(1, 1), None, "permission denied"),
        (
            &syn,
            Some(Action::RejectTcpReset),
            None,
            "connection refused",
        ),
        (
            &established,
            Some(Action::RejectTcpReset),
            None,
            "connection reset by peer",
        ),
        (
            &established,
            Some(Action::Drop),
            api,
            "net/http: TLS handshake timeout",
        ),
        (
            &flow(Protocol::Udp, None, 0),
            None,
            Some(Class::Dns),
            "lookup fails: i/o timeout",
        ),
        (
            &flow(Protocol::Udp, None, 0),
            reject(3, 3),
            Some(Class::Dns),
            "lookup fails: connection refused",
        ),
        (
            &flow(Protocol::Udp, None, 0),
            reject(3, 3),
            None,
            "connection refused",
        ),
        (
            &flow(Protocol::Icmp, Some((8, 0)), 0),
            None,
            None,
            "ping: 100% packet loss",
        ),
    ] {
        assert_eq!(
            symptom(flow, action, class, None).as_deref(),
            Some(expected),
            "{action:?}"
        );
    }
    assert_eq!(
        symptom(
            &flow(Protocol::Icmpv6, Some((135, 0)), 0),
            None,
            Some(Class::IcmpControl),
            None
        ),
        Some("IPv6 neighbours are not found: no route to host".to_owned())
    );
    assert_eq!(
        symptom(&flow(Protocol::Other(47), None, 0), None, None, None),
        None
    );
}

#[test]
fn each_class_has_its_section_in_the_docs() {
    let page = include_str!("../../../docs/classes.md");
    let sections: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    for class in Class::ALL {
        assert!(sections.contains(&class.as_str()), "{}", class.as_str());
    }
    assert_eq!(sections.len(), Class::ALL.len());
}
