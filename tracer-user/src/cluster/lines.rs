//! Which line of a file a field of an object stands on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read as _};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::error::Place;
use super::yaml::Documents;

/// A longer document is not read again for its lines, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// The lines that a document's fields start on.
#[derive(Debug)]
struct Lines {
    /// Within the document, from 1; 0 where it is not known.
    line: u64,
    fields: Fields,
}

#[derive(Debug)]
enum Fields {
    Named(BTreeMap<String, Lines>),
    Listed(Vec<Lines>),
    None,
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Fields>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            fields: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let mut value: Lines = map.next_value()?;
                    // A list under a field starts a line below its name, which is what people look for.
                    value.line = key.referenced.line();
                    fields.insert(key.value, value);
                }
                Ok(Fields::Named(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Fields, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Fields::Listed(items))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_str<E>(self, _: &str) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_unit<E>(self) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_none<E>(self) -> Result<Fields, E> {
                Ok(Fields::None)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Fields, D::Error> {
                IgnoredAny::deserialize(inner).map(|_| Fields::None)
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

impl Lines {
    /// The line of the deepest part of `path` (`spec.egress[1].to[0]`) that is there.
    fn of(&self, path: &str) -> u64 {
        let mut at = self;
        for step in path.split(['.', '[']) {
            let next = match (&at.fields, step.strip_suffix(']')) {
                (Fields::Listed(items), Some(index)) => index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index)),
                (Fields::Named(fields), None) => fields.get(step),
                _ => None,
            };
            let Some(next) = next else { break };
            at = next;
        }
        at.line
    }
}

/// The line of `field` in the object at `place`, as far down as it is there; `None` where the file is not one
/// that can be read a second time, or not YAML.
pub fn line_of(place: &Place, field: &str) -> Option<u64> {
    // A pipe's content is gone.
    if !place.file.is_file() {
        return None;
    }
    let file = File::open(&place.file).ok()?;
    let mut documents = Documents::new(BufReader::new(file));
    let mut number = 1;
    loop {
        let mut document = documents.next().ok()??;
        let before = document.lines_before();
        let mut text = String::new();
        document
            .by_ref()
            .take(MOST_BYTES)
            .read_to_string(&mut text)
            .ok()?;
        // Empty ones do not count.
        if text.lines().all(is_blank) {
            continue;
        }
        if number < place.document {
            number += 1;
            continue;
        }
        let lines: Lines = serde_saphyr::from_str(&text).ok()?;
        let path = match place.item {
            Some(item) => format!("items[{item}].{field}"),
            None => field.to_owned(),
        };
        return Some(lines.of(&path))
            .filter(|line| *line > 0)
            .map(|line| before + line);
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line == "---" || line == "..." || line.starts_with(['#', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# first\n---\nkind: A\n---\n---\nkind: B\nspec:\n  podSelector: {}\n  egress:\n  - to: []\n  - \
                        to:\n    - podSelector: {}\n    - ipBlock:\n        cidr: 10.0.0.0/8\n    ports: [{port: 1}]\n";

    #[test]
    fn a_field_is_found_by_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        let at = |field| {
            let place = Place {
                file: file.path().to_owned(),
                document: 2,
                item: None,
                line: Some(6),
            };
            line_of(&place, field)
        };
        for (field, line) in [
            ("kind", 6),
            ("spec", 7),
            ("spec.podSelector", 8),
            ("spec.egress[1]", 11),
            ("spec.egress[1].to[0]", 12),
            ("spec.egress[1].to[1].ipBlock.cidr", 14),
            ("spec.egress[1].ports[0].port", 15),
            // What is not there is told by what it would be in.
            ("spec.egress[7].to[0]", 9),
            ("spec.policyTypes", 7),
        ] {
            assert_eq!(at(field), Some(line), "{field}");
        }
    }

    #[test]
    fn items_of_a_list_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "kind: List\nitems:\n- kind: A\n- kind: B\n  spec:\n    egress:\n    - {}\n";
        std::fs::write(file.path(), text).unwrap();
        let place = Place {
            file: file.path().to_owned(),
            document: 1,
            item: Some(1),
            line: None,
        };
        assert_eq!(line_of(&place, "spec.egress[0]"), Some(7));
        let pipe = Place {
            file: "-".into(),
            ..place
        };
        assert_eq!(line_of(&pipe, "spec"), None);
    }
}
