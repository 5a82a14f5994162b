//! What the API server calls.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Cluster;
use crate::model::{ApiCall, ApiCallKind, Protocol};

impl Cluster {
    /// Replaces what an object has the API server call.
    pub fn apply_api_calls(&mut self, kind: ApiCallKind, object: &str, calls: Vec<ApiCall>) {
        self.remove_api_calls(kind, object);
        self.api_calls.extend(calls);
    }

    /// Removes what an object has the API server call.
    pub fn remove_api_calls(&mut self, kind: ApiCallKind, object: &str) {
        self.api_calls
            .retain(|call| call.kind != kind || call.object != object);
    }

    /// Everything the API server calls.
    pub fn api_calls(&self) -> &[ApiCall] {
        &self.api_calls
    }

    /// What the API server calls at a backend's address and TCP port.
    pub fn api_calls_to(&self, ip: IpAddr, port: u16) -> impl Iterator<Item = &ApiCall> {
        let services = if self.api_calls.is_empty() {
            BTreeSet::new()
        } else {
            self.services_behind(ip, port, Protocol::Tcp)
        };
        self.api_calls.iter().filter(move |call| {
            services.contains(&call.service)
                && self.service(&call.service).is_some_and(|service| {
                    service.ports.iter().any(|own| {
                        own.port == call.port
                            && self.backends(&call.service, own).contains(&(ip, port))
                    })
                })
        })
    }
}
