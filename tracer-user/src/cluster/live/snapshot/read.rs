//! A journal, back into changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};
use tracer_policy::model::ObjectRef;

use super::super::update::Update;
use super::Line;
use crate::cluster::Kind;
use crate::cluster::object::Object;

/// No line of ours is longer: the API server takes objects of 1.5 MiB.
const LONGEST: u64 = 16 << 20;

/// Hands on what a journal leaves of its kind: each object's last form, or that the kind was unread.
///
/// # Errors
/// Where it cannot be read, or a line but the last is none of ours: then nothing was handed on.
pub(super) fn updates(path: &Path, kind: Kind, take: &mut dyn FnMut(Update)) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let left = left(&mut file)?;
    if left.unread {
        take(Update::Unread(kind));
    }
    for place in left.places {
        let line: Line<Object> = parse(&place.read(&mut file)?)?;
        take(match line {
            Line::Apply(id, object) => Update::Apply(kind, id, object),
            Line::Unreadable(id) => Update::Unreadable(kind, id),
            Line::Delete(id) => Update::Delete(kind, id),
            Line::Unread(()) => Update::Unread(kind),
        });
    }
    Ok(())
}

/// The lines that say what is left, as they stand.
pub(super) fn lines_left(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    let mut file = BufReader::new(File::open(path)?);
    let left = left(&mut file)?;
    let lines = left.places.len();
    for place in left.places {
        take(&place.read(&mut file)?)?;
    }
    Ok(lines)
}

struct Left {
    /// In the order they stand in.
    places: Vec<Place>,
    unread: bool,
}

/// Where a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: u64,
    length: u64,
}

impl Place {
    fn read(self, file: &mut BufReader<File>) -> io::Result<Vec<u8>> {
        let ahead = i64::try_from(self.start)
            .ok()
            .zip(i64::try_from(file.stream_position()?).ok())
            .map(|(start, now)| start - now)
            .ok_or(io::ErrorKind::InvalidData)?;
        // Relative, so that what is buffered is used.
        file.seek_relative(ahead)?;
        let mut bytes = Vec::new();
        file.take(self.length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Finds each object's last line; the file is at its start again afterwards.
fn left(file: &mut BufReader<File>) -> io::Result<Left> {
    let mut last = HashMap::new();
    let mut unread = false;
    let mut start = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        file.take(LONGEST).read_until(b'\n', &mut line)?;
        // The last line may be half written.
        if !line.ends_with(b"\n") {
            break;
        }
        let length = line.len() as u64;
        let place = Place { start, length };
        start += length;
        match parse::<Line<IgnoredAny>>(&line)? {
            Line::Apply(id, _) | Line::Unreadable(id) => {
                last.insert(id, place);
            }
            Line::Delete(id) => {
                last.remove::<ObjectRef>(&id);
            }
            Line::Unread(()) => unread = true,
        }
    }
    if line.len() as u64 == LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line is too long",
        ));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut places: Vec<_> = last.into_values().collect();
    places.sort_unstable();
    Ok(Left { places, unread })
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line is none of this version: {error}"),
        )
    })
}
