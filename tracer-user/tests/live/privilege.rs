//! The agent with no more rights than it asks for.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::{Family, Wiring, traffic};
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::watch;

/// `nobody`, who owns nothing here.
const NOBODY: u32 = 65534;
/// As the DaemonSet grants them.
const GRANTED: &str = "-all,+bpf,+perfmon,+syslog";
/// Of these, what it keeps once it runs: `CAP_SYSLOG` (34) and `CAP_BPF` (39).
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/capability.h>
const KEPT: u64 = 1 << 34 | 1 << 39;
const PACKETS: u64 = 5;
const PORT: u16 = 8200;

#[test]
fn an_ordinary_user_with_three_capabilities_captures_and_gives_up_one() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // Where the build is may be root's alone.
    let tracer = folder.path().join("tracer");
    std::fs::copy(env!("CARGO_BIN_EXE_tracer"), &tracer).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();

    // Before Linux 5.11 maps count against the limit of locked memory, which root may mostly raise.
    let raised = "ulimit -l unlimited 2>/dev/null; exec \"$@\"";
    let mut command: Vec<OsString> = ["sh", "-c", raised, "sh", "setpriv"]
        .map(OsString::from)
        .into();
    command.extend(
        [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ]
        .map(Into::into),
    );
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.push(format!("{set}={GRANTED}").into());
    }
    command.push(tracer.into());
    let agent = Agent::start_by(&lab, Arc::new(folder), &command, "none", &[]).unwrap();

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
    let labels = [r#"destination_workload="vault""#];
    let counted = agent.until("tracer_drops_total", &labels, PACKETS).unwrap();
    assert_eq!((counted, rule.packets().unwrap()), (PACKETS, PACKETS));
    agent.stop().unwrap();
}
