//! A serde deserializer from a tree into the structs of `file.rs` that does not stop at errors.
//!
//! It differs from others in three ways: a `Written` gets its place and absorbs the refusal of its
//! value (which is noted as a problem first), a key that a struct does not have is noted and
//! skipped, and a list may be given as one value.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::{
    de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::{
    foreign,
    problem::Problem,
    trail::Trail,
    tree::{Entry, Node, Value},
    written::{WORD_OR_TABLE, WRITTEN, WRITTEN_FIELDS},
};

/// Reads the whole tree; refusals are noted in `problems`. Also returns the names of tables in
/// unknown sections or of the wrong kind: a reference to one of them is no mistake.
pub(crate) fn read<T: de::DeserializeOwned + Default>(
    root: &Node,
    problems: &mut Vec<Problem>,
) -> (T, Vec<String>) {
    let noted = Noted::default();
    let trail = Trail::root(root);
    let read = T::deserialize(Reader { node: root, trail: &trail, noted: &noted });
    problems.append(&mut noted.problems.into_inner());
    (read.unwrap_or_default(), noted.lost.into_inner())
}

/// What was noted on the way.
#[derive(Default)]
struct Noted {
    problems: RefCell<Vec<Problem>>,
    /// How many of them are unknown keys.
    unknown: Cell<usize>,
    lost: RefCell<Vec<String>>,
}

impl Noted {
    /// Keeps the names that a section would have had: `[pools.app]`, or `name` below `[[pool]]`.
    fn lose(&self, section: &Node) {
        let mut lost = self.lost.borrow_mut();
        match &section.value {
            Value::Table(entries) => {
                lost.extend(entries.iter().map(|entry| entry.name().to_owned()))
            }
            Value::List(list) => lost.extend(list.iter().map(|item| match item.key("name") {
                Some(Node { value: Value::Text(name), .. }) => name.clone(),
                _ => String::new(),
            })),
            _ => {}
        }
    }
}

/// Why a value was refused: the text under the caret.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(text: T) -> Refused {
        Refused(text.to_string())
    }

    fn invalid_type(_: de::Unexpected, expected: &dyn de::Expected) -> Refused {
        Refused(match expected.to_string().as_str() {
            "i64" => "a whole number".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "a sequence" => "a list".to_owned(),
            other if other.starts_with("struct ") => "a table".to_owned(),
            other => other.to_owned(),
        })
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    trail: &'a Trail<'a>,
    noted: &'a Noted,
}

impl<'a> Reader<'a> {
    fn note(&self, problem: Problem) {
        self.noted.problems.borrow_mut().push(problem);
    }

    /// The entries that the struct has a field for; the others are noted.
    fn known<'e>(
        &self,
        section: &str,
        fields: &[&'static str],
        entries: &'e [Entry],
    ) -> Vec<&'e Entry> {
        let (known, unknown): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| {
            let name = entry.name();
            fields.contains(&name) && foreign::is_built(section, name)
        });
        for entry in unknown {
            self.noted.unknown.update(|count| count + 1);
            if self.trail.is_root() {
                self.noted.lose(&entry.node);
            }
            self.note(foreign::unknown_key(entry, section, fields, self.trail));
        }
        known
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Whole(number) => visitor.visit_i64(*number),
            Value::Number(number) => visitor.visit_f64(*number),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Moment => {
                Err(de::Error::invalid_type(de::Unexpected::Other("a date"), &visitor))
            }
            Value::Refused => Err(Refused(String::new())),
            Value::List(list) => visitor.visit_seq(Items { rest: list.iter(), reader: self }),
            Value::Table(entries) => {
                visitor.visit_map(Entries { rest: entries.iter().collect(), next: 0, reader: self })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    /// A list, or one value in its place.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let items = match &self.node.value {
            Value::List(list) => list.as_slice(),
            _ => std::slice::from_ref(self.node),
        };
        visitor.visit_seq(Items { rest: items.iter(), reader: self })
    }

    /// A table of names; anything else is noted and read as an empty one.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let rest = if let Value::Table(entries) = &self.node.value {
            entries.iter().collect()
        } else {
            self.noted.lose(self.node);
            self.note(wrong_kind(self, &Refused("a table".to_owned())));
            Vec::new()
        };
        visitor.visit_map(Entries { rest, next: 0, reader: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match &self.node.value {
            _ if name == WRITTEN => {
                let unknown_before = self.noted.unknown.get();
                visitor.visit_map(InPlace { reader: self, step: 0, unknown_before })
            }
            Value::Table(entries) => {
                let rest = self.known(name, fields, entries);
                visitor.visit_map(Entries { rest, next: 0, reader: self })
            }
            Value::Text(_) if WITH_ADDRESS.contains(&name) => {
                visitor.visit_map(Shorthand { key: Some("address"), reader: self })
            }
            _ if WITH_ADDRESS.contains(&name) => Err(Refused("a string or a table".to_owned())),
            _ => Err(Refused("a table".to_owned())),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match &self.node.value {
            _ if name != WORD_OR_TABLE => visitor.visit_newtype_struct(self),
            Value::Text(word) => visitor.visit_str(word),
            Value::Table(_) => visitor.visit_newtype_struct(self),
            _ => Err(Refused("a string or a table".to_owned())),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// The elements of a list.
struct Items<'a> {
    rest: std::slice::Iter<'a, Node>,
    reader: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let trail = self.reader.trail.step("", node);
        seed.deserialize(Reader { node, trail: &trail, ..self.reader }).map(Some)
    }
}

/// The entries of a table.
struct Entries<'a> {
    rest: Vec<&'a Entry>,
    next: usize,
    reader: Reader<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        let Some(entry) = self.rest.get(self.next) else {
            return Ok(None);
        };
        seed.deserialize(Reader { node: &entry.key, ..self.reader }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let Some(entry) = self.rest.get(self.next) else {
            return Err(Refused(String::new()));
        };
        self.next += 1;
        let node = &entry.node;
        let trail = self.reader.trail.step(entry.name(), node);
        seed.deserialize(Reader { node, trail: &trail, ..self.reader })
    }
}

/// Tables in whose place a string may stand, for their `address`.
const WITH_ADDRESS: [&str; 2] = ["backend", "bind"];

/// A string where a table with one important key is meant.
struct Shorthand<'a> {
    key: Option<&'static str>,
    reader: Reader<'a>,
}

impl<'de> MapAccess<'de> for Shorthand<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        self.key.take().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(self.reader)
    }
}

/// A value with its place, for `Written`.
struct InPlace<'a> {
    reader: Reader<'a>,
    step: usize,
    unknown_before: usize,
}

impl<'de> MapAccess<'de> for InPlace<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        let Some(field) = WRITTEN_FIELDS.get(self.step) else {
            return Ok(None);
        };
        self.step += 1;
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let place = self.reader.node.place;
        match self.step {
            1 => seed.deserialize(u32::from(place.source).into_deserializer()),
            2 => seed.deserialize(place.start.into_deserializer()),
            3 => seed.deserialize(place.end.into_deserializer()),
            4 if matches!(self.reader.node.value, Value::Refused) => Err(Refused(String::new())),
            5 => {
                let count = self.reader.noted.unknown.get();
                seed.deserialize((count > self.unknown_before).into_deserializer())
            }
            _ => seed.deserialize(self.reader).inspect_err(|refused| {
                self.reader.note(wrong_kind(self.reader, refused));
            }),
        }
    }
}

fn wrong_kind(reader: Reader, Refused(expected): &Refused) -> Problem {
    let (node, trail) = (reader.node, reader.trail);
    let found = match &node.value {
        Value::Number(number) if expected == "a whole number" => {
            if number.is_finite() {
                "a decimal one"
            } else {
                "one that is too large"
            }
        }
        _ => node.kind(),
    };
    Problem::error(format!("wrong kind of value for {}", trail.describe()))
        .at(node.place, format!("expected {expected}, found {found}"))
        .help_if(instead(node, expected, &trail.keys()))
}

/// What to write instead of a value of the wrong kind, if it can be guessed.
fn instead(node: &Node, expected: &str, keys: &[&str]) -> Option<String> {
    match &node.value {
        Value::Text(text) if expected == "a whole number" && text.parse::<i64>().is_ok() => {
            Some(format!("write {text}, without quotes"))
        }
        Value::Text(text) if expected == "true or false" => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" => Some("write true, without quotes".to_owned()),
            "false" | "no" | "off" => Some("write false, without quotes".to_owned()),
            _ => None,
        },
        Value::Number(number) if expected == "a whole number" => {
            let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
            is_whole.then(|| format!("write {number}, without point and exponent"))
        }
        Value::Whole(port) if keys.contains(&"bind") => {
            Some(format!("write \"0.0.0.0:{port}\", in quotes"))
        }
        Value::Whole(number) if expected == "a string" => {
            Some(format!("write \"{number}\", in quotes"))
        }
        _ if expected.ends_with("a table") => foreign::table_meant(keys),
        _ => foreign::text_meant(keys),
    }
}
