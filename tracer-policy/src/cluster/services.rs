//! Services and what stands behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Cluster, unlink};
use crate::model::{EndpointPort, Endpoints, ObjectRef, Protocol, Service, ServicePort};

/// The Service of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

impl Cluster {
    /// Adds or replaces a Service.
    pub fn apply_service(&mut self, service: Service) {
        self.remove_service(&service.id);
        for ip in &service.ips {
            let ids = self.services_by_ip.entry(*ip).or_default();
            if !ids.contains(&service.id) {
                ids.push(service.id.clone());
            }
        }
        for (port, protocol) in node_ports(&service) {
            let ids = self.services_by_node_port.entry((port, protocol));
            ids.or_default().push(service.id.clone());
        }
        self.services.insert(service.id.clone(), Arc::new(service));
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, id: &ObjectRef) {
        if let Some(old) = self.services.remove(id) {
            for ip in &old.ips {
                unlink(&mut self.services_by_ip, ip, id);
            }
            for key in node_ports(&old) {
                unlink(&mut self.services_by_node_port, &key, id);
            }
        }
    }

    /// A Service by name.
    pub fn service(&self, id: &ObjectRef) -> Option<&Service> {
        self.services.get(id).map(AsRef::as_ref)
    }

    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(AsRef::as_ref)
    }

    /// The Services with that virtual address.
    pub fn services_by_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Service> {
        self.services_by_ip
            .get(&ip)
            .into_iter()
            .flatten()
            .filter_map(|id| self.services.get(id))
            .map(AsRef::as_ref)
    }

    /// The Service, and its port, that answers at a virtual address and port.
    pub fn service_at(
        &self,
        ip: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&Service, &ServicePort)> {
        self.services_by_ip(ip).find_map(|service| {
            let found = service
                .ports
                .iter()
                .find(|p| p.port == port && p.protocol == protocol)?;
            Some((service, found))
        })
    }

    /// The Service, and its port, that answers at this port of every node.
    pub fn service_at_node_port(
        &self,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&Service, &ServicePort)> {
        let ids = self.services_by_node_port.get(&(port, protocol))?;
        let service = self.service(ids.first()?)?;
        let found = service
            .ports
            .iter()
            .find(|own| own.node_port == Some(port) && own.protocol == protocol)?;
        Some((service, found))
    }

    /// Adds or replaces an `EndpointSlice` or Endpoints object.
    pub fn apply_endpoints(&mut self, endpoints: Endpoints) {
        self.remove_endpoints(&endpoints.id);
        for endpoint in &endpoints.endpoints {
            let ids = self.endpoints_by_ip.entry(endpoint.ip).or_default();
            if !ids.contains(&endpoints.id) {
                ids.push(endpoints.id.clone());
            }
        }
        self.endpoints_by_service
            .entry(endpoints.service.clone())
            .or_default()
            .insert(endpoints.id.clone());
        self.endpoints
            .insert(endpoints.id.clone(), Arc::new(endpoints));
    }

    /// Removes an `EndpointSlice` or Endpoints object by its own name.
    pub fn remove_endpoints(&mut self, id: &ObjectRef) {
        let Some(old) = self.endpoints.remove(id) else {
            return;
        };
        for endpoint in &old.endpoints {
            unlink(&mut self.endpoints_by_ip, &endpoint.ip, id);
        }
        if let Some(ids) = self.endpoints_by_service.get_mut(&old.service) {
            ids.remove(id);
            if ids.is_empty() {
                self.endpoints_by_service.remove(&old.service);
            }
        }
    }

    /// What stands behind a Service.
    pub fn endpoints_of(&self, service: &ObjectRef) -> impl Iterator<Item = &Endpoints> {
        self.endpoints_by_service
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|id| self.endpoints.get(id))
            .map(AsRef::as_ref)
    }

    /// The addresses and ports behind one port of a Service, each once.
    pub fn backends(&self, service: &ObjectRef, port: &ServicePort) -> BTreeSet<(IpAddr, u16)> {
        self.backends_where(service, |p| {
            p.name == port.name && p.protocol == port.protocol
        })
    }

    fn backends_where(
        &self,
        service: &ObjectRef,
        wanted: impl Fn(&EndpointPort) -> bool,
    ) -> BTreeSet<(IpAddr, u16)> {
        let mut found = BTreeSet::new();
        for slice in self.endpoints_of(service) {
            for port in slice.ports.iter().filter(|p| wanted(p)) {
                found.extend(slice.endpoints.iter().map(|e| (e.ip, port.port)));
            }
        }
        found
    }

    /// The Services that a backend address and port belongs to, by name.
    pub fn services_behind(
        &self,
        ip: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> BTreeSet<&ObjectRef> {
        self.endpoints_by_ip
            .get(&ip)
            .into_iter()
            .flatten()
            .filter_map(|id| self.endpoints.get(id))
            .filter(|slice| {
                slice
                    .ports
                    .iter()
                    .any(|p| p.port == port && p.protocol == protocol)
            })
            .map(|slice| &slice.service)
            .collect()
    }

    /// Addresses and TCP ports of the API server: every endpoint of `default/kubernetes`, of every control
    /// plane node.
    pub fn api_server_endpoints(&self) -> BTreeSet<(IpAddr, u16)> {
        let service = ObjectRef::new(API_SERVER.0, API_SERVER.1);
        self.backends_where(&service, |p| p.protocol == Protocol::Tcp)
    }

    /// The Service of the API server, `default/kubernetes`.
    pub fn api_server_service(&self) -> Option<&Service> {
        self.service(&ObjectRef::new(API_SERVER.0, API_SERVER.1))
    }

    /// Whether `ip` and TCP `port` are the API server: an endpoint's, or the Service's own.
    pub fn is_api_server(&self, ip: IpAddr, port: u16) -> bool {
        let at_endpoint = self
            .services_behind(ip, port, Protocol::Tcp)
            .iter()
            .any(|id| (id.namespace.as_str(), id.name.as_str()) == API_SERVER);
        at_endpoint
            || self
                .service_at(ip, port, Protocol::Tcp)
                .is_some_and(|(s, _)| (s.id.namespace.as_str(), s.id.name.as_str()) == API_SERVER)
    }
}

fn node_ports(service: &Service) -> impl Iterator<Item = (u16, Protocol)> + '_ {
    service
        .ports
        .iter()
        .filter_map(|port| Some((port.node_port?, port.protocol)))
}
