//! The lab's network carries what it should and stops what it is told to stop.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::lab;
use lab::enforcer::{Backend, Hook, InstalledRule, Rule, Verdict};
use lab::plan::{Family, Wiring, dns_service, kubernetes_service};
use lab::traffic::{DnsOutcome, HttpsOutcome, Request, Stage, TcpOutcome, Timeouts, UdpSent};
use lab::{Lab, traffic};
use tracer_policy::model::Protocol;

/// For what has to succeed, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what nobody answers; below the first retransmission of a SYN.
const ONE_SYN: Duration = Duration::from_millis(300);

#[test]
fn everything_reaches_everything() {
    for wiring in [Wiring::Bridge, Wiring::Routed] {
        let Some(lab) = lab(wiring) else { return };
        for family in [Family::V4, Family::V6] {
            let vault = lab.pod("vault-0").netns();
            let probe = Request::probe(lab.vault("vault-0", family), "/v1/sys/health", PATIENCE);
            let healthy = lab.https().get(lab.node(), &probe).unwrap();
            assert!(healthy.is_success(), "{wiring:?} {family:?}: {healthy:?}");

            let call = Request::api_call(kubernetes_service(family), "/version", PATIENCE);
            let version = lab.https().get(vault, &call).unwrap();
            assert!(version.is_success(), "{wiring:?} {family:?}: {version:?}");

            let name = "kubernetes.default.svc.cluster.local";
            let found = traffic::dns_lookup(vault, dns_service(family), name, PATIENCE).unwrap();
            assert_eq!(found, DnsOutcome::Answered { records: 1 });

            for from in [lab.pod("client").netns(), lab.remote()] {
                let to = lab.vault("vault-1", family);
                let open = traffic::tcp_connect(from, to, PATIENCE).unwrap();
                assert_eq!(open, TcpOutcome::Connected);
                let closed = SocketAddr::new(to.ip(), 81);
                let closed = traffic::tcp_connect(from, closed, PATIENCE).unwrap();
                assert_eq!(closed, TcpOutcome::Refused);
            }
        }
    }
}

#[test]
fn a_closed_connection_is_logged_as_go_does() {
    let Some(lab) = lab(Wiring::Bridge) else {
        return;
    };
    let to = lab.vault("vault-1", Family::V4);
    traffic::tcp_connect(lab.remote(), to, PATIENCE).unwrap();
    // The server logs when it sees the end of the stream; its next answer to the same client, on the
    // same accept loop, comes some time after that, so ask until the line is there.
    let line = (0..1000).find_map(|_| {
        let probe = Request::probe(to, "/", PATIENCE);
        lab.https().get(lab.node(), &probe).unwrap();
        lab.logs().into_iter().next()
    });
    let line = line.expect("a log line");
    assert_eq!(line.source, "vault/vault-1");
    let text = line.text;
    let prefix = "http: TLS handshake error from 198.51.100.10:";
    assert!(
        text.starts_with(prefix) && text.ends_with(": EOF"),
        "{text}"
    );
}

struct Case {
    backend: Backend,
    hook: Hook,
    family: Family,
    protocol: Protocol,
    verdict: Verdict,
}

/// Every rule the live tests stand on: does what it says and counts every packet.
#[test]
fn rules_stop_and_count() {
    let Some(lab) = lab(Wiring::Bridge) else {
        return;
    };
    for backend in [
        Backend::IptablesNft,
        Backend::IptablesLegacy,
        Backend::Nftables,
    ] {
        for hook in [Hook::Input, Hook::Forward, Hook::Output] {
            for family in [Family::V4, Family::V6] {
                let icmp = match family {
                    Family::V4 => Protocol::Icmp,
                    Family::V6 => Protocol::Icmpv6,
                };
                for protocol in [Protocol::Tcp, Protocol::Udp, icmp] {
                    for verdict in [Verdict::Drop, Verdict::Reject, Verdict::RejectWithReset] {
                        if verdict == Verdict::RejectWithReset && protocol != Protocol::Tcp {
                            continue;
                        }
                        stops_and_counts(
                            &lab,
                            &Case {
                                backend,
                                hook,
                                family,
                                protocol,
                                verdict,
                            },
                        )
                        .unwrap();
                    }
                }
            }
        }
    }
}

fn stops_and_counts(lab: &Lab, case: &Case) -> anyhow::Result<()> {
    let name = format!(
        "{:?} {:?} {:?} {} {:?}",
        case.backend, case.hook, case.family, case.protocol, case.verdict
    );
    let (from, to) = match case.hook {
        Hook::Input => (lab.remote(), lab::plan::NODE.of(case.family)),
        Hook::Forward => (lab.remote(), lab.pod("vault-0").addresses().of(case.family)),
        Hook::Output => (lab.node(), lab.pod("vault-0").addresses().of(case.family)),
    };
    let rule = Rule {
        backend: case.backend,
        hook: case.hook,
        protocol: case.protocol,
        source: None,
        destination: to,
        port: case.protocol.has_ports().then_some(8200),
        verdict: case.verdict,
    };
    let installed = rule.install(lab.node())?;
    let target = SocketAddr::new(to, 8200);
    match case.protocol {
        Protocol::Tcp => {
            // Nothing comes back, or too early to count (see `tcp_connect`).
            let unanswered = case.verdict == Verdict::Drop
                || case.verdict == Verdict::Reject && case.family == Family::V6;
            let timeout = if unanswered { ONE_SYN } else { PATIENCE };
            let repeated = traffic::repeated_syns(from)?;
            let outcome = traffic::tcp_connect(from, target, timeout)?;
            let syns = 1 + traffic::repeated_syns(from)? - repeated;
            let as_wanted = match (case.verdict, case.family) {
                (Verdict::Drop, _) => outcome == TcpOutcome::TimedOut,
                (Verdict::Reject, Family::V6) => {
                    matches!(outcome, TcpOutcome::Refused | TcpOutcome::TimedOut)
                }
                _ => outcome == TcpOutcome::Refused,
            };
            assert!(as_wanted, "{name}: {outcome:?}");
            assert_eq!(counted(&installed, syns)?, syns, "{name}");
        }
        Protocol::Udp => {
            let sent = traffic::udp_send(from, target, 7, b"x")?;
            let refused_locally = if case.hook == Hook::Output { 7 } else { 0 };
            let wanted = UdpSent {
                packets: 7,
                refused_locally,
            };
            assert_eq!(sent, wanted, "{name}");
            assert_eq!(counted(&installed, 7)?, 7, "{name}");
        }
        _ => {
            let ping = traffic::ping(from, to, 2, Duration::from_millis(50))?;
            assert_eq!((ping.sent, ping.received), (2, 0), "{name}");
            assert_eq!(counted(&installed, 2)?, 2, "{name}");
        }
    }
    installed.remove()?;
    if case.protocol == Protocol::Tcp && case.hook != Hook::Input {
        let again = traffic::tcp_connect(from, target, PATIENCE)?;
        assert_eq!(again, TcpOutcome::Connected, "{name}");
    }
    Ok(())
}

fn counted(rule: &InstalledRule<'_>, wanted: u64) -> anyhow::Result<u64> {
    traffic::until_counted(wanted, || rule.packets())
}

/// The incident's misleading lines, from real sockets.
#[test]
fn errors_read_as_go_prints_them() {
    let Some(lab) = lab(Wiring::Bridge) else {
        return;
    };
    let client = lab.https();
    let to = lab.vault("vault-0", Family::V4);
    let rule = |verdict| Rule {
        backend: Backend::Nftables,
        hook: Hook::Output,
        protocol: Protocol::Tcp,
        source: None,
        destination: to.ip(),
        port: Some(8200),
        verdict,
    };
    let probe = |timeout| Request::probe(to, "/v1/sys/health", timeout);
    let call = Request::api_call(to, "/v1/sys/health", ONE_SYN);
    let failed = |stage, text: &str| HttpsOutcome::Failed {
        stage,
        text: format!("Get \"https://10.42.1.10:8200/v1/sys/health\": {text}"),
    };

    let mut stalling = call.clone();
    stalling.timeouts = Timeouts::Stages {
        dial: PATIENCE,
        handshake: ONE_SYN,
        response: ONE_SYN,
    };
    let dialed = client.dial(lab.node(), &stalling).unwrap().unwrap();
    let dropping = rule(Verdict::Drop).install(lab.node()).unwrap();
    assert_eq!(
        client.get(lab.node(), &probe(ONE_SYN)).unwrap(),
        failed(
            Stage::Dial,
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )
    );
    assert_eq!(
        client.get(lab.node(), &call).unwrap(),
        failed(Stage::Dial, "dial tcp 10.42.1.10:8200: i/o timeout")
    );
    assert_eq!(
        dialed.get(),
        failed(Stage::Handshake, "net/http: TLS handshake timeout")
    );
    dropping.remove().unwrap();

    let rejecting = rule(Verdict::Reject).install(lab.node()).unwrap();
    assert_eq!(
        client.get(lab.node(), &probe(PATIENCE)).unwrap(),
        failed(
            Stage::Dial,
            "dial tcp 10.42.1.10:8200: connect: connection refused"
        )
    );
    rejecting.remove().unwrap();
}
