use tracer_policy::model::Protocol;

use super::*;
use crate::decode::{Chain, DropReason, Flow, Icmp, Location, Story};

const UNREACHABLE: Action = Action::RejectIcmp(Icmp { kind: 3, code: 3 });

fn raw(chain: &str, action: Action) -> RawDrop {
    RawDrop {
        ktime_ns: 0,
        count: 1,
        reason: DropReason {
            number: 1,
            name: "NETFILTER_DROP".to_owned(),
        },
        location: Location {
            address: 1,
            symbol: Some("nf_hook_slow+0x7d".to_owned()),
        },
        hook: Some(Hook::Netfilter),
        action: Some(action),
        interface: None,
        netns: None,
        mark: 0,
        length: 60,
        flow: Some(Flow {
            source: [10, 42, 0, 9].into(),
            destination: [10, 42, 1, 10].into(),
            protocol: Protocol::Tcp,
            source_port: Some(40_000),
            destination_port: Some(8200),
            tcp_flags: None,
            icmp: None,
        }),
        inner: None,
        packet: bytes::Bytes::new(),
        story: Story {
            chain: Chain::from_name(chain),
            tracked: Some(true),
            ..Story::default()
        },
    }
}

fn dropper(backend: Backend, table: &str, chain: &str, how: &str) -> Dropper {
    let (owner, sign) = Owner::of_chain(backend, Family::Ip, table, chain, []);
    Dropper {
        family: Family::Ip,
        point: Point::Forward,
        backend,
        owner,
        sign,
        falls: Falls {
            silent: how.contains("silent"),
            icmp: how.contains("icmp"),
            reset: how.contains("reset"),
            invalid: how.contains("invalid"),
        },
    }
}

/// A K3s node: kube-router, kube-proxy, and the kubelet's chain.
fn k3s() -> Vec<Dropper> {
    let filter = |chain, how| dropper(Backend::Nft, "filter", chain, how);
    vec![
        filter("KUBE-POD-FW-ABC", "icmp invalid"),
        filter("KUBE-FORWARD", "invalid"),
        filter("KUBE-FIREWALL", "silent"),
    ]
}

fn names(raw: &RawDrop, droppers: &[Dropper]) -> Vec<&'static str> {
    let judged = judge(raw, &[], droppers);
    judged.owners.into_iter().map(Owner::as_str).collect()
}

#[test]
fn chains_and_tables_are_known_by_the_names_that_projects_give_them() {
    for (table, chain, owner) in [
        ("filter", "KUBE-POD-FW-YDNQ7FXTCU3EUAQ3", "kube-router"),
        ("filter", "KUBE-NWPLCY-6Q7HNZSYVZZBOEAN", "kube-router"),
        ("filter", "KUBE-ROUTER-FORWARD", "kube-router"),
        ("filter", "KUBE-FORWARD", "kube-proxy"),
        ("filter", "cali-tw-cali1a2b3c4d5e6", "calico-iptables"),
        (
            "calico",
            "filter-cali-tw-cali1a2b3c4d5e6",
            "calico-nftables",
        ),
        ("filter", "CILIUM_FORWARD", "cilium"),
        ("filter", "ufw-user-input", "ufw"),
        ("firewalld", "filter_IN_public", "firewalld"),
        ("filter", "DOCKER-ISOLATION-STAGE-2", "docker"),
        ("filter", "INPUT", "host-firewall"),
        ("mine", "input", "host-firewall"),
    ] {
        let (found, _) = Owner::of_chain(Backend::Nft, Family::Inet, table, chain, []);
        assert_eq!(found.as_str(), owner, "{table} {chain}");
    }
    // Policies that drop what ufw's chains do not let through are ufw's.
    let input = |calls: &[&'static str]| {
        Owner::of_chain(
            Backend::Nft,
            Family::Ip,
            "filter",
            "INPUT",
            calls.iter().copied(),
        )
        .0
    };
    assert_eq!(input(&["ufw-before-input"]), Owner::Ufw);
    assert_eq!(input(&["KUBE-ROUTER-INPUT"]), Owner::HostFirewall);
    // No table of x_tables is anybody's by its name.
    let legacy = Owner::of_chain(Backend::Legacy, Family::Ip, "calico", "INPUT", []).0;
    assert_eq!(legacy, Owner::HostFirewall);
}

#[test]
fn the_only_one_that_can_have_been_it_is_named_with_what_says_so() {
    let mut reject = raw("FORWARD", UNREACHABLE);
    reject.mark = 0x2_0000;
    let judged = judge(&reject, &[], &k3s());
    assert_eq!(judged.owners, [Owner::KubeRouter]);
    assert_eq!(
        judged.evidence,
        ["chains KUBE-POD-FW-*", "it rejects by ICMP", "mark 0x20000"]
    );
    // Its answers are limited in their rate, and nobody else drops what conntrack knows.
    assert_eq!(
        names(&raw("FORWARD", Action::Drop), &k3s()),
        ["kube-router"]
    );
}

#[test]
fn where_more_are_left_none_is_chosen() {
    let mut droppers = k3s();
    droppers.push(dropper(
        Backend::Legacy,
        "filter",
        "ufw-user-forward",
        "silent",
    ));
    let silent = raw("FORWARD", Action::Drop);
    assert_eq!(names(&silent, &droppers), ["kube-router", "ufw"]);
    assert_eq!(judge(&silent, &[], &droppers).evidence, [""; 0]);
    // What rejects is not ufw's, and what `nft_do_chain` frees is not of x_tables.
    assert_eq!(
        names(&raw("FORWARD", UNREACHABLE), &droppers),
        ["kube-router"]
    );
    let mut freed = silent;
    freed.location.symbol = Some("nft_do_chain+0x3e8".to_owned());
    assert_eq!(names(&freed, &droppers), ["kube-router"]);
}

#[test]
fn invalid_packets_may_have_been_dropped_by_rules_for_them() {
    let mut invalid = raw("FORWARD", Action::Drop);
    invalid.story.tracked = Some(false);
    assert_eq!(names(&invalid, &k3s()), ["kube-router", "kube-proxy"]);
}

#[test]
fn the_kubelets_rule_is_for_marked_packets_and_loopback_addresses() {
    let kubelet = [dropper(Backend::Nft, "filter", "KUBE-FIREWALL", "silent")];
    let mut drop = raw("FORWARD", Action::Drop);
    assert_eq!(names(&drop, &kubelet), [""; 0]);
    drop.mark = 0x8000;
    assert_eq!(names(&drop, &kubelet), ["kube-proxy"]);
    drop.mark = 0;
    drop.flow.as_mut().unwrap().destination = [127, 0, 0, 1].into();
    assert_eq!(names(&drop, &kubelet), ["kube-proxy"]);
}

#[test]
fn rules_of_other_hooks_and_families_are_not_asked() {
    let other = dropper(Backend::Nft, "filter", "INPUT", "silent");
    assert_eq!(
        names(&raw("FORWARD", Action::Drop), std::slice::from_ref(&other)),
        ["host-firewall"]
    );
    assert_eq!(
        names(&raw("INPUT", Action::Drop), std::slice::from_ref(&other)),
        [""; 0]
    );
    let six = Dropper {
        family: Family::Ip6,
        ..other
    };
    assert_eq!(names(&raw("FORWARD", Action::Drop), &[six]), [""; 0]);
}

#[test]
fn at_tc_the_programs_names_tell() {
    let program = |name: &str| ProgramInfo {
        id: 7,
        name: Some(name.to_owned()),
    };
    let mut drop = raw("FORWARD", Action::Drop);
    drop.hook = Some(Hook::TcEgress);
    let whose = |programs: &[ProgramInfo]| {
        let judged = judge(&drop, programs, &k3s());
        (judged.owners, judged.evidence)
    };
    assert_eq!(
        whose(&[program("mine"), program("cali_tc_main")]),
        (
            vec![Owner::CalicoEbpf],
            vec!["program cali_tc_main".to_owned()]
        )
    );
    assert_eq!(whose(&[program("cil_to_container")]).0, [Owner::Cilium]);
    assert_eq!(whose(&[program("mine")]).0, []);
    let both = whose(&[program("cali_tc_main"), program("cil_from_netdev")]);
    assert_eq!(both.0.len(), 2);
}
