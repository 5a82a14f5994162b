//! `--cluster`: where pods, nodes, services and policies come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracer_policy::Cluster;

use super::{Common, Error, color};
use crate::attribute::Attributor;
use crate::cluster::live::{self, Found, Keeper, Recorder, Snapshot};
use crate::cluster::{Kind, Loaded, host, load, load_into, load_what_can_be_read};
use crate::http::State;
use crate::pipeline::{Following, Waker};

/// How to get what `--cluster PATH` reads. kubectl fails for kinds that the server does not have.
pub(super) const HOW_TO_GET_IT: &str = "kubectl get namespaces,nodes,pods,services,endpoints,\
endpointslices,networkpolicies,deployments,statefulsets,daemonsets,validatingwebhookconfigurations,\
mutatingwebhookconfigurations,apiservices -A -o yaml > cluster.yaml; add those of adminnetworkpolicies,\
baselineadminnetworkpolicies,clusternetworkpolicies,tiers.crd.projectcalico.org,\
networkpolicies.crd.projectcalico.org,globalnetworkpolicies.crd.projectcalico.org,\
networksets.crd.projectcalico.org,globalnetworksets.crd.projectcalico.org that `kubectl api-resources` names";

/// `--cluster`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Addresses only.
    None,
    /// A file, a folder, or `-`.
    Path(PathBuf),
    /// A live API server.
    Kube(Found),
}

/// What was asked for; `None` where nothing was.
fn asked(common: &Common) -> Result<Option<Source>, Error> {
    match common.cluster.as_deref() {
        None => Ok(None),
        Some("none") => Ok(Some(Source::None)),
        Some("kube") => live::find().map(Source::Kube).map(Some).ok_or_else(|| {
            Error::Environment(format!(
                "--cluster kube: found no kubeconfig ($KUBECONFIG, ~/.kube/config, /etc/rancher/k3s/k3s.yaml) \
                 and no service account; set KUBECONFIG, or pass a file: {HOW_TO_GET_IT}"
            ))
        }),
        Some("") => Err(Error::Usage(
            "--cluster: expected `kube`, `none` or a path".into(),
        )),
        Some(path) => Ok(Some(Source::Path(PathBuf::from(path)))),
    }
}

/// What was asked for, else the live cluster where one is found.
fn source(common: &Common) -> Result<Option<Source>, Error> {
    Ok(asked(common)?.or_else(|| live::find().map(Source::Kube)))
}

/// The state given with `--cluster`, else of the live cluster where one is found.
pub(super) fn found(common: &Common) -> Result<Option<Loaded>, Error> {
    match source(common)? {
        Some(Source::Path(path)) => read(&path).map(Some),
        Some(Source::Kube(found)) => list(&found).map(Some),
        Some(Source::None) | None => Ok(None),
    }
}

/// The state given with `--cluster`; `None` where there is none to ask.
pub(super) fn given(common: &Common) -> Result<Option<Arc<Cluster>>, Error> {
    let loaded = match asked(common)? {
        Some(Source::Path(path)) => read(&path)?,
        Some(Source::Kube(found)) => list(&found)?,
        Some(Source::None) | None => return Ok(None),
    };
    Ok(Some(Arc::new(loaded.cluster)))
}

/// The state for commands that can do without.
pub(super) struct Optional {
    pub(super) cluster: Cluster,
    /// Whether it was asked for with `--cluster`, and not merely found.
    pub(super) asked: bool,
}

/// The state given with `--cluster`, else of the live cluster where one is found and answers.
pub(super) fn optional(common: &Common) -> Result<Option<Optional>, Error> {
    let asked = asked(common)?.is_some();
    let loaded = match found(common) {
        Err(error) if !asked => {
            color::warn(&format!("going on without a cluster: {error}"));
            None
        }
        loaded => loaded?,
    };
    Ok(loaded.map(|loaded| Optional {
        cluster: loaded.cluster,
        asked,
    }))
}

/// The state for commands that cannot do without.
pub(super) fn required(common: &Common, command: &str) -> Result<Loaded, Error> {
    required_as(common, command, read)
}

/// As [`required`], and objects that are not as the API says are errors.
pub(super) fn required_whole(common: &Common, command: &str) -> Result<Loaded, Error> {
    required_as(common, command, |path| Ok(said(load(path)?)))
}

fn required_as(
    common: &Common,
    command: &str,
    read: impl FnOnce(&Path) -> Result<Loaded, Error>,
) -> Result<Loaded, Error> {
    match source(common)? {
        Some(Source::Path(path)) => read(&path),
        Some(Source::Kube(found)) => list(&found),
        Some(Source::None) => Err(Error::Usage(format!(
            "{command} needs the cluster's objects, and --cluster none gives none; pass --cluster PATH \
             ({HOW_TO_GET_IT})"
        ))),
        None => Err(Error::Usage(format!(
            "{command} needs the cluster's objects: pass --cluster PATH ({HOW_TO_GET_IT}), or set KUBECONFIG"
        ))),
    }
}

/// The state that drops captured on this node are attributed by.
#[derive(Debug)]
pub(super) enum ForCapture {
    /// Addresses only.
    None,
    /// As it was when it was read.
    Fixed(Arc<Cluster>),
    /// Followed while drops come in.
    Live(Found),
}

/// The state for capture on `node`, with the host's own addresses; without any, what is seen stays
/// addresses.
pub(super) fn for_capture(common: &Common, node: &str) -> Result<ForCapture, Error> {
    match source(common)? {
        Some(Source::Path(path)) => {
            let mut loaded = read(&path)?;
            host::merge(&mut loaded.cluster, node, &host_addresses());
            Ok(ForCapture::Fixed(Arc::new(loaded.cluster)))
        }
        Some(Source::Kube(found)) => Ok(ForCapture::Live(found)),
        Some(Source::None) => Ok(ForCapture::None),
        None => {
            color::note(&format!(
                "no --cluster given and no kubeconfig found: showing addresses only. For names and policies: \
                 {HOW_TO_GET_IT}"
            ));
            Ok(ForCapture::None)
        }
    }
}

fn host_addresses() -> Vec<std::net::IpAddr> {
    host::addresses().unwrap_or_else(|error| {
        color::warn(&format!(
            "the host's own addresses cannot be read ({error}); probes from addresses that the Node object \
             does not name will not be recognised"
        ));
        Vec::new()
    })
}

/// What attributes drops, what keeps it current, and how current it is.
pub(super) struct Attribution {
    pub(super) attributor: Attributor,
    pub(super) following: Option<Following>,
    pub(super) state: State,
}

impl ForCapture {
    /// A client to write to the live cluster with.
    pub(super) async fn client(&self) -> Option<kube::Client> {
        let Self::Live(found) = self else {
            return None;
        };
        // That it cannot be used is said by who follows the cluster.
        live::connect(found).await.ok().map(|(client, _)| client)
    }

    /// Starts following where the state is live, until `stop` is cancelled; from what is kept in `state_dir`,
    /// where it goes on to be kept.
    pub(super) async fn start(
        self,
        node: &str,
        waker: Waker,
        state_dir: Option<&Path>,
        stop: &CancellationToken,
    ) -> Result<Attribution, Error> {
        let name = node.to_owned();
        Ok(match self {
            Self::None => Attribution {
                attributor: Attributor::new(name, None),
                following: None,
                state: State::None,
            },
            Self::Fixed(cluster) => Attribution {
                attributor: Attributor::new(name, Some(cluster)),
                following: None,
                state: State::Fixed,
            },
            Self::Live(found) => {
                let wake = Arc::new(move || waker.wake());
                let mut keeper = Keeper::new(name.clone(), host_addresses());
                let mut cluster = Cluster::new();
                let (as_of, recorder) = match state_dir {
                    Some(folder) => kept(&found, folder, &mut keeper, &mut cluster).await,
                    None => (None, None),
                };
                keeper.expect(Kind::ALL);
                let updates = live::watch(&found, stop.clone(), wake, recorder)
                    .await
                    .map_err(|error| Error::Environment(error.to_string()))?;
                let state = State::Live(updates.status.clone());
                let attributor = Attributor::live(name, cluster, as_of.is_some());
                if let Some(as_of) = as_of {
                    updates.status.started_from_snapshot(as_of);
                }
                Attribution {
                    attributor,
                    following: Some(Following::new(updates, keeper)),
                    state,
                }
            }
        })
    }
}

/// Brings the state in from `folder`, and has it kept there; from when what was there is.
async fn kept(
    found: &Found,
    folder: &Path,
    keeper: &mut Keeper,
    cluster: &mut Cluster,
) -> (Option<Timestamp>, Option<Recorder>) {
    // That the configuration cannot be used is said by who follows the cluster.
    let Ok(id) = live::cluster_id(found).await else {
        return (None, None);
    };
    let snapshot = match Snapshot::open(folder, &id) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(
                "{}: {error}; without an API server, the next agent will start from no snapshot (--state-dir \
                 chooses another folder)",
                folder.display()
            );
            return (None, None);
        }
    };
    let as_of = snapshot.restore(keeper, cluster);
    let recorder = snapshot.keep().inspect_err(|error| {
        tracing::warn!("the cluster's state is not kept on disk: {error}");
    });
    (as_of, recorder.ok())
}

/// Reads what can be read of objects, and says what cannot.
fn read(path: &Path) -> Result<Loaded, Error> {
    Ok(said(load_what_can_be_read(path)?))
}

/// Reads objects as if they were applied to what `--cluster` gives, where it is given; those that name no namespace
/// to `--namespace`. One that is not as the API says is an error.
pub(super) fn read_onto(path: &Path, common: &Common) -> Result<(Loaded, bool), Error> {
    let cluster = given(common)?;
    let onto = cluster.is_some();
    let cluster = cluster.map(Arc::unwrap_or_clone).unwrap_or_default();
    let loaded = load_into(path, cluster, common.namespace.as_deref())?;
    Ok((said(loaded), onto))
}

/// Lists a live cluster's objects, and says what is worth saying of them.
fn list(found: &Found) -> Result<Loaded, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listed = runtime.block_on(live::list(found)).map_err(|error| {
        Error::Environment(format!(
            "{error}; without it, pass a file: --cluster PATH ({HOW_TO_GET_IT})"
        ))
    })?;
    Ok(said(listed))
}

fn said(loaded: Loaded) -> Loaded {
    for warning in loaded.warnings() {
        color::warn(&warning.to_string());
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_read_is_asked_for() {
        let named: Vec<_> = HOW_TO_GET_IT.split([',', ' ', '\n']).collect();
        for kind in Kind::ALL {
            // A resource of this name, in a group where another has the same.
            let full = kind.versions().iter().filter_map(|version| {
                let (group, _) = version.split_once('/')?;
                Some(format!("{}.{group}", kind.plural()))
            });
            let plain = (kind != Kind::CalicoNetworkPolicy).then(|| kind.plural().to_owned());
            assert!(
                full.chain(plain).any(|name| named.contains(&name.as_str())),
                "{kind:?}"
            );
        }
    }
}
