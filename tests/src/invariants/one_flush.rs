//! **One flush commits a shard: however many partitions have something pending, a journal entry costs one flush of the
//! device, two where it wraps around the journal's end; a checkpoint costs a fixed number, not one a file.**

use super::{Event, Invariant};

/// The barrier, the checkpoint file's own flush, and the flushes that a new checkpoint file and its name take.
const FLUSHES_PER_CHECKPOINT: u64 = 4;

pub(super) struct OneFlush;

impl Invariant for OneFlush {
    fn name(&self) -> &'static str {
        "one flush"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Flushes { flushes, entries, checkpoints } = *event else { return Ok(()) };
        // An entry wraps at most once a round of the journal, and a checkpoint comes before each round ends.
        let allowed = entries + checkpoints * (FLUSHES_PER_CHECKPOINT + 1) + 1;
        if flushes > allowed {
            return Err(format!("{flushes} flushes for {entries} entries and {checkpoints} checkpoints"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_per_partition_is_found() {
        assert!(OneFlush.observe(&Event::Flushes { flushes: 16, entries: 10, checkpoints: 1 }).is_ok());
        assert!(OneFlush.observe(&Event::Flushes { flushes: 160, entries: 10, checkpoints: 1 }).is_err());
    }
}
