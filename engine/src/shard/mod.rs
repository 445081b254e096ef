//! One core's share of the node: its partitions, its journal, and the tasks that serve them.
//!
//! A produced batch: [`append`] checks it, gives it its offsets and copies it to the partition's tail; [`commit`] puts
//! it in the next journal entry, one flush for all partitions, and tells the asker; [`checkpoint`] writes it to its
//! segment later. A fetch: [`read`] takes slices of the tail, or reads the segment. Nothing here knows a wire protocol.

pub(crate) mod append;
mod boot;
mod checkpoint;
mod commit;
mod compact;
mod controller;
mod event;
mod files;
mod groups;
mod journal;
mod line;
mod memory;
mod pace;
mod parcel;
mod partition;
mod producers;
mod read;
mod recover;
mod remote;
mod segments;
mod session;
mod stats;
#[cfg(test)]
mod suite;
mod tend;

pub use controller::{Command, CommandError};
pub use event::Event;
pub use groups::{GROUP_MEMBERS_MAX, GROUP_METADATA_BYTES_MAX, GroupSettings, Listed};
pub use line::{Line, Place as LinePlace};
pub use parcel::Parcel;
pub use read::{Cursor, FetchPath, OffsetQuery, Read};
pub use remote::{Envelope, Remote, RemoteWatch, Reply};
pub use session::{Appended, Completed, Session};
pub use stats::{Bucket, Count, CountKind, ShardCounters, ShardStats, Stage, StageStats, Stages, count};

use crate::data_dir::NodeFile;
use crate::error::{AppendError, ReadError, ShardError};
use crate::log::tail::Place;
use crate::metadata::{Bounds, Catalog, TopicSettings};
use crate::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use crate::planted::{self, Bug};
use crate::reactor::mesh::MeshHandle;
use crate::reactor::{AppendBuffer, Reactor};
use partition::{Partition, Watcher};
use slab::Slab;
use std::cell::{Cell, Ref, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A hash table with fixed keys: the simulator needs the same order in every run, and no key here is a client's choice.
type Table<K, V> = HashMap<K, V, FixedKeys>;

/// Builds hashers with fixed keys.
#[derive(Debug, Clone)]
struct FixedKeys(ahash::RandomState);

impl Default for FixedKeys {
    fn default() -> FixedKeys {
        FixedKeys(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }
}

impl std::hash::BuildHasher for FixedKeys {
    type Hasher = <ahash::RandomState as std::hash::BuildHasher>::Hasher;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// What a shard needs to know. Relations between the numbers are checked when it starts.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Root of the data directory.
    pub data_dir: PathBuf,
    /// Generation of the shard layout: the directory that journals and checkpoints are in.
    pub generation: u64,
    /// Number of the node in its cluster.
    pub node: u32,
    /// Size of the journal, in bytes: whole blocks, at least four entries.
    pub journal_bytes: u64,
    /// The longest journal entry, in bytes: whole blocks.
    pub entry_bytes_max: usize,
    /// Journal entries between write and flush at the same time: 1 gives the best p99, 2 the best throughput.
    pub commits_in_flight: usize,
    /// From this many pending bytes on, an entry is written while another one is under way.
    pub beside_bytes_min: usize,
    /// From this many bytes of one partition in one commit on, whole blocks go straight to the segment.
    pub direct_bytes_min: usize,
    /// Memory for tails, in bytes.
    pub tail_bytes_max: usize,
    /// Memory for appends that wait for their segment, in bytes.
    pub waiting_bytes_max: usize,
    /// How much is read from disk at once for a reader, in bytes.
    pub read_bytes: usize,
    /// Memory for what was read from disk, in bytes.
    pub read_bytes_max: usize,
    /// How what is no longer in memory gets to readers.
    pub fetch_path: FetchPath,
    /// Segment files open at the same time.
    pub files_max: usize,
    /// A checkpoint is taken at least this often if anything changed.
    pub checkpoint_interval: Duration,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// How often it is looked for what is to be compacted.
    pub compaction_interval: Duration,
    /// How long a producer that numbers its batches is remembered after the last of them.
    pub producer_expiration: Duration,
    /// How many of them are remembered, counted once for each partition that they write to.
    pub producers_max: usize,
    /// How groups of consumers are coordinated.
    pub groups: GroupSettings,
    /// Free space below which appends are refused, in bytes.
    pub disk_reserve_bytes: u64,
    /// Bounds of the catalog.
    pub bounds: Bounds,
}

/// An open partition of this shard. Refused, never confused, once the partition is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartitionHandle {
    slot: u32,
    generation: u32,
}

/// What a partition looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// First offset of the log.
    pub first: Offset,
    /// The offset that the next record gets.
    pub next: Offset,
    /// Records below this are shown to readers.
    pub high_watermark: Offset,
    /// Bytes of the log, in segments and in memory.
    pub bytes: u64,
    /// Segments, the active one included.
    pub segments: u32,
    /// The term that batches are stamped with.
    pub leader_epoch: LeaderEpoch,
    /// Requests since the start that arrived at another shard and crossed to this one.
    pub crossings: u64,
    /// Why the partition takes no writes, if it is damaged.
    pub fenced: Option<Arc<str>>,
}

/// The partitions of a shard.
#[derive(Debug, Default)]
struct Partitions {
    slots: Slab<(u32, Partition)>,
    by_id: Table<PartitionId, PartitionHandle>,
    generation: u32,
}

impl Partitions {
    fn get(&self, handle: PartitionHandle) -> Option<&Partition> {
        let (generation, partition) = self.slots.get(handle.slot as usize)?;
        (*generation == handle.generation || planted::active(Bug::StaleHandleServed)).then_some(partition)
    }

    fn get_mut(&mut self, handle: PartitionHandle) -> Option<&mut Partition> {
        let (generation, partition) = self.slots.get_mut(handle.slot as usize)?;
        (*generation == handle.generation || planted::active(Bug::StaleHandleServed)).then_some(partition)
    }

    fn insert(&mut self, partition: Partition) -> PartitionHandle {
        self.generation = self.generation.wrapping_add(1);
        let (id, generation) = (partition.id, self.generation);
        let slot = self.slots.insert((generation, partition)) as u32;
        let handle = PartitionHandle { slot, generation };
        self.by_id.insert(id, handle);
        handle
    }

    fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let handle = self.by_id.remove(&id)?;
        self.slots.try_remove(handle.slot as usize).map(|(_, partition)| partition)
    }

    fn handles(&self) -> Vec<PartitionHandle> {
        let handle = |(slot, (generation, _)): (usize, &(u32, Partition))| PartitionHandle {
            slot: slot as u32,
            generation: *generation,
        };
        self.slots.iter().map(handle).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    /// Takes no more requests; what is under way is completed.
    Stopping,
    /// An I/O error: nothing is acknowledged any more until the log was read again from disk.
    Failed(ShardError),
}

/// See the module. A cheap handle; all clones are the same shard.
#[derive(Clone)]
pub struct Shard(Rc<Inner>);

struct Inner {
    reactor: Reactor,
    memory: memory::OwnMemory,
    mesh: MeshHandle<Envelope>,
    config: ShardConfig,
    node: NodeFile,
    state: RefCell<State>,
    /// The end of the state of running, or of the shard.
    state_changed: Event,
    stop_wanted: Cell<bool>,
    catalog: RefCell<Catalog>,
    /// How often that has changed.
    catalog_changes: Cell<u64>,
    partitions: RefCell<Partitions>,
    journal: RefCell<journal::Journal>,
    commits: commit::Commits,
    pace: pace::Pace,
    rebuilds: read::Rebuilds,
    checkpoints: checkpoint::Checkpoints,
    files: segments::SegmentFiles,
    retention: tend::Retention,
    producers: producers::Producers,
    coordinator: groups::Coordinator,
    remote: remote::Calls,
    controller: controller::Controller,
    counters: ShardCounters,
    stages: Stages,
    /// Chunks taken for the append at hand; kept so that it allocates nothing.
    spare_chunks: RefCell<VecDeque<AppendBuffer>>,
    tail_bytes: Cell<usize>,
    waiting_bytes: Cell<usize>,
    read_bytes: Rc<Cell<usize>>,
    storage_full: Cell<bool>,
    /// Bytes of the disk that may be taken before it is looked at again.
    space_left: Cell<u64>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Shard {
    /// Which one.
    pub fn id(&self) -> ShardId {
        self.0.reactor.shard()
    }

    /// How many there are on this node.
    pub fn shards(&self) -> u16 {
        self.0.reactor.shards()
    }

    /// The node: its cluster and its number there.
    pub fn node(&self) -> &NodeFile {
        &self.0.node
    }

    /// Root of the data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.0.config.data_dir
    }

    /// What everything outside goes through.
    pub fn reactor(&self) -> &Reactor {
        &self.0.reactor
    }

    fn note_catalog_changed(&self) {
        self.0.catalog_changes.set(self.0.catalog_changes.get() + 1);
    }

    /// Topics as this shard knows them.
    pub fn catalog(&self) -> Ref<'_, Catalog> {
        self.0.catalog.borrow()
    }

    /// Which shard a partition lives on, if there is such a partition.
    pub fn owner(&self, topic: TopicId, index: PartitionIndex) -> Option<ShardId> {
        self.catalog().owner(topic, index, self.shards())
    }

    /// Opens a partition that lives here. None if it does not.
    pub fn open(&self, id: PartitionId) -> Option<PartitionHandle> {
        if id.is_metadata() { None } else { self.handle_of(id) }
    }

    fn handle_of(&self, id: PartitionId) -> Option<PartitionHandle> {
        self.0.partitions.borrow().by_id.get(&id).copied()
    }

    fn id_of(&self, handle: PartitionHandle) -> Option<PartitionId> {
        self.0.partitions.borrow().get(handle).map(|partition| partition.id)
    }

    /// A partition's extent and health.
    pub fn describe(&self, handle: PartitionHandle) -> Option<PartitionStatus> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle)?;
        Some(PartitionStatus {
            first: partition.first,
            next: partition.next,
            high_watermark: partition.visible,
            bytes: partition.bytes(),
            segments: partition.sealed.len() as u32 + u32::from(partition.active.is_some()),
            leader_epoch: partition.leader_epoch,
            crossings: partition.crossings,
            fenced: partition.fenced.clone(),
        })
    }

    /// A partition's first offset: what of [`Shard::describe`] every answer to a reader carries.
    pub fn first_offset(&self, handle: PartitionHandle) -> Option<Offset> {
        self.0.partitions.borrow().get(handle).map(|partition| partition.first)
    }

    /// Whether a partition is damaged: it takes no writes, and what is readable of it is all there will be.
    pub fn is_fenced(&self, handle: PartitionHandle) -> bool {
        self.0.partitions.borrow().get(handle).is_some_and(|partition| partition.fenced.is_some())
    }

    /// The settings of a partition's topic.
    pub fn settings(&self, handle: PartitionHandle) -> Option<TopicSettings> {
        self.0.partitions.borrow().get(handle).map(|partition| partition.settings)
    }

    /// Tells the session once there is a record at or after `from` to read, or none will come because the partition is
    /// fenced; at once if that is so already. Whoever asks bounds how many of these it has.
    ///
    /// # Errors
    /// If the partition is gone.
    pub fn watch(
        &self,
        handle: PartitionHandle,
        from: Offset,
        session: &Session,
        ticket: u64,
    ) -> Result<(), ReadError> {
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(ReadError::UnknownPartition)?;
        if partition.visible > from || partition.fenced.is_some() {
            session.readable(ticket);
        } else {
            partition.watchers.push(Watcher { from, session: session.clone(), ticket });
        }
        Ok(())
    }

    /// Takes a watch back. False if it was told already, or the partition is gone.
    pub fn unwatch(&self, handle: PartitionHandle, session: &Session, ticket: u64) -> bool {
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle) else { return false };
        let watches = partition.watchers.len();
        partition.watchers.retain(|watcher| watcher.ticket != ticket || !watcher.session.is(session));
        partition.watchers.len() < watches
    }

    /// Advances a partition's first offset to `before`, so that older records are gone; returns the new first offset
    /// once that is durable.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `before` lies behind the last record.
    pub async fn delete_records(&self, handle: PartitionHandle, before: Offset) -> Result<Offset, ReadError> {
        self.check_running().map_err(|_| ReadError::Reopening)?;
        {
            let mut partitions = self.0.partitions.borrow_mut();
            let partition = partitions.get_mut(handle).ok_or(ReadError::UnknownPartition)?;
            if before > partition.visible || before.0 < 0 {
                return Err(ReadError::OutOfRange { first: partition.first, next: partition.visible });
            }
            self.advance_first(handle, partition, before);
        }
        loop {
            let settled = self.0.commits.settled.wait();
            self.check_running().map_err(|_| ReadError::Reopening)?;
            let first = self.0.partitions.borrow().get(handle).map(|partition| partition.first);
            match first.ok_or(ReadError::UnknownPartition)? {
                first if first >= before => return Ok(first),
                _ => settled.await,
            }
        }
    }

    /// Journals an advance of the first offset. It shows once it is durable.
    fn advance_first(&self, handle: PartitionHandle, partition: &mut Partition, first: Offset) {
        let known = partition.first_due.unwrap_or(partition.first).max(partition.journaled.first);
        if first > known && first <= partition.next {
            partition.first_due = Some(first);
            self.queue_for_journal(handle, partition, 0);
        }
    }

    /// Stops taking writes for a partition, and says why.
    fn fence(&self, handle: PartitionHandle, why: String) -> AppendError {
        let why: Arc<str> = why.into();
        if let Some(partition) = self.0.partitions.borrow_mut().get_mut(handle) {
            if partition.fenced.is_none() {
                eprintln!("corelog: {} is fenced: {why}", partition.id.called());
            }
            partition.fenced.get_or_insert(why.clone());
            for watcher in partition.watchers.drain(..) {
                watcher.session.readable(watcher.ticket);
            }
        }
        AppendError::Fenced(why)
    }

    fn check_running(&self) -> Result<(), AppendError> {
        match *self.0.state.borrow() {
            State::Running => Ok(()),
            _ => Err(AppendError::Reopening),
        }
    }

    fn is_stopping(&self) -> bool {
        *self.0.state.borrow() == State::Stopping
    }

    fn has_failed(&self) -> bool {
        matches!(*self.0.state.borrow(), State::Failed(_))
    }

    /// Stops acknowledging: after an I/O error nothing is known of what is on the disk until it was read again.
    fn fail(&self, error: ShardError) {
        if self.has_failed() {
            return;
        }
        eprintln!("corelog: shard {} stops acknowledging and reopens its log: {error}", self.id());
        *self.0.state.borrow_mut() = State::Failed(error);
        self.wake_all();
    }

    /// Takes no more requests, completes what is under way, takes a checkpoint, and ends the shard's tasks.
    pub async fn stop(&self) {
        self.0.stop_wanted.set(true);
        if *self.0.state.borrow() == State::Running {
            *self.0.state.borrow_mut() = State::Stopping;
            self.wake_all();
        }
        while !self.0.remote.ended.get() {
            self.0.state_changed.wait().await;
        }
    }

    fn wake_all(&self) {
        self.0.commits.work.notify();
        self.0.commits.settled.notify();
        self.0.checkpoints.wanted.notify();
        self.0.state_changed.notify();
    }

    /// Drops the memory of a partition's tail.
    fn drop_tail(&self, partition: &mut Partition) {
        self.0.tail_bytes.set(self.0.tail_bytes.get() - partition.tail.bytes());
        partition.tail.clear();
    }
}

impl PartitionId {
    /// The metadata log.
    pub const METADATA: PartitionId = PartitionId { topic: TopicId::METADATA, index: PartitionIndex(0) };

    fn is_metadata(&self) -> bool {
        self.topic == TopicId::METADATA
    }
}

impl Partition {
    /// Where the next batch goes, if the segment for it exists.
    pub(crate) fn active_end(&self) -> Option<Place> {
        self.active.as_ref().map(|active| Place { segment: active.base, position: active.end })
    }
}
