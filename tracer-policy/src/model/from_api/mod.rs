//! From the API's own types to the model.
//!
//! A field that the API server would have refused (an address that is none, a port out of range) is an
//! error that names object and field; a field that is absent gets the API's documented default.

mod node;
mod pod;
mod service;
mod workload;

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use service::{from_endpoint_slice, from_endpoints};
pub use workload::from_template;

use super::{Labels, Namespace, ObjectRef, Protocol};

/// An object that cannot be taken over: which, where in it, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {object}: {field}: {problem}")]
pub struct ObjectError {
    /// The object's kind.
    pub kind: &'static str,
    /// `namespace/name` or `name`.
    pub object: String,
    /// Path of the field (`status.podIPs[1].ip`).
    pub field: String,
    /// What is there and what was expected.
    pub problem: String,
}

/// Reads the fields of one object and names it in errors.
struct Reader<'a> {
    kind: &'static str,
    metadata: &'a ObjectMeta,
}

impl<'a> Reader<'a> {
    const fn new(kind: &'static str, metadata: &'a ObjectMeta) -> Self {
        Self { kind, metadata }
    }

    fn error(&self, field: impl Into<String>, problem: impl Into<String>) -> ObjectError {
        let name = self.metadata.name.as_deref().unwrap_or("(without a name)");
        ObjectError {
            kind: self.kind,
            object: match &self.metadata.namespace {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            },
            field: field.into(),
            problem: problem.into(),
        }
    }

    fn name(&self) -> Result<String, ObjectError> {
        self.metadata
            .name
            .clone()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| self.error("metadata.name", "missing; every object has a name"))
    }

    /// Namespace and name; an object of a namespaced kind without one is in `default`, as with kubectl.
    fn id(&self) -> Result<ObjectRef, ObjectError> {
        let namespace = self
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        Ok(ObjectRef::new(namespace, self.name()?))
    }

    fn labels(&self) -> Labels {
        self.metadata.labels.clone().unwrap_or_default()
    }

    fn ip(&self, field: impl FnOnce() -> String, text: &str) -> Result<IpAddr, ObjectError> {
        text.parse()
            .map_err(|_| self.error(field(), format!("{text:?} is no IP address")))
    }

    fn port(&self, field: impl FnOnce() -> String, number: i32) -> Result<u16, ObjectError> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| {
                self.error(
                    field(),
                    format!("{number} is no port number from 1 to 65535"),
                )
            })
    }

    fn protocol(
        &self,
        field: impl FnOnce() -> String,
        name: Option<&str>,
    ) -> Result<Protocol, ObjectError> {
        match name {
            None => Ok(Protocol::Tcp),
            Some(name) => Protocol::from_name(name)
                .filter(|known| known.has_ports())
                .ok_or_else(|| self.error(field(), format!("{name:?} is none of TCP, UDP, SCTP"))),
        }
    }
}

/// Adds `ip` unless it is there already: `status.podIP` repeats the first of `status.podIPs`.
fn push_once(ips: &mut Vec<IpAddr>, ip: IpAddr) {
    if !ips.contains(&ip) {
        ips.push(ip);
    }
}

impl TryFrom<&core::Namespace> for Namespace {
    type Error = ObjectError;

    fn try_from(object: &core::Namespace) -> Result<Self, ObjectError> {
        let reader = Reader::new("Namespace", &object.metadata);
        let name = reader.name()?;
        let mut labels = reader.labels();
        labels
            .entry("kubernetes.io/metadata.name".to_owned())
            .or_insert_with(|| name.clone());
        Ok(Self { name, labels })
    }
}

#[cfg(test)]
mod tests;
