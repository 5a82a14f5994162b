//! `tracer suggest`: the least NetworkPolicy YAML that allows the given drops.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use tracer_policy::suggest;

use super::ends::FlowArgs;
use super::explain::{ProfileArgs, check_pods};
use super::input::Recorded;
use super::{Common, Error, cluster, color, filters};
use crate::cure::{self, Flows};

/// `tracer suggest`
#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Recorded drops, as `tracer watch --record` or `-o json` writes them; `-` for standard input. --port (of
    /// either end) and --protocol narrow them down.
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
    let advice = match &args.input {
        Some(path) => {
            let filter = filters::resolve(matches, common.namespace.as_deref())?;
            let mut flows = Flows::default();
            for drop in Recorded::open(path)? {
                let drop = drop?;
                if let Some(flow) = cure::flow(&drop).filter(|_| filter.passes(&drop)) {
                    flows.add(flow, usize::MAX);
                }
            }
            if flows.as_slice().is_empty() {
                color::note("no drops to suggest anything for");
            }
            cure::advise(&mut loaded.cluster, &flows)
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
            suggest(&loaded.cluster, &[flow])
        }
    };
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
    Ok(ExitCode::SUCCESS)
}
