//! A document as it is parsed: each object of its list is handed on before the next one is read.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::error::{LoadError, Place};
use super::meter::Meter;
use super::unique::Unique;

/// One object and where it stands.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) object: Value,
}

/// Who gets the objects.
pub(super) type Taker<'a> = dyn FnMut(Found) -> Result<(), LoadError> + 'a;

/// The objects of one document on their way out.
pub(super) struct Objects<'a> {
    place: Place,
    take: &'a mut Taker<'a>,
    /// What stopped it: a parser's error has no room for it.
    failed: Option<LoadError>,
    something: bool,
}

impl<'a> Objects<'a> {
    pub(super) const fn new(place: Place, take: &'a mut Taker<'a>) -> Self {
        Self {
            place,
            take,
            failed: None,
            something: false,
        }
    }

    /// Whether the document held anything; the error that stopped it, where it was not the parser's.
    pub(super) fn finish(self) -> Result<bool, LoadError> {
        self.failed.map_or(Ok(self.something), Err)
    }

    /// Hands one object on; a list within a list is taken apart too.
    fn hand_on<E: Error>(
        &mut self,
        item: Option<usize>,
        line: Option<u64>,
        mut object: Value,
    ) -> Result<(), E> {
        self.something = true;
        if is_list(&object)
            && let Some(Value::Array(items)) = object.get_mut("items").map(Value::take)
        {
            for mut inner in items {
                inherit(&mut inner, &object);
                self.hand_on(item, line, inner)?;
            }
            return Ok(());
        }
        let place = Place {
            item,
            line: line.or(self.place.line),
            ..self.place.clone()
        };
        (self.take)(Found { place, object }).map_err(|error| {
            self.failed = Some(error);
            E::custom("an object was refused")
        })
    }
}

/// A value and the line it starts at within its document, where the parser knows.
pub(super) trait Parsed<'de>: Deserialize<'de> {
    fn parts(self) -> (Option<u64>, Value);
}

impl Parsed<'_> for Spanned<Value> {
    fn parts(self) -> (Option<u64>, Value) {
        (Some(self.referenced.line()), self.value)
    }
}

impl Parsed<'_> for Unique {
    fn parts(self) -> (Option<u64>, Value) {
        (None, self.0)
    }
}

/// What the parser is at.
#[derive(Clone, Copy)]
struct Position<'s> {
    meter: &'s Meter,
    /// How many lines stand before the document the parser counts its own lines in; `None` where it
    /// tells none and the meter's line is right.
    before: Option<u64>,
}

impl Position<'_> {
    /// The line of what comes next, where the parser does not tell by itself.
    fn next(self) -> Option<u64> {
        self.before.is_none().then(|| self.meter.line())
    }

    /// The line in the file that the parser told.
    fn told(self, line: Option<u64>) -> Option<u64> {
        let line = line.filter(|line| *line > 0)?;
        Some(self.before? + line)
    }
}

/// Parses one document and hands its objects on.
pub(super) struct DocumentSeed<'s, 'a, P> {
    objects: &'s mut Objects<'a>,
    position: Position<'s>,
    parsed: PhantomData<P>,
}

impl<'s, 'a> DocumentSeed<'s, 'a, Spanned<Value>> {
    pub(super) const fn yaml(
        objects: &'s mut Objects<'a>,
        meter: &'s Meter,
        lines_before: u64,
    ) -> Self {
        Self {
            objects,
            position: Position {
                meter,
                before: Some(lines_before),
            },
            parsed: PhantomData,
        }
    }
}

impl<'s, 'a> DocumentSeed<'s, 'a, Unique> {
    pub(super) const fn json(objects: &'s mut Objects<'a>, meter: &'s Meter) -> Self {
        Self {
            objects,
            position: Position {
                meter,
                before: None,
            },
            parsed: PhantomData,
        }
    }
}

impl<'de, P: Parsed<'de>> DeserializeSeed<'de> for DocumentSeed<'_, '_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Parsed<'de>> Visitor<'de> for DocumentSeed<'_, '_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some(line) = self.position.next() {
            self.objects.place.line = Some(line);
        }
        // Of the document before, nothing is held.
        self.position.meter.handed_on();
        let mut rest = Value::Object(Map::new());
        let (mut items, mut held) = (false, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let twice = if key == "items" {
                map.next_value_seed(ItemsSeed::<P> {
                    objects: &mut *self.objects,
                    position: self.position,
                    list: &rest,
                    held: &mut held,
                    parsed: PhantomData,
                })?;
                std::mem::replace(&mut items, true)
            } else {
                let (_, value) = map.next_value::<P>()?.parts();
                let twice = rest.get(&key).is_some();
                rest[key.as_str()] = value;
                twice
            };
            if twice {
                return Err(Error::custom(format_args!("key `{key}` is there twice")));
            }
        }
        if !is_list(&rest) {
            // `items` of anything else are a field like any other, and of no kind that is used here.
            return self.objects.hand_on(None, None, rest);
        }
        self.objects.something = true;
        for item in held {
            let mut object = item.object;
            inherit(&mut object, &rest);
            self.objects.hand_on(Some(item.index), item.line, object)?;
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.position.meter.handed_on();
        self.objects.something = true;
        let mut index = 0;
        while let Some((line, object)) = seq.next_element_seed(ItemSeed::<P> {
            position: self.position,
            parsed: PhantomData,
        })? {
            self.objects.hand_on(Some(index), line, object)?;
            self.position.meter.handed_on();
            index += 1;
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.objects.hand_on(None, None, Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.objects.hand_on(None, None, Value::Null)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.objects.hand_on(None, None, Value::Null)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.objects.hand_on(None, None, Value::Null)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.objects.hand_on(None, None, Value::Null)
    }
}

/// An item that waits for its list's kind.
struct Held {
    index: usize,
    line: Option<u64>,
    object: Value,
}

/// Parses `items`. What an item is, it says by itself or a typed list (`PodList`) has said before it;
/// only where `kind` comes after `items` and the items do not repeat it do they wait.
struct ItemsSeed<'s, 'a, P> {
    objects: &'s mut Objects<'a>,
    position: Position<'s>,
    /// What the list said before its items.
    list: &'s Value,
    held: &'s mut Vec<Held>,
    parsed: PhantomData<P>,
}

impl<'de, P: Parsed<'de>> DeserializeSeed<'de> for ItemsSeed<'_, '_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Parsed<'de>> Visitor<'de> for ItemsSeed<'_, '_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some((line, mut object)) = seq.next_element_seed(ItemSeed::<P> {
            position: self.position,
            parsed: PhantomData,
        })? {
            inherit(&mut object, self.list);
            if object.get("kind").is_some() && object.get("apiVersion").is_some() {
                self.objects.hand_on(Some(index), line, object)?;
                self.position.meter.handed_on();
            } else {
                self.position.meter.waits();
                self.held.push(Held {
                    index,
                    line,
                    object,
                });
            }
            index += 1;
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        IgnoredAny::deserialize(MapAccessDeserializer::new(map)).map(drop)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// Parses one item, with its line.
struct ItemSeed<'s, P> {
    position: Position<'s>,
    parsed: PhantomData<P>,
}

impl<'de, P: Parsed<'de>> DeserializeSeed<'de> for ItemSeed<'_, P> {
    type Value = (Option<u64>, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let next = self.position.next();
        let (line, object) = P::deserialize(deserializer)?.parts();
        Ok((next.or(self.position.told(line)), object))
    }
}

fn is_list(object: &Value) -> bool {
    object
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.ends_with("List"))
}

/// Gives an item of a typed list the kind that the list's name says.
fn inherit(object: &mut Value, list: &Value) {
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
