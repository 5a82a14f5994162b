//! Worlds with who has no address of its own: pods on their node's network, pods that have finished, Services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use tracer_policy::model::{
    Endpoint, EndpointPort, Endpoints, Labels, ObjectRef, Phase, Pod, Protocol, Readiness, Service,
    ServicePort, TargetPort,
};
use tracer_policy::{Cluster, End, Flow};

use super::judge::World;
use super::worlds::{self, PORTS, world};

const SERVICE_PORT: u16 = 8000;

#[derive(Clone, Debug)]
pub struct Crowd {
    /// Pods with addresses of their own are its; so are the policies.
    pub world: World,
    /// On their node's network.
    hosts: Vec<Pod>,
    finished: Vec<Pod>,
    services: Vec<Behind>,
}

#[derive(Clone, Debug)]
struct Behind {
    ip: IpAddr,
    namespace: String,
    selector: Labels,
    /// A number, or the port called `web`.
    target: Option<u16>,
    /// Whether endpoints say what is behind it; else its selector does.
    told: bool,
}

fn service(index: u8) -> impl Strategy<Value = Behind> {
    let target = prop::option::of(prop::sample::select(&PORTS[..]));
    let namespace = prop::sample::select(&worlds::NAMESPACES[..]);
    (namespace, target, any::<bool>()).prop_map(move |(namespace, target, told)| Behind {
        ip: IpAddr::from([10, 96, 0, index]),
        namespace: namespace.to_owned(),
        selector: Labels::from([("service".to_owned(), index.to_string())]),
        target,
        told,
    })
}

pub fn crowd() -> impl Strategy<Value = Crowd> {
    // Which Service a pod is for, and whether it is ready.
    let serves = prop::collection::vec((1..=2u8, prop::option::of(any::<bool>())), 5);
    let services = [1, 2].map(service);
    (world(), serves, services).prop_map(|(mut world, serves, services)| {
        for (pod, (service, ready)) in world.pods.iter_mut().zip(serves) {
            pod.ready = ready;
            pod.labels.insert("service".to_owned(), service.to_string());
        }
        let mut hosts = world.pods.split_off(4);
        for host in &mut hosts {
            host.host_network = true;
            host.ips = vec![IpAddr::from([192, 0, 2, 77])];
        }
        // One that left its address to another pod, and one that left it to nobody.
        let mut finished = world.pods[..2].to_vec();
        for (index, pod) in finished.iter_mut().enumerate() {
            pod.id.name = format!("finished-{index}");
            pod.phase = [Phase::Succeeded, Phase::Failed][index];
        }
        finished[1].ips = vec![IpAddr::from([10, 0, 1, 200])];
        Crowd {
            world,
            hosts,
            finished,
            services: services.into(),
        }
    })
}

impl Crowd {
    pub fn cluster(&self) -> Cluster {
        let mut cluster = worlds::cluster(&self.world);
        for pod in self.hosts.iter().chain(&self.finished) {
            cluster.apply_pod(pod.clone());
        }
        for (index, service) in self.services.iter().enumerate() {
            let id = ObjectRef::new(service.namespace.clone(), format!("service-{index}"));
            if service.told {
                for (at, (ip, port, is_ready)) in self.behind(service).into_iter().enumerate() {
                    cluster.apply_endpoints(endpoints(&id, at, ip, port, is_ready));
                }
                // That nobody is behind it is told, too.
                let mut none = endpoints(&id, 99, service.ip, 1, true);
                none.endpoints.clear();
                cluster.apply_endpoints(none);
            }
            cluster.apply_service(Service {
                id,
                ips: vec![service.ip],
                external_ips: Vec::new(),
                ports: vec![ServicePort {
                    name: String::new(),
                    port: SERVICE_PORT,
                    node_port: None,
                    protocol: Protocol::Tcp,
                    target: service
                        .target
                        .map_or_else(|| TargetPort::Name("web".to_owned()), TargetPort::Number),
                }],
                selector: service.selector.clone(),
                publishes_not_ready: false,
                keeps_sources: false,
            });
        }
        cluster
    }

    /// "The set of Pods targeted by a Service is usually determined by a selector"; each with whether it is ready.
    fn behind(&self, service: &Behind) -> Vec<(IpAddr, u16, bool)> {
        let pods = self.world.pods.iter().chain(&self.hosts);
        pods.filter(|pod| pod.id.namespace == service.namespace)
            .filter(|pod| contains(&pod.labels, &service.selector))
            .filter_map(|pod| {
                let named = || {
                    let is_web = |own: &&tracer_policy::model::ContainerPort| {
                        own.name.as_deref() == Some("web") && own.protocol == Protocol::Tcp
                    };
                    Some(pod.ports.iter().find(is_web)?.port)
                };
                Some((
                    pod.ips[0],
                    service.target.or_else(named)?,
                    pod.ready != Some(false),
                ))
            })
            .collect()
    }

    /// Flows to Services; the names of hosts; an address that a finished pod left.
    pub fn flows(&self) -> Vec<Flow> {
        let hosts = self.hosts.iter().map(|pod| End::Pod(pod.id.clone()));
        let pods = self.world.pods.iter().map(|pod| End::Pod(pod.id.clone()));
        let left = self.finished.iter().map(|pod| End::Ip(pod.ips[0]));
        let ends: Vec<End> = pods.chain(hosts).chain(left).collect();
        let mut flows = Vec::new();
        for from in &ends {
            for to in &ends {
                flows.extend(PORTS.map(|port| Flow::tcp(from.clone(), to.clone(), port)));
            }
            for service in &self.services {
                flows.push(Flow::tcp(from.clone(), End::Ip(service.ip), SERVICE_PORT));
            }
        }
        flows
    }

    /// Whether the API lets a flow through; `None` where it goes to nobody.
    pub fn allows(&self, flow: &Flow) -> Option<bool> {
        let from = self.plain(&flow.from);
        let service = self.services.iter().find(|own| flow.to == End::Ip(own.ip));
        let Some(service) = service else {
            let (to, flow) = (self.plain(&flow.to), flow.clone());
            return Some(self.world.allows(&Flow { from, to, ..flow }));
        };
        let mut behind = self.behind(service);
        if behind.iter().any(|(_, _, is_ready)| *is_ready) {
            behind.retain(|(_, _, is_ready)| *is_ready);
        }
        let to = |(ip, port, _)| {
            self.world
                .allows(&Flow::tcp(from.clone(), End::Ip(ip), port))
        };
        (!behind.is_empty()).then(|| behind.into_iter().all(to))
    }

    /// "Traffic from hostNetwork pods is generally treated as coming from the node": an address like any other.
    fn plain(&self, end: &End) -> End {
        let host = self
            .hosts
            .iter()
            .find(|pod| *end == End::Pod(pod.id.clone()));
        host.map_or_else(|| end.clone(), |pod| End::Ip(pod.ips[0]))
    }
}

fn contains(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn endpoints(service: &ObjectRef, at: usize, ip: IpAddr, port: u16, is_ready: bool) -> Endpoints {
    Endpoints {
        id: ObjectRef::new(service.namespace.clone(), format!("{}-{at}", service.name)),
        service: service.clone(),
        endpoints: vec![Endpoint {
            ip,
            pod: None,
            readiness: if is_ready {
                Readiness::Ready
            } else {
                Readiness::NotReady
            },
        }],
        ports: vec![EndpointPort {
            name: String::new(),
            port,
            protocol: Protocol::Tcp,
        }],
    }
}
