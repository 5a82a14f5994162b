//! Who the ends of a flow are.

use std::net::IpAddr;
use std::slice;

use jiff::Timestamp;

use crate::cluster::{Claim, Cluster, NamespaceEntry, PodEntry, Role};
use crate::flow::End;
use crate::model::NodeAddressKind;

/// One end of a flow, identified.
pub(crate) struct Party<'a> {
    pub(crate) who: Who<'a>,
    ips: Ips<'a>,
}

/// What an end is to policies.
pub(crate) enum Who<'a> {
    /// A pod with an identity of its own.
    Pod {
        entry: &'a PodEntry,
        namespace: &'a NamespaceEntry,
    },
    /// A node's own processes and hostNetwork pods; the name where it is known.
    Node(Option<&'a str>),
    /// Neither.
    External,
    /// Nobody can tell: it may be any of these.
    Untold,
}

enum Ips<'a> {
    One(IpAddr),
    Many(&'a [IpAddr]),
    Owned(Vec<IpAddr>),
}

impl<'a> Party<'a> {
    /// Identifies an end, of a packet where that is told; the reason where nothing can be said of it.
    pub(crate) fn of(
        cluster: &'a Cluster,
        end: &End,
        packet: Option<(Timestamp, Role)>,
    ) -> Result<Self, String> {
        match end {
            End::Ip(ip) => Ok(Self::at(cluster, ip.to_canonical(), packet)),
            End::Pod(id) => {
                let (Some(entry), Some(namespace)) = (
                    cluster.pod_entry(&id.namespace, &id.name),
                    cluster.namespace_entry(&id.namespace),
                ) else {
                    return Err(if cluster.is_unread(&format!("Pod {id}")) {
                        format!(
                            "Pod {id} could not be read: which policies apply to it is not known"
                        )
                    } else {
                        format!("pod {id} is not in the cluster")
                    });
                };
                if entry.pod.phase.finished() {
                    return Err(format!(
                        "pod {id} has finished: it neither sends nor receives, and its address may be another pod's"
                    ));
                }
                if !entry.pod.host_network {
                    return Ok(Self {
                        who: Who::Pod { entry, namespace },
                        ips: Ips::Many(&entry.pod.ips),
                    });
                }
                // The docs leave hostNetwork open and name the common reading: selectors ignore such a
                // pod, and its traffic is the node's.
                let node = entry.pod.node.as_deref();
                let ips = match node.and_then(|name| cluster.node(name)) {
                    Some(node) if entry.pod.ips.is_empty() => Ips::Owned(
                        node.addresses
                            .iter()
                            .filter(|a| a.kind == NodeAddressKind::Internal)
                            .map(|a| a.ip)
                            .collect(),
                    ),
                    _ => Ips::Many(&entry.pod.ips),
                };
                Ok(Self {
                    who: Who::Node(node),
                    ips,
                })
            }
        }
    }

    /// A node's own processes at one of these addresses.
    pub(crate) const fn node(name: Option<&'a str>, ips: Vec<IpAddr>) -> Self {
        Self {
            who: Who::Node(name),
            ips: Ips::Owned(ips),
        }
    }

    /// An end of which nothing is known.
    pub(crate) const fn untold() -> Self {
        Self {
            who: Who::Untold,
            ips: Ips::Many(&[]),
        }
    }

    fn at(cluster: &'a Cluster, ip: IpAddr, packet: Option<(Timestamp, Role)>) -> Self {
        let claim = cluster.claim(ip, packet);
        let who = if let Claim::Pod(entry) = claim
            && let Some(namespace) = cluster.namespace_entry(&entry.pod.id.namespace)
        {
            Who::Pod { entry, namespace }
        } else if matches!(claim, Claim::Open) {
            Who::External
        } else if let Some((node, _)) = cluster.node_at(ip) {
            Who::Node(Some(&node.name))
        } else {
            Who::External
        };
        Self {
            who,
            ips: Ips::One(ip),
        }
    }

    pub(crate) fn ips(&self) -> &[IpAddr] {
        match &self.ips {
            Ips::One(ip) => slice::from_ref(ip),
            Ips::Many(ips) => ips,
            Ips::Owned(ips) => ips,
        }
    }
}

/// One pair of addresses for each family both ends have, in the receiver's order.
pub(crate) fn shared_families<'a>(
    from: &'a [IpAddr],
    to: &'a [IpAddr],
) -> impl Iterator<Item = (Option<IpAddr>, Option<IpAddr>)> + use<'a> {
    let first_of = |ips: &[IpAddr], v4| ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
    let v4_first = to.first().is_none_or(IpAddr::is_ipv4);
    [v4_first, !v4_first].into_iter().filter_map(move |v4| {
        match (first_of(from, v4), first_of(to, v4)) {
            (Some(from), Some(to)) => Some((Some(from), Some(to))),
            _ => None,
        }
    })
}
