//! Journal entries: one per commit, for all partitions of a shard.
//!
//! The journal is a circular file of fixed size. Positions in it are logical and only grow; the byte in the file is the
//! position modulo the file's size, and an entry may wrap around the end. An entry is a [`frame`](super::frame).

use super::BLOCK;
use super::fields::{Fields, PRODUCED_BYTES, Put, check_produced, checked, rule};
use super::frame::{self, Frame, RawSection, SECTION_HEADER_BYTES, Writer};
use crate::model::{LeaderEpoch, Offset, PartitionId, Position, Timestamp};
use crate::producer::Produced;

pub use super::frame::{Checksum, Fault as EntryFault, Finished, Full, Nonce, Sequence};

/// Logical byte position in the journal; multiples of [`BLOCK`] that only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct JournalPosition(pub u64);

impl JournalPosition {
    /// The position `bytes` further on.
    pub fn plus(self, bytes: u64) -> JournalPosition {
        JournalPosition(self.0 + bytes)
    }
}

const ENTRY: frame::Kind = frame::Kind { magic: *b"CLJE", version: 1 };

const APPEND: u8 = 1;
const TRUNCATE: u8 = 2;
const START: u8 = 3;
const EPOCH: u8 = 4;
const HIGH_WATERMARK: u8 = 5;
const PRODUCED: u8 = 6;
/// Of every kind there is one version so far.
const VERSION: u8 = 1;

const APPEND_BYTES: usize = 80;
const TRUNCATE_BYTES: usize = 44;
const START_BYTES: usize = 28;
const EPOCH_BYTES: usize = 32;
const HIGH_WATERMARK_BYTES: usize = 28;
const PRODUCED_FIXED_BYTES: usize = 20;

/// Batches of producers that one section names at most.
pub const PRODUCED_MAX: usize = 128;

/// Bytes in an entry of a section that names so many batches of producers; none if there are none.
pub const fn produced_len(batches: usize) -> usize {
    if batches == 0 { 0 } else { SECTION_HEADER_BYTES + PRODUCED_FIXED_BYTES + batches * PRODUCED_BYTES }
}

/// What the committer says of an entry before it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// Of the journal.
    pub nonce: Nonce,
    /// Of this entry; the first has 1.
    pub sequence: Sequence,
    /// Where the entry begins.
    pub position: JournalPosition,
    /// Checksum of the entry before; zero before the first.
    pub previous: Checksum,
    /// The highest sequence known durable when the entry was built; 0 for none. Tells damaged from torn at recovery.
    pub durable: Sequence,
}

/// What recovery knows of the entry that must come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Of the journal.
    pub nonce: Nonce,
    /// Of the entry.
    pub sequence: Sequence,
    /// Where it begins.
    pub position: JournalPosition,
    /// Checksum of the entry before it.
    pub previous: Checksum,
}

/// An entry recognised by its header alone: its body may be torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// What it says of itself.
    pub header: EntryHeader,
    /// Bytes of the whole entry: whole blocks, at most [`frame::FRAME_BYTES_LIMIT`].
    pub length: usize,
    /// Of the whole entry.
    pub checksum: Checksum,
}

/// New batches of one partition: `start..end` of one of its segments.
///
/// The entry carries `inline_from..direct_from` and `direct_to..end`; what lies between was written to the segment
/// itself before the entry's flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendSection {
    /// Whose.
    pub partition: PartitionId,
    /// Which of its segments.
    pub segment_base: Offset,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// Where the bytes in the entry begin: `start`, or the beginning of the block that `start` lies in. A partly filled
    /// block that is about to be written again in place is carried from its beginning, so that the entry is a copy of it.
    pub inline_from: Position,
    /// Where the new batches begin.
    pub start: Position,
    /// Where the bytes that went to the segment directly begin; `end` if none did. Block-aligned if any did.
    pub direct_from: Position,
    /// Where they end; `end` if none did. Block-aligned if any did.
    pub direct_to: Position,
    /// Where the new batches end.
    pub end: Position,
    /// The highest leader epoch of the batches.
    pub leader_epoch: LeaderEpoch,
    /// The highest timestamp of the batches.
    pub max_timestamp: Timestamp,
    /// CRC32C of `direct_from..direct_to` of the segment; zero if empty.
    pub direct_crc: u32,
}

impl AppendSection {
    /// Bytes of the area in the entry.
    pub fn inline_len(&self) -> usize {
        (self.head_len() + (self.end.0 - self.direct_to.0)) as usize
    }

    /// Bytes of the section in an entry, its header and its area included.
    pub fn section_len(&self) -> usize {
        SECTION_HEADER_BYTES + APPEND_BYTES + self.inline_len()
    }

    /// Nothing went to the segment directly.
    pub fn is_inline(&self) -> bool {
        self.direct_from == self.direct_to
    }

    /// Splits the area into `inline_from..direct_from` and `direct_to..end`.
    pub fn split<'a>(&self, inline: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        inline.split_at(self.head_len() as usize)
    }

    fn head_len(&self) -> u64 {
        self.direct_from.0 - self.inline_from.0
    }

    /// The rules that hold on both sides of the disk.
    fn check(&self) -> Result<(), &'static str> {
        let block = BLOCK as u64;
        let aligned = |position: Position| position.0.is_multiple_of(block);
        rule(Offset(0) <= self.segment_base, "an append's segment has a negative base")?;
        rule(self.segment_base <= self.base_offset, "an append lies before its segment")?;
        rule(self.base_offset <= self.last_offset, "an append's last offset is before its first")?;
        rule(self.last_offset.0 - self.base_offset.0 <= i64::from(u32::MAX), "an append has too many offsets")?;
        rule(self.inline_from <= self.start, "an append's bytes begin behind its batches")?;
        rule(
            self.inline_from == self.start || (aligned(self.inline_from) && self.start.0 - self.inline_from.0 < block),
            "an append's bytes begin neither with its batches nor with their block",
        )?;
        rule(self.start < self.end, "an append is empty")?;
        rule(self.end.0 - self.inline_from.0 <= u64::from(u32::MAX), "an append is too long")?;
        rule(
            self.start <= self.direct_from && self.direct_from <= self.direct_to && self.direct_to <= self.end,
            "an append's direct range lies outside it",
        )?;
        let empty = self.direct_from == self.end && self.direct_to == self.end && self.direct_crc == 0;
        let whole = self.direct_from < self.direct_to && aligned(self.direct_from) && aligned(self.direct_to);
        rule(empty || whole, "an append's direct range is neither empty nor whole blocks")
    }

    /// Positions are stored as lengths, so that those that would break the order cannot be written down.
    fn put(&self, into: &mut [u8]) {
        Put::into(into)
            .partition(self.partition)
            .leader_epoch(self.leader_epoch)
            .offset(self.segment_base)
            .offset(self.base_offset)
            .u32((self.last_offset.0 - self.base_offset.0) as u32)
            .u32(self.direct_crc)
            .timestamp(self.max_timestamp)
            .position(self.inline_from)
            .u32((self.start.0 - self.inline_from.0) as u32)
            .u32((self.direct_from.0 - self.start.0) as u32)
            .u32((self.direct_to.0 - self.direct_from.0) as u32)
            .u32((self.end.0 - self.direct_to.0) as u32);
    }

    fn take(content: &[u8]) -> Option<(Self, &[u8])> {
        let mut fields = Fields::of(content);
        let (partition, leader_epoch) = (fields.partition()?, fields.leader_epoch()?);
        let (segment_base, base_offset) = (fields.offset()?, fields.offset()?);
        let last_offset = Offset(base_offset.0.checked_add(i64::from(fields.u32()?))?);
        let (direct_crc, max_timestamp) = (fields.u32()?, fields.timestamp()?);
        let inline_from = fields.position()?;
        let mut further = |from: Position| Some(Position(from.0.checked_add(u64::from(fields.u32()?))?));
        let start = further(inline_from)?;
        let direct_from = further(start)?;
        let direct_to = further(direct_from)?;
        let end = further(direct_to)?;
        let append = AppendSection {
            partition,
            segment_base,
            base_offset,
            last_offset,
            inline_from,
            start,
            direct_from,
            direct_to,
            end,
            leader_epoch,
            max_timestamp,
            direct_crc,
        };
        Some((append, fields.rest()))
    }
}

/// The partition ends at `to`: what it had from there on is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate {
    /// Whose.
    pub partition: PartitionId,
    /// The new next offset.
    pub to: Offset,
    /// The segment that is now the active one.
    pub segment_base: Offset,
    /// Where in it the log now ends.
    pub position: Position,
}

/// The partition begins at `first`: records before it were deleted or outlived their retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Whose.
    pub partition: PartitionId,
    /// The new first offset.
    pub first: Offset,
}

/// A leader epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Whose.
    pub partition: PartitionId,
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first record.
    pub start: Offset,
}

/// The high watermark has moved to `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighWatermark {
    /// Whose.
    pub partition: PartitionId,
    /// First offset that is not yet committed on enough replicas.
    pub offset: Offset,
}

/// One thing that an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section<'a> {
    /// New batches, and those of their bytes that the entry carries.
    Append {
        /// What was appended.
        append: AppendSection,
        /// `inline_from..direct_from` and `direct_to..end`, one after the other; see [`AppendSection::split`].
        inline: &'a [u8],
    },
    /// The end moved back.
    Truncate(Truncate),
    /// The beginning moved on.
    Start(Start),
    /// An epoch began.
    Epoch(Epoch),
    /// The high watermark moved.
    HighWatermark(HighWatermark),
    /// Which of the batches that were appended are of producers that number them.
    Produced(ProducedSection<'a>),
}

/// Batches of producers in one partition, whose append the same entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedSection<'a> {
    /// Whose.
    pub partition: PartitionId,
    batches: &'a [u8],
}

impl<'a> ProducedSection<'a> {
    /// The batches, in the order of their offsets.
    pub fn batches(&self) -> impl Iterator<Item = Produced> + use<'a> {
        // `take` has read each of them, so none is left out here.
        self.batches.chunks_exact(PRODUCED_BYTES).filter_map(|batch| Fields::of(batch).produced())
    }

    fn take(content: &'a [u8]) -> Result<Self, &'static str> {
        let mut fields = Fields::of(content);
        let partition = fields.partition().ok_or("a section is too short")?;
        let section = ProducedSection { partition, batches: fields.rest() };
        let is_whole = !section.batches.is_empty() && section.batches.len().is_multiple_of(PRODUCED_BYTES);
        rule(is_whole, "a producer's batch is cut short")?;
        for batch in section.batches.chunks_exact(PRODUCED_BYTES) {
            check_produced(&Fields::of(batch).produced().ok_or("a producer's batch cannot be")?)?;
        }
        Ok(section)
    }
}

/// Builds one entry in a caller's buffer, which bounds it.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    frame: Writer<'a>,
}

impl<'a> EntryWriter<'a> {
    /// `out` must hold at least a block; of more, only whole blocks are used.
    pub fn new(out: &'a mut [u8], header: EntryHeader) -> Self {
        let EntryHeader { nonce, sequence, position, previous, durable } = header;
        assert!(durable < sequence, "an entry cannot be durable before it is written");
        let header = frame::Header { nonce, sequence, position: position.0, durable, previous };
        EntryWriter { frame: Writer::new(ENTRY, out, header) }
    }

    /// Bytes left, section headers included; see [`AppendSection::section_len`].
    pub fn room(&self) -> usize {
        self.frame.room()
    }

    /// Nothing has been said yet.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Bytes the entry would have if it were finished now.
    pub fn length(&self) -> usize {
        self.frame.length()
    }

    /// Adds new batches; the caller fills the returned area of [`AppendSection::inline_len`] bytes, all of it.
    pub fn append(&mut self, append: &AppendSection) -> Result<&mut [u8], Full> {
        checked(append.check());
        let content = self.frame.section(APPEND, VERSION, APPEND_BYTES + append.inline_len())?;
        let (fixed, area) = content.split_at_mut(APPEND_BYTES);
        append.put(fixed);
        Ok(area)
    }

    /// Says that a partition was cut off at its end.
    pub fn truncate(&mut self, cut: &Truncate) -> Result<(), Full> {
        checked(cut.check());
        let content = self.frame.section(TRUNCATE, VERSION, TRUNCATE_BYTES)?;
        Put::into(content).partition(cut.partition).offset(cut.to).offset(cut.segment_base).position(cut.position);
        Ok(())
    }

    /// Says that a partition begins later.
    pub fn start(&mut self, start: &Start) -> Result<(), Full> {
        checked(start.check());
        let content = self.frame.section(START, VERSION, START_BYTES)?;
        Put::into(content).partition(start.partition).offset(start.first);
        Ok(())
    }

    /// Says that an epoch begins.
    pub fn epoch(&mut self, epoch: &Epoch) -> Result<(), Full> {
        checked(epoch.check());
        let content = self.frame.section(EPOCH, VERSION, EPOCH_BYTES)?;
        Put::into(content).partition(epoch.partition).leader_epoch(epoch.epoch).offset(epoch.start);
        Ok(())
    }

    /// Says where the high watermark is.
    pub fn high_watermark(&mut self, mark: &HighWatermark) -> Result<(), Full> {
        checked(mark.check());
        let content = self.frame.section(HIGH_WATERMARK, VERSION, HIGH_WATERMARK_BYTES)?;
        Put::into(content).partition(mark.partition).offset(mark.offset);
        Ok(())
    }

    /// Names batches of producers; none for none.
    pub fn produced(
        &mut self,
        partition: PartitionId,
        batches: impl ExactSizeIterator<Item = Produced>,
    ) -> Result<(), Full> {
        if batches.len() == 0 {
            return Ok(());
        }
        let content_len = produced_len(batches.len()) - SECTION_HEADER_BYTES;
        let content = self.frame.section(PRODUCED, VERSION, content_len)?;
        let mut put = Put::into(content).partition(partition);
        for batch in batches {
            checked(check_produced(&batch));
            put = put.produced(&batch);
        }
        Ok(())
    }

    /// Pads with zeros to whole blocks and seals.
    pub fn finish(self) -> Finished {
        self.frame.finish()
    }
}

impl Truncate {
    fn check(&self) -> Result<(), &'static str> {
        rule(
            Offset(0) <= self.segment_base && self.segment_base <= self.to,
            "a truncation's offset lies before its segment",
        )
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Truncate {
            partition: fields.partition()?,
            to: fields.offset()?,
            segment_base: fields.offset()?,
            position: fields.position()?,
        })
    }
}

impl Start {
    fn check(&self) -> Result<(), &'static str> {
        rule(Offset(0) <= self.first, "a first offset is negative")
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Start { partition: fields.partition()?, first: fields.offset()? })
    }
}

impl Epoch {
    fn check(&self) -> Result<(), &'static str> {
        rule(LeaderEpoch(0) <= self.epoch && Offset(0) <= self.start, "an epoch or its start is negative")
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Epoch { partition: fields.partition()?, epoch: fields.leader_epoch()?, start: fields.offset()? })
    }
}

impl HighWatermark {
    fn check(&self) -> Result<(), &'static str> {
        rule(Offset(0) <= self.offset, "a high watermark is negative")
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(HighWatermark { partition: fields.partition()?, offset: fields.offset()? })
    }
}

/// An entry whose every byte and section verified.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its header, length and checksum.
    pub head: EntryHead,
    frame: Frame<'a>,
}

impl<'a> Entry<'a> {
    /// What it says, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        // `parse` has read each of them, so none is left out here.
        self.frame.sections().map_while(|raw| read_section(raw).ok())
    }

    /// What must come next.
    pub fn next(&self) -> Expected {
        let header = self.head.header;
        Expected {
            nonce: header.nonce,
            sequence: header.sequence.next(),
            position: header.position.plus(self.head.length as u64),
            previous: self.head.checksum,
        }
    }
}

/// Recognises an entry by its first block alone.
pub fn peek(block: &[u8]) -> Option<EntryHead> {
    inspect(block).ok()
}

/// As [`peek`], with the reason why not.
pub fn inspect(block: &[u8]) -> Result<EntryHead, EntryFault> {
    frame::head(ENTRY, block).map(entry_head)
}

/// Reads the entry at the front of `bytes`, which must be the expected one. [`EntryFault::Short`] says how many bytes it
/// needs; its header is then already known to be the expected one.
pub fn parse<'a>(bytes: &'a [u8], expected: &Expected) -> Result<Entry<'a>, EntryFault> {
    let Expected { nonce, sequence, position, previous } = *expected;
    let frame = frame::parse(ENTRY, bytes, &frame::Expected { nonce, sequence, position: position.0, previous })?;
    for raw in frame.sections() {
        read_section(raw)?;
    }
    Ok(Entry { head: entry_head(frame.head), frame })
}

/// Whether an entry was begun where the expected one cannot be read for this fault, so that it was torn, or is damaged. Else
/// there are zeros, or any part of an earlier lap, and the journal ends before. `block` is what lies there.
pub fn is_begun(block: &[u8], expected: &Expected, fault: EntryFault) -> bool {
    match fault {
        EntryFault::HeaderChecksum | EntryFault::BodyChecksum | EntryFault::ChainBroken => true,
        // Its magic may be what is damaged: behind that, nothing but the entry itself has nonce and sequence there.
        EntryFault::NotAFrame => {
            let mut fields = Fields::of(block.get(8..).unwrap_or_default());
            (fields.u64(), fields.u64()) == (Some(expected.nonce.0), Some(expected.sequence.0))
        }
        _ => false,
    }
}

/// Where an entry was found that says what was durable when it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The later entry.
    pub head: EntryHead,
}

/// Bytes of entries that may follow each other without a flush; the last one may go over it. Then one is flushed whatever
/// its partitions ask, for an entry claims only what was flushed.
pub const fn unflushed_max(entry_bytes_max: usize) -> usize {
    2 * entry_bytes_max
}

/// How far behind the place where reading stopped a proof may lie: first come entries that were not flushed, the one
/// that stopped the reading among them, and the one whose flush covers them; then, with two commits in flight, its
/// successor. The one behind that was built after the flush.
pub const fn proof_window(entry_bytes_max: usize) -> usize {
    unflushed_max(entry_bytes_max) + 3 * entry_bytes_max + BLOCK
}

/// Tells damaged from torn: looks in `window`, the bytes that lie at `position` and on, for a later entry that claims the
/// `missing` one durable. `Some`: it was acknowledged, and is damaged. `None` in all of [`proof_window`]: nothing
/// says that it was, and it is cut off as torn. Windows may be tried piece by piece, in whole blocks.
pub fn proof_of_damage(window: &[u8], position: JournalPosition, missing: &Expected) -> Option<Proof> {
    frame::proof_of_durable(ENTRY, window, position.0, missing.nonce, missing.sequence)
        .map(|proof| Proof { head: entry_head(proof.head) })
}

fn entry_head(head: frame::Head) -> EntryHead {
    let frame::Header { nonce, sequence, position, durable, previous } = head.header;
    EntryHead {
        header: EntryHeader { nonce, sequence, position: JournalPosition(position), previous, durable },
        length: head.length,
        checksum: head.checksum,
    }
}

fn read_section(raw: RawSection<'_>) -> Result<Section<'_>, EntryFault> {
    let RawSection { at, kind, version, content } = raw;
    let malformed = |what| EntryFault::Malformed { at, what };
    if !(APPEND..=PRODUCED).contains(&kind) || version != VERSION {
        return Err(EntryFault::UnknownSection { kind, version, at });
    }
    match kind {
        APPEND => return read_append(content).map_err(malformed),
        PRODUCED => return ProducedSection::take(content).map(Section::Produced).map_err(malformed),
        _ => {}
    }
    let mut fields = Fields::of(content);
    let section = take_small(kind, &mut fields).ok_or(malformed("a section is too short"))?;
    rule(fields.rest().is_empty(), "a section is too long").map_err(malformed)?;
    check_small(&section).map_err(malformed)?;
    Ok(section)
}

fn read_append(content: &[u8]) -> Result<Section<'_>, &'static str> {
    let (append, inline) = AppendSection::take(content).ok_or("an append is too short or its numbers too large")?;
    append.check()?;
    rule(inline.len() == append.inline_len(), "an append's bytes are not as many as its positions say")?;
    Ok(Section::Append { append, inline })
}

fn take_small<'a>(kind: u8, fields: &mut Fields<'a>) -> Option<Section<'a>> {
    match kind {
        TRUNCATE => Truncate::take(fields).map(Section::Truncate),
        START => Start::take(fields).map(Section::Start),
        EPOCH => Epoch::take(fields).map(Section::Epoch),
        HIGH_WATERMARK => HighWatermark::take(fields).map(Section::HighWatermark),
        _ => None,
    }
}

fn check_small(section: &Section<'_>) -> Result<(), &'static str> {
    match section {
        Section::Append { append, .. } => append.check(),
        Section::Produced(_) => Ok(()),
        Section::Truncate(cut) => cut.check(),
        Section::Start(start) => start.check(),
        Section::Epoch(epoch) => epoch.check(),
        Section::HighWatermark(mark) => mark.check(),
    }
}

#[cfg(test)]
mod tests;
