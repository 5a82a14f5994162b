//! `--cluster`: where pods, nodes, services and policies come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracer_policy::Cluster;

use super::{Common, Error, color};
use crate::cluster::{Loaded, host, load};

/// How to get what `--cluster PATH` reads.
pub(super) const HOW_TO_GET_IT: &str = "kubectl get namespaces,nodes,pods,services,endpoints,\
endpointslices,networkpolicies -A -o yaml > cluster.yaml";

/// `--cluster`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Addresses only.
    None,
    /// A file, a folder, or `-`.
    Path(PathBuf),
}

fn source(common: &Common) -> Result<Option<Source>, Error> {
    match common.cluster.as_deref() {
        None => Ok(None),
        Some("none") => Ok(Some(Source::None)),
        Some("kube") => Err(Error::Environment(format!(
            "--cluster kube: this version does not read a live cluster yet; write its objects to a \
             file and pass that: {HOW_TO_GET_IT}"
        ))),
        Some("") => Err(Error::Usage("--cluster: expected a path or `none`".into())),
        Some(path) => Ok(Some(Source::Path(PathBuf::from(path)))),
    }
}

/// The state given with `--cluster`; `None` where there is none to ask.
pub(super) fn given(common: &Common) -> Result<Option<Arc<Cluster>>, Error> {
    Ok(given_with_report(common)?.map(|loaded| Arc::new(loaded.cluster)))
}

/// The state given with `--cluster`, with what was found on the way.
pub(super) fn given_with_report(common: &Common) -> Result<Option<Loaded>, Error> {
    match source(common)? {
        Some(Source::Path(path)) => read(&path).map(Some),
        Some(Source::None) | None => Ok(None),
    }
}

/// The state for commands that cannot do without.
pub(super) fn required(common: &Common, command: &str) -> Result<Loaded, Error> {
    match source(common)? {
        Some(Source::Path(path)) => read(&path),
        Some(Source::None) => Err(Error::Usage(format!(
            "{command} needs the cluster's objects, and --cluster none gives none; pass --cluster PATH \
             ({HOW_TO_GET_IT})"
        ))),
        None => Err(Error::Usage(format!(
            "{command} needs the cluster's objects: pass --cluster PATH ({HOW_TO_GET_IT})"
        ))),
    }
}

/// The state for capture on `node`, with the host's own addresses; without `--cluster` what is seen
/// stays addresses.
pub(super) fn for_capture(common: &Common, node: &str) -> Result<Option<Arc<Cluster>>, Error> {
    match source(common)? {
        Some(Source::Path(path)) => {
            let mut loaded = read(&path)?;
            match host::addresses() {
                Ok(addresses) => host::merge(&mut loaded.cluster, node, &addresses),
                Err(error) => color::warn(&format!(
                    "the host's own addresses cannot be read ({error}); probes from addresses that the \
                     Node object does not name will not be recognised"
                )),
            }
            Ok(Some(Arc::new(loaded.cluster)))
        }
        Some(Source::None) => Ok(None),
        None => {
            color::note(&format!(
                "no --cluster given: showing addresses only. For names and policies: {HOW_TO_GET_IT}"
            ));
            Ok(None)
        }
    }
}

/// Reads objects, and says what is worth saying of them.
pub(super) fn read(path: &Path) -> Result<Loaded, Error> {
    let loaded = load(path)?;
    for warning in loaded.warnings() {
        color::warn(&warning.to_string());
    }
    Ok(loaded)
}
