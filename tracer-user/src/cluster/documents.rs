//! Text → the single objects in it: documents, lists, typed lists.

use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::error::{LoadError, Place};

/// A YAML or JSON file longer than this is refused, in bytes: 10,000 pods as kubectl prints them are
/// about a third of it.
const MOST_BYTES: usize = 256 << 20;

/// A document as it stands: a list or a single object.
#[derive(Deserialize)]
struct Document {
    items: Option<Vec<Spanned<Value>>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One object and where it stands.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) object: Value,
}

/// Hands every object in `reader` to `take`, one document in memory at a time.
pub(super) fn each_object(
    file: &Path,
    mut reader: impl BufRead,
    mut take: impl FnMut(Found) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let read = |source| LoadError::Read {
        path: file.to_owned(),
        source,
    };
    let mut number = 0;
    // JSON is YAML too, but a parser of its own is several times faster on what kubectl prints.
    if reader.fill_buf().map_err(read)?.trim_ascii_start().first() == Some(&b'{') {
        let documents = serde_json::Deserializer::from_reader(reader.take(MOST_BYTES as u64));
        for document in documents.into_iter::<Value>() {
            number += 1;
            let place = |line| Place {
                file: file.to_owned(),
                document: number,
                item: None,
                line,
            };
            let document = document.map_err(|error| LoadError::Syntax {
                place: Box::new(place(Some(error.line() as u64))),
                problem: format!("not valid JSON: {error}"),
            })?;
            split_json(&place(None), document, &mut take)?;
        }
        return Ok(());
    }
    let documents = serde_saphyr::read_with_options::<_, Spanned<Document>>(&mut reader, options());
    for document in documents {
        number += 1;
        let place = |line| Place {
            file: file.to_owned(),
            document: number,
            item: None,
            line,
        };
        let document = document.map_err(|error| LoadError::Syntax {
            place: Box::new(place(error.location().map(|location| location.line()))),
            problem: message(&error),
        })?;
        let line = document.referenced.line();
        split(&place(Some(line)), document.value, &mut take)?;
    }
    Ok(())
}

/// Limits that a large cluster does not reach and a hostile file does.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // YAML 1.2: a namespace may be called `n`, a label may be `on`.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MOST_BYTES),
            max_events: 50_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: MOST_BYTES,
            max_documents: 1_000_000,
        },
    }
}

/// The parser's message without its picture of the source: place and text say it in a line.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn split(
    place: &Place,
    document: Document,
    take: &mut impl FnMut(Found) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let Some(items) = document.items else {
        return take(Found {
            place: place.clone(),
            object: Value::Object(document.rest),
        });
    };
    for (index, item) in items.into_iter().enumerate() {
        let line = item.referenced.line();
        let mut object = item.value;
        inherit(&mut object, &document.rest);
        let place = Place {
            item: Some(index),
            line: Some(line),
            ..place.clone()
        };
        take(Found { place, object })?;
    }
    Ok(())
}

fn split_json(
    place: &Place,
    document: Value,
    take: &mut impl FnMut(Found) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut rest = match document {
        Value::Object(rest) => rest,
        other => {
            return take(Found {
                place: place.clone(),
                object: other,
            });
        }
    };
    let Some(Value::Array(items)) = rest.remove("items") else {
        return take(Found {
            place: place.clone(),
            object: Value::Object(rest),
        });
    };
    for (index, mut object) in items.into_iter().enumerate() {
        inherit(&mut object, &rest);
        take(Found {
            place: Place {
                item: Some(index),
                ..place.clone()
            },
            object,
        })?;
    }
    Ok(())
}

/// The items of a typed list (`PodList`), as the API itself returns them, do not repeat their kind.
fn inherit(object: &mut Value, list: &Map<String, Value>) {
    let Value::Object(object) = object else {
        return;
    };
    let kind = list
        .get("kind")
        .and_then(Value::as_str)
        .and_then(|kind| kind.strip_suffix("List"));
    let Some(kind) = kind.filter(|kind| !kind.is_empty()) else {
        return;
    };
    object.entry("kind").or_insert_with(|| kind.into());
    if let Some(version) = list.get("apiVersion") {
        object
            .entry("apiVersion")
            .or_insert_with(|| version.clone());
    }
}
