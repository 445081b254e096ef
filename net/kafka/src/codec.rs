//! Kafka's primitive types: big-endian numbers, texts and arrays by length. *Flexible* versions have compact lengths, as
//! unsigned varints one above the length with 0 for null, and tagged fields at the end of every structure.

use thiserror::Error;
use uuid::Uuid;

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They end inside of a field.
    #[error("it ends inside of a field")]
    Short,
    /// A length that none can have, or more than there are bytes.
    #[error("a length that cannot be")]
    Length,
    /// Null where there must be something.
    #[error("null where something must be")]
    Null,
    /// A text that is no UTF-8.
    #[error("a text that is not UTF-8")]
    Text,
    /// A varint of more than five bytes.
    #[error("a varint that does not end")]
    Varint,
    /// More bytes than fields.
    #[error("{0} bytes behind the last field")]
    Trailing(usize),
    /// A version that is not served.
    #[error("version {0} is not served")]
    Version(i16),
    /// The message types refuse it.
    #[error("it is no such request")]
    Refused,
}

/// Takes fields from the front of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    is_flexible: bool,
}

impl<'a> Reader<'a> {
    /// At the first field of `bytes`.
    pub fn new(bytes: &'a [u8], is_flexible: bool) -> Reader<'a> {
        Reader { rest: bytes, is_flexible }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self) -> bool {
        self.is_flexible
    }

    /// Takes so many bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A number of one byte.
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// A number of two bytes.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// A number of four bytes.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// A number of eight bytes.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// An id of sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.fixed().map(Uuid::from_bytes)
    }

    /// An unsigned number, seven bits a byte, the low ones first.
    pub fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::Varint);
            }
        }
        Err(Malformed::Varint)
    }

    /// A length, `None` for null; `wide` in four bytes where it is not compact, else in two. Every element has at least a
    /// byte, so that what is more than the bytes left is refused here.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, Malformed> {
        let length = match (self.is_flexible, wide) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => self.i32()?.into(),
            (false, false) => self.i16()?.into(),
        };
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(Some(length)),
            Ok(_) => Err(Malformed::Length),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(Malformed::Length),
        }
    }

    /// How many elements an array has; `None` for null. Never more than bytes are left.
    pub fn count(&mut self) -> Result<Option<usize>, Malformed> {
        self.length(true)
    }

    /// Bytes; `None` for null.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.length(true)?;
        length.map(|length| self.take(length)).transpose()
    }

    /// A text; `None` for null.
    pub fn nullable_text(&mut self) -> Result<Option<&'a str>, Malformed> {
        let length = self.length(false)?;
        length.map(|length| std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::Text)).transpose()
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        self.nullable_text()?.ok_or(Malformed::Null)
    }

    /// Passes over the tagged fields at the end of a structure, in versions that have them: those that nobody here knows are
    /// skipped, not refused.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if !self.is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(size as usize)?;
        }
        Ok(())
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.rest.len())) }
    }
}

/// Where fields are put.
pub trait Sink {
    /// Puts bytes behind those that are there.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes instead of keeping them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size(pub usize);

impl Sink for Size {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Puts fields of one version.
#[derive(Debug)]
pub struct Writer<'a, S> {
    out: &'a mut S,
    is_flexible: bool,
}

impl<'a, S: Sink> Writer<'a, S> {
    /// Into `out`.
    pub fn new(out: &'a mut S, is_flexible: bool) -> Writer<'a, S> {
        Writer { out, is_flexible }
    }

    /// A number of two bytes.
    pub fn i16(&mut self, value: i16) {
        self.out.put(&value.to_be_bytes());
    }

    /// A number of four bytes.
    pub fn i32(&mut self, value: i32) {
        self.out.put(&value.to_be_bytes());
    }

    /// A number of eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.out.put(&value.to_be_bytes());
    }

    /// An id of sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.out.put(value.as_bytes());
    }

    fn varint(&mut self, mut value: u32) {
        let (mut bytes, mut count) = ([0; 5], 0);
        loop {
            bytes[count] = value as u8 & 0x7f;
            value >>= 7;
            count += 1;
            if value == 0 {
                return self.out.put(&bytes[..count]);
            }
            bytes[count - 1] |= 0x80;
        }
    }

    /// A length; `None` is null.
    fn length(&mut self, length: Option<usize>, wide: bool) {
        let length = length.map_or(-1, |length| length as i64);
        assert!(length < i64::from(if wide { i32::MAX } else { i16::MAX.into() }), "a response is within its bounds");
        match (self.is_flexible, wide) {
            (true, _) => self.varint((length + 1) as u32),
            (false, true) => self.i32(length as i32),
            (false, false) => self.i16(length as i16),
        }
    }

    /// How many elements an array has that is put next; `None` for null.
    pub fn count(&mut self, count: Option<usize>) {
        self.length(count, true);
    }

    /// The length of bytes that are put next, by the caller.
    pub fn bytes_length(&mut self, length: usize) {
        self.length(Some(length), true);
    }

    /// A text; `None` is null.
    pub fn nullable_text(&mut self, text: Option<&str>) {
        self.length(text.map(str::len), false);
        self.out.put(text.unwrap_or_default().as_bytes());
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.nullable_text(Some(text));
    }

    /// The end of a structure: no tagged fields, in versions that could have some.
    pub fn tags(&mut self) {
        if self.is_flexible {
            self.varint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(flexible: bool, number: i64, text in "\\PC{0,300}", count in 0..300usize, null: bool) {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, flexible);
            let text = (!null).then_some(text.as_str());
            writer.i64(number);
            writer.nullable_text(text);
            writer.count(Some(count));
            bytes.extend(vec![7; count]);
            Writer::new(&mut bytes, flexible).tags();
            let mut reader = Reader::new(&bytes, flexible);
            prop_assert_eq!(reader.i64(), Ok(number));
            prop_assert_eq!(reader.nullable_text(), Ok(text));
            prop_assert_eq!(reader.count(), Ok(Some(count)));
            prop_assert_eq!(reader.take(count), Ok(&vec![7; count][..]));
            prop_assert_eq!(reader.tags(), Ok(()));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), flexible: bool) {
            let mut reader = Reader::new(&bytes, flexible);
            let _ = reader.nullable_text().and_then(|_| reader.count()).and_then(|_| reader.tags());
        }
    }

    #[test]
    fn declared_lengths_are_held_against_the_bytes_left() {
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1], false).count(), Err(Malformed::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff], false).count(), Ok(None));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).count(), Err(Malformed::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).count(), Err(Malformed::Length));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x10], true).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0], true).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0], true).count(), Ok(None));
        assert_eq!(Reader::new(&[0, 3, b'a'], false).text(), Err(Malformed::Length));
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        let mut reader = Reader::new(&[2, 0, 3, 1, 2, 3, 0x81, 1, 0, 9], true);
        assert_eq!((reader.tags(), reader.rest()), (Ok(()), &[9][..]));
        assert_eq!(Reader::new(&[1, 0, 4, 1, 2, 3], true).tags(), Err(Malformed::Short));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).tags(), Err(Malformed::Short));
    }
}
