//! `tracer lint`: the invisible-traffic mistakes in policies, before they bite.

mod sarif;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tracer_policy::lint::{Finding, RULES, Severity, lint};

use super::explain::ProfileArgs;
use super::{Common, Error, cluster, color};
use crate::cluster::{Loaded, Place, lines_of};

/// `tracer lint`
#[derive(Debug, Args)]
pub(super) struct LintArgs {
    /// Policies, and the objects they are about: a YAML or JSON file or folder, `-` for standard input. With
    /// --cluster they are judged as if applied to that cluster, and only they; without PATH the cluster is.
    path: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// From which severity on a finding makes the exit code 1.
    #[arg(long, value_enum, default_value_t = FailOn::Info, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Print every rule: what it finds, why that matters, where it was seen, how to mend it.
    #[arg(long)]
    rules: bool,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON array.
    Json,
    /// SARIF 2.1.0, as code hosts read it.
    Sarif,
}

/// `--fail-on`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Only errors.
    Error,
    /// Warnings and errors.
    Warning,
    /// Any finding.
    Info,
    /// None.
    Never,
}

impl FailOn {
    fn fails(self, severity: Severity) -> bool {
        match self {
            Self::Error => severity >= Severity::Error,
            Self::Warning => severity >= Severity::Warning,
            Self::Info => true,
            Self::Never => false,
        }
    }
}

/// The exit code where there are findings.
const FINDINGS: u8 = 1;

pub(super) fn run(args: &LintArgs, common: &Common) -> Result<ExitCode, Error> {
    let mut out = anstream::stdout();
    if args.rules {
        for rule in RULES {
            let (bold, plain) = (anstyle::Style::new().bold(), anstyle::Style::new());
            let (id, severity) = (rule.id, rule.severity.as_str());
            writeln!(out, "{bold}{id}{bold:#} ({severity}){plain}: {}", rule.what)?;
            writeln!(out, "  why   {}", rule.why)?;
            if !rule.seen.is_empty() {
                writeln!(out, "  seen  {}", rule.seen)?;
            }
            writeln!(out, "  fix   {}", rule.fix)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (mut loaded, onto) = match &args.path {
        Some(path) => cluster::read_onto(path, common)?,
        None => (cluster::required_whole(common, "lint")?, false),
    };
    loaded.add_pods_of_templates()?;
    if loaded.cluster.pods().next().is_none() {
        color::note(
            "no pod and no workload is among these objects: what policies say by themselves is judged, and what pods \
             with the labels they select would lack; add the workloads' manifests, or --cluster",
        );
    }
    args.profile.apply(&mut loaded.cluster);
    let mut findings = lint(&loaded.cluster);
    if onto {
        // What is in the cluster already is somebody else's change.
        let sources = Sources::of(&loaded);
        findings.retain(|finding| sources.of_finding(finding).is_some());
    }
    if let Some(namespace) = &common.namespace {
        findings.retain(|finding| is_in(finding, namespace));
    }
    let findings = Placed::all(findings, &loaded);
    match args.output {
        Output::Text => text(&mut out, &findings, &loaded)?,
        Output::Json => {
            let findings: Vec<Value> = findings.iter().map(in_json).collect();
            writeln!(out, "{:#}", Value::Array(findings))?;
        }
        Output::Sarif => writeln!(out, "{:#}", sarif::log(&findings))?,
    }
    out.flush()?;
    let failed = findings
        .iter()
        .any(|found| args.fail_on.fails(found.finding.severity()));
    Ok(if failed {
        ExitCode::from(FINDINGS)
    } else {
        ExitCode::SUCCESS
    })
}

/// A finding and where it stands, down to the field's line.
struct Placed {
    finding: Finding,
    place: Option<Place>,
}

impl Placed {
    /// Finds the places of all findings at once, since each file is to be read once.
    fn all(findings: Vec<Finding>, loaded: &Loaded) -> Vec<Self> {
        let sources = Sources::of(loaded);
        let mut placed: Vec<Self> = findings
            .into_iter()
            .map(|finding| Self {
                place: sources.of_finding(&finding).cloned(),
                finding,
            })
            .collect();
        let (numbers, asked): (Vec<usize>, Vec<(&Place, &str)>) = placed
            .iter()
            .enumerate()
            .filter_map(|(number, placed)| {
                let field = placed.finding.field.as_deref()?;
                Some((number, (placed.place.as_ref()?, field)))
            })
            .unzip();
        let lines = lines_of(&asked);
        for (number, line) in numbers.into_iter().zip(lines) {
            if let Some(place) = &mut placed[number].place {
                place.line = line.or(place.line);
            }
        }
        placed
    }

    /// `file:line`, as editors and terminals make it a link.
    fn position(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        let line = place
            .line
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        Some(format!("{}{line}", place.file.display()))
    }
}

/// Whether a finding is of a namespace's: a cluster-wide policy's, where it is a pod there that suffers.
fn is_in(finding: &Finding, namespace: &str) -> bool {
    let pod = || finding.pod.as_ref().map(|pod| pod.namespace.as_str());
    finding.policy.namespace().or_else(pod) == Some(namespace)
}

/// Where policies stand, by name.
struct Sources<'a>(HashMap<&'a str, &'a Place>);

impl<'a> Sources<'a> {
    fn of(loaded: &'a Loaded) -> Self {
        let sources = loaded.policies.iter();
        Self(
            sources
                .map(|source| (source.policy.as_str(), &source.place))
                .collect(),
        )
    }

    fn of_finding(&self, finding: &Finding) -> Option<&'a Place> {
        self.0.get(finding.policy.to_string().as_str()).copied()
    }
}

fn text(out: &mut impl Write, findings: &[Placed], loaded: &Loaded) -> std::io::Result<()> {
    for placed in findings {
        let finding = &placed.finding;
        let style = match finding.severity() {
            Severity::Error => color::ERROR,
            Severity::Warning => color::WARNING,
            Severity::Info => anstyle::Style::new(),
        };
        let position = placed
            .position()
            .map(|at| format!("{at}: "))
            .unwrap_or_default();
        let field = finding
            .field
            .as_ref()
            .map(|field| format!(" {field}"))
            .unwrap_or_default();
        let (severity, id) = (finding.severity().as_str(), finding.rule.id);
        writeln!(
            out,
            "{position}{style}{severity}{style:#}[{id}] {}{field}: {}",
            finding.policy, finding.message
        )?;
        let cure = color::GOOD;
        writeln!(out, "    {cure}fix: {}{cure:#}", finding.fix)?;
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|found| found.finding.severity() == severity)
            .count()
    };
    let some = |count: usize, one, many| format!("{count} {}", if count == 1 { one } else { many });
    writeln!(
        out,
        "{}, {}: {}, {}, {} of note",
        some(loaded.cluster.policies().count(), "policy", "policies"),
        some(findings.len(), "finding", "findings"),
        some(count(Severity::Error), "error", "errors"),
        some(count(Severity::Warning), "warning", "warnings"),
        count(Severity::Info)
    )
}

fn in_json(placed: &Placed) -> Value {
    let mut value = json!(placed.finding);
    if let (Some(place), Value::Object(object)) = (&placed.place, &mut value) {
        object.insert("file".into(), place.file.display().to_string().into());
        if let Some(line) = place.line {
            object.insert("line".into(), line.into());
        }
    }
    value
}
