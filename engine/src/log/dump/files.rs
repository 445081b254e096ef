//! Files read in windows, so that memory does not grow with them.

use crate::log::BLOCK;
use crate::log::journal::{self, EntryFault, EntryHead, Expected, JournalPosition};
use crate::log::segment::{BatchRef, Stop, scan};
use crate::model::{LeaderEpoch, Offset, Position};
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of a segment is looked at in one piece.
const WINDOW_BYTES: usize = 4 << 20;

/// Reads up to `length` bytes; fewer only at the end of the file.
fn read_at(file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A circular journal, by logical positions.
pub(super) struct JournalFile {
    file: File,
    /// Whole blocks of it.
    pub(super) size: u64,
    /// All bytes of it.
    pub(super) length: u64,
}

impl JournalFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(JournalFile { file, size: length / BLOCK as u64 * BLOCK as u64, length })
    }

    /// `length` bytes from `position` on, around the end of the file, at most one lap.
    pub(super) fn bytes(&self, position: JournalPosition, length: usize) -> io::Result<Vec<u8>> {
        let length = length.min(usize::try_from(self.size).unwrap_or(usize::MAX));
        let at = position.0.checked_rem(self.size).unwrap_or(0);
        let first = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(length);
        let mut bytes = read_at(&self.file, at, first)?;
        bytes.extend(read_at(&self.file, 0, length - first)?);
        Ok(bytes)
    }

    /// The header that lies at `position`, if one does.
    pub(super) fn head(&self, position: JournalPosition) -> io::Result<Result<EntryHead, EntryFault>> {
        Ok(journal::inspect(&self.bytes(position, BLOCK)?))
    }

    /// The bytes of the entry that is expected next: whole if its header is what it should be.
    pub(super) fn entry(&self, expected: &Expected) -> io::Result<Vec<u8>> {
        let length = self.head(expected.position)?.map_or(BLOCK, |head| head.length);
        self.bytes(expected.position, length)
    }

    /// Looks one lap around from behind the missing entry's first block for one that claims it durable.
    pub(super) fn proof_of_damage(&self, missing: &Expected) -> io::Result<Option<journal::Proof>> {
        let mut passed = 0;
        while passed < self.size {
            let position = missing.position.plus(passed);
            let window = self.bytes(position, WINDOW_BYTES.min((self.size - passed) as usize))?;
            if let Some(proof) = journal::proof_of_damage(&window, position, missing) {
                return Ok(Some(proof));
            }
            passed += WINDOW_BYTES as u64;
        }
        Ok(None)
    }
}

/// What must be in a segment.
pub(super) struct Content {
    /// Base offset of its first batch.
    pub(super) base: Offset,
    /// Where its batches end; `None` if nobody knows.
    pub(super) end: Option<Position>,
    /// Leader epochs that its batches may have.
    pub(super) epochs: RangeInclusive<LeaderEpoch>,
}

/// Bytes that take the place of what a segment file has: the journal's, which are not in it yet or in part.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    pub(super) from: Position,
    pub(super) bytes: Vec<u8>,
}

/// A segment and what the journal adds to it.
pub(super) struct SegmentFile {
    file: File,
    pub(super) length: u64,
    overlays: Vec<Overlay>,
}

/// Where a walk through a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) position: Position,
    pub(super) next: Offset,
    pub(super) stop: Stop,
}

impl SegmentFile {
    pub(super) fn open(path: &Path, overlays: Vec<Overlay>) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(SegmentFile { file, length, overlays })
    }

    fn bytes(&self, position: Position, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = read_at(&self.file, position.0, length)?;
        for overlay in &self.overlays {
            self.lay_over(overlay, position, length, &mut bytes);
        }
        Ok(bytes)
    }

    fn lay_over(&self, overlay: &Overlay, position: Position, length: usize, bytes: &mut Vec<u8>) {
        let from = overlay.from.0.max(position.0);
        let to = (overlay.from.0 + overlay.bytes.len() as u64).min(position.0 + length as u64);
        if from >= to {
            return;
        }
        let (into, until) = ((from - position.0) as usize, (to - position.0) as usize);
        bytes.resize(bytes.len().max(until), 0);
        let source = (from - overlay.from.0) as usize;
        bytes[into..until].copy_from_slice(&overlay.bytes[source..source + (until - into)]);
    }

    /// Shows each batch with its bytes, in order, from the first for as long as they verify.
    pub(super) fn walk(
        &self,
        content: &Content,
        mut show: impl FnMut(BatchRef, &[u8]) -> io::Result<()>,
    ) -> io::Result<Walked> {
        let (mut position, mut next, mut epochs) = (Position(0), content.base, content.epochs.clone());
        let end = content.end.map_or(self.end(), |end| end.0.min(self.end()));
        let mut needs = WINDOW_BYTES;
        loop {
            let left = usize::try_from(end - position.0).unwrap_or(usize::MAX);
            let window = self.bytes(position, needs.min(left))?;
            let is_last = window.len() == left || window.len() < needs;
            let mut batches = scan(&window, position, next, epochs.clone());
            for batch in batches.by_ref() {
                let at = (batch.position.0 - position.0) as usize;
                show(batch, &window[at..at + batch.length])?;
                epochs = batch.leader_epoch..=*epochs.end();
            }
            let stop = batches.stop().unwrap_or(Stop::End);
            let advanced = batches.position() > position;
            (position, next) = (batches.position(), batches.next_offset());
            needs = match stop {
                Stop::Short { .. } | Stop::End | Stop::Zeros if advanced && !is_last => WINDOW_BYTES,
                Stop::Short { needs: more } if !is_last && more > needs => more,
                stop => return Ok(Walked { position, next, stop }),
            };
        }
    }

    /// Behind the last byte that there is.
    fn end(&self) -> u64 {
        let overlays = self.overlays.iter().map(|overlay| overlay.from.0 + overlay.bytes.len() as u64);
        overlays.fold(self.length, u64::max)
    }
}
