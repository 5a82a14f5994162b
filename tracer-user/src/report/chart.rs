//! The timeline: a lane of bars for each finding, in the coordinates of one SVG.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::aggregate::{Aggregate, Change};
use super::bounded::clip;
use super::finding::Finding;
use super::key::Standing;
use super::when::{When, as_in, span};
use super::words::counted;

/// The drawing's size, in its own units, and where the bars are.
const WIDTH: f64 = 984.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 948.0;
/// Room above the lanes for what changed, and where nothing did.
const TOP: f64 = 34.0;
const TOP_ALONE: f64 = 14.0;
const LANE: f64 = 52.0;
/// The highest bar.
const BAR: f64 = 26.0;

/// Characters of a lane's name that fit.
const LABEL: usize = 90;

/// Ticks of the time axis, at most.
const TICKS: i128 = 8;

const MILLISECOND: i128 = 1_000_000;
const SECOND: i128 = 1000 * MILLISECOND;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;

/// How far apart ticks may be.
const STEPS: [i128; 27] = [
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
    3650 * DAY,
];

/// The chart, ready to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Where the lanes begin and end.
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) lanes: Vec<Lane>,
    pub(super) ticks: Vec<Mark>,
    pub(super) changes: Vec<Mark>,
    /// How long a bar stands for.
    pub(super) interval: String,
    scope: Scope,
}

/// A finding's lane.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) label: String,
    pub(super) packets: String,
    pub(super) tone: &'static str,
    /// Where the label stands.
    pub(super) label_y: f64,
    /// What the bars stand on.
    pub(super) base: f64,
    /// The bars, as an SVG path.
    pub(super) bars: String,
}

/// A moment on the time axis.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) when: When,
    pub(super) label: String,
    /// Whether the label stands left of it, since right of it there is no room.
    pub(super) before: bool,
}

/// From when to when.
#[derive(Clone, Copy, Debug)]
struct Scope {
    first: i128,
    last: i128,
}

impl Scope {
    /// A moment's place, of what may be out of it the edge.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a drawing is no more exact than that"
    )]
    fn x(self, at: i128) -> f64 {
        let part = (at - self.first) as f64 / (self.last - self.first).max(1) as f64;
        LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn mark(self, at: i128, format: &str) -> Option<Mark> {
        let x = self.x(at);
        let when = as_in(Timestamp::from_nanosecond(at).ok()?, format);
        Some(Mark {
            x: format!("{x:.1}"),
            label: when.text.clone(),
            when,
            before: x > f64::midpoint(LEFT, RIGHT),
        })
    }
}

/// A finding's colour, by how bad it is.
pub(super) const fn tone(standing: Standing) -> &'static str {
    match standing {
        Standing::Disagreement => "alarm",
        Standing::Denied => "denied",
        Standing::Unknown | Standing::Unasked => "unknown",
        Standing::NoPod | Standing::Passing => "passing",
    }
}

impl Chart {
    /// Lays out the findings that are shown, each with its number's label.
    pub(super) fn of(all: &Aggregate, shown: &mut [(Finding, String)]) -> Option<Self> {
        let (first, last) = all.span?;
        let interval = all.scale.interval();
        let (first, last) = (first.as_nanosecond(), last.as_nanosecond());
        let floor = |at: i128| at.div_euclid(interval) * interval;
        // The bars' room: whole intervals, and for a moment some air around it.
        let air = if last - first < interval {
            4 * interval
        } else {
            0
        };
        let mut scope = Scope {
            first: floor(first) - air,
            last: floor(last) + interval + air,
        };
        // A change just before the first drop is shown where it was; one long before would press all else to
        // the edge.
        let near = (scope.last - scope.first).max(30 * SECOND);
        let before = |change: &Change| {
            let at = change.time.as_nanosecond();
            (at < scope.first && scope.first - at <= near).then_some(at)
        };
        if let Some(at) = all.changes.iter().filter_map(before).min() {
            scope.first = at - (scope.last - at) / 50;
        }
        let changes: Vec<Mark> = all
            .changes
            .iter()
            .filter_map(|change| {
                let mark = scope.mark(change.time.as_nanosecond(), "%H:%M:%S")?;
                let done = if change.created { "created" } else { "changed" };
                let label = clip(&format!("{} {done}", change.policy), 48);
                (scope.first..=scope.last)
                    .contains(&change.time.as_nanosecond())
                    .then_some(Mark { label, ..mark })
            })
            .collect();
        let top = if changes.is_empty() { TOP_ALONE } else { TOP };
        let mut y = top;
        let lanes = shown
            .iter_mut()
            .enumerate()
            .map(|(index, (finding, label))| {
                let base = y + LANE - 8.0;
                let lane = Lane {
                    number: index + 1,
                    label: clip(&format!("{}. {label}", index + 1), LABEL),
                    packets: counted(finding.packets, "packet", "packets"),
                    tone: tone(finding.key.standing),
                    label_y: y + 12.0,
                    base,
                    bars: bars(finding, all, scope, base),
                };
                y += LANE;
                lane
            })
            .collect();
        Some(Self {
            width: WIDTH,
            height: y + 22.0,
            top: top - 8.0,
            bottom: y,
            lanes,
            changes,
            ticks: ticks(scope),
            interval: span(interval),
            scope,
        })
    }

    /// A moment's place.
    pub(super) fn x(&self, time: Timestamp) -> String {
        format!("{:.1}", self.scope.x(time.as_nanosecond()))
    }
}

/// Bars as high as the lane's busiest interval makes them, none too low or narrow to be seen.
#[expect(
    clippy::cast_precision_loss,
    reason = "a drawing is no more exact than that"
)]
fn bars(finding: &mut Finding, all: &Aggregate, scope: Scope, base: f64) -> String {
    let interval = all.scale.interval();
    let intervals: Vec<_> = finding.lane.intervals(all.scale).collect();
    let most = intervals.iter().map(|(_, packets)| *packets).max();
    let most = most.unwrap_or_default().max(1) as f64;
    let mut path = String::new();
    for (at, packets) in intervals {
        let x = scope.x(at);
        let width = (scope.x(at + interval) - x - 0.5).max(2.0);
        let height = (BAR * packets as f64 / most).max(2.0);
        let _ = write!(
            path,
            "M{x:.1} {base:.0}v-{height:.1}h{width:.1}v{height:.1}z"
        );
    }
    path
}

/// Round times, a few of them.
fn ticks(scope: Scope) -> Vec<Mark> {
    let long = scope.last - scope.first;
    let step = STEPS
        .into_iter()
        .find(|step| long / step < TICKS)
        .unwrap_or(long / TICKS + 1);
    let format = match step {
        ..SECOND => "%H:%M:%S%.3f",
        SECOND..MINUTE => "%H:%M:%S",
        _ if step >= DAY => "%Y-%m-%d",
        _ if long > DAY => "%m-%d %H:%M",
        _ => "%H:%M",
    };
    let (first, last) = (
        scope.first.div_euclid(step) + 1,
        scope.last.div_euclid(step),
    );
    (first..=last)
        .filter_map(|index| scope.mark(index * step, format))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few_from_milliseconds_to_centuries() {
        for long in [
            20 * MILLISECOND,
            3 * SECOND,
            17 * MINUTE,
            5 * HOUR,
            9 * DAY,
            200 * 365 * DAY,
        ] {
            let first = 1_795_428_062 * SECOND + 123;
            let ticks = ticks(Scope {
                first,
                last: first + long,
            });
            assert!((2..=9).contains(&ticks.len()), "{long}: {ticks:?}");
        }
        let ticks = ticks(Scope {
            first: 0,
            last: 6 * MINUTE,
        });
        let labels: Vec<_> = ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(
            labels,
            ["00:01", "00:02", "00:03", "00:04", "00:05", "00:06"]
        );
    }

    #[test]
    fn what_is_out_of_scope_stands_at_its_edge() {
        let scope = Scope {
            first: 10,
            last: 20,
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(scope.x(5), LEFT) && near(scope.x(25), RIGHT));
        assert!(near(scope.x(15), f64::midpoint(LEFT, RIGHT)));
    }
}
