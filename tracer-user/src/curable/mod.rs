//! Whether a policy can cure a recorded drop, and by letting which flow through.
//!
//! Much that is dropped no policy stopped, and much that a recording names is elsewhere by now: a rule for
//! that would open something that nobody asked for.

mod ends;

use std::fmt;
use std::net::IpAddr;

use tracer_policy::model::Protocol;
use tracer_policy::{Cluster, End, Flow, Icmp, Outcome, Owner, Role};

use crate::decode::TcpFlags;
use crate::explain::{Half, Reading, read};
use crate::kernel::Reasons;
use crate::record::{Class, Drop, Peer, PolicyVerdict};

/// The first port that no service is known to choose, by the range that kernels give clients.
const FIRST_EPHEMERAL: u16 = 32768;

/// A drop that no policy can cure, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incurable {
    /// The packet, or the flow it belonged to.
    pub what: String,
    /// Why.
    pub why: Why,
}

/// Why no policy can cure a drop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// Nothing to name in a rule.
    #[error("its addresses or its protocol were not recorded")]
    Unknown,
    /// The kernel's reason is none of a rule's.
    #[error("the kernel dropped it for {reason}{}, and no policy can cure that", .means.map(|means| format!(" ({means})")).unwrap_or_default())]
    Reason {
        /// The kernel's name for it.
        reason: String,
        /// What that means, where it is common.
        means: Option<&'static str>,
    },
    /// API and node disagreed.
    #[error(
        "the policies let it through when it was dropped: look at the host's firewall, a stale rule set of the CNI, or \
         routing"
    )]
    Allowed,
    /// Netfilter dropped part of an allowed connection.
    #[error(
        "connection tracking did not know its connection (INVALID), which policies allow: no policy can cure that (see \
         nf_conntrack_tcp_be_liberal)"
    )]
    Untracked,
    /// Rules came after the packet.
    #[error(
        "the policies let it through, and its pod or a policy was so new that the rules were likely not in place yet: \
         look again if it lasts"
    )]
    Race,
    /// The pod is not there any more.
    #[error(
        "pod {pod} is gone, and {ip}, which it had, is {now} now: nobody is left to make a rule for"
    )]
    Gone {
        /// `namespace/name`.
        pod: String,
        /// Its address then.
        ip: IpAddr,
        /// Whose it is now.
        now: String,
    },
    /// Another pod bears its name.
    #[error("pod {pod} was of workload {was} then and is of {now} now")]
    Renamed {
        /// `namespace/name`.
        pod: String,
        /// Its workload then.
        was: String,
        /// And now.
        now: String,
    },
    /// The address has changed hands.
    #[error(
        "{ip} was {was} when it was dropped and is {now} now: a rule for who has it today would be a guess"
    )]
    Stale {
        /// The address.
        ip: IpAddr,
        /// Whose it was.
        was: String,
        /// Whose it is.
        now: String,
    },
    /// It answers what is allowed.
    #[error(
        "an answer needs no rule of its own, and what it answers the policies let through: connection tracking has lost \
         that flow, or something else dropped it"
    )]
    Answer,
    /// Nobody knows who asked.
    #[error(
        "it is in the midst of a connection, and neither port is known to be served: it cannot be said who opened it"
    )]
    Unclear,
}

/// The flow that a policy would have to let through, from who opened it to who serves it, between those of
/// today's cluster who are the recorded ones.
///
/// # Errors
/// Why there is none.
pub fn flow(drop: &Drop, cluster: &Cluster) -> Result<Flow, Incurable> {
    let refuse = |why| Incurable {
        what: Packet(drop).to_string(),
        why,
    };
    dropped_by_rule(drop).map_err(refuse)?;
    let parts = || {
        Some((
            drop.source.as_ref()?,
            drop.destination.as_ref()?,
            protocol(drop)?,
        ))
    };
    let (source, destination, protocol) = parts().ok_or_else(|| refuse(Why::Unknown))?;
    let end = |peer, role| ends::today(peer, role, drop.time, cluster).map_err(refuse);
    let from = end(source, Role::Sender)?;
    let to = end(destination, Role::Receiver)?;
    let flow = |from: &End, to: &End, port: Option<u16>| Flow {
        from: from.clone(),
        to: to.clone(),
        port: port.filter(|_| protocol.has_ports()),
        protocol,
        icmp: None,
    };
    let question = Flow {
        icmp: drop.icmp.map(|icmp| Icmp {
            kind: icmp.kind,
            code: Some(icmp.code),
        }),
        ..flow(&from, &to, destination.port)
    };
    let answered = flow(&to, &from, source.port);
    // What a dataplane lets through whatever policies say, it did not let through here.
    let strict = cluster.profile().without_exemptions();
    let verdict = |flow| cluster.evaluate_as(flow, strict).verdict;
    let flags = drop
        .tcp_flags
        .as_ref()
        .map(|names| TcpFlags::from_names(names.iter().map(String::as_str)));
    let halves = (
        half(source, &from, cluster),
        half(destination, &to, cluster),
    );
    let icmp = drop.icmp.map(|icmp| icmp.kind);
    let answer = match read(halves, protocol, flags, icmp, cluster) {
        Reading::Question | Reading::Aside => false,
        Reading::Answer => true,
        Reading::Unclear => {
            let (forward, backward) = (verdict(&question), verdict(&answered));
            let served = protocol != Protocol::Tcp
                && destination.port.is_some_and(|port| port < FIRST_EPHEMERAL);
            match (forward, backward) {
                // It belongs to whichever way round is allowed.
                (Outcome::Denied, Outcome::Allowed) => true,
                (Outcome::Denied, _) if !served => return Err(refuse(Why::Unclear)),
                _ => false,
            }
        }
    };
    if !answer {
        return Ok(question);
    }
    if verdict(&answered) == Outcome::Allowed {
        return Err(Incurable {
            what: format!("the answer to {answered}"),
            why: Why::Answer,
        });
    }
    Ok(answered)
}

/// Whether it was a policy's rule, by what the recording says.
fn dropped_by_rule(drop: &Drop) -> Result<(), Why> {
    let reason = drop.drop.reason.as_str();
    // A kernel without reasons tells by the place.
    let placed = reason == "NOT_SPECIFIED" && drop.drop.datapath.is_some();
    if reason == "SECURITY_HOOK" || !placed && !Reasons::means_a_rule(reason) {
        return Err(Why::Reason {
            reason: reason.to_owned(),
            means: meaning(reason),
        });
    }
    match drop.class {
        Some(Class::ConntrackInvalid) => return Err(Why::Untracked),
        Some(Class::PolicyRace) => return Err(Why::Race),
        _ => {}
    }
    match &drop.policy {
        Some(policy) if policy.verdict == PolicyVerdict::Allowed => Err(Why::Allowed),
        _ => Ok(()),
    }
}

fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "IP_RPFILTER" => "rp_filter: the way back to the sender leads through another interface",
        "IP_OUTNOROUTES" | "IP_INNOROUTES" => "there is no route",
        "NO_SOCKET" => "nobody listens there",
        "SECURITY_HOOK" => "a security module such as SELinux said no",
        _ if reason.starts_with("NEIGH_") => "the next hop could not be resolved",
        _ => return None,
    })
}

fn protocol(drop: &Drop) -> Option<Protocol> {
    let name = drop.protocol.as_deref()?;
    Protocol::from_name(name).or_else(|| name.parse().ok().map(Protocol::from_number))
}

/// An end as it is today.
fn half<'a>(peer: &Peer, end: &End, cluster: &'a Cluster) -> Half<'a> {
    let pod = match end {
        End::Pod(id) => cluster.pod_at(id),
        End::Ip(_) => None,
    };
    let own = pod.and_then(|pod| {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == peer.ip.is_ipv4();
        pod.ips.iter().find(same_family).copied()
    });
    let ip = own.unwrap_or(peer.ip);
    Half {
        owner: pod.map_or_else(|| cluster.owner(ip), Owner::Pod),
        ip,
        port: peer.port,
    }
}

/// `vault/vault-0 → 192.0.2.1 port 443/TCP`, as recorded.
struct Packet<'a>(&'a Drop);

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |peer: &Option<Peer>| match peer {
            None => "?".to_owned(),
            Some(peer) => {
                ends::pod_of(peer).map_or_else(|| peer.ip.to_string(), |pod| pod.to_string())
            }
        };
        let Drop {
            source,
            destination,
            protocol,
            ..
        } = self.0;
        write!(f, "{} → {}", name(source), name(destination))?;
        let protocol = protocol.as_deref().unwrap_or("packet");
        match destination.as_ref().and_then(|peer| peer.port) {
            Some(port) => write!(f, " port {port}/{protocol}"),
            None => write!(f, " {protocol}"),
        }
    }
}

#[cfg(test)]
mod tests;
