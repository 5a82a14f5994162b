//! A file → the single objects in it, handed on one by one.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::path::Path;

use serde::de::DeserializeSeed as _;

use super::error::{LoadError, Place};
use super::stream::{DocumentSeed, Found, Objects, Taker};
use super::yaml::Documents;

/// A YAML or JSON document longer than this is refused, in bytes: 10,000 pods as kubectl prints them
/// are 70 to 200 MB.
const MOST_BYTES: u64 = 512 << 20;

/// Hands every object in `reader` to `take`, one object in memory at a time.
pub(super) fn each_object(
    file: &Path,
    mut reader: impl BufRead,
    mut take: impl FnMut(Found) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let start = reader.fill_buf().map_err(|source| LoadError::Read {
        path: file.to_owned(),
        source,
    })?;
    if is_json(start) {
        json(file, reader, &mut take)
    } else {
        yaml(file, reader, &mut take)
    }
}

/// JSON is YAML too, but a parser of its own is several times faster. A YAML flow mapping starts with
/// a brace as well, though hardly ever with a quote after it.
fn is_json(start: &[u8]) -> bool {
    let mut bytes = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    bytes.next() == Some(&b'{') && matches!(bytes.next(), Some(b'"' | b'}') | None)
}

fn json(file: &Path, reader: impl BufRead, take: &mut Taker<'_>) -> Result<(), LoadError> {
    let line = Cell::new(1);
    let reader = Metered {
        inner: reader,
        line: &line,
        left: MOST_BYTES,
    };
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let mut number = 0;
    // `end` fails where something follows, and consumes no more than the space before it.
    while parser.end().is_err() {
        number += 1;
        let mut place = Place {
            file: file.to_owned(),
            document: number,
            item: None,
            line: None,
        };
        let mut objects = Objects::new(place.clone(), take);
        let parsed = DocumentSeed::json(&mut objects, &line).deserialize(&mut parser);
        objects.finish()?;
        if let Err(error) = parsed {
            place.line = Some(error.line() as u64).filter(|line| *line > 0);
            return Err(LoadError::Syntax {
                place: Box::new(place),
                problem: format!("not valid JSON: {}", without_position(&error.to_string())),
            });
        }
    }
    Ok(())
}

fn yaml(file: &Path, reader: impl BufRead, take: &mut Taker<'_>) -> Result<(), LoadError> {
    let mut documents = Documents::new(reader);
    let mut number = 1;
    while let Some(mut document) = documents.next().map_err(|source| LoadError::Read {
        path: file.to_owned(),
        source,
    })? {
        let before = document.lines_before();
        let mut place = Place {
            file: file.to_owned(),
            document: number,
            item: None,
            line: Some(document.first_line()),
        };
        let mut objects = Objects::new(place.clone(), take);
        let parsed = serde_saphyr::with_deserializer_from_reader_with_options(
            &mut document,
            options(),
            |d| DocumentSeed::yaml(&mut objects, before).deserialize(d),
        );
        let something = objects.finish()?;
        if let Err(error) = parsed {
            if let Some(location) = error.location().filter(|location| location.line() > 0) {
                place.line = Some(before + location.line());
            }
            return Err(LoadError::Syntax {
                place: Box::new(place),
                problem: without_position(&error.without_snippet().to_string()),
            });
        }
        number += usize::from(something);
    }
    Ok(())
}

/// Limits that a large cluster does not reach and a hostile file does.
fn options() -> serde_saphyr::Options {
    let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
    serde_saphyr::options! {
        // A namespace may be called `n`, a label may be `on`.
        strict_booleans: true,
        // As kubectl: `defaultMode: 0644`.
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(most),
            max_events: 100_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: most,
        },
    }
}

/// The parser's message in one line, without its picture of the source and its own idea of the place.
fn without_position(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.rfind(" at line ")
        .map_or(line, |at| &line[..at])
        .trim()
        .to_owned()
}

/// Counts the lines that were read, and ends what is too long with an error of its own.
struct Metered<'a, R> {
    inner: R,
    line: &'a Cell<u64>,
    left: u64,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {} MiB", MOST_BYTES >> 20),
            )
        })?;
        // The parser asks byte by byte, so that this is the line of what it reads now.
        for byte in &buf[..read] {
            self.line.set(self.line.get() + u64::from(*byte == b'\n'));
        }
        Ok(read)
    }
}
