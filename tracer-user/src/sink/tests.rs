use super::*;
use crate::record::{CarrierKind, Inner, Peer, ProgramInfo};
use jiff::tz::TimeZone;

fn probe() -> Drop {
    serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap()
}

fn written(sink: impl FnOnce(&mut Vec<u8>, &Drop), drop: &Drop) -> String {
    let mut out = Vec::new();
    sink(&mut out, drop);
    anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
}

fn compact(drop: &Drop, width: usize) -> String {
    written(
        |out, drop| {
            Compact::new(out, width, TimeZone::UTC)
                .accept(drop, None)
                .unwrap();
        },
        drop,
    )
}

#[test]
fn json_is_the_record_back_again_in_one_line() {
    let line = written(
        |out, drop| Json::new(out).accept(drop, None).unwrap(),
        &probe(),
    );
    assert_eq!(line.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Drop>(&line).unwrap(), probe());
    assert!(
        line.starts_with(r#"{"time":"2026-11-23T10:01:02.123456789Z","node":"node-a","#),
        "{line}"
    );
}

#[test]
fn compact_says_who_whom_what_class_policy_and_cure() {
    insta::assert_snapshot!(compact(&probe(), 100));
    for line in compact(&probe(), 100).lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn compact_keeps_one_line_where_there_is_room() {
    assert_eq!(compact(&probe(), 200).lines().count(), 1);
}

#[test]
fn compact_names_a_disagreement_and_a_reject() {
    let mut drop = probe();
    drop.count = 7;
    drop.drop.action = Some(crate::record::DropAction::Reject);
    drop.policy.as_mut().unwrap().verdict = crate::record::PolicyVerdict::Allowed;
    let text = compact(&drop, 200);
    assert!(text.contains("REJECT in"), "{text}");
    assert!(text.contains("×7"), "{text}");
    assert!(text.contains("policies allow it!"), "{text}");
}

#[test]
fn compact_names_the_process_and_the_service_it_was_sent_by() {
    let mut drop = probe();
    drop.source.as_mut().unwrap().process = Some(crate::record::ProcessInfo {
        pid: 812,
        name: "kubelet".to_owned(),
    });
    let end = drop.destination.as_mut().unwrap();
    end.original = Some(crate::record::Endpoint {
        ip: "10.43.0.9".parse().unwrap(),
        port: 443,
    });
    let ends = "node-a(10.42.1.1) [kubelet] → vault/vault-0:8200 (by 10.43.0.9:443) TCP";
    assert!(compact(&drop, 200).contains(ends));
    drop.destination.as_mut().unwrap().service = Some(crate::record::ServiceInfo {
        namespace: "vault".to_owned(),
        name: "active".to_owned(),
        ip: "10.43.0.9".parse().unwrap(),
        port: 443,
    });
    assert!(compact(&drop, 200).contains("vault/vault-0:8200 (by vault/active:443) TCP"));
}

#[test]
fn compact_says_what_a_packet_carries() {
    let mut drop = probe();
    let end = |peer: &Option<Peer>| peer.clone().unwrap();
    drop.inner = Some(Box::new(Inner {
        carrier: CarrierKind::Vxlan,
        vni: Some(7),
        source: end(&drop.source),
        destination: end(&drop.destination),
        protocol: "TCP".to_owned(),
    }));
    let text = compact(&drop, 200);
    assert!(
        text.ends_with("· carries node-a(10.42.1.1) → vault/vault-0:8200 TCP (VXLAN 7)\n"),
        "{text}"
    );
    drop.inner.as_mut().unwrap().carrier = CarrierKind::IcmpError;
    let text = compact(&drop, 200);
    assert!(text.contains("· an error about node-a"), "{text}");
}

#[test]
fn whose_rules_dropped_it_is_named_with_what_says_so() {
    let mut drop = probe();
    assert!(!compact(&drop, 200).contains("dropped by"));
    drop.drop.candidates = vec!["kube-router".to_owned(), "ufw".to_owned()];
    let text = compact(&drop, 200);
    assert!(
        text.ends_with("· dropped by one of kube-router, ufw\n"),
        "{text}"
    );
    drop.drop.enforcer = Some("calico-ebpf".to_owned());
    drop.drop.evidence = vec!["program cali_tc_main".to_owned()];
    let text = compact(&drop, 200);
    assert!(
        text.ends_with("· dropped by calico-ebpf (program cali_tc_main)\n"),
        "{text}"
    );
    let name = Some("mine".to_owned());
    drop.drop.programs = vec![ProgramInfo { id: 7, name }];
    let text = written(
        |out, drop| Wide::new(out).accept(drop, None).unwrap(),
        &drop,
    );
    assert!(text.contains("tc egress (mine)"), "{text}");
}

#[test]
fn wide_has_a_header_once() {
    let text = written(
        |out, drop| {
            let mut wide = Wide::new(out);
            wide.accept(drop, None).unwrap();
            wide.accept(drop, None).unwrap();
        },
        &probe(),
    );
    assert_eq!(text.lines().count(), 3);
    insta::assert_snapshot!(text);
}
