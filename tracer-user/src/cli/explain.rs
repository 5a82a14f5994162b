//! `tracer explain`: would this traffic be allowed; if not, why not.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;
use tracer_policy::{Cluster, Flow, Profile, ProfileName, Verdict};

use super::ends::{FlowArgs, FlowText};
use super::input::Lines;
use super::{Common, Error, cluster, color, verdict};

/// `tracer explain`
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Many flows, one a line: {"from":..,"to":..,"port":..,"protocol":..,"icmp":{"type":..,"code":..}}; `-` for
    /// standard input. One JSON verdict a line comes back, in the same order.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["from", "to", "port"])]
    batch: Option<PathBuf>,
    /// How to print one verdict.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// How the readings that the API leaves open are settled.
#[derive(Clone, Debug, Args)]
pub(super) struct ProfileArgs {
    /// Whose reading of what the API leaves open: k3s, calico, cilium or spec; detected from the
    /// cluster's objects by default.
    #[arg(long, value_name = "PROFILE")]
    dataplane: Option<ProfileName>,
}

impl ProfileArgs {
    /// Settles the cluster's profile.
    pub(super) fn apply(&self, cluster: &mut Cluster) {
        cluster.set_profile(self.dataplane.map(Profile::named));
    }
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Exit code where traffic is denied.
const DENIED: u8 = 1;

pub(super) fn run(args: &ExplainArgs, common: &Common) -> Result<ExitCode, Error> {
    let both = [
        args.batch.as_deref(),
        common.cluster.as_deref().map(Path::new),
    ];
    if both == [Some(Path::new("-")); 2] {
        return Err(Error::Usage(
            "explain: --cluster - and --batch - cannot both be read from standard input; give a file for one".into(),
        ));
    }
    let mut loaded = cluster::required(common, "explain")?;
    // A template that is not as the API says leaves the others alone.
    while let Err(error) = loaded.add_pods_of_templates() {
        color::warn(&format!("left out: {error}"));
    }
    args.profile.apply(&mut loaded.cluster);
    let namespace = common.namespace.as_deref();
    if let Some(path) = &args.batch {
        return batch(path, &loaded.cluster, namespace);
    }
    let flow = args
        .flow
        .resolve(namespace)
        .map_err(Error::Usage)?
        .ok_or_else(|| Error::Usage("explain: give --from and --to, or --batch FILE".into()))?;
    check_pods(&loaded.cluster, &flow).map_err(Error::Usage)?;
    let verdict = loaded.cluster.evaluate(&flow);
    let mut out = anstream::stdout();
    match args.output {
        Output::Text => verdict::write(&mut out, &flow, &verdict, &loaded.cluster)?,
        Output::Json => writeln!(
            out,
            "{}",
            serde_json::to_string(&verdict).map_err(std::io::Error::from)?
        )?,
    }
    out.flush()?;
    Ok(code(!verdict.is_allowed()))
}

fn code(denied: bool) -> ExitCode {
    if denied {
        ExitCode::from(DENIED)
    } else {
        ExitCode::SUCCESS
    }
}

/// A pod by name must be there: what is said of one that is not would be made up. (Of one that could not be
/// read the verdict says so.)
pub(super) fn check_pods(cluster: &Cluster, flow: &Flow) -> Result<(), String> {
    for (field, end) in [("from", &flow.from), ("to", &flow.to)] {
        if let tracer_policy::End::Pod(id) = end
            && cluster.pod_at(id).is_none()
            && !cluster.is_unread(&format!("Pod {id}"))
        {
            return Err(format!("{field}: no pod {id} in the cluster's objects"));
        }
    }
    Ok(())
}

/// Judges line by line. A line that cannot be read gets `{"error":..}` in its place, so that the order
/// holds, and the command fails in the end.
fn batch(path: &Path, cluster: &Cluster, namespace: Option<&str>) -> Result<ExitCode, Error> {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut first_bad = None;
    let mut denied = false;
    for line in Lines::open(path)? {
        let (number, text) = line?;
        if text.trim().is_empty() {
            continue;
        }
        match judge(&text, cluster, namespace) {
            Ok(verdict) => {
                denied |= !verdict.is_allowed();
                serde_json::to_writer(&mut out, &verdict).map_err(std::io::Error::from)?;
            }
            Err(problem) => {
                serde_json::to_writer(&mut out, &json!({ "error": problem }))
                    .map_err(std::io::Error::from)?;
                first_bad.get_or_insert((number, problem));
            }
        }
        out.write_all(b"\n")?;
    }
    out.flush()?;
    match first_bad {
        Some((line, problem)) => Err(Error::Line {
            path: path.to_owned(),
            line,
            problem,
        }),
        None => Ok(code(denied)),
    }
}

fn judge(text: &str, cluster: &Cluster, namespace: Option<&str>) -> Result<Verdict, String> {
    let flow: FlowText = serde_json::from_str(text).map_err(|error| {
        format!(
            "not a flow: {error}; expected {{\"from\":..,\"to\":..,\"port\":..,\"protocol\":..}}"
        )
    })?;
    let flow = flow.resolve(namespace)?;
    check_pods(cluster, &flow)?;
    Ok(cluster.evaluate(&flow))
}
