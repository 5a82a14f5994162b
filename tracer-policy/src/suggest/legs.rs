//! From a flow to the directions that block it.

use crate::cluster::Cluster;
use crate::flow::{End, Flow};
use crate::model::ObjectRef;
use crate::policy::Direction;
use crate::profile::Profile;
use crate::verdict::{Exemption, Outcome, Side, SideVerdict, Verdict};

use super::Refusal;

/// One blocked direction of a flow.
pub(super) struct Leg {
    /// The flow, behind any Service.
    pub(super) flow: Flow,
    pub(super) direction: Direction,
    /// The pod whose isolation blocks it.
    pub(super) subject: ObjectRef,
    /// The other end.
    pub(super) other: End,
    pub(super) port: u16,
    /// The dataplane's profile would let it through without any rule.
    pub(super) exemption: Option<Exemption>,
}

/// One direction's side of a verdict.
pub(super) const fn side(verdict: &Verdict, direction: Direction) -> &Side {
    match direction {
        Direction::Ingress => &verdict.ingress,
        Direction::Egress => &verdict.egress,
    }
}

/// The directions that block a flow: one or two, for each endpoint of a Service.
pub(super) fn of(cluster: &Cluster, profile: Profile, flow: &Flow) -> Result<Vec<Leg>, Refusal> {
    if !can_meet(cluster, flow) {
        return Err(Refusal::NoSharedFamily);
    }
    let verdict = cluster.evaluate_as(flow, profile);
    for direction in Direction::ALL {
        if let Some(rule) = &side(&verdict, direction).denied_by {
            return Err(if cluster.overrules_network_policies(rule) {
                Refusal::Overruled(rule.clone())
            } else {
                Refusal::Baseline(rule.clone())
            });
        }
    }
    let legs = match &verdict.service {
        Some(hop) => hop
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.verdict == Outcome::Denied)
            .flat_map(|endpoint| {
                let behind = Flow {
                    to: End::Ip(endpoint.ip),
                    port: Some(endpoint.port),
                    ..flow.clone()
                };
                let verdict = cluster.evaluate_as(&behind, profile);
                blocked(cluster, &behind, &verdict, endpoint.port)
            })
            .collect(),
        None if verdict.is_denied() => {
            if !flow.protocol.has_ports() {
                return Err(Refusal::NoWordsFor(flow.protocol));
            }
            let port = flow.port.ok_or(Refusal::NoPort)?;
            blocked(cluster, flow, &verdict, port)
        }
        None => Vec::new(),
    };
    if !legs.is_empty() {
        return Ok(legs);
    }
    Err(match verdict.verdict {
        Outcome::Unknown => Refusal::Unknown(verdict.reason.unwrap_or_default()),
        Outcome::Allowed | Outcome::Denied => {
            match verdict.ingress.exemption.or(verdict.egress.exemption) {
                Some(exemption) => Refusal::Exempt(exemption),
                None => Refusal::Allowed,
            }
        }
    })
}

/// Whether the ends have addresses of one family, as far as they are known.
fn can_meet(cluster: &Cluster, flow: &Flow) -> bool {
    let families = |end: &End| {
        let ips = match end {
            End::Ip(ip) => vec![ip.to_canonical()],
            End::Pod(id) => cluster
                .pod_at(id)
                .map_or_else(Vec::new, |pod| pod.ips.clone()),
        };
        [true, false].map(|v4| ips.is_empty() || ips.iter().any(|ip| ip.is_ipv4() == v4))
    };
    let (from, to) = (families(&flow.from), families(&flow.to));
    from.iter().zip(to).any(|(from, to)| *from && to)
}

fn blocked(cluster: &Cluster, flow: &Flow, verdict: &Verdict, port: u16) -> Vec<Leg> {
    // By the cluster's own profile, exemptions and all.
    let usual = cluster.evaluate(flow);
    Direction::ALL
        .into_iter()
        .filter(|direction| side(verdict, *direction).verdict == SideVerdict::Denied)
        .filter_map(|direction| {
            let (subject, other) = match direction {
                Direction::Ingress => (&flow.to, &flow.from),
                Direction::Egress => (&flow.from, &flow.to),
            };
            Some(Leg {
                flow: flow.clone(),
                direction,
                subject: pod_of(cluster, subject)?,
                other: other.clone(),
                port,
                exemption: side(&usual, direction).exemption,
            })
        })
        .collect()
}

fn pod_of(cluster: &Cluster, end: &End) -> Option<ObjectRef> {
    match end {
        End::Pod(id) => Some(id.clone()),
        End::Ip(ip) => cluster
            .pod_entry_at(ip.to_canonical())
            .map(|entry| entry.pod.id.clone()),
    }
}
