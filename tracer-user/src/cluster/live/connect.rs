//! Where the API server is, and who we are to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::fingerprint::fingerprint;

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
    let mut config = config(found).await?;
    config.connect_timeout = Some(CONNECT_WITHIN);
    let url = url(&config);
    let client = Client::try_from(config).map_err(|problem| unusable(found, &problem))?;
    Ok((client, url))
}

/// What tells the cluster from others without asking it: where its API server is, and who signs for it. (In
/// every K3s, pods see the server at the same address.)
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn cluster_id(found: &Found) -> Result<String, ConnectError> {
    let config = config(found).await?;
    let authorities = config.root_cert.iter().flatten();
    let signed_by = fingerprint(authorities.map(Vec::as_slice));
    Ok(format!("{} {signed_by:016x}", url(&config)))
}

async fn config(found: &Found) -> Result<Config, ConnectError> {
    let options = KubeConfigOptions::default();
    match found {
        Found::Kubeconfig => Config::from_kubeconfig(&options)
            .await
            .map_err(|problem| unusable(found, &problem)),
        Found::File(path) => {
            let file = Kubeconfig::read_from(path).map_err(|problem| unusable(found, &problem))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|problem| unusable(found, &problem))
        }
        Found::InCluster => Config::incluster().map_err(|problem| unusable(found, &problem)),
    }
}

fn unusable(found: &Found, problem: &dyn std::error::Error) -> ConnectError {
    ConnectError::Config {
        from: found.clone(),
        problem: cause(problem),
    }
}

fn url(config: &Config) -> String {
    let url = config.cluster_url.to_string();
    url.trim_end_matches('/').to_owned()
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
