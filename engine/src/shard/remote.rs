//! Between shards of a node: a request that arrived at the wrong one crosses once, and its answer returns.

use super::controller::{Command, CommandError};
use super::event::Event;
use super::parcel::{Parcel, Parcels};
use super::session::{Appended, Completed, Session};
use super::{Cursor, OffsetQuery, PartitionHandle, PartitionStatus, Read, Shard, ShardStats, boot, count};
use crate::error::{AppendError, ReadError};
use crate::metadata::MetadataRecord;
use crate::model::{Offset, PartitionId, ShardId, Timestamp};
use crate::planted::{self, Bug};
use crate::reactor::Outgoing;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Requests under way from one shard to all others; each answer needs a place in the mesh's rings.
const CALLS_MAX: usize = 400;

/// A message between shards.
#[derive(Debug)]
pub enum Envelope {
    /// Of the start of the node.
    Boot(Box<boot::Boot>),
    /// Asks.
    Request {
        /// The asker's number for it.
        call: u32,
        /// What for.
        remote: Remote,
    },
    /// Answers.
    Answer {
        /// The asker's number for the request.
        call: u32,
        /// What came of it.
        reply: Reply,
    },
    /// Asks to be told once a partition has a record at or after an offset.
    Watch {
        /// The asker's number for it.
        watch: u32,
        /// Which partition.
        partition: PartitionId,
        /// The offset.
        from: Offset,
    },
    /// Takes that back.
    Unwatch {
        /// The asker's number for it.
        watch: u32,
        /// Which partition.
        partition: PartitionId,
    },
    /// A watch is over: there is something to read, the partition is gone, or the watch was taken back. Comes once for
    /// each watch, and frees its number.
    WatchEnded {
        /// The asker's number for it.
        watch: u32,
    },
}

/// A watch of a partition that lives on another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteWatch(u32);

/// What a shard can be asked by another.
#[derive(Debug)]
pub enum Remote {
    /// Append batches to a partition.
    Append {
        /// Which.
        partition: PartitionId,
        /// The batches.
        bytes: Parcel,
    },
    /// Read from a partition.
    Fetch {
        /// Which.
        partition: PartitionId,
        /// From which offset.
        from: Offset,
        /// At most so many bytes, but at least one batch.
        max_bytes: usize,
    },
    /// Look up an offset.
    ListOffset {
        /// In which partition.
        partition: PartitionId,
        /// By what.
        query: OffsetQuery,
    },
    /// Describe a partition.
    Describe {
        /// Which.
        partition: PartitionId,
    },
    /// Advance a partition's first offset.
    DeleteRecords {
        /// Of which.
        partition: PartitionId,
        /// To where.
        before: Offset,
    },
    /// Tell what it has counted.
    Stats,
    /// Change the catalog; for the controller.
    Command(Command),
    /// Take a change of the catalog over; from the controller.
    Apply(Box<MetadataRecord>),
}

/// What came of a [`Remote`].
#[derive(Debug)]
pub enum Reply {
    /// Records were appended.
    Appended(Appended),
    /// Records were not appended.
    AppendRefused(AppendError),
    /// Batches.
    Fetched {
        /// Whole batches.
        bytes: Parcel,
        /// The offset after the last record of them.
        next: Offset,
        /// First offset of the log.
        first: Offset,
        /// Records below this are shown to readers.
        high_watermark: Offset,
    },
    /// There is nothing at the offset yet.
    End {
        /// First offset of the log.
        first: Offset,
        /// Records below this are shown to readers.
        high_watermark: Offset,
    },
    /// Nothing can be read.
    ReadRefused(ReadError),
    /// An offset, with the timestamp that it was found by.
    Offset(Option<(Offset, Timestamp)>),
    /// A partition.
    Status(PartitionStatus),
    /// The new first offset.
    Deleted {
        /// Which.
        first: Offset,
    },
    /// What the shard has counted.
    Stats(Box<ShardStats>),
    /// The catalog was changed, everywhere; or not.
    Command(Result<(), CommandError>),
    /// The change was taken over.
    Applied,
    /// A bound was reached; try again.
    Busy,
}

/// Requests under way to other shards, and from them.
#[derive(Debug)]
pub(super) struct Calls {
    waiting: RefCell<Slab<Asker>>,
    /// Watches of other shards' partitions: whom to tell. None: taken back, and the owner has not said so yet.
    watches: RefCell<Slab<Option<(Session, u64)>>>,
    /// Appends and watches for others: where their outcomes go. The ticket of an append is the number in `answering`,
    /// that of a watch is made of its asker and the asker's number ([`watch_ticket`]).
    session: Session,
    answering: RefCell<Slab<(ShardId, u32)>>,
    /// Messages that found a ring full; bounded by the bounds of who asks.
    overflow: RefCell<VecDeque<(ShardId, Envelope)>>,
    /// Batches for others, and of answers to them.
    parcels: Parcels,
    /// The shard's tasks have ended.
    pub(super) ended: Cell<bool>,
}

#[derive(Debug)]
enum Asker {
    Session(Session, u64),
    Task(Rc<Slot>),
}

#[derive(Debug, Default)]
struct Slot {
    reply: RefCell<Option<Reply>>,
    arrived: Event,
}

impl Calls {
    pub(super) fn new() -> Calls {
        Calls {
            waiting: RefCell::default(),
            watches: RefCell::default(),
            session: Session::new(0),
            answering: RefCell::default(),
            overflow: RefCell::default(),
            parcels: Parcels::default(),
            ended: Cell::new(false),
        }
    }
}

impl Shard {
    /// Asks another shard on behalf of a session; the answer arrives there as [`Completed::Remote`] under `ticket`.
    /// Answers of several requests may come in any order, but appends to one partition are done in the order asked.
    ///
    /// # Errors
    /// The request, if too many are under way.
    pub fn forward(&self, to: ShardId, remote: Remote, session: &Session, ticket: u64) -> Result<(), Remote> {
        self.call(to, remote, Asker::Session(session.clone(), ticket))
    }

    /// Batches to be appended by another shard. None if too many bytes are on their way from this one.
    pub fn parcel(&self, batches: &[u8]) -> Option<Parcel> {
        self.0.remote.parcels.pack([batches])
    }

    /// Asks any shard, also this one, and waits for the answer.
    pub async fn ask(&self, to: ShardId, remote: Remote) -> Reply {
        let slot = Rc::new(Slot::default());
        if self.call(to, remote, Asker::Task(slot.clone())).is_err() {
            return Reply::Busy;
        }
        loop {
            let arrived = slot.arrived.wait();
            if let Some(reply) = slot.reply.take() {
                return reply;
            }
            arrived.await;
        }
    }

    /// What any shard has counted. None where it has too much to do to answer, or there is none.
    pub async fn stats_of(&self, shard: ShardId) -> Option<ShardStats> {
        if shard == self.id() {
            return Some(self.stats());
        }
        if shard.0 >= self.shards() {
            return None;
        }
        match self.ask(shard, Remote::Stats).await {
            Reply::Stats(stats) => Some(*stats),
            _ => None,
        }
    }

    fn call(&self, to: ShardId, remote: Remote, asker: Asker) -> Result<(), Remote> {
        let mut waiting = self.0.remote.waiting.borrow_mut();
        if waiting.len() >= CALLS_MAX {
            return Err(remote);
        }
        let call = waiting.insert(asker);
        match self.0.mesh.try_send(to, Envelope::Request { call: call as u32, remote }) {
            Ok(()) => Ok(()),
            Err(Envelope::Request { remote, .. }) => {
                waiting.remove(call);
                Err(remote)
            }
            Err(_) => unreachable!("the message comes back as it was"),
        }
    }

    /// Tells the session, under `ticket`, once a partition of another shard has a record at or after `from`, or is gone.
    /// Whoever asks bounds how many of these it has. No request is under way meanwhile.
    pub fn watch_remote(
        &self,
        owner: ShardId,
        partition: PartitionId,
        from: Offset,
        session: &Session,
        ticket: u64,
    ) -> RemoteWatch {
        let watch = self.0.remote.watches.borrow_mut().insert(Some((session.clone(), ticket))) as u32;
        self.post(owner, Envelope::Watch { watch, partition, from });
        RemoteWatch(watch)
    }

    /// Takes a watch back, if it was not told yet.
    pub fn unwatch_remote(&self, owner: ShardId, partition: PartitionId, RemoteWatch(watch): RemoteWatch) {
        if let Some(asker) = self.0.remote.watches.borrow_mut().get_mut(watch as usize)
            && asker.take().is_some()
        {
            self.post(owner, Envelope::Unwatch { watch, partition });
        }
    }

    /// Takes messages of other shards for as long as the node runs.
    pub(super) async fn run_mesh(&self) {
        loop {
            let (from, envelope) = self.0.mesh.receive().await;
            self.take_envelope(from, envelope);
        }
    }

    pub(super) fn take_envelope(&self, from: ShardId, envelope: Envelope) {
        match envelope {
            Envelope::Request { call, remote } => self.take_request(from, call, remote),
            Envelope::Answer { call, reply } => self.take_answer(call, reply),
            Envelope::Watch { watch, partition, from: offset } => self.watch_for(from, watch, partition, offset),
            Envelope::Unwatch { watch, partition } => self.unwatch_for(from, watch, partition),
            Envelope::WatchEnded { watch } => self.end_watch(watch),
            Envelope::Boot(_) => {}
        }
        self.send_overflow();
    }

    fn take_request(&self, from: ShardId, call: u32, remote: Remote) {
        self.count_crossing(&remote);
        match remote {
            Remote::Append { partition, bytes } => self.append_for(from, call, partition, &bytes),
            remote => {
                let shard = self.clone();
                let task = async move {
                    let reply = shard.answer(remote).await;
                    shard.send_answer(from, call, reply);
                };
                self.reactor().spawn(task).detach();
            }
        }
    }

    /// Counts what clients sent to the wrong shard; what the node asks itself is no such thing.
    fn count_crossing(&self, remote: &Remote) {
        let partition = match remote {
            Remote::Append { partition, .. }
            | Remote::Fetch { partition, .. }
            | Remote::ListOffset { partition, .. }
            | Remote::DeleteRecords { partition, .. } => partition,
            Remote::Describe { .. } | Remote::Stats | Remote::Command(_) | Remote::Apply(_) => return,
        };
        count(&self.0.counters.crossings, 1);
        if let Some(handle) = self.open(*partition)
            && let Some(partition) = self.0.partitions.borrow_mut().get_mut(handle)
        {
            partition.crossings += 1;
        }
    }

    fn append_for(&self, from: ShardId, call: u32, partition: PartitionId, bytes: &[u8]) {
        let calls = &self.0.remote;
        let ticket = calls.answering.borrow_mut().insert((from, call));
        let handle = self.open(partition).ok_or(AppendError::UnknownPartition);
        let appended = handle.and_then(|handle| self.append(handle, bytes, &calls.session, ticket as u64));
        if let Err(error) = appended {
            calls.answering.borrow_mut().remove(ticket);
            self.send_answer(from, call, Reply::AppendRefused(error));
        }
    }

    fn watch_for(&self, asker: ShardId, watch: u32, partition: PartitionId, from: Offset) {
        let ticket = watch_ticket(asker, watch);
        let handle = self.open(partition);
        let watched = handle.is_some_and(|handle| self.watch(handle, from, &self.0.remote.session, ticket).is_ok());
        if !watched {
            self.post(asker, Envelope::WatchEnded { watch });
        }
    }

    fn unwatch_for(&self, asker: ShardId, watch: u32, partition: PartitionId) {
        let ticket = watch_ticket(asker, watch);
        // A watch that is not there any more has said, or is about to say, that it ended.
        if self.open(partition).is_some_and(|handle| self.unwatch(handle, &self.0.remote.session, ticket)) {
            self.post(asker, Envelope::WatchEnded { watch });
        }
    }

    fn end_watch(&self, watch: u32) {
        if let Some(Some((session, ticket))) = self.0.remote.watches.borrow_mut().try_remove(watch as usize) {
            session.readable(ticket);
        }
    }

    /// Answers appends of other shards as they are completed, and their watches, for as long as the node runs.
    pub(super) async fn run_answers(&self) {
        loop {
            self.0.remote.session.completed().await;
            while let Some(completed) = self.0.remote.session.pop() {
                let (ticket, reply) = match completed {
                    Completed::Appended { ticket, appended } => (ticket, Reply::Appended(appended)),
                    Completed::Refused { ticket, error } => (ticket, Reply::AppendRefused(error)),
                    Completed::Readable { ticket } => {
                        let (asker, watch) = watch_of(ticket);
                        self.post(asker, Envelope::WatchEnded { watch });
                        continue;
                    }
                    Completed::Remote { .. } => continue,
                };
                let asker = self.0.remote.answering.borrow_mut().try_remove(ticket as usize);
                if let Some((from, call)) = asker {
                    self.send_answer(from, call, reply);
                }
            }
        }
    }

    async fn answer(&self, remote: Remote) -> Reply {
        match remote {
            Remote::Append { .. } => Reply::Busy,
            Remote::Fetch { partition, from, max_bytes } => self.fetch_for(partition, from, max_bytes).await,
            Remote::ListOffset { partition, query } => match self.open(partition) {
                None => Reply::ReadRefused(ReadError::UnknownPartition),
                Some(handle) => self.list_offset(handle, query).await.map_or_else(Reply::ReadRefused, Reply::Offset),
            },
            Remote::Describe { partition } => match self.open(partition).and_then(|handle| self.describe(handle)) {
                None => Reply::ReadRefused(ReadError::UnknownPartition),
                Some(status) => Reply::Status(status),
            },
            Remote::DeleteRecords { partition, before } => match self.open(partition) {
                None => Reply::ReadRefused(ReadError::UnknownPartition),
                Some(handle) => match self.delete_records(handle, before).await {
                    Ok(first) => Reply::Deleted { first },
                    Err(error) => Reply::ReadRefused(error),
                },
            },
            Remote::Stats => Reply::Stats(Box::new(self.stats())),
            Remote::Command(command) => Reply::Command(self.control(command).await),
            Remote::Apply(record) => {
                self.apply_change(&record);
                Reply::Applied
            }
        }
    }

    async fn fetch_for(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Reply {
        let Some(handle) = self.open(partition) else { return Reply::ReadRefused(ReadError::UnknownPartition) };
        if self.0.remote.parcels.are_full() {
            return Reply::Busy;
        }
        let (mut cursor, mut out) = (Cursor::default(), Outgoing::new());
        match self.read_disk(handle, from, max_bytes, &mut cursor, &mut out).await {
            Err(error) => Reply::ReadRefused(error),
            Ok(Read::Data { next, high_watermark, .. }) => {
                let first = self.first_or(handle, from);
                // Others may have sent as much meanwhile.
                match self.0.remote.parcels.pack(out.pieces().iter().map(|piece| &piece[..])) {
                    Some(bytes) => Reply::Fetched { bytes, next, first, high_watermark },
                    None => Reply::Busy,
                }
            }
            Ok(Read::End { high_watermark }) => Reply::End { first: self.first_or(handle, from), high_watermark },
            Ok(Read::OnDisk) => Reply::Busy,
        }
    }

    fn first_or(&self, handle: PartitionHandle, from: Offset) -> Offset {
        self.first_offset(handle).unwrap_or(from)
    }

    fn take_answer(&self, call: u32, reply: Reply) {
        match self.0.remote.waiting.borrow_mut().try_remove(call as usize) {
            Some(Asker::Session(session, ticket)) => session.push(Completed::Remote { ticket, reply }),
            Some(Asker::Task(slot)) => {
                slot.reply.replace(Some(reply));
                slot.arrived.notify();
            }
            None => {}
        }
    }

    fn send_answer(&self, to: ShardId, call: u32, reply: Reply) {
        if planted::active(Bug::CrossingLost) && self.reactor().random().is_multiple_of(64) {
            return;
        }
        self.post(to, Envelope::Answer { call, reply });
    }

    /// Sends a message that must arrive: behind those that wait for room, if there are any.
    fn post(&self, to: ShardId, envelope: Envelope) {
        let mut overflow = self.0.remote.overflow.borrow_mut();
        if !overflow.is_empty() {
            return overflow.push_back((to, envelope));
        }
        if let Err(envelope) = self.0.mesh.try_send(to, envelope) {
            overflow.push_back((to, envelope));
            let shard = self.clone();
            let task = async move {
                while !shard.send_overflow() {
                    shard.reactor().sleep(Duration::from_micros(100)).await;
                }
            };
            self.reactor().spawn(task).detach();
        }
    }

    /// True when nothing is left to send.
    fn send_overflow(&self) -> bool {
        let mut overflow = self.0.remote.overflow.borrow_mut();
        while let Some((to, envelope)) = overflow.pop_front() {
            if let Err(envelope) = self.0.mesh.try_send(to, envelope) {
                overflow.push_front((to, envelope));
                return false;
            }
        }
        true
    }
}

/// In whose name a shard watches a partition for another one.
fn watch_ticket(asker: ShardId, watch: u32) -> u64 {
    u64::from(asker.0) << 32 | u64::from(watch)
}

fn watch_of(ticket: u64) -> (ShardId, u32) {
    (ShardId((ticket >> 32) as u16), ticket as u32)
}
