//! **Offsets have no gaps: a reader gets whole batches, the first with the offset it asked for, each next one beginning
//! where the one before ended, every record of a batch in its place, and nothing past the high watermark.**

use super::{Event, Invariant};
use crate::records::SeenBatch;

pub(super) struct Contiguous;

impl Invariant for Contiguous {
    fn name(&self) -> &'static str {
        "contiguous"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Read { partition, from, high_watermark, batches } = event else { return Ok(()) };
        let mut expected = *from;
        for (index, batch) in batches.iter().enumerate() {
            let begins = if index == 0 { batch.base <= expected } else { batch.base == expected };
            if !begins || batch.next <= expected {
                return Err(format!(
                    "{partition}: a batch of {} to {} where {expected} was due",
                    batch.base, batch.next
                ));
            }
            check_records(batch).map_err(|why| format!("{partition}: {why}"))?;
            expected = batch.next;
        }
        if !batches.is_empty() && expected > *high_watermark {
            return Err(format!("{partition}: records up to {expected} shown, high watermark {high_watermark}"));
        }
        Ok(())
    }
}

fn check_records(batch: &SeenBatch) -> Result<(), String> {
    let offsets = batch.records.iter().map(|(offset, _)| *offset);
    if offsets.eq(batch.base..batch.next) {
        Ok(())
    } else {
        Err(format!("the batch of {} to {} does not have those records", batch.base, batch.next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PARTITION, batch, read};
    use super::*;

    #[test]
    fn gaps_and_overlaps_are_found() {
        let check = |from, batches: &[SeenBatch]| Contiguous.observe(&read(from, batches)).is_ok();
        assert!(check(1, &[batch(1, 0, 2), batch(2, 2, 1)]));
        assert!(!check(0, &[batch(1, 1, 1)]));
        assert!(!check(2, &[batch(1, 0, 2)]));
        assert!(!check(0, &[batch(1, 0, 2), batch(2, 3, 1)]));
        assert!(!check(0, &[batch(1, 0, 2), batch(2, 1, 2)]));
        let mut short = batch(1, 0, 2);
        short.next = 3;
        assert!(!check(0, &[short]));
        let batches = [batch(1, 0, 2)];
        let past = Event::Read { partition: PARTITION, from: 0, high_watermark: 1, batches: &batches };
        assert!(Contiguous.observe(&past).is_err());
    }
}
