//! Recorded drops (`--input`): JSON lines as `-o json` and `--record` write them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{Error, color};
use crate::record::Drop;
use crate::stream::{CutOff, Greeting};

/// A line of recorded drops longer than this is not one of ours, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// Reads recorded drops one by one.
pub(super) struct Recorded {
    path: PathBuf,
    lines: Lines,
}

impl Recorded {
    /// Opens a file, `-` for standard input.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            lines: Lines::open(path)?,
        })
    }
}

impl Iterator for Recorded {
    type Item = Result<Drop, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, text) = match self.lines.next()? {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            if text.trim().is_empty() {
                continue;
            }
            let error = match serde_json::from_str(&text) {
                Ok(drop) => return Some(Ok(drop)),
                Err(error) => error,
            };
            // An agent's stream, kept as it came, has lines of its own around the drops.
            if let Ok(CutOff { missed }) = serde_json::from_str(&text) {
                color::warn(&format!(
                    "{}, line {line}: the agent cut its reader off, and {missed} drops are missing here",
                    self.path.display()
                ));
                continue;
            }
            if serde_json::from_str::<Greeting>(&text).is_ok() {
                continue;
            }
            return Some(Err(Error::Line {
                path: self.path.clone(),
                line,
                problem: format!(
                    "not a recorded drop: {error}; expected a line as `tracer watch --record` writes it"
                ),
            }));
        }
    }
}

/// Numbered lines of a file or of standard input, each of bounded length.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: usize,
}

impl Lines {
    /// Opens a file, `-` for standard input.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).map_err(|source| Error::File {
                action: "read",
                path: path.to_owned(),
                source,
            })?;
            Box::new(BufReader::new(file))
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            line: 0,
        })
    }
}

impl Iterator for Lines {
    type Item = Result<(usize, String), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line += 1;
        let mut bytes = Vec::new();
        // Bounded by `take`, so that a file without line ends cannot fill the memory.
        let read = io::Read::take(&mut self.reader, LONGEST_LINE).read_until(b'\n', &mut bytes);
        let problem = match read {
            Ok(0) => return None,
            Ok(length) if length as u64 == LONGEST_LINE && !bytes.ends_with(b"\n") => {
                format!("longer than {LONGEST_LINE} bytes; expected one JSON object a line")
            }
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => return Some(Ok((self.line, text))),
                Err(_) => "not UTF-8; expected one JSON object a line".to_owned(),
            },
            Err(source) => {
                return Some(Err(Error::File {
                    action: "read",
                    path: self.path.clone(),
                    source,
                }));
            }
        };
        Some(Err(Error::Line {
            path: self.path.clone(),
            line: self.line,
            problem,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_that_is_no_drop_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let drop = include_str!("../../tests/data/probe.json").replace('\n', "");
        writeln!(file, "{drop}\n\n{{\"time\":1}}").unwrap();
        let mut recorded = Recorded::open(file.path()).unwrap();
        assert_eq!(recorded.next().unwrap().unwrap().node, "node-a");
        let error = recorded.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(", line 3: not a recorded drop"), "{error}");
        assert!(recorded.next().is_none());
    }

    #[test]
    fn an_agents_own_lines_are_passed_over() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let drop = include_str!("../../tests/data/probe.json").replace('\n', "");
        let greeting = r#"{"version":1,"node":"node-a"}"#;
        writeln!(file, "{greeting}\n{drop}\n{{\"missed\":7}}").unwrap();
        let mut recorded = Recorded::open(file.path()).unwrap();
        assert_eq!(recorded.next().unwrap().unwrap().node, "node-a");
        assert!(recorded.next().is_none());
    }

    #[test]
    fn a_file_without_line_ends_is_refused_in_bounded_memory() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'x'; usize::try_from(LONGEST_LINE).unwrap() + 5])
            .unwrap();
        let error = Recorded::open(file.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 1: longer than"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Recorded::open(Path::new("/no/such/file")).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .report()
                .starts_with("cannot read /no/such/file: No such"),
            "{error}"
        );
    }
}
