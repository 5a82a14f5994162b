//! Enforcers let through what the policies allow, stop the rest, and count it exactly.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use common::lab;
use lab::enforcer::{Attach, Backend, Enforcer, KubeRouter, Tc};
use lab::plan::{Family, Wiring, api_server, dns_service, kubernetes_service};
use lab::traffic::{Request, TcpOutcome};
use lab::{BROKEN_POLICY, Lab, Netns, Policies, traffic};

/// For what nobody answers; below the first retransmission of a SYN.
const ONE_SYN: Duration = Duration::from_millis(200);
/// For what has to succeed, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(10);

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
    assert!(client.get(lab.node(), &probe(PATIENCE))?.is_success());

    tc.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    let outside = || again(&[lab.node(), lab.remote()]);
    let inside = || again(&[pod]);
    let repeated = (outside()?, inside()?);
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
    // A machine that stands still for a second sends a SYN again.
    let wanted = (
        before.0 + 5 + outside()? - repeated.0,
        before.1 + 7 + inside()? - repeated.1,
    );
    let (ingress, egress) = dropped(tc, wanted)?;
    assert_eq!((ingress, egress), wanted);

    // What it allows passes, replies included, and costs nothing.
    let peer = lab.vault("vault-1", family);
    assert_eq!(
        traffic::tcp_connect(pod, peer, PATIENCE)?,
        TcpOutcome::Connected
    );
    let ping = traffic::ping(pod, peer.ip(), 1, PATIENCE)?;
    assert_eq!(ping.received, 1);
    assert_eq!(tc.dropped_by_direction()?, (ingress, egress));

    tc.install(
        lab,
        &Policies::parse(BROKEN_POLICY)?.and(Policies::parse(CURE)?),
    )?;
    let cured = client.get(lab.node(), &probe(PATIENCE))?;
    assert!(cured.is_success(), "{cured:?}");
    let call = Request::api_call(kubernetes_service(family), "/version", PATIENCE);
    let cured = client.get(pod, &call)?;
    assert!(cured.is_success(), "{cured:?}");
    let other_port = SocketAddr::new(vault.ip(), 8201);
    let repeated = outside()?;
    let outcome = traffic::tcp_connect(lab.node(), other_port, ONE_SYN)?;
    assert_eq!(outcome, TcpOutcome::TimedOut);
    let wanted = (ingress + 1 + outside()? - repeated, egress);
    assert_eq!(dropped(tc, wanted)?, wanted);

    tc.remove(lab)?;
    let outcome = traffic::tcp_connect(lab.node(), other_port, PATIENCE)?;
    assert_eq!(outcome, TcpOutcome::Connected);
    Ok(())
}

/// SYNs sent again from these namespaces.
fn again(namespaces: &[&Netns]) -> Result<u64> {
    namespaces
        .iter()
        .map(|netns| traffic::repeated_syns(netns))
        .sum()
}

/// What the enforcer dropped each way, once it is what is wanted.
fn dropped(tc: &Tc, wanted: (u64, u64)) -> Result<(u64, u64)> {
    let ingress = traffic::until_counted(wanted.0, || Ok(tc.dropped_by_direction()?.0))?;
    let egress = traffic::until_counted(wanted.1, || Ok(tc.dropped_by_direction()?.1))?;
    Ok((ingress, egress))
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
    let probe = Request::probe(vault, "/v1/sys/health", PATIENCE);
    let pod = lab.pod("vault-0").netns();
    let client = lab.https();
    kube_router.install(lab, &Policies::parse(BROKEN_POLICY)?)?;
    let before = kube_router.dropped(lab)?;

    // The node reaches its own pods, and everybody's echo requests pass, whatever the policies say.
    let probed = client.get(lab.node(), &probe)?;
    assert!(probed.is_success(), "{probed:?}");
    let ping = traffic::ping(lab.remote(), vault.ip(), 1, PATIENCE)?;
    assert_eq!(ping.received, 1);
    let peer = lab.vault("vault-1", family);
    assert_eq!(
        traffic::tcp_connect(pod, peer, PATIENCE)?,
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
    let senders = [lab.remote(), lab.pod("coredns").netns(), pod];
    let before_them = again(&senders)?;
    // See `tcp_connect`: over IPv6 the first ICMP error may come too early to count.
    let timeout = match family {
        Family::V4 => PATIENCE,
        Family::V6 => ONE_SYN,
    };
    for (from, to) in rejected {
        let outcome = traffic::tcp_connect(from, to, timeout)?;
        let refused = outcome == TcpOutcome::Refused
            || family == Family::V6 && outcome == TcpOutcome::TimedOut;
        assert!(refused, "{} to {to}: {outcome:?}", from.name());
    }
    traffic::udp_send(pod, dns_service(family), 5, b"x")?;
    // To the pod's own node, which has its own hook.
    let node = SocketAddr::new(lab::plan::NODE.of(family), 9100);
    traffic::udp_send(pod, node, 3, b"x")?;
    let wanted = before + 12 + again(&senders)? - before_them;
    let dropped = traffic::until_counted(wanted, || kube_router.dropped(lab))?;
    assert_eq!(dropped, wanted);

    kube_router.install(
        lab,
        &Policies::parse(BROKEN_POLICY)?.and(Policies::parse(CURE)?),
    )?;
    let call = Request::api_call(kubernetes_service(family), "/version", PATIENCE);
    let cured = client.get(pod, &call)?;
    assert!(cured.is_success(), "{cured:?}");
    assert_eq!(kube_router.dropped(lab)?, wanted);

    kube_router.remove(lab)?;
    assert_eq!(
        traffic::tcp_connect(lab.remote(), vault, PATIENCE)?,
        TcpOutcome::Connected
    );
    assert_eq!(kube_router.dropped(lab)?, wanted);
    let no_args: [&str; 1] = ["save"];
    assert_eq!(lab.node().run("ipset", &no_args)?, "");
    Ok(())
}
