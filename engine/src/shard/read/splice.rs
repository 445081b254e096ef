//! What lies behind the tail as pieces of files, which get from the page cache to the reader's socket without passing through
//! memory of ours.
//!
//! Nothing looks into such a piece on its way, so it runs between places where a batch is known to begin: where the reader
//! left off, an entry of the segment's index, the segment's end. What the reader is sent first is read directly, and so are
//! checked: a client that finds damage in a piece and asks again is told by the server what is damaged.

use super::lookup::on_disk_end;
use super::{Cursor, Read};
use crate::error::ReadError;
use crate::limits::PIPES_MAX;
use crate::log::index::SparseIndex;
use crate::log::paths::{self, SegmentName};
use crate::log::tail::{Place, block_floor};
use crate::model::{Offset, Position};
use crate::reactor::{File, FileRange, Open, Outgoing, Pipe};
use crate::shard::pace::Rank;
use crate::shard::partition::{Partition, Sealed};
use crate::shard::{PartitionHandle, Shard, count};

/// How what is no longer in memory gets to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FetchPath {
    /// Read past the page cache into memory, checked, and sent from there.
    #[default]
    Direct,
    /// From the page cache to the socket in the kernel, where batches are known to begin and end.
    Splice,
}

impl FetchPath {
    /// All of them.
    pub const ALL: [FetchPath; 2] = [FetchPath::Direct, FetchPath::Splice];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            FetchPath::Direct => "direct",
            FetchPath::Splice => "splice",
        }
    }
}

/// What a reader who goes through a segment needs for it.
#[derive(Debug)]
pub(super) struct Splicing {
    segment: SegmentName,
    /// Of a segment that was sealed.
    index: Option<SparseIndex>,
    file: File,
    pipe: Pipe,
}

impl Shard {
    /// Like [`Shard::read_disk`], for who only sends what he gets: it may be a piece of a file.
    ///
    /// # Errors
    /// As [`Shard::read_disk`]. What cannot be read of a piece of a file fails the send.
    pub async fn read_to_send(
        &self,
        handle: PartitionHandle,
        from: Offset,
        max_bytes: usize,
        cursor: &mut Cursor,
        out: &mut Outgoing,
    ) -> Result<Read, ReadError> {
        if self.0.config.fetch_path == FetchPath::Splice {
            match self.read(handle, from, max_bytes, cursor, out)? {
                Read::OnDisk => {}
                read => return Ok(read),
            }
            if let Some(read) = self.splice(handle, from, max_bytes, cursor, out).await {
                return Ok(read);
            }
        }
        self.read_disk(handle, from, max_bytes, cursor, out).await
    }

    /// Adds a piece of a file that begins at `from`, if there is one of at most `max_bytes`. What stands in the way is not told:
    /// a direct read meets it too.
    async fn splice(
        &self,
        handle: PartitionHandle,
        from: Offset,
        max_bytes: usize,
        cursor: &mut Cursor,
        out: &mut Outgoing,
    ) -> Option<Read> {
        // Who is read ahead for has it already.
        if self.has_failed() || cursor.ahead.is_some() {
            return None;
        }
        let start = self.goes_on_at(handle, from, cursor)?;
        let segment = self.sealed(handle, start.segment).map_or(start.segment.into(), |sealed| sealed.name());
        if cursor.splicing.as_ref().is_none_or(|splicing| splicing.segment != segment) {
            let pipe = cursor.splicing.take().map(|splicing| splicing.pipe);
            cursor.splicing = Some(Box::new(self.begin_splicing(handle, segment, pipe).await?));
        }
        let splicing = cursor.splicing.as_mut()?;
        if splicing.index.is_none()
            && let Some(sealed) = self.sealed(handle, start.segment).filter(|sealed| sealed.name() == segment)
        {
            splicing.index = Some(self.sealed_index(handle, &sealed).await.ok()?);
        }
        // A turn beside commits is waited for only where it is enough for a piece.
        let turn = self.0.pace.turn_bytes(self.reactor().now()).unwrap_or(max_bytes).min(max_bytes);
        self.piece(handle, splicing, start.position, turn)?;
        let leave = self.leave(Rank::Reader, turn).await.bytes;
        let (next, end, high_watermark) = self.piece(handle, splicing, start.position, leave)?;
        let length = (end.0 - start.position.0) as usize;
        let (file, pipe) = (splicing.file.clone(), splicing.pipe.clone());
        out.push_range(FileRange { file, pipe, position: start.position.0, length });
        cursor.at = Some((next, Place { segment: start.segment, position: end }));
        cursor.window = None;
        count(&self.0.counters.read_bytes, length as u64);
        count(&self.0.counters.read_splice_bytes, length as u64);
        Some(Read::Data { bytes: length, next, high_watermark })
    }

    /// Where the batch that begins at `from` lies, if the reader has just read what is before it.
    fn goes_on_at(&self, handle: PartitionHandle, from: Offset, cursor: &Cursor) -> Option<Place> {
        let (_, place) = cursor.at.filter(|(offset, _)| *offset == from)?;
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle)?;
        let sealed = partition.sealed.get(partition.sealed.partition_point(|sealed| sealed.next <= from));
        let segment = sealed.map(|sealed| sealed.base).or(partition.active.as_ref().map(|active| active.base))?;
        match segment {
            _ if segment == place.segment => Some(place),
            // The one before ended there.
            _ if segment == from => Some(Place { segment, position: Position(0) }),
            _ => None,
        }
    }

    fn sealed(&self, handle: PartitionHandle, segment: Offset) -> Option<Sealed> {
        let partitions = self.0.partitions.borrow();
        partitions.get(handle)?.sealed.iter().find(|sealed| sealed.base == segment).cloned()
    }

    /// Where a piece of at most `max_bytes` ends, the offset there, and up to which offset records are shown to readers.
    fn piece(
        &self,
        handle: PartitionHandle,
        splicing: &Splicing,
        from: Position,
        max_bytes: usize,
    ) -> Option<(Offset, Position, Offset)> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle)?;
        let (next, end) = splicing.cut(partition, from, max_bytes)?;
        Some((next, end, partition.visible))
    }

    async fn begin_splicing(
        &self,
        handle: PartitionHandle,
        segment: SegmentName,
        pipe: Option<Pipe>,
    ) -> Option<Splicing> {
        // Where files are not written past the page cache, what is in a socket could be written over.
        if !self.segment_file(handle, segment).await.ok()??.direct() {
            return None;
        }
        // Before the file is opened: from now on no segment's file is written again.
        let pipe = match pipe {
            Some(pipe) => pipe,
            None if self.reactor().counters().pipes.get() >= PIPES_MAX => return None,
            None => self.reactor().pipe().await.ok()?,
        };
        let path = paths::segment(&self.0.config.data_dir, self.id_of(handle)?, segment);
        let file = self.reactor().open(&path, Open::ReadCached).await.ok()?;
        Some(Splicing { segment, index: None, file, pipe })
    }
}

impl Splicing {
    /// The last place up to which whole batches of at most `max_bytes` are on disk and shown to readers, and the offset there.
    fn cut(&self, partition: &Partition, from: Position, max_bytes: usize) -> Option<(Offset, Position)> {
        let sealed = partition.sealed.iter().find(|sealed| sealed.name() == self.segment);
        let active = partition.active.as_ref().filter(|active| SegmentName::from(active.base) == self.segment);
        // Of a file that was written anew nothing more is sent.
        let on_disk = match (sealed, active) {
            (None, None) => return None,
            _ => on_disk_end(partition, self.segment.base, sealed),
        };
        // A block that is to be filled up is written again, and may be torn until the log is opened anew.
        let is_whole = sealed.is_some_and(|sealed| sealed.bytes == on_disk);
        let on_disk = if is_whole { on_disk } else { block_floor(on_disk) };
        let to = on_disk.min(from.plus(max_bytes as u64));
        let fits = |(offset, position): &(Offset, Position)| {
            from < *position && *position <= to && *offset <= partition.visible
        };
        let index = self.index.as_ref().or(active.map(|active| &active.index))?;
        let entries = index.entries();
        let last = entries[..entries.partition_point(|entry| entry.position <= to)].last();
        let at_end = sealed.map(|sealed| (sealed.next, sealed.bytes)).filter(fits);
        at_end.or(last.map(|entry| (entry.offset, entry.position)).filter(fits))
    }
}
