//! What `deploy/` says of the agent is so: the metrics that alerts and dashboard use exist, with those labels, and
//! are named as Prometheus wants them; the rights it asks for are those it uses.

mod alerts;
mod daemonset;
mod dashboard;
mod expression;
mod page;
mod promtool;

use std::fs;
use std::path::PathBuf;

/// A file of the repository.
fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
