//! The kernel side alone, on the running kernel: a drop made in a network namespace of the test's own
//! is seen, once, whole; a packet that is let through is not.
//!
//! Most of it on a stage of its own, a loopback and two rules; the lab's for what needs an eBPF
//! program at tc.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lab::enforcer::{Attach, Enforcer, Tc};
use lab::plan::{Family, Wiring, api_server};
use lab::traffic::udp_send;
use lab::{BROKEN_POLICY, Lab, Policies};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio_util::sync::CancellationToken;
use tracer::decode::{Action, Hook, Icmp, RawDrop};
use tracer::kernel::{BtfError, Capture, Counters, Error, Flavour, Options, Reasons};
use tracer_policy::model::Protocol;

/// Packets of each kind: enough to see one that is lost or counted twice.
const PACKETS: u16 = 50;

/// The kernel gives a namespace's inode to the next one made: two tests side by side could take each
/// other's drops for their own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `work` in a network namespace of its own, which goes away with the thread, and returns the
/// namespace's inode with the result.
fn in_own_netns<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (u32, T) {
    thread::spawn(move || {
        // SAFETY: only the network namespace of this new thread changes, which nobody else shares.
        #[expect(unsafe_code, reason = "entering a namespace")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        let link = std::fs::read_link("/proc/thread-self/ns/net").expect("its name");
        let inode = link.to_string_lossy();
        let inode = inode.trim_start_matches("net:[").trim_end_matches(']');
        let inode = inode.parse().expect("its inode");
        run("ip", &["link", "set", "lo", "up"]);
        (inode, work())
    })
    .join()
    .expect("the work in the namespace")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether live tests can run here; says so where not.
fn possible(programs: &[&str]) -> bool {
    let missing = programs
        .iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let why = match (missing, Capture::start(&Options::default())) {
        (Some(program), _) => format!("`{program}` is not installed"),
        (None, Err(error @ (Error::NoPrivilege { .. } | Error::LeftOut | Error::Btf(_)))) => {
            error.to_string()
        }
        (None, Err(error)) => panic!("{error}: {error:?}"),
        (None, Ok(_)) => return true,
    };
    assert!(
        std::env::var_os("TRACER_REQUIRE_ALL").is_none(),
        "required, but: {why}"
    );
    println!("SKIPPED: {why}");
    false
}

/// Captures while `work` runs in a namespace of its own, and returns what was dropped there.
fn capture<T: Send + 'static>(
    options: &Options,
    work: impl FnOnce() -> T + Send + 'static,
) -> (Vec<RawDrop>, Counters, T) {
    capture_in(options, || in_own_netns(work))
}

/// Captures while `work` runs, and returns what was dropped in the network namespace it names.
fn capture_in<T: Send>(
    options: &Options,
    work: impl FnOnce() -> (u32, T) + Send,
) -> (Vec<RawDrop>, Counters, T) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut capture = Capture::start(options).expect("a capture");
    let meter = capture.meter();
    let mut decoder = capture.decoder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cancel = CancellationToken::new();
    let ended = cancel.clone().drop_guard();
    let mut drops = Vec::new();
    let (netns, result) = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // Also when the work panics. Nothing dropped before this may be missing.
            let _ended = ended;
            work()
        });
        runtime
            .block_on(capture.run(cancel, |record| {
                drops.push(decoder.decode(record).expect("a record"));
                true
            }))
            .expect("a run");
        worker.join().expect("the work")
    });
    drops.retain(|drop| drop.netns == Some(netns));
    (drops, meter.counters().expect("counters"), result)
}

/// As [`capture`], with nobody draining the ring while `work` runs; what has no flow counts as ours.
fn capture_lazily<T: Send + 'static>(
    options: &Options,
    work: impl FnOnce() -> T + Send + 'static,
) -> (Vec<RawDrop>, Counters, T) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut capture = Capture::start(options).expect("a capture");
    let (netns, result) = in_own_netns(work);
    let counters = capture.counters().expect("counters");
    let mut decoder = capture.decoder();
    let mut drops = Vec::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(capture.run(cancel, |record| {
            drops.push(decoder.decode(record).expect("a record"));
            true
        }))
        .expect("a run");
    drops.retain(|drop| drop.flow.is_none() || drop.netns == Some(netns));
    (drops, counters, result)
}

/// Sends packets to a port where someone listens, and says how many came through and whence.
fn send(to: IpAddr, port: u16) -> (u16, SocketAddr) {
    let listener = UdpSocket::bind((to, port)).expect("a listener");
    listener
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("a timeout");
    let sender = UdpSocket::bind((to, 0)).expect("a sender");
    let from = sender.local_addr().expect("its address");
    let mut received = 0;
    for _ in 0..PACKETS {
        // A local drop may be reported to the sender.
        drop(sender.send_to(b"twelve bytes", listener.local_addr().expect("an address")));
        received += u16::from(listener.recv(&mut [0; 16]).is_ok());
    }
    // Loopback mostly delivers before `send_to` returns; a busy machine may leave it to a kernel thread.
    listener
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    while received < PACKETS && listener.recv(&mut [0; 16]).is_ok() {
        received += 1;
    }
    (received, from)
}

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
    let (drops, counters, (through, stopped)) = capture(&options, move || {
        run(
            "nft",
            &[
                "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
             add rule inet t c udp dport 4444 meta mark set 0x2a drop",
            ],
        );
        (send(localhost, 5555), send(localhost, 4444))
    });
    assert_eq!((through.0, stopped.0), (PACKETS, 0));
    assert_eq!(folded(&drops), u64::from(PACKETS), "{drops:#?}");
    assert_eq!(counters.lost(), 0, "{counters:?}");
    for drop in &drops {
        assert_eq!(drop.reason.name, "NETFILTER_DROP");
        assert_eq!(drop.hook, Some(Hook::Netfilter));
        // Netfilter answers a datagram by ICMP only: where that would have been heard, nobody was told.
        assert_eq!(drop.action, answers.icmp.then_some(Action::Drop));
        assert_eq!(drop.mark, 0x2a);
        assert_eq!(drop.interface, Some((1, "lo".to_owned())));
        assert_eq!(drop.length, 20 + 8 + 12);
        let flow = drop.flow.expect("a flow");
        assert_eq!((flow.source, flow.destination), (localhost, localhost));
        assert_eq!(flow.protocol, Protocol::Udp);
        assert_eq!(flow.source_port, Some(stopped.1.port()));
        assert_eq!(flow.destination_port, Some(4444));
        let symbol = drop.location.symbol.as_deref().expect("a symbol");
        assert!(symbol.starts_with("nft_do_chain+0x"), "{symbol}");
    }
    assert_eq!(drops[0].packet.len(), 40);
    assert!(drops[0].packet.ends_with(b"twelve bytes"));
    assert!(drops.is_sorted_by_key(|drop| drop.ktime_ns));
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
    let (drops, _, (received, from)) = capture(&options, move || {
        run(
            "nft",
            &[
                "add table inet t; add chain inet t c { type filter hook output priority 0; }; \
             add rule inet t c udp dport 4444 drop",
            ],
        );
        send(localhost, 4444)
    });
    assert_eq!(received, 0);
    assert_eq!(folded(&drops), u64::from(PACKETS), "{drops:#?}");
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
    let icmp_send = Capture::start(&Options::default())
        .expect("a capture")
        .hooks()
        .icmp_send;
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (drops, _, ()) = capture(&Options::default(), move || {
        run(
            "nft",
            &[
                "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
             add rule inet t c udp dport 4444 reject with icmp type admin-prohibited",
            ],
        );
        send(localhost, 4444);
    });
    let packets: u64 = drops.iter().map(|drop| drop.count).sum();
    assert_eq!(packets, u64::from(PACKETS), "{drops:#?}");
    let told = drops.iter().filter(|drop| drop.action.is_some()).count();
    for drop in drops.iter().filter(|drop| drop.action.is_some()) {
        let reply = Icmp { kind: 3, code: 13 };
        assert_eq!(drop.action, Some(Action::RejectIcmp(reply)));
    }
    // The kernel limits its ICMP rate: not every sender is told, the first one is.
    assert_eq!(told > 0, icmp_send.is_some());
}

/// At tc a packet's data begins at its link-layer header; lengths and bytes begin at the network's.
#[test]
fn a_tc_drop_is_a_drop_for_certain_and_begins_at_the_network_header() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let lab = Lab::new(Wiring::Routed).expect("a lab");
    for attach in [Attach::Tcx, Attach::Clsact] {
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
    let (drops, counters, (to, out, interface)) = capture_in(&options, move || {
        let before = tc.dropped_by_direction().expect("the enforcer's counts");
        let node = u32::try_from(lab.node().inode().expect("an inode")).expect("32 bits");
        let pod = lab.pod("vault-0");
        let to = SocketAddr::new(lab.vault("vault-0", family).ip(), 4444);
        let out = SocketAddr::new(api_server(family).ip(), 4444);
        udp_send(lab.node(), to, PACKETS.into(), b"twelve bytes").expect("packets");
        udp_send(pod.netns(), out, PACKETS.into(), b"twelve bytes").expect("packets");
        let after = tc.dropped_by_direction().expect("the enforcer's counts");
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (PACKETS.into(), PACKETS.into())
        );
        (node, (to, out, pod.host_interface().to_owned()))
    });
    assert_eq!(counters.lost(), 0, "{counters:?}");
    let ip = if family == Family::V4 { 20 } else { 40 };
    for (hook, destination) in [(Hook::TcEgress, to), (Hook::TcIngress, out)] {
        let drops: Vec<_> = drops
            .iter()
            .filter(|drop| drop.hook == Some(hook))
            .collect();
        assert_eq!(
            folded(drops.iter().copied()),
            u64::from(PACKETS),
            "{hook:?}"
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
    let (drops, counters, ()) = capture(&Options::default(), nobody_listens);
    assert_eq!(drops, []);
    assert!(counters.ignored > 0, "{counters:?}");

    for text in ["all", "NO_SOCKET"] {
        let options = Options {
            reasons: text.parse::<Reasons>().expect("reasons"),
            ..Options::default()
        };
        let (drops, _, ()) = capture(&options, nobody_listens);
        let unheard = drops.iter().filter(|drop| drop.reason.name == "NO_SOCKET");
        assert_eq!(unheard.count(), 1, "{drops:#?}");
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
    if !possible(&[]) {
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
        let (drops, counters, sent) = capture_lazily(&options, move || {
            run(
                "nft",
                &[
                    "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                     add rule inet t c udp dport 10000-19999 drop",
                ],
            );
            let sender = UdpSocket::bind((localhost, 0)).expect("a sender");
            for port in 10_000..12_000_u16 {
                for _ in 0..3 {
                    sender.send_to(b"x", (localhost, port)).expect("sent");
                }
            }
            6000_u64
        });
        let known: u64 = drops.iter().map(|drop| drop.count).sum();
        assert_eq!(known, sent, "{flows} flows: {counters:?}");
        assert_eq!(counters.lost(), 0, "{counters:?}");
        assert!(counters.ring_full > 0 || flows == 16, "{counters:?}");
        assert_eq!(counters.overflowed > 0, flows == 16, "{counters:?}");
        for drop in drops.iter().filter(|drop| drop.flow.is_none()) {
            assert_eq!(drop.reason.name, "NETFILTER_DROP");
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
    let (drops, counters, ()) = capture(&options, move || {
        run(
            "nft",
            &[
                "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c udp dport 10000-19999 drop",
            ],
        );
        let sender = UdpSocket::bind((localhost, 0)).expect("a sender");
        for port in ports {
            sender
                .send_to(b"twelve bytes", (localhost, port))
                .expect("sent");
        }
    });
    assert_eq!(drops.len(), flows, "{counters:?}");
    for drop in &drops {
        assert!(drop.packet.ends_with(b"twelve bytes"), "{drop:?}");
    }
}
