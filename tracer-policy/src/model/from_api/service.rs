//! Services, Endpoints, EndpointSlices.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::{
    Endpoint, EndpointPort, Endpoints, ObjectRef, Readiness, Service, ServicePort, TargetPort,
};
use super::{ObjectError, Reader, push_once};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl TryFrom<&core::Service> for Service {
    type Error = ObjectError;

    fn try_from(object: &core::Service) -> Result<Self, ObjectError> {
        let reader = Reader::new("Service", &object.metadata);
        let mut service = Self {
            id: reader.id()?,
            ips: Vec::new(),
            external_ips: Vec::new(),
            ports: Vec::new(),
            selector: object
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.clone())
                .unwrap_or_default(),
            publishes_not_ready: false,
            keeps_sources: false,
        };
        let Some(spec) = &object.spec else {
            return Ok(service);
        };
        service.publishes_not_ready = spec.publish_not_ready_addresses == Some(true);
        service.keeps_sources = spec.external_traffic_policy.as_deref() == Some("Local");
        let lists = [
            ("spec.clusterIPs", spec.cluster_ips.as_deref()),
            (
                "spec.clusterIP",
                spec.cluster_ip.as_ref().map(std::slice::from_ref),
            ),
            ("spec.externalIPs", spec.external_ips.as_deref()),
        ];
        for (list, ips) in lists {
            for text in ips.unwrap_or_default() {
                // Headless: `None` stands where an address would.
                if !text.is_empty() && text != "None" {
                    let ip = reader.ip(|| list.to_owned(), text)?;
                    push_once(&mut service.ips, ip);
                    if list == "spec.externalIPs" {
                        push_once(&mut service.external_ips, ip);
                    }
                }
            }
        }
        let balancer = object
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer
            .and_then(|balancer| balancer.ingress.as_deref())
            .unwrap_or_default();
        for text in ingress.iter().filter_map(|ingress| ingress.ip.as_deref()) {
            let field = || "status.loadBalancer.ingress[].ip".to_owned();
            let ip = reader.ip(field, text)?;
            push_once(&mut service.ips, ip);
            push_once(&mut service.external_ips, ip);
        }
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let field = |name: &str| format!("spec.ports[{index}].{name}");
            let node_port = port.node_port.filter(|port| *port != 0);
            let own = reader.port(|| field("port"), port.port)?;
            service.ports.push(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                port: own,
                target: match &port.target_port {
                    // Zero is what an absent field reads as.
                    None | Some(IntOrString::Int(0)) => TargetPort::Number(own),
                    Some(IntOrString::Int(number)) => {
                        TargetPort::Number(reader.port(|| field("targetPort"), *number)?)
                    }
                    Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
                },
                node_port: node_port
                    .map(|port| reader.port(|| field("nodePort"), port))
                    .transpose()?,
                protocol: reader.protocol(|| field("protocol"), port.protocol.as_deref())?,
            });
        }
        Ok(service)
    }
}

/// An Endpoints object has subsets, each of which pairs its own addresses with its own ports: one model
/// object each, and one where it has none: that nothing stands behind the Service is known then.
pub fn from_endpoints(object: &core::Endpoints) -> Result<Vec<Endpoints>, ObjectError> {
    let reader = Reader::new("Endpoints", &object.metadata);
    let id = reader.id()?;
    let mut subsets = Vec::new();
    for (index, subset) in object.subsets.iter().flatten().enumerate() {
        let mut endpoints = Vec::new();
        // Addresses that are not ready get traffic too: probes, peers of a StatefulSet.
        let lists = [
            ("addresses", &subset.addresses, Readiness::Ready),
            (
                "notReadyAddresses",
                &subset.not_ready_addresses,
                Readiness::NotReady,
            ),
        ];
        for (list, addresses, readiness) in lists {
            for (at, address) in addresses.iter().flatten().enumerate() {
                let field = || format!("subsets[{index}].{list}[{at}].ip");
                endpoints.push(Endpoint {
                    ip: reader.ip(field, &address.ip)?,
                    pod: pod(address.target_ref.as_ref(), &id),
                    readiness,
                });
            }
        }
        let mut ports = Vec::new();
        for (at, port) in subset.ports.iter().flatten().enumerate() {
            let field = |name: &str| format!("subsets[{index}].ports[{at}].{name}");
            ports.push(EndpointPort {
                name: port.name.clone().unwrap_or_default(),
                port: reader.port(|| field("port"), port.port)?,
                protocol: reader.protocol(|| field("protocol"), port.protocol.as_deref())?,
            });
        }
        subsets.push(subset_of(&id, index, endpoints, ports));
    }
    if subsets.is_empty() {
        subsets.push(subset_of(&id, 0, Vec::new(), Vec::new()));
    }
    Ok(subsets)
}

/// Each subset needs a name of its own in the index; `#` cannot occur in an object's name.
fn subset_of(
    id: &ObjectRef,
    index: usize,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
) -> Endpoints {
    Endpoints {
        id: ObjectRef::new(id.namespace.clone(), format!("{}#{index}", id.name)),
        service: id.clone(),
        endpoints,
        ports,
    }
}

/// `None` where the slice belongs to no Service, or holds names instead of addresses.
pub fn from_endpoint_slice(
    object: &discovery::EndpointSlice,
) -> Result<Option<Endpoints>, ObjectError> {
    let reader = Reader::new("EndpointSlice", &object.metadata);
    let id = reader.id()?;
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
        return Ok(None);
    };
    if object.address_type == "FQDN" {
        return Ok(None);
    }
    let mut endpoints = Vec::new();
    for (index, endpoint) in object.endpoints.iter().enumerate() {
        for (at, text) in endpoint.addresses.iter().enumerate() {
            let field = || format!("endpoints[{index}].addresses[{at}]");
            endpoints.push(Endpoint {
                ip: reader.ip(field, text)?,
                pod: pod(endpoint.target_ref.as_ref(), &id),
                readiness: readiness(endpoint.conditions.as_ref()),
            });
        }
    }
    let mut ports = Vec::new();
    for (index, port) in object.ports.iter().flatten().enumerate() {
        let field = |name: &str| format!("ports[{index}].{name}");
        // A port without a number means all ports.
        let Some(number) = port.port else { continue };
        ports.push(EndpointPort {
            name: port.name.clone().unwrap_or_default(),
            port: reader.port(|| field("port"), number)?,
            protocol: reader.protocol(|| field("protocol"), port.protocol.as_deref())?,
        });
    }
    let service = ObjectRef::new(id.namespace.clone(), service.clone());
    Ok(Some(Endpoints {
        id,
        service,
        endpoints,
        ports,
    }))
}

/// Absent counts as ready, and what is ready serves.
fn readiness(conditions: Option<&discovery::EndpointConditions>) -> Readiness {
    let Some(conditions) = conditions else {
        return Readiness::Ready;
    };
    match (conditions.ready, conditions.serving) {
        (None | Some(true), _) => Readiness::Ready,
        (Some(false), Some(true)) if conditions.terminating == Some(true) => Readiness::Serving,
        (Some(false), _) => Readiness::NotReady,
    }
}

fn pod(target: Option<&core::ObjectReference>, near: &ObjectRef) -> Option<ObjectRef> {
    let target = target.filter(|target| target.kind.as_deref() == Some("Pod"))?;
    let namespace = target
        .namespace
        .clone()
        .unwrap_or_else(|| near.namespace.clone());
    Some(ObjectRef::new(namespace, target.name.clone()?))
}
