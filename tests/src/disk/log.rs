//! The log of a disk: each write, flush and mark in the order in which the disk was asked. The format is that of the
//! kernel's dm-log-writes.

use super::{FS_BYTES, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Its name in the directory of a [`Disk`](super::Disk).
pub const FILE: &str = "log.img";
/// Bytes of a sector: what a disk writes whole or not at all.
pub const SECTOR: u64 = 512;
/// Bytes of a mark.
pub const MARK_BYTES: usize = SECTOR as usize;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One thing that the disk was asked.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Where on the disk, bytes.
    pub offset: u64,
    /// How many bytes were written; 0 for a flush alone.
    pub bytes: u64,
    flags: u64,
    /// Where in the log those bytes are.
    at: u64,
}

impl Entry {
    /// All writes before it are on stable storage.
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// It is on stable storage itself.
    pub fn is_forced(&self) -> bool {
        self.flags & FUA != 0
    }

    /// It is none of the file system's, but a mark.
    pub fn is_mark(&self) -> bool {
        self.bytes > 0 && self.offset >= FS_BYTES
    }
}

/// A complete log. Data stays in its file.
pub struct WriteLog {
    file: File,
    entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the entries' headers.
    pub fn open(path: &Path) -> Result<WriteLog> {
        let file = File::open(path)?;
        let mut entries = Vec::new();
        // A superblock comes first; it may be older than the last entries.
        let mut at = SECTOR;
        let mut header = [0; 32];
        loop {
            file.read_exact_at(&mut header, at)?;
            let [sector, sectors, flags, _] = words(&header);
            if (sector, sectors, flags) == (0, 0, 0) {
                return Ok(WriteLog { file, entries });
            }
            let bytes = if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
            entries.push(Entry { offset: sector * SECTOR, bytes, flags, at: at + SECTOR });
            at += SECTOR + bytes;
        }
    }

    /// What the disk was asked, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What an entry wrote.
    pub fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut data = vec![0; entry.bytes as usize];
        self.file.read_exact_at(&mut data, entry.at)?;
        Ok(data)
    }
}

fn words(header: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
