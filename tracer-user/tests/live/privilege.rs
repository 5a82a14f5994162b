//! The agent with no more rights than it asks for.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use lab::enforcer::{Attach, Backend, Enforcer, Hook, Rule, Tc, Verdict};
use lab::{BROKEN_POLICY, Family, Policies, Wiring, traffic};
use serde_json::Value;
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::exact::VAULT;
use crate::program::tracer;
use crate::restart::Pins;
use crate::watch;

/// `nobody`, who owns nothing here.
const NOBODY: u32 = 65534;
/// As the DaemonSet grants them.
const GRANTED: &str = "-all,+bpf,+perfmon,+net_admin,+syslog";
/// Of these, what it keeps once it runs: `CAP_NET_ADMIN` (12), `CAP_SYSLOG` (34) and `CAP_BPF` (39).
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/capability.h>
const KEPT: u64 = 1 << 12 | 1 << 34 | 1 << 39;
const PACKETS: u64 = 5;
const PORT: u16 = 8200;

/// A program with these capabilities and no others.
fn limited(user: &[&str], program: OsString) -> Vec<OsString> {
    // Before Linux 5.11 maps count against the limit of locked memory, which root may mostly raise.
    let raised = "ulimit -l unlimited 2>/dev/null; exec \"$@\"";
    let mut command: Vec<OsString> = ["sh", "-c", raised, "sh", "setpriv", "--no-new-privs"]
        .map(OsString::from)
        .into();
    command.extend(user.iter().map(OsString::from));
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.push(format!("{set}={GRANTED}").into());
    }
    command.push(program);
    command
}

#[test]
fn an_ordinary_user_with_four_capabilities_captures_and_gives_up_one() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // Where the build is may be root's alone.
    let copy = folder.path().join("tracer");
    std::fs::copy(tracer(), &copy).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();

    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let command = limited(&user, copy.into());
    // What it may not do is no reason not to run.
    let more = ["--measure-cost", "--socket-group", "0"];
    let agent = Agent::start_by(&lab, Arc::new(folder), &command, "none", &more).unwrap();
    for lacks in ["CAP_SYS_ADMIN", "CAP_CHOWN"] {
        let mut said = agent.said.iter().map(ToString::to_string);
        assert!(said.any(|line| line.contains(lacks)), "{:?}", agent.said);
    }

    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(field("Uid:").split_whitespace().next(), Some("65534"));
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), KEPT, "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
    }

    let vault = lab.pod("vault-0").addresses().of(Family::V4);
    let rule = Rule {
        backend: Backend::Nftables,
        hook: Hook::Forward,
        protocol: Protocol::Udp,
        source: None,
        destination: vault,
        port: Some(PORT),
        verdict: Verdict::Drop,
    };
    let rule = rule.install(lab.node()).unwrap();
    traffic::udp_send(lab.remote(), SocketAddr::new(vault, PORT), PACKETS, b"x").unwrap();
    let counted = agent.until("tracer_drops_total", &VAULT, PACKETS).unwrap();
    assert_eq!((counted, rule.packets().unwrap()), (PACKETS, PACKETS));
    agent.stop().unwrap();
}

#[test]
fn as_the_daemonset_runs_it_it_names_tcx_programs_by_their_pinned_links() {
    if !Attach::Tcx.is_here() {
        return;
    }
    let Some(lab) = watch::lab(Wiring::Routed) else {
        return;
    };
    let pins = Pins::new().unwrap();
    // Its own view of it: it may not look into other processes.
    let bpffs = pins.bpffs.inherited_path();
    let folder = bpffs.join("tcx");
    std::fs::create_dir(&folder).unwrap();
    let mut tc = Tc::new(Attach::Tcx);
    tc.install(&lab, &Policies::parse(BROKEN_POLICY).unwrap())
        .unwrap();
    tc.pin_links(&folder).unwrap();

    let program = tracer().into();
    let agent = Agent::start_by(
        &lab,
        Arc::new(tempfile::tempdir().unwrap()),
        &limited(&[], program),
        bpffs.join("tracer").to_str().unwrap(),
        &[],
    )
    .unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    assert!(
        status.contains(&format!("CapPrm:\t{KEPT:016x}")),
        "{status}"
    );

    let vault = lab.pod("vault-0").addresses().of(Family::V4);
    traffic::udp_send(lab.remote(), SocketAddr::new(vault, PORT), PACKETS, b"x").unwrap();
    agent.until("tracer_drops_total", &VAULT, PACKETS).unwrap();
    let told = agent.watch(&["--last", "1"]).output().unwrap();
    let drop: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    let programs = drop["drop"]["programs"].as_array().unwrap();
    let names: Vec<_> = programs.iter().map(|program| &program["name"]).collect();
    let name = names.first().and_then(|name| name.as_str());
    assert!(names.len() == 1, "{drop}");
    // Where the kernel lists no programs, the pin's name is all there is.
    assert!(
        name.is_some_and(|name| name == "lab_to_pod" || name.ends_with("_egress")),
        "{drop}"
    );
    agent.stop().unwrap();
}
