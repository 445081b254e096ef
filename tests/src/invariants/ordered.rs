//! **One producer's appends to a partition get their offsets in the order in which it made them, and are acknowledged in
//! that order.**

use super::{Event, Invariant};
use crate::world::producer_of;
use corelog_engine::model::PartitionId;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Ordered {
    /// The last append of a producer acknowledged and its last offset. A producer numbers its appends upwards and hears of
    /// them in one mailbox.
    last: BTreeMap<(PartitionId, u64), (u64, i64)>,
}

impl Invariant for Ordered {
    fn name(&self) -> &'static str {
        "ordered"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match *event {
            Event::Acknowledged { partition, append, base, last } => {
                let before = self.last.insert((partition, producer_of(append)), (append, last));
                match before {
                    Some((earlier, end)) if earlier >= append || end >= base => Err(format!(
                        "{partition}: append {append} at {base} acknowledged after append {earlier}, which ends at {end}"
                    )),
                    _ => Ok(()),
                }
            }
            // What a weaker durability lost is appended again at the same offsets.
            Event::Crashed { .. } => {
                self.last.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::acknowledged;
    use super::*;

    #[test]
    fn an_acknowledgement_out_of_order_is_found() {
        for (second, holds) in
            [(acknowledged(2, 1, 1), true), (acknowledged(2, 0, 0), false), (acknowledged(0, 1, 1), false)]
        {
            let mut invariant = Ordered::default();
            invariant.observe(&acknowledged(1, 0, 0)).unwrap();
            assert_eq!(invariant.observe(&second).is_ok(), holds);
        }
    }
}
