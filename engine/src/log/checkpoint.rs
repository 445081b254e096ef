//! Checkpoint files: where each partition of a shard ends, and from where on the journal is needed.
//!
//! A file is one header block and then groups, each a [`frame`](super::frame), each adding to what those before it said.
//! A checkpoint is a run of groups of which the last, and only the last, has a [`JournalFrom`]; what follows the last
//! such group was never completed and does not count, however whole it is. A run is as a rule one group; it is several
//! when the buffer that builds it is small.

use super::fields::{Fields, PRODUCED_BYTES, Put, check_produced, checked, rule};
use super::frame::{self, Expected, Fault, Frame, Header, RawSection, SECTION_HEADER_BYTES, Writer};
use super::journal::{self, JournalPosition};
use super::{BLOCK, round_up};
use crate::model::{LeaderEpoch, Offset, PartitionId, Position, ProducerId, ShardId, Timestamp};
use crate::producer::{self, Produced, Window};
use std::collections::BTreeMap;
use uuid::Uuid;

pub use super::frame::{Checksum, Finished, Full, Nonce, Sequence};

const GROUP: frame::Kind = frame::Kind { magic: *b"CLCG", version: 1 };
const FILE_MAGIC: [u8; 4] = *b"CLCF";
const FILE_VERSION: u16 = 1;
/// Bytes of the file header; groups begin behind it.
pub const FILE_HEADER_BYTES: usize = BLOCK;
const FILE_CHECKSUM_AT: usize = FILE_HEADER_BYTES - 4;

/// What a checkpoint file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Drawn at random for this file; its groups carry it.
    pub nonce: Nonce,
    /// Sequence of the file, the number in its name.
    pub sequence: u64,
    /// Generation of the shard layout.
    pub generation: u64,
    /// Node whose it is.
    pub node: u32,
    /// Shard whose it is.
    pub shard: ShardId,
}

/// From where on the journal is needed, and how to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFrom {
    /// Of the journal file.
    pub nonce: Nonce,
    /// Bytes of the journal file: a multiple of [`BLOCK`].
    pub size: u64,
    /// Where the first entry that is needed begins, or will.
    pub position: JournalPosition,
    /// Its sequence.
    pub sequence: Sequence,
    /// Checksum of the entry before it.
    pub previous: Checksum,
}

impl JournalFrom {
    /// The first entry to read.
    pub fn expected(&self) -> journal::Expected {
        let JournalFrom { nonce, sequence, position, previous, .. } = *self;
        journal::Expected { nonce, sequence, position, previous }
    }

    fn check(&self) -> Result<(), &'static str> {
        let block = BLOCK as u64;
        rule(self.size > 0 && self.size.is_multiple_of(block), "the journal's size is not whole blocks")?;
        rule(self.position.0.is_multiple_of(block), "the journal's position is not at a block")?;
        rule(self.sequence > Sequence(0), "the journal's sequence is zero")
    }
}

/// Where a partition begins and ends in its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First offset that can be read.
    pub first: Offset,
    /// Offset that the next record gets.
    pub next: Offset,
    /// First offset that is not yet on enough replicas.
    pub high_watermark: Offset,
    /// The segment that is appended to.
    pub segment_base: Offset,
    /// Where the batches in it end.
    pub end: Position,
    /// The highest timestamp in it.
    pub max_timestamp: Timestamp,
    /// The highest leader epoch seen.
    pub leader_epoch: LeaderEpoch,
    /// Which replica this directory holds; nil before replication. A replica that lost its disk comes back with another.
    pub replica: Uuid,
}

impl Extent {
    fn check(&self) -> Result<(), &'static str> {
        rule(Offset(0) <= self.first && self.first <= self.next, "a partition's first offset is behind its next")?;
        rule(
            Offset(0) <= self.segment_base && self.segment_base <= self.next,
            "a partition's active segment begins behind its next offset",
        )?;
        rule(
            Offset(0) <= self.high_watermark && self.high_watermark <= self.next,
            "a partition's high watermark is behind its next offset",
        )
    }
}

/// A segment that is not appended to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Offset of its last record.
    pub last: Offset,
    /// Where its batches end.
    pub end: Position,
    /// The highest timestamp in it.
    pub max_timestamp: Timestamp,
    /// How often it was written anew, which is part of its file's name.
    pub rewrite: u32,
}

/// One thing that a group says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Ends a checkpoint.
    JournalFrom(JournalFrom),
    /// Where a partition now is. Comes before the other records of a partition that was not known.
    Partition {
        /// Which.
        partition: PartitionId,
        /// Where it is.
        extent: Extent,
    },
    /// A segment was sealed.
    Sealed {
        /// Whose.
        partition: PartitionId,
        /// Base offset of the segment.
        base: Offset,
        /// What it holds.
        sealed: Sealed,
    },
    /// The sealed segments with bases from this one's to its last offset were written anew as one.
    Rewritten {
        /// Whose.
        partition: PartitionId,
        /// Base offset of the new one, and of the first of them.
        base: Offset,
        /// What the new one holds.
        sealed: Sealed,
    },
    /// Compaction has looked at every key before this offset.
    Cleaned {
        /// Where.
        partition: PartitionId,
        /// The offset.
        to: Offset,
    },
    /// Segments with a base below this one are gone.
    Dropped {
        /// Whose.
        partition: PartitionId,
        /// Base offset of the first segment that is left.
        below: Offset,
    },
    /// A leader epoch began.
    EpochStart {
        /// Whose.
        partition: PartitionId,
        /// The epoch.
        epoch: LeaderEpoch,
        /// Offset of its first record.
        start: Offset,
    },
    /// The log was cut off: epochs that began at this offset or behind it are gone, and so is the fence of a loss at this
    /// offset or behind it. A `Partition` record with the new end follows.
    Truncated {
        /// Whose.
        partition: PartitionId,
        /// First offset that was cut off.
        to: Offset,
    },
    /// Acknowledged records from this offset on were lost. The partition takes no writes until it is cut off there, or
    /// before: a restart must not make the loss good.
    Fenced {
        /// Which.
        partition: PartitionId,
        /// The first offset that is lost.
        from: Offset,
    },
    /// A batch of a producer that numbers its batches was appended.
    Produced {
        /// To which.
        partition: PartitionId,
        /// The batch.
        batch: Produced,
    },
    /// The partition left this shard, or was deleted.
    Gone {
        /// Which.
        partition: PartitionId,
    },
}

/// One partition as the checkpoint knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// Where it begins and ends.
    pub extent: Extent,
    /// Sealed segments by base offset; all bases are below the active segment's.
    pub sealed: BTreeMap<Offset, Sealed>,
    /// Start offsets of the leader epochs that the log still has records of.
    pub epochs: BTreeMap<LeaderEpoch, Offset>,
    /// Acknowledged records from this offset on may be lost, if any are.
    pub fenced: Option<Offset>,
    /// The newest batches of each producer that numbers them.
    pub producers: BTreeMap<ProducerId, Window>,
    /// Compaction has looked at every key before this offset.
    pub cleaned: Offset,
}

/// All that a checkpoint file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointState {
    /// From where on the journal is needed.
    pub journal: JournalFrom,
    /// The shard's partitions.
    pub partitions: BTreeMap<PartitionId, PartitionState>,
}

/// What a reader or writer knows of the group that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Of the file.
    pub nonce: Nonce,
    /// Of the group; the first has 1.
    pub sequence: Sequence,
    /// Byte of the file where it begins.
    pub position: u64,
    /// Checksum of the group before it; zero before the first.
    pub previous: Checksum,
    /// Sequence of the last group that was synced. All groups of one run name the same.
    pub durable: Sequence,
}

impl Next {
    /// The first group of a file.
    pub fn first(header: &FileHeader) -> Next {
        let position = FILE_HEADER_BYTES as u64;
        Next { nonce: header.nonce, sequence: Sequence(1), position, previous: Checksum(0), durable: Sequence(0) }
    }

    /// Behind a group that was built here. It is not synced yet.
    pub fn after(self, group: Finished) -> Next {
        let position = self.position + group.length as u64;
        Next { sequence: self.sequence.next(), position, previous: group.checksum, ..self }
    }

    /// All groups so far are on stable storage.
    pub fn synced(self) -> Next {
        Next { durable: Sequence(self.sequence.0 - 1), ..self }
    }
}

/// Builds one group in a caller's buffer, which bounds it.
#[derive(Debug)]
pub struct GroupWriter<'a> {
    frame: Writer<'a>,
}

impl<'a> GroupWriter<'a> {
    /// `out` must hold at least a block; of more, only whole blocks are used.
    pub fn new(out: &'a mut [u8], next: &Next) -> Self {
        let Next { nonce, sequence, position, previous, durable } = *next;
        GroupWriter { frame: Writer::new(GROUP, out, Header { nonce, sequence, position, durable, previous }) }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record) -> Result<(), Full> {
        checked(record.check());
        let content = self.frame.section(record.kind(), VERSION, record.content_len())?;
        record.put(Put::into(content));
        Ok(())
    }

    /// Bytes left; see [`Record::section_len`].
    pub fn room(&self) -> usize {
        self.frame.room()
    }

    /// Nothing has been said yet.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Pads with zeros to whole blocks and seals.
    pub fn finish(self) -> Finished {
        self.frame.finish()
    }
}

/// Writes the block that a file begins with.
pub fn write_file_header(header: &FileHeader, out: &mut [u8; FILE_HEADER_BYTES]) {
    out.fill(0);
    Put::into(out)
        .bytes(&FILE_MAGIC)
        .u16(FILE_VERSION)
        .u16(FILE_HEADER_BYTES as u16)
        .u64(header.nonce.0)
        .u64(header.sequence)
        .u64(header.generation)
        .u32(header.node)
        .u16(header.shard.0);
    let checksum = Checksum::of(&out[..FILE_CHECKSUM_AT]);
    out[FILE_CHECKSUM_AT..].copy_from_slice(&checksum.0.to_le_bytes());
}

/// A whole file that says `state` and nothing else, in groups of at most `group_bytes_max`; with it the place of the
/// next group, once the file is synced.
pub fn snapshot(state: &CheckpointState, header: &FileHeader, group_bytes_max: usize) -> (Vec<u8>, Next) {
    let mut file = vec![0; FILE_HEADER_BYTES];
    if let Some(block) = file.first_chunk_mut() {
        write_file_header(header, block);
    }
    let mut next = Next::first(header);
    let mut scratch = vec![0; round_up(group_bytes_max)];
    let mut records = state.records().peekable();
    while records.peek().is_some() {
        let mut group = GroupWriter::new(&mut scratch, &next);
        while let Some(record) = records.next_if(|record| record.section_len() <= group.room()) {
            checked(group.push(&record).map_err(|Full| "a record that fits does not"));
        }
        let finished = group.finish();
        file.extend_from_slice(&scratch[..finished.length]);
        next = next.after(finished);
    }
    (file, next.synced())
}

/// What stands behind the last completed checkpoint of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// Groups or a part of one that were never completed.
    Torn(Fault),
}

/// A file's content, up to its last completed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The file's header.
    pub header: FileHeader,
    /// What it says.
    pub state: CheckpointState,
    /// The next group goes here.
    pub next: Next,
    /// What stands there now.
    pub tail: Tail,
}

/// Why a checkpoint file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The first block is something else.
    #[error("it is not a checkpoint file")]
    NotACheckpoint,
    /// The first block's checksum does not fit.
    #[error("its header is damaged")]
    HeaderDamaged,
    /// Written by a program that knows another version.
    #[error("its version {0} is not known to this program")]
    UnknownVersion(u16),
    /// No checkpoint in it was completed. A file is synced before it gets its name, so it is damaged.
    #[error("it has no completed checkpoint: at byte {at}, {fault}")]
    Incomplete {
        /// Where reading stopped.
        at: u64,
        /// Why.
        fault: Fault,
    },
    /// A group cannot be read, and a later one says that it was on stable storage.
    #[error("it is damaged at byte {at} ({fault}); the group at byte {proof} says that this was written whole")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong there.
        fault: Fault,
        /// Where the later group is.
        proof: u64,
    },
    /// A group is whole and this program does not know what it says.
    #[error("the group at byte {at} cannot be used: {fault}")]
    Foreign {
        /// Where.
        at: u64,
        /// Why.
        fault: Fault,
    },
}

/// Reads the first block of a file.
pub fn read_file_header(bytes: &[u8]) -> Result<FileHeader, CheckpointError> {
    let block = bytes.first_chunk::<FILE_HEADER_BYTES>().ok_or(CheckpointError::NotACheckpoint)?;
    if block[..4] != FILE_MAGIC {
        return Err(CheckpointError::NotACheckpoint);
    }
    let (covered, checksum) = block.split_last_chunk::<4>().ok_or(CheckpointError::NotACheckpoint)?;
    if Checksum::of(covered) != Checksum(u32::from_le_bytes(*checksum)) {
        return Err(CheckpointError::HeaderDamaged);
    }
    let version = u16::from_le_bytes([block[4], block[5]]);
    if version != FILE_VERSION {
        return Err(CheckpointError::UnknownVersion(version));
    }
    take_file_header(&block[8..]).ok_or(CheckpointError::HeaderDamaged)
}

fn take_file_header(bytes: &[u8]) -> Option<FileHeader> {
    let mut fields = Fields::of(bytes);
    Some(FileHeader {
        nonce: Nonce(fields.u64()?),
        sequence: fields.u64()?,
        generation: fields.u64()?,
        node: fields.u32()?,
        shard: ShardId(fields.u16()?),
    })
}

/// One group of a file.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Where it is and what it is chained to.
    pub this: Next,
    /// Its length and checksum.
    pub finished: Finished,
    frame: Frame<'a>,
}

impl<'a> Group<'a> {
    /// What it says, in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        // `Groups` has read each of them, so none is left out here.
        self.frame.sections().map_while(|raw| read_record(raw).ok())
    }

    /// It completes a checkpoint.
    pub fn completes(&self) -> bool {
        self.records().any(|record| matches!(record, Record::JournalFrom(_)))
    }
}

/// The groups of a file one after another, from its first, for as long as each verifies.
#[derive(Debug)]
pub struct Groups<'a> {
    file: &'a [u8],
    next: Next,
    stop: Option<Fault>,
}

impl<'a> Groups<'a> {
    /// Of a whole file, its header included.
    pub fn of(file: &'a [u8], header: &FileHeader) -> Self {
        Groups { file, next: Next::first(header), stop: None }
    }

    /// The group that did not come: where it would be, and why it is not there; [`Fault::Zeros`] at the end of the file.
    pub fn stopped(&self) -> (Next, Option<Fault>) {
        (self.next, self.stop)
    }

    fn at(&self, position: u64) -> &'a [u8] {
        usize::try_from(position).ok().and_then(|position| self.file.get(position..)).unwrap_or(&[])
    }

    fn read(&self) -> Result<Group<'a>, Fault> {
        let Next { nonce, sequence, position, previous, .. } = self.next;
        let rest = self.at(position);
        if rest.is_empty() {
            return Err(Fault::Zeros);
        }
        let frame = frame::parse(GROUP, rest, &Expected { nonce, sequence, position, previous })?;
        for raw in frame.sections() {
            read_record(raw)?;
        }
        let finished = Finished { length: frame.head.length, checksum: frame.head.checksum };
        let this = Next { durable: frame.head.header.durable, ..self.next };
        Ok(Group { this, finished, frame })
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Group<'a>> {
        if self.stop.is_some() {
            return None;
        }
        match self.read() {
            Ok(group) => {
                self.next = group.this.after(group.finished);
                Some(group)
            }
            Err(fault) => {
                self.stop = Some(fault);
                None
            }
        }
    }
}

/// What a whole file says. Never panics on bytes; memory is in proportion to them.
pub fn replay(file: &[u8]) -> Result<Replayed, CheckpointError> {
    let header = read_file_header(file)?;
    let mut groups = Groups::of(file, &header);
    let mut replay = Replay::default();
    for group in groups.by_ref() {
        replay.group(&group)?;
    }
    let (stopped, fault) = groups.stopped();
    let (at, fault) = (stopped.position, fault.unwrap_or(Fault::Zeros));
    if fault.is_foreign() {
        return Err(CheckpointError::Foreign { at, fault });
    }
    if let Some(proof) = proof_of_damage(groups.at(at), &stopped) {
        return Err(CheckpointError::Damaged { at, fault, proof });
    }
    let (state, next) = replay.completed().ok_or(CheckpointError::Incomplete { at, fault })?;
    let clean = fault == Fault::Zeros && next.sequence == stopped.sequence;
    Ok(Replayed { header, state, next, tail: if clean { Tail::Clean } else { Tail::Torn(fault) } })
}

fn proof_of_damage(window: &[u8], missing: &Next) -> Option<u64> {
    frame::proof_of_durable(GROUP, window, missing.position, missing.nonce, missing.sequence)
        .map(|proof| proof.position)
}

/// Applies groups run by run: the records of a run count from its last group on.
#[derive(Default)]
struct Replay {
    partitions: BTreeMap<PartitionId, PartitionState>,
    pending: Vec<(Record, u64)>,
    done: Option<(JournalFrom, Next)>,
}

impl Replay {
    fn group(&mut self, group: &Group<'_>) -> Result<(), CheckpointError> {
        let at = group.this.position;
        self.pending.extend(group.records().map(|record| (record, at)));
        if !group.completes() {
            return Ok(());
        }
        for (record, at) in std::mem::take(&mut self.pending) {
            self.apply(record).map_err(|what| {
                let fault = Fault::Malformed { at: 0, what };
                CheckpointError::Foreign { at, fault }
            })?;
            if let Record::JournalFrom(from) = record {
                self.done = Some((from, group.this.after(group.finished).synced()));
            }
        }
        Ok(())
    }

    fn completed(self) -> Option<(CheckpointState, Next)> {
        let (journal, next) = self.done?;
        Some((CheckpointState { journal, partitions: self.partitions }, next))
    }

    fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        apply(&mut self.partitions, record)
    }
}

/// Changes `partitions` as a record says.
fn apply(partitions: &mut BTreeMap<PartitionId, PartitionState>, record: Record) -> Result<(), &'static str> {
    let (partition, change) = match record {
        Record::JournalFrom(_) => return Ok(()),
        Record::Gone { partition } => {
            partitions.remove(&partition);
            return Ok(());
        }
        Record::Partition { partition, extent } => {
            partitions.entry(partition).or_insert_with(|| PartitionState::new(extent)).move_to(extent);
            return Ok(());
        }
        Record::Sealed { partition, .. }
        | Record::Rewritten { partition, .. }
        | Record::Cleaned { partition, .. }
        | Record::Dropped { partition, .. }
        | Record::EpochStart { partition, .. }
        | Record::Truncated { partition, .. }
        | Record::Fenced { partition, .. }
        | Record::Produced { partition, .. } => (partition, record),
    };
    partitions.get_mut(&partition).ok_or("a record of a partition that is not known")?.change(change)
}

impl Sealed {
    fn record(self, partition: PartitionId, base: Offset) -> Record {
        match self.rewrite {
            0 => Record::Sealed { partition, base, sealed: self },
            _ => Record::Rewritten { partition, base, sealed: self },
        }
    }

    fn check(&self, base: Offset) -> Result<(), &'static str> {
        rule(Offset(0) <= base && base <= self.last, "a sealed segment ends before it begins")
    }
}

impl PartitionState {
    /// Without sealed segments, epochs or losses.
    pub fn new(extent: Extent) -> Self {
        PartitionState {
            extent,
            sealed: BTreeMap::new(),
            epochs: BTreeMap::new(),
            fenced: None,
            producers: BTreeMap::new(),
            cleaned: Offset(0),
        }
    }

    fn move_to(&mut self, extent: Extent) {
        self.extent = extent;
        // After a truncation the active segment may be one that was sealed before.
        self.sealed.split_off(&extent.segment_base);
        self.forget_epochs_before(extent.first);
    }

    fn change(&mut self, change: Record) -> Result<(), &'static str> {
        match change {
            Record::Sealed { base, sealed, .. } => self.seal(base, sealed)?,
            Record::Rewritten { base, sealed, .. } => self.rewrite(base, sealed)?,
            Record::Cleaned { to, .. } => self.cleaned = self.cleaned.max(to),
            Record::Dropped { below, .. } => self.sealed = self.sealed.split_off(&below),
            Record::EpochStart { epoch, start, .. } => self.begin_epoch(epoch, start),
            Record::Truncated { to, .. } => self.truncate(to),
            Record::Fenced { from, .. } => self.fenced = Some(from),
            Record::Produced { batch, .. } => self.note_produced(&batch),
            _ => {}
        }
        Ok(())
    }

    fn seal(&mut self, base: Offset, sealed: Sealed) -> Result<(), &'static str> {
        rule(base < self.extent.segment_base, "a sealed segment is not before the active one")?;
        self.sealed.insert(base, sealed);
        Ok(())
    }

    fn rewrite(&mut self, base: Offset, sealed: Sealed) -> Result<(), &'static str> {
        self.sealed.retain(|old, _| *old < base || *old > sealed.last);
        self.seal(base, sealed)
    }

    /// As in Kafka's leader epoch cache: epochs and starts both grow, and a new entry displaces those it contradicts.
    pub(crate) fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.epochs.retain(|known, from| *known < epoch && *from < start);
        self.epochs.insert(epoch, start);
    }

    /// Forgets what began, or lies, at this offset or behind it.
    fn truncate(&mut self, to: Offset) {
        self.epochs.retain(|_, start| *start < to);
        self.fenced = self.fenced.filter(|from| *from < to);
        self.cleaned = self.cleaned.min(to);
        self.producers.retain(|_, window| window.truncate(to));
    }

    pub(crate) fn note_produced(&mut self, batch: &Produced) {
        producer::note(&mut self.producers, batch);
    }

    /// The epoch that the first record belongs to stays, though it began before it.
    pub(crate) fn forget_epochs_before(&mut self, first: Offset) {
        let current = self.epochs.iter().rfind(|(_, start)| **start <= first).map(|(epoch, _)| *epoch);
        if let Some(current) = current {
            self.epochs = self.epochs.split_off(&current);
        }
    }
}

impl CheckpointState {
    /// Takes over what a record says that was just added to the file.
    pub fn apply(&mut self, record: &Record) {
        if let Record::JournalFrom(from) = record {
            self.journal = *from;
        }
        checked(apply(&mut self.partitions, *record));
    }

    /// The records that say all of this, in the order in which they must be replayed.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let partitions = self.partitions.iter().flat_map(|(partition, state)| state.records(*partition));
        partitions.chain(std::iter::once(Record::JournalFrom(self.journal)))
    }
}

impl PartitionState {
    fn records(&self, partition: PartitionId) -> impl Iterator<Item = Record> + '_ {
        let extent = std::iter::once(Record::Partition { partition, extent: self.extent });
        let sealed = self.sealed.iter().map(move |(base, sealed)| sealed.record(partition, *base));
        let cleaned = (self.cleaned > Offset(0)).then_some(Record::Cleaned { partition, to: self.cleaned });
        let epochs = self.epochs.iter().map(move |(epoch, start)| Record::EpochStart {
            partition,
            epoch: *epoch,
            start: *start,
        });
        let fenced = self.fenced.map(|from| Record::Fenced { partition, from });
        let batches = self.producers.iter().flat_map(|(producer, window)| window.batches(*producer));
        let produced = batches.map(move |batch| Record::Produced { partition, batch });
        extent.chain(sealed).chain(cleaned).chain(epochs).chain(fenced).chain(produced)
    }
}

const JOURNAL_FROM: u8 = 1;
const PARTITION: u8 = 2;
const SEALED: u8 = 3;
const DROPPED: u8 = 4;
const EPOCH_START: u8 = 5;
const TRUNCATED: u8 = 6;
const GONE: u8 = 7;
const FENCED: u8 = 8;
const PRODUCED: u8 = 9;
const REWRITTEN: u8 = 10;
const CLEANED: u8 = 11;
/// Of every kind there is one version so far.
const VERSION: u8 = 1;

const PARTITION_ID_BYTES: usize = 20;

impl Record {
    /// Bytes of the record in a group, its header included.
    pub fn section_len(&self) -> usize {
        SECTION_HEADER_BYTES + self.content_len()
    }

    fn kind(&self) -> u8 {
        match self {
            Record::JournalFrom(_) => JOURNAL_FROM,
            Record::Partition { .. } => PARTITION,
            Record::Sealed { .. } => SEALED,
            Record::Dropped { .. } => DROPPED,
            Record::EpochStart { .. } => EPOCH_START,
            Record::Truncated { .. } => TRUNCATED,
            Record::Gone { .. } => GONE,
            Record::Fenced { .. } => FENCED,
            Record::Produced { .. } => PRODUCED,
            Record::Rewritten { .. } => REWRITTEN,
            Record::Cleaned { .. } => CLEANED,
        }
    }

    fn content_len(&self) -> usize {
        match self {
            Record::JournalFrom(_) => 36,
            Record::Partition { .. } => PARTITION_ID_BYTES + 68,
            Record::Sealed { .. } => PARTITION_ID_BYTES + 32,
            Record::Rewritten { .. } => PARTITION_ID_BYTES + 36,
            Record::Dropped { .. } | Record::Truncated { .. } | Record::Fenced { .. } | Record::Cleaned { .. } => {
                PARTITION_ID_BYTES + 8
            }
            Record::EpochStart { .. } => PARTITION_ID_BYTES + 12,
            Record::Produced { .. } => PARTITION_ID_BYTES + PRODUCED_BYTES,
            Record::Gone { .. } => PARTITION_ID_BYTES,
        }
    }

    /// The rules that hold on both sides of the disk.
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Record::JournalFrom(from) => from.check(),
            Record::Partition { extent, .. } => extent.check(),
            Record::Sealed { base, sealed, .. } => {
                rule(sealed.rewrite == 0, "a segment that was just sealed was written anew")?;
                sealed.check(*base)
            }
            Record::Rewritten { base, sealed, .. } => {
                rule(sealed.rewrite > 0, "a segment that was written anew has the name of the old one")?;
                sealed.check(*base)
            }
            Record::Dropped { below: offset, .. }
            | Record::Truncated { to: offset, .. }
            | Record::Cleaned { to: offset, .. }
            | Record::Fenced { from: offset, .. } => rule(Offset(0) <= *offset, "an offset is negative"),
            Record::EpochStart { epoch, start, .. } => {
                rule(LeaderEpoch(0) <= *epoch && Offset(0) <= *start, "an epoch or its start is negative")
            }
            Record::Produced { batch, .. } => check_produced(batch),
            Record::Gone { .. } => Ok(()),
        }
    }

    fn put<'a>(&self, into: Put<'a>) -> Put<'a> {
        match *self {
            Record::JournalFrom(from) => {
                into.u64(from.nonce.0).u64(from.size).u64(from.position.0).u64(from.sequence.0).u32(from.previous.0)
            }
            Record::Partition { partition, extent } => extent.put(into.partition(partition)),
            Record::Sealed { partition, base, sealed } => into
                .partition(partition)
                .offset(base)
                .offset(sealed.last)
                .position(sealed.end)
                .timestamp(sealed.max_timestamp),
            Record::Rewritten { partition, base, sealed } => into
                .partition(partition)
                .offset(base)
                .offset(sealed.last)
                .position(sealed.end)
                .timestamp(sealed.max_timestamp)
                .u32(sealed.rewrite),
            Record::Cleaned { partition, to } => into.partition(partition).offset(to),
            Record::Dropped { partition, below } => into.partition(partition).offset(below),
            Record::EpochStart { partition, epoch, start } => {
                into.partition(partition).leader_epoch(epoch).offset(start)
            }
            Record::Truncated { partition, to } => into.partition(partition).offset(to),
            Record::Fenced { partition, from } => into.partition(partition).offset(from),
            Record::Produced { partition, ref batch } => into.partition(partition).produced(batch),
            Record::Gone { partition } => into.partition(partition),
        }
    }
}

impl Extent {
    fn put(self, into: Put<'_>) -> Put<'_> {
        into.offset(self.first)
            .offset(self.next)
            .offset(self.high_watermark)
            .offset(self.segment_base)
            .position(self.end)
            .timestamp(self.max_timestamp)
            .leader_epoch(self.leader_epoch)
            .uuid(self.replica)
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Extent {
            first: fields.offset()?,
            next: fields.offset()?,
            high_watermark: fields.offset()?,
            segment_base: fields.offset()?,
            end: fields.position()?,
            max_timestamp: fields.timestamp()?,
            leader_epoch: fields.leader_epoch()?,
            replica: fields.uuid()?,
        })
    }
}

fn read_record(raw: RawSection<'_>) -> Result<Record, Fault> {
    let RawSection { at, kind, version, content } = raw;
    if !(JOURNAL_FROM..=CLEANED).contains(&kind) || version != VERSION {
        return Err(Fault::UnknownSection { kind, version, at });
    }
    let mut fields = Fields::of(content);
    let record = take_record(kind, &mut fields).ok_or(Fault::Malformed { at, what: "a record is too short" })?;
    rule(fields.rest().is_empty(), "a record is too long")
        .and_then(|()| record.check())
        .map_err(|what| Fault::Malformed { at, what })?;
    Ok(record)
}

fn take_record(kind: u8, fields: &mut Fields<'_>) -> Option<Record> {
    if kind == JOURNAL_FROM {
        return take_journal_from(fields).map(Record::JournalFrom);
    }
    let partition = fields.partition()?;
    Some(match kind {
        PARTITION => Record::Partition { partition, extent: Extent::take(fields)? },
        SEALED => Record::Sealed { partition, base: fields.offset()?, sealed: take_sealed(fields)? },
        DROPPED => Record::Dropped { partition, below: fields.offset()? },
        EPOCH_START => Record::EpochStart { partition, epoch: fields.leader_epoch()?, start: fields.offset()? },
        TRUNCATED => Record::Truncated { partition, to: fields.offset()? },
        GONE => Record::Gone { partition },
        FENCED => Record::Fenced { partition, from: fields.offset()? },
        PRODUCED => Record::Produced { partition, batch: fields.produced()? },
        REWRITTEN => {
            let (base, sealed) = (fields.offset()?, take_sealed(fields)?);
            Record::Rewritten { partition, base, sealed: Sealed { rewrite: fields.u32()?, ..sealed } }
        }
        CLEANED => Record::Cleaned { partition, to: fields.offset()? },
        _ => return None,
    })
}

fn take_journal_from(fields: &mut Fields<'_>) -> Option<JournalFrom> {
    Some(JournalFrom {
        nonce: Nonce(fields.u64()?),
        size: fields.u64()?,
        position: JournalPosition(fields.u64()?),
        sequence: Sequence(fields.u64()?),
        previous: Checksum(fields.u32()?),
    })
}

fn take_sealed(fields: &mut Fields<'_>) -> Option<Sealed> {
    Some(Sealed { last: fields.offset()?, end: fields.position()?, max_timestamp: fields.timestamp()?, rewrite: 0 })
}

#[cfg(test)]
mod tests;
