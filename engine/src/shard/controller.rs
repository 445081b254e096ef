//! Changes of the catalog. Shard 0 decides, logs, and tells all shards; a change that is not in the metadata log did not
//! happen, one that is will be everywhere after a restart at the latest.

use super::event::Event;
use super::partition::Partition;
use super::remote::{Remote, Reply};
use super::session::Session;
use super::{Cursor, PartitionHandle, Read, Shard};
use crate::error::{AppendError, ReadError};
use crate::log::paths;
use crate::metadata::{MetadataError, MetadataRecord, TopicInfo, snapshot_due};
use crate::model::{Offset, PartitionId, ShardId, TopicId};
use crate::planted::{self, Bug};
use crate::reactor::{Outgoing, either};
use corelog_batch::{BatchBuilder, Codec, batches};
use std::cell::Cell;
use std::time::Duration;

/// A wish to change the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A new topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// How many partitions.
        partitions: u32,
        /// Its settings as keys and values.
        settings: Vec<(String, String)>,
    },
    /// The end of a topic.
    DeleteTopic {
        /// Its name.
        name: String,
    },
    /// Other settings: values to set, or None to go back to the default.
    AlterTopic {
        /// Its name.
        name: String,
        /// The changes.
        changes: Vec<(String, Option<String>)>,
    },
    /// More partitions.
    AddPartitions {
        /// The topic's name.
        name: String,
        /// How many it is to have in all.
        partitions: u32,
    },
}

/// Why the catalog was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The wish cannot be granted; the caller's to mend.
    #[error("{0}")]
    Refused(#[from] MetadataError),
    /// It could not be logged.
    #[error("the log of topics takes no records: {0}")]
    Log(AppendError),
    /// A bound was reached; try again.
    #[error("the controller is at one of its bounds; try again")]
    Busy,
}

/// What the controller remembers.
#[derive(Debug, Default)]
pub(super) struct Controller {
    /// One change at a time, so that the log has them in the order in which they were decided.
    busy: Cell<bool>,
    free: Event,
    /// Bytes of the metadata log since its last snapshot, and of that snapshot.
    pub(super) bytes_since: Cell<u64>,
    pub(super) bytes_of_last: Cell<u64>,
}

const CONTROLLER: ShardId = ShardId(0);
/// A metadata batch holds at most so many bytes of records.
const BATCH_BYTES: usize = 512 << 10;

impl Shard {
    /// Changes the catalog; done when every shard knows.
    ///
    /// # Errors
    /// Nothing has changed then, unless the log stopped in the midst ([`AppendError::OutcomeUnknown`]).
    pub async fn command(&self, command: Command) -> Result<(), CommandError> {
        if self.id() == CONTROLLER {
            return self.control(command).await;
        }
        match self.ask(CONTROLLER, Remote::Command(command)).await {
            Reply::Command(outcome) => outcome,
            _ => Err(CommandError::Busy),
        }
    }

    /// Whether the wish would be granted, as this shard knows the catalog.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check_command(&self, command: &Command) -> Result<(), MetadataError> {
        self.decide(command).map(drop)
    }

    /// Decides, logs and spreads a change. On the controller only.
    pub(super) async fn control(&self, command: Command) -> Result<(), CommandError> {
        let controller = &self.0.controller;
        while controller.busy.get() {
            controller.free.wait().await;
        }
        controller.busy.set(true);
        let outcome = self.change(command).await;
        controller.busy.set(false);
        controller.free.notify();
        outcome
    }

    async fn change(&self, command: Command) -> Result<(), CommandError> {
        let record = self.decide(&command)?;
        if planted::active(Bug::MetadataTorn) {
            let (shard, record) = (self.clone(), record.clone());
            self.reactor().spawn(async move { shard.log_records(&[record]).await }).detach();
        } else {
            self.log_change(&record).await.map_err(CommandError::Log)?;
        }
        self.spread(&record).await;
        self.snapshot_if_due().await;
        Ok(())
    }

    fn decide(&self, command: &Command) -> Result<MetadataRecord, MetadataError> {
        let catalog = self.catalog();
        let bounds = &self.0.config.bounds;
        match command {
            Command::CreateTopic { name, partitions, settings } => {
                catalog.decide_create(bounds, self.fresh_id(), name, *partitions, settings)
            }
            Command::DeleteTopic { name } => catalog.decide_delete(name),
            Command::AlterTopic { name, changes } => catalog.decide_alter(name, changes),
            Command::AddPartitions { name, partitions } => catalog.decide_partitions(bounds, name, *partitions),
        }
    }

    fn fresh_id(&self) -> TopicId {
        let random = u128::from(self.reactor().random()) << 64 | u128::from(self.reactor().random());
        TopicId(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid())
    }

    /// Logs a change. If the shard stopped with it under way, the log says whether it is there once it was read again: a
    /// change that is logged and not made would be contradicted by the next one, and the node could not start any more.
    async fn log_change(&self, record: &MetadataRecord) -> Result<(), AppendError> {
        let handle = self.handle_of(PartitionId::METADATA).ok_or(AppendError::UnknownPartition)?;
        let from = self.describe(handle).map(|status| status.next).ok_or(AppendError::UnknownPartition)?;
        match self.log_records(std::slice::from_ref(record)).await {
            Err(AppendError::OutcomeUnknown) => {
                let logged = self.is_running_again().await && self.is_logged(handle, from, record).await;
                if logged { Ok(()) } else { Err(AppendError::OutcomeUnknown) }
            }
            outcome => outcome.map(drop),
        }
    }

    /// Waits for the end of a recovery; false if the shard stops.
    async fn is_running_again(&self) -> bool {
        loop {
            let changed = self.0.state_changed.wait();
            if self.0.stop_wanted.get() || self.0.remote.ended.get() {
                return false;
            }
            if self.check_running().is_ok() {
                return true;
            }
            changed.await;
        }
    }

    async fn is_logged(&self, handle: PartitionHandle, mut from: Offset, record: &MetadataRecord) -> bool {
        let (mut cursor, mut out) = (Cursor::default(), Outgoing::new());
        loop {
            out.clear();
            match self.read_disk(handle, from, BATCH_BYTES, &mut cursor, &mut out).await {
                Ok(Read::Data { .. }) if holds(&out, from, record) => return true,
                Ok(Read::Data { next, .. }) => from = next,
                Ok(_) => return false,
                Err(ReadError::Busy | ReadError::Reopening | ReadError::Io(_)) if !self.0.stop_wanted.get() => {
                    self.reactor().sleep(Duration::from_millis(1)).await;
                }
                Err(_) => return false,
            }
        }
    }

    /// Appends records to the metadata log, all in one batch or several; done when they are durable.
    async fn log_records(&self, records: &[MetadataRecord]) -> Result<Offset, AppendError> {
        let handle = self.handle_of(PartitionId::METADATA).ok_or(AppendError::UnknownPartition)?;
        let (session, now) = (Session::new(1), self.reactor().wall_clock());
        let mut values = records.iter().map(encoded).peekable();
        let mut base = None;
        while values.peek().is_some() {
            let mut builder = BatchBuilder::new(BATCH_BYTES, Codec::None);
            while let Some(value) = values.peek() {
                if builder.append(None, Some(value), &[], now.0).is_err() {
                    break;
                }
                values.next();
            }
            let bytes = builder.build()?;
            self.0.controller.bytes_since.set(self.0.controller.bytes_since.get() + bytes.len() as u64);
            self.append_own(handle, &bytes, &session, 0)?;
            base = base.or(Some(session.append_outcome().await?));
        }
        base.ok_or(AppendError::Invalid(corelog_batch::BatchError::Empty))
    }

    /// Tells every shard of a logged change. One that cannot be reached now is tried again: it must not be left behind.
    async fn spread(&self, record: &MetadataRecord) {
        self.apply_change(record);
        for shard in (0..self.shards()).map(ShardId).filter(|shard| *shard != self.id()) {
            while !matches!(self.ask(shard, Remote::Apply(Box::new(record.clone()))).await, Reply::Applied) {
                self.reactor().sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn snapshot_if_due(&self) {
        let controller = &self.0.controller;
        if !snapshot_due(controller.bytes_since.get(), controller.bytes_of_last.get()) {
            return;
        }
        let records: Vec<MetadataRecord> = self.catalog().snapshot().collect();
        let before = controller.bytes_since.get();
        // If the snapshot cannot be logged now, the log stays as long as it is; the next change tries again.
        let Ok(base) = self.log_records(&records).await else { return };
        controller.bytes_of_last.set(controller.bytes_since.replace(0) - before);
        if let Some(handle) = self.handle_of(PartitionId::METADATA) {
            let _ = self.delete_records(handle, base).await;
        }
    }

    /// Takes a change of the catalog over, and makes this shard's partitions fit it.
    pub(super) fn apply_change(&self, record: &MetadataRecord) {
        let before = self.removed_topic(record);
        if let Err(error) = self.0.catalog.borrow_mut().apply(record) {
            eprintln!("corelog: shard {} cannot follow the catalog: {error}", self.id());
            return;
        }
        self.note_catalog_changed();
        if let Some(topic) = before {
            self.remove_partitions(&topic);
        }
        self.add_partitions();
        self.update_settings();
    }

    fn removed_topic(&self, record: &MetadataRecord) -> Option<TopicInfo> {
        match record {
            MetadataRecord::TopicDeleted { id } => self.catalog().topic(*id).cloned(),
            _ => None,
        }
    }

    /// Adds the partitions that the catalog gives this shard and that it lacks.
    pub(super) fn add_partitions(&self) {
        let catalog = self.catalog();
        let mut partitions = self.0.partitions.borrow_mut();
        for (id, topic) in catalog.owned_by(self.id(), self.shards()) {
            if !partitions.by_id.contains_key(&id) {
                partitions
                    .insert(Partition { is_internal: self.is_internal(id), ..Partition::new(id, topic.settings) });
            }
        }
    }

    /// Whether only the node itself appends to it.
    pub(super) fn is_internal(&self, id: PartitionId) -> bool {
        id.is_metadata() || self.catalog().topic(id.topic).is_some_and(TopicInfo::is_internal)
    }

    fn update_settings(&self) {
        let catalog = self.catalog();
        for (_, (_, partition)) in &mut self.0.partitions.borrow_mut().slots {
            if let Some(topic) = catalog.topic(partition.id.topic) {
                partition.settings = topic.settings;
            }
        }
    }

    fn remove_partitions(&self, topic: &TopicInfo) {
        let mine: Vec<PartitionId> = topic.owned_by(self.id(), self.shards()).collect();
        for id in &mine {
            if let Some(partition) = self.0.partitions.borrow_mut().remove(*id) {
                self.dissolve(partition);
            }
            self.0.files.open.borrow_mut().forget(*id);
            self.0.checkpoints.gone.borrow_mut().push(*id);
        }
        self.count_producers();
        let shard = self.clone();
        let task = async move {
            shard.journal_forgotten().await;
            for id in mine {
                shard.remove_files(id).await;
            }
        };
        self.reactor().spawn(task).detach();
    }

    /// Tells everybody who waits for a partition that it is gone.
    pub(super) fn dissolve(&self, mut partition: Partition) {
        self.drop_tail(&mut partition);
        for ack in &partition.acks {
            ack.asker.refused(AppendError::UnknownPartition);
        }
        for watcher in &partition.watchers {
            watcher.session.readable(watcher.ticket);
        }
        self.refuse_deferred(&mut partition, &AppendError::UnknownPartition);
    }

    /// Waits until no journal entry of before this call is needed any more. An entry that has a deleted partition's
    /// blocks would be taken for torn without their file, and other partitions' records with it.
    async fn journal_forgotten(&self) {
        let (nonce, needed) = {
            let journal = self.0.journal.borrow();
            (journal.nonce, journal.next)
        };
        loop {
            let completed = self.0.checkpoints.completed.wait();
            {
                let journal = self.0.journal.borrow();
                // Another nonce is another life of the journal: recovery has forgotten what was before.
                if journal.file.is_some() && (journal.nonce != nonce || journal.free_from >= needed) {
                    return;
                }
            }
            self.0.checkpoints.request();
            either(completed, self.reactor().sleep(Duration::from_secs(1))).await;
        }
    }

    /// Removes a deleted partition's files. What cannot be removed now is removed at the next start.
    async fn remove_files(&self, id: PartitionId) {
        let (root, reactor) = (&self.0.config.data_dir, self.reactor());
        let directory = paths::partition(root, id);
        for entry in reactor.list_dir(&directory).await.unwrap_or_default() {
            let _ = reactor.remove_file(&directory.join(&entry.name)).await;
        }
        let _ = reactor.remove_dir(&directory).await;
        let _ = reactor.remove_dir(&paths::topic(root, id.topic)).await;
    }
}

/// Whether a record is among those that were read, at `from` or behind it.
fn holds(out: &Outgoing, from: Offset, record: &MetadataRecord) -> bool {
    let bytes = out.to_vec();
    let wanted = encoded(record);
    let mut scratch = Vec::new();
    batches(&bytes).flatten().any(|batch| {
        let Ok(mut records) = batch.records(&mut scratch, BATCH_BYTES) else { return false };
        records.any(|found| found.is_ok_and(|found| found.offset >= from.0 && found.value == Some(&wanted[..])))
    })
}

fn encoded(record: &MetadataRecord) -> Vec<u8> {
    let mut value = Vec::new();
    record.encode(&mut value);
    value
}
