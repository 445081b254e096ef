//! Record batch v2: build, validate, iterate.
//!
//! One format on the wire, in memory and on disk: Apache Kafka's record batch with magic 2, as its protocol guide
//! publishes it under "Record Batch". A server takes a body of [`batches`], calls [`validate`] on each, overwrites the
//! leading [`STAMPED_BYTES`] of each with its offset and leader epoch, and stores the bytes as they are. A client builds
//! with [`BatchBuilder`] and reads with [`BatchView::records`].
//!
//! Nothing here does I/O, and nothing allocates on a declared length.
#![forbid(unsafe_code)]

mod builder;
mod codec;
#[cfg(feature = "codecs")]
mod encode;
mod error;
mod filter;
mod header;
mod record;
#[cfg(feature = "codecs")]
mod unpack;
mod validate;
mod varint;

pub use builder::{AppendRefused, BatchBuilder};
pub use codec::{Codec, UnknownCodecName};
pub use error::BatchError;
pub use filter::{Rebuild, Rebuilt, empty, extend};
pub use header::{BatchView, HEADER_BYTES, LENGTH_PREFIX_BYTES, STAMPED_BYTES, frame_length, number, stamp};
pub use record::{Header, Headers, Record, Records};
#[cfg(feature = "codecs")]
pub use unpack::{Repack, Unpacker};
pub use validate::{BatchSummary, Batches, Limits, batches, validate};

/// CRC-32C (Castagnoli) of `bytes`, as batches carry it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The same of pieces that follow one another.
fn crc32c_of(pieces: [&[u8]; 2]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    pieces.iter().for_each(|piece| digest.update(piece));
    digest.finalize() as u32
}

/// "No timestamp", "no producer id", "no sequence": the format's word for absent.
pub(crate) const NONE: i64 = -1;
