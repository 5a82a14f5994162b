//! Which lines of a file the fields of its objects stand on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::documents::options;
use super::error::Place;
use super::yaml::Documents;

/// The line of each field (`spec.egress[1].to[0]`) in the object at its place, as far down as it is there;
/// `None` where the file is not one that can be read a second time, or not YAML.
///
/// Each file is read once, as far as it is asked for, and nothing of it is held but the lines.
pub fn lines_of(asked: &[(&Place, &str)]) -> Vec<Option<u64>> {
    lines_where(asked, |path| {
        // A pipe's content is gone.
        if path.is_file() {
            File::open(path).map(|file| BufReader::with_capacity(1 << 16, file))
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    })
}

fn lines_where<R: BufRead>(
    asked: &[(&Place, &str)],
    open: impl Fn(&Path) -> io::Result<R>,
) -> Vec<Option<u64>> {
    let mut files: BTreeMap<&Path, BTreeMap<usize, Wanted>> = BTreeMap::new();
    for (number, (place, field)) in asked.iter().enumerate() {
        let documents = files.entry(&place.file).or_default();
        let mut wanted = documents.entry(place.document).or_default();
        if let Some(item) = place.item {
            wanted = wanted.below("items").below(&format!("{item}]"));
        }
        for step in field.split(['.', '[']) {
            wanted = wanted.below(step);
        }
        wanted.asked.push(number);
    }
    let mut lines = vec![None; asked.len()];
    for (path, documents) in files {
        if let Ok(reader) = open(path) {
            read(reader, &documents, &mut lines);
        }
    }
    lines
}

/// Finds what is wanted of each document. What cannot be read any more has no lines.
fn read(reader: impl BufRead, wanted: &BTreeMap<usize, Wanted>, lines: &mut [Option<u64>]) {
    let nothing = Wanted::default();
    let last = wanted.keys().max().copied().unwrap_or_default();
    let mut documents = Documents::new(reader);
    let mut number = 1;
    while number <= last
        && let Ok(Some(document)) = documents.next()
    {
        let mut found = Found {
            before: document.lines_before(),
            lines,
            something: false,
        };
        let seed = Node {
            wanted: wanted.get(&number).unwrap_or(&nothing),
            line: 0,
            listed: false,
            found: &mut found,
        };
        let parsed =
            serde_saphyr::with_deserializer_from_reader_with_options(document, options(), |d| {
                seed.deserialize(d)
            });
        if parsed.is_err() {
            return;
        }
        // Empty documents do not count.
        number += usize::from(found.something);
    }
}

/// What is asked of a part of a document: by which questions itself, and what of what is in it.
#[derive(Debug, Default)]
struct Wanted {
    asked: Vec<usize>,
    below: BTreeMap<String, Wanted>,
}

impl Wanted {
    /// A step of a path: a field's name, or `1]`.
    fn below(&mut self, step: &str) -> &mut Self {
        self.below.entry(step.to_owned()).or_default()
    }
}

/// Lines found so far, by the number of the question.
struct Found<'a> {
    lines: &'a mut [Option<u64>],
    /// Lines before the document.
    before: u64,
    /// Whether the document holds anything.
    something: bool,
}

impl Found<'_> {
    /// Notes the line of everything that is asked of a part; of what turns out to be further down, a better
    /// one follows.
    fn settle(&mut self, wanted: &Wanted, line: u64) {
        if line == 0 {
            return;
        }
        for number in &wanted.asked {
            self.lines[*number] = Some(self.before + line);
        }
        for below in wanted.below.values() {
            self.settle(below, line);
        }
    }
}

/// Parses one part of a document.
struct Node<'s, 'a> {
    wanted: &'s Wanted,
    /// Within the document, from 1; 0 where it is not known.
    line: u64,
    /// An item of a list starts where its first field does.
    listed: bool,
    found: &'s mut Found<'a>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.found.something = true;
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            if std::mem::take(&mut self.listed) {
                self.found.settle(self.wanted, line);
                self.line = line;
            }
            let Some(wanted) = self.wanted.below.get(&key.value) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // A list under a field starts a line below its name, which is what people look for.
            self.found.settle(wanted, line);
            map.next_value_seed(Node {
                wanted,
                line,
                listed: false,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.found.something = true;
        let mut index = 0;
        loop {
            let wanted = self.wanted.below.get(&format!("{index}]"));
            index += 1;
            let more = match wanted {
                None => list.next_element::<IgnoredAny>()?.is_some(),
                Some(wanted) if wanted.below.is_empty() => {
                    let item = list.next_element::<Spanned<IgnoredAny>>()?;
                    if let Some(item) = &item {
                        self.found.settle(wanted, item.referenced.line());
                    }
                    item.is_some()
                }
                Some(wanted) => list
                    .next_element_seed(Node {
                        wanted,
                        line: self.line,
                        listed: true,
                        found: &mut *self.found,
                    })?
                    .is_some(),
            };
            if !more {
                return Ok(());
            }
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.found.something = true;
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.found.something = true;
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.found.something = true;
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.found.something = true;
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.found.something = true;
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        IgnoredAny::deserialize(inner).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use super::*;

    fn place(file: &Path, document: usize, item: Option<usize>) -> Place {
        Place {
            file: file.to_owned(),
            document,
            item,
            line: None,
        }
    }

    #[test]
    fn fields_are_found_by_their_paths() {
        const TEXT: &str = "# first\n---\nkind: A\n---\n---\nkind: B\nspec:\n  podSelector: {}\n  egress:\n  - to: []\n  - \
                            to:\n    - podSelector: {}\n    - ipBlock:\n        cidr: 10.0.0.0/8\n    ports: [{port: 1}]\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        let place = place(file.path(), 2, None);
        let expected = [
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
        ];
        let asked: Vec<_> = expected.iter().map(|(field, _)| (&place, *field)).collect();
        for ((field, line), found) in expected.iter().zip(lines_of(&asked)) {
            assert_eq!(found, Some(*line), "{field}");
            // Each by itself, too.
            assert_eq!(lines_of(&[(&place, field)]), [Some(*line)], "{field}");
        }
    }

    #[test]
    fn items_of_a_list_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "kind: List\nitems:\n- kind: A\n- kind: B\n  spec:\n    egress:\n    - {}\n";
        std::fs::write(file.path(), text).unwrap();
        let listed = place(file.path(), 1, Some(1));
        let pipe = place(Path::new("-"), 1, Some(1));
        assert_eq!(
            lines_of(&[(&listed, "spec.egress[0]"), (&pipe, "spec"), (&listed, "x")]),
            [Some(7), None, Some(4)]
        );
    }

    /// Beyond any buffer: 1 MB of policies in many documents, and in one list.
    #[test]
    fn however_much_is_asked_a_file_is_read_once() {
        const POLICIES: usize = 3000;
        let policy = |indent: &str| {
            format!(
                "kind: NetworkPolicy\n{indent}metadata: {{name: {name}}}\n{indent}spec:\n{indent}  egress:\n{indent}  - to:\n\
                 {indent}    - podSelector: {{matchLabels: {{app: a}}}}\n",
                name = "x".repeat(200)
            )
        };
        let (mut documents, mut list) = (String::new(), "kind: List\nitems:\n".to_owned());
        for _ in 0..POLICIES {
            let _ = write!(documents, "---\n{}", policy(""));
            let _ = write!(list, "- {}", policy("  "));
        }
        let places = |in_list: bool| -> Vec<Place> {
            let all = 0..POLICIES;
            all.map(|n| {
                let file = PathBuf::from(if in_list { "list" } else { "documents" });
                if in_list {
                    place(&file, 1, Some(n))
                } else {
                    place(&file, n + 1, None)
                }
            })
            .collect()
        };
        for (in_list, text, first, each) in [(false, &documents, 6, 7), (true, &list, 7, 6)] {
            assert!(text.len() > 700_000);
            let (opened, read) = (Cell::new(0), Cell::new(0));
            let places = places(in_list);
            let asked: Vec<_> = places
                .iter()
                .flat_map(|place| [(place, "spec.egress[0]"), (place, "spec.egress[0].to[0]")])
                .collect();
            let lines = lines_where(&asked, |_| {
                opened.set(opened.get() + 1);
                Ok(BufReader::new(Counted {
                    text: text.as_bytes(),
                    read: &read,
                }))
            });
            assert_eq!((opened.get(), read.get()), (1, text.len()));
            for (n, pair) in lines.chunks(2).enumerate() {
                let item = first + n as u64 * each;
                assert_eq!(pair, [Some(item), Some(item + 1)]);
            }
        }
    }

    struct Counted<'a> {
        text: &'a [u8],
        read: &'a Cell<usize>,
    }

    impl io::Read for Counted<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = self.text.read(buf)?;
            self.read.set(self.read.get() + count);
            Ok(count)
        }
    }
}
