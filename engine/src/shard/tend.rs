//! Housekeeping: what an idle partition holds is released, old segments are dropped, and the disk's space is watched.

use super::event::Event;
use super::partition::{Partition, Sealed};
use super::{PartitionHandle, Session, Shard};
use crate::error::AppendError;
use crate::log::paths::{self, SegmentName};
use crate::log::retention::{Rest, Segment, expired, seal_due};
use crate::model::{Offset, PartitionId};
use crate::reactor::either;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How often free space is looked at: space that was freed lets writing resume within this time.
const SPACE_INTERVAL: Duration = Duration::from_millis(500);
/// How often whoever waits for memory looks again: appends that waited for their segment do not say when they are gone.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// Of the memory for tails, one part of so many is much for one session.
const MUCH: u64 = 64;

/// Partitions that are looked at before others get their turn.
const PARTITIONS_A_TURN: usize = 128;

/// Partitions whose first offset advanced.
#[derive(Debug, Default)]
pub(super) struct Retention {
    dropped: RefCell<Vec<PartitionHandle>>,
    /// Segments that others have taken the place of.
    replaced: RefCell<Vec<(PartitionId, Sealed)>>,
    wanted: Event,
    files_clock: Cell<u64>,
}

impl Retention {
    pub(super) fn dropped(&self, handle: PartitionHandle) {
        self.dropped.borrow_mut().push(handle);
        self.wanted.notify();
    }

    pub(super) fn replaced(&self, id: PartitionId, old: Vec<Sealed>) {
        self.replaced.borrow_mut().extend(old.into_iter().map(|old| (id, old)));
        self.wanted.notify();
    }
}

impl Shard {
    /// Applies retention, and removes what fell out of it, until the shard stops.
    pub(super) async fn run_retention(&self) {
        let mut next = self.reactor().now().plus(self.0.config.retention_interval);
        self.clear_dropped().await;
        while !self.is_stopping() && !self.has_failed() {
            let wanted = self.0.retention.wanted.wait();
            let stopped = self.0.state_changed.wait();
            let retention = &self.0.retention;
            if retention.dropped.borrow().is_empty() && retention.replaced.borrow().is_empty() {
                either(either(wanted, self.reactor().sleep_until(next)), stopped).await;
            }
            let dropped = self.0.retention.dropped.take();
            for handle in dropped {
                self.drop_segments(handle).await;
            }
            let replaced = self.0.retention.replaced.take();
            for (id, old) in replaced {
                self.retire(id, &old).await;
            }
            if self.reactor().now() >= next {
                next = self.reactor().now().plus(self.0.config.retention_interval);
                self.apply_retention().await;
            }
        }
    }

    async fn apply_retention(&self) {
        self.forget_expired_producers();
        let handles = self.0.partitions.borrow().handles();
        for (index, handle) in handles.into_iter().enumerate() {
            if index % PARTITIONS_A_TURN == 0 {
                self.reactor().yield_now().await;
            }
            self.retain(handle);
            // Segments that could not be dropped before a checkpoint knew them can be now.
            self.drop_segments(handle).await;
        }
    }

    /// Removes files of segments that were dropped when the process ended, or the system did not let go of them.
    async fn clear_dropped(&self) {
        let handles = self.0.partitions.borrow().handles();
        for handle in handles {
            if self.is_stopping() || self.has_failed() {
                return;
            }
            let begin =
                self.0.partitions.borrow().get(handle).and_then(|partition| Some((partition.id, begin(partition)?)));
            if let Some((id, begin)) = begin {
                self.remove_segments(id, |found| found.base < begin).await;
            }
        }
    }

    /// Removes the files of a partition's segments, and of their indexes, that are left over.
    pub(super) async fn remove_segments(&self, id: PartitionId, is_left_over: impl Fn(SegmentName) -> bool) {
        let directory = paths::partition(&self.0.config.data_dir, id);
        let entries = self.reactor().list_dir(&directory).await.unwrap_or_default();
        for name in entries.iter().map(|entry| &entry.name) {
            let found = paths::parse_segment_name(name).or_else(|| paths::parse_index_name(name));
            if found.is_some_and(&is_left_over) {
                // What stays now is looked at again by the next start.
                let _ = self.reactor().remove_file(&directory.join(name)).await;
            }
        }
    }

    fn retain(&self, handle: PartitionHandle) {
        let now = self.reactor().wall_clock();
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle).filter(|partition| !partition.id.is_metadata()) else {
            return;
        };
        let active = partition.active.as_ref().filter(|active| active.end.0 > 0);
        if active
            .is_some_and(|active| seal_due(&partition.settings, now, active.end.0, active.since, active.max_timestamp))
        {
            partition.seal();
        }
        let segment = |sealed: &Sealed| Segment {
            base: sealed.base,
            last: Offset(sealed.next.0 - 1),
            bytes: sealed.bytes.0,
            max_timestamp: sealed.max_timestamp,
        };
        let sealed: Vec<Segment> = partition.sealed.iter().map(segment).collect();
        let rest = Rest {
            first: partition.first,
            high_watermark: partition.visible,
            active_bytes: partition.active.as_ref().map_or(0, |active| active.end.0),
        };
        let expired = expired(&partition.settings, now, &sealed, &rest);
        if let Some(last) = expired.checked_sub(1).and_then(|last| sealed.get(last)) {
            self.advance_first(handle, partition, last.last.plus(1));
        }
    }

    /// Refuses appends while the disk is full to its reserve, and takes them again when it is not.
    pub(super) async fn run_space_watch(&self) {
        let reserve = self.0.config.disk_reserve_bytes;
        while !self.is_stopping() && !self.has_failed() {
            if let Ok(space) = self.reactor().free_space(&self.0.config.data_dir).await {
                let was_full = self.0.storage_full.get();
                // Writing resumes a little above the reserve, so that it does not stop again at the next append.
                let enough = if was_full { reserve + reserve / 8 } else { reserve };
                let is_full = space.free < enough;
                self.0.storage_full.set(is_full);
                self.0.space_left.set(self.space_share(space.free).min(self.space_unseen()));
                if is_full != was_full {
                    let what = if is_full { "full to its reserve: appends are refused" } else { "no longer full" };
                    eprintln!(
                        "corelog: shard {}: the disk is {what} ({} bytes are free, {reserve} are kept)",
                        self.id(),
                        space.free
                    );
                }
            }
            either(self.reactor().sleep(SPACE_INTERVAL), self.0.state_changed.wait()).await;
        }
    }

    /// What this shard may take of what is free: the others take theirs at the same time.
    pub(super) fn space_share(&self, free: u64) -> u64 {
        free.saturating_sub(self.0.config.disk_reserve_bytes) / u64::from(self.shards())
    }

    /// What this shard may take between two looks: somebody else may fill the disk at any time, and checkpoints and the
    /// next start need the reserve.
    fn space_unseen(&self) -> u64 {
        self.0.config.disk_reserve_bytes / 2 / u64::from(self.shards())
    }

    /// Takes file space for a segment, if that leaves the disk's reserve.
    pub(super) async fn spend_space(&self, bytes: u64) -> Result<(), AppendError> {
        if self.0.space_left.get() < bytes {
            // Where the system does not say, the reservation itself will.
            let free = self.reactor().free_space(&self.0.config.data_dir).await.map_or(u64::MAX, |space| space.free);
            let share = self.space_share(free);
            if share < bytes {
                self.0.storage_full.set(true);
                return Err(AppendError::StorageFull);
            }
            self.0.space_left.set(share.min(self.space_unseen().max(bytes)));
        }
        self.0.space_left.set(self.0.space_left.get().saturating_sub(bytes));
        Ok(())
    }

    /// Gives back what partitions hold that nothing was appended to since the last checkpoint.
    pub(super) fn release_idle(&self) {
        let boundary = self.0.checkpoints.boundary.get();
        let all_idle = self.0.journal.borrow().used() == 0;
        let mut released = 0;
        for (_, (_, partition)) in &mut self.0.partitions.borrow_mut().slots {
            let unchanged = all_idle || partition.checkpoint.boundary < boundary;
            let idle = unchanged && !partition.has_journal_work();
            if idle && partition.tail.bytes() > 0 {
                released += release(partition, usize::MAX);
            }
        }
        self.0.tail_bytes.set(self.0.tail_bytes.get() - released);
        let clock = &self.0.retention.files_clock;
        clock.set(self.0.files.open.borrow_mut().close_idle(clock.get()));
    }

    /// Sees to it that tails have room for `bytes` more: drops chunks that are on disk when the budget is nearly used,
    /// and asks for a checkpoint when half of it is used by what is not.
    pub(super) fn relieve_tails(&self, bytes: usize) {
        let max = self.0.config.tail_bytes_max;
        let is_scarce = || self.0.tail_bytes.get() + bytes > max / 8 * 7;
        if is_scarce() && self.0.checkpoints.evictable.get() {
            self.evict_tails(self.0.tail_bytes.get() + bytes - max / 4 * 3);
        }
        let dirty = self.0.checkpoints.dirty();
        if dirty + bytes as u64 > max as u64 / 2 || (is_scarce() && dirty > 0) {
            self.0.checkpoints.request();
        }
    }

    /// How large a partition's next chunk may become.
    pub(super) fn tail_share(&self) -> usize {
        share(self.0.config.tail_bytes_max, self.0.tail_bytes.get(), self.0.checkpoints.at_work())
    }

    /// Whether memory for appends is too scarce for more of this session's; never while the shard refuses them anyway. Who
    /// has taken much of it stops first, and leaves the rest to those who have taken little.
    pub fn is_crowded(&self, session: &Session) -> bool {
        let tail = self.0.config.tail_bytes_max as u64;
        let takes_much = session.share(self.0.checkpoints.boundary.get()) > tail / MUCH;
        let eighths = if takes_much { 6 } else { 7 };
        let crowded = self.0.checkpoints.dirty() > tail / 8 * eighths
            || self.0.waiting_bytes.get() > self.0.config.waiting_bytes_max / 8 * eighths as usize;
        crowded && self.check_running().is_ok()
    }

    /// Waits while memory is too scarce for more of this session's appends: to stop taking them from a connection is better
    /// than to refuse them.
    pub async fn room(&self, session: &Session) {
        loop {
            let relieved = self.0.checkpoints.completed.wait();
            if !self.is_crowded(session) {
                return;
            }
            either(relieved, self.reactor().sleep(ROOM_INTERVAL)).await;
        }
    }

    fn evict_tails(&self, bytes: usize) {
        let mut released = 0;
        let mut partitions = self.0.partitions.borrow_mut();
        for (_, (_, partition)) in &mut partitions.slots {
            if released >= bytes {
                break;
            }
            released += release(partition, bytes - released);
        }
        // Until another checkpoint there is no use in looking again.
        self.0.checkpoints.evictable.set(released >= bytes);
        self.0.tail_bytes.set(self.0.tail_bytes.get() - released);
    }
}

/// Memory of the tails that one of so many partitions at work may take at once: chunks that double would take all long before
/// they are filled, and one that is not filled cannot be given back.
fn share(max: usize, taken: usize, at_work: usize) -> usize {
    let left = max.saturating_sub(taken);
    (left / 1024).min(max / 4 / at_work.max(1))
}

/// Base of a partition's first segment. None where nothing may be removed: files before it could be what was lost.
fn begin(partition: &Partition) -> Option<Offset> {
    let first = partition.sealed.front().map(|sealed| sealed.base);
    let first = first.or(partition.active.as_ref().map(|active| active.base)).unwrap_or(partition.next);
    Some(first).filter(|first| partition.is_whole() && *first > Offset(0))
}

fn release(partition: &mut Partition, bytes: usize) -> usize {
    let Some(clean) = partition.clean_before() else { return 0 };
    let mut released = 0;
    while released < bytes {
        let Some(freed) = partition.tail.release_front(clean) else { break };
        released += freed;
    }
    released
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tail::BLOCK;

    #[test]
    fn chunks_that_are_not_filled_never_take_all_memory() {
        const MAX: usize = 300 << 20;
        for at_work in [1, 100, 1000, 2000, 10_000, 30_000] {
            // As tails round it.
            let largest = share(MAX, 0, at_work).next_power_of_two().max(BLOCK as usize);
            assert!(at_work * largest <= MAX / 2, "{at_work} partitions with {largest} bytes each");
        }
        assert!(share(MAX, 0, 1) >= 256 << 10, "one that has all to itself takes large ones");
        assert_eq!(share(MAX, MAX, 1), 0, "the smallest chunk is taken then");
    }
}
