//! What this kernel offers: the facts behind `tracer doctor`. Loads nothing, changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};

use tracer_common::Config;

use super::answers::{self, Answer, has_kprobes};
use super::attach::{Flavour, Hook, ICMP_SEND, KFREE_SKB};
use super::btf::Btf;
use super::layout::{has_reason, layout};
use super::load::{KERNEL_BTF, describe_conntrack, reason_names};
use super::pages;
use super::rulesets::{droppers, unread};
use super::symbols::{LiveSymbols, existing};

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
    /// Where the programs hang: the one for drops first, without which there is nothing to capture.
    pub hooks: Vec<HookFinding>,
    /// Where a packet was sent to before its address was translated.
    pub conntrack: Finding,
    /// Packets whose headers are in pages of their own.
    pub pages: Finding,
    /// tcx, whose programs are told by name.
    pub tcx: Finding,
    /// Rules that packets can fall by.
    pub rules: Finding,
    /// Names of kernel functions.
    pub symbols: Finding,
    /// Where maps and programs can be pinned.
    pub bpffs: Finding,
}

/// A place where a program can hang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFinding {
    /// What it is called.
    pub name: &'static str,
    /// Nothing can be captured without it.
    pub needed: bool,
    /// In which ways a program can hang there, the best first.
    pub found: Vec<&'static str>,
    /// Which of them will be used.
    pub chosen: Option<&'static str>,
    /// Why that one, or none, and what comes of it.
    pub why: String,
}

impl Probe {
    /// Whether a capture can be expected to start.
    pub fn can_capture(&self) -> bool {
        [&self.programs, &self.btf, &self.capabilities]
            .iter()
            .all(|finding| finding.present)
            && self
                .hooks
                .iter()
                .all(|hook| hook.chosen.is_some() || !hook.needed)
    }
}

/// Looks. `btf`: the kernel's, where it is not at its usual place.
pub fn probe(btf: Option<&Path>) -> Probe {
    let path = btf.unwrap_or(Path::new(KERNEL_BTF));
    let btf = Btf::from_file(path);
    let kernel = btf.as_ref().ok();
    let names = kernel.map(reason_names).unwrap_or_default();
    let symbols = symbols();
    Probe {
        release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        programs: programs(),
        btf: match btf.as_ref().map(layout) {
            Ok(Ok(_)) => Finding::yes(format!(
                "BTF at {}, with every field needed",
                path.display()
            )),
            Ok(Err(error)) => Finding::no(error.to_string()),
            Err(error) => Finding::no(error.to_string()),
        },
        reasons: if kernel.is_some_and(has_reason) && names.tell_policies() {
            Finding::yes(format!(
                "{} drop reasons known by name",
                names.iter().count()
            ))
        } else if symbols.present {
            Finding::no(
                "no drop reasons for policies (since Linux 5.18): where a packet is dropped tells \
                 netfilter and tc, and nothing else is captured by default",
            )
        } else {
            Finding::no(
                "no drop reasons for policies (since Linux 5.18), and no addresses in /proc/kallsyms to tell \
                 netfilter and tc by: every drop is captured",
            )
        },
        policy_reasons: names.policy(),
        capabilities: capabilities(),
        hooks: hooks(kernel),
        conntrack: conntrack(kernel),
        pages: pages(kernel),
        tcx: tcx(kernel),
        rules: rules(),
        symbols,
        bpffs: bpffs(),
    }
}

fn programs() -> Finding {
    if super::loader::has_programs() {
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

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Capabilities this process would need and does not have.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    if has(Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED
        .into_iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(_, name)| name)
        .collect()
}

/// What a tracepoint is called by, and the function that is there with it.
/// <https://github.com/torvalds/linux/blob/v5.10/include/linux/tracepoint.h> (`__traceiter_`)
const TRACEPOINTS: [(&Hook, &str, &str); 2] = [
    (&KFREE_SKB, "skb:kfree_skb", "__traceiter_kfree_skb"),
    (&ICMP_SEND, "icmp:icmp_send", "__traceiter_icmp_send"),
];

fn hooks(kernel: Option<&Btf<'_>>) -> Vec<HookFinding> {
    let mut wanted: Vec<_> = TRACEPOINTS
        .iter()
        .map(|(_, _, function)| *function)
        .collect();
    wanted.extend(answers::ALL.iter().map(|answer| answer.function));
    let functions = existing(&wanted);
    let [drops, icmp] = TRACEPOINTS.map(|(hook, name, function)| {
        let described = kernel.is_some_and(|btf| btf.tracepoint(hook.tracepoint).is_some());
        // The kernel checks such a program by its own BTF: a file will not do.
        let checked = described && Path::new(KERNEL_BTF).exists();
        let is_there = described || functions.contains(&function);
        let found: Vec<_> = [(Flavour::Btf, checked), (Flavour::Raw, is_there)]
            .into_iter()
            .filter_map(|(flavour, found)| found.then_some(flavour.as_str()))
            .collect();
        let why = match found.len() {
            0 => "the kernel has no such tracepoint",
            1 if described => "the kernel has no BTF of its own",
            1 => "BTF does not describe it",
            _ => "it costs least",
        };
        HookFinding {
            name,
            needed: false,
            chosen: found.first().copied(),
            found,
            why: why.to_owned(),
        }
    });
    let has_icmp_send = icmp.chosen.is_some();
    let mut hooks = vec![
        HookFinding {
            needed: true,
            ..drops
        },
        HookFinding {
            why: if has_icmp_send {
                format!("{}; IPv4 rejects are told from drops", icmp.why)
            } else {
                format!(
                    "{} (since Linux 6.11; Debian's 6.1 has it): a kprobe has to do",
                    icmp.why
                )
            },
            ..icmp
        },
    ];
    // Of two that tell the same, the tracepoint.
    let listeners = answers::ALL
        .iter()
        .filter(|answer| !(has_icmp_send && answer.program == answers::ICMP.program));
    hooks.extend(listeners.map(|answer| listener(answer, &functions)));
    hooks
}

/// A function that answers senders.
fn listener(answer: &Answer, functions: &[&str]) -> HookFinding {
    let is_there = has_kprobes() && functions.contains(&answer.function);
    let untold = format!("{} are not told from drops", answer.what);
    HookFinding {
        name: answer.function,
        needed: false,
        found: if is_there { vec![KPROBE] } else { Vec::new() },
        chosen: is_there.then_some(KPROBE),
        why: if is_there {
            format!("{} are told from drops", answer.what)
        } else if !has_kprobes() {
            format!("the kernel has no kprobes: {untold}")
        } else if let Some(module) = answer.missing_module() {
            format!("{module} is not loaded: what starts before it is, {untold}")
        } else {
            format!("the kernel has no such function: {untold}")
        },
    }
}

const KPROBE: &str = "kprobe";

fn conntrack(kernel: Option<&Btf<'_>>) -> Finding {
    let mut config = Config::EMPTY;
    match kernel.and_then(|btf| describe_conntrack(&mut config, btf)) {
        Some(whose) => Finding::yes(format!(
            "conntrack's types, of {whose}: where a packet was sent before DNAT is told"
        )),
        None => Finding::no(
            "no types of conntrack, in the kernel's BTF or a loaded module's: where a packet was sent \
             before DNAT is not told",
        ),
    }
}

fn pages(kernel: Option<&Btf<'_>>) -> Finding {
    if kernel.is_some_and(|btf| btf.function(pages::FUNCTION).is_some()) {
        Finding::yes(format!(
            "{}: headers that a driver left in pages of their own are read, where tracepoints may call it (since \
             Linux 6.12)",
            pages::FUNCTION
        ))
    } else {
        Finding::no(format!(
            "no {} (for tracepoints since Linux 6.12): headers that a driver left in pages of their own are not read",
            pages::FUNCTION
        ))
    }
}

/// Linux 6.6 brought it.
fn tcx(kernel: Option<&Btf<'_>>) -> Finding {
    let known = kernel.is_some_and(|btf| {
        let types = btf.enum_values(|name| name == "bpf_attach_type");
        types.iter().any(|(_, name)| *name == "BPF_TCX_INGRESS")
    });
    if known {
        Finding::yes(if has(Capability::CAP_SYS_ADMIN) {
            "tcx: its programs are told by name"
        } else {
            "tcx: without CAP_SYS_ADMIN programs are told by their links, where those are pinned under /sys/fs/bpf"
        })
    } else {
        Finding::no("no tcx (since Linux 6.6): only clsact's programs, which are told by name")
    }
}

fn rules() -> Finding {
    match droppers() {
        Ok(droppers) => {
            let owners: BTreeSet<_> = droppers
                .iter()
                .map(|dropper| dropper.owner.as_str())
                .collect();
            let owners: Vec<_> = owners.into_iter().collect();
            Finding::yes(if owners.is_empty() {
                "no rule of iptables or nftables drops anything here".to_owned()
            } else {
                format!("rules that drop here are those of {}", owners.join(", "))
            })
        }
        Err(error) => Finding::no(format!(
            "whose rules drop packets is not told: {}",
            unread(&error)
        )),
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
        let mut probe = probe(None);
        probe.programs.present = true;
        probe.btf.present = true;
        probe.capabilities.present = true;
        probe.hooks[0].chosen = Some(KPROBE);
        probe.hooks[1].chosen = None;
        assert!(probe.can_capture());
        probe.hooks[0].chosen = None;
        assert!(!probe.can_capture());
        probe.hooks[0].chosen = Some(KPROBE);
        probe.btf.present = false;
        assert!(!probe.can_capture());
    }

    #[test]
    fn without_a_description_the_tracepoint_itself_has_to_be_there() {
        let hooks = hooks(None);
        let [drops, ..] = hooks.as_slice() else {
            panic!("{hooks:?}");
        };
        assert!(drops.needed, "{drops:?}");
        let is_there = !existing(&["__traceiter_kfree_skb"]).is_empty();
        assert_eq!(
            drops.chosen,
            is_there.then_some("raw tracepoint"),
            "{drops:?}"
        );
    }

    #[test]
    fn a_file_that_is_no_btf_is_what_is_looked_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let probe = probe(Some(file.path()));
        assert!(!probe.btf.present, "{:?}", probe.btf);
        assert!(!probe.can_capture());
    }
}
