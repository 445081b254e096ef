//! **Whatever was acknowledged is read back, at the offsets that were told, once; what was refused is not in the log;
//! nothing is in a log that was not appended to it.**
//!
//! Weaker durabilities promise less: `write` a crash of the process, `memory` none. After a crash that a topic does not
//! promise to survive, what is left must still be a prefix. A partition that says it is damaged is excused.

use super::{Event, Invariant, shown, survives};
use crate::records::{RecordId, SeenBatch};
use corelog_engine::metadata::Durability;
use corelog_engine::model::PartitionId;
use corelog_engine::reactor::sim::CrashKind;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Acknowledged {
    appends: BTreeMap<u64, Append>,
    partitions: BTreeMap<PartitionId, Partition>,
    /// Those that said so once. A restart forgets what a reader found until somebody reads there again.
    damaged: BTreeSet<PartitionId>,
}

struct Append {
    partition: PartitionId,
    records: u32,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    /// Offset of the first record.
    Acknowledged(i64),
    Refused,
    /// Was acknowledged, and a crash that its topic does not survive came.
    Forgiven,
}

#[derive(Default)]
struct Partition {
    durability: Option<Durability>,
    /// Offset of the first record of an append, as far as anybody was told or has read.
    places: BTreeMap<u64, i64>,
    /// First offset of what may be gone is below this.
    deleted_before: i64,
    /// End of what was acknowledged.
    acknowledged_next: i64,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        if event.partition().is_some_and(|partition| self.damaged.contains(&partition)) {
            return Ok(());
        }
        match *event {
            Event::Appending { partition, append, records, durability } => {
                self.appends.insert(append, Append { partition, records, fate: Fate::Unknown });
                self.partitions.entry(partition).or_default().durability = Some(durability);
            }
            Event::Acknowledged { partition, append, base, last } => {
                return self.acknowledge(partition, append, base, last);
            }
            Event::Refused { append, .. } => {
                if let Some(append) = self.appends.get_mut(&append) {
                    append.fate = Fate::Refused;
                }
            }
            Event::Read { partition, batches, .. } => {
                return batches.iter().try_for_each(|batch| self.read(partition, batch));
            }
            Event::Deleting { partition, before } => {
                let partition = self.partitions.entry(partition).or_default();
                partition.deleted_before = partition.deleted_before.max(before);
            }
            Event::Crashed { kind } => self.forgive(kind),
            Event::Fenced { partition } => {
                self.partitions.remove(&partition);
                self.damaged.insert(partition);
            }
            Event::Extent { partition, first, next, .. } | Event::Finished { partition, first, next } => {
                return self.check_extent(partition, first, next);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Acknowledged {
    fn acknowledge(&mut self, partition: PartitionId, append: u64, base: i64, last: i64) -> Result<(), String> {
        let Some(known) = self.appends.get_mut(&append) else { return Err(format!("append {append} was never made")) };
        if known.fate != Fate::Unknown {
            return Err(format!("append {append} has two outcomes"));
        }
        if last - base + 1 != i64::from(known.records) {
            return Err(format!("append {append} of {} records got offsets {base} to {last}", known.records));
        }
        known.fate = Fate::Acknowledged(base);
        let log = self.partitions.entry(partition).or_default();
        log.acknowledged_next = log.acknowledged_next.max(last + 1);
        log.place(append, base)
    }

    fn read(&mut self, partition: PartitionId, batch: &SeenBatch) -> Result<(), String> {
        for &(offset, id) in &batch.records {
            self.read_record(partition, offset, id)?;
        }
        Ok(())
    }

    fn read_record(&mut self, partition: PartitionId, offset: i64, id: RecordId) -> Result<(), String> {
        let at = format!("{} at offset {offset} of {partition}", shown(id));
        match self.appends.get(&id.append) {
            None => return Err(format!("{at} was never appended")),
            Some(append) if append.partition != partition => {
                return Err(format!("{at} belongs to {}", append.partition));
            }
            Some(append) if append.fate == Fate::Refused => return Err(format!("{at} was refused")),
            Some(append) if id.index >= append.records => return Err(format!("{at} was never appended")),
            Some(_) => {}
        }
        let log = self.partitions.entry(partition).or_default();
        log.place(id.append, offset - i64::from(id.index))
    }

    /// After a crash that its durability does not cover, a topic may have lost its end.
    fn forgive(&mut self, kind: CrashKind) {
        let weak = |log: &Partition| log.durability.is_some_and(|durability| !survives(durability, kind));
        for append in self.appends.values_mut() {
            let Some(log) = self.partitions.get(&append.partition).filter(|log| weak(log)) else { continue };
            if matches!(append.fate, Fate::Acknowledged(base) if base >= log.deleted_before) {
                append.fate = Fate::Forgiven;
            }
        }
        for log in self.partitions.values_mut().filter(|log| weak(log)) {
            log.acknowledged_next = 0;
            log.places.clear();
        }
    }

    fn check_extent(&self, partition: PartitionId, first: i64, next: i64) -> Result<(), String> {
        let Some(log) = self.partitions.get(&partition) else { return Ok(()) };
        if next < log.acknowledged_next {
            return Err(format!("{partition} ends at {next}, acknowledged up to {}", log.acknowledged_next));
        }
        if first > log.deleted_before.max(0) {
            return Err(format!("{partition} begins at {first}, deleted up to {}", log.deleted_before));
        }
        Ok(())
    }
}

impl Partition {
    fn place(&mut self, append: u64, base: i64) -> Result<(), String> {
        match *self.places.entry(append).or_insert(base) {
            known if known == base => Ok(()),
            known => Err(format!("append {append} is at offset {base} and at offset {known}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PARTITION, acknowledged, appending, batch, extent, read};
    use super::*;

    fn after(events: &[Event<'_>]) -> Result<(), String> {
        let mut invariant = Acknowledged::default();
        events.iter().try_for_each(|event| invariant.observe(event))
    }

    #[test]
    fn a_log_that_keeps_its_word_passes() {
        let told = [appending(1, 2), appending(2, 1), acknowledged(1, 0, 1)];
        assert_eq!(after(&told), Ok(()));
        let seen = [batch(1, 0, 2), batch(2, 2, 1)];
        assert_eq!(after(&[told.as_slice(), &[read(0, &seen), extent(0, 3)]].concat()), Ok(()));
    }

    #[test]
    fn what_is_lost_moved_doubled_or_foreign_is_found() {
        let told = [appending(1, 2), appending(2, 1), acknowledged(1, 0, 1)];
        let refused = Event::Refused { partition: PARTITION, append: 2 };
        let (moved, foreign, two, doubled) =
            ([batch(1, 5, 2)], [batch(9, 2, 1)], [batch(2, 2, 1)], [batch(2, 2, 1), batch(2, 3, 1)]);
        for (wrong, why) in [
            (vec![extent(0, 1)], "ends at 1"),
            (vec![extent(1, 2)], "begins at 1"),
            (vec![read(5, &moved)], "at offset 5 and at offset 0"),
            (vec![read(2, &foreign)], "never appended"),
            (vec![refused, read(2, &two)], "was refused"),
            (vec![read(2, &doubled)], "at offset 3 and at offset 2"),
        ] {
            let events = [told.as_slice(), &wrong].concat();
            assert!(after(&events).is_err_and(|error| error.contains(why)), "{why}");
        }
    }

    #[test]
    fn a_weak_topic_may_lose_its_end_in_a_crash_it_does_not_survive() {
        let weak = Event::Appending { partition: PARTITION, append: 1, records: 2, durability: Durability::Write };
        for (kind, holds) in [(CrashKind::Kill, false), (CrashKind::PowerCut, true)] {
            let events = [weak.clone(), acknowledged(1, 0, 1), Event::Crashed { kind }, extent(0, 1)];
            assert_eq!(after(&events).is_ok(), holds);
        }
    }
}
