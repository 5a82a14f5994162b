//! The incident by time: what changed, and the first drop of each finding.

use jiff::Timestamp;

use super::aggregate::Aggregate;
use super::cause;
use super::chart::{Chart, tone};
use super::finding::Finding;
use super::story::called;
use super::when::{When, dated};
use super::words::meaning;

/// Something that happened at a time.
#[derive(Debug)]
pub(super) struct Stage {
    time: Timestamp,
    pub(super) when: When,
    /// Its place on the chart.
    pub(super) x: String,
    pub(super) title: String,
    pub(super) tone: &'static str,
    /// The finding's number, where it is one.
    pub(super) number: Option<usize>,
    /// What the application saw.
    pub(super) saw: Vec<String>,
    /// What it really was.
    pub(super) was: Vec<String>,
}

/// All stages, by time.
pub(super) fn of(all: &Aggregate, shown: &[(Finding, String)], chart: &Chart) -> Vec<Stage> {
    let changes = all.changes.iter().map(|change| Stage {
        time: change.time,
        when: dated(change.time),
        x: chart.x(change.time),
        title: format!(
            "{} {}{}",
            change.policy,
            if change.created {
                "was created"
            } else {
                "was changed"
            },
            change
                .by
                .as_ref()
                .map(|by| format!(" by {by}"))
                .unwrap_or_default(),
        ),
        tone: "change",
        number: None,
        saw: Vec::new(),
        was: Vec::new(),
    });
    let drops = shown.iter().enumerate().map(|(index, (finding, flow))| {
        let what = called(finding);
        Stage {
            time: finding.first,
            when: dated(finding.first),
            x: chart.x(finding.first),
            title: format!("First drop of {what}: {flow}"),
            tone: tone(finding.key.standing),
            number: Some(index + 1),
            saw: finding.symptoms.iter().cloned().collect(),
            was: vec![
                meaning(finding.key.class).to_owned(),
                cause::how(finding),
                cause::why(finding),
            ],
        }
    });
    let mut stages: Vec<Stage> = changes.chain(drops).collect();
    stages.sort_by_key(|stage| stage.time);
    stages
}
