//! Producers that number their batches: what a shard's partitions remember of them, for how long, and of how many.

use super::append::Asker;
use super::partition::{Ack, Partition};
use super::{PartitionHandle, Shard, count};
use crate::error::AppendError;
use crate::limits::PRODUCER_BYTES;
use crate::log::checkpoint::CheckpointState;
use crate::model::{Offset, ProducerId, Timestamp};
use crate::planted::{self, Bug};
use crate::producer::{Numbered, Produced, Verdict, Window, judge};
use corelog_batch::batches;
use std::cell::Cell;
use std::time::Duration;

/// Where a shard remembers as many producers as it may, those that were silent for so long give way to new ones. Who sends
/// again does so within seconds.
const SILENT: Duration = Duration::from_secs(60);
/// How often it is looked for them.
const LOOK_INTERVAL_MS: i64 = 1000;

// A tree of maps is at least half full; three of them know a producer.
const _: () = assert!(3 * (size_of::<Window>() + size_of::<ProducerId>()) * 3 / 2 <= PRODUCER_BYTES as usize);

/// How many there are.
#[derive(Debug, Default)]
pub(super) struct Producers {
    /// Windows of all partitions.
    known: Cell<usize>,
    /// When it was last looked for some that can go, in milliseconds.
    looked: Cell<i64>,
}

impl Shard {
    /// A producer id that nobody else has: as unlikely to be drawn again as two topics are to get the same id.
    pub fn draw_producer_id(&self) -> ProducerId {
        ProducerId((self.reactor().random() >> 1) as i64)
    }

    /// The newest batch of each producer that a partition remembers. None if there is no such partition.
    pub fn producers(&self, handle: PartitionHandle) -> Option<Vec<Produced>> {
        let partitions = self.0.partitions.borrow();
        let newest = |(id, window): (&ProducerId, &Window)| window.batches(*id).last();
        Some(partitions.get(handle)?.producers.iter().filter_map(newest).collect())
    }

    /// Whether a batch is to be appended; if it was before, its asker is told where.
    pub(super) fn is_new(
        &self,
        partition: &mut Partition,
        batch: &Numbered,
        asker: &Asker,
    ) -> Result<bool, AppendError> {
        let known = partition.producers.get(&batch.producer);
        match judge(known, batch)? {
            Verdict::Append if known.is_none() && self.0.producers.known.get() >= self.0.config.producers_max => {
                Err(AppendError::Producers)
            }
            Verdict::Append => Ok(true),
            Verdict::Duplicate { base, last } => {
                count(&self.0.counters.duplicates, 1);
                let ack = Ack { base, next: last.plus(1), at: Timestamp(-1), asker: asker.clone() };
                // Not before it is as durable as any other, and not before those that were asked for earlier.
                let is_durable = partition.acks.is_empty() && ack.next <= partition.visible;
                if is_durable || planted::active(Bug::DuplicateAcknowledgedEarly) {
                    asker.session.appended(asker.ticket, ack.appended(partition.first));
                } else {
                    partition.acks.push_back(ack);
                }
                Ok(false)
            }
        }
    }

    /// Notes that a batch was appended at an offset.
    pub(super) fn note_produced(&self, partition: &mut Partition, batch: &Numbered, base: Offset) {
        let produced = batch.appended(base, self.reactor().wall_clock());
        partition.produced.push_back(produced);
        match partition.producers.get_mut(&batch.producer) {
            Some(window) => window.note(&produced),
            None => self.remember(partition, batch.producer, Window::of(&produced)),
        }
    }

    /// Notes that a producer's first batch was refused: the next one, which may be on its way, must not be appended first.
    pub(super) fn note_refused(&self, partition: &mut Partition, bytes: &[u8], error: &AppendError) {
        let may_come_again = matches!(
            error,
            AppendError::Busy | AppendError::StorageFull | AppendError::Reopening | AppendError::TooLarge { .. }
        );
        if !may_come_again {
            return;
        }
        let numbered = batches(bytes).next().and_then(Result::ok).as_ref().and_then(Numbered::of);
        let Some(batch) = numbered.filter(|batch| batch.first.0 == 0) else { return };
        let is_newer = |window: &Window| batch.epoch > window.epoch;
        let is_full = self.0.producers.known.get() >= self.0.config.producers_max;
        match partition.producers.get_mut(&batch.producer) {
            Some(window) if is_newer(window) => *window = Window::new(batch.epoch, self.reactor().wall_clock()),
            None if !is_full => {
                let window = Window::new(batch.epoch, self.reactor().wall_clock());
                self.remember(partition, batch.producer, window);
            }
            _ => {}
        }
    }

    fn remember(&self, partition: &mut Partition, producer: ProducerId, window: Window) {
        partition.producers.insert(producer, window);
        self.0.producers.known.set(self.0.producers.known.get() + 1);
    }

    /// How many there are, once for each partition.
    pub(super) fn producers_known(&self) -> usize {
        self.0.producers.known.get()
    }

    /// Counts again, after partitions came or went.
    pub(super) fn count_producers(&self) {
        let known = self.0.partitions.borrow().slots.iter().map(|(_, (_, partition))| partition.producers.len()).sum();
        self.0.producers.known.set(known);
    }

    /// Forgets producers that have been silent for as long as is configured.
    pub(super) fn forget_expired_producers(&self) {
        self.forget_silent(self.0.config.producer_expiration);
    }

    /// Sees to it that there is room for one more, if those that are remembered leave any.
    pub(super) fn make_room_for_producer(&self) {
        let producers = &self.0.producers;
        if producers.known.get() < self.0.config.producers_max {
            return;
        }
        let now = self.reactor().wall_clock().0;
        if (now - producers.looked.get()).abs() >= LOOK_INTERVAL_MS {
            producers.looked.set(now);
            self.forget_silent(SILENT);
        }
    }

    fn forget_silent(&self, silence: Duration) {
        let now = self.reactor().wall_clock().0;
        let silence = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
        let is_heard = |at: Timestamp| now.saturating_sub(at.0) < silence;
        for (_, (_, partition)) in &mut self.0.partitions.borrow_mut().slots {
            partition.producers.retain(|_, window| is_heard(window.at));
        }
        self.count_producers();
    }

    /// Takes from what a checkpoint file says the producers that their partitions have forgotten.
    pub(super) fn prune_producers(&self, state: &mut CheckpointState) {
        let partitions = self.0.partitions.borrow();
        for (id, said) in &mut state.partitions {
            let partition = partitions.by_id.get(id).and_then(|handle| partitions.get(*handle));
            let Some(partition) = partition else { continue };
            said.producers.retain(|producer, _| partition.producers.contains_key(producer));
        }
    }
}
