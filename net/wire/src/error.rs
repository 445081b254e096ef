//! The body of every frame whose status is not 0.

use crate::codec::{DecodeError, Reader, Sink, Text, Wire, message};

message! {
    /// Why it failed: numbers for programs, a sentence for people.
    pub struct Failure<'a> {
        /// Numbers that go with the status.
        pub detail: Detail,
        /// One sentence; may be empty. Not to be parsed.
        pub message: Text<'a>,
    }
}

/// Numbers that go with a status: kind u8, length u8, then `length` bytes, so that an unknown kind can be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Kind 0: none.
    None,
    /// Kind 1: the offsets a partition holds.
    Range {
        /// The first.
        first: i64,
        /// The one after the last; the next record gets it.
        next: i64,
    },
    /// Kind 2: what was passed over which limit.
    Limit {
        /// What it would have been; unit by status.
        actual: u64,
        /// What is allowed.
        max: u64,
    },
    /// Kind 3: a good time to wait before another try.
    RetryAfter {
        /// Milliseconds.
        ms: u32,
    },
    /// Kind 4: the versions the server speaks.
    Versions {
        /// The lowest.
        min: u16,
        /// The highest.
        max: u16,
    },
    /// A kind this program does not know; its bytes were skipped.
    Unknown {
        /// The kind.
        kind: u8,
    },
}

impl<'a> Wire<'a> for Detail {
    const MIN: usize = 2;

    fn put(&self, out: &mut impl Sink) {
        match self {
            Detail::None => out.put(&[0, 0]),
            Detail::Range { first, next } => put_pair(out, 1, first, next),
            Detail::Limit { actual, max } => put_pair(out, 2, actual, max),
            Detail::RetryAfter { ms } => {
                out.put(&[3, 4]);
                ms.put(out);
            }
            Detail::Versions { min, max } => put_pair(out, 4, min, max),
            Detail::Unknown { kind } => out.put(&[*kind, 0]),
        }
    }

    fn take(from: &mut Reader<'a>) -> Result<Detail, DecodeError> {
        let kind = u8::take(from)?;
        let length = u8::take(from)?;
        let body = from.take("detail", usize::from(length))?;
        // A kind may get more numbers behind those known here, so what is left of it is skipped too.
        let mut body = Reader::new(body);
        let body = &mut body;
        Ok(match kind {
            0 => Detail::None,
            1 => Detail::Range { first: i64::take(body)?, next: i64::take(body)? },
            2 => Detail::Limit { actual: u64::take(body)?, max: u64::take(body)? },
            3 => Detail::RetryAfter { ms: u32::take(body)? },
            4 => Detail::Versions { min: u16::take(body)?, max: u16::take(body)? },
            kind => Detail::Unknown { kind },
        })
    }
}

fn put_pair<'a, T: Wire<'a>>(out: &mut impl Sink, kind: u8, first: &T, second: &T) {
    out.put(&[kind, 2 * T::MIN as u8]);
    first.put(out);
    second.put(out);
}
