//! The page itself.

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

use super::aggregate::Aggregate;
use super::bounded::{clip, name};
use super::cause;
use super::chart::Chart;
use super::finding::Finding;
use super::fix::Fix;
use super::key::Standing;
use super::stages::{self, Stage};
use super::story;
use super::view::{Listed, View};
use super::when::{When, dated, span};
use super::words::counted;

/// Findings that are shown.
const SHOWN: usize = 40;

const STYLE: &str = include_str!("../../templates/report/style.css");
const SCRIPT: &str = include_str!("../../templates/report/script.js");

/// What the page says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The heading; absent: one that names the time.
    pub title: Option<String>,
    /// Where the drops were read from.
    pub source: String,
    /// Lines that filters held back.
    pub held_back: u64,
    /// How to get the fix, where there is none on the page.
    pub how_to_fix: String,
    /// How to get the objects of a cluster that this takes.
    pub how_to_get_cluster: String,
}

/// Everything the page shows.
#[derive(Debug, Template)]
#[template(path = "report/page.html", whitespace = "minimize")]
pub struct Page<'a> {
    policy: String,
    style: &'static str,
    script: &'static str,
    version: &'static str,
    title: String,
    about: &'a About,
    story: Vec<String>,
    span: Option<Span>,
    packets: String,
    lines: String,
    flows: String,
    count: String,
    nodes: Listed,
    alarms: Vec<(usize, String)>,
    chart: Option<Chart>,
    stages: Vec<Stage>,
    findings: Vec<View>,
    more: Option<String>,
    fix: &'a Fix,
}

/// From when to when, and how long that is.
#[derive(Debug)]
struct Span {
    first: When,
    last: When,
    long: String,
}

impl<'a> Page<'a> {
    /// What there is to show of drops.
    pub fn new(about: &'a About, all: &Aggregate, fix: &'a Fix) -> Self {
        let findings = all.findings();
        let story = story::sentences(&findings);
        let total = findings.len();
        let mut shown: Vec<(Finding, String)> = findings
            .into_iter()
            .map(|finding| {
                let flow = clip(&cause::flow(&finding), 600);
                (finding, flow)
            })
            .collect();
        let hidden = shown.split_off(SHOWN.min(shown.len()));
        let chart = Chart::of(all, &mut shown);
        let stages = chart
            .as_ref()
            .map(|chart| stages::of(all, &shown, chart))
            .unwrap_or_default();
        let span = all.span.map(|(first, last)| Span {
            first: dated(first),
            last: dated(last),
            long: span(last.as_nanosecond() - first.as_nanosecond()),
        });
        let (flows, more_flows) = all.flows();
        let flows = counted(flows as u64, "flow", "flows");
        let views = shown.iter().enumerate();
        let views: Vec<View> = views
            .map(|(index, (finding, flow))| View::of(index + 1, finding, flow, all, fix))
            .collect();
        let alarm = |(index, (finding, flow)): (usize, &(Finding, String))| {
            let disagrees = finding.key.standing == Standing::Disagreement;
            disagrees.then(|| (index + 1, flow.clone()))
        };
        Self {
            policy: security_policy(),
            style: STYLE,
            script: SCRIPT,
            version: env!("CARGO_PKG_VERSION"),
            title: about
                .title
                .as_deref()
                .map_or_else(|| title(span.as_ref()), name),
            about,
            story,
            packets: counted(all.packets, "packet", "packets"),
            lines: counted(all.lines, "line", "lines"),
            flows: if more_flows {
                format!("over {flows}")
            } else {
                flows
            },
            count: counted(total as u64, "finding", "findings"),
            nodes: Listed::of(&all.nodes),
            alarms: shown.iter().enumerate().filter_map(alarm).collect(),
            chart,
            stages,
            findings: views,
            more: more(&hidden),
            span,
            fix,
        }
    }
}

/// The page as text.
///
/// # Errors
/// None that is known: writing to memory does not fail.
pub fn render(page: &Page<'_>) -> Result<String, std::fmt::Error> {
    page.render().map_err(|_| std::fmt::Error)
}

fn title(span: Option<&Span>) -> String {
    match span {
        Some(span) => {
            let minute = span.first.text.get(..16).unwrap_or(&span.first.text);
            format!("Dropped packets, {minute} UTC")
        }
        None => "Dropped packets".to_owned(),
    }
}

/// What is left out, where anything is.
fn more(hidden: &[(Finding, String)]) -> Option<String> {
    if hidden.is_empty() {
        return None;
    }
    let packets = hidden.iter().map(|(finding, _)| finding.packets);
    let packets = packets.fold(0, u64::saturating_add);
    Some(format!(
        "And {} with {}, which are not shown. Narrow the report down with filters (--class, --pod, --not ...) to see \
         them.",
        counted(hidden.len() as u64, "more finding", "more findings"),
        counted(packets, "packet", "packets"),
    ))
}

/// Lets the page's own style and script run, by their hashes, and nothing else: no request leaves the page,
/// whatever names of pods look like.
fn security_policy() -> String {
    let hash = |text: &str| {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        format!("'sha256-{}'", STANDARD.encode(hash))
    };
    format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}
