//! Segment files: opened when needed, reserved ahead, rolled, sealed, and recycled.
//!
//! An append that finds its segment not ready waits in its partition's queue while a task here makes it so; all later
//! ones queue up behind it, so that order holds.

use super::append::{has_last_block, is_ready};
use super::files::Files;
use super::partition::{Active, Partition, Sealed};
use super::{PartitionHandle, Shard};
use crate::error::{AppendError, ShardError};
use crate::log::index::{FILE_BYTES_MAX, Identity, SparseIndex};
use crate::log::paths::{self, SegmentName};
use crate::log::tail::{BLOCK, Place, block_ceil, block_floor};
use crate::model::{Offset, PartitionId, Position, Timestamp};
use crate::planted::{self, Bug};
use crate::reactor::{File, Open};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The first reservation of a segment; each further one doubles the file, up to `RESERVE_BYTES_MAX` at once.
const RESERVE_BYTES_MIN: u64 = 64 << 10;
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// Retired segments that are kept to be written again: their blocks need no metadata change of the file system.
const RECYCLED_MAX: usize = 4;
/// A smaller file is not worth keeping.
const RECYCLED_BYTES_MIN: u64 = 1 << 20;

/// A shard's segment files: those that are open, and those that wait to be written again.
#[derive(Debug, Default)]
pub(super) struct SegmentFiles {
    pub(super) open: RefCell<Files<Rc<File>>>,
    /// Retired segment files, ready to be renamed into place, with their lengths.
    pub(super) recycled: RefCell<Vec<(PathBuf, u64)>>,
    recycled_count: Cell<u64>,
}

impl SegmentFiles {
    /// Forgets a file; returns it if nobody else uses it now.
    fn take_unused(&self, id: PartitionId, name: SegmentName) -> Option<File> {
        Rc::try_unwrap(self.open.borrow_mut().take((id, name))?).ok()
    }
}

/// What an append waits for.
enum Step {
    Open,
    LoadBlock,
    Reserve(u64),
    Place,
    Done,
}

impl Shard {
    /// The file of a segment, opened if it was not. None if the partition is gone.
    pub(super) async fn segment_file(
        &self,
        handle: PartitionHandle,
        segment: impl Into<SegmentName>,
    ) -> Result<Option<Rc<File>>, ShardError> {
        let segment = segment.into();
        let Some(id) = self.id_of(handle) else { return Ok(None) };
        if let Some(file) = self.0.files.open.borrow_mut().get((id, segment)) {
            return Ok(Some(file));
        }
        let path = paths::segment(&self.0.config.data_dir, id, segment);
        let opened = self.open_segment(&path, Open::ReadWrite).await;
        if self.id_of(handle).is_none() {
            return Ok(None);
        }
        // Another one opened it meanwhile: with two, one would be taken for unused and its file written again.
        if let Some(file) = self.0.files.open.borrow_mut().get((id, segment)) {
            return Ok(Some(file));
        }
        let file = Rc::new(opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                ShardError::Damaged { path: path.display().to_string().into(), why: "it is missing".into() }
            }
            _ => ShardError::io("opening", &path, &error),
        })?);
        self.0.files.open.borrow_mut().insert((id, segment), file.clone(), self.0.config.files_max);
        Ok(Some(file))
    }

    /// Opens a file; where the system lets this process have no more of them, in the place of those that are only kept open.
    async fn open_segment(&self, path: &Path, how: Open) -> io::Result<File> {
        let opened = self.reactor().open(path, how).await;
        if opened.as_ref().is_err_and(is_too_many_files) {
            self.0.files.open.borrow_mut().close_all();
            return self.reactor().open(path, how).await;
        }
        opened
    }

    /// The same for an append, which the partition's end refuses.
    async fn file_for_append(&self, handle: PartitionHandle, segment: Offset) -> Result<Rc<File>, AppendError> {
        let file = self.segment_file(handle, segment).await.map_err(|error| match error {
            // To read the log again would not bring the file back, and would stop the other partitions each time.
            ShardError::Damaged { .. } => self.fence(handle, error.to_string()),
            error => self.fail_append(error),
        })?;
        file.ok_or(AppendError::UnknownPartition)
    }

    pub(super) fn spawn_prepare(&self, handle: PartitionHandle) {
        let shard = self.clone();
        self.reactor().spawn(async move { shard.prepare(handle).await }).detach();
    }

    /// Makes a partition's segment ready for the appends that wait for it, and places them in order.
    async fn prepare(&self, handle: PartitionHandle) {
        loop {
            let outcome = match self.next_step(handle) {
                Step::Done => return,
                Step::Place => self.place_first(handle),
                Step::Open => self.open_active(handle).await,
                Step::LoadBlock => self.load_last_block(handle).await,
                Step::Reserve(to) => self.reserve(handle, to).await,
            };
            if let Err(error) = outcome {
                self.refuse_waiting(handle, &error);
            }
        }
    }

    fn next_step(&self, handle: PartitionHandle) -> Step {
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle) else { return Step::Done };
        let Some(bytes) = partition.deferred.front().map(|waiting| waiting.bytes.len()) else {
            partition.preparing = false;
            return Step::Done;
        };
        let now = self.reactor().wall_clock();
        if is_ready(partition, bytes, now) {
            return Step::Place;
        }
        match &partition.active {
            None => Step::Open,
            Some(_) if partition.must_roll(bytes, now) => Step::Open,
            Some(_) if !has_last_block(partition) => Step::LoadBlock,
            Some(active) => Step::Reserve(reserve_target(partition, active, bytes)),
        }
    }

    fn place_first(&self, handle: PartitionHandle) -> Result<(), AppendError> {
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle) else { return Ok(()) };
        let Some(waiting) = partition.deferred.pop_front() else { return Ok(()) };
        self.0.waiting_bytes.set(self.0.waiting_bytes.get() - waiting.bytes.len());
        let placed = self.place(handle, partition, &waiting.bytes, waiting.numbered, &waiting.asker);
        if let Err(error) = placed {
            self.note_refused(partition, &waiting.bytes, &error);
            waiting.asker.refused(error);
            // The lanes of a shard that stops wait for as long as anything waits here.
            self.0.commits.work.notify();
        }
        Ok(())
    }

    /// Refuses all appends that wait for a partition: what one of them needs cannot be had, and later ones must not
    /// overtake it.
    pub(super) fn refuse_waiting(&self, handle: PartitionHandle, error: &AppendError) {
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle) else { return };
        self.refuse_deferred(partition, error);
    }

    pub(super) fn refuse_deferred(&self, partition: &mut Partition, error: &AppendError) {
        for waiting in std::mem::take(&mut partition.deferred) {
            self.0.waiting_bytes.set(self.0.waiting_bytes.get() - waiting.bytes.len());
            self.note_refused(partition, &waiting.bytes, error);
            waiting.asker.refused(error.clone());
        }
        self.0.commits.work.notify();
    }

    /// Seals the active segment, if there is one, and begins the next.
    async fn open_active(&self, handle: PartitionHandle) -> Result<(), AppendError> {
        let Some((id, base)) = self.0.partitions.borrow_mut().get_mut(handle).map(|partition| {
            partition.seal();
            (partition.id, partition.next)
        }) else {
            return Err(AppendError::UnknownPartition);
        };
        let path = paths::segment(&self.0.config.data_dir, id, base);
        let (file, initialised) =
            self.make_segment(id, &path).await.map_err(|error| self.storage_error("creating", &path, &error))?;
        self.0.files.open.borrow_mut().insert((id, base.into()), Rc::new(file), self.0.config.files_max);
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(AppendError::UnknownPartition)?;
        // The log may have been read again from disk meanwhile.
        if partition.active.is_none() && partition.next == base {
            partition.active = Some(Active::new(base, Position(initialised)));
        }
        Ok(())
    }

    async fn make_segment(&self, id: PartitionId, path: &Path) -> io::Result<(File, u64)> {
        let reactor = self.reactor();
        let root = &self.0.config.data_dir;
        reactor.create_dir(&paths::topic(root, id.topic)).await?;
        reactor.create_dir(&paths::partition(root, id)).await?;
        let recycled = self.0.files.recycled.borrow_mut().pop();
        if let Some((old, bytes)) = recycled {
            reactor.rename(&old, path).await?;
            return Ok((self.open_segment(path, Open::ReadWrite).await?, bytes - bytes % BLOCK));
        }
        let file = self.open_segment(path, Open::Create).await?;
        // A file of this name can be left over from before a crash; nothing in it was ever acknowledged.
        file.truncate(0).await?;
        Ok((file, 0))
    }

    async fn load_last_block(&self, handle: PartitionHandle) -> Result<(), AppendError> {
        let Some(end) = self.0.partitions.borrow().get(handle).and_then(Partition::active_end) else {
            return Err(AppendError::UnknownPartition);
        };
        let start = block_floor(end.position);
        let filled = (end.position.0 - start.0) as usize;
        let file = self.file_for_append(handle, end.segment).await?;
        let buffer = self.reactor().pool().buffer(BLOCK as usize).ok_or(AppendError::Busy)?;
        let (read, buffer) = file.read_at(start.0, buffer).await;
        let path = || self.segment_path(handle, end.segment);
        let read = read.map_err(|error| self.storage_error("reading", &path(), &error))?;
        if read < filled {
            return Err(self.fence(handle, format!("{} ends at {}", path().display(), start.0 + read as u64)));
        }
        let mut chunk = self.take_chunk(BLOCK as usize).ok_or(AppendError::Busy)?;
        chunk.append(&buffer[..filled]);
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(AppendError::UnknownPartition)?;
        let returned = BLOCK as usize;
        if partition.active_end() != Some(end) {
            self.0.tail_bytes.set(self.0.tail_bytes.get() - returned);
        } else {
            self.drop_tail(partition);
            partition.tail.push_chunk(Place { segment: end.segment, position: start }, chunk);
        }
        Ok(())
    }

    async fn reserve(&self, handle: PartitionHandle, to: u64) -> Result<(), AppendError> {
        let Some((segment, from)) = self
            .0
            .partitions
            .borrow()
            .get(handle)
            .and_then(|partition| partition.active.as_ref().map(|active| (active.base, active.reserved.0)))
        else {
            return Err(AppendError::UnknownPartition);
        };
        if to <= from {
            return Ok(());
        }
        self.spend_space(to - from).await?;
        let file = self.file_for_append(handle, segment).await?;
        let path = || self.segment_path(handle, segment);
        file.allocate(from, to - from)
            .await
            .map_err(|error| self.storage_error("reserving space in", &path(), &error))?;
        let mut partitions = self.0.partitions.borrow_mut();
        let active = partitions.get_mut(handle).and_then(|partition| partition.active.as_mut());
        if let Some(active) = active.filter(|active| active.base == segment) {
            active.reserved = active.reserved.max(Position(to));
        }
        Ok(())
    }

    /// Begins to reserve the next step of the segment when half of the last one is used, so that appends seldom wait.
    pub(super) fn reserve_ahead(&self, handle: PartitionHandle, partition: &mut Partition) {
        let Some(active) = &partition.active else { return };
        let left = active.reserved.0 - active.end.0;
        let is_last = active.reserved.0 >= u64::from(partition.settings.segment_bytes);
        if partition.reserving || is_last || left * 2 > step(active) {
            return;
        }
        let to = reserve_target(partition, active, 0);
        partition.reserving = true;
        let shard = self.clone();
        let task = async move {
            // If it fails, the append that needs the space tries again and hears of it.
            let _ = shard.reserve(handle, to).await;
            if let Some(partition) = shard.0.partitions.borrow_mut().get_mut(handle) {
                partition.reserving = false;
            }
        };
        self.reactor().spawn(task).detach();
    }

    /// Writes a sealed segment's index and cuts off the space reserved behind its end.
    pub(super) async fn finish_segment(&self, id: PartitionId, sealed: &Sealed) -> Result<(), ShardError> {
        let root = &self.0.config.data_dir;
        let path = paths::segment(root, id, sealed.name());
        if let Ok(file) = self.reactor().open(&path, Open::ReadWrite).await {
            let cut = file.truncate(block_ceil(sealed.bytes).0).await;
            cut.map_err(|error| ShardError::io("cutting off", &path, &error))?;
        }
        let Some(index) = &sealed.index else { return Ok(()) };
        // Without its file an index is read back from the segment: a full disk is no reason to stop the shard.
        if self.write_index(id, sealed, index).await.is_err() {
            return Ok(());
        }
        let Some(handle) = self.handle_of(id) else { return Ok(()) };
        let mut partitions = self.0.partitions.borrow_mut();
        let mut segments = partitions.get_mut(handle).into_iter().flat_map(|partition| partition.sealed.iter_mut());
        if let Some(mine) = segments.find(|mine| mine.name() == sealed.name()) {
            mine.index = None;
        }
        Ok(())
    }

    /// A checkpoint's barrier covers it; one that a crash took or tore is built again from its segment.
    pub(super) async fn write_index(
        &self,
        id: PartitionId,
        sealed: &Sealed,
        index: &SparseIndex,
    ) -> Result<(), ShardError> {
        let path = paths::index(&self.0.config.data_dir, id, sealed.name());
        let identity = Identity { partition: id, base: sealed.base, end: sealed.bytes };
        let mut bytes = vec![0; FILE_BYTES_MAX];
        let length = index.encode(&identity, &mut bytes);
        self.write_file_unflushed(&path, &bytes[..length]).await.map(drop)
    }

    /// Removes the segments that lie wholly before a partition's first offset.
    pub(super) async fn drop_segments(&self, handle: PartitionHandle) {
        loop {
            let Some((id, sealed)) = self.0.partitions.borrow_mut().get_mut(handle).and_then(|partition| {
                let first = partition.first;
                let early = planted::active(Bug::SegmentDroppedEarly);
                let gone = partition.sealed.front().is_some_and(|s| s.next <= first || early && s.base <= first);
                let checkpointed =
                    partition.sealed.front().is_some_and(|s| s.base < partition.checkpoint.sealed_before);
                let taken =
                    if gone && checkpointed && !partition.swapping { partition.sealed.pop_front() } else { None };
                taken.map(|sealed| (partition.id, sealed))
            }) else {
                return;
            };
            self.retire(id, &sealed).await;
        }
    }

    /// Keeps a segment's file to be written again, or removes it. A failure leaves a file that the next start removes.
    pub(super) async fn retire(&self, id: PartitionId, sealed: &Sealed) {
        let root = &self.0.config.data_dir;
        let path = paths::segment(root, id, sealed.name());
        let unused = self.0.files.take_unused(id, sealed.name());
        let keeps = self.0.files.recycled.borrow().len() < RECYCLED_MAX && sealed.bytes.0 >= RECYCLED_BYTES_MIN;
        let number = self.0.files.recycled_count.get();
        let kept =
            paths::shard(root, self.0.config.generation, self.id()).join(paths::RECYCLED).join(number.to_string());
        // A reader may still hold a file that was not in the cache alone: such a file must not be written again. What is on its
        // way through a pipe holds one that the cache does not know of.
        let is_free = unused.is_some() && self.reactor().counters().pipes.get() == 0;
        if keeps && is_free && self.reactor().rename(&path, &kept).await.is_ok() {
            self.0.files.recycled_count.set(number + 1);
            self.0.files.recycled.borrow_mut().push((kept, sealed.bytes.0));
        } else {
            let _ = self.reactor().remove_file(&path).await;
        }
        let _ = self.reactor().remove_file(&paths::index(root, id, sealed.name())).await;
    }

    pub(super) fn segment_path(&self, handle: PartitionHandle, segment: impl Into<SegmentName>) -> PathBuf {
        let root = &self.0.config.data_dir;
        self.id_of(handle).map_or_else(|| root.clone(), |id| paths::segment(root, id, segment))
    }

    /// What an I/O error on the way to an append means: a full disk and too many open files are the caller's to retry,
    /// anything else stops the shard until it has recovered.
    fn storage_error(&self, what: &'static str, path: &Path, error: &io::Error) -> AppendError {
        if is_too_many_files(error) {
            return AppendError::Busy;
        }
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full {
            self.0.storage_full.set(true);
            return AppendError::StorageFull;
        }
        self.fail_append(ShardError::io(what, path, error))
    }

    fn fail_append(&self, error: ShardError) -> AppendError {
        self.fail(error);
        AppendError::Reopening
    }
}

impl Active {
    /// A new segment, of which `initialised` bytes were written once in an earlier life of the file.
    pub(crate) fn new(base: Offset, initialised: Position) -> Active {
        Active {
            base,
            end: Position(0),
            reserved: initialised,
            initialised,
            linked: false,
            index: SparseIndex::new(base),
            indexed_from: Position(0),
            max_timestamp: Timestamp(-1),
            since: Timestamp(0),
        }
    }
}

fn is_too_many_files(error: &io::Error) -> bool {
    [Some(libc::EMFILE), Some(libc::ENFILE)].contains(&error.raw_os_error())
}

fn step(active: &Active) -> u64 {
    active.reserved.0.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
}

/// Up to where the segment should be reserved so that `bytes` more fit: in steps that grow with the file, not beyond
/// what it can become.
fn reserve_target(partition: &Partition, active: &Active, bytes: usize) -> u64 {
    let needed = active.end.0 + bytes as u64;
    let ahead = (active.reserved.0 + step(active)).min(u64::from(partition.settings.segment_bytes));
    needed.max(ahead).next_multiple_of(BLOCK)
}
