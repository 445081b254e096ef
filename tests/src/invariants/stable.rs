//! **No reader sees what a crash can undo: a record that was read once is at its offset for ever, unless it was deleted,
//! or its topic does not promise to survive the crash that came, or its partition says that it is damaged.**

use super::{Event, Invariant, shown, survives};
use crate::records::RecordId;
use corelog_engine::metadata::Durability;
use corelog_engine::model::PartitionId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Stable {
    partitions: BTreeMap<PartitionId, Seen>,
}

#[derive(Default)]
struct Seen {
    durability: Option<Durability>,
    records: BTreeMap<i64, RecordId>,
    /// The highest watermark told.
    high_watermark: i64,
    /// A crash came that the topic does not survive: the next extent says what is left.
    may_shrink: bool,
}

impl Invariant for Stable {
    fn name(&self) -> &'static str {
        "stable"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match *event {
            Event::Appending { partition, durability, .. } => {
                self.partitions.entry(partition).or_default().durability = Some(durability);
            }
            Event::Read { partition, high_watermark, batches, .. } => {
                let seen = self.partitions.entry(partition).or_default();
                seen.note_high_watermark(high_watermark);
                for (offset, id) in batches.iter().flat_map(|batch| &batch.records) {
                    let before = *seen.records.entry(*offset).or_insert(*id);
                    if before != *id {
                        let (now, before) = (shown(*id), shown(before));
                        return Err(format!("{partition}: {now} at offset {offset}, where {before} was read before"));
                    }
                }
            }
            Event::Crashed { kind } => {
                for seen in self.partitions.values_mut() {
                    seen.may_shrink |= seen.durability.is_some_and(|durability| !survives(durability, kind));
                }
            }
            Event::Fenced { partition } => {
                self.partitions.remove(&partition);
            }
            Event::Extent { partition, next, high_watermark, .. } => {
                let Some(seen) = self.partitions.get_mut(&partition) else { return Ok(()) };
                return seen.check_extent(next, high_watermark).map_err(|why| format!("{partition}: {why}"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Seen {
    fn note_high_watermark(&mut self, high_watermark: i64) {
        self.high_watermark = self.high_watermark.max(high_watermark);
    }

    fn check_extent(&mut self, next: i64, high_watermark: i64) -> Result<(), String> {
        if std::mem::take(&mut self.may_shrink) {
            self.records.split_off(&next);
            self.high_watermark = self.high_watermark.min(next);
        }
        if high_watermark > next {
            return Err(format!("the high watermark {high_watermark} is past the end {next}"));
        }
        if next < self.high_watermark {
            return Err(format!("ends at {next}; readers were told of {}", self.high_watermark));
        }
        self.note_high_watermark(high_watermark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PARTITION, appending, batch, extent, read};
    use super::*;
    use corelog_engine::reactor::sim::CrashKind;

    fn after(events: &[Event<'_>]) -> bool {
        let mut invariant = Stable::default();
        events.iter().try_for_each(|event| invariant.observe(event)).is_ok()
    }

    #[test]
    fn what_was_read_and_is_undone_is_found() {
        let crash = Event::Crashed { kind: CrashKind::PowerCut };
        let (one, other) = ([batch(1, 0, 2)], [batch(2, 0, 2)]);
        assert!(after(&[appending(1, 2), read(0, &one), crash.clone(), extent(0, 2), read(0, &one)]));
        assert!(!after(&[appending(1, 2), read(0, &one), crash.clone(), extent(0, 1)]));
        assert!(!after(&[appending(1, 2), read(0, &one), crash.clone(), read(0, &other)]));
        let weak = Event::Appending { partition: PARTITION, append: 1, records: 2, durability: Durability::Memory };
        assert!(after(&[weak, read(0, &one), crash, extent(0, 0), read(0, &other)]));
    }
}
