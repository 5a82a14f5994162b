//! Enforcers let through what the policies allow, stop the rest, and count it exactly.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use common::lab;
use lab::enforcer::{Attach, Backend, Enforcer, KubeRouter, Tc};
use lab::plan::{Family, Wiring, api_server, dns_service, kubernetes_service};
use lab::traffic::{Request, TcpOutcome};
use lab::{BROKEN_POLICY, Lab, Policies, traffic};

/// Below the first retransmission of a SYN: an unanswered attempt is one packet.
const ONE_SYN: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

/// What the incident's policy lacked.
const CURE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: vault-invisible, namespace: vault}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: vault}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.10.0.11/32}
    - ipBlock: {cidr: 10.42.1.1/32}
    - ipBlock: {cidr: fd00:10:10::11/128}
    - ipBlock: {cidr: fd00:10:42:1::1/128}
    ports: [{port: https}]
  egress:
  - to: [{ipBlock: {cidr: 192.168.1.100/32}}, {ipBlock: {cidr: fd00:192:168:1::100/128}}]
    ports: [{port: 6443}]
";

#[test]
fn tc_enforces_the_incident() {
    for (attach, wiring) in [
        (Attach::Tcx, Wiring::Bridge),
        (Attach::Tcx, Wiring::Routed),
        (Attach::Clsact, Wiring::Bridge),
    ] {
        let Some(lab) = lab(wiring) else { return };
        let mut tc = Tc::new(attach);
        for family in [Family::V4, Family::V6] {
            tc_stops_and_counts(&lab, &mut tc, family).unwrap();
        }
    }
}

fn tc_stops_and_counts(lab: &Lab, tc: &mut Tc, family: Family) -> Result<()> {
    let vault = lab.vault("vault-0", family);
    let probe = |timeout| Request::probe(vault, "/v1/sys/health", timeout);
    let pod = lab.pod("vault-0").netns();
    let client = lab.https();
    tc.install(lab, &Policies::default())?;
    let before = tc.dropped_by_direction()?;
    assert!(client.get(lab.node(), &probe(SECOND))?.is_success());

    tc.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    assert!(!client.get(lab.node(), &probe(ONE_SYN))?.is_success());
    let refused = traffic::tcp_connect(lab.remote(), vault, ONE_SYN)?;
    assert_eq!(refused, TcpOutcome::TimedOut);
    let ping = traffic::ping(lab.remote(), vault.ip(), 3, Duration::from_millis(20))?;
    assert_eq!(ping.received, 0);
    for to in [api_server(family), kubernetes_service(family)] {
        let outcome = traffic::tcp_connect(pod, to, ONE_SYN)?;
        assert_eq!(outcome, TcpOutcome::TimedOut, "{to}");
    }
    traffic::udp_send(pod, dns_service(family), 5, b"x")?;
    let (ingress, egress) = tc.dropped_by_direction()?;
    assert_eq!((ingress - before.0, egress - before.1), (5, 7));

    // What it allows passes, replies included, and costs nothing.
    let peer = lab.vault("vault-1", family);
    assert_eq!(
        traffic::tcp_connect(pod, peer, SECOND)?,
        TcpOutcome::Connected
    );
    let ping = traffic::ping(pod, peer.ip(), 1, SECOND)?;
    assert_eq!(ping.received, 1);
    assert_eq!(tc.dropped_by_direction()?, (ingress, egress));

    tc.install(
        lab,
        &Policies::parse(BROKEN_POLICY)?.and(Policies::parse(CURE)?),
    )?;
    let cured = client.get(lab.node(), &probe(SECOND))?;
    assert!(cured.is_success(), "{cured:?}");
    let call = Request::api_call(kubernetes_service(family), "/version", SECOND);
    let cured = client.get(pod, &call)?;
    assert!(cured.is_success(), "{cured:?}");
    let other_port = SocketAddr::new(vault.ip(), 8201);
    let outcome = traffic::tcp_connect(lab.node(), other_port, ONE_SYN)?;
    assert_eq!(outcome, TcpOutcome::TimedOut);
    assert_eq!(tc.dropped_by_direction()?, (ingress + 1, egress));

    tc.remove(lab)?;
    let outcome = traffic::tcp_connect(lab.node(), other_port, SECOND)?;
    assert_eq!(outcome, TcpOutcome::Connected);
    Ok(())
}

#[test]
fn kube_router_enforces_the_incident() {
    for (backend, wiring) in [
        (Backend::IptablesNft, Wiring::Bridge),
        (Backend::IptablesLegacy, Wiring::Bridge),
        (Backend::IptablesNft, Wiring::Routed),
    ] {
        let Some(lab) = lab(wiring) else { return };
        let mut kube_router = KubeRouter::new(backend);
        for family in [Family::V4, Family::V6] {
            kube_router_stops_and_counts(&lab, &mut kube_router, family)
                .unwrap_or_else(|error| panic!("{backend:?} {wiring:?} {family:?}: {error:#}"));
        }
    }
}

fn kube_router_stops_and_counts(
    lab: &Lab,
    kube_router: &mut KubeRouter,
    family: Family,
) -> Result<()> {
    let vault = lab.vault("vault-0", family);
    let probe = Request::probe(vault, "/v1/sys/health", SECOND);
    let pod = lab.pod("vault-0").netns();
    let client = lab.https();
    kube_router.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    let before = kube_router.dropped(lab)?;

    // The node reaches its own pods, and everybody's echo requests pass, whatever the policies say.
    let probed = client.get(lab.node(), &probe)?;
    assert!(probed.is_success(), "{probed:?}");
    let ping = traffic::ping(lab.remote(), vault.ip(), 1, SECOND)?;
    assert_eq!(ping.received, 1);
    let peer = lab.vault("vault-1", family);
    assert_eq!(
        traffic::tcp_connect(pod, peer, SECOND)?,
        TcpOutcome::Connected
    );
    assert_eq!(kube_router.dropped(lab)?, before);

    // From outside, from a pod of the same node, and to the API server by either address.
    let rejected = [
        (lab.remote(), vault),
        (lab.pod("coredns").netns(), vault),
        (pod, api_server(family)),
        (pod, kubernetes_service(family)),
    ];
    for (from, to) in rejected {
        let outcome = traffic::tcp_connect(from, to, ONE_SYN)?;
        // See `tcp_connect`: over IPv6 the first ICMP error may come too early to count.
        let refused = outcome == TcpOutcome::Refused
            || family == Family::V6 && outcome == TcpOutcome::TimedOut;
        assert!(refused, "{} to {to}: {outcome:?}", from.name());
    }
    traffic::udp_send(pod, dns_service(family), 5, b"x")?;
    // To the pod's own node, which has its own hook.
    let node = SocketAddr::new(lab::plan::NODE.of(family), 9100);
    traffic::udp_send(pod, node, 3, b"x")?;
    assert_eq!(kube_router.dropped(lab)?, before + 12);

    kube_router.install(
        lab,
        &Policies::parse(BROKEN_POLICY)?.and(Policies::parse(CURE)?),
    )?;
    let call = Request::api_call(kubernetes_service(family), "/version", SECOND);
    let cured = client.get(pod, &call)?;
    assert!(cured.is_success(), "{cured:?}");
    assert_eq!(kube_router.dropped(lab)?, before + 12);

    kube_router.remove(lab)?;
    assert_eq!(
        traffic::tcp_connect(lab.remote(), vault, SECOND)?,
        TcpOutcome::Connected
    );
    assert_eq!(kube_router.dropped(lab)?, before + 12);
    let no_args: [&str; 1] = ["save"];
    assert_eq!(lab.node().run("ipset", &no_args)?, "");
    Ok(())
}
