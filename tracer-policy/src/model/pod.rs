//! Pods.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, ObjectRef, Protocol};

/// A pod, as far as packets are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace and name.
    pub id: ObjectRef,
    /// `metadata.uid`, where known.
    pub uid: Option<String>,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs` (or `status.podIP`), of both families.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `status.hostIPs` (or `status.hostIP`): the node's addresses.
    #[serde(default)]
    pub host_ips: Vec<IpAddr>,
    /// `spec.hostNetwork`: such a pod never owns its address; the node does.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: Phase,
    /// Declared ports of containers and init containers.
    pub ports: Vec<ContainerPort>,
    /// Probes of containers and restartable init containers that make network traffic to the pod.
    pub probes: Vec<Probe>,
    /// The controlling owner, a Deployment where the ReplicaSet's name gives it away.
    pub workload: Option<Workload>,
    /// Whether the pod gets a service-account token, so that it likely talks to the API server.
    pub mounts_api_token: bool,
    /// `status.startTime`, else the creation: when a node took it on, to the second.
    pub started: Option<Timestamp>,
    /// Condition `Ready`; `None` where there is no such condition.
    pub ready: Option<bool>,
    /// The port that annotations offer Prometheus (`prometheus.io/scrape: "true"`, `prometheus.io/port`).
    pub scrape_port: Option<u16>,
}

impl Pod {
    /// A pod of which nothing is known but its name.
    pub const fn named(id: ObjectRef) -> Self {
        Self {
            id,
            uid: None,
            labels: Labels::new(),
            ips: Vec::new(),
            node: None,
            host_ips: Vec::new(),
            host_network: false,
            phase: Phase::Unknown,
            ports: Vec::new(),
            probes: Vec::new(),
            workload: None,
            mounts_api_token: false,
            started: None,
            ready: None,
            scrape_port: None,
        }
    }
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted, not all containers started.
    Pending,
    /// Running.
    Running,
    /// Finished well; its address may belong to someone else by now.
    Succeeded,
    /// Finished badly; likewise.
    Failed,
    /// Absent or unknown.
    #[default]
    Unknown,
}

impl Phase {
    /// Whether the pod has finished and so no longer owns its address.
    pub const fn finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A declared container port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// `name`, which a policy's named port refers to.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
}

/// What controls a pod: the name people know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// `StatefulSet`, `Deployment`, `DaemonSet`, `Job`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// One probe (or lifecycle hook) through which the kubelet sends traffic to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which probe.
    pub kind: ProbeKind,
    /// The container it belongs to.
    pub container: String,
    /// How it is made.
    pub handler: Handler,
    /// The port, resolved in that container's ports where it was named.
    pub port: u16,
    /// `periodSeconds`, in seconds; 10 where absent.
    pub period_seconds: u32,
    /// `timeoutSeconds`, in seconds; 1 where absent.
    pub timeout_seconds: u32,
    /// `failureThreshold`; 3 where absent.
    pub failure_threshold: u32,
}

/// Which probe or hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
    /// `lifecycle.postStart` or `lifecycle.preStop` over HTTP.
    Lifecycle,
}

/// How a probe is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// `httpGet`, with its path and whether it is `HTTPS`.
    Http {
        /// `path`, `/` where absent.
        path: String,
        /// `scheme: HTTPS`.
        tls: bool,
    },
    /// `tcpSocket`.
    Tcp,
    /// `grpc`.
    Grpc,
}
