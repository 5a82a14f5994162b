//! `tracer suggest`: the least NetworkPolicy YAML that allows the given drops.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use tracer_policy::model::Protocol;
use tracer_policy::{End, Flow, suggest};

use super::ends::FlowArgs;
use super::explain::{ProfileArgs, check_pods};
use super::input::Recorded;
use super::{Common, Error, cluster, color, filters};
use crate::record::Drop;

/// `tracer suggest`
#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Recorded drops, as `tracer watch --record` or `-o json` writes them; `-` for standard input.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["from", "to"])]
    input: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Only recorded drops of these classes.
    #[arg(long, value_name = "CLASS", value_delimiter = ',', requires = "input")]
    class: Vec<String>,
    /// Only recorded drops of this pod, at either end.
    #[arg(
        long,
        value_name = "NS/NAME",
        value_delimiter = ',',
        requires = "input"
    )]
    pod: Vec<String>,
}

pub(super) fn run(
    args: &SuggestArgs,
    common: &Common,
    matches: &ArgMatches,
) -> Result<ExitCode, Error> {
    let mut loaded = cluster::required(common, "suggest")?;
    args.profile.apply(&mut loaded.cluster);
    let flows = match &args.input {
        Some(path) => {
            let filter = filters::resolve(matches, common.namespace.as_deref())?;
            // What a dataplane lets through whatever policies say, it did not let through here.
            let strict = loaded.cluster.profile().without_exemptions();
            loaded.cluster.set_profile(Some(strict));
            let mut seen = HashSet::new();
            let mut flows = Vec::new();
            for drop in Recorded::open(path)? {
                let drop = drop?;
                if !filter.passes(&drop) {
                    continue;
                }
                if let Some(flow) = flow(&drop).filter(|flow| seen.insert(flow.clone())) {
                    flows.push(flow);
                }
            }
            flows
        }
        None => {
            let flow = args
                .flow
                .resolve(common.namespace.as_deref())
                .map_err(Error::Usage)?;
            let flow = flow.ok_or_else(|| {
                Error::Usage("suggest: give --from, --to and --port, or --input FILE".into())
            })?;
            check_pods(&loaded.cluster, &flow).map_err(Error::Usage)?;
            vec![flow]
        }
    };
    let advice = suggest(&loaded.cluster, &flows);
    let mut out = anstream::stdout();
    for (index, suggestion) in advice.suggestions.iter().enumerate() {
        if index > 0 {
            writeln!(out, "---")?;
        }
        write!(out, "{}", suggestion.to_yaml())?;
    }
    out.flush()?;
    for (flow, refusal) in &advice.refusals {
        color::note(&format!("nothing to suggest for {flow}: {refusal}"));
    }
    if flows.is_empty() {
        color::note("no drops to suggest anything for");
    }
    Ok(ExitCode::SUCCESS)
}

/// The flow a dropped packet belonged to, from who opened it to who serves it.
fn flow(drop: &Drop) -> Option<Flow> {
    let (source, destination) = (drop.source.as_ref()?, drop.destination.as_ref()?);
    let name = drop.protocol.as_deref()?;
    let protocol =
        Protocol::from_name(name).or_else(|| name.parse().ok().map(Protocol::from_number))?;
    let has = |flag: &str| drop.tcp_flags.iter().flatten().any(|set| set == flag);
    // In the middle of a connection the lower port is the server's.
    let reply = if has("SYN") {
        has("ACK")
    } else {
        drop.tcp_flags.is_some() && source.port < destination.port
    };
    let (from, to) = if reply {
        (destination, source)
    } else {
        (source, destination)
    };
    Some(Flow {
        from: End::Ip(from.ip),
        to: End::Ip(to.ip),
        port: to.port.filter(|_| protocol.has_ports()),
        protocol,
    })
}
