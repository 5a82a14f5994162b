//! `tracer suggest`: the least NetworkPolicy YAML that allows the given drops.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use tracer_policy::{CiliumPolicy, Cluster, Refusal, Suggestion, suggest};

use super::agent_stream::{self, Asked, Tail};
use super::ends::FlowArgs;
use super::explain::{ProfileArgs, check_pods};
use super::input::Recorded;
use super::watch::duration;
use super::{Common, Error, cluster, color, filters};
use crate::curable;
use crate::cure::{self, Flows};
use crate::filter::Filter;
use crate::record::Drop;
use crate::stream::DEFAULT_SOCKET;

/// `tracer suggest`
#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Recorded drops, as `tracer watch --record` or `-o json` writes them; `-` for standard input. --port (of
    /// either end) and --protocol narrow them down. Without this and without --from, the node's agent is asked
    /// for the drops that it remembers.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["from", "to"])]
    input: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Only drops of these classes.
    #[arg(
        long,
        value_name = "CLASS",
        value_delimiter = ',',
        conflicts_with = "from"
    )]
    class: Vec<String>,
    /// Only drops of this pod, at either end.
    #[arg(
        long,
        value_name = "NS/NAME",
        value_delimiter = ',',
        conflicts_with = "from"
    )]
    pod: Vec<String>,
    /// The last N drops of the agent's that pass the filters.
    #[arg(long, value_name = "N", conflicts_with_all = ["input", "from"])]
    last: Option<usize>,
    /// The agent's drops of the last while, such as 5m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["input", "from"])]
    since: Option<Duration>,
    /// Wait for further drops that long, such as 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["input", "from"])]
    duration: Option<Duration>,
    /// Where the node's agent listens.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "TRACER_SOCKET")]
    socket: PathBuf,
}

pub(super) fn run(
    args: &SuggestArgs,
    common: &Common,
    matches: &ArgMatches,
) -> Result<ExitCode, Error> {
    if matches.get_one::<u16>("port") == Some(&0) {
        return Err(Error::Usage(
            "--port 0: expected a port from 1 to 65535".into(),
        ));
    }
    let mut loaded = cluster::required(common, "suggest")?;
    args.profile.apply(&mut loaded.cluster);
    let namespace = common.namespace.as_deref();
    let advice = match args.flow.resolve(namespace).map_err(Error::Usage)? {
        Some(flow) => {
            check_pods(&loaded.cluster, &flow).map_err(Error::Usage)?;
            suggest(&loaded.cluster, &[flow])
        }
        None => {
            let filter = filters::resolve(matches, namespace)?;
            let flows = dropped(args, &filter, &loaded.cluster)?;
            cure::advise(&mut loaded.cluster, &flows)
        }
    };
    let mut out = anstream::stdout();
    let objects = advice.suggestions.iter().map(Suggestion::to_yaml);
    let ciliums = advice.cilium_policies();
    let ciliums = ciliums.iter().map(CiliumPolicy::to_yaml);
    for (index, object) in objects.chain(ciliums).enumerate() {
        if index > 0 {
            writeln!(out, "---")?;
        }
        write!(out, "{object}")?;
    }
    out.flush()?;
    for (flow, refusal) in &advice.refusals {
        let no = match refusal {
            Refusal::CiliumEntity {
                policy: Some(_), ..
            } => "no NetworkPolicy",
            _ => "nothing",
        };
        color::note(&format!("{no} to suggest for {flow}: {refusal}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The flows of recorded or of the agent's drops, each once; what no policy can cure is said.
fn dropped(args: &SuggestArgs, filter: &Filter, cluster: &Cluster) -> Result<Flows, Error> {
    let mut wanted = Wanted::new(cluster);
    if let Some(path) = &args.input {
        for drop in Recorded::open(path)? {
            let drop = drop?;
            if filter.passes(&drop) {
                wanted.add(&drop);
            }
        }
    } else {
        // Without anything said, all that the agent remembers.
        let all = args.duration.is_none() && args.since.is_none() && args.last.is_none();
        let asked = Asked {
            last: args.last,
            since: args.since.or(all.then_some(Duration::MAX)),
            follow: args.duration.is_some(),
        };
        let client = asked.connect(&args.socket).map_err(|error| {
            if error.nobody_there() {
                Error::Environment(format!(
                    "{error}: start `tracer agent`, or give --from, --to and --port, or recorded drops with --input"
                ))
            } else {
                error.into()
            }
        })?;
        agent_stream::greet(&client, "suggesting for");
        let mut tail = asked
            .last_of_all()
            .map(|last| Tail::new(filter.clone(), last));
        agent_stream::each_drop(client, args.duration, |drop| {
            match &mut tail {
                Some(tail) => tail.push(drop),
                None if filter.passes(&drop) => wanted.add(&drop),
                None => {}
            }
            Ok(true)
        })?;
        let tail = tail.into_iter().flat_map(Tail::into_drops);
        tail.for_each(|drop| wanted.add(&drop));
    }
    if wanted.drops == 0 {
        color::note("no drops to suggest anything for");
    }
    Ok(wanted.flows)
}

/// What is wanted.
struct Wanted<'a> {
    cluster: &'a Cluster,
    drops: usize,
    flows: Flows,
    refused: HashSet<curable::Incurable>,
}

impl<'a> Wanted<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            drops: 0,
            flows: Flows::default(),
            refused: HashSet::new(),
        }
    }

    fn add(&mut self, drop: &Drop) {
        self.drops += 1;
        match curable::flow(drop, self.cluster) {
            Ok(flow) => {
                self.flows.add(flow, usize::MAX);
            }
            Err(incurable) => {
                if !self.refused.contains(&incurable) {
                    let curable::Incurable { what, why } = &incurable;
                    color::note(&format!("nothing to suggest for {what}: {why}"));
                    self.refused.insert(incurable);
                }
            }
        }
    }
}
