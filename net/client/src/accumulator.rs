//! Where records gather into batches, on the callers' side of a producer. Pure: told the time, woken by nobody.

use crate::error::{ProduceError, SendError};
use crate::options::ProducerOptions;
use crate::partitioner::partition_of;
use crate::producer::Settled;
use crate::report::{NewRecord, ProducerStats, Sent};
use corelog_batch::{AppendRefused, BatchBuilder, HEADER_BYTES};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a record takes beside its key, value and headers, at most: lengths, deltas, counts.
const RECORD_OVERHEAD: usize = 36;

/// A batch ready to be sent.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) partition: u32,
    /// Number of its first record in its partition, as in [`Sent`].
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the producer's buffer that it takes until it is settled.
    pub(crate) reserved: usize,
    /// When its first record was taken.
    pub(crate) born: Instant,
}

/// Batches that grow, one for each partition, and batches that are full.
#[derive(Debug)]
pub(crate) struct Accumulator {
    options: ProducerOptions,
    slots: Vec<Slot>,
    full: Vec<Sealed>,
    /// Partitions whose batch lingers, by when that ends. Entries whose batch has gone are passed over.
    lingering: VecDeque<(Instant, u32)>,
    /// Partitions whose batch may go as soon as there is room for it.
    ripe: VecDeque<u32>,
    /// Where records without a key go, until that batch is sealed.
    sticky: u32,
    /// A batch became full or ripe since the last `changed`.
    news: bool,
    used: usize,
    stats: ProducerStats,
    failure: Option<ProduceError>,
}

#[derive(Debug)]
struct Slot {
    builder: BatchBuilder,
    born: Instant,
    /// Its batch is in `ripe`.
    ripe: bool,
    /// Number that the next record gets.
    next: u64,
    /// Records with smaller numbers are settled.
    settled: u64,
}

impl Accumulator {
    /// `sticky` is the partition that the first records without a key go to.
    pub(crate) fn new(options: &ProducerOptions, partitions: u32, sticky: u32, now: Instant) -> Accumulator {
        let mut accumulator = Accumulator {
            options: ProducerOptions {
                batch_bytes: options.batch_bytes.min(options.batch_bytes_max),
                ..options.clone()
            },
            slots: Vec::new(),
            full: Vec::new(),
            lingering: VecDeque::new(),
            ripe: VecDeque::new(),
            sticky: sticky % partitions.max(1),
            news: false,
            used: 0,
            stats: ProducerStats::default(),
            failure: None,
        };
        accumulator.grow(partitions, now);
        accumulator
    }

    /// The topic has so many partitions now; there are never fewer.
    pub(crate) fn grow(&mut self, partitions: u32, now: Instant) {
        let (max, codec) = (self.options.batch_bytes_max, self.options.compression);
        while self.slots.len() < partitions as usize {
            let builder = BatchBuilder::new(max, codec);
            self.slots.push(Slot { builder, born: now, ripe: false, next: 0, settled: 0 });
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn stats(&self) -> ProducerStats {
        ProducerStats { bytes_buffered: self.used, ..self.stats }
    }

    /// Takes a record, or says why not; `Full` passes when something is settled. `now_ms` is its timestamp unless it has
    /// one.
    pub(crate) fn append(&mut self, record: &NewRecord<'_>, now: Instant, now_ms: i64) -> Result<Sent, SendError> {
        let mut partition = self.partition(record)?;
        let size = size(record);
        let slot = &self.slots[partition as usize];
        let fits = !slot.builder.is_empty() && slot.builder.size() + size <= self.options.batch_bytes;
        let taken = if fits { size } else { HEADER_BYTES + size };
        if self.used > 0 && self.used + taken > self.options.buffer_bytes {
            return Err(SendError::Full);
        }
        if !fits {
            self.seal_full(partition);
            // Without a key it goes where the next batch begins.
            partition = self.partition(record)?;
        }
        self.put(partition, record, record.timestamp.unwrap_or(now_ms))?;
        let slot = &mut self.slots[partition as usize];
        let number = slot.next;
        slot.next += 1;
        self.stats.sent += 1;
        if slot.builder.record_count() == 1 {
            self.begin(partition, now);
        }
        if self.slots[partition as usize].builder.size() >= self.options.batch_bytes {
            self.seal_full(partition);
        }
        Ok(Sent { partition, number })
    }

    /// When a batch ends its linger. None when none lingers.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lingering.front().map(|&(at, _)| at)
    }

    /// Whether something came since the last call that a driver asleep until `until` should look at.
    pub(crate) fn changed(&mut self, until: Option<Instant>) -> bool {
        let sooner = self.deadline().is_some_and(|at| until.is_none_or(|until| at < until));
        std::mem::take(&mut self.news) || sooner
    }

    /// Whether `collect` would find something by now.
    pub(crate) fn has_work(&self, now: Instant, mut room: impl FnMut(u32) -> bool) -> bool {
        !self.full.is_empty()
            || self.deadline().is_some_and(|at| at <= now)
            || self.ripe.iter().any(|&partition| room(partition))
    }

    /// Moves out what is to be sent: full batches, and those past their linger for which there is `room`.
    pub(crate) fn collect(&mut self, now: Instant, mut room: impl FnMut(u32) -> bool, out: &mut Vec<Sealed>) {
        while let Some((_, partition)) = self.lingering.pop_front_if(|(at, _)| *at <= now) {
            if self.slots[partition as usize].born + self.options.linger <= now {
                self.ripen(partition);
            }
        }
        self.news = false;
        out.append(&mut self.full);
        for _ in 0..self.ripe.len() {
            let Some(partition) = self.ripe.pop_front() else { break };
            if room(partition) {
                self.slots[partition as usize].ripe = false;
                out.extend(self.seal(partition));
            } else {
                self.ripe.push_back(partition);
            }
        }
    }

    /// Ends the linger of a partition's batch.
    pub(crate) fn ripen(&mut self, partition: u32) {
        let slot = &mut self.slots[partition as usize];
        if !slot.builder.is_empty() && !slot.ripe {
            slot.ripe = true;
            self.news = true;
            self.ripe.push_back(partition);
        }
    }

    /// Ends the linger of every batch, and says which records were taken until now.
    pub(crate) fn ripen_all(&mut self) -> Vec<u64> {
        (0..self.partitions()).for_each(|partition| self.ripen(partition));
        self.lingering.clear();
        self.slots.iter().map(|slot| slot.next).collect()
    }

    /// Whether all records with smaller numbers are settled, partition by partition.
    pub(crate) fn is_settled(&self, until: &[u64]) -> bool {
        self.slots.iter().zip(until).all(|(slot, &until)| slot.settled >= until)
    }

    /// Takes in what became known, and frees its room.
    pub(crate) fn settle(&mut self, settled: &Settled) {
        self.used -= settled.reserved;
        let delivery = &settled.delivery;
        self.slots[delivery.partition as usize].settled = delivery.first + u64::from(delivery.count);
        let count = u64::from(delivery.count);
        match &delivery.outcome {
            Ok(_) => {
                self.stats.acknowledged += count;
                self.stats.resent += if settled.resent { count } else { 0 };
                self.stats.bytes_acknowledged += delivery.bytes as u64;
            }
            Err(error) => {
                let sum = if error.is_outcome_unknown() { &mut self.stats.unknown } else { &mut self.stats.failed };
                *sum += count;
                self.failure.get_or_insert_with(|| error.clone());
            }
        }
    }

    /// The first failure since the last call.
    pub(crate) fn failure(&mut self) -> Option<ProduceError> {
        self.failure.take()
    }

    fn partition(&self, record: &NewRecord<'_>) -> Result<u32, SendError> {
        let partitions = self.partitions();
        match (record.partition, record.key) {
            (Some(partition), _) if partition < partitions => Ok(partition),
            (Some(partition), _) => Err(SendError::UnknownPartition { partition, partitions }),
            (None, Some(key)) => Ok(partition_of(key, partitions)),
            (None, None) => Ok(self.sticky),
        }
    }

    fn put(&mut self, partition: u32, record: &NewRecord<'_>, timestamp: i64) -> Result<(), SendError> {
        let builder = &mut self.slots[partition as usize].builder;
        let before = if builder.is_empty() { 0 } else { builder.size() };
        let taken = builder.append(record.key, record.value, record.headers, timestamp);
        taken.map_err(|refused| match refused {
            AppendRefused::TooLarge { size, max } => SendError::TooLarge { size, max },
            AppendRefused::NegativeTimestamp { timestamp } => SendError::NegativeTimestamp(timestamp),
            // `append` made room first, by an estimate that is never below.
            AppendRefused::Full => SendError::Full,
        })?;
        self.used += self.slots[partition as usize].builder.size() - before;
        Ok(())
    }

    /// A batch got its first record.
    fn begin(&mut self, partition: u32, now: Instant) {
        self.slots[partition as usize].born = now;
        if self.options.linger == Duration::ZERO {
            self.ripen(partition);
        } else {
            self.lingering.push_back((now + self.options.linger, partition));
        }
    }

    fn seal_full(&mut self, partition: u32) {
        if let Some(sealed) = self.seal(partition) {
            self.full.push(sealed);
            self.news = true;
        }
    }

    fn seal(&mut self, partition: u32) -> Option<Sealed> {
        let slot = &mut self.slots[partition as usize];
        if slot.ripe {
            slot.ripe = false;
            self.ripe.retain(|&ripe| ripe != partition);
        }
        let count = slot.builder.record_count();
        let before = slot.builder.size();
        let mut bytes = slot.builder.build().or_else(|_| slot.builder.build_plain()).ok()?;
        bytes.shrink_to(bytes.len() + bytes.len() / 4);
        // Until here the records counted as they were; now their batch counts, compressed.
        self.used = self.used - before + bytes.len();
        if partition == self.sticky {
            self.sticky = (self.sticky + 1) % self.slots.len() as u32;
        }
        let slot = &self.slots[partition as usize];
        let (first, reserved) = (slot.next - u64::from(count), bytes.len());
        Some(Sealed { partition, first, count, bytes, reserved, born: slot.born })
    }
}

/// What a record takes of a batch, rounded up.
fn size(record: &NewRecord<'_>) -> usize {
    let headers = record.headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len) + 10);
    let data = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
    RECORD_OVERHEAD + data + headers.sum::<usize>()
}
