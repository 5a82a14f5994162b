//! `tracer doctor`: what this kernel, host and cluster offer, and what is missing and why.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Common, Error, cluster, color, settings};
use crate::cluster::host;
use crate::kernel::{self, Finding, HookFinding};

/// `tracer doctor`
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table for people.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Serialize)]
struct Report {
    node: String,
    kernel: String,
    can_capture: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'static str>,
    policy_reasons: Vec<&'static str>,
    hooks: Vec<Hook>,
    checks: Vec<Check>,
}

/// Where a program hangs.
#[derive(Serialize)]
struct Hook {
    name: &'static str,
    needed: bool,
    /// In which ways a program can hang there, the best first.
    found: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<&'static str>,
    why: String,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    present: bool,
    /// Whether nothing can be captured without it.
    needed: bool,
    text: String,
}

/// The exit code where nothing can be captured here.
const LACKING: u8 = 3;

pub(super) fn run(args: &DoctorArgs, common: &Common) -> Result<ExitCode, Error> {
    let report = report(common)?;
    let mut out = anstream::stdout();
    match args.output {
        Output::Json => {
            let json = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            writeln!(out, "{json}")?;
        }
        Output::Text => text(&mut out, &report)?,
    }
    out.flush()?;
    Ok(if report.can_capture {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(LACKING)
    })
}

fn report(common: &Common) -> Result<Report, Error> {
    let probe = kernel::probe(common.btf.as_deref());
    let check = |name, needed, finding: &Finding| Check {
        name,
        present: finding.present,
        needed,
        text: finding.text.clone(),
    };
    let mut checks = vec![
        check("eBPF programs", true, &probe.programs),
        check("privilege", true, &probe.capabilities),
        check("BTF", true, &probe.btf),
        check("drop reasons", false, &probe.reasons),
        check("kernel symbols", false, &probe.symbols),
        check("conntrack", false, &probe.conntrack),
        check("packet pages", false, &probe.pages),
        check("tcx", false, &probe.tcx),
        check("firewall rules", false, &probe.rules),
        check("bpffs", false, &probe.bpffs),
    ];
    checks.push(match host::addresses() {
        Ok(addresses) => {
            let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Check {
                name: "host addresses",
                present: !list.is_empty(),
                needed: false,
                text: if list.is_empty() {
                    "no address but loopback's: no probe can come from here".to_owned()
                } else {
                    format!("probes from here may come from {}", list.join(", "))
                },
            }
        }
        Err(error) => Check {
            name: "host addresses",
            present: false,
            needed: false,
            text: format!("cannot be read: {error}"),
        },
    });
    checks.push(match cluster::found(common) {
        Err(error @ Error::Environment(_)) => Check {
            name: "cluster",
            present: false,
            needed: false,
            text: error.to_string(),
        },
        Err(error) => return Err(error),
        Ok(Some(loaded)) => {
            let kinds: Vec<_> = loaded
                .used
                .iter()
                .map(|(kind, number)| format!("{number} {kind}"))
                .collect();
            let detected = loaded.cluster.detected_profile();
            Check {
                name: "cluster",
                present: !kinds.is_empty(),
                needed: false,
                text: format!(
                    "{}; dataplane {}: {}",
                    kinds.join(", "),
                    detected.name,
                    detected.because
                ),
            }
        }
        Ok(None) => Check {
            name: "cluster",
            present: false,
            needed: false,
            text: format!("none given: addresses only. {}", cluster::HOW_TO_GET_IT),
        },
    });
    Ok(Report {
        node: settings::node_name(),
        can_capture: probe.can_capture(),
        hook: probe.hooks.first().and_then(|drops| drops.chosen),
        kernel: probe.release,
        policy_reasons: probe.policy_reasons,
        hooks: probe.hooks.into_iter().map(Hook::from).collect(),
        checks,
    })
}

impl From<HookFinding> for Hook {
    fn from(finding: HookFinding) -> Self {
        let HookFinding {
            name,
            needed,
            found,
            chosen,
            why,
        } = finding;
        Self {
            name,
            needed,
            found,
            chosen,
            why,
        }
    }
}

impl Hook {
    /// One sentence.
    fn text(&self) -> String {
        let Self {
            found, chosen, why, ..
        } = self;
        match chosen {
            Some(chosen) if found.len() > 1 => {
                format!("{chosen}, of {}: {why}", found.join(" and "))
            }
            Some(chosen) => format!("{chosen}: {why}"),
            None => why.clone(),
        }
    }
}

fn text(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(out, "node {}, kernel {}", report.node, report.kernel)?;
    let checks = report.checks.iter();
    let checks = checks.map(|one| (one.name, one.present, one.needed, one.text.clone()));
    let hooks = report.hooks.iter();
    let hooks = hooks.map(|one| (one.name, one.chosen.is_some(), one.needed, one.text()));
    for (name, present, needed, text) in checks.chain(hooks) {
        let (style, mark) = match (present, needed) {
            (true, _) => (color::GOOD, "ok"),
            (false, true) => (color::ERROR, "no"),
            (false, false) => (color::WARNING, "--"),
        };
        writeln!(out, "  {style}{mark}{style:#}  {name:<15} {text}")?;
    }
    let captured = match report.policy_reasons.as_slice() {
        [] => "what is dropped at netfilter and tc".to_owned(),
        reasons => reasons.join(", "),
    };
    writeln!(out, "  captured by default: {captured}")?;
    match (report.can_capture, report.hook) {
        (true, Some(hook)) => writeln!(out, "tracer can capture here, by {hook}."),
        (true, None) => writeln!(out, "tracer can capture here."),
        (false, _) => writeln!(out, "tracer cannot capture here: see what is marked `no`."),
    }
}
