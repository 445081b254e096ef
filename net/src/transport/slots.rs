//! Numbers for things that come and go: a number that is out of date is told from one in use.

use std::cell::Cell;
use std::rc::Rc;

/// Bits of a wire handle that hold the slot; the rest hold the low bits of the generation.
const SLOT_BITS: u32 = 20;
const GENERATION_MASK: u32 = u32::MAX >> SLOT_BITS;

/// A list of slots, each with a generation that grows with every use. Allocates nothing once it has been as full as it gets.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// How many are in use of this list and others together.
    total: Rc<Cell<usize>>,
}

#[derive(Debug)]
pub(crate) struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Names one use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// The number given to a session.
    pub(crate) fn ticket(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The key that gave this ticket.
    pub(crate) fn of_ticket(ticket: u64) -> Key {
        Key { slot: ticket as u32, generation: (ticket >> 32) as u32 }
    }

    /// The number given to a client; never 0.
    pub(crate) fn wire(self) -> u32 {
        (self.generation & GENERATION_MASK) << SLOT_BITS | self.slot
    }
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots::counted(&Rc::default())
    }

    /// A list that counts what is in use in `total` as well, until it is dropped.
    pub(crate) fn counted(total: &Rc<Cell<usize>>) -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), total: total.clone() }
    }

    /// What is in use of this list and those that it is counted with.
    pub(crate) fn total(&self) -> usize {
        self.total.get()
    }

    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| self.add_slot());
        let entry = &mut self.slots[slot as usize];
        entry.generation = next_generation(entry.generation);
        entry.value = Some(value);
        self.total.set(self.total.get() + 1);
        Key { slot, generation: entry.generation }
    }

    fn add_slot(&mut self) -> u32 {
        assert!(self.slots.len() < 1 << SLOT_BITS, "bounds keep slots below what a wire handle can name");
        self.slots.push(Slot { generation: 0, value: None });
        self.slots.len() as u32 - 1
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.slots.get_mut(key.slot as usize).filter(|entry| entry.generation == key.generation)?;
        let value = entry.value.take()?;
        self.free.push(key.slot);
        self.total.set(self.total.get() - 1);
        Some(value)
    }

    /// The key behind a number that came from a client.
    pub(crate) fn key(&self, wire: u32) -> Option<Key> {
        let slot = wire & ((1 << SLOT_BITS) - 1);
        let entry = self.slots.get(slot as usize).filter(|entry| entry.value.is_some())?;
        let key = Key { slot, generation: entry.generation };
        (key.wire() == wire).then_some(key)
    }

    /// All in use, lowest slot first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, entry)| {
            let key = Key { slot: slot as u32, generation: entry.generation };
            entry.value.as_mut().map(|value| (key, value))
        })
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.len());
    }
}

/// Skips generations whose low bits are 0, so that no wire handle is 0.
fn next_generation(generation: u32) -> u32 {
    let next = generation.wrapping_add(1);
    if next & GENERATION_MASK == 0 { next + 1 } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_together_until_they_are_dropped() {
        let total = Rc::default();
        let (mut first, mut second) = (Slots::counted(&total), Slots::counted(&total));
        let key = first.insert(());
        first.insert(());
        second.insert(());
        assert_eq!(second.total(), 3);
        first.remove(key);
        first.remove(key);
        assert_eq!(second.total(), 2);
        drop(first);
        assert_eq!(second.total(), 1);
    }

    #[test]
    fn a_number_names_one_use_only() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!((first.slot, slots.len()), (second.slot, 1));
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.key(first.wire()), None);
        assert_eq!(slots.key(second.wire()), Some(second));
        assert_eq!(Key::of_ticket(second.ticket()), second);
    }

    #[test]
    fn no_wire_handle_is_zero_and_none_comes_back_soon() {
        let mut slots = Slots::new();
        let first = slots.insert(()).wire();
        let mut key = slots.key(first).unwrap();
        for use_number in 1.. {
            assert_ne!(key.wire(), 0);
            slots.remove(key);
            key = slots.insert(());
            if key.wire() == first {
                assert_eq!(use_number, GENERATION_MASK);
                return;
            }
        }
    }

    #[test]
    fn nonsense_from_a_client_names_nothing() {
        let mut slots = Slots::new();
        slots.insert(());
        for wire in [0, 1, u32::MAX, 1 << SLOT_BITS | 1] {
            assert_eq!(slots.key(wire), None, "{wire:#x}");
        }
    }
}
