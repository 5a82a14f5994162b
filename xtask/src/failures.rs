//! What failed in a run of Rust tests, out of what their harness prints.

use std::fmt;

/// Lines kept of what a test said.
const LINES: usize = 60;

/// The tests that failed, each with the end of what it said.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    tests: Vec<Failure>,
    // The harness shows what tests that passed said in the same form, under another heading.
    among_failed: bool,
    // Whether the lines that come are what the last one said.
    is_open: bool,
}

#[derive(Debug)]
struct Failure {
    name: String,
    said: Vec<String>,
}

impl Failures {
    /// Takes the next line of the output.
    pub(crate) fn see(&mut self, line: &str) {
        let line = line.trim_end();
        if line == "failures:" || line == "successes:" {
            self.among_failed = line == "failures:";
            self.is_open = false;
        } else if let Some(name) = test_named(line, "test ", " ... FAILED") {
            // Told at once; what it said comes at the end, if the end comes.
            self.open(name);
            self.is_open = false;
        } else if line.starts_with("test result: ") {
            self.among_failed = false;
            self.is_open = false;
        } else if let Some(name) = test_named(line, "---- ", " stdout ----") {
            self.is_open = self.among_failed;
            if self.is_open {
                self.open(name);
            }
        } else if self.is_open
            && let Some(failure) = self.tests.last_mut()
        {
            failure.said.push(line.to_owned());
        }
    }

    /// Of those seen so far it is the last now.
    fn open(&mut self, name: &str) {
        let known = self.tests.iter().position(|test| test.name == name);
        let failure = match known {
            Some(at) => self.tests.remove(at),
            None => Failure {
                name: name.to_owned(),
                said: Vec::new(),
            },
        };
        self.tests.push(failure);
    }
}

fn test_named<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_suffix(after)
}

/// Each test on a line of its own, what it said indented below.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for test in &self.tests {
            writeln!(f, "test {} FAILED", test.name)?;
            let said = test.said.iter().filter(|line| !line.is_empty());
            let said: Vec<_> = said.collect();
            let left_out = said.len().saturating_sub(LINES);
            if left_out > 0 {
                writeln!(f, "    ({left_out} lines more)")?;
            }
            for line in &said[left_out..] {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(output: &str) -> String {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.see(line));
        failures.to_string()
    }

    #[test]
    fn a_test_is_named_with_what_it_said() {
        let output = "
running 3 tests
test a::good ... ok
test a::bad ... FAILED
test a::worse ... FAILED

successes:

---- a::good stdout ----
all is well


successes:
    a::good

failures:

---- a::bad stdout ----

thread 'a::bad' panicked at src/a.rs:3:5:
it is 2
note: run with `RUST_BACKTRACE=1`

---- a::worse stdout ----
Error: no lab


failures:
    a::bad
    a::worse

test result: FAILED. 1 passed; 2 failed; 0 ignored
";
        let expected = "\
test a::bad FAILED
    thread 'a::bad' panicked at src/a.rs:3:5:
    it is 2
    note: run with `RUST_BACKTRACE=1`
test a::worse FAILED
    Error: no lab
";
        assert_eq!(failures(output), expected);
    }

    #[test]
    fn one_that_did_not_come_to_its_end_is_named_too() {
        let output = "test a::bad ... FAILED\r\ntest a::next ... qemu: terminating";
        assert_eq!(failures(output), "test a::bad FAILED\n");
    }

    #[test]
    fn of_much_the_end_is_shown() {
        let lines: Vec<_> = (0..LINES + 2).map(|line| line.to_string()).collect();
        let lines = lines.join("\n");
        let shown = failures(&format!("failures:\n---- a stdout ----\n{lines}"));
        assert!(
            shown.starts_with("test a FAILED\n    (2 lines more)\n    2\n"),
            "{shown}"
        );
        assert!(shown.ends_with("\n    61\n"), "{shown}");
    }

    #[test]
    fn where_nothing_failed_nothing_is_said() {
        assert_eq!(failures("test a ... ok\ntest result: ok. 1 passed"), "");
    }
}
