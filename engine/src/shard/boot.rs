//! The start of a node: shard 0 opens the data directory, every shard recovers the journals that fall to it, shard 0
//! reads the metadata log and spreads the catalog, and partitions go to the shards that the catalog gives them to.
//!
//! With another number of shards than before, everything goes to a directory of the next generation; the node file,
//! replaced last, decides which generation counts.

use super::commit::{Commits, run_bytes_max};
use super::journal::{Debt, Journal};
use super::memory::OwnMemory;
use super::pace::Pace;
use super::partition::{Active, Mark, Partition, Sealed};
use super::read::Rebuilds;
use super::recover::{Found, Reader, ensure_journal, fresh_journal, keep_journal, settle};
use super::remote::{Calls, Envelope};
use super::{
    Cursor, Event, Inner, PartitionHandle, Partitions, Read, Shard, ShardConfig, ShardCounters, Stages, State,
    checkpoint, controller, count, groups, producers, segments, tend,
};
use crate::data_dir::{self, DataDir, NodeFile, Opened};
use crate::error::{AppendError, ShardError};
use crate::log::checkpoint::CheckpointState;
use crate::log::frame::Sequence;
use crate::log::index::SparseIndex;
use crate::log::paths;
use crate::log::recovery::Recovered;
use crate::log::tail::{Place, block_ceil};
use crate::metadata::{Catalog, MetadataRecord, Replay, TopicSettings};
use crate::model::{Offset, PartitionId, Position, ShardId};
use crate::reactor::mesh::MeshHandle;
use crate::reactor::{Open, Outgoing, Reactor};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The time between two tries to reopen a log after an I/O error.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
const FIRST: ShardId = ShardId(0);

/// Messages of the start.
#[derive(Debug)]
pub enum Boot {
    /// From shard 0: what the data directory is.
    Layout(DataDir),
    /// From shard 0: the topics, and whether they are all that there were.
    Catalog(Vec<MetadataRecord>, bool),
    /// Partitions that move to the receiver.
    HandOver(Vec<(PartitionId, Recovered)>),
    /// To shard 0: all that is mine is recovered.
    Ready,
    /// From shard 0: everybody is ready.
    Go,
}

/// A shard on its way to serving.
struct Start {
    reactor: Reactor,
    memory: OwnMemory,
    mesh: MeshHandle<Envelope>,
    config: ShardConfig,
    /// Messages that came before their time.
    early: Vec<(ShardId, Envelope)>,
    /// Shards of the old layout whose journal is damaged, and why a partition is fenced that nothing was found of then.
    damaged: BTreeMap<ShardId, String>,
    /// Directories of the old layout whose journal was read, and not set aside, with the numbers of their checkpoint files.
    read: Vec<(PathBuf, u64)>,
    /// Whether a topic that the catalog lacks was deleted: else it may be what the metadata log has lost.
    knows_all_topics: bool,
}

impl Shard {
    /// Starts this shard of a node together with the others; done when all can serve.
    ///
    /// # Errors
    /// One sentence for the operator. Nothing was changed on disk that the next start could not build on.
    pub async fn start(reactor: Reactor, mesh: MeshHandle<Envelope>, config: ShardConfig) -> Result<Shard, ShardError> {
        let memory = OwnMemory::set_aside(&reactor, &config)?;
        let mut start = Start {
            reactor,
            memory,
            mesh,
            config,
            early: Vec::new(),
            damaged: BTreeMap::new(),
            read: Vec::new(),
            knows_all_topics: true,
        };
        let opened = start.open_directory().await?;
        let directory = match &opened {
            Some(opened) => opened.dir.clone(),
            None => start.wait_layout().await,
        };
        start.run(directory, opened).await
    }
}

impl Start {
    fn id(&self) -> ShardId {
        self.reactor.shard()
    }

    fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.id();
        (0..self.reactor.shards()).map(ShardId).filter(move |shard| *shard != me)
    }

    async fn open_directory(&mut self) -> Result<Option<Opened>, ShardError> {
        if self.id() != FIRST {
            return Ok(None);
        }
        let random = u128::from(self.reactor.random()) << 64 | u128::from(self.reactor.random());
        let cluster_id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
        // Generation 0 has no shards: a directory that was made and nothing more.
        let new = NodeFile { cluster_id, node_id: self.config.node, generation: 0, shards: 0 };
        let opened = data_dir::open(&self.reactor, &self.config.data_dir, new).await.map_err(told)?;
        opened.dir.remove_leftovers(&self.reactor).await.map_err(told)?;
        let root = &self.config.data_dir;
        for path in [paths::topics(root)] {
            self.reactor.create_dir(&path).await.map_err(|error| ShardError::io("creating", &path, &error))?;
        }
        for shard in self.others() {
            self.send(shard, Boot::Layout(opened.dir.clone())).await;
        }
        Ok(Some(opened))
    }

    async fn run(mut self, mut directory: DataDir, opened: Option<Opened>) -> Result<Shard, ShardError> {
        let moves = directory.node.shards != self.reactor.shards();
        let target = if moves { directory.next_generation(self.reactor.shards()) } else { directory.node };
        self.config.generation = target.generation;
        self.config.node = target.node_id;
        let (found, checkpoint, entries) = self.recover_old(&directory).await?;
        let own_directory = self.make_directory(target.generation).await?;
        let shard = Shard(Rc::new(self.inner(target)?));
        let found = self.take_metadata(&shard, found).await?;
        let is_known = |(id, _): &(PartitionId, Recovered)| shard.catalog().topic(id.topic).is_some();
        let (mut found, unknown): (Vec<_>, Vec<_>) = found.into_iter().partition(is_known);
        if !self.knows_all_topics {
            self.keep_unknown(unknown).await?;
        }
        found.extend(self.lost_whole(&shard.catalog(), directory.node.shards, &found));
        self.settle(&mut found).await?;
        let mine = self.hand_over(&shard, found, moves).await?;
        tell_fenced(&mine);
        shard.restore(mine);
        shard.begin_journal(checkpoint, &own_directory).await?;
        self.list_recycled(&shard, &own_directory).await?;
        if entries > 0 {
            let entries = if entries == 1 { "1 journal entry".into() } else { format!("{entries} journal entries") };
            eprintln!("corelog: shard {}: recovered {entries}", self.id());
        }
        self.meet(moves, &mut directory, target).await?;
        if self.id() == FIRST {
            directory.remove_leftovers(&self.reactor).await.map_err(told)?;
        }
        // Files of topics that may be lost are not for us to remove, at this start or a later one.
        if self.id() == FIRST && self.knows_all_topics {
            let catalog = shard.catalog().clone();
            directory.remove_orphans(&self.reactor, &catalog).await.map_err(told)?;
        }
        shard.spawn_tasks(opened);
        for (from, envelope) in self.early {
            shard.take_envelope(from, envelope);
        }
        Ok(shard)
    }

    /// Reads the journals of the old layout that fall to this shard. With the same layout that is its own.
    async fn recover_old(
        &mut self,
        directory: &DataDir,
    ) -> Result<(Vec<(PartitionId, Recovered)>, u64, u64), ShardError> {
        let (mut partitions, mut checkpoint, mut entries) = (BTreeMap::new(), 0, 0);
        let node = directory.node;
        let moves = node.shards != self.reactor.shards();
        let (me, shards) = (self.id(), self.reactor.shards());
        for old in (0..node.shards).filter(|old| old % shards == me.0) {
            let path = paths::shard(&self.config.data_dir, node.generation, ShardId(old));
            let Found { recovery, checkpoint: number, damaged, entries: read, torn } =
                Reader::new(&self.reactor, &self.memory, &self.config, path.clone()).read(true).await?;
            if let Some(torn) = torn {
                eprintln!("corelog: shard {me}: {torn}");
            }
            if damaged {
                keep_journal(&self.reactor, &self.memory, &self.config, &path, number).await?;
                self.damaged.insert(ShardId(old), lost_whole(&path));
            } else {
                self.read.push((path, number));
            }
            // Only a shard that stays goes on with the numbers of its checkpoint files.
            checkpoint = if moves { 0 } else { number };
            entries += read;
            partitions.extend(recovery.partitions);
        }
        Ok((partitions.into_iter().collect(), checkpoint, entries))
    }

    /// Partitions of which nothing was found because a damaged journal may have held all there was: they are not empty,
    /// they are damaged.
    fn lost_whole(
        &self,
        catalog: &Catalog,
        shards: u16,
        found: &[(PartitionId, Recovered)],
    ) -> Vec<(PartitionId, Recovered)> {
        let known: BTreeSet<PartitionId> = found.iter().map(|(id, _)| *id).collect();
        let of = |old, why| catalog.owned_by(old, shards).map(move |(id, _)| (id, Recovered::lost_whole(why)));
        let lost = self.damaged.iter().flat_map(|(old, why)| of(*old, why));
        lost.filter(|(id, _)| !known.contains(id)).collect()
    }

    /// Writes what was found to the segments. What could not be put in its place stays in a journal that is set aside before a
    /// checkpoint says that it is not needed.
    async fn settle(&mut self, found: &mut [(PartitionId, Recovered)]) -> Result<(), ShardError> {
        if settle(&self.reactor, &self.memory, &self.config, found).await? {
            for (directory, checkpoint) in std::mem::take(&mut self.read) {
                keep_journal(&self.reactor, &self.memory, &self.config, &directory, checkpoint).await?;
            }
        }
        Ok(())
    }

    /// Writes what a journal has of partitions to their files, where their topics may be what is lost: of no journal that
    /// begins now will it be known any more.
    async fn keep_unknown(&mut self, mut unknown: Vec<(PartitionId, Recovered)>) -> Result<(), ShardError> {
        unknown.retain(|(id, recovered)| !id.is_metadata() && !recovered.pieces.is_empty());
        self.settle(&mut unknown).await?;
        let me = self.id();
        for (id, _) in unknown.iter().take(NAMED) {
            let path = paths::partition(&self.config.data_dir, *id);
            eprintln!(
                "corelog: shard {me}: {} is of a topic that is not known any more: what the journal had of it was written \
                 there, and `corelog dump-log --records {}` shows it",
                path.display(),
                path.display()
            );
        }
        if unknown.len() > NAMED {
            eprintln!(
                "corelog: shard {me}: {} more partitions are of topics that are not known",
                unknown.len() - NAMED
            );
        }
        Ok(())
    }

    async fn make_directory(&self, generation: u64) -> Result<std::path::PathBuf, ShardError> {
        let root = &self.config.data_dir;
        let (all, mine) = (paths::shards(root, generation), paths::shard(root, generation, self.id()));
        for path in [&all, &mine, &mine.join(paths::RECYCLED)] {
            self.reactor.create_dir(path).await.map_err(|error| ShardError::io("creating", path, &error))?;
        }
        for path in [root, &all, &mine] {
            self.reactor.sync_dir(path).await.map_err(|error| ShardError::io("flushing", path, &error))?;
        }
        Ok(mine)
    }

    /// A shard without partitions, and with a journal file that is not yet opened.
    fn inner(&self, node: NodeFile) -> Result<Inner, ShardError> {
        let config = self.config.clone();
        if config.journal_bytes < 4 * config.entry_bytes_max as u64 {
            return Err(ShardError::Memory("the journal must hold at least four entries"));
        }
        // What is too little to go to its segment directly must fit in an entry, or it would wait for ever.
        if config.entry_bytes_max < run_bytes_max(config.direct_bytes_min) {
            return Err(ShardError::Memory("an entry must hold what does not go to its segment directly"));
        }
        Ok(Inner {
            reactor: self.reactor.clone(),
            memory: self.memory.clone(),
            mesh: self.mesh.clone(),
            config,
            node,
            state: RefCell::new(State::Running),
            state_changed: Event::default(),
            stop_wanted: Cell::new(false),
            catalog: RefCell::new(Catalog::default()),
            catalog_changes: Cell::new(1),
            partitions: RefCell::new(Partitions::default()),
            journal: RefCell::new(Journal::closed()),
            commits: Commits::default(),
            pace: Pace::default(),
            rebuilds: Rebuilds::default(),
            checkpoints: checkpoint::Checkpoints::new(),
            files: segments::SegmentFiles::default(),
            retention: tend::Retention::default(),
            producers: producers::Producers::default(),
            coordinator: groups::Coordinator::default(),
            remote: Calls::new(),
            controller: controller::Controller::default(),
            counters: ShardCounters::default(),
            stages: Stages::default(),
            spare_chunks: RefCell::default(),
            tail_bytes: Cell::new(0),
            waiting_bytes: Cell::new(0),
            read_bytes: Rc::default(),
            storage_full: Cell::new(false),
            space_left: Cell::new(0),
        })
    }

    /// On shard 0: puts the metadata log in order, reads it, and spreads the catalog. On others: waits for it.
    async fn take_metadata(
        &mut self,
        shard: &Shard,
        mut found: Vec<(PartitionId, Recovered)>,
    ) -> Result<Vec<(PartitionId, Recovered)>, ShardError> {
        if self.id() != FIRST {
            let told = self.wait(|boot| match boot {
                Boot::Catalog(records, is_whole) => Ok((records, is_whole)),
                other => Err(other),
            });
            let (records, is_whole) = told.await;
            self.knows_all_topics = is_whole;
            shard.load_catalog(&records)?;
            return Ok(found);
        }
        let at = found.iter().position(|(id, _)| id.is_metadata());
        let mut metadata = match at {
            Some(at) => vec![found.swap_remove(at)],
            // Topics may have been in what is damaged: that there are none is not known then.
            None => {
                let lost = self.damaged.get(&FIRST).map(|why| Recovered::lost_whole(why));
                vec![(PartitionId::METADATA, lost.unwrap_or_else(Recovered::empty))]
            }
        };
        self.settle(&mut metadata).await?;
        tell_fenced(&metadata);
        shard.restore(metadata);
        shard.read_metadata().await?;
        shard.warn_of_partitions();
        let is_whole = shard.handle_of(PartitionId::METADATA).is_some_and(|metadata| !shard.is_fenced(metadata));
        self.knows_all_topics = is_whole && !self.damaged.contains_key(&FIRST);
        let records: Vec<MetadataRecord> = shard.catalog().snapshot().collect();
        for other in self.others() {
            self.send(other, Boot::Catalog(records.clone(), self.knows_all_topics)).await;
        }
        Ok(found)
    }

    /// Gives partitions to the shards they belong to, and takes those that belong here.
    async fn hand_over(
        &mut self,
        shard: &Shard,
        found: Vec<(PartitionId, Recovered)>,
        moves: bool,
    ) -> Result<Vec<(PartitionId, Recovered)>, ShardError> {
        if !moves {
            return Ok(found);
        }
        let mut of: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        for (id, recovered) in found {
            let owner = shard.owner(id.topic, id.index).unwrap_or(self.id());
            of.entry(owner).or_default().push((id, recovered));
        }
        let mut mine = of.remove(&self.id()).unwrap_or_default();
        for other in self.others() {
            self.send(other, Boot::HandOver(of.remove(&other).unwrap_or_default())).await;
        }
        for _ in self.others() {
            let more = self.wait(|boot| match boot {
                Boot::HandOver(partitions) => Ok(partitions),
                other => Err(other),
            });
            mine.extend(more.await);
        }
        if !mine.is_empty() {
            eprintln!("corelog: shard {}: took over {} partitions of another layout", self.id(), mine.len());
        }
        Ok(mine)
    }

    async fn list_recycled(&self, shard: &Shard, directory: &Path) -> Result<(), ShardError> {
        let recycled = directory.join(paths::RECYCLED);
        let failed = |error: std::io::Error| ShardError::io("listing", &recycled, &error);
        // Files of an earlier run are few and their numbers would meet those of this one: they go.
        for entry in self.reactor.list_dir(&recycled).await.map_err(failed)? {
            let _ = self.reactor.remove_file(&recycled.join(entry.name)).await;
        }
        shard.0.files.recycled.borrow_mut().clear();
        Ok(())
    }

    /// Waits until every shard is ready. With a new layout shard 0 then makes it the one that counts.
    async fn meet(&mut self, moves: bool, directory: &mut DataDir, target: NodeFile) -> Result<(), ShardError> {
        if self.id() != FIRST {
            self.send(FIRST, Boot::Ready).await;
            self.wait(|boot| if matches!(boot, Boot::Go) { Ok(()) } else { Err(boot) }).await;
            return Ok(());
        }
        for _ in self.others() {
            self.wait(|boot| if matches!(boot, Boot::Ready) { Ok(()) } else { Err(boot) }).await;
        }
        if moves {
            let (from, to) = (directory.node.shards, target.shards);
            directory.replace_node(&self.reactor, target).await.map_err(told)?;
            if from > 0 {
                eprintln!("corelog: the number of shards changed from {from} to {to}; partitions were moved");
            }
        }
        for shard in self.others() {
            self.send(shard, Boot::Go).await;
        }
        Ok(())
    }

    async fn wait_layout(&mut self) -> DataDir {
        self.wait(|boot| match boot {
            Boot::Layout(directory) => Ok(directory),
            other => Err(other),
        })
        .await
    }

    async fn send(&self, to: ShardId, boot: Boot) {
        let mut envelope = Envelope::Boot(Box::new(boot));
        while let Err(back) = self.mesh.try_send(to, envelope) {
            envelope = back;
            self.reactor.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for a message of one kind; others are kept for whoever waits for them.
    async fn wait<T>(&mut self, mut take: impl FnMut(Boot) -> Result<T, Boot>) -> T {
        let mut kept = std::mem::take(&mut self.early);
        let mut taken = None;
        kept.retain_mut(|(_, envelope)| {
            let Envelope::Boot(boot) = envelope else { return true };
            if taken.is_some() {
                return true;
            }
            match take(std::mem::replace(&mut **boot, Boot::Go)) {
                Ok(value) => {
                    taken = Some(value);
                    false
                }
                Err(other) => {
                    **boot = other;
                    true
                }
            }
        });
        self.early = kept;
        if let Some(taken) = taken {
            return taken;
        }
        loop {
            let (from, envelope) = self.mesh.receive().await;
            match envelope {
                Envelope::Boot(boot) => match take(*boot) {
                    Ok(value) => return value,
                    Err(other) => self.early.push((from, Envelope::Boot(Box::new(other)))),
                },
                other => self.early.push((from, other)),
            }
        }
    }
}

/// Why a partition is fenced that nothing was found of, where the journal in this directory is damaged.
fn lost_whole(directory: &Path) -> String {
    format!("{} is damaged and may have held all of it", directory.join(paths::JOURNAL).display())
}

/// So many partitions are named of many.
const NAMED: usize = 20;

/// Names the partitions that are damaged: some of many.
fn tell_fenced(found: &[(PartitionId, Recovered)]) {
    let fenced: Vec<_> = found.iter().filter_map(|(id, found)| Some((id, found.fenced.as_ref()?))).collect();
    for (id, why) in fenced.iter().take(NAMED) {
        eprintln!("corelog: {} is fenced: {why}", id.called());
    }
    if fenced.len() > NAMED {
        eprintln!("corelog: {} more partitions are fenced; `corelog topic describe` names them", fenced.len() - NAMED);
    }
}

fn told(error: impl std::fmt::Display) -> ShardError {
    ShardError::DataDir(error.to_string().into())
}

impl Shard {
    fn load_catalog(&self, records: &[MetadataRecord]) -> Result<(), ShardError> {
        // A snapshot stands for all that came before it.
        let mut replay = Replay::new(Offset(1));
        for record in records {
            replay.record(Offset(0), record).map_err(told)?;
        }
        *self.0.catalog.borrow_mut() = replay.finish().map_err(told)?;
        self.note_catalog_changed();
        Ok(())
    }

    /// Reads the metadata log from its first offset to its end.
    async fn read_metadata(&self) -> Result<(), ShardError> {
        let handle = self.handle_of(PartitionId::METADATA).ok_or(ShardError::DataDir("no metadata log".into()))?;
        let mut from = self.describe(handle).map_or(Offset(0), |status| status.first);
        let mut replay = Replay::new(from);
        let (mut cursor, mut out) = (Cursor::default(), Outgoing::new());
        loop {
            out.clear();
            let read = self.read_disk(handle, from, 1 << 20, &mut cursor, &mut out).await.map_err(told)?;
            let Read::Data { next, .. } = read else { break };
            replay.batches(&out.to_vec()).map_err(told)?;
            from = next;
        }
        *self.0.catalog.borrow_mut() = replay.finish().map_err(told)?;
        self.note_catalog_changed();
        Ok(())
    }

    /// A node that was given less memory than before serves what it has, but promises nothing about its memory.
    fn warn_of_partitions(&self) {
        let (has, most) = (self.catalog().partition_count(), self.0.config.bounds.partitions);
        if has > most {
            eprintln!("corelog: there are {has} partitions, the memory given is for at most {most}: give more memory");
        }
    }

    /// Puts recovered partitions in the table, and adds those that the catalog has and the disk has nothing of.
    fn restore(&self, found: Vec<(PartitionId, Recovered)>) {
        for (id, recovered) in found {
            let settings = match self.catalog().topic(id.topic) {
                Some(topic) => topic.settings,
                None => TopicSettings::default(),
            };
            let settings = if id.is_metadata() { metadata_settings() } else { settings };
            let mut partition = Partition::restored(id, settings, recovered);
            partition.is_internal = self.is_internal(id);
            let known = self.handle_of(id);
            match known {
                Some(handle) => self.replace_partition(handle, partition),
                None => {
                    self.0.partitions.borrow_mut().insert(partition);
                }
            }
        }
        self.add_partitions();
        self.count_producers();
    }

    /// After a reopening: the state is that of the disk; who waits goes on waiting.
    fn replace_partition(&self, handle: PartitionHandle, mut fresh: Partition) {
        if let Some(partition) = self.0.partitions.borrow_mut().get_mut(handle) {
            fresh.watchers = std::mem::take(&mut partition.watchers);
            // What was being written anew may be so now.
            fresh.rewrites = partition.rewrites + 1;
            (fresh.preparing, fresh.reserving) = (partition.preparing, partition.reserving);
            for (producer, window) in partition.producers.iter().filter(|(_, window)| window.is_empty()) {
                fresh.producers.entry(*producer).or_insert(*window);
            }
            *partition = fresh;
        }
    }

    /// Opens the journal as one that nothing of is needed, and says so in a new checkpoint file.
    async fn begin_journal(&self, checkpoint: u64, directory: &Path) -> Result<(), ShardError> {
        let config = &self.0.config;
        let from = fresh_journal(self.reactor(), config);
        let partitions = self.0.partitions.borrow().checkpoint_states();
        let state = CheckpointState { journal: from, partitions };
        // Before the journal may be made anew in another size: a crash in between must find that nothing of it is needed.
        let begun = self.begin_checkpoint_file(checkpoint + 1, state).await?;
        ensure_journal(self.reactor(), &self.0.memory, config, directory).await?;
        let path = directory.join(paths::JOURNAL);
        let file = self.reactor().open(&path, Open::ReadWrite).await;
        let file = file.map_err(|error| ShardError::io("opening", &path, &error))?;
        *self.0.checkpoints.file.borrow_mut() = Some(begun);
        *self.0.journal.borrow_mut() = Journal {
            file: Some(Rc::new(file)),
            path,
            bytes: from.size,
            nonce: from.nonce,
            next: from.position,
            sequence: from.sequence,
            previous: from.previous,
            durable: Sequence(from.sequence.0 - 1),
            flushed: Sequence(from.sequence.0 - 1),
            debt: Debt::None,
            unflushed: 0,
            free_from: from.position,
        };
        Ok(())
    }

    fn spawn_tasks(&self, opened: Option<Opened>) {
        let shard = self.clone();
        let tasks = [
            self.reactor().spawn({
                let shard = shard.clone();
                async move { shard.run_mesh().await }
            }),
            self.reactor().spawn({
                let shard = shard.clone();
                async move { shard.run_answers().await }
            }),
        ];
        let supervisor = async move {
            shard.supervise().await;
            drop(tasks);
            // The lock is the last thing to go.
            drop(opened);
            shard.0.remote.ended.set(true);
            shard.0.state_changed.notify();
        };
        self.reactor().spawn(supervisor).detach();
    }

    /// Runs the shard's tasks; after an I/O error reads the log again from disk and goes on, until told to stop.
    async fn supervise(&self) {
        loop {
            self.run_tasks().await;
            if !self.has_failed() {
                if let Err(error) = self.checkpoint().await {
                    eprintln!("corelog: shard {}: no checkpoint at the end: {error}", self.id());
                }
                return;
            }
            self.give_up_pending();
            while let Err(error) = self.reopen().await {
                eprintln!("corelog: shard {}: reopening failed: {error}", self.id());
                if self.0.stop_wanted.get() {
                    return;
                }
                self.reactor().sleep(REOPEN_INTERVAL).await;
            }
            count(&self.0.counters.reopenings, 1);
            eprintln!("corelog: shard {}: the log is open again", self.id());
            let next = if self.0.stop_wanted.get() { State::Stopping } else { State::Running };
            *self.0.state.borrow_mut() = next;
            self.wake_all();
        }
    }

    async fn run_tasks(&self) {
        let mut tasks = self.begin_lanes();
        let shard = self.clone();
        tasks.push(self.reactor().spawn(async move { shard.run_checkpoints().await }));
        let shard = self.clone();
        tasks.push(self.reactor().spawn(async move { shard.run_retention().await }));
        let shard = self.clone();
        tasks.push(self.reactor().spawn(async move { shard.run_compaction().await }));
        let shard = self.clone();
        tasks.push(self.reactor().spawn(async move { shard.run_space_watch().await }));
        for task in tasks {
            task.await;
        }
    }

    /// Tells everybody with something under way that its outcome is not known.
    fn give_up_pending(&self) {
        self.forget_pending();
        self.0.checkpoints.forget();
        self.0.files.open.borrow_mut().close_all();
        let handles = self.0.partitions.borrow().handles();
        for handle in handles {
            let mut partitions = self.0.partitions.borrow_mut();
            let Some(partition) = partitions.get_mut(handle) else { continue };
            for ack in std::mem::take(&mut partition.acks) {
                ack.asker.refused(AppendError::OutcomeUnknown);
            }
            self.refuse_deferred(partition, &AppendError::Reopening);
            self.drop_tail(partition);
        }
    }

    async fn reopen(&self) -> Result<(), ShardError> {
        let config = &self.0.config;
        let directory = paths::shard(&config.data_dir, config.generation, self.id());
        self.0.journal.borrow_mut().file = None;
        let found = Reader::new(self.reactor(), &self.0.memory, config, directory.clone()).read(true).await?;
        let mut partitions: Vec<_> = found.recovery.partitions.into_iter().collect();
        partitions.retain(|(id, _)| id.is_metadata() || self.handle_of(*id).is_some());
        let is_short = settle(self.reactor(), &self.0.memory, config, &mut partitions).await?;
        if found.damaged || is_short {
            keep_journal(self.reactor(), &self.0.memory, config, &directory, found.checkpoint).await?;
        }
        // Topics may have been deleted meanwhile.
        partitions.retain(|(id, _)| id.is_metadata() || self.handle_of(*id).is_some());
        let seen: Vec<PartitionId> = partitions.iter().map(|(id, _)| *id).collect();
        self.restore(partitions);
        self.reset_unseen(&seen, found.damaged.then(|| lost_whole(&directory)).as_deref());
        self.begin_journal(found.checkpoint, &directory).await
    }

    /// Partitions that the disk has nothing of are empty, unless a damaged journal may have held them.
    fn reset_unseen(&self, seen: &[PartitionId], lost: Option<&str>) {
        let handles = self.0.partitions.borrow().handles();
        for handle in handles {
            let partition = self.0.partitions.borrow().get(handle).map(|partition| (partition.id, partition.settings));
            let Some((id, settings)) = partition.filter(|(id, _)| !seen.contains(id)) else { continue };
            let mut partition = Partition::new(id, settings);
            partition.is_internal = self.is_internal(id);
            if let Some(why) = lost {
                (partition.fenced, partition.lost_from) = (Some(why.into()), Some(Offset(0)));
            }
            self.replace_partition(handle, partition);
        }
    }
}

impl Partitions {
    fn checkpoint_states(&self) -> BTreeMap<PartitionId, crate::log::checkpoint::PartitionState> {
        let state = |(_, (_, partition)): (usize, &(u32, Partition))| (partition.id, partition.checkpoint_state());
        self.slots
            .iter()
            .filter(|(_, (_, partition))| partition.next > Offset(0) || partition.lost_from.is_some())
            .map(state)
            .collect()
    }
}

/// The metadata log: never dropped by retention, in segments that are small enough to be dropped after a snapshot.
fn metadata_settings() -> TopicSettings {
    let mut settings = TopicSettings::default();
    (settings.retention_ms, settings.retention_bytes) = (None, None);
    settings.segment_bytes = 16 << 20;
    settings
}

impl Partition {
    /// A partition as recovery found it, everything of it in its segments.
    fn restored(id: PartitionId, settings: TopicSettings, recovered: Recovered) -> Partition {
        let mut partition = Partition::new(id, settings);
        let extent = recovered.state.extent;
        let end = Place { segment: extent.segment_base, position: extent.end };
        partition.first = extent.first;
        partition.next = extent.next;
        partition.visible = extent.next;
        partition.visible_end = end;
        partition.leader_epoch = extent.leader_epoch;
        partition.journaled = Mark { first: extent.first, next: extent.next, end, max_timestamp: extent.max_timestamp };
        partition.sealed = sealed_segments(&recovered);
        partition.active = (extent.end > Position(0)).then(|| Active {
            end: extent.end,
            reserved: block_ceil(extent.end),
            linked: true,
            indexed_from: extent.end,
            max_timestamp: extent.max_timestamp,
            // Not known any more; the age of the newest record is the nearest there is.
            since: extent.max_timestamp,
            index: SparseIndex::new(extent.segment_base),
            ..Active::new(extent.segment_base, Position(0))
        });
        partition.checkpoint.next = extent.next;
        partition.checkpoint.end = Some(end);
        partition.checkpoint.first = extent.first;
        partition.checkpoint.sealed_before = extent.segment_base;
        partition.fenced = recovered.fenced.map(Into::into);
        partition.epochs = recovered.state.epochs;
        partition.producers = recovered.state.producers;
        partition.cleaned = recovered.state.cleaned;
        partition.lost_from = recovered.state.fenced;
        partition
    }

    fn checkpoint_state(&self) -> crate::log::checkpoint::PartitionState {
        let mark = self.journaled;
        crate::log::checkpoint::PartitionState {
            extent: checkpoint::extent(self, &mark),
            sealed: self.sealed.iter().map(|sealed| (sealed.base, checkpoint::sealed_state(sealed))).collect(),
            epochs: self.epochs.clone(),
            fenced: self.lost_from,
            producers: self.producers.clone(),
            cleaned: self.cleaned,
        }
    }
}

fn sealed_segments(recovered: &Recovered) -> std::collections::VecDeque<Sealed> {
    let sealed = |(base, sealed): (&Offset, &crate::log::checkpoint::Sealed)| Sealed {
        base: *base,
        next: sealed.last.plus(1),
        bytes: sealed.end,
        max_timestamp: sealed.max_timestamp,
        index: None,
        rewrite: sealed.rewrite,
    };
    recovered.state.sealed.iter().map(sealed).collect()
}
