//! Programs at kernel functions that run on rejects only, by kprobe. They are a gain where they are to be had:
//! without them a reject looks like a drop.
//!
//! Their links are not pinned, which kernels before 5.15 cannot do: while no agent runs, drops are counted and
//! answers not seen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::Ebpf;
use aya::programs::kprobe::KProbeLink;
use aya::programs::{KProbe, ProbeKind, ProgramError};

use super::clock::now_ns;
use super::sys;
use crate::decode::Answers;

/// Where the kernel says that it has kprobes for perf events.
const PMU: &str = "/sys/bus/event_source/devices/kprobe";

/// A program, and the function it hangs on.
pub(super) struct Answer {
    pub(super) program: &'static str,
    pub(super) function: &'static str,
    /// What it sends.
    pub(super) what: &'static str,
    /// The module the function is in, where it is not the kernel itself.
    module: Option<&'static str>,
}

impl Answer {
    /// The module that has to be loaded first, where it is not.
    pub(super) fn missing_module(&self) -> Option<&'static str> {
        self.module
            .filter(|module| !Path::new("/sys/module").join(module).exists())
    }
}

/// ICMP errors, where no tracepoint tells them.
pub(super) const ICMP: Answer = Answer {
    program: "icmp_send_probe",
    function: "__icmp_send",
    what: "IPv4 rejects",
    module: None,
};

pub(super) const ICMPV6: Answer = Answer {
    program: "icmp6_send_probe",
    function: "icmp6_send",
    what: "IPv6 rejects",
    module: None,
};

pub(super) const RESET: Answer = Answer {
    program: "reset_probe",
    function: "nf_send_reset",
    what: "TCP resets",
    module: Some("nf_reject_ipv4"),
};

pub(super) const RESET6: Answer = Answer {
    program: "reset6_probe",
    function: "nf_send_reset6",
    what: "TCP resets over IPv6",
    module: Some("nf_reject_ipv6"),
};

pub(super) const ALL: [Answer; 4] = [ICMP, ICMPV6, RESET, RESET6];

/// Whether this kernel has kprobes at all.
pub(super) fn has_kprobes() -> bool {
    Path::new(PMU).exists()
}

/// A program that is loaded, and what keeps it on its function, if it hangs there.
pub(super) struct Listener {
    pub(super) name: &'static str,
    pub(super) program: OwnedFd,
    pub(super) link: Option<KProbeLink>,
}

/// Loads those programs, and hangs those on their functions whose functions are there.
pub(super) fn load(ebpf: &mut Ebpf, has_icmp_send: bool) -> Vec<Listener> {
    if !has_kprobes() {
        return Vec::new();
    }
    let wanted = ALL
        .into_iter()
        .filter(|answer| !(has_icmp_send && answer.program == ICMP.program));
    let mut listeners = Vec::new();
    for answer in wanted {
        match load_one(ebpf, &answer) {
            Ok(listener) => listeners.push(listener),
            Err(error) => tracing::debug!(%error, program = answer.program, "not loaded"),
        }
    }
    listeners
}

fn load_one(ebpf: &mut Ebpf, answer: &Answer) -> Result<Listener, ProgramError> {
    let program = ebpf.program_mut(answer.program);
    let program = program.ok_or_else(|| ProgramError::InvalidName {
        name: answer.program.to_owned(),
    })?;
    let program: &mut KProbe = program.try_into()?;
    program.load()?;
    hang(program, answer)
}

/// A module may be loaded later: then the function is not there yet, and the program is kept for an agent that
/// starts after it.
fn hang(program: &mut KProbe, answer: &Answer) -> Result<Listener, ProgramError> {
    let link = match program.attach(answer.function, 0) {
        Ok(link) => Some(program.take_link(link)?),
        Err(error) => {
            tracing::debug!(%error, function = answer.function, "no program there");
            None
        }
    };
    Ok(Listener {
        name: answer.program,
        program: program.fd()?.as_fd().try_clone_to_owned()?,
        link,
    })
}

/// Pins the programs in a folder.
pub(super) fn pin(listeners: &[Listener], folder: &Path) -> io::Result<()> {
    listeners
        .iter()
        .try_for_each(|one| sys::pin(one.program.as_fd(), &folder.join(one.name)))
}

/// Hangs programs on their functions again that are pinned in a folder.
pub(super) fn from_pins(folder: &Path) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for answer in ALL {
        let path = folder.join(answer.program);
        if !path.exists() {
            continue;
        }
        let hung = KProbe::from_pin(&path, ProbeKind::Entry)
            .and_then(|mut program| hang(&mut program, &answer));
        match hung {
            Ok(listener) => listeners.push(listener),
            Err(error) => tracing::debug!(%error, program = answer.program, "not hung again"),
        }
    }
    listeners
}

/// What is seen of answers, with the tracepoint or without.
pub(super) fn seen(has_icmp_send: bool, listeners: &[Listener]) -> Answers {
    let hangs = |answer: &Answer| {
        let mut same = listeners.iter().filter(|one| one.name == answer.program);
        same.any(|one| one.link.is_some())
    };
    Answers {
        icmp: has_icmp_send || hangs(&ICMP),
        icmpv6: hangs(&ICMPV6),
        reset: hangs(&RESET),
        reset6: hangs(&RESET6),
        icmp_traced: has_icmp_send,
        since_ns: now_ns(),
    }
}

/// What is not seen, and why: a sentence.
pub(super) fn gone_without(answers: Answers) -> Option<String> {
    let unseen: Vec<&str> = [
        (answers.icmp, "ICMP errors"),
        (answers.icmpv6, "ICMPv6 errors"),
        (answers.reset, "TCP resets"),
        (answers.reset6, "TCP resets over IPv6"),
    ]
    .into_iter()
    .filter_map(|(seen, what)| (!seen).then_some(what))
    .collect();
    if unseen.is_empty() {
        return None;
    }
    let why = if has_kprobes() {
        let missing: Vec<_> = ALL.iter().filter_map(Answer::missing_module).collect();
        if missing.is_empty() {
            "the kernel lets no program listen there".to_owned()
        } else {
            format!("when this started, not loaded yet: {}", missing.join(", "))
        }
    } else {
        "this kernel has no kprobes".to_owned()
    };
    Some(if unseen.len() == ALL.len() {
        format!("rejects cannot be told from drops: no tracepoint icmp:icmp_send, and {why}")
    } else {
        format!(
            "rejects that answer by {} cannot be told from drops: {why}",
            unseen.join(", ")
        )
    })
}
