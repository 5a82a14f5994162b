//! The kernel's BTF from a file of the user's.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use lab::enforcer::{Backend, Hook, Rule, Verdict};
use lab::{Family, Wiring, kernel, traffic};
use serde_json::Value;
use tracer_policy::model::Protocol;

use crate::agent::Agent;
use crate::exact::VAULT;
use crate::program::tracer;
use crate::watch;

const PORT: u16 = 8201;

#[test]
fn a_copy_of_the_kernels_btf_does_as_well() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("vmlinux");
    std::fs::copy("/sys/kernel/btf/vmlinux", &copy).unwrap();
    let copy = copy.to_str().unwrap();

    let doctor = Command::new(tracer())
        .args(["doctor", "-o", "json", "--cluster", "none", "--btf", copy])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(doctor.status.success(), "{doctor:?}");
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let check = |name| {
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap()
    };
    let btf = check("BTF");
    assert!(btf["text"].as_str().unwrap().contains(copy), "{btf}");
    assert_eq!(check("tcx")["present"], kernel::has_tcx());
    let drops = &report["hooks"][0];
    assert_eq!(drops["name"], "skb:kfree_skb");
    assert_eq!(drops["chosen"], report["hook"]);

    let agent = Agent::start_with(&lab, &["--btf", copy]).unwrap();
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
    let _rule = rule.install(lab.node()).unwrap();
    traffic::udp_send(lab.remote(), SocketAddr::new(vault, PORT), 3, b"x").unwrap();
    let counted = agent.until("tracer_drops_total", &VAULT, 3).unwrap();
    assert_eq!(counted, 3);
    agent.stop().unwrap();
}
