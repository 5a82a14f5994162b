//! The kernel side alone, on the running kernel: a drop made in a network namespace of the test's own
//! is seen, once, whole; a packet that is let through is not.
//!
//! Most of it on a stage of its own, a loopback and two rules; the lab's for what needs an eBPF
//! program at tc.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod hooks;
mod pages;
mod queue;
mod stage;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use lab::enforcer::{self as forwarding, Attach, Backend, Enforcer, Tc, Verdict};
use lab::plan::{Family, Wiring, api_server};
use lab::traffic::udp_send;
use lab::{BROKEN_POLICY, Lab, Netns, Policies, kernel};
use stage::{
    Lazily, PACKETS, Rule, arrives, capture, capture_in, capture_lazily, packets, possible,
    wait_until,
};
use tracer::decode::{Action, Hook, Icmp, RawDrop};
use tracer::kernel::{BtfError, Capture, Error, Flavour, Options, Reasons};
use tracer_common::COARSE_NS;
use tracer_policy::model::Protocol;

/// Packets of drops that belong to one flow: the first comes alone and with its bytes, the others are
/// counted and come without.
fn folded<'a>(drops: impl IntoIterator<Item = &'a RawDrop>) -> u64 {
    let drops: Vec<_> = drops.into_iter().collect();
    for (index, drop) in drops.iter().enumerate() {
        assert_eq!(drop.packet.is_empty(), index > 0, "{drops:#?}");
        assert!(index > 0 || drop.count == 1, "{drops:#?}");
    }
    drops.iter().map(|drop| drop.count).sum()
}

#[test]
fn an_nft_drop_on_input_is_seen_once_and_whole_and_an_accept_is_not() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    for flavour in [Flavour::Btf, Flavour::Raw] {
        nft_drop_on_input(flavour);
    }
}

fn nft_drop_on_input(flavour: Flavour) {
    let options = Options {
        flavour: Some(flavour),
        ..Options::default()
    };
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let answers = Capture::start(&options).expect("a capture").hooks().answers;
    let work = move || {
        let rule = Rule::install("input", "udp dport 4444 meta mark set 0x2a", "drop");
        arrives(localhost, 5555);
        rule.stops(localhost, 4444)
    };
    let (drops, counters, from) = capture(&options, work, packets(PACKETS.into()));
    assert_eq!(
        folded(&drops),
        u64::from(PACKETS),
        "{counters:?} {drops:#?}"
    );
    for drop in &drops {
        assert_eq!(drop.reason.name, kernel::reason("NETFILTER_DROP"));
        assert_eq!(drop.hook, Some(Hook::Netfilter));
        // Netfilter answers a datagram by ICMP only: where that would have been heard, nobody was told.
        assert_eq!(drop.action, answers.icmp.then_some(Action::Drop));
        assert_eq!(drop.mark, 0x2a);
        assert_eq!(drop.interface, Some((1, "lo".to_owned())));
        assert_eq!(drop.length, 20 + 8 + 12);
        let flow = drop.flow.expect("a flow");
        assert_eq!((flow.source, flow.destination), (localhost, localhost));
        assert_eq!(flow.protocol, Protocol::Udp);
        assert_eq!(flow.source_port, Some(from.port()));
        assert_eq!(flow.destination_port, Some(4444));
        let symbol = drop.location.symbol.as_deref().expect("a symbol");
        // Older kernels, such as 6.1, free it in netfilter's core.
        let frees = ["nft_do_chain+0x", "nf_hook_slow+0x"];
        assert!(frees.iter().any(|at| symbol.starts_with(at)), "{symbol}");
    }
    assert_eq!(drops[0].packet.len(), 40);
    assert!(drops[0].packet.ends_with(b"twelve bytes"));
    // Repeats' time is read once a tick.
    assert!(
        drops.is_sorted_by(|earlier, later| earlier.ktime_ns <= later.ktime_ns + COARSE_NS),
        "{drops:#?}"
    );
}

#[test]
fn an_nft_drop_on_output_has_the_interface_of_its_route() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    for flavour in [Flavour::Btf, Flavour::Raw] {
        nft_drop_on_output(flavour);
    }
}

fn nft_drop_on_output(flavour: Flavour) {
    let options = Options {
        flavour: Some(flavour),
        ..Options::default()
    };
    let localhost = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let work = move || Rule::install("output", "udp dport 4444", "drop").stops(localhost, 4444);
    let (drops, counters, from) = capture(&options, work, packets(PACKETS.into()));
    assert_eq!(
        folded(&drops),
        u64::from(PACKETS),
        "{counters:?} {drops:#?}"
    );
    for drop in &drops {
        assert_eq!(drop.interface, Some((1, "lo".to_owned())));
        assert_eq!(drop.length, 40 + 8 + 12);
        let flow = drop.flow.expect("a flow");
        assert_eq!((flow.source, flow.destination), (localhost, localhost));
        assert_eq!(flow.source_port, Some(from.port()));
        assert_eq!(flow.destination_port, Some(4444));
    }
}

#[test]
fn a_reject_is_told_from_a_drop_where_the_kernel_answers() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let capturing = Capture::start(&Options::default()).expect("a capture");
    let heard = capturing.hooks().answers.icmp;
    drop(capturing);
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let work = move || {
        let verdict = "reject with icmp type admin-prohibited";
        Rule::install("input", "udp dport 4444", verdict).stops(localhost, 4444)
    };
    let (drops, counters, _) = capture(&Options::default(), work, packets(PACKETS.into()));
    let counted: u64 = drops.iter().map(|drop| drop.count).sum();
    assert_eq!(counted, u64::from(PACKETS), "{counters:?} {drops:#?}");
    let replies: Vec<_> = drops
        .iter()
        .filter_map(|drop| match drop.action {
            Some(Action::RejectIcmp(reply)) => Some(reply),
            _ => None,
        })
        .collect();
    for reply in &replies {
        assert_eq!(*reply, Icmp { kind: 3, code: 13 });
    }
    // The kernel limits its ICMP rate: not every sender is told, the first one is.
    assert_eq!(!replies.is_empty(), heard, "{drops:#?}");
}

/// The kernel tells a sender of a shorter way, and sends the packet on: what drops it then says nothing.
#[test]
fn a_redirect_is_no_reject() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let lab = Lab::without_servers(Wiring::Bridge).expect("a lab");
    let work = || {
        let mut pods = lab.local_pods();
        let [from, to] = [(); 2].map(|()| pods.next().expect("a pod"));
        let to = to.addresses().v4;
        let default = from.netns().run("ip", &["route", "show", "default"]);
        let default = default
            .expect("a route")
            .replace("default", &to.to_string());
        let mut route = vec!["route", "replace"];
        route.extend(default.split_whitespace());
        from.netns().run("ip", &route).expect("a longer way");
        let node = lab.node();
        node.sysctl("net.ipv4.conf.all.send_redirects", "1")
            .expect("redirects");
        let rule = forwarding::Rule {
            backend: Backend::Nftables,
            hook: forwarding::Hook::Forward,
            protocol: Protocol::Udp,
            source: None,
            destination: to.into(),
            port: Some(4444),
            verdict: Verdict::Drop,
        };
        let rule = rule.install(node).expect("a rule");
        udp_send(
            from.netns(),
            (to, 4444).into(),
            PACKETS.into(),
            b"twelve bytes",
        )
        .expect("packets");
        wait_until(|| rule.packets().expect("its counter") >= PACKETS.into());
        assert_ne!(redirects(node), 0);
        (
            u32::try_from(node.inode().expect("an inode")).expect("32 bits"),
            (),
        )
    };
    // The kernel's NAT drops the redirect itself, as the connection it is about is not translated yet.
    let is_about = |drop: &&RawDrop| drop.flow.is_some_and(|flow| flow.protocol == Protocol::Udp);
    let enough = |drops: &[RawDrop], _| {
        let about = drops.iter().filter(is_about);
        about.map(|drop| drop.count).sum::<u64>() >= PACKETS.into()
    };
    let (drops, counters, ()) = capture_in(&Options::default(), work, enough);
    let drops: Vec<_> = drops.iter().filter(is_about).collect();
    assert_eq!(
        folded(drops.iter().copied()),
        u64::from(PACKETS),
        "{counters:?}"
    );
    for drop in drops {
        assert!(
            matches!(drop.action, None | Some(Action::Drop)),
            "{drop:#?}"
        );
    }
}

/// ICMP redirects that a node has sent.
fn redirects(node: &Netns) -> u64 {
    let snmp = node.run("cat", &["/proc/net/snmp"]).expect("counters");
    let mut icmp = snmp.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let [names, values] = [(); 2].map(|()| icmp.next().expect("ICMP's").split(' '));
    let sent = names.zip(values).find(|(name, _)| *name == "OutRedirects");
    sent.expect("redirects").1.parse().expect("a number")
}

/// At tc a packet's data begins at its link-layer header; lengths and bytes begin at the network's.
#[test]
fn a_tc_drop_is_a_drop_for_certain_and_begins_at_the_network_header() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let lab = Lab::new(Wiring::Routed).expect("a lab");
    for attach in [Attach::Tcx, Attach::Clsact] {
        if !attach.is_here() {
            continue;
        }
        let mut tc = Tc::new(attach);
        let policies = Policies::parse(BROKEN_POLICY).expect("policies");
        tc.install(&lab, &policies).expect("an enforcer");
        tc_drops(&lab, &tc, Family::V4, Flavour::Btf);
        tc_drops(&lab, &tc, Family::V6, Flavour::Raw);
    }
}

fn tc_drops(lab: &Lab, tc: &Tc, family: Family, flavour: Flavour) {
    let options = Options {
        flavour: Some(flavour),
        ..Options::default()
    };
    let work = move || {
        let before = tc.dropped_by_direction().expect("the enforcer's counts");
        let node = u32::try_from(lab.node().inode().expect("an inode")).expect("32 bits");
        let pod = lab.pod("vault-0");
        let to = SocketAddr::new(lab.vault("vault-0", family).ip(), 4444);
        let out = SocketAddr::new(api_server(family).ip(), 4444);
        udp_send(lab.node(), to, PACKETS.into(), b"twelve bytes").expect("packets");
        udp_send(pod.netns(), out, PACKETS.into(), b"twelve bytes").expect("packets");
        let each = u64::from(PACKETS);
        let dropped = || {
            let now = tc.dropped_by_direction().expect("the enforcer's counts");
            (now.0 - before.0, now.1 - before.1)
        };
        wait_until(|| dropped().0 >= each && dropped().1 >= each);
        assert_eq!(dropped(), (each, each));
        (node, (to, out, pod.host_interface().to_owned()))
    };
    let (drops, counters, (to, out, interface)) =
        capture_in(&options, work, packets(2 * u64::from(PACKETS)));
    let ip = if family == Family::V4 { 20 } else { 40 };
    for (hook, destination) in [(Hook::TcEgress, to), (Hook::TcIngress, out)] {
        let drops: Vec<_> = drops
            .iter()
            .filter(|drop| drop.hook == Some(hook))
            .collect();
        assert_eq!(
            folded(drops.iter().copied()),
            u64::from(PACKETS),
            "{hook:?}: {counters:?}"
        );
        assert_eq!(drops[0].packet.len(), drops[0].length as usize);
        assert!(drops[0].packet.ends_with(b"twelve bytes"));
        for drop in drops {
            assert_eq!(drop.action, Some(Action::Drop));
            assert_eq!(drop.length, ip + 8 + 12, "{hook:?}");
            let flow = drop.flow.expect("a flow");
            assert_eq!(flow.destination, destination.ip());
            assert_eq!(flow.destination_port, Some(4444));
            assert_eq!(
                drop.interface.as_ref().map(|(_, name)| name),
                Some(&interface)
            );
        }
    }
}

#[test]
fn reasons_nobody_asked_for_stay_in_the_kernel_and_all_takes_them() {
    if !possible(&["ip"]) {
        return;
    }
    let nobody_listens = || {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a sender");
        drop(sender.send_to(b"x", "127.0.0.1:4444"));
    };
    let (drops, counters, ()) = capture(&Options::default(), nobody_listens, |_, counters| {
        counters.ignored > 0
    });
    assert_eq!(drops, []);
    assert!(counters.ignored > 0, "{counters:?}");

    let named = kernel::has_reasons().then_some("NO_SOCKET");
    for text in ["all"].into_iter().chain(named) {
        let options = Options {
            reasons: text.parse::<Reasons>().expect("reasons"),
            ..Options::default()
        };
        let unheard = |drops: &[RawDrop]| {
            let name = kernel::reason("NO_SOCKET");
            let unheard = drops.iter().filter(|drop| drop.reason.name == name);
            unheard.map(|drop| drop.count).sum::<u64>()
        };
        let (drops, counters, ()) =
            capture(&options, nobody_listens, |drops, _| unheard(drops) > 0);
        assert_eq!(unheard(&drops), 1, "{counters:?} {drops:#?}");
    }
}

#[test]
fn without_privilege_the_capabilities_are_named() {
    if !possible(&[]) {
        return;
    }
    // Capabilities are a thread's own.
    let error = thread::spawn(|| {
        caps::clear(None, caps::CapSet::Effective).expect("fewer capabilities");
        Capture::start(&Options::default()).err()
    })
    .join()
    .expect("the thread")
    .expect("an error");
    let Error::NoPrivilege { missing, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(missing, &["CAP_BPF", "CAP_PERFMON"]);
    assert_eq!(
        error.to_string(),
        "no privilege to load eBPF programs: CAP_BPF and CAP_PERFMON missing; run as root, or grant \
         the capabilities"
    );
}

#[test]
fn a_btf_file_that_is_none_is_named() {
    let missing = Options {
        btf: Some("/nonexistent/vmlinux.btf".into()),
        ..Options::default()
    };
    match Capture::start(&missing).err() {
        Some(error @ Error::Btf(BtfError::Unreadable { .. })) => {
            assert!(error.to_string().contains("/nonexistent/vmlinux.btf"));
        }
        // Built without the programs.
        Some(Error::LeftOut) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_reason_is_named_with_its_neighbours() {
    // Where there are no reasons, none is unknown.
    if !possible(&[]) || !kernel::has_reasons() {
        return;
    }
    let options = Options {
        reasons: Reasons::Named(vec!["NETFILTER_DRP".to_owned()]),
        ..Options::default()
    };
    let error = Capture::start(&options).err().expect("an error");
    assert_eq!(
        error.to_string(),
        "this kernel has no drop reason `NETFILTER_DRP`; did you mean NETFILTER_DROP?"
    );
}

/// So small a table that most flows find no room, so small a ring that most first packets do not either.
#[test]
fn a_full_table_and_a_full_ring_cost_details_but_no_count() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    for flows in [16, 16_384] {
        let options = Options {
            flows,
            ring_bytes: 0,
            ..Options::default()
        };
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let Lazily {
            drops,
            counters,
            strangers,
            result: dropped,
        } = capture_lazily(&options, move || {
            let rule = Rule::install("input", "udp dport 10000-19999", "drop");
            let sender = UdpSocket::bind((localhost, 0)).expect("a sender");
            for port in 10_000..12_000_u16 {
                for _ in 0..3 {
                    sender.send_to(b"x", (localhost, port)).expect("sent");
                }
            }
            rule.until(6000)
        });
        assert_eq!(dropped, 6000);
        let known: u64 = drops.iter().map(|drop| drop.count).sum();
        // What found no room in the table does not say whose it was.
        assert!(
            (dropped..=dropped + strangers).contains(&known),
            "{flows} flows: {known} of {dropped} and {strangers} of strangers: {counters:?}"
        );
        assert!(counters.ring_full > 0 || flows == 16, "{counters:?}");
        assert_eq!(counters.overflowed > 0, flows == 16, "{counters:?}");
        for drop in drops.iter().filter(|drop| drop.flow.is_none()) {
            assert_eq!(drop.reason.name, kernel::reason("NETFILTER_DROP"));
        }
    }
}

/// However often the table is looked at, the first packet of a flow comes out of the ring.
#[test]
fn a_look_at_the_table_does_not_take_a_first_packets_bytes() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let options = Options {
        fold_every: Duration::from_millis(1),
        // Room for all of them, however long the reader is held up.
        ring_bytes: 4 << 20,
        ..Options::default()
    };
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ports = 10_000..14_000_u16;
    let flows = ports.len();
    let work = move || {
        let rule = Rule::install("input", "udp dport 10000-19999", "drop");
        let sender = UdpSocket::bind((localhost, 0)).expect("a sender");
        for port in ports {
            sender
                .send_to(b"twelve bytes", (localhost, port))
                .expect("sent");
        }
        rule.until(flows as u64)
    };
    let (drops, counters, dropped) = capture(&options, work, packets(flows as u64));
    assert_eq!(
        (drops.len(), dropped),
        (flows, flows as u64),
        "{counters:?}"
    );
    for drop in &drops {
        assert!(drop.packet.ends_with(b"twelve bytes"), "{drop:?}");
    }
}
