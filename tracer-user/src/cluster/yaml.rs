//! A stream of YAML documents, cut at its markers.
//!
//! The parser reads several documents only into owned values, that is with a whole list in memory. A
//! line that starts with `---` is a marker wherever it stands (YAML 1.2, 9.1.2: it may not occur inside
//! a scalar), so cutting needs no parser.

use std::io::{self, BufRead, Read};

/// Lines longer than this are read in pieces.
const PIECE_BYTES: u64 = 1 << 16;

/// The documents of a stream.
pub(super) struct Documents<R> {
    reader: R,
    /// The piece that was read last and is not handed on yet, from `at` on.
    piece: Vec<u8>,
    at: usize,
    /// Whether `piece` starts a line.
    fresh: bool,
    /// Lines that ended before `piece`.
    lines: u64,
    state: State,
}

/// How far the current document is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Neither marker nor content yet.
    Before,
    /// A marker is the next document's.
    Within,
    /// The piece is its end marker.
    Ending,
    /// There is none, or no more of it.
    Over,
}

impl<R: BufRead> Documents<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            piece: Vec::new(),
            at: 0,
            fresh: true,
            lines: 0,
            state: State::Over,
        }
    }

    /// The next document; what was not read of the last one is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Document<'_, R>>> {
        if self.state != State::Over {
            io::copy(&mut Document(self), &mut io::sink())?;
        }
        if self.piece.is_empty() && !self.refill()? {
            return Ok(None);
        }
        // Blank lines and comments before the first content are skipped, so that places name content.
        while self.fresh && is_blank(&self.piece) && self.piece.ends_with(b"\n") {
            if !self.refill()? {
                return Ok(None);
            }
        }
        self.state = State::Before;
        Ok(Some(Document(self)))
    }

    /// Reads the next piece; whether there was one.
    fn refill(&mut self) -> io::Result<bool> {
        let ended_line = self.piece.last() == Some(&b'\n');
        self.lines += u64::from(ended_line);
        self.fresh = ended_line || (self.lines == 0 && self.piece.is_empty());
        self.piece.clear();
        self.at = 0;
        self.reader
            .by_ref()
            .take(PIECE_BYTES)
            .read_until(b'\n', &mut self.piece)?;
        Ok(!self.piece.is_empty())
    }
}

/// One document, as text.
pub(super) struct Document<'a, R>(&'a mut Documents<R>);

impl<R> Document<'_, R> {
    /// How many lines of the file stand before a document that was not read from yet.
    pub(super) const fn lines_before(&self) -> u64 {
        self.0.lines
    }

    /// The line its content starts at: the one after the marker, where that stands alone.
    pub(super) fn first_line(&self) -> u64 {
        let line = &self.0.piece;
        let alone = is_marker(line, b"---") && is_blank(&line[3..]);
        self.0.lines + 1 + u64::from(alone)
    }
}

impl<R: BufRead> Read for Document<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stream = &mut *self.0;
        while stream.state != State::Over {
            let rest = &stream.piece[stream.at..];
            if rest.is_empty() {
                let ended = stream.state == State::Ending;
                if !stream.refill()? || ended {
                    break;
                }
                continue;
            }
            if stream.fresh && stream.at == 0 {
                if stream.state == State::Within && is_marker(rest, b"---") {
                    break;
                }
                if is_marker(rest, b"...") {
                    stream.state = State::Ending;
                } else if !is_blank(rest) && !rest.starts_with(b"%") {
                    // Directives stand before the marker.
                    stream.state = State::Within;
                }
            }
            let count = rest.len().min(buf.len());
            buf[..count].copy_from_slice(&rest[..count]);
            stream.at += count;
            return Ok(count);
        }
        stream.state = State::Over;
        Ok(0)
    }
}

/// Whether a line is a marker: three characters, then space or nothing.
fn is_marker(line: &[u8], marker: &[u8]) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

/// Whether a line holds at most a comment.
fn is_blank(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), None | Some(b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(u64, String)> {
        let mut documents = Documents::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(mut document) = documents.next().unwrap() {
            let line = document.first_line();
            let mut text = String::new();
            document.read_to_string(&mut text).unwrap();
            found.push((line, text));
        }
        found
    }

    #[test]
    fn documents_are_cut_at_markers_and_know_their_lines() {
        let is = |line: u64, text: &str| (line, text.to_owned());
        assert_eq!(cut(""), []);
        assert_eq!(cut("# only\n\n  # comments\n"), []);
        assert_eq!(cut("a: 1"), [is(1, "a: 1")]);
        assert_eq!(
            cut("# one\na: 1\n---\nb: 2\n--- {c: 3}\n"),
            [is(2, "a: 1\n"), is(4, "---\nb: 2\n"), is(5, "--- {c: 3}\n")]
        );
        assert_eq!(
            cut("a: |\n  ---\n  x\n---x: 1\n"),
            [is(1, "a: |\n  ---\n  x\n---x: 1\n")]
        );
        assert_eq!(
            cut("a: 1\n...\n# c\nb: 2\n"),
            [is(1, "a: 1\n...\n"), is(4, "b: 2\n")]
        );
    }

    #[test]
    fn directives_stay_with_their_document() {
        assert_eq!(cut("%YAML 1.2\n---\na: 1\n").len(), 1);
    }

    #[test]
    fn what_is_left_of_a_document_is_passed_over() {
        let mut documents = Documents::new("a: 1\nb: 2\n---\nc: 3\n".as_bytes());
        documents.next().unwrap().unwrap();
        assert_eq!(documents.next().unwrap().unwrap().first_line(), 4);
        assert!(documents.next().unwrap().is_none());
    }

    #[test]
    fn a_long_line_is_no_new_line() {
        let long = "x".repeat(usize::try_from(PIECE_BYTES).unwrap());
        let text = format!("{long}---\n{long}--- \nb: 1\n---\nc: 1\n");
        let found = cut(&text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], (5, "---\nc: 1\n".to_owned()));
        assert_eq!(found[0].1.len() + found[1].1.len(), text.len());
    }
}
