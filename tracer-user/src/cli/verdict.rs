//! A verdict for people.

use std::io::{self, Write};

use tracer_policy::{Cluster, Flow, Outcome, Side, SideVerdict, Verdict};

use super::color;

/// Both sides, every isolating policy, and the rule that came nearest.
pub(super) fn write(
    out: &mut impl Write,
    flow: &Flow,
    verdict: &Verdict,
    cluster: &Cluster,
) -> io::Result<()> {
    let (style, word) = match verdict.verdict {
        Outcome::Allowed => (color::GOOD, "allowed"),
        Outcome::Denied => (color::ERROR, "denied"),
        Outcome::Unknown => (color::WARNING, "unknown"),
    };
    writeln!(out, "{style}{word}{style:#}  {flow}")?;
    if let Some(reason) = &verdict.reason {
        writeln!(out, "  because {reason}")?;
    }
    side(out, "egress", "the sender", &verdict.egress)?;
    side(out, "ingress", "the receiver", &verdict.ingress)?;
    if let Some(service) = &verdict.service {
        for endpoint in &service.endpoints {
            let outcome = match endpoint.verdict {
                Outcome::Allowed => "allowed",
                Outcome::Denied => "denied",
                Outcome::Unknown => "unknown",
            };
            writeln!(
                out,
                "  through Service {} to {}:{}: {outcome}",
                service.id, endpoint.ip, endpoint.port
            )?;
        }
    }
    for note in &verdict.notes {
        writeln!(out, "  note: {note}")?;
    }
    let detected = cluster.detected_profile();
    if detected.name == verdict.profile {
        writeln!(
            out,
            "  judged as {} reads the API: {}",
            verdict.profile, detected.because
        )
    } else {
        writeln!(
            out,
            "  judged as {} reads the API, as asked",
            verdict.profile
        )
    }
}

fn side(out: &mut impl Write, name: &str, whose: &str, side: &Side) -> io::Result<()> {
    let word = match side.verdict {
        SideVerdict::Allowed => "allowed",
        SideVerdict::Denied => "denied",
        SideVerdict::NotIsolated => {
            return writeln!(out, "  {name}: no policy isolates {whose}");
        }
        SideVerdict::Unknown => "unknown",
    };
    writeln!(out, "  {name}: {word}")?;
    for policy in &side.isolating {
        writeln!(out, "    isolated by {} {policy}", policy.kind().as_str())?;
    }
    for rule in &side.allowed_by {
        writeln!(out, "    allowed by {} {}", rule.policy, rule.rule)?;
    }
    if let Some(exemption) = side.exemption {
        writeln!(out, "    let through: {}", exemption.as_sentence())?;
    }
    let Some(miss) = &side.nearest_miss else {
        return Ok(());
    };
    let rule = miss
        .rule
        .as_deref()
        .map(|rule| format!(" {rule}"))
        .unwrap_or_default();
    let (bad, cure) = (color::ERROR, color::GOOD);
    writeln!(
        out,
        "    nearest: {}{rule}, and its {} does not match",
        miss.policy, miss.failed
    )?;
    writeln!(out, "      wanted  {cure}{}{cure:#}", miss.wanted)?;
    writeln!(out, "      got     {bad}{}{bad:#}", miss.got)
}
