use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::record::{Class, Direction, PeerKind, PolicyVerdict};
use crate::report::key::Party;

fn probe() -> Drop {
    serde_json::from_str(include_str!("../../../tests/data/probe.json")).unwrap()
}

fn after(drop: &Drop, seconds: i64) -> Drop {
    Drop {
        time: drop.time + SignedDuration::from_secs(seconds),
        ..drop.clone()
    }
}

fn aggregate<'a>(drops: impl IntoIterator<Item = &'a Drop>) -> Aggregate {
    let mut all = Aggregate::default();
    for drop in drops {
        all.add(drop, None);
    }
    all
}

#[test]
fn drops_of_one_kind_are_one_finding_whatever_pod_node_and_source_port_they_had() {
    let first = probe();
    let mut second = after(&first, 5);
    second.node = "node-b".into();
    second.count = 4;
    let source = second.source.as_mut().unwrap();
    source.ip = "10.42.2.1".parse().unwrap();
    source.port = Some(40001);
    source.node = Some("node-b".into());
    second.destination.as_mut().unwrap().pod = Some("vault-1".into());
    // The latest comes first: files of several nodes are one after the other.
    let all = aggregate([&second, &first]);
    let findings = all.findings();
    assert_eq!(findings.len(), 1);
    let finding = &findings[0];
    assert_eq!((finding.packets, all.packets, all.lines), (5, 5, 2));
    assert_eq!((finding.first, finding.last), (first.time, second.time));
    assert_eq!(all.span, Some((first.time, second.time)));
    assert_eq!(all.flows(), (2, false));
    assert_eq!(finding.clients.iter().count(), 2);
    assert_eq!(all.nodes.iter().collect::<Vec<_>>(), ["node-b", "node-a"]);
    let pods: Vec<_> = finding.pods.iter().map(|(_, pod)| pod.as_str()).collect();
    assert_eq!(pods, ["vault-1", "vault-0"]);
    assert_eq!(
        (&finding.key.client, &finding.key.server, finding.key.port),
        (
            &Party::Nodes,
            &Party::Workload("vault".into(), "vault".into()),
            Some(8200)
        )
    );
}

#[test]
fn class_side_peer_port_protocol_verdict_and_policies_make_another_finding() {
    let base = probe();
    let change = |change: &dyn Fn(&mut Drop)| {
        let mut drop = base.clone();
        change(&mut drop);
        drop
    };
    let others = [
        change(&|drop| drop.class = Some(Class::NodeToPod)),
        change(&|drop| drop.class = None),
        change(&|drop| drop.direction = Some(Direction::Egress)),
        change(&|drop| drop.destination.as_mut().unwrap().workload = Some("other".into())),
        change(&|drop| drop.source.as_mut().unwrap().kind = PeerKind::External),
        change(&|drop| drop.destination.as_mut().unwrap().port = Some(8201)),
        change(&|drop| drop.protocol = Some("UDP".into())),
        change(&|drop| drop.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed),
        change(&|drop| drop.policy.as_mut().unwrap().isolating[0].name = "other".into()),
        change(&|drop| drop.policy = None),
    ];
    let all = aggregate(others.iter().chain([&base]));
    assert_eq!(all.findings().len(), others.len() + 1);
}

#[test]
fn an_answer_is_told_by_who_opened_the_connection() {
    let mut answer = probe();
    std::mem::swap(&mut answer.source, &mut answer.destination);
    answer.tcp_flags = Some(vec!["SYN".into(), "ACK".into()]);
    answer.direction = Some(Direction::Egress);
    let all = aggregate([&answer]);
    let finding = &all.findings()[0];
    assert!(finding.key.answer && finding.key.befell_server());
    assert_eq!(finding.key.client, Party::Nodes);
    assert_eq!(finding.key.port, Some(8200));
}

#[test]
fn a_disagreement_comes_first_and_a_race_last() {
    let denied = probe();
    let mut disagreement = probe();
    disagreement.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed;
    let mut race = disagreement.clone();
    race.class = Some(Class::PolicyRace);
    race.count = 1000;
    let mut unasked = probe();
    unasked.policy = None;
    unasked.count = 500;
    let mut nodes = unasked.clone();
    nodes.destination.as_mut().unwrap().kind = PeerKind::Node;
    let all = aggregate([&race, &nodes, &unasked, &denied, &disagreement]);
    let order: Vec<_> = all.findings().iter().map(|one| one.key.standing).collect();
    assert_eq!(
        order,
        [
            Standing::Disagreement,
            Standing::Denied,
            Standing::Unasked,
            Standing::NoPod,
            Standing::Passing
        ]
    );
}

#[test]
fn findings_stay_bounded_and_a_disagreement_is_never_folded_away() {
    let mut base = probe();
    base.class = Some(Class::External);
    let many = u32::try_from(FINDINGS).unwrap() * 3;
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/incident.yaml");
    let cluster = crate::cluster::load(data.as_ref()).unwrap().cluster;
    let mut all = Aggregate::default();
    for number in 0..many {
        let mut drop = after(&base, i64::from(number));
        let source = drop.source.as_mut().unwrap();
        source.kind = PeerKind::External;
        source.ip = std::net::Ipv4Addr::from(0xcb00_0000 + number).into();
        all.add(&drop, Some(&cluster));
    }
    let mut disagreement = base.clone();
    disagreement.policy.as_mut().unwrap().verdict = PolicyVerdict::Allowed;
    all.add(&disagreement, Some(&cluster));
    let findings = all.findings();
    assert_eq!(findings.len(), FINDINGS + 2);
    let packets: u64 = findings.iter().map(|one| one.packets).sum();
    assert_eq!(packets, u64::from(many) + 1);
    assert_eq!(findings[0].key.standing, Standing::Disagreement);
    // What a scan was aimed at is still known.
    let folded = findings.iter().find(|one| one.packets > 1).unwrap();
    assert_eq!(folded.key.client, Party::Various);
    let vault = Party::Workload("vault".into(), "vault".into());
    assert_eq!(folded.key.server, vault);
    assert!(folded.folded && !folded.key.policies.is_empty());
    assert_eq!(folded.packets, u64::from(many) - FINDINGS as u64);
    assert_eq!(all.to_fix.as_slice().len(), TO_FIX);
    assert!(all.more_to_fix);
    // No policy stopped that one.
    assert_eq!(all.incurable.len(), 1);
}

#[test]
fn names_without_end_are_folded_too() {
    let mut all = Aggregate::default();
    let most = FINDINGS + WITHOUT_ADDRESSES;
    for number in 0..2 * most {
        let mut drop = probe();
        drop.destination.as_mut().unwrap().workload = Some(format!("w{number}"));
        all.add(&drop, None);
    }
    let findings = all.findings();
    assert_eq!(findings.len(), most + 1);
    assert_eq!(findings[0].packets, most as u64);
    assert_eq!(findings[0].key.server, Party::Various);
}

#[test]
fn a_change_is_told_once_and_counts_do_not_overflow() {
    let mut drop = probe();
    drop.count = u64::MAX;
    drop.policy.as_mut().unwrap().change = Some(crate::record::PolicyChange {
        policy: "vault/vault-policy".into(),
        time: Timestamp::UNIX_EPOCH,
        by: Some("kubectl".into()),
        created: true,
    });
    let all = aggregate([&drop, &drop]);
    assert_eq!(all.changes.len(), 1);
    assert_eq!(all.packets, u64::MAX);
}
