//! What the policies say of a dropped packet.

mod reading;

use tracer_policy::{
    Cluster, Decides, Direction as Side, End, Flow as PolicyFlow, Icmp, NearestMiss, Outcome,
    Packet, PolicyRef, Profile, ProfileName, SideVerdict, Verdict,
};

use crate::decode::{Hook, RawDrop};
use crate::enrich::Ends;
use crate::record::{self, Direction, Grade, PolicyInfo, PolicyVerdict};
pub(crate) use reading::{Half, Reading, read};

/// What was found, and which way round the packet's flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The record's part.
    pub policy: PolicyInfo,
    /// Whether the packet answers a flow, as far as can be told.
    pub reply: bool,
    /// Why the verdict is unknown, where it is.
    pub reason: Option<String>,
    /// Whether what denies it is asked ahead of NetworkPolicies.
    pub overruled: bool,
}

impl Explanation {
    /// Of a packet between ends of which too little is known to ask any policy.
    const fn unknown(reason: Option<String>) -> Self {
        Self {
            policy: PolicyInfo {
                verdict: PolicyVerdict::Unknown,
                grade: Grade::Unexplained,
                direction: None,
                isolating: Vec::new(),
                nearest_miss: None,
                denied_by: None,
                change: None,
            },
            reply: false,
            reason,
            overruled: false,
        }
    }
}

/// Judges a packet; `None` where no policy has a say because neither end is a pod.
pub fn explain(raw: &RawDrop, ends: &Ends<'_>, cluster: &Cluster) -> Option<Explanation> {
    if ends.source_pod().is_none() && ends.destination_pod().is_none() {
        let unread = || Explanation::unknown(cluster.unread_reason(Decides::Ends));
        return ends.has_unread().then(unread);
    }
    let judged = Judged::of(raw.hook, ends, cluster);
    let seen = seen_at(raw.hook);
    // On an uplink or a tunnel it is nobody's side.
    let evidence = seen.filter(|direction| match direction {
        Direction::Egress => ends.source_pod().is_some(),
        Direction::Ingress => ends.destination_pod().is_some(),
    });
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
    // A pod that the cluster state does not hold may be one that a rule lets through, or one that other
    // policies isolate.
    let stranger = ends.has_unheld() || ends.has_unread();
    let unread = cluster.unread(Decides::Policies).next().is_some();
    let (outcome, grade) = match verdict.verdict {
        Outcome::Denied if stranger || unread => (PolicyVerdict::Denied, Grade::Likely),
        Outcome::Denied => (
            PolicyVerdict::Denied,
            // Cilium enforces what isolates the receiver where its sender's packets come in.
            judged.grade(
                raw.hook,
                direction,
                seen.filter(|_| cluster.profile().name != ProfileName::Cilium),
            ),
        ),
        Outcome::Allowed if stranger => (PolicyVerdict::Unknown, Grade::Unexplained),
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
            denied_by: side
                .and_then(|side| side.denied_by.as_ref())
                .map(|rule| record::DeniedBy {
                    policy: name(&rule.policy),
                    rule: rule.rule.to_string(),
                }),
            change: None,
        },
        reply: judged.reply,
        reason: verdict.reason.clone(),
        overruled: side
            .and_then(|side| side.denied_by.as_ref())
            .is_some_and(|rule| cluster.overrules_network_policies(rule)),
    })
}

/// A verdict, and how it was come by.
struct Judged {
    verdict: Verdict,
    reply: bool,
    /// Something else may have dropped it all the same.
    doubtful: bool,
    /// The dataplane is known to let such traffic through whatever policies say, and it died.
    exempt: bool,
}

impl Judged {
    fn of(hook: Option<Hook>, ends: &Ends<'_>, cluster: &Cluster) -> Self {
        let flow = ends.flow;
        let own = cluster.profile();
        // Exemptions are what a dataplane lets through; this packet it did not.
        let strict = own.without_exemptions();
        let judged = |reply| judge(ends, reply, cluster, strict);
        // An established connection passes, policies or not, where the dataplane keeps track of it. That
        // this packet did not has a second cause: a new policy, or a state that was lost.
        let midway = flow
            .tcp_flags
            .is_some_and(|flags| !flags.is_initial_syn() && !flags.is_syn_ack());
        let (verdict, reply, doubtful) = match reading::of(ends, cluster) {
            Reading::Question => (judged(false), false, midway),
            // The question got through, so its answer should.
            Reading::Answer => (judged(true), true, true),
            Reading::Aside => (judged(false), false, true),
            // It belongs to whichever way round is allowed.
            Reading::Unclear => match (judged(false), judged(true)) {
                (forward, backward) if forward.is_denied() && !backward.is_denied() => {
                    (backward, true, true)
                }
                (forward, backward) => {
                    let doubtful = midway || !backward.is_denied();
                    (forward, false, doubtful)
                }
            },
        };
        let exempt = verdict.is_denied()
            && strict != own
            && hook == Some(Hook::Netfilter)
            && judge(ends, reply, cluster, own).is_allowed();
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
        seen: Option<Direction>,
    ) -> Grade {
        let contradicted = !self.reply && seen.is_some() && seen != direction;
        if !enforces(hook) || self.doubtful || self.exempt || contradicted {
            Grade::Likely
        } else {
            Grade::Proven
        }
    }
}

fn judge(ends: &Ends<'_>, reply: bool, cluster: &Cluster, profile: Profile) -> Verdict {
    let flow = ends.flow;
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
        // An answer's is not that of what it answers.
        icmp: flow.icmp.filter(|_| !reply).map(|icmp| Icmp {
            kind: icmp.kind,
            code: Some(icmp.code),
        }),
    };
    let time = ends.time;
    cluster.evaluate_at(&flow, profile, Packet { time, reply })
}

/// Whether policies are enforced at such a hook. A security module or a socket's own filter has rules
/// of its own.
const fn enforces(hook: Option<Hook>) -> bool {
    match hook {
        Some(
            Hook::Netfilter | Hook::TcIngress | Hook::TcEgress | Hook::Xdp | Hook::CgroupEgress,
        ) => true,
        Some(Hook::SocketFilter | Hook::Security) | None => false,
    }
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
