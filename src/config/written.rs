//! Wrappers of the values in `file.rs`: they carry the place, and survive a refused value.
//!
//! `Written<T>` keeps the place of a value, and is empty if the value was refused: the problem has
//! been noted by then, and everything around it is still read.

use std::{fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::source::Position;

/// The name by which `Written` asks `read` for a value and its place.
pub(crate) const WRITTEN: &str = "$written";
/// The fields that `read` then gives, in this order.
pub(crate) const WRITTEN_FIELDS: &[&str] = &["source", "start", "end", "value", "holes"];

/// A value and its place; no value if it was refused.
#[derive(Clone, Debug)]
pub(crate) struct Written<T> {
    pub(crate) place: Position,
    pub(crate) value: Option<T>,
    /// Whether it contains an unknown key: a missing key may be a misspelt one.
    pub(crate) holes: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Written<T>, D::Error> {
        from.deserialize_struct(WRITTEN, WRITTEN_FIELDS, WrittenVisitor(PhantomData))
    }
}

struct WrittenVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for WrittenVisitor<T> {
    type Value = Written<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value and its place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written<T>, A::Error> {
        let number = |map: &mut A| -> Result<u32, A::Error> {
            map.next_key::<String>()?;
            map.next_value::<u32>()
        };
        let source = number(&mut map)?;
        let source = u16::try_from(source).map_err(A::Error::custom)?;
        let (start, end) = (number(&mut map)?, number(&mut map)?);
        map.next_key::<String>()?;
        let value = map.next_value::<T>().ok();
        map.next_key::<String>()?;
        let holes = map.next_value()?;
        Ok(Written { place: Position { source, start, end }, value, holes })
    }
}

impl<T: JsonSchema> JsonSchema for Written<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A list, or one value in its place.
#[derive(Clone, Debug)]
pub(crate) struct List<T>(pub(crate) Vec<Written<T>>);

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<List<T>, D::Error> {
        Vec::deserialize(from).map(List)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("list-of-{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Named tables, in the order they were written.
#[derive(Clone, Debug)]
pub(crate) struct Tables<T>(pub(crate) Vec<(Written<String>, Written<T>)>);

impl<T> Default for Tables<T> {
    fn default() -> Tables<T> {
        Tables(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Tables<T>, D::Error> {
        from.deserialize_map(TablesVisitor(PhantomData))
    }
}

struct TablesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TablesVisitor<T> {
    type Value = Tables<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tables<T>, A::Error> {
        let mut tables = Vec::new();
        while let Some(entry) = map.next_entry()? {
            tables.push(entry);
        }
        Ok(Tables(tables))
    }
}

impl<T: JsonSchema> JsonSchema for Tables<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("tables-of-{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": one })
    }
}

/// The name by which `WordOr` asks `read` for a string or a table.
pub(crate) const WORD_OR_TABLE: &str = "$word-or-table";

/// A word, or a table if there is more to say.
#[derive(Clone, Debug)]
pub(crate) enum WordOr<T> {
    Word(String),
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<WordOr<T>, D::Error> {
        from.deserialize_newtype_struct(WORD_OR_TABLE, WordOrVisitor(PhantomData))
    }
}

struct WordOrVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for WordOrVisitor<T> {
    type Value = WordOr<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string or a table")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<WordOr<T>, E> {
        Ok(WordOr::Word(word.to_owned()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<WordOr<T>, D::Error> {
        T::deserialize(from).map(WordOr::Table)
    }
}

impl<T: JsonSchema> JsonSchema for WordOr<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("word-or-{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

/// A string, number or flag as it was written; the code that checks it knows what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scalar, D::Error> {
        from.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }
}
