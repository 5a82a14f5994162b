//! Services and what stands behind them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Labels, ObjectRef, Pod, Protocol};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub id: ObjectRef,
    /// `spec.clusterIPs` (or `spec.clusterIP`) without `None`, and load balancer and external IPs.
    pub ips: Vec<IpAddr>,
    /// Those of them that are reached from outside: `spec.externalIPs` and the load balancer's.
    #[serde(default)]
    pub external_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty where the endpoints are managed by someone else.
    pub selector: Labels,
    /// `spec.publishNotReadyAddresses`: pods get traffic, ready or not.
    #[serde(default)]
    pub publishes_not_ready: bool,
    /// `spec.externalTrafficPolicy: Local`: what comes from outside stays on the node it came to, and keeps its
    /// source address.
    #[serde(default)]
    pub keeps_sources: bool,
}

impl Service {
    /// Whether its selector names a pod; never where it has none.
    pub fn selects(&self, pod: &Pod) -> bool {
        !self.selector.is_empty()
            && self.id.namespace == pod.id.namespace
            && self
                .selector
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// `name`, empty where there is only one.
    pub name: String,
    /// `port`.
    pub port: u16,
    /// `nodePort`, where there is one.
    pub node_port: Option<u16>,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
    /// `targetPort`.
    pub target: TargetPort,
}

/// The port of a pod behind a Service's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetPort {
    /// A number; the Service's own where the field is absent.
    Number(u16),
    /// The name of one of the pod's ports.
    Name(String),
}

/// One EndpointSlice, or one Endpoints object: addresses and ports behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Namespace and name of the object itself.
    pub id: ObjectRef,
    /// The Service it belongs to (label `kubernetes.io/service-name`, or the same name).
    pub service: ObjectRef,
    /// Addresses.
    pub endpoints: Vec<Endpoint>,
    /// Ports, each of which every address serves.
    pub ports: Vec<EndpointPort>,
}

/// An address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The pod behind it, where the object names one.
    pub pod: Option<ObjectRef>,
    /// Whether it gets traffic.
    #[serde(default)]
    pub readiness: Readiness,
}

/// Whether an endpoint gets traffic: the first of these that there is any of does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Readiness {
    /// `ready`, or nothing said.
    #[default]
    Ready,
    /// About to end, and still `serving`.
    Serving,
    /// Neither.
    NotReady,
}

/// A port behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// `name`, as in the Service's port.
    pub name: String,
    /// The number, after any translation.
    pub port: u16,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
}
