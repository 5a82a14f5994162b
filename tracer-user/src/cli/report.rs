//! `tracer report`: one self-contained HTML page from recorded drops.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args};

use super::explain::ProfileArgs;
use super::input::Recorded;
use super::{Common, Error, cluster, color, filters, settings};
use crate::attribute::Attributor;
use crate::record::{Drop, Peer, PeerKind};
use crate::report::{About, Aggregate, Fix, Page, render};

/// `tracer report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Recorded drops, as `tracer watch --record` or `-o json` writes them; `-` for standard input. With
    /// --cluster the page has the fix, and drops that were recorded without a cluster are attributed and explained;
    /// what others say of their time stays.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Where to write the page: standard output by default.
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// The page's heading.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    filters: filters::FilterArgs,
}

pub(super) fn run(
    args: &ReportArgs,
    common: &Common,
    matches: &ArgMatches,
) -> Result<ExitCode, Error> {
    let filter = filters::resolve(matches, common.namespace.as_deref())?;
    let drops = Recorded::open(&args.input)?;
    let mut loaded = cluster::optional(common)?;
    if let Some(cluster::Optional { cluster, .. }) = &mut loaded {
        args.profile.apply(cluster);
    }
    // A cluster that was merely found need not be the one that the drops are of.
    let mut attributor = loaded.as_ref().filter(|loaded| loaded.asked).map(|loaded| {
        let cluster = Arc::new(loaded.cluster.clone());
        Attributor::new(settings::node_name(), Some(cluster))
    });
    let mut all = Aggregate::default();
    let mut held_back = 0;
    for drop in drops {
        let recorded = drop?;
        let drop = match &mut attributor {
            Some(attributor) if !is_attributed(&recorded) => attributor.again(&recorded),
            _ => recorded,
        };
        if filter.passes(&drop) {
            all.add(&drop, loaded.as_ref().map(|loaded| &loaded.cluster));
        } else {
            held_back += 1;
        }
    }
    let fix = match loaded {
        Some(cluster::Optional { mut cluster, .. }) => Fix::of(&mut cluster, &all),
        None => Fix::Unasked,
    };
    let about = About {
        title: args.title.clone(),
        source: source(&args.input),
        held_back,
        how_to_fix: suggest(common, &args.input),
        how_to_get_cluster: cluster::HOW_TO_GET_IT.to_owned(),
    };
    let page = render(&Page::new(&about, &all, &fix))
        .map_err(|_| Error::Internal("the page cannot be rendered".into()))?;
    write(&page, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Whether it was recorded with a cluster. What was said of it then stands: pods and policies of now need
/// not be the same.
fn is_attributed(drop: &Drop) -> bool {
    let of_cluster = |peer: &Peer| {
        matches!(
            peer.kind,
            PeerKind::Pod | PeerKind::Node | PeerKind::Service
        )
    };
    drop.policy.is_some()
        || [&drop.source, &drop.destination]
            .into_iter()
            .flatten()
            .any(of_cluster)
}

/// Only once all of the input was read is anything written.
fn write(page: &str, path: Option<&Path>) -> Result<(), Error> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        let mut out = std::io::stdout().lock();
        out.write_all(page.as_bytes())?;
        return Ok(out.flush()?);
    };
    File::create(path)
        .and_then(|mut file| file.write_all(page.as_bytes()))
        .map_err(|source| Error::File {
            action: "write",
            path: path.to_owned(),
            source,
        })?;
    color::note(&format!("wrote {}", path.display()));
    Ok(())
}

/// What the input is called, without the folders that only its owner has.
fn source(input: &Path) -> String {
    match input.file_name() {
        Some(name) if input != Path::new("-") => name.to_string_lossy().into_owned(),
        _ => "standard input".to_owned(),
    }
}

/// The command that prints the fix.
fn suggest(common: &Common, input: &Path) -> String {
    let input = if input == Path::new("-") {
        "drops.jsonl".into()
    } else {
        source(input)
    };
    let given = common.cluster.as_deref();
    let cluster = match given.filter(|given| !matches!(*given, "none" | "-" | "")) {
        Some("kube") => "kube".to_owned(),
        Some(path) => source(Path::new(path)),
        None => "cluster.yaml".to_owned(),
    };
    format!(
        "tracer suggest --input {} --cluster {}",
        quoted(&input),
        quoted(&cluster)
    )
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/=:@".contains(c);
    if word.chars().all(plain) && !word.starts_with('-') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_survives_a_shell() {
        assert_eq!(quoted("drops-1.jsonl"), "drops-1.jsonl");
        assert_eq!(quoted("my drops"), "'my drops'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
    }
}
