//! How `consume` shows a record: a format with `%` placeholders as kcat has them, or a line of JSON.

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::io::{self, Write};

/// What a record is shown with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    /// Milliseconds since 1970, -1 for none.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
}

/// A header's name, and its value unless that is null.
pub(crate) type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A format, read once and written for every record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    Headers,
}

impl Format {
    /// Reads a format: `%t` topic, `%p` partition, `%o` offset, `%T` timestamp, `%k` key, `%K` key length, `%s` value,
    /// `%S` value length, `%h` headers, `%%`; `\n \r \t \0 \\ \xHH`. Everything else stands for itself.
    pub(crate) fn parse(text: &str) -> Result<Format, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['%', '\\']) {
            push_text(&mut pieces, &rest.as_bytes()[..at]);
            rest = if rest[at..].starts_with('%') {
                placeholder(&mut pieces, &rest[at + 1..])?
            } else {
                let (byte, after) = escape(&rest[at + 1..])?;
                push_text(&mut pieces, &[byte]);
                after
            };
        }
        push_text(&mut pieces, rest.as_bytes());
        Ok(Format(pieces))
    }

    /// The value and a newline.
    pub(crate) fn lines() -> Format {
        Format(vec![Piece::Value, Piece::Text(b"\n".to_vec())])
    }

    /// Writes one record.
    pub(crate) fn write(&self, record: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        self.0.iter().try_for_each(|piece| piece.write(record, out))
    }
}

impl Piece {
    fn write(&self, record: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        match self {
            Piece::Text(text) => out.write_all(text),
            Piece::Topic => out.write_all(record.topic.as_bytes()),
            Piece::Partition => write!(out, "{}", record.partition),
            Piece::Offset => write!(out, "{}", record.offset),
            Piece::Timestamp => write!(out, "{}", record.timestamp),
            Piece::Key => out.write_all(record.key.unwrap_or_default()),
            Piece::KeyBytes => write_length(record.key, out),
            Piece::Value => out.write_all(record.value.unwrap_or_default()),
            Piece::ValueBytes => write_length(record.value, out),
            Piece::Headers => write_headers(record.headers, out),
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &[u8]) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(before)) => before.extend_from_slice(text),
        _ => pieces.push(Piece::Text(text.to_vec())),
    }
}

/// Reads what follows a `%`; returns what is left.
fn placeholder<'a>(pieces: &mut Vec<Piece>, after: &'a str) -> Result<&'a str, String> {
    let letter = after.chars().next();
    match letter {
        Some('t') => pieces.push(Piece::Topic),
        Some('p') => pieces.push(Piece::Partition),
        Some('o') => pieces.push(Piece::Offset),
        Some('T') => pieces.push(Piece::Timestamp),
        Some('k') => pieces.push(Piece::Key),
        Some('K') => pieces.push(Piece::KeyBytes),
        Some('s') => pieces.push(Piece::Value),
        Some('S') => pieces.push(Piece::ValueBytes),
        Some('h') => pieces.push(Piece::Headers),
        Some('%') => push_text(pieces, b"%"),
        _ => {
            let found: String = letter.into_iter().collect();
            return Err(format!("`%{found}` is no placeholder; there are %t %p %o %T %k %K %s %S %h and %%"));
        }
    }
    Ok(&after[1..])
}

/// Reads what follows a `\`: the byte it stands for, and what is left.
fn escape(after: &str) -> Result<(u8, &str), String> {
    let wrong = || {
        let found: String = after.chars().next().into_iter().collect();
        format!("`\\{found}` is no escape; there are \\n \\r \\t \\0 \\\\ and \\xHH")
    };
    let byte = match after.as_bytes().first() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let digits = after.get(1..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?;
            return Ok((byte, &after[3..]));
        }
        _ => return Err(wrong()),
    };
    Ok((byte, &after[1..]))
}

/// Replaces escapes in an argument such as a separator; every other byte stands for itself.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, after) = escape(&rest[at + 1..])?;
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// -1 stands for null, which is not the same as empty.
fn write_length(bytes: Option<&[u8]>, out: &mut impl Write) -> io::Result<()> {
    match bytes {
        Some(bytes) => write!(out, "{}", bytes.len()),
        None => out.write_all(b"-1"),
    }
}

fn write_headers(headers: &[Header<'_>], out: &mut impl Write) -> io::Result<()> {
    for (i, (name, value)) in headers.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

/// Writes a record as one line of JSON. Bytes that are not UTF-8 come in hexadecimal under another name (`key_hex`,
/// `value_hex`), so that nothing is lost and nothing is guessed.
pub(crate) fn write_json(record: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        serialize_bytes(&mut map, "key", self.key)?;
        serialize_bytes(&mut map, "value", self.value)?;
        if !self.headers.is_empty() {
            let headers: Vec<_> = self.headers.iter().map(|header| JsonHeader(*header)).collect();
            map.serialize_entry("headers", &headers)?;
        }
        map.end()
    }
}

struct JsonHeader<'a>(Header<'a>);

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_bytes(&mut map, "name", Some(self.0.0))?;
        serialize_bytes(&mut map, "value", self.0.1)?;
        map.end()
    }
}

fn serialize_bytes<M: SerializeMap>(map: &mut M, name: &str, bytes: Option<&[u8]>) -> Result<(), M::Error> {
    match bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.serialize_entry(name, &None::<&str>),
        Some(Ok(text)) => map.serialize_entry(name, text),
        Some(Err(bytes)) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            map.serialize_entry(&format!("{name}_hex"), &hex)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Shown<'_> = Shown {
        topic: "clicks",
        partition: 3,
        offset: 41,
        timestamp: 1_700_000_000_000,
        key: Some(b"k"),
        value: Some(b"v\xff"),
        headers: &[(b"a", Some(b"1")), (b"b", None)],
    };

    fn written(format: &str, record: &Shown<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(record, &mut out).unwrap();
        out
    }

    #[test]
    fn placeholders_and_escapes() {
        let all = written("%t/%p@%o %T %K:%k %S:%s %h 100%%\\t\\x41\\\\\\n", &RECORD);
        assert_eq!(all, b"clicks/3@41 1700000000000 1:k 2:v\xff a=1,b=NULL 100%\tA\\\n");
        assert_eq!(written("déjà\\0", &RECORD), "déjà\0".as_bytes());
        let null = Shown { key: None, value: None, headers: &[], ..RECORD };
        assert_eq!(written("[%k%K%s%S%h]", &null), b"[-1-1]");
    }

    #[test]
    fn a_format_with_an_error_says_what_there_is() {
        for (format, text) in [("%q", "`%q` is no placeholder"), ("50%", "`%` is no placeholder")] {
            assert!(Format::parse(format).unwrap_err().starts_with(text));
        }
        for (format, text) in
            [("\\q", "`\\q` is no escape"), ("\\", "`\\` is no"), ("\\xg0", "`\\x`"), ("\\x+1", "`\\x`")]
        {
            assert!(Format::parse(format).unwrap_err().starts_with(text), "{format}");
        }
    }

    #[test]
    fn a_line_is_the_value_and_a_newline() {
        let mut out = Vec::new();
        Format::lines().write(&RECORD, &mut out).unwrap();
        assert_eq!(out, b"v\xff\n");
    }

    #[test]
    fn json_loses_no_byte() {
        let mut out = Vec::new();
        write_json(&RECORD, &mut out).unwrap();
        write_json(&Shown { key: None, value: Some(b"\"\n"), headers: &[], ..RECORD }, &mut out).unwrap();
        let expected = concat!(
            r#"{"topic":"clicks","partition":3,"offset":41,"timestamp":1700000000000,"key":"k","value_hex":"76ff","#,
            r#""headers":[{"name":"a","value":"1"},{"name":"b","value":null}]}"#,
            "\n",
            r#"{"topic":"clicks","partition":3,"offset":41,"timestamp":1700000000000,"key":null,"value":"\"\n"}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn separators_are_bytes() {
        assert_eq!(unescape("\\t").unwrap(), b"\t");
        assert_eq!(unescape("a\\x00:").unwrap(), b"a\0:");
        assert!(unescape("\\z").is_err());
    }
}
