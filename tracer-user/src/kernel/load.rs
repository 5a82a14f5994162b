//! Loading the programs and attaching them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::kprobe::KProbeLink;
use aya::programs::links::FdLink;
use tracer_common::{ABSENT, Config, STREAK_NS, feature};
use tracing::level_filters::LevelFilter;

use super::answers;
use super::attach::{Flavour, Hook, Hooks, ICMP_SEND, KFREE_SKB};
use super::btf::{Btf, BtfError};
use super::error::{Error, boxed};
use super::flows::Flows;
use super::kept::{Kept, keep};
use super::layout::{add_conntrack, layout};
use super::leaving::Leaving;
use super::loader::{Loader, has_programs, ring_size};
use super::meter::{self, Meter, Programs};
use super::pages;
use super::parts::{Log, Parts};
use super::pin::{Home, Marks, Pin, Settled};
use super::reasons::{ReasonNames, Reasons};
use super::streaks::States;
use super::symbols::LiveSymbols;
use super::sys::give_back_memory;
use super::table::KernelTables;
use crate::decode::{Decoder, PLACES, Resolve, UNREASONED, UNSPECIFIED};

/// Where the running kernel describes its types.
pub(super) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Least time without packets after which a flow leaves the table: long after any CPU counts packets of it
/// beside the table.
const MIN_IDLE: Duration = Duration::from_secs(1);
const _: () = assert!(MIN_IDLE.as_nanos() >= 10 * STREAK_NS as u128);

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which drops.
    pub reasons: Reasons,
    /// Size of the ring buffer in bytes; rounded up to a power of two from 64 KiB on.
    pub ring_bytes: u32,
    /// Flows that are kept apart at a time; 1 to a million.
    pub flows: u32,
    /// How long a flow without packets is kept in the table, in which it takes a place; from a second on. Where
    /// the table is nearly full, that is five seconds at most.
    pub idle: Duration,
    /// How often repeats of a flow are told.
    pub fold_every: Duration,
    /// Where programs and counts stay when the process ends; nowhere by default.
    pub pin: Option<Pin>,
    /// What an earlier process has told of what is pinned there.
    pub marks: Option<Marks>,
    /// What the programs say about themselves, through the crate `log`.
    pub log_level: LevelFilter,
    /// The kernel's BTF, where it is not at `/sys/kernel/btf/vmlinux`.
    pub btf: Option<PathBuf>,
    /// Have the kernel measure what its BPF programs cost, all of them (`BPF_ENABLE_STATS`), for as
    /// long as the capture runs. Costs each run of any program two clock reads, and takes `CAP_SYS_ADMIN`;
    /// without it nothing is measured, which [`Hooks::missing`] says.
    pub measure_cost: bool,
    /// Use this flavour of tracepoint only, not the best there is: to compare them.
    pub flavour: Option<Flavour>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reasons: Reasons::Policy,
            // 16,000 records: 3 ms of a flood of 5 million drops a second.
            ring_bytes: 1 << 20,
            // 5 MB of the kernel's memory.
            flows: 16_384,
            idle: Duration::from_mins(1),
            fold_every: Duration::from_secs(1),
            pin: None,
            marks: None,
            log_level: LevelFilter::OFF,
            btf: None,
            measure_cost: false,
            flavour: None,
        }
    }
}

/// The programs, loaded and attached. Dropping it takes them out again, unless they are pinned.
pub struct Capture {
    pub(super) ring: RingBuf<MapData>,
    pub(super) flows: Flows,
    pub(super) fold_every: Duration,
    /// Hands on what the programs say about themselves.
    pub(super) flush_log: Log,
    /// Where the programs are told who is at the tables.
    pub(super) mode: Array<MapData, u32>,
    /// What keeps the programs on their hooks.
    pub(super) links: Vec<FdLink>,
    /// What keeps the programs on functions that answer senders.
    pub(super) probes: Vec<KProbeLink>,
    /// Where they are pinned.
    pub(super) kept: Option<Kept>,
    meter: Meter,
    hooks: Hooks,
    names: ReasonNames,
    symbols: LiveSymbols,
    /// The kernel measures as long as this is open.
    _stats: Option<OwnedFd>,
}

impl Capture {
    /// Loads the programs and attaches them, or goes on with those an earlier agent left. From then on
    /// drops go into the ring, which holds them until [`Capture::run`].
    pub fn start(options: &Options) -> Result<Self, Error> {
        if !has_programs() {
            return Err(Error::LeftOut);
        }
        // Half of the time that a start takes, so beside the other half.
        let symbols = std::thread::spawn(LiveSymbols::read);
        let path = options.btf.as_deref().unwrap_or(Path::new(KERNEL_BTF));
        let btf = Btf::from_file(path)?;
        let names = reason_names(&btf);
        let config = configure(&btf, options)?;
        let selection = names.select(&options.reasons)?;
        let symbols = symbols
            .join()
            .map_err(|_| Error::Load("reading /proc/kallsyms failed".into()))?;
        let softirq = SOFTIRQS.map(|name| symbols.range(&[name]));
        let softirq = softirq.into_iter().find(|range| range.size != 0);
        let softirq = softirq.unwrap_or_default();
        let [netfilter, tc_ingress, tc_egress] = PLACES.map(|(_, names)| symbols.range(names));
        let [queue, reinject, netkit] = UNREASONED.map(|(_, names)| symbols.range(names));
        // Before 5.18 the kernel has no reason for what a policy drops, or for some of it only; who names one knows.
        let is_named = matches!(options.reasons, Reasons::Named(_));
        let has_reasons = names.tell_policies() || is_named;
        let by_location = !has_reasons && !selection.all && netfilter.size != 0;
        let mut features = config.features;
        if !has_reasons {
            features &= !feature::REASON;
        }
        if by_location {
            features |= feature::BY_LOCATION;
        } else if selection.all || !has_reasons {
            features |= feature::ALL_REASONS;
        }
        let config = Config {
            softirq_start: softirq.start,
            softirq_size: softirq.size,
            netfilter_start: netfilter.start,
            netfilter_size: netfilter.size,
            tc_ingress_start: tc_ingress.start,
            tc_ingress_size: tc_ingress.size,
            tc_egress_start: tc_egress.start,
            tc_egress_size: tc_egress.size,
            queue_start: queue.start,
            queue_size: queue.size,
            reinject_start: reinject.start,
            reinject_size: reinject.size,
            netkit_start: netkit.start,
            netkit_size: netkit.size,
            unspecified: match options.reasons {
                Reasons::Policy => names.number(UNSPECIFIED).unwrap_or(ABSENT),
                _ => ABSENT,
            },
            features,
            ..config
        };
        raise_memlock();
        let loader = Loader {
            btf: &btf,
            options,
            config: &config,
            selection: &selection,
        };
        let mut missing = Vec::new();
        let home = options.pin.as_ref().and_then(|pin| match Home::open(pin) {
            Ok(home) => Some(home),
            Err(why) => {
                missing.push(format!(
                    "nothing is kept while no agent runs, so drops between two runs are not counted: {why}"
                ));
                None
            }
        });
        let (parts, kept) = match home {
            Some(home) => keep(home, &loader, options.marks.as_ref())?,
            None => (loader.load(None, false)?, None),
        };
        let stats = match options.measure_cost.then(meter::measure) {
            Some(Ok(stats)) => Some(stats),
            Some(Err(error)) => {
                missing.push(error.to_string());
                None
            }
            None => None,
        };
        let Parts {
            maps,
            attached,
            listeners,
            log,
        } = parts;
        let flavour = |hook: &Hook| attached.iter().find_map(|one| hook.flavour_of(one.name));
        let no_program = || Error::Load("no program at kfree_skb is pinned".into());
        let kfree_skb = flavour(&KFREE_SKB).ok_or_else(no_program)?;
        let icmp_send = flavour(&ICMP_SEND);
        let seen = answers::seen(icmp_send.is_some(), &listeners);
        missing.extend(answers::gone_without(seen));
        if by_location {
            missing.push(
                "this kernel gives no drop reasons: what netfilter and tc drop is told by where it is dropped"
                    .to_owned(),
            );
        } else if !has_reasons {
            missing.push("this kernel gives no drop reasons: every drop is captured".to_owned());
        }
        let (mut drops, mut answers, mut links) = (None, Vec::new(), Vec::new());
        for one in attached {
            links.push(one.link);
            if KFREE_SKB.flavour_of(one.name).is_some() {
                drops = Some(one.program);
            } else {
                answers.push(one.program);
            }
        }
        let mut probes = Vec::new();
        for one in listeners {
            answers.push(one.program);
            probes.extend(one.link);
        }
        let programs = Programs {
            drops: drops.ok_or_else(no_program)?,
            answers,
        };
        let marks = kept.as_ref().and_then(|kept| {
            let generation = kept.generation.name();
            options.marks.as_ref()?.of(&generation)
        });
        let leaving = Leaving::new(&maps.mode)?;
        let mode = Array::try_from(maps.mode).map_err(boxed)?;
        let reads_pages = pages::are_read(&mode);
        let states = States::new(maps.state)?;
        let entries = Arc::<AtomicUsize>::default();
        let meter = Meter::new(
            states.clone(),
            programs,
            Arc::clone(&entries),
            options.flows,
        );
        Ok(Self {
            ring: RingBuf::try_from(maps.events).map_err(boxed)?,
            flows: Flows::new(
                KernelTables::new(maps.flows, maps.overflow, states, Some(leaving))?,
                options.flows,
                options.idle.max(MIN_IDLE),
                entries,
                marks,
            )?,
            fold_every: options.fold_every,
            flush_log: log,
            mode,
            links,
            probes,
            kept,
            meter,
            hooks: Hooks {
                kfree_skb,
                icmp_send,
                answers: seen,
                reads_pages,
                missing,
            },
            names,
            symbols,
            _stats: stats,
        })
    }

    /// What was attached, and what was gone without.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Whether this goes on with what an earlier process has counted.
    pub fn goes_on(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.goes_on)
    }

    /// Where the programs are pinned: what is to be told when marks are kept.
    pub fn settled(&self) -> Option<Settled> {
        self.kept.as_ref().map(|kept| kept.settled.clone())
    }

    /// Counters and cost, to be read at any time, also while the capture runs and after it.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// What is captured and lost until now.
    pub fn counters(&self) -> Result<super::Counters, Error> {
        self.meter.counters()
    }

    /// A decoder for this kernel's records.
    pub fn decoder(&self) -> Decoder {
        // The last of what a start needs for a moment only.
        give_back_memory();
        let names = Names {
            reasons: self.names.clone(),
            symbols: self.symbols.clone(),
        };
        Decoder::new(Box::new(names)).seeing(self.hooks.answers)
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

/// All the kernel's reason names, those of loaded modules among them.
pub(super) fn reason_names(btf: &Btf<'_>) -> ReasonNames {
    let mut names = ReasonNames::from_btf(btf);
    if let Some(folder) = Path::new(KERNEL_BTF).parent() {
        names.add_modules(btf, folder);
    }
    names
}

fn configure(btf: &Btf<'_>, options: &Options) -> Result<Config, BtfError> {
    let mut config = Config {
        // Half full: the reader has as much time again to come.
        wake_bytes: ring_size(options.ring_bytes) / 2,
        ..layout(btf)?
    };
    describe_conntrack(&mut config, btf);
    Ok(config)
}

/// Adds what is known of connection tracking; whose types say so.
pub(super) fn describe_conntrack(config: &mut Config, btf: &Btf<'_>) -> Option<&'static str> {
    add_conntrack(config, btf);
    if config.ct_status != ABSENT {
        return Some("the kernel");
    }
    let folder = Path::new(KERNEL_BTF).parent()?;
    let data = std::fs::read(folder.join("nf_conntrack")).ok()?;
    let module = Btf::parse_module(data, btf).ok()?;
    add_conntrack(config, &module);
    (config.ct_status != ABSENT).then_some("the module nf_conntrack")
}

/// What runs softirqs, since 6.11 and before: where both are, the latter is but the way to the former.
const SOFTIRQS: [&str; 2] = ["handle_softirqs", "__do_softirq"];

/// Kernels before 5.11 charge maps to this limit. Where it cannot be raised, it mostly need not be:
/// the kernel says so when it must.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let raised = setrlimit(Resource::Memlock, unlimited).or_else(|_| {
        // Up to where anybody may.
        let limit = getrlimit(Resource::Memlock);
        let most = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Memlock, most)
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is");
    }
}
