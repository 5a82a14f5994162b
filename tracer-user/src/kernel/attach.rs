//! Hanging the programs on their tracepoints, the best flavour first.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf as AyaBtf, Ebpf, EbpfError};
use rustix::process::{Resource, getrlimit};

use super::btf::Btf;
use super::error::{Error, boxed};
use crate::decode::Answers;

/// The end of a verifier's log that is shown; the cause is in the last lines.
const LOG_LINES: usize = 40;

/// How a program hangs on its tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// BTF tracepoint (`tp_btf`).
    Btf,
    /// Raw tracepoint.
    Raw,
}

impl Flavour {
    /// As users call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Btf => "BTF tracepoint",
            Self::Raw => "raw tracepoint",
        }
    }
}

/// What was attached, and what was gone without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The program at `skb:kfree_skb`.
    pub kfree_skb: Flavour,
    /// The program at `icmp:icmp_send`.
    pub icmp_send: Option<Flavour>,
    /// Which answers to senders are seen, there and by kprobes; others are not told from drops.
    pub answers: Answers,
    /// Headers are also read where they are in pages of their own.
    pub reads_pages: bool,
    /// What was gone without, and why: sentences.
    pub missing: Vec<String>,
}

/// A tracepoint, and the programs for it by flavour.
pub(super) struct Hook {
    pub(super) tracepoint: &'static str,
    pub(super) btf: &'static str,
    pub(super) raw: &'static str,
}

/// All of them, the one that counts last: when it hangs, the others do.
pub(super) const HOOKS: [&Hook; 2] = [&ICMP_SEND, &KFREE_SKB];

impl Hook {
    /// Which flavour a program of this hook is.
    pub(super) fn flavour_of(&self, program: &str) -> Option<Flavour> {
        match program {
            name if name == self.btf => Some(Flavour::Btf),
            name if name == self.raw => Some(Flavour::Raw),
            _ => None,
        }
    }
}

pub(super) const KFREE_SKB: Hook = Hook {
    tracepoint: "kfree_skb",
    btf: "kfree_skb_btf",
    raw: "kfree_skb_raw",
};

pub(super) const ICMP_SEND: Hook = Hook {
    tracepoint: "icmp_send",
    btf: "icmp_send_btf",
    raw: "icmp_send_raw",
};

/// A program that hangs on its tracepoint until its link is dropped.
pub(super) struct Attached {
    /// The program's name.
    pub(super) name: &'static str,
    pub(super) program: OwnedFd,
    pub(super) link: FdLink,
}

/// Attaches programs, the best flavour first.
pub(super) struct Attacher<'a> {
    kernel: &'a Btf<'a>,
    /// The same as aya wants it; takes it 20 ms to read.
    aya: OnceCell<AyaBtf>,
    only: Option<Flavour>,
}

impl<'a> Attacher<'a> {
    pub(super) const fn new(kernel: &'a Btf<'a>, only: Option<Flavour>) -> Self {
        Self {
            kernel,
            aya: OnceCell::new(),
            only,
        }
    }

    /// From now on only this one will do.
    pub(super) const fn insist_on(&mut self, only: Option<Flavour>) {
        self.only = only;
    }

    /// BTF tracepoint, and where that is not to be had, raw tracepoint.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, hook: &Hook) -> Result<Attached, Error> {
        let mut refused = None;
        let described = self.kernel.tracepoint(hook.tracepoint).is_some();
        if self.only == Some(Flavour::Btf) || self.only.is_none() && described {
            match self.attach_btf(ebpf, hook) {
                Ok(attached) => return Ok(attached),
                Err(error) => refused = Some(error),
            }
        }
        if self.only == Some(Flavour::Btf)
            && let Some(error) = refused
        {
            return Err(program_error(hook.btf, error));
        }
        match attach_raw(ebpf, hook) {
            Ok(attached) => {
                if let Some(error) = refused {
                    tracing::debug!(%error, program = hook.btf, "no BTF tracepoint");
                }
                Ok(attached)
            }
            // What failed first says more.
            Err(error) => Err(match refused {
                Some(first) => program_error(hook.btf, first),
                None => program_error(hook.raw, error),
            }),
        }
    }

    fn attach_btf(&self, ebpf: &mut Ebpf, hook: &Hook) -> Result<Attached, ProgramError> {
        let btf = if let Some(btf) = self.aya.get() {
            btf
        } else {
            let btf = AyaBtf::from_sys_fs()?;
            self.aya.get_or_init(|| btf)
        };
        let program: &mut BtfTracePoint = program(ebpf, hook.btf)?;
        program.load(hook.tracepoint, btf)?;
        let link = program.attach()?;
        Ok(Attached {
            name: hook.btf,
            program: program.fd()?.as_fd().try_clone_to_owned()?,
            link: program.take_link(link)?.into(),
        })
    }
}

fn attach_raw(ebpf: &mut Ebpf, hook: &Hook) -> Result<Attached, ProgramError> {
    let program: &mut RawTracePoint = program(ebpf, hook.raw)?;
    program.load()?;
    let link = program.attach(hook.tracepoint)?;
    Ok(Attached {
        name: hook.raw,
        program: program.fd()?.as_fd().try_clone_to_owned()?,
        link: program.take_link(link)?.into(),
    })
}

fn program<'ebpf, P>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut P, ProgramError>
where
    &'ebpf mut P: TryFrom<&'ebpf mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| ProgramError::InvalidName {
            name: name.to_owned(),
        })?
        .try_into()
}

pub(super) fn load_error(error: EbpfError) -> Error {
    if denied(&error) {
        return no_privilege(error);
    }
    boxed(error)
}

fn program_error(program: &'static str, error: ProgramError) -> Error {
    if let ProgramError::LoadError { verifier_log, .. } = &error
        && let Some(log) = tail(&verifier_log.to_string())
    {
        return Error::Verifier { program, log };
    }
    if denied(&error) {
        return no_privilege(error);
    }
    boxed(error)
}

/// The end of a verifier's log; `None` where the kernel refused before it verified anything.
fn tail(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
    (!end.is_empty()).then(|| end.join("\n"))
}

/// Whether EPERM is at the root of an error.
fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

fn no_privilege(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::NoPrivilege {
        missing: super::probe::missing_capabilities(),
        memlock: getrlimit(Resource::Memlock).current,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn a_refusal_is_found_however_deep() {
        let error = |kind| {
            EbpfError::ProgramError(ProgramError::SyscallError(SyscallError {
                call: "bpf_map_create",
                io_error: io::Error::from(kind),
            }))
        };
        assert!(denied(&error(io::ErrorKind::PermissionDenied)));
        assert!(!denied(&error(io::ErrorKind::InvalidInput)));
        let error = load_error(error(io::ErrorKind::PermissionDenied));
        assert!(matches!(error, Error::NoPrivilege { .. }), "{error:?}");
    }

    #[test]
    fn the_end_of_the_verifiers_log_is_kept() {
        let log = (0..100).map(|line| format!("{line}: (85) call\n\n"));
        let tail = tail(&log.collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(tail.lines().count(), LOG_LINES);
        assert!(tail.ends_with("99: (85) call"));
        assert_eq!(super::tail("\n"), None);
    }
}
