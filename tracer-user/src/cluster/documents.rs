//! A file → the single objects in it, handed on one by one.

use std::io::BufRead;
use std::path::Path;

use serde::de::DeserializeSeed as _;

use super::error::{LoadError, Place};
use super::meter::{Meter, Metered};
use super::stream::{DocumentSeed, Found, Objects, Taker};
use super::yaml::Documents;

/// An object longer than this is refused, in bytes: etcd takes 1.5 MiB at most, and as text with its
/// indentation that is a few times as much.
const MOST_OBJECT_BYTES: u64 = 16 << 20;

/// Hands every object in `reader` to `take`, one object in memory at a time.
pub(super) fn each_object(
    file: &Path,
    reader: impl BufRead,
    mut take: impl FnMut(Found) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    each_object_of(MOST_OBJECT_BYTES, file, reader, &mut take)
}

fn each_object_of(
    most: u64,
    file: &Path,
    mut reader: impl BufRead,
    take: &mut Taker<'_>,
) -> Result<(), LoadError> {
    let start = reader.fill_buf().map_err(|source| LoadError::Read {
        path: file.to_owned(),
        source,
    })?;
    if is_json(start) {
        json(most, file, reader, take)
    } else {
        yaml(most, file, reader, take)
    }
}

/// JSON is YAML too, but a parser of its own is several times faster. A YAML flow mapping starts with
/// a brace as well, though hardly ever with a quote after it.
fn is_json(start: &[u8]) -> bool {
    let mut bytes = start
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .peekable();
    // A list of objects without more.
    bytes.next_if_eq(&&b'[');
    bytes.next() == Some(&b'{') && matches!(bytes.next(), Some(b'"' | b'}') | None)
}

fn json(
    most: u64,
    file: &Path,
    reader: impl BufRead,
    take: &mut Taker<'_>,
) -> Result<(), LoadError> {
    let meter = Meter::new(most);
    let mut parser = serde_json::Deserializer::from_reader(Metered::new(reader, &meter));
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
        let parsed = DocumentSeed::json(&mut objects, &meter).deserialize(&mut parser);
        objects.finish()?;
        if let Err(error) = parsed {
            place.line = Some(error.line() as u64).filter(|line| *line > 0);
            let problem = in_our_words(&error.to_string());
            return Err(LoadError::Syntax {
                place: Box::new(place),
                template: false,
                problem: if error.is_io() {
                    problem
                } else {
                    format!("not valid JSON: {problem}")
                },
            });
        }
    }
    Ok(())
}

fn yaml(
    most: u64,
    file: &Path,
    reader: impl BufRead,
    take: &mut Taker<'_>,
) -> Result<(), LoadError> {
    let mut documents = Documents::new(reader);
    let mut number = 1;
    while let Some(mut document) = documents.next().map_err(|source| LoadError::Read {
        path: file.to_owned(),
        source,
    })? {
        let before = document.lines_before();
        let meter = Meter::new(most);
        let mut place = Place {
            file: file.to_owned(),
            document: number,
            item: None,
            line: Some(document.first_line()),
        };
        let mut objects = Objects::new(place.clone(), take);
        let parsed = serde_saphyr::with_deserializer_from_reader_with_options(
            Metered::new(&mut document, &meter),
            options(),
            |d| DocumentSeed::yaml(&mut objects, &meter, before).deserialize(d),
        );
        let something = objects.finish()?;
        if let Err(error) = parsed {
            if let Some(location) = error.location().filter(|location| location.line() > 0) {
                place.line = Some(before + location.line());
            }
            let template = meter.is_template();
            return Err(LoadError::Syntax {
                place: Box::new(place),
                template,
                problem: meter.problem().unwrap_or_else(|| {
                    let problem = in_our_words(&error.without_snippet().to_string());
                    if template {
                        format!(
                            "{problem} (a Helm template? render it first, with `helm template`)"
                        )
                    } else {
                        problem
                    }
                }),
            });
        }
        number += usize::from(something);
    }
    Ok(())
}

/// Aliases and depth stay limited as the parser has it; how much is held at a time, [`Meter`] limits.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // A namespace may be called `n`, a label may be `on`.
        strict_booleans: true,
        // As kubectl: `defaultMode: 0644`.
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
    }
}

/// The parser's message without its picture of the source, its own idea of the place, and its advice to
/// programmers.
fn in_our_words(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.find(" at line ").map_or(line, |at| &line[..at]).trim();
    if let Some(key) = line.strip_prefix("duplicate mapping key: ") {
        let key = key.split(", set ").next().unwrap_or(key);
        return format!("key `{key}` is there twice");
    }
    for (known, ours) in [
        (
            "recursion limit",
            "nested deeper than any Kubernetes object",
        ),
        (
            "budget breached: Depth",
            "nested deeper than any Kubernetes object",
        ),
        (
            "budget breached",
            "its aliases stand for more than any Kubernetes object holds",
        ),
        (
            "recursive references",
            "an alias stands for what it is part of",
        ),
    ] {
        if line.starts_with(known) {
            return ours.to_owned();
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_single_object_may_fill_the_memory_but_many_may_follow_each_other() {
        let read = |text: &str| {
            let mut objects = 0;
            let mut take = |_| {
                objects += 1;
                Ok(())
            };
            each_object_of(16 << 10, Path::new("f"), text.as_bytes(), &mut take).map(|()| objects)
        };
        let much = format!("\"{}\", ", "x".repeat(1 << 10)).repeat(100);
        let object = r#""apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}"#;
        let list = r#""apiVersion": "v1", "kind": "List""#;
        for text in [
            format!("{{{object}, \"data\": [{much}0]}}"),
            format!("{{{list}, \"items\": [{{{object}, \"data\": [{much}0]}}]}}"),
            format!("data: [{much}0]\n"),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(
                message.contains("an object longer than 16 KiB") && !message.contains("JSON"),
                "{message}"
            );
        }
        // What waits for the list's kind is held, too.
        let message = read(&format!("{{\"items\": [{much}0], {list}}}"));
        let message = message.unwrap_err().to_string();
        assert!(
            message.contains("more than 16 KiB of items that do not say their kind"),
            "{message}"
        );
        let object = format!(
            r#"{{{object}, "data": {{"a": "{}"}}}}"#,
            "x".repeat(1 << 10)
        );
        let objects = vec![object; 100].join(",\n");
        for text in [
            format!("{{{list}, \"items\": [{objects}]}}"),
            format!("{{\"items\": [{objects}], {list}}}"),
            format!("---\n{{\"items\": [{objects}], {list}}}"),
            objects.replace(",\n{", "\n{"),
            format!("---\n{}", objects.replace(",\n{", "\n---\n{")),
        ] {
            assert_eq!(read(&text).unwrap(), 100);
        }
    }
}
