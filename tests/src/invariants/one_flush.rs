//! **One flush commits a shard: however many partitions have something pending, a journal entry costs one flush of the
//! device, two where it wraps around the journal's end; a checkpoint costs a fixed number, not one a file.**

use super::{Event, Invariant};

/// The barrier, then the checkpoint file's flush, or those of a new checkpoint file and its name.
const FLUSHES_PER_CHECKPOINT: u64 = 3;

pub(super) struct OneFlush;

impl Invariant for OneFlush {
    fn name(&self) -> &'static str {
        "one flush"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match *event {
            Event::Flushes { flushes, entries, checkpoints, under_way } => {
                // An entry wraps at most once a round of the journal, and a checkpoint comes before each round ends.
                // One more checkpoint may be on its way.
                let allowed = entries + 2 * under_way + (checkpoints + 1) * (FLUSHES_PER_CHECKPOINT + 1);
                if flushes > allowed {
                    return Err(format!("{flushes} flushes for {entries} entries and {checkpoints} checkpoints"));
                }
            }
            Event::Burst { partitions, flushes } if flushes > 1 => {
                return Err(format!("{flushes} flushes for a batch in each of {partitions} partitions"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_per_partition_is_found() {
        let holds = |flushes| {
            let event = Event::Flushes { flushes, entries: 10, checkpoints: 1, under_way: 2 };
            OneFlush.observe(&event).is_ok()
        };
        assert!(holds(22));
        assert!(!holds(23));
        assert!(OneFlush.observe(&Event::Burst { partitions: 10, flushes: 1 }).is_ok());
        assert!(OneFlush.observe(&Event::Burst { partitions: 10, flushes: 2 }).is_err());
    }
}
