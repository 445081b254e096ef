//! What the log is on disk. The codecs here are pure: bytes in, values out, no I/O and no clock, so that every torn,
//! flipped or stale byte can be tried in a test. `docs/formats.md` has every byte in tables.

pub mod checkpoint;
pub mod compaction;
pub mod dump;
mod fields;
pub mod frame;
pub mod index;
pub mod journal;
pub mod paths;
pub mod recovery;
pub mod retention;
pub mod segment;
pub mod tail;
#[cfg(test)]
pub(crate) mod testing;

/// Unit of alignment of everything that is written: the logical block of direct I/O and, on the devices met so far, what
/// a power cut leaves either old or new in eight sectors of 512 bytes.
pub const BLOCK: usize = 4096;

/// `bytes` rounded up to whole blocks.
pub const fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}
