//! Appending: batches are checked, get their offsets, and go to the tail; what waits for the disk waits in order.

use super::partition::{Ack, Active, Partition, Run};
use super::{PartitionHandle, Session, Shard, Stage, count};
use crate::error::AppendError;
use crate::limits::COMPACTION_BATCH_BYTES;
use crate::log::journal::produced_len;
use crate::log::tail::{BLOCK, CHUNK_BYTES_MAX, Place, Tail};
use crate::metadata::{Durability, TimestampType, TopicSettings};
use crate::model::{Offset, Timestamp};
use crate::planted::{self, Bug};
use crate::producer::Numbered;
use crate::reactor::{AppendBuffer, Instant};
use corelog_batch::{BatchError, BatchView, HEADER_BYTES, Limits, batches, validate};
use std::collections::VecDeque;

/// An append that waits until its partition's segment is ready.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Batches that were found valid.
    pub(crate) bytes: Vec<u8>,
    /// How they are numbered.
    pub(crate) numbered: Option<Numbered>,
    /// Whom to tell.
    pub(crate) asker: Asker,
}

/// Who asked for an append, and since when it has been waiting.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// Where the outcome goes.
    pub(crate) session: Session,
    /// In whose name.
    pub(crate) ticket: u64,
    /// When its batches had been checked.
    pub(crate) since: Instant,
}

/// For whom records are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// For a client: not in the topics that are the node's own.
    Client,
    /// For the node itself.
    Node,
}

impl Asker {
    /// Says that it was not done, or that nobody knows.
    pub(crate) fn refused(&self, error: AppendError) {
        self.session.refused(self.ticket, error);
    }
}

impl Shard {
    /// Appends record batches to a partition of this shard.
    ///
    /// The bytes are checked and copied before this returns. The outcome arrives at the session under `ticket` when the
    /// records are as durable as the topic asks; outcomes of one partition arrive in the order of its appends.
    ///
    /// # Errors
    /// When nothing was written. Which of them can be tried again is [`AppendError`]'s to say.
    pub fn append(
        &self,
        handle: PartitionHandle,
        bytes: &[u8],
        session: &Session,
        ticket: u64,
    ) -> Result<(), AppendError> {
        self.append_from(Writer::Client, handle, bytes, session, ticket)
    }

    /// The same for what the node writes for itself.
    pub(super) fn append_own(
        &self,
        handle: PartitionHandle,
        bytes: &[u8],
        session: &Session,
        ticket: u64,
    ) -> Result<(), AppendError> {
        self.append_from(Writer::Node, handle, bytes, session, ticket)
    }

    fn append_from(
        &self,
        writer: Writer,
        handle: PartitionHandle,
        bytes: &[u8],
        session: &Session,
        ticket: u64,
    ) -> Result<(), AppendError> {
        self.relieve_tails(bytes.len());
        self.make_room_for_producer();
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(AppendError::UnknownPartition)?;
        if partition.is_internal && writer == Writer::Client {
            return Err(AppendError::Internal);
        }
        let begun = self.begin(handle, partition, bytes, session, ticket);
        if let Err(error) = &begun {
            self.note_refused(partition, bytes, error);
        }
        begun
    }

    fn begin(
        &self,
        handle: PartitionHandle,
        partition: &mut Partition,
        bytes: &[u8],
        session: &Session,
        ticket: u64,
    ) -> Result<(), AppendError> {
        self.check_running()?;
        if let Some(why) = &partition.fenced {
            return Err(AppendError::Fenced(why.clone()));
        }
        if self.0.storage_full.get() && !partition.id.is_metadata() {
            return Err(AppendError::StorageFull);
        }
        let came = self.reactor().clock();
        let now = self.reactor().wall_clock();
        let numbered = check(bytes, &partition.settings, now)?;
        if !partition.is_internal && !is_packed_as_asked(bytes, &partition.settings) {
            // There was no memory to compress it anew, or the setting changed on its way: sent again, it will be.
            return Err(AppendError::Busy);
        }
        let since = self.reactor().clock();
        self.0.stages.record(Stage::Validate, since.since(came), 1);
        let asker = Asker { session: session.clone(), ticket, since };
        if partition.preparing || !is_ready(partition, bytes.len(), now) {
            self.defer(handle, partition, bytes, numbered, asker)?;
        } else {
            self.place(handle, partition, bytes, numbered, &asker)?;
            self.reserve_ahead(handle, partition);
        }
        session.add_to_share(self.0.checkpoints.boundary.get(), bytes.len());
        Ok(())
    }

    /// Puts checked batches in the tail of a partition whose segment is ready for them.
    pub(super) fn place(
        &self,
        handle: PartitionHandle,
        partition: &mut Partition,
        bytes: &[u8],
        numbered: Option<Numbered>,
        asker: &Asker,
    ) -> Result<(), AppendError> {
        if let Some(batch) = &numbered
            && !self.is_new(partition, batch, asker)?
        {
            return Ok(());
        }
        self.make_room(partition, bytes.len())?;
        let base = partition.next;
        let at = match partition.settings.timestamps {
            TimestampType::CreateTime => Timestamp(-1),
            TimestampType::LogAppendTime => self.reactor().wall_clock(),
        };
        let mut run = self.copy_batches(partition, bytes, at);
        if let Some(batch) = &numbered {
            self.note_produced(partition, batch, base);
            run.produced = 1;
        }
        partition.note_run(run);
        partition.acks.push_back(Ack { base, next: partition.next, at, asker: asker.clone() });
        let counters = &self.0.counters;
        count(&counters.appends, 1);
        count(&counters.appended_records, (partition.next.0 - base.0).unsigned_abs());
        count(&counters.appended_bytes, bytes.len() as u64);
        if partition.settings.durability == Durability::Memory || planted::active(Bug::ReadBeforeDurable) {
            let end = partition.active_end().unwrap_or(partition.visible_end);
            partition.show(partition.next, end, |_| ());
        }
        self.0.checkpoints.add_dirty(bytes.len());
        self.queue_for_journal(handle, partition, bytes.len() + produced_len(run.produced));
        Ok(())
    }

    /// Takes the chunks that the bytes will need, so that copying them cannot fail half way.
    fn make_room(&self, partition: &Partition, bytes: usize) -> Result<(), AppendError> {
        let Some(active) = &partition.active else { return Err(AppendError::Busy) };
        let mut spare = self.0.spare_chunks.borrow_mut();
        assert!(spare.is_empty(), "chunks taken are used at once");
        let mut room = partition.tail.room(active.base);
        let mut chunk_bytes = partition.tail.next_chunk_bytes(bytes.saturating_sub(room).max(1), self.tail_share());
        while room < bytes {
            let Some(chunk) = self.take_chunk(chunk_bytes) else {
                let taken: usize = spare.drain(..).map(|chunk| chunk.capacity()).sum();
                self.0.tail_bytes.set(self.0.tail_bytes.get() - taken);
                return Err(AppendError::Busy);
            };
            room += chunk_bytes;
            chunk_bytes = (chunk_bytes * 2).min(CHUNK_BYTES_MAX);
            spare.push_back(chunk);
        }
        Ok(())
    }

    /// Memory for one chunk of a tail, within the tails' budget; chunks that are on disk give way.
    pub(super) fn take_chunk(&self, bytes: usize) -> Option<AppendBuffer> {
        if self.0.tail_bytes.get() + bytes > self.0.config.tail_bytes_max {
            return None;
        }
        let chunk = self.reactor().pool().append_buffer(bytes)?;
        self.0.tail_bytes.set(self.0.tail_bytes.get() + bytes);
        Some(chunk)
    }

    /// Copies batches to the tail. The time of their records becomes `at`, unless that is -1.
    fn copy_batches(&self, partition: &mut Partition, bytes: &[u8], at: Timestamp) -> Run {
        let mut spare = self.0.spare_chunks.borrow_mut();
        let Partition { tail, active, next, leader_epoch, .. } = partition;
        let Some(active) = active else { unreachable!("make_room saw an active segment") };
        let (start, base) = (active.end, *next);
        let mut max_timestamp = Timestamp(-1);
        for batch in batches(bytes) {
            let Ok(batch) = batch else { unreachable!("the batches were checked") };
            max_timestamp = max_timestamp.max(if at.0 < 0 { Timestamp(batch.max_timestamp()) } else { at });
            active.max_timestamp = active.max_timestamp.max(max_timestamp);
            active.index.note(*next, active.end, active.max_timestamp);
            open_chunk(tail, &mut spare, active);
            tail.begin_batch(*next);
            if at.0 < 0 {
                let stamped = batch.stamped(next.0, leader_epoch.0);
                write(tail, &mut spare, active, &stamped);
                write(tail, &mut spare, active, &batch.bytes()[stamped.len()..]);
            } else {
                write(tail, &mut spare, active, &batch.stamped_at(next.0, leader_epoch.0, at.0));
                write(tail, &mut spare, active, &batch.bytes()[HEADER_BYTES..]);
            }
            *next = Offset(next.0 + i64::from(batch.last_offset_delta()) + 1);
        }
        if start.0 == 0 {
            active.since = self.reactor().wall_clock();
        }
        Run { segment: active.base, start, end: active.end, base, next: *next, max_timestamp, produced: 0 }
    }

    fn defer(
        &self,
        handle: PartitionHandle,
        partition: &mut Partition,
        bytes: &[u8],
        numbered: Option<Numbered>,
        asker: Asker,
    ) -> Result<(), AppendError> {
        let waiting = self.0.waiting_bytes.get() + bytes.len();
        if waiting > self.0.config.waiting_bytes_max {
            return Err(AppendError::Busy);
        }
        self.0.waiting_bytes.set(waiting);
        partition.deferred.push_back(Waiting { bytes: bytes.to_vec(), numbered, asker });
        if !partition.preparing {
            partition.preparing = true;
            self.spawn_prepare(handle);
        }
        Ok(())
    }
}

/// Whether the batches can go to the tail now: a segment with room, space reserved for them, and the block that they
/// begin in at hand.
pub(super) fn is_ready(partition: &Partition, bytes: usize, now: Timestamp) -> bool {
    let Some(active) = &partition.active else { return false };
    !partition.must_roll(bytes, now) && active.end.plus(bytes as u64) <= active.reserved && has_last_block(partition)
}

/// Whether the tail holds the block that the next batch begins in, or that block is empty.
pub(super) fn has_last_block(partition: &Partition) -> bool {
    let Some(active) = &partition.active else { return false };
    let end = Place { segment: active.base, position: active.end };
    active.end.0.is_multiple_of(BLOCK) || partition.tail.end() == Some(end)
}

/// Whether every batch of a produce body may be stored, and how it is numbered.
fn check(bytes: &[u8], settings: &TopicSettings, now: Timestamp) -> Result<Option<Numbered>, AppendError> {
    let max = settings.batch_bytes_max() as usize;
    if bytes.is_empty() {
        return Err(AppendError::Invalid(BatchError::Empty));
    }
    let mut numbered = None;
    for batch in batches(bytes) {
        let batch = batch?;
        let size = batch.bytes().len();
        if size > max {
            return Err(AppendError::TooLarge { size, max });
        }
        validate(batch.bytes(), Limits { batch_bytes_max: max })?;
        check_records(&batch, settings, now)?;
        numbered = Numbered::of(&batch);
        if size < bytes.len() && numbered.is_some() {
            return Err(AppendError::Invalid(BatchError::NotAlone));
        }
    }
    Ok(numbered)
}

/// Whether all batches are compressed as their topic asks.
fn is_packed_as_asked(bytes: &[u8], settings: &TopicSettings) -> bool {
    settings.compression.is_none_or(|codec| batches(bytes).flatten().all(|batch| batch.codec() == Ok(codec)))
}

/// What the topic asks of each record: keys where it is compacted, for of others compaction leaves nothing, and times that are
/// not too far from the server's. A compressed batch is unpacked for it as a whole, where its header is not enough, which is
/// bounded to what compaction can look into later.
fn check_records(batch: &BatchView<'_>, settings: &TopicSettings, now: Timestamp) -> Result<(), BatchError> {
    let (least, most) = settings.times_taken(now);
    let range_error = |found| BatchError::TimestampRange { found, least: least.0, most: most.0 };
    if batch.max_timestamp() > most.0 {
        return Err(range_error(batch.max_timestamp()));
    }
    if !settings.compacts() && least.0 < 0 {
        return Ok(());
    }
    let mut scratch = Vec::new();
    for (index, record) in (0..).zip(batch.records(&mut scratch, COMPACTION_BATCH_BYTES)?) {
        let record = record?;
        if record.key.is_none() && settings.compacts() {
            return Err(BatchError::NoKey { index });
        }
        if (0..least.0).contains(&record.timestamp) {
            return Err(range_error(record.timestamp));
        }
    }
    Ok(())
}

/// Sees to it that the tail has room for at least one byte.
fn open_chunk(tail: &mut Tail, spare: &mut VecDeque<AppendBuffer>, active: &Active) {
    if tail.room(active.base) == 0 {
        let Some(chunk) = spare.pop_front() else { unreachable!("make_room took enough") };
        tail.push_chunk(Place { segment: active.base, position: active.end }, chunk);
    }
}

fn write(tail: &mut Tail, spare: &mut VecDeque<AppendBuffer>, active: &mut Active, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        open_chunk(tail, spare, active);
        let rest = tail.fill(bytes);
        active.end = active.end.plus((bytes.len() - rest.len()) as u64);
        bytes = rest;
    }
}
