//! The command line: arguments are resolved once, here; what lies behind never sees clap.
#![expect(
    clippy::doc_markdown,
    reason = "doc comments of arguments are help texts"
)]

mod agent;
mod agent_stream;
mod cluster;
mod color;
mod doctor;
mod ends;
mod error;
mod explain;
mod filters;
mod input;
mod lint;
mod report;
mod settings;
mod suggest;
mod verdict;
mod watch;

pub use error::Error;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::kernel::{self, Reasons};
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Where the bpffs is mounted on most systems.
const BPFFS: &str = "/sys/fs/bpf";

/// Who dropped my packet, and which line of YAML lets it through.
#[derive(Debug, Parser)]
#[command(
    name = "tracer",
    version,
    about,
    after_help = "Exit codes: 0 fine; 1 denied (explain) or findings; 2 wrong usage or input; \
                  3 the environment lacks something (privilege, BTF, cluster).",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Where pods, nodes, services and policies come from: `kube` for the API server (the default where
    /// a kubeconfig, K3s's own or a service account is found), a YAML or JSON file or folder as
    /// `kubectl get -o yaml` prints them (`-` for standard input), or `none` for addresses only.
    #[arg(
        long,
        global = true,
        value_name = "kube|PATH|none",
        env = "TRACER_CLUSTER"
    )]
    cluster: Option<String>,
    /// Namespace: of names given without one, and (watch) of the drops to show.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// All namespaces (the default; contradicts --namespace).
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// When to colour the output; NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value_t = color::When::Auto, value_name = "WHEN", env = "TRACER_COLOR")]
    color: color::When,
    /// The running kernel's BTF, where it is not at /sys/kernel/btf/vmlinux.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TRACER_BTF",
        hide_short_help = true
    )]
    btf: Option<PathBuf>,
}

/// What to capture.
#[derive(Clone, Debug, Args)]
struct CaptureArgs {
    /// Drop reasons to capture, as the kernel names them, or `all`; those that mean somebody's rule by
    /// default.
    #[arg(
        long,
        value_name = "REASON,...|all",
        env = "TRACER_REASONS",
        default_value = "policy"
    )]
    reasons: String,
    /// Flows that are kept apart at a time: the first packet of each is shown, further ones are counted.
    /// What finds no room is counted by its reason alone. An entry takes 300 bytes of the kernel's memory.
    #[arg(long, value_name = "N", env = "TRACER_FLOWS", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    flows: u32,
    /// How long a flow without packets takes a place among these, such as 5m: from 1s on. Where they are nearly
    /// all taken, that is 5s at most.
    #[arg(long, value_name = "DURATION", env = "TRACER_IDLE", default_value = "1m", value_parser = idle, hide_short_help = true)]
    idle: Duration,
    /// How often further packets of a flow are told, such as 1s.
    #[arg(long, value_name = "DURATION", env = "TRACER_FOLD", default_value = "1s", value_parser = watch::duration, hide_short_help = true)]
    fold: Duration,
    /// Room for first packets that are not read yet, in bytes. What finds none is told a little later,
    /// without its bytes.
    #[arg(long, value_name = "N", env = "TRACER_RING_BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1 << 16..=1 << 30), hide_short_help = true)]
    ring_bytes: u32,
}

impl CaptureArgs {
    /// Whether they were given, and not only by default.
    fn given(matches: &ArgMatches) -> bool {
        ["reasons", "flows", "idle", "fold", "ring_bytes"]
            .iter()
            .any(|name| matches.value_source(name) != Some(clap::parser::ValueSource::DefaultValue))
    }

    /// As the kernel's side takes them.
    fn options(&self, common: &Common) -> kernel::Options {
        kernel::Options {
            reasons: self.reasons(),
            flows: self.flows,
            idle: self.idle,
            fold_every: self.fold,
            ring_bytes: self.ring_bytes,
            btf: common.btf.clone(),
            ..kernel::Options::default()
        }
    }

    fn reasons(&self) -> Reasons {
        let Ok(reasons) = self.reasons.parse();
        reasons
    }
}

/// Shorter, and a flow would leave between two of its packets.
fn idle(text: &str) -> Result<Duration, String> {
    watch::duration(text).and_then(|idle| {
        (idle >= Duration::from_secs(1))
            .then_some(idle)
            .ok_or_else(|| "expected 1s or longer".to_owned())
    })
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Live stream of drops on this node, or a replay of recorded ones.
    Watch(watch::WatchArgs),
    /// Would this traffic be allowed; if not, why not, and what would allow it.
    Explain(explain::ExplainArgs),
    /// The least NetworkPolicy YAML that allows the given drops.
    Suggest(suggest::SuggestArgs),
    /// Find the invisible-traffic mistakes in policies before they bite.
    Lint(lint::LintArgs),
    /// One self-contained HTML page from recorded drops: the incident's timeline and its fix.
    Report(report::ReportArgs),
    /// What this kernel, host and cluster offer, which hooks will be used, what is missing and why.
    Doctor(doctor::DoctorArgs),
    /// The node daemon: metrics and health over HTTP.
    Agent(agent::AgentArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    cli.common.color.apply();
    match run(cli, &matches) {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!(
                "{}tracer:{:#} {}",
                color::ERROR,
                color::ERROR,
                error.report()
            );
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<ExitCode, Error> {
    // The subcommand's own matches keep the order of filters, which `--not` needs.
    let own = matches.subcommand().map_or(matches, |(_, own)| own);
    match cli.command {
        Command::Watch(args) => watch::run(&args, &cli.common, own),
        Command::Explain(args) => explain::run(&args, &cli.common),
        Command::Suggest(args) => suggest::run(&args, &cli.common, own),
        Command::Lint(args) => lint::run(&args, &cli.common),
        Command::Report(args) => report::run(&args, &cli.common, own),
        Command::Doctor(args) => doctor::run(&args, &cli.common),
        Command::Agent(args) => agent::run(&args, &cli.common),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
