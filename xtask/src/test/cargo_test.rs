//! Running `cargo test` and counting what it ran: a test that never ran proves nothing.

use std::ops::AddAssign;
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use super::summary::Outcome;
use crate::failures::Failures;
use crate::process;

/// What one or more runs of `cargo test` executed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Tests that ran, well or not.
    executed: u64,
    /// Tests marked `#[ignore]`.
    ignored: u64,
    /// Tests that said `SKIPPED: why` and returned.
    skipped: u64,
}

/// Runs it, shows its output and counts. Fails when a test fails.
pub(super) fn run(cargo: &mut Command) -> Result<Count> {
    // The harness swallows what a passing test prints, and with it that the test skipped itself.
    if !cargo.get_args().any(|argument| argument == "--") {
        cargo.arg("--");
    }
    cargo.arg("--show-output");
    let mut count = Count::default();
    let mut failures = Failures::default();
    process::run_watched(cargo, "", |line| {
        count.see(line);
        failures.see(line);
    })
    .map_err(|error| anyhow!("{error:#}\n{failures}"))?;
    Ok(count)
}

impl Count {
    /// Passed, with figures; or failed where nothing was tested.
    pub(super) fn outcome(self) -> Result<Outcome> {
        if self.executed == 0 {
            bail!("not one test was executed");
        }
        if self.skipped >= self.executed {
            bail!("each of the {} tests skipped itself", self.executed);
        }
        let aside = [
            (self.ignored, "ignored"),
            (self.skipped, "skipped themselves"),
        ];
        let aside = aside
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!(", {count} {what}"));
        let note = format!("{} tests{}", self.executed, aside.collect::<String>());
        Ok(Outcome::Passed(note))
    }

    fn see(&mut self, line: &str) {
        if line.contains("SKIPPED: ") {
            self.skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        // `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
        for part in result.split([';', '.']) {
            let mut words = part.split_ascii_whitespace();
            let (Some(Ok(number)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match what {
                "passed" | "failed" => self.executed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.executed += other.executed;
        self.ignored += other.ignored;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::Count;
    use crate::test::summary::Outcome;

    const OUTPUT: &str = "
running 4 tests
test a ... ok
SKIPPED: network namespaces need root
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
running 0 tests
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 12.30s
";

    fn count(output: &str) -> Count {
        let mut count = Count::default();
        output.lines().for_each(|line| count.see(line));
        count
    }

    #[test]
    fn results_of_all_test_binaries_add_up() {
        let expected = Count {
            executed: 6,
            ignored: 1,
            skipped: 1,
        };
        assert_eq!(count(OUTPUT), expected);
    }

    #[test]
    fn a_run_without_a_test_is_a_failure() {
        let nothing = "test result: ok. 0 passed; 0 failed; 7 ignored; 0 measured; 3 filtered out";
        assert!(count(nothing).outcome().is_err());
        assert!(count("").outcome().is_err());
        let idle = "SKIPPED: no root\nSKIPPED: no root\ntest result: ok. 2 passed; 0 failed";
        assert!(count(idle).outcome().is_err());
        assert!(matches!(count(OUTPUT).outcome(), Ok(Outcome::Passed(_))));
    }
}
