//! The table at the end.

use std::fmt;
use std::time::Duration;

/// Lines shown of why a step failed: all of it was shown when it happened.
const LINES: usize = 200;

/// How a step ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Well; with a note, or an empty one.
    Passed(String),
    /// Not well; why, in a line, and more in further lines.
    Failed(String),
    /// It could not run here; why.
    Skipped(String),
}

/// The steps so far.
#[derive(Default)]
pub(super) struct Summary {
    rows: Vec<(&'static str, Duration, Outcome)>,
}

impl Summary {
    pub(super) fn add(&mut self, step: &'static str, took: Duration, outcome: Outcome) {
        self.rows.push((step, took, outcome));
    }

    pub(super) fn failed(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_))) > 0
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.rows
            .iter()
            .filter(|(_, _, outcome)| is(outcome))
            .count()
    }
}

/// The table, what failed and why, and as the very last line the counts, which programs read.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, took, outcome) in &self.rows {
            let (word, note) = match outcome {
                Outcome::Passed(note) => ("passed", note.as_str()),
                // The rest below the table.
                Outcome::Failed(why) => ("FAILED", why.lines().next().unwrap_or_default()),
                Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
            };
            let row = format!("{step:<14} {:>7.1} s  {word:<8} {note}", took.as_secs_f64());
            writeln!(f, "{}", row.trim_end())?;
        }
        let failed: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(step, _, outcome)| match outcome {
                Outcome::Failed(why) => Some((*step, why)),
                _ => None,
            })
            .collect();
        for (step, why) in &failed {
            let why: Vec<_> = why.lines().skip(1).collect();
            if !why.is_empty() {
                writeln!(f, "\n── {step}")?;
            }
            let left_out = why.len().saturating_sub(LINES);
            if left_out > 0 {
                writeln!(f, "({left_out} lines more above)")?;
            }
            for line in &why[left_out..] {
                writeln!(f, "{line}")?;
            }
        }
        if !failed.is_empty() {
            let names: Vec<_> = failed.iter().map(|(step, _)| *step).collect();
            writeln!(f, "\nfailed: {}", names.join("; "))?;
        }
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        write!(f, "{passed} passed, {} failed", failed.len())?;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, Summary};

    fn summary(outcomes: impl IntoIterator<Item = Outcome>) -> Summary {
        let mut summary = Summary::default();
        for outcome in outcomes {
            summary.add("step", Duration::from_millis(1500), outcome);
        }
        summary
    }

    #[test]
    fn the_last_line_is_the_count_of_steps() {
        let passed = || Outcome::Passed("3 tests".to_owned());
        let all_well = summary([passed(), passed()]);
        assert!(all_well.to_string().ends_with("\n2 passed, 0 failed\n"));
        assert!(!all_well.failed());

        let mixed = summary([
            passed(),
            Outcome::Failed("first line\nsecond".to_owned()),
            Outcome::Skipped("no network".to_owned()),
        ]);
        let text = mixed.to_string();
        assert!(
            text.ends_with("\n── step\nsecond\n\nfailed: step\n1 passed, 1 failed, 1 skipped\n"),
            "{text}"
        );
        assert!(mixed.failed());
    }
}
