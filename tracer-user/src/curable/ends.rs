//! Who of today's cluster a recorded end is.

use std::net::IpAddr;

use jiff::Timestamp;
use tracer_policy::model::{ObjectRef, Pod};
use tracer_policy::{Cluster, End, Owner, Role};

use super::Why;
use crate::record::{Peer, PeerKind};

/// The pod that a recording names.
pub(super) fn pod_of(peer: &Peer) -> Option<ObjectRef> {
    let (namespace, name) = (peer.namespace.as_ref()?, peer.pod.as_ref()?);
    Some(ObjectRef::new(namespace.clone(), name.clone()))
}

/// The recorded end as a flow of today has it: a pod by its name, wherever it is now, or by a sibling of its
/// workload; else the address, unless somebody else has got it since.
pub(super) fn today(
    peer: &Peer,
    role: Role,
    time: Timestamp,
    cluster: &Cluster,
) -> Result<End, Why> {
    match pod_of(peer) {
        Some(id) => pod(&id, peer, cluster),
        None => address(peer, role, time, cluster),
    }
}

fn pod(id: &ObjectRef, peer: &Peer, cluster: &Cluster) -> Result<End, Why> {
    if let Some(pod) = cluster.pod_at(id) {
        let now = pod.workload.as_ref().map(|workload| &workload.name);
        return match (&peer.workload, now) {
            (Some(was), Some(now)) if was != now => Err(Why::Renamed {
                pod: id.to_string(),
                was: was.clone(),
                now: now.clone(),
            }),
            _ => Ok(End::Pod(id.clone())),
        };
    }
    if let Some(sibling) = sibling(id, peer, cluster) {
        return Ok(End::Pod(sibling.id.clone()));
    }
    Err(Why::Gone {
        pod: id.to_string(),
        ip: peer.ip,
        now: whose(cluster, peer.ip),
    })
}

/// A pod that a controller made in place of the one that is gone: suggestions are for workloads.
fn sibling<'a>(id: &ObjectRef, peer: &Peer, cluster: &'a Cluster) -> Option<&'a Pod> {
    let workload = peer.workload.as_ref()?;
    let mut pods = cluster.pods_in(&id.namespace);
    pods.find(|pod| {
        let own = pod.workload.as_ref();
        own.is_some_and(|own| own.name == *workload) && !pod.phase.finished()
    })
}

fn address(peer: &Peer, role: Role, time: Timestamp, cluster: &Cluster) -> Result<End, Why> {
    let Some(owner) = cluster.owner_at(peer.ip, time, role) else {
        return Err(Why::Stale {
            ip: peer.ip,
            was: "another's".to_owned(),
            now: whose(cluster, peer.ip),
        });
    };
    let was = match (peer.kind, &peer.service) {
        (PeerKind::Node, _) => peer.node.as_ref().map_or_else(
            || "a node's address".to_owned(),
            |node| format!("an address of node {node}"),
        ),
        (PeerKind::Service, Some(service)) => {
            format!(
                "the address of Service {}/{}",
                service.namespace, service.name
            )
        }
        (PeerKind::Service, None) => "a Service's address".to_owned(),
        (PeerKind::External, _) => "outside the cluster".to_owned(),
        (PeerKind::Pod, _) => "a pod's address".to_owned(),
        // It was not known then: whose it is now is the best there is.
        (PeerKind::Unknown, _) => return Ok(End::Ip(peer.ip)),
    };
    let same = match (peer.kind, owner) {
        (PeerKind::Node, owner) => matches!(owner, Owner::Node(..) | Owner::External),
        (PeerKind::Service, Owner::Service(_)) => {
            let named = |wanted: &crate::record::ServiceInfo| {
                cluster
                    .services_by_ip(peer.ip)
                    .any(|own| own.id.namespace == wanted.namespace && own.id.name == wanted.name)
            };
            peer.service.as_ref().is_none_or(named)
        }
        (PeerKind::External, Owner::External | Owner::Node(..))
        | (PeerKind::Pod, Owner::Pod(_)) => true,
        _ => false,
    };
    if same {
        Ok(End::Ip(peer.ip))
    } else {
        Err(Why::Stale {
            ip: peer.ip,
            was,
            now: whose(cluster, peer.ip),
        })
    }
}

fn whose(cluster: &Cluster, ip: IpAddr) -> String {
    match cluster.owner(ip) {
        Owner::Pod(pod) => format!("pod {}'s", pod.id),
        Owner::Node(node, _) => format!("an address of node {}", node.name),
        Owner::Service(service) => format!("the address of Service {}", service.id),
        Owner::External => "nobody's that is known".to_owned(),
    }
}
