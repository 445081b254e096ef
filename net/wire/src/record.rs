//! Record batches on their way in and out: produce, fetch, subscribe, push. Batches are in the record batch v2 format, as
//! they are stored.

use crate::codec::{DecodeError, Reader, Wire, message};

// The body of a produce is one or more batches and nothing else.

message! {
    /// Answer to a produce, sent when the records are as durable as the topic asks.
    pub struct Produced {
        /// Offset of the first record of the first batch.
        pub base: i64,
        /// Offset of the last record of the last batch.
        pub last: i64,
        /// The time the server gave to the records; -1 where they keep their own.
        pub log_append_time: i64,
    }
}

message! {
    /// Reads from an open partition.
    pub struct Fetch {
        /// Offset of the first record wanted.
        pub offset: i64,
        /// Most bytes of batches; the first batch comes even if it is larger.
        pub bytes_max: u32,
        /// Wait until there are this many bytes; 0 and 1 wait for the first batch.
        pub bytes_min: u32,
        /// Wait no longer than this, milliseconds; 0 answers at once.
        pub wait_ms: u32,
    }
}

message! {
    /// Start of the body of a fetch's response and of a push; batches follow.
    pub struct Records {
        /// Readers see records below it.
        pub high_watermark: i64,
        /// First offset the partition holds.
        pub first: i64,
        /// Where to read on: the offset after the last record here, or the one asked for if there are none.
        pub next: i64,
    }
}

/// Bytes of [`Records`] on the wire.
pub const RECORDS_BYTES: usize = 24;

/// What a fetch's response or a push holds. The first batch may begin before the offset asked for: batches are whole, and
/// the reader skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches<'a> {
    /// Where the partition is.
    pub records: Records,
    /// Whole batches, one after another; may be empty.
    pub bytes: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Decodes a body.
    pub fn decode(body: &'a [u8]) -> Result<Batches<'a>, DecodeError> {
        let mut from = Reader::new(body);
        let records = Records::take(&mut from)?;
        Ok(Batches { records, bytes: from.rest() })
    }
}

message! {
    /// Has an open partition pushed as it grows; the response's header holds the subscription.
    pub struct Subscribe {
        /// Offset of the first record wanted.
        pub offset: i64,
        /// Bytes of batches that may be pushed before more credit comes.
        pub credit: u32,
        /// Most bytes of batches in one push; the first batch comes even if it is larger.
        pub bytes_max: u32,
    }
}

message! {
    /// Answer to a subscribe; the first push comes after it.
    pub struct Subscribed {
        /// First offset the partition holds.
        pub first: i64,
        /// Readers see records below it.
        pub high_watermark: i64,
    }
}

message! {
    /// Allows more to be pushed. Answered only if it fails.
    pub struct Credit {
        /// Bytes of batches to add. A push takes off the bytes of its batches; one may go below zero, none begins there.
        pub bytes: u32,
    }
}
