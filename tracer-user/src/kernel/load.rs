//! Loading the programs and attaching them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf as AyaBtf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use tracer_common::{Config, feature};
use tracing::level_filters::LevelFilter;
use zerocopy::IntoBytes;

use super::btf::{Btf, BtfError};
use super::error::Error;
use super::flows::Flows;
use super::layout::layout;
use super::meter::{self, Meter};
use super::reasons::{ReasonNames, Reasons};
use super::symbols::LiveSymbols;
use super::sys::give_back_memory;
use crate::decode::{Decoder, Resolve};

/// The eBPF object; empty where the build lacked the toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer.bpf.o"));

/// Where the running kernel describes its types.
pub(super) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Smallest ring: room for some hundred records.
const MIN_RING: u32 = 64 << 10;
/// Largest: the kernel counts its size twice in 32 bits.
const MAX_RING: u32 = 1 << 30;

/// Most flows: 300 MB of the kernel's memory.
const MAX_FLOWS: u32 = 1 << 20;

/// The end of a verifier's log that is shown; the cause is in the last lines.
const LOG_LINES: usize = 40;

/// Whether this build carries the programs.
pub(super) fn has_programs() -> bool {
    !OBJECT.is_empty()
}

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which drops.
    pub reasons: Reasons,
    /// Size of the ring buffer in bytes; rounded up to a power of two from 64 KiB on.
    pub ring_bytes: u32,
    /// Flows that are kept apart at a time; 1 to a million.
    pub flows: u32,
    /// How often repeats of a flow are told.
    pub fold_every: Duration,
    /// What the programs say about themselves, through the crate `log`.
    pub log_level: LevelFilter,
    /// The kernel's BTF, where it is not at `/sys/kernel/btf/vmlinux`.
    pub btf: Option<PathBuf>,
    /// Have the kernel measure what its BPF programs cost, all of them (`BPF_ENABLE_STATS`), for as
    /// long as the capture runs. Costs each run of any program two clock reads.
    pub measure_cost: bool,
    /// Use this flavour of tracepoint only, not the best there is: to compare them.
    pub flavour: Option<Flavour>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reasons: Reasons::Policy,
            // 16,000 records: 3 ms of a flood of 5 million drops a second.
            ring_bytes: 4 << 20,
            // 5 MB of the kernel's memory.
            flows: 16_384,
            fold_every: Duration::from_secs(1),
            log_level: LevelFilter::OFF,
            btf: None,
            measure_cost: false,
            flavour: None,
        }
    }
}

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
    /// The program at `icmp:icmp_send`; without it no reject is told from a drop.
    pub icmp_send: Option<Flavour>,
    /// What was gone without, and why: sentences.
    pub missing: Vec<String>,
}

/// The programs, loaded and attached. Dropping it takes them out again.
pub struct Capture {
    pub(super) ebpf: Ebpf,
    pub(super) ring: RingBuf<MapData>,
    pub(super) flows: Flows,
    pub(super) fold_every: Duration,
    /// Hands on what the programs say about themselves.
    pub(super) flush_log: Box<dyn FnMut() + Send>,
    meter: Meter,
    hooks: Hooks,
    names: ReasonNames,
    /// The kernel measures as long as this is open.
    _stats: Option<std::os::fd::OwnedFd>,
}

impl Capture {
    /// Loads the programs and attaches them. From then on drops go into the ring, which holds them
    /// until [`Capture::run`].
    pub fn start(options: &Options) -> Result<Self, Error> {
        if !has_programs() {
            return Err(Error::LeftOut);
        }
        let path = options.btf.as_deref().unwrap_or(Path::new(KERNEL_BTF));
        let btf = Btf::from_file(path)?;
        let names = reason_names(&btf);
        let config = configure(&btf, options)?;
        let selection = names.select(&options.reasons)?;
        let config = Config {
            features: config.features
                | all_reasons(selection.all || config.features & feature::REASON == 0),
            ..config
        };
        raise_memlock();

        let mut ebpf = EbpfLoader::new()
            // The programs hold no CO-RE relocations.
            .btf(None)
            .override_global("CONFIG", config.as_bytes(), true)
            .override_global("REASONS", &selection.bitmap, true)
            .override_global(aya_log::LEVEL, &log_level(options.log_level), false)
            .map_max_entries("EVENTS", ring_size(options.ring_bytes))
            .map_max_entries("FLOWS", options.flows.clamp(1, MAX_FLOWS))
            .load(OBJECT)
            .map_err(load_error)?;
        let stats = options.measure_cost.then(meter::measure).transpose()?;

        let attacher = Attacher {
            kernel: &btf,
            aya: OnceCell::new(),
            only: options.flavour,
        };
        let flush_log = log_of(&mut ebpf);
        let mut missing = Vec::new();
        // First: a reject is noted before its drop is seen.
        let icmp_send = match attacher.attach(&mut ebpf, &ICMP_SEND) {
            Ok(flavour) => Some(flavour),
            Err(why) => {
                missing.push(format!(
                    "rejects cannot be told from drops: no tracepoint icmp:icmp_send ({why})"
                ));
                None
            }
        };
        if config.features & feature::REASON == 0 {
            missing.push("this kernel gives no drop reasons: every drop is captured".to_owned());
        }
        let kfree_skb = attacher.attach(&mut ebpf, &KFREE_SKB)?;
        let meter = Meter::new(&mut ebpf, &[&KFREE_SKB, &ICMP_SEND])?;
        let ring = match ebpf.take_map("EVENTS") {
            Some(Map::RingBuf(data)) => RingBuf::try_from(Map::RingBuf(data)).map_err(boxed)?,
            _ => return Err(Error::Load("the object has no ring buffer `EVENTS`".into())),
        };
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or_else(|| Error::Load(format!("the object has no map `{name}`").into()))
        };
        let flows = Flows::new(take("FLOWS")?, take("OVERFLOW")?, options.flows)?;
        Ok(Self {
            ebpf,
            ring,
            flows,
            fold_every: options.fold_every,
            flush_log,
            meter,
            hooks: Hooks {
                kfree_skb,
                icmp_send,
                missing,
            },
            names,
            _stats: stats,
        })
    }

    /// What was attached, and what was gone without.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Counters and cost, to be read at any time, also while the capture runs and after it.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// What is captured and lost until now.
    pub fn counters(&self) -> Result<super::Counters, Error> {
        self.meter.counters()
    }

    /// A decoder for this kernel's records. Reads the kernel's symbols, some 20 ms.
    pub fn decoder(&self) -> Decoder {
        let symbols = LiveSymbols::read();
        // The last of what a start needs for a moment only.
        give_back_memory();
        Decoder::new(Box::new(Names {
            reasons: self.names.clone(),
            symbols,
        }))
    }
}

/// The running kernel's names.
struct Names {
    reasons: ReasonNames,
    symbols: LiveSymbols,
}

impl Resolve for Names {
    fn reason(&self, number: u32) -> Option<String> {
        self.reasons.name(number).map(str::to_owned)
    }

    fn symbol(&mut self, address: u64) -> Option<String> {
        self.symbols.name(address)
    }
}

/// A tracepoint, and the programs for it by flavour.
pub(super) struct Hook {
    pub(super) tracepoint: &'static str,
    pub(super) btf: &'static str,
    pub(super) raw: &'static str,
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

/// All the kernel's reason names, those of loaded modules among them.
pub(super) fn reason_names(btf: &Btf<'_>) -> ReasonNames {
    let mut names = ReasonNames::from_btf(btf);
    if let Some(folder) = Path::new(KERNEL_BTF).parent() {
        names.add_modules(btf, folder);
    }
    names
}

fn configure(btf: &Btf<'_>, options: &Options) -> Result<Config, BtfError> {
    Ok(Config {
        // Half full: the reader has as much time again to come.
        wake_bytes: ring_size(options.ring_bytes) / 2,
        ..layout(btf)?
    })
}

const fn all_reasons(all: bool) -> u32 {
    if all { feature::ALL_REASONS } else { 0 }
}

/// Attaches programs, the best flavour first.
struct Attacher<'a> {
    kernel: &'a Btf<'a>,
    /// The same as aya wants it; takes it 20 ms to read.
    aya: OnceCell<AyaBtf>,
    only: Option<Flavour>,
}

impl Attacher<'_> {
    /// BTF tracepoint, and where that is not to be had, raw tracepoint.
    fn attach(&self, ebpf: &mut Ebpf, hook: &Hook) -> Result<Flavour, Error> {
        let mut refused = None;
        let described = self.kernel.tracepoint(hook.tracepoint).is_some();
        if self.only == Some(Flavour::Btf) || self.only.is_none() && described {
            match self.attach_btf(ebpf, hook) {
                Ok(()) => return Ok(Flavour::Btf),
                Err(error) => refused = Some(error),
            }
        }
        if self.only == Some(Flavour::Btf)
            && let Some(error) = refused
        {
            return Err(program_error(hook.btf, error));
        }
        match attach_raw(ebpf, hook) {
            Ok(()) => {
                if let Some(error) = refused {
                    tracing::debug!(%error, program = hook.btf, "no BTF tracepoint");
                }
                Ok(Flavour::Raw)
            }
            // What failed first says more.
            Err(error) => Err(match refused {
                Some(first) => program_error(hook.btf, first),
                None => program_error(hook.raw, error),
            }),
        }
    }

    fn attach_btf(&self, ebpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
        let btf = if let Some(btf) = self.aya.get() {
            btf
        } else {
            let btf = AyaBtf::from_sys_fs()?;
            self.aya.get_or_init(|| btf)
        };
        let program: &mut BtfTracePoint = program(ebpf, hook.btf)?;
        program.load(hook.tracepoint, btf)?;
        program.attach().map(drop)
    }
}

fn attach_raw(ebpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = program(ebpf, hook.raw)?;
    program.load()?;
    program.attach(hook.tracepoint).map(drop)
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

/// A power of two between [`MIN_RING`] and [`MAX_RING`].
fn ring_size(bytes: u32) -> u32 {
    bytes.clamp(MIN_RING, MAX_RING).next_power_of_two()
}

/// `aya_log`'s numbers; 0 is off.
fn log_level(level: LevelFilter) -> u8 {
    level.into_level().map_or(0, |level| match level {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    })
}

/// The programs' own messages, to the crate `log`. They have none where the level was pruned.
fn log_of(ebpf: &mut Ebpf) -> Box<dyn FnMut() + Send> {
    match EbpfLogger::init(ebpf) {
        Ok(mut logger) => Box::new(move || logger.flush()),
        Err(_) => Box::new(|| {}),
    }
}

/// Kernels before 5.11 charge maps to this limit. Where it cannot be raised, it mostly need not be:
/// the kernel says so when it must.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is");
    }
}

fn load_error(error: EbpfError) -> Error {
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
        source: Box::new(error),
    }
}

pub(super) fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Load(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert_eq!(ring_size(0), MIN_RING);
        assert_eq!(ring_size(4 << 20), 4 << 20);
        assert_eq!(ring_size((4 << 20) + 1), 8 << 20);
        assert_eq!(ring_size(u32::MAX), MAX_RING);
    }

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
