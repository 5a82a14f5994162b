//! `tracer watch`: live stream of drops, or a replay.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, ValueEnum};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::agent_stream::{self, Asked, Tail, ago};
use super::input::Recorded;
use super::{BPFFS, CaptureArgs, Common, Error, cluster, color, filters, settings};
use crate::attribute::Attributor;
use crate::filter::Filter;
use crate::http::State;
use crate::kernel::{Capture, Clock, DeviceNames, Rulesets, TcPrograms};
use crate::pipeline::{self, Inbox, Losses, Outcome, Outlet, Stages};
use crate::record::Drop;
use crate::sink::{Compact, Json, Pcapng, Sink, Wide};
use crate::stream::{Client, DEFAULT_SOCKET};

/// `tracer watch`
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Go on with what happens from now on: the default, except where --last or --since ask for the
    /// past.
    #[arg(short, long)]
    follow: bool,
    /// The last N drops that pass the filters, of the agent's history or of those recorded. With --follow,
    /// the last N of all.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// The drops of the last while, such as 5m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Stop after a while, such as 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "input")]
    duration: Option<Duration>,
    /// Stop after N lines.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How to print: compact for people, wide for more columns, json for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,
    /// Also write what is shown to FILE, as JSON lines that --input reads.
    #[arg(long, value_name = "FILE.jsonl")]
    record: Option<PathBuf>,
    /// Also write the first 128 bytes of each packet shown to FILE, for Wireshark. Captures by itself,
    /// as an agent streams no packets.
    #[arg(long, value_name = "FILE.pcapng", conflicts_with = "input")]
    pcap: Option<PathBuf>,
    /// Replay recorded drops instead of watching (`-` for standard input). With --cluster they are
    /// attributed and explained anew.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "follow")]
    input: Option<PathBuf>,
    /// Where the node's agent listens. Without --cluster the agent is asked first; where none runs,
    /// tracer captures by itself.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "TRACER_SOCKET")]
    socket: PathBuf,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    filters: filters::FilterArgs,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line a drop for people.
    Compact,
    /// More columns.
    Wide,
    /// One JSON object a line.
    Json,
}

/// A span of time such as `30s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a positive duration such as 30s, 5m or 1h30m".to_owned();
    let span: SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(span)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(expected)
}

pub(super) fn run(
    args: &WatchArgs,
    common: &Common,
    matches: &ArgMatches,
) -> Result<ExitCode, Error> {
    let filter = filters::resolve(matches, common.namespace.as_deref())?;
    if let Some(path) = &args.input {
        return replay(args, common, filter, path);
    }
    let past = args.last.is_some() || args.since.is_some();
    // Asked for a cluster, reasons or packets of one's own, an agent has the wrong ones.
    let own = common.cluster.is_some() || args.pcap.is_some() || CaptureArgs::given(matches);
    if !own || past {
        let asked = Asked {
            last: args.last,
            since: args.since,
            follow: args.follow || !past,
        };
        match asked.connect(&args.socket) {
            Ok(client) => return from_agent(args, client, filter, asked.last_of_all()),
            Err(error) if past && error.nobody_there() => {
                return Err(Error::Environment(format!(
                    "--last and --since need a history, and {error}: start `tracer agent`, or give \
                     recorded drops with --input"
                )));
            }
            Err(error) if error.nobody_there() => {}
            Err(error) if past => return Err(error.into()),
            Err(error) => color::warn(&format!("{error}; capturing by itself")),
        }
    }
    live(args, common, filter)
}

/// Shows an agent's stream until it ends, or is ended; of one that ends only the `last` ones, if given.
fn from_agent(
    args: &WatchArgs,
    client: Client,
    filter: Filter,
    last: Option<usize>,
) -> Result<ExitCode, Error> {
    agent_stream::greet(&client, "watching");
    let mut tail = last.map(|last| Tail::new(filter.clone(), last));
    let mut outlet = Outlet::new(filter, sinks(args)?, args.count);
    let read = agent_stream::each_drop(client, args.duration, |drop| {
        if let Some(tail) = &mut tail {
            tail.push(drop);
            return Ok(true);
        }
        let more = outlet.accept(&drop, None)?;
        outlet.flush()?;
        Ok(more)
    });
    if read.is_ok()
        && let Some(tail) = tail
    {
        feed(tail.into_drops().map(Ok), &mut outlet)?;
    }
    outlet.flush()?;
    read.map(|()| ExitCode::SUCCESS)
}

/// The sinks that the options ask for.
fn sinks(args: &WatchArgs) -> Result<Vec<Box<dyn Sink>>, Error> {
    let out = BufWriter::with_capacity(1 << 16, anstream::stdout());
    let mut sinks: Vec<Box<dyn Sink>> = vec![match args.output {
        Output::Compact => Box::new(Compact::new(out, settings::width(), TimeZone::system())),
        Output::Wide => Box::new(Wide::new(out)),
        Output::Json => Box::new(Json::new(out)),
    }];
    let create = |path: &PathBuf| {
        File::create(path)
            .map(BufWriter::new)
            .map_err(|source| Error::File {
                action: "write",
                path: path.clone(),
                source,
            })
    };
    if let Some(path) = &args.record {
        sinks.push(Box::new(Json::new(create(path)?)));
    }
    if let Some(path) = &args.pcap {
        sinks.push(Box::new(Pcapng::new(create(path)?)?));
    }
    Ok(sinks)
}

fn live(args: &WatchArgs, common: &Common, filter: Filter) -> Result<ExitCode, Error> {
    let node = settings::node_name();
    let state = cluster::for_capture(common, &node)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        // Before anything is attached, so that no Ctrl-C finds us without a handler.
        pipeline::stop_on_signals(&stop, args.duration)?;
        let mut capture = Capture::start(&args.capture.options(common))?;
        let inbox = Inbox::default();
        let attribution = state.start(&node, inbox.waker(), None, &stop).await?;
        let stages = Stages {
            decoder: capture.decoder(),
            clock: Clock::new(),
            tc: TcPrograms::new(Path::new(BPFFS)),
            devices: DeviceNames::new(),
            rulesets: Rulesets::new(),
            attributor: attribution.attributor,
            following: attribution.following,
            ledger: None,
            sizes: Arc::default(),
        };
        let outlet = Outlet::new(filter, sinks(args)?, args.count);
        let losses = Arc::new(Losses::default());
        for missing in &capture.hooks().missing {
            color::note(missing);
        }
        let hook = capture.hooks().kfree_skb.as_str();
        color::note(&format!("watching drops on {node} ({hook} kfree_skb)"));
        let result = pipeline::run(
            &mut capture,
            inbox,
            stages,
            outlet,
            Arc::clone(&losses),
            stop.clone(),
        )
        .await;
        stop.cancel();
        if let State::Live(status) = &attribution.state
            && !status.health().is_synced()
        {
            color::warn(&status.health().to_string());
        }
        let kernel = capture.counters()?.lost();
        let lost = kernel + losses.decode();
        if lost > 0 {
            color::warn(&format!(
                "{lost} drops were seen but lost on the way (kernel {kernel}, undecodable {})",
                losses.decode()
            ));
        }
        result.map_err(Error::from)
    })?;
    summary(outcome);
    Ok(ExitCode::SUCCESS)
}

fn summary(outcome: Outcome) {
    let Outcome {
        shown,
        packets,
        filtered,
    } = outcome;
    let held_back = if filtered > 0 {
        format!(", {filtered} held back by filters")
    } else {
        String::new()
    };
    color::note(&format!("{packets} packets in {shown} lines{held_back}"));
}

fn replay(
    args: &WatchArgs,
    common: &Common,
    filter: Filter,
    path: &Path,
) -> Result<ExitCode, Error> {
    let mut outlet = Outlet::new(filter.clone(), sinks(args)?, args.count);
    let mut attributor =
        cluster::given(common)?.map(|state| Attributor::new(settings::node_name(), Some(state)));
    let since = args.since.map(ago);
    let drops = Recorded::open(path)?.filter(|drop| match (drop, since) {
        (Ok(drop), Some(since)) => drop.time >= since,
        _ => true,
    });
    let drops = drops.map(|drop| {
        drop.map(|drop| match &mut attributor {
            Some(attributor) => attributor.again(&drop),
            None => drop,
        })
    });
    match args.last {
        Some(last) => {
            let mut tail = Tail::new(filter, last);
            for drop in drops {
                tail.push(drop?);
            }
            feed(tail.into_drops().map(Ok), &mut outlet)?;
        }
        None => feed(drops, &mut outlet)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn feed(
    drops: impl Iterator<Item = Result<Drop, Error>>,
    outlet: &mut Outlet,
) -> Result<(), Error> {
    for drop in drops {
        match drop {
            Ok(drop) => {
                if !outlet.accept(&drop, None)? {
                    break;
                }
            }
            Err(error) => {
                outlet.flush()?;
                return Err(error);
            }
        }
    }
    Ok(outlet.flush()?)
}
