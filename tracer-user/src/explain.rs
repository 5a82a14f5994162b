//! What the policies say of a dropped packet.

use tracer_policy::{
    Cluster, Direction as Side, End, Flow as PolicyFlow, NearestMiss, Outcome, PolicyRef, Profile,
    SideVerdict, Verdict,
};

use crate::decode::{Flow, Hook, RawDrop};
use crate::enrich::Ends;
use crate::record::{self, Direction, Grade, PolicyInfo, PolicyVerdict};

/// What was found, and which way round the packet's flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The record's part.
    pub policy: PolicyInfo,
    /// Whether the packet answers a flow, as far as can be told.
    pub reply: bool,
}

/// Judges a packet; `None` where no policy has a say because neither end is a pod.
pub fn explain(raw: &RawDrop, ends: &Ends<'_>, cluster: &Cluster) -> Option<Explanation> {
    if ends.source_pod().is_none() && ends.destination_pod().is_none() {
        return None;
    }
    let judged = Judged::of(raw.hook, ends.flow, cluster);
    let evidence = seen_at(raw.hook);
    let verdict = &judged.verdict;
    let denies = |side: Side| {
        let side = match side {
            Side::Ingress => &verdict.ingress,
            Side::Egress => &verdict.egress,
        };
        side.verdict == SideVerdict::Denied
    };
    let only_pod = match (ends.source_pod(), ends.destination_pod()) {
        (Some(_), None) => Some(Direction::Egress),
        (None, Some(_)) => Some(Direction::Ingress),
        _ => None,
    };
    let direction = match (denies(Side::Egress), denies(Side::Ingress)) {
        (true, false) => Some(Direction::Egress),
        (false, true) => Some(Direction::Ingress),
        // The sender's side is met first, unless the hook is the receiver's.
        (true, true) => Some(evidence.unwrap_or(Direction::Egress)),
        (false, false) => evidence.or(only_pod),
    };
    let side = match direction {
        Some(Direction::Ingress) => Some(&verdict.ingress),
        Some(Direction::Egress) => Some(&verdict.egress),
        None => None,
    };
    let (outcome, grade) = match verdict.verdict {
        Outcome::Denied => (
            PolicyVerdict::Denied,
            judged.grade(raw.hook, direction, evidence),
        ),
        Outcome::Allowed => (PolicyVerdict::Allowed, Grade::Unexplained),
        Outcome::Unknown => (PolicyVerdict::Unknown, Grade::Unexplained),
    };
    Some(Explanation {
        policy: PolicyInfo {
            verdict: outcome,
            grade,
            direction,
            isolating: side
                .map(|side| side.isolating.iter().map(name).collect())
                .unwrap_or_default(),
            nearest_miss: side
                .filter(|_| outcome == PolicyVerdict::Denied)
                .and_then(|side| side.nearest_miss.as_ref())
                .map(miss),
        },
        reply: judged.reply,
    })
}

/// A verdict, and how it was come by.
struct Judged {
    verdict: Verdict,
    reply: bool,
    /// Another reading of the packet was possible and says the same.
    doubtful: bool,
    /// The dataplane is known to let such traffic through whatever policies say, and it died.
    exempt: bool,
}

impl Judged {
    fn of(hook: Option<Hook>, flow: &Flow, cluster: &Cluster) -> Self {
        let own = cluster.profile();
        // Exemptions are what a dataplane lets through; this packet it did not.
        let strict = own.without_exemptions();
        let forward = || judge(flow, false, cluster, strict);
        let backward = || judge(flow, true, cluster, strict);
        let (verdict, reply, doubtful) = match flow.tcp_flags {
            Some(flags) if flags.is_initial_syn() => (forward(), false, false),
            Some(flags) if flags.is_syn_ack() => (backward(), true, false),
            // In the middle of a connection: it belongs to whichever way round is allowed.
            Some(_) => match (forward(), backward()) {
                (forward, backward) if forward.is_denied() && !backward.is_denied() => {
                    (backward, true, false)
                }
                (forward, backward) => {
                    let doubtful = forward.is_denied() && backward.is_denied();
                    (forward, false, doubtful)
                }
            },
            None => (forward(), false, false),
        };
        let exempt = verdict.is_denied()
            && strict != own
            && hook == Some(Hook::Netfilter)
            && judge(flow, reply, cluster, own).is_allowed();
        Self {
            verdict,
            reply,
            doubtful,
            exempt,
        }
    }

    fn grade(
        &self,
        hook: Option<Hook>,
        direction: Option<Direction>,
        evidence: Option<Direction>,
    ) -> Grade {
        let contradicted = !self.reply && evidence.is_some() && evidence != direction;
        if hook.is_none() || self.doubtful || self.exempt || contradicted {
            Grade::Likely
        } else {
            Grade::Proven
        }
    }
}

fn judge(flow: &Flow, reply: bool, cluster: &Cluster, profile: Profile) -> Verdict {
    let (from, to, port) = if reply {
        (flow.destination, flow.source, flow.source_port)
    } else {
        (flow.source, flow.destination, flow.destination_port)
    };
    let flow = PolicyFlow {
        from: End::Ip(from),
        to: End::Ip(to),
        port,
        protocol: flow.protocol,
    };
    cluster.evaluate_as(&flow, profile)
}

/// Whose side a tc hook is on: programs sit on the host's end of a pod's interface, where what the pod
/// sends comes in and what it gets goes out.
fn seen_at(hook: Option<Hook>) -> Option<Direction> {
    match hook {
        Some(Hook::TcIngress) => Some(Direction::Egress),
        Some(Hook::TcEgress) => Some(Direction::Ingress),
        _ => None,
    }
}

fn name(policy: &PolicyRef) -> record::PolicyRef {
    record::PolicyRef {
        kind: policy.kind().as_str().to_owned(),
        namespace: policy.namespace().map(str::to_owned),
        name: policy.name().to_owned(),
    }
}

fn miss(miss: &NearestMiss) -> record::NearestMiss {
    record::NearestMiss {
        policy: miss.policy.to_string(),
        rule: miss.rule.as_deref().map(str::to_owned),
        failed: miss.failed.as_str().to_owned(),
        wanted: miss.wanted.to_string(),
        got: miss.got.clone(),
    }
}
