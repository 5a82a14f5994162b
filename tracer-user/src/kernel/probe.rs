//! What this kernel offers: the facts behind `tracer doctor`. Loads nothing, changes nothing.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};

use super::answers::{self, has_kprobes};
use super::attach::{Flavour, ICMP_SEND, KFREE_SKB};
use super::btf::Btf;
use super::layout::{has_reason, layout};
use super::load::{KERNEL_BTF, reason_names};
use super::symbols::LiveSymbols;

/// Capabilities that loading and reading need, and since when they are apart from `CAP_SYS_ADMIN`
/// (Linux 5.8).
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_PERFMON, "CAP_PERFMON"),
];

/// Something that is there, or is not and why that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is there.
    pub present: bool,
    /// One sentence.
    pub text: String,
}

impl Finding {
    fn yes(text: impl Into<String>) -> Self {
        Self {
            present: true,
            text: text.into(),
        }
    }

    fn no(text: impl Into<String>) -> Self {
        Self {
            present: false,
            text: text.into(),
        }
    }
}

/// What this kernel offers to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Kernel release (`uname -r`).
    pub release: String,
    /// Whether this build carries the eBPF programs.
    pub programs: Finding,
    /// The kernel's type information.
    pub btf: Finding,
    /// Whether the kernel tells why it drops.
    pub reasons: Finding,
    /// The policy reasons it knows.
    pub policy_reasons: Vec<&'static str>,
    /// Privileges.
    pub capabilities: Finding,
    /// `skb:kfree_skb`: without it there is nothing to capture.
    pub kfree_skb: Finding,
    /// Which flavour will be tried first.
    pub kfree_skb_flavour: Option<Flavour>,
    /// `icmp:icmp_send`: tells rejects from drops.
    pub icmp_send: Finding,
    /// Kprobes on what else answers senders.
    pub answers: Finding,
    /// Names of kernel functions.
    pub symbols: Finding,
    /// Where maps and programs can be pinned.
    pub bpffs: Finding,
}

impl Probe {
    /// Whether a capture can be expected to start.
    pub fn can_capture(&self) -> bool {
        [
            &self.programs,
            &self.btf,
            &self.capabilities,
            &self.kfree_skb,
        ]
        .iter()
        .all(|finding| finding.present)
    }
}

/// Looks.
pub fn probe() -> Probe {
    let btf = Btf::from_file(Path::new(KERNEL_BTF));
    let kernel = btf.as_ref().ok();
    let names = kernel.map(reason_names).unwrap_or_default();
    let kfree_skb = kernel.is_some_and(|btf| btf.tracepoint(KFREE_SKB.tracepoint).is_some());
    Probe {
        release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        programs: programs(),
        btf: match btf.as_ref().map(layout) {
            Ok(Ok(_)) => Finding::yes(format!("BTF at {KERNEL_BTF}, with every field needed")),
            Ok(Err(error)) => Finding::no(error.to_string()),
            Err(error) => Finding::no(error.to_string()),
        },
        reasons: if kernel.is_some_and(has_reason) && !names.policy().is_empty() {
            Finding::yes(format!(
                "{} drop reasons known by name",
                names.iter().count()
            ))
        } else {
            Finding::no(
                "no drop reasons for policies (since Linux 5.18): where a packet is dropped tells \
                 netfilter and tc, and nothing else is captured by default",
            )
        },
        policy_reasons: names.policy(),
        capabilities: capabilities(),
        kfree_skb: if kfree_skb {
            Finding::yes("skb:kfree_skb as BTF tracepoint")
        } else {
            Finding::yes("skb:kfree_skb as raw tracepoint: BTF does not describe it")
        },
        kfree_skb_flavour: Some(if kfree_skb {
            Flavour::Btf
        } else {
            Flavour::Raw
        }),
        icmp_send: if kernel.is_some_and(|btf| btf.tracepoint(ICMP_SEND.tracepoint).is_some()) {
            Finding::yes("icmp:icmp_send as BTF tracepoint: IPv4 rejects are told from drops")
        } else {
            Finding::no(
                "no tracepoint icmp:icmp_send (since Linux 6.11; Debian's 6.1 has it): a kprobe has to do",
            )
        },
        answers: answers(),
        symbols: symbols(),
        bpffs: bpffs(),
    }
}

fn programs() -> Finding {
    if super::load::has_programs() {
        Finding::yes("eBPF programs built in")
    } else {
        Finding::no(super::Error::LeftOut.to_string())
    }
}

fn capabilities() -> Finding {
    let missing = missing_capabilities();
    if missing.is_empty() {
        Finding::yes("CAP_BPF and CAP_PERFMON")
    } else {
        Finding::no(format!("{} missing", missing.join(" and ")))
    }
}

/// Capabilities this process would need and does not have.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED
        .into_iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(_, name)| name)
        .collect()
}

fn answers() -> Finding {
    if !has_kprobes() {
        return Finding::no(
            "no kprobes: rejects by TCP reset and over IPv6 are not told from drops",
        );
    }
    let missing: Vec<_> = answers::ALL
        .iter()
        .filter_map(answers::Answer::missing_module)
        .collect();
    if missing.is_empty() {
        Finding::yes("kprobes: TCP resets and ICMPv6 rejects are told from drops")
    } else {
        Finding::no(format!(
            "kprobes, but what starts now will not tell TCP resets from drops, not loaded yet: {}",
            missing.join(", ")
        ))
    }
}

fn symbols() -> Finding {
    if LiveSymbols::read().is_empty() {
        Finding::no(
            "/proc/kallsyms shows no addresses (kernel.kptr_restrict, or CAP_SYSLOG missing): \
             locations stay unnamed",
        )
    } else {
        Finding::yes("/proc/kallsyms names kernel functions")
    }
}

fn bpffs() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match mounted_bpffs(&mounts) {
        Some(at) => Finding::yes(format!("bpffs at {at}")),
        None => Finding::no("no bpffs mounted: nothing can be pinned"),
    }
}

/// Mount point of the first bpffs in the text of `/proc/self/mounts`.
fn mounted_bpffs(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let at = words.nth(1)?;
        (words.next()? == "bpf").then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_found_among_mounts() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert_eq!(mounted_bpffs(mounts), Some("/sys/fs/bpf"));
        assert_eq!(mounted_bpffs("bpf /tmp tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn a_capture_needs_all_of_four() {
        let mut probe = probe();
        probe.programs.present = true;
        probe.btf.present = true;
        probe.capabilities.present = true;
        probe.kfree_skb.present = true;
        assert!(probe.can_capture());
        probe.btf.present = false;
        assert!(!probe.can_capture());
    }
}
