//! A finding as the page shows it.

use super::aggregate::Aggregate;
use super::bounded::Few;
use super::cause;
use super::chart::tone;
use super::finding::{Finding, Miss};
use super::fix::Fix;
use super::key::Standing;
use super::when::{When, dated, span};
use super::words::{counted, grouped, meaning};
use crate::record::{Class, Direction, DropAction, Grade};

/// One finding.
#[derive(Debug)]
pub(super) struct View {
    pub(super) number: usize,
    pub(super) flow: String,
    pub(super) tone: &'static str,
    pub(super) alarm: bool,
    pub(super) class: Option<&'static str>,
    pub(super) direction: Option<&'static str>,
    pub(super) standing: &'static str,
    pub(super) meaning: &'static str,
    pub(super) why: String,
    pub(super) packets: String,
    pub(super) first: When,
    pub(super) last: When,
    /// How long after the first the last was, where there are two.
    pub(super) lasted: Option<String>,
    pub(super) clients: Listed,
    pub(super) servers: Listed,
    pub(super) nodes: Listed,
    pub(super) policies: Vec<String>,
    pub(super) grades: Vec<&'static str>,
    pub(super) ways: Vec<[String; 5]>,
    pub(super) more_ways: Option<String>,
    pub(super) misses: Vec<Miss>,
    pub(super) more_misses: bool,
    pub(super) probes: Vec<String>,
    pub(super) symptoms: Vec<String>,
    pub(super) hints: Vec<String>,
    pub(super) notes: Vec<String>,
    /// What the fix does for it.
    pub(super) effect: Option<String>,
}

/// Names, and whether there were more.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) names: Vec<String>,
    pub(super) more: bool,
}

impl Listed {
    pub(super) fn of<const N: usize>(few: &Few<String, N>) -> Self {
        Self {
            names: few.iter().cloned().collect(),
            more: few.rest().is_some(),
        }
    }
}

impl View {
    pub(super) fn of(
        number: usize,
        finding: &Finding,
        flow: &str,
        all: &Aggregate,
        fix: &Fix,
    ) -> Self {
        let or_dash = |text: Option<&str>| text.unwrap_or("–").to_owned();
        let ways = finding.ways.counted().map(|(way, packets)| {
            [
                way.reason.clone(),
                or_dash(way.action.map(|action| match action {
                    DropAction::Drop => "drop",
                    DropAction::Reject => "reject",
                })),
                or_dash(way.reply.as_deref()),
                or_dash(way.hook.as_deref().or(way.datapath.as_deref())),
                grouped(packets),
            ]
        });
        let key = &finding.key;
        let policies = key.policies.iter().map(|policy| match &policy.rule {
            Some(rule) => format!("{policy} {rule}"),
            None => policy.to_string(),
        });
        let probes = finding.probes.iter().map(|probe| {
            format!(
                "{} probe of container {}: {} on port {}, every {} s",
                probe.kind, probe.container, probe.handler, probe.port, probe.period
            )
        });
        let lasted = finding.last.as_nanosecond() - finding.first.as_nanosecond();
        Self {
            number,
            flow: flow.to_owned(),
            tone: tone(key.standing),
            alarm: key.standing == Standing::Disagreement,
            class: key.class.map(Class::as_str),
            direction: key.direction.map(Direction::as_str),
            standing: cause::standing(key.standing),
            meaning: meaning(key.class),
            why: cause::why(finding),
            packets: counted(finding.packets, "packet", "packets"),
            first: dated(finding.first),
            last: dated(finding.last),
            lasted: (lasted > 0).then(|| span(lasted)),
            clients: Listed::of(&finding.clients),
            servers: Listed::of(&finding.servers),
            nodes: Listed::of(&finding.nodes),
            policies: policies.collect(),
            grades: finding.grades.iter().map(|grade| sure(*grade)).collect(),
            ways: ways.collect(),
            more_ways: finding.ways.rest().map(grouped),
            misses: finding.misses.iter().cloned().collect(),
            more_misses: finding.misses.rest().is_some(),
            probes: probes.collect(),
            symptoms: finding.symptoms.iter().cloned().collect(),
            hints: finding.hints.iter().cloned().collect(),
            notes: taken_together(finding)
                .chain(finding.notes.iter().cloned())
                .collect(),
            effect: effect(finding, all, fix),
        }
    }
}

/// That it is no single finding, where it is none.
fn taken_together(finding: &Finding) -> impl Iterator<Item = String> + use<> {
    let note = "There were more kinds of drops than this report tells apart: what came late is taken together here.";
    finding.folded.then(|| note.to_owned()).into_iter()
}

/// How sure it is that a policy is why.
const fn sure(grade: Grade) -> &'static str {
    match grade {
        Grade::Proven => "proven: the policies deny it, and it died where policies are enforced",
        Grade::Likely => "likely: it points that way, with something left open",
        Grade::Unexplained => "unexplained: no policy explains it",
    }
}

/// What the fix does for a finding, where there is one.
fn effect(finding: &Finding, all: &Aggregate, fix: &Fix) -> Option<String> {
    let Fix::Advised(advised) = fix else {
        return None;
    };
    let effect = advised.effect(finding);
    let flows = effect.cured + effect.allowed + effect.left;
    let looked_at = counted(flows as u64, "distinct flow", "distinct flows");
    let of_more = if all.more_to_fix {
        ", the first of them"
    } else {
        ""
    };
    Some(match (flows, effect.cured, effect.allowed, effect.left) {
        (0, ..) => return None,
        (_, _, 0, 0) => format!("Let through by the fix below: proven for {looked_at}{of_more}."),
        (_, 0, _, 0) if finding.key.standing == Standing::Denied => {
            "It was denied when it was dropped; the policies given with --cluster let it through, so they were \
             changed since."
                .to_owned()
        }
        (_, 0, _, 0) => {
            "The policies given with --cluster let it through already: no policy is missing.".to_owned()
        }
        (_, 0, 0, _) => "The fix below does not let it through: see what is refused there.".to_owned(),
        (_, cured, allowed, left) => format!(
            "Of {looked_at}{of_more}, the fix below lets {cured} through, {allowed} pass without it, and {left} are \
             refused."
        ),
    })
}
