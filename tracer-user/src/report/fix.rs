//! The fix: what the engine suggests for the dropped flows, and a proof for each finding that it helps.

use std::collections::HashSet;

use tracer_policy::{Advice, Cluster, Flow, Policy, Refusal};

use super::aggregate::Aggregate;
use super::bounded::clip;
use super::finding::Finding;
use crate::cure;

/// Objects that are shown; `tracer suggest` has no such limit.
const OBJECTS: usize = 24;

/// Tuples, flows and reasons that are listed one by one.
const LISTED: usize = 60;
const REASONS: usize = 24;
const OF_A_REASON: usize = 12;

/// Characters of one object's YAML.
const YAML: usize = 64 << 10;

/// What there is to say of the fix.
#[derive(Debug)]
pub enum Fix {
    /// No cluster to make one from.
    Unasked,
    /// What the engine says.
    Advised(Box<Advised>),
}

/// Suggestions and refusals, ready to be shown.
#[derive(Debug)]
pub struct Advised {
    pub(super) objects: Vec<Object>,
    pub(super) more_objects: usize,
    pub(super) refused: Vec<Refused>,
    pub(super) more_refused: usize,
    /// How many flows it is for; whether there were more.
    pub(super) flows: usize,
    pub(super) more_flows: bool,
    /// By a flow's place.
    outcomes: Vec<Outcome>,
}

/// A suggested object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) direction: &'static str,
    pub(super) yaml: String,
    pub(super) newly_allowed: Vec<String>,
    pub(super) more_newly_allowed: usize,
    pub(super) notes: Vec<String>,
}

/// Flows for which there is nothing to suggest, for one reason.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) flows: Vec<String>,
    pub(super) more: usize,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Denied without the fix, allowed with it.
    Cured,
    /// Allowed without it already.
    Allowed,
    /// Not allowed with it either.
    Left,
}

/// What the fix does for one finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) cured: usize,
    pub(super) allowed: usize,
    pub(super) left: usize,
}

impl Fix {
    /// Asks the engine what lets the dropped flows through.
    pub fn of(cluster: &mut Cluster, all: &Aggregate) -> Self {
        let Advice {
            suggestions,
            refusals,
        } = cure::advise(cluster, &all.to_fix);
        let overlay: Vec<Policy> = suggestions
            .iter()
            .filter_map(|suggestion| cluster.compile(&suggestion.policy).ok())
            .collect();
        let flows = all.to_fix.as_slice();
        let outcomes = flows.iter().map(|flow| outcome(cluster, flow, &overlay));
        let mut advised = Advised {
            objects: Vec::new(),
            more_objects: suggestions.len().saturating_sub(OBJECTS),
            refused: Vec::new(),
            more_refused: 0,
            flows: flows.len(),
            more_flows: all.more_to_fix,
            outcomes: outcomes.collect(),
        };
        for suggestion in suggestions.iter().take(OBJECTS) {
            let metadata = &suggestion.policy.metadata;
            let newly = &suggestion.newly_allowed;
            let shown = newly.iter().take(LISTED);
            // A part of it would be another policy.
            let yaml = Some(suggestion.to_yaml()).filter(|yaml| yaml.len() <= YAML);
            let yaml = yaml
                .unwrap_or_else(|| "# Too long for this page: tracer suggest prints it.\n".into());
            advised.objects.push(Object {
                name: clip(
                    &format!(
                        "{}/{}",
                        metadata.namespace.as_deref().unwrap_or_default(),
                        metadata.name.as_deref().unwrap_or_default()
                    ),
                    520,
                ),
                direction: suggestion.direction.as_str(),
                yaml,
                newly_allowed: shown.map(|tuple| clip(&tuple.to_string(), 600)).collect(),
                more_newly_allowed: newly.len().saturating_sub(LISTED),
                notes: suggestion
                    .notes
                    .iter()
                    .map(|note| clip(note, 600))
                    .collect(),
            });
        }
        advised.refuse(&refusals, all);
        for (why, what) in all.incurable.iter() {
            advised.refuse_one(why.clone(), what);
        }
        Self::Advised(Box::new(advised))
    }
}

/// What becomes of a flow where `overlay` is applied, by rules alone: a dataplane's exemptions did not help.
fn outcome(cluster: &Cluster, flow: &Flow, overlay: &[Policy]) -> Outcome {
    let profile = cluster.profile();
    if cluster.evaluate_with(flow, profile, &[]).is_allowed() {
        Outcome::Allowed
    } else if cluster.evaluate_with(flow, profile, overlay).is_allowed() {
        Outcome::Cured
    } else {
        Outcome::Left
    }
}

impl Advised {
    /// What it does for a finding.
    pub(super) fn effect(&self, finding: &Finding) -> Effect {
        let mut effect = Effect::default();
        for place in &finding.flows {
            match self.outcomes.get(*place) {
                Some(Outcome::Cured) => effect.cured += 1,
                Some(Outcome::Allowed) => effect.allowed += 1,
                Some(Outcome::Left) => effect.left += 1,
                None => {}
            }
        }
        effect
    }

    /// Sorts refusals by their reasons.
    fn refuse(&mut self, refusals: &[(Flow, Refusal)], all: &Aggregate) {
        let denied = all.denied();
        let flows = all.to_fix.as_slice();
        let denied: HashSet<&Flow> = denied
            .iter()
            .filter_map(|place| flows.get(*place))
            .collect();
        for (flow, refusal) in refusals {
            // What was denied then and is allowed now needs no cure; whatever else is allowed does.
            let why = if *refusal == Refusal::Allowed && denied.contains(flow) {
                "the policies denied it when it was dropped, and the ones given here let it through: they were \
                 changed since, and nothing is left to do"
                    .to_owned()
            } else {
                clip(&refusal.to_string(), 600)
            };
            self.refuse_one(why, &flow.to_string());
        }
    }

    fn refuse_one(&mut self, why: String, what: &str) {
        let known = self.refused.iter().position(|refused| refused.why == why);
        let refused = match known {
            Some(place) => &mut self.refused[place],
            None if self.refused.len() < REASONS => {
                self.refused.push(Refused {
                    why,
                    flows: Vec::new(),
                    more: 0,
                });
                let last = self.refused.len() - 1;
                &mut self.refused[last]
            }
            None => {
                self.more_refused += 1;
                return;
            }
        };
        if refused.flows.len() < OF_A_REASON {
            refused.flows.push(clip(what, 600));
        } else {
            refused.more += 1;
        }
    }
}
