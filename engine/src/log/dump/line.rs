//! What a dump is made of: lines that show as text and serialise as flat objects.

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

/// One thing found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How deep it lies in what the lines before it show: a record in a batch, a section in an entry.
    pub depth: usize,
    /// What it is.
    pub what: &'static str,
    /// Its properties, in the order in which they are shown.
    pub fields: Vec<(&'static str, Value)>,
}

/// A property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An offset, a position, a time, a count.
    Number(i128),
    /// A name, or a number that is read in hexadecimal.
    Text(String),
    /// Bytes of a client: text if they are UTF-8.
    Bytes(Vec<u8>),
    /// Nothing, as a record's key may be.
    Null,
}

impl Line {
    pub(super) fn new(depth: usize, what: &'static str) -> Self {
        Line { depth, what, fields: Vec::new() }
    }

    pub(super) fn number(mut self, name: &'static str, value: impl Into<i128>) -> Self {
        self.fields.push((name, Value::Number(value.into())));
        self
    }

    pub(super) fn text(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, Value::Text(value.to_string())));
        self
    }

    pub(super) fn hex(self, name: &'static str, value: impl fmt::LowerHex) -> Self {
        self.text(name, format_args!("{value:x}"))
    }

    pub(super) fn bytes(mut self, name: &'static str, value: Option<&[u8]>) -> Self {
        self.fields.push((name, value.map_or(Value::Null, |bytes| Value::Bytes(bytes.to_vec()))));
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:width$}{}", "", self.what, width = 2 * self.depth)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, "  {name} {value}"))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => text.fmt(f),
            Value::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Null => f.write_str("null"),
        }
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + 1))?;
        map.serialize_entry("what", self.what)?;
        self.fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl Serialize for Value {
    /// Bytes that are no text become `{"hex": "..."}`, so that no byte is lost.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Number(number) => serializer.serialize_i128(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Null => serializer.serialize_none(),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serialize_hex(bytes, serializer),
            },
        }
    }
}

fn serialize_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry("hex", &hex)?;
    map.end()
}
