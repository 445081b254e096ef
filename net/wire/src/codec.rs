//! How a value becomes bytes and comes back: little-endian numbers, texts with a length, lists with a count.
//!
//! Decoding borrows from the frame and allocates nothing: a list is checked element by element when it is decoded and
//! kept as the bytes it came in. A declared length is compared with the bytes that are left before it is used.

use std::fmt;
use thiserror::Error;
use uuid::Uuid;

/// Longest text on the wire, in bytes of UTF-8. Longer ones cannot be sent and are refused when they arrive.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Why bytes are not the message they claim to be. The sender's program must be mended; repeating it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The body ends before the field does, or a count or length promises more than there is.
    #[error("the body ends inside {what}: {need} bytes are needed, {have} are left")]
    Short {
        /// The field.
        what: &'static str,
        /// Bytes it needs at least.
        need: u64,
        /// Bytes that are left.
        have: usize,
    },
    /// Bytes are left over after the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    /// A text is longer than [`TEXT_BYTES_MAX`].
    #[error("a text of {0} bytes is over the limit of {TEXT_BYTES_MAX}")]
    TextTooLong(usize),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A field that is one of a few values holds another.
    #[error("{value} is no {what}")]
    UnknownValue {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The first frame does not begin with the protocol's magic: the peer speaks something else.
    #[error("the magic is {0:02x?}, not \"CLOG\"")]
    Magic([u8; 4]),
}

/// Where encoded bytes go. Never fails: a sink with a bound asserts it, and callers size messages first ([`Wire::size`]).
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink on the stack for messages of known size, so that the hot path allocates nothing.
#[derive(Debug)]
pub struct Fixed<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Fixed<N> {
    /// An empty one.
    pub fn new() -> Fixed<N> {
        Fixed { bytes: [0; N], filled: 0 }
    }

    /// What was put so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Fixed<N> {
        Fixed::new()
    }
}

impl<const N: usize> Sink for Fixed<N> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        assert!(end <= N, "a message of over {N} bytes was put into a buffer for {N}");
        self.bytes[self.filled..end].copy_from_slice(bytes);
        self.filled = end;
    }
}

struct Counter(usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The bytes of a body that are still to be decoded.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// The next `count` bytes.
    pub fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        let short = DecodeError::Short { what, need: count as u64, have: self.left.len() };
        let (taken, left) = self.left.split_at_checked(count).ok_or(short)?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let short = DecodeError::Short { what, need: N as u64, have: self.left.len() };
        let (taken, left) = self.left.split_first_chunk().ok_or(short)?;
        self.left = left;
        Ok(*taken)
    }
}

/// A value with a place on the wire.
pub trait Wire<'a>: Sized {
    /// Fewest bytes it can take; at least 1, so that a list's count can be checked against the bytes that are left.
    const MIN: usize;

    /// Appends the value.
    fn put(&self, out: &mut impl Sink);

    /// Takes the value off the front.
    fn take(from: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Bytes the value takes.
    fn size(&self) -> usize {
        let mut counter = Counter(0);
        self.put(&mut counter);
        counter.0
    }

    /// Decodes a body that holds this value and nothing else.
    fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let value = Self::take(&mut from)?;
        if from.left.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(from.left.len())) }
    }
}

macro_rules! number {
    ($($number:ident),*) => {$(
        impl<'a> Wire<'a> for $number {
            const MIN: usize = size_of::<$number>();
            fn put(&self, out: &mut impl Sink) {
                out.put(&self.to_le_bytes());
            }
            fn take(from: &mut Reader<'a>) -> Result<$number, DecodeError> {
                Ok($number::from_le_bytes(from.array(stringify!($number))?))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i32, i64);

/// No body.
impl<'a> Wire<'a> for () {
    const MIN: usize = 0;
    fn put(&self, _: &mut impl Sink) {}
    fn take(_: &mut Reader<'a>) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// 16 bytes in the order in which the text form shows them.
impl<'a> Wire<'a> for Uuid {
    const MIN: usize = 16;
    fn put(&self, out: &mut impl Sink) {
        out.put(self.as_bytes());
    }
    fn take(from: &mut Reader<'a>) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(from.array("uuid")?))
    }
}

/// One byte: 0 or 1.
impl<'a> Wire<'a> for bool {
    const MIN: usize = 1;
    fn put(&self, out: &mut impl Sink) {
        out.put(&[u8::from(*self)]);
    }
    fn take(from: &mut Reader<'a>) -> Result<bool, DecodeError> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::UnknownValue { what: "truth value", value: value.into() }),
        }
    }
}

/// A text short enough for the wire: u16 length in bytes, then UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Wraps a text of at most [`TEXT_BYTES_MAX`] bytes.
    pub fn new(text: &'a str) -> Result<Text<'a>, DecodeError> {
        if text.len() > TEXT_BYTES_MAX { Err(DecodeError::TextTooLong(text.len())) } else { Ok(Text(text)) }
    }

    /// Wraps as much of a text as fits: for messages to people, never for names.
    pub fn truncated(text: &'a str) -> Text<'a> {
        Text(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a> Wire<'a> for Text<'a> {
    const MIN: usize = 2;
    fn put(&self, out: &mut impl Sink) {
        // `new` and `truncated` are the only ways to make one, and both keep it far below 65,536.
        (self.0.len() as u16).put(out);
        out.put(self.0.as_bytes());
    }
    fn take(from: &mut Reader<'a>) -> Result<Text<'a>, DecodeError> {
        let length = usize::from(u16::take(from)?);
        if length > TEXT_BYTES_MAX {
            return Err(DecodeError::TextTooLong(length));
        }
        let bytes = from.take("text", length)?;
        Ok(Text(std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)?))
    }
}

/// A list: u32 count, then the elements. Holds the caller's elements, or the bytes of a frame that hold them.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Elements<'a, T>);

#[derive(Clone, Copy)]
enum Elements<'a, T> {
    Given(&'a [T]),
    /// `bytes` were decoded once from end to end, so decoding them again cannot fail.
    Encoded {
        count: u32,
        bytes: &'a [u8],
    },
}

impl<'a, T: Wire<'a> + Copy> List<'a, T> {
    /// A list of these elements.
    pub fn of(elements: &'a [T]) -> List<'a, T> {
        List(Elements::Given(elements))
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        match self.0 {
            Elements::Given(elements) => elements.len(),
            Elements::Encoded { count, .. } => count as usize,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let (given, encoded) = match self.0 {
            Elements::Given(elements) => (elements, Reader::new(&[])),
            Elements::Encoded { bytes, .. } => (&[][..], Reader::new(bytes)),
        };
        let mut encoded = encoded;
        let decoded =
            std::iter::from_fn(move || if encoded.left.is_empty() { None } else { T::take(&mut encoded).ok() });
        given.iter().copied().chain(decoded)
    }
}

impl<'a, T: Wire<'a> + Copy> Default for List<'a, T> {
    fn default() -> List<'a, T> {
        List::of(&[])
    }
}

impl<'a, T: Wire<'a> + Copy + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &List<'a, T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Wire<'a> + Copy + Eq> Eq for List<'a, T> {}

impl<'a, T: Wire<'a> + Copy + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Wire<'a> + Copy> Wire<'a> for List<'a, T> {
    const MIN: usize = 4;

    fn put(&self, out: &mut impl Sink) {
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        assert!(count < u32::MAX, "a list this long fits into no frame");
        count.put(out);
        match self.0 {
            Elements::Given(elements) => elements.iter().for_each(|element| element.put(out)),
            Elements::Encoded { bytes, .. } => out.put(bytes),
        }
    }

    fn take(from: &mut Reader<'a>) -> Result<List<'a, T>, DecodeError> {
        const { assert!(T::MIN > 0, "a count of elements of no bytes could not be bounded by the bytes that are left") };
        let count = u32::take(from)?;
        let need = u64::from(count) * T::MIN as u64;
        if need > from.left.len() as u64 {
            return Err(DecodeError::Short { what: "list", need, have: from.left.len() });
        }
        let start = from.left;
        for _ in 0..count {
            T::take(from)?;
        }
        Ok(List(Elements::Encoded { count, bytes: &start[..start.len() - from.left.len()] }))
    }
}

/// Declares a message: a struct whose fields follow each other on the wire in the order in which they are written.
macro_rules! message {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name { $($(#[$field_about])* pub $field: $kind,)* }
        impl<'w> $crate::codec::Wire<'w> for $name {
            $crate::codec::message!(@body 'w $($field: $kind,)*);
        }
    };
    ($(#[$about:meta])* pub struct $name:ident<$life:lifetime> {
        $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<$life> { $($(#[$field_about])* pub $field: $kind,)* }
        impl<$life> $crate::codec::Wire<$life> for $name<$life> {
            $crate::codec::message!(@body $life $($field: $kind,)*);
        }
    };
    (@body $life:lifetime $($field:ident: $kind:ty,)*) => {
        const MIN: usize = 0 $(+ <$kind as $crate::codec::Wire<$life>>::MIN)*;
        fn put(&self, out: &mut impl $crate::codec::Sink) {
            $($crate::codec::Wire::put(&self.$field, out);)*
        }
        fn take(from: &mut $crate::codec::Reader<$life>) -> Result<Self, $crate::codec::DecodeError> {
            Ok(Self { $($field: $crate::codec::Wire::take(from)?,)* })
        }
    };
}
pub(crate) use message;
