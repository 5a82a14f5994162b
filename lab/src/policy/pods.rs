//! The pods that policies are about.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize as _;
use serde_json::Value;
use tracer_policy::model::Protocol;

use crate::lab::Lab;
use crate::plan::PodPlan;

/// The pods of a cluster, and which of them are on the node where policies are enforced.
#[derive(Clone, Debug, Default)]
pub struct Pods(Vec<PodFacts>);

/// A pod as policies see it.
#[derive(Clone, Debug)]
pub(crate) struct PodFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ports: Vec<(String, u16, Protocol)>,
    /// The node's end of its cable, where it runs on the node where the policies are enforced.
    pub(crate) cable: Option<String>,
}

impl Pods {
    /// The lab's own.
    pub(crate) fn of(lab: &Lab) -> Self {
        let facts = lab.pods().iter().map(|pod| PodFacts {
            cable: (pod.plan().node == "node-1").then(|| pod.host_interface().to_owned()),
            ..PodFacts::from(pod.plan())
        });
        Self(facts.collect())
    }

    /// From what `kubectl get pods -A -o json` prints. `cables` tells the node's end of the cable of each
    /// pod on the node, by the pod's addresses. Pods on the node's own network, finished ones and those
    /// without an address are left out: no policy is enforced for them.
    ///
    /// # Errors
    /// Names the pod whose object is not as the API says.
    pub fn from_api(list: &Value, cables: &BTreeMap<IpAddr, String>) -> Result<Self> {
        let mut pods = Vec::new();
        for item in list["items"].as_array().context("expected a list")? {
            let name = || item["metadata"]["name"].to_string();
            let pod = Pod::deserialize(item).with_context(|| format!("pod {}", name()))?;
            pods.extend(
                PodFacts::from_api(&pod, cables).with_context(|| format!("pod {}", name()))?,
            );
        }
        Ok(Self(pods))
    }

    pub(crate) fn as_slice(&self) -> &[PodFacts] {
        &self.0
    }
}

impl PodFacts {
    /// The lab's pods as planned, without a lab.
    #[cfg(test)]
    pub(crate) fn planned() -> Vec<Self> {
        let planned = crate::plan::PODS.iter().map(|plan| Self {
            cable: (plan.node == "node-1").then(|| plan.host_interface(crate::Wiring::Bridge)),
            ..Self::from(plan)
        });
        planned.collect()
    }

    fn from_api(pod: &Pod, cables: &BTreeMap<IpAddr, String>) -> Result<Option<Self>> {
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let finished = ["Succeeded", "Failed"].map(Some);
        if spec.host_network == Some(true) || finished.contains(&status.phase.as_deref()) {
            return Ok(None);
        }
        // Servers before 1.16 have only the one.
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in status
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| &ip.ip)
            .chain(&status.pod_ip)
        {
            let ip = ip
                .parse()
                .with_context(|| format!("status: `{ip}` is no address"))?;
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        if ips.is_empty() {
            return Ok(None);
        }
        let ports = spec
            .containers
            .iter()
            .flat_map(|own| own.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or("TCP"))?;
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone().unwrap_or_default(), number, protocol))
        });
        Ok(Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ports: ports.collect(),
            cable: ips.iter().find_map(|ip| cables.get(ip)).cloned(),
            ips,
        }))
    }
}

impl From<&PodPlan> for PodFacts {
    fn from(pod: &PodPlan) -> Self {
        let ports = pod.ports.iter().filter_map(|&(name, port, protocol)| {
            Some((name.to_owned(), port, Protocol::from_name(protocol)?))
        });
        Self {
            namespace: pod.namespace.to_owned(),
            name: pod.name.to_owned(),
            labels: pod
                .labels
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            ips: pod.addresses.both().to_vec(),
            ports: ports.collect(),
            cable: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_with_a_network_of_their_own_are_policed() {
        let pod = |name: &str, ip: &str, phase: &str, host: bool| {
            json!({
                "metadata": {"name": name, "namespace": "n", "labels": {"app": name}},
                "spec": {"hostNetwork": host, "containers": [
                    {"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]},
                "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
            })
        };
        let list = json!({"items": [
            pod("here", "10.42.1.100", "Running", false),
            pod("there", "10.42.2.7", "Running", false),
            pod("host", "10.10.0.11", "Running", true),
            pod("done", "10.42.1.101", "Succeeded", false),
            {"metadata": {"name": "new"}, "spec": {"containers": []}, "status": {"phase": "Pending"}},
        ]});
        let ip: IpAddr = "10.42.1.100".parse().unwrap();
        let cables = BTreeMap::from([(ip, "veth1".to_owned())]);
        let pods = Pods::from_api(&list, &cables).unwrap();
        let [here, there] = pods.as_slice() else {
            panic!("{pods:?}")
        };
        assert_eq!(
            (here.name.as_str(), here.ips.as_slice()),
            ("here", &[ip][..])
        );
        assert_eq!(here.cable.as_deref(), Some("veth1"));
        assert_eq!(here.ports, [("web".to_owned(), 80, Protocol::Tcp)]);
        assert_eq!(
            (there.name.as_str(), there.cable.as_deref()),
            ("there", None)
        );
    }

    #[test]
    fn says_which_pod_is_wrong() {
        let list = json!({"items": [
            {"metadata": {"name": "odd"}, "spec": {"containers": []}, "status": {"podIP": "ten"}}]});
        let error = Pods::from_api(&list, &BTreeMap::new()).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.starts_with("pod \"odd\": status: `ten` is no address"),
            "{error}"
        );
    }
}
