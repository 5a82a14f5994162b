//! Where the API server is, and who we are to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Where K3s keeps its administrator's kubeconfig.
const K3S: &str = "/etc/rancher/k3s/k3s.yaml";
/// Where a pod's service account is mounted.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// How long connecting may take; the default of 30 s is long for someone who waits at a terminal.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `$KUBECONFIG`, `~/.kube/config`, as kubectl reads them.
    Kubeconfig,
    /// This file.
    File(PathBuf),
    /// The pod's own service account.
    InCluster,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubeconfig => f.write_str("the kubeconfig"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::InCluster => f.write_str("the pod's service account"),
        }
    }
}

/// Why there is no connection to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig that cannot be used.
    #[error("{from} cannot be used: {problem}")]
    Config {
        /// Which.
        from: Found,
        /// What is wrong.
        problem: String,
    },
    /// The API server does not answer.
    #[error("the API server at {url} does not answer: {problem}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// The API server does not let us.
    #[error("the API server at {url} refuses: {problem}")]
    Refused {
        /// Its address.
        url: String,
        /// What it says.
        problem: String,
    },
}

/// Looks for a way to a cluster: a kubeconfig, K3s's own, the pod's service account.
pub fn find() -> Option<Found> {
    let exists = |path: &Path| path.is_file();
    let named = std::env::var_os("KUBECONFIG")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|path| exists(&path)));
    let home = || {
        std::env::var_os("HOME").is_some_and(|home| exists(&Path::new(&home).join(".kube/config")))
    };
    if named || home() {
        Some(Found::Kubeconfig)
    } else if exists(Path::new(K3S)) {
        Some(Found::File(K3S.into()))
    } else if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && exists(Path::new(ACCOUNT)) {
        Some(Found::InCluster)
    } else {
        None
    }
}

/// A client for the cluster. It does not connect yet.
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn connect(found: &Found) -> Result<(Client, String), ConnectError> {
    let error = |problem: String| ConnectError::Config {
        from: found.clone(),
        problem,
    };
    let options = KubeConfigOptions::default();
    let mut config = match found {
        Found::Kubeconfig => Config::from_kubeconfig(&options)
            .await
            .map_err(|problem| error(cause(&problem)))?,
        Found::File(path) => {
            let file = Kubeconfig::read_from(path).map_err(|problem| error(cause(&problem)))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|problem| error(cause(&problem)))?
        }
        Found::InCluster => Config::incluster().map_err(|problem| error(cause(&problem)))?,
    };
    config.connect_timeout = Some(CONNECT_WITHIN);
    let url = config.cluster_url.to_string();
    let url = url.trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|problem| error(cause(&problem)))?;
    Ok((client, url))
}

/// An error's first cause: what wraps it (`client error (Connect)`) says less.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl ConnectError {
    /// From what a request came to.
    pub(super) fn of(url: &str, error: &kube::Error) -> Self {
        let url = url.to_owned();
        match error {
            kube::Error::Api(status) => Self::Refused {
                url,
                problem: status.message.clone(),
            },
            other => Self::Unreachable {
                url,
                problem: cause(other),
            },
        }
    }
}
