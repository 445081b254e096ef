//! **Memory stays within its budget: the buffers in use on a shard never exceed the sum of what its users may take.**

use super::{Event, Invariant};

pub(super) struct Memory;

impl Invariant for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match *event {
            Event::Memory { used, bound } if used > bound => Err(format!("{used} bytes in use, {bound} allowed")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_budget_is_found() {
        assert!(Memory.observe(&Event::Memory { used: 10, bound: 10 }).is_ok());
        assert!(Memory.observe(&Event::Memory { used: 11, bound: 10 }).is_err());
    }
}
