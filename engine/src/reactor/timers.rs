//! Timers of one reactor: a 4-ary heap over a slab. Allocates only while it grows.

use super::Instant;
use std::task::Waker;

/// The pending timers.
#[derive(Default)]
pub(crate) struct Timers {
    /// A heap by (time, order of setting), so that equal times fire in a fixed order.
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    set: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    order: u64,
    slot: u32,
}

enum Slot {
    Free,
    Pending { waker: Waker, heap_index: u32 },
    Fired,
}

/// Names a timer until it is cancelled.
pub(crate) struct TimerId(u32);

const ARITY: usize = 4;

impl Timers {
    /// Sets a timer; `waker` is woken once when it fires. The id must go to [`Timers::cancel`] in the end.
    pub(crate) fn set(&mut self, at: Instant, waker: Waker) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            (self.slots.len() - 1) as u32
        });
        let index = self.heap.len();
        self.slots[slot as usize] = Slot::Pending { waker, heap_index: index as u32 };
        self.set += 1;
        self.heap.push(Entry { at, order: self.set, slot });
        self.sift_up(index);
        TimerId(slot)
    }

    /// Whether the timer has fired; if not, `waker` takes the place of the one before.
    pub(crate) fn poll(&mut self, id: &TimerId, waker: &Waker) -> bool {
        match &mut self.slots[id.0 as usize] {
            Slot::Fired => true,
            Slot::Pending { waker: old, .. } => {
                old.clone_from(waker);
                false
            }
            Slot::Free => unreachable!("a timer is polled after it was cancelled"),
        }
    }

    /// Forgets a timer, fired or not.
    pub(crate) fn cancel(&mut self, id: TimerId) {
        if let Slot::Pending { heap_index, .. } = self.slots[id.0 as usize] {
            self.remove(heap_index as usize);
        }
        self.slots[id.0 as usize] = Slot::Free;
        self.free.push(id.0);
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Fires every timer that is due at `now`, in the order of their times.
    pub(crate) fn fire(&mut self, now: Instant) {
        while let Some(&first) = self.heap.first().filter(|first| first.at <= now) {
            self.remove(0);
            let slot = std::mem::replace(&mut self.slots[first.slot as usize], Slot::Fired);
            if let Slot::Pending { waker, .. } = slot {
                waker.wake();
            }
        }
    }

    fn remove(&mut self, index: usize) {
        self.heap.swap_remove(index);
        if index < self.heap.len() {
            self.sift_up(index);
            self.sift_down(index);
        }
    }

    fn sift_up(&mut self, mut index: usize) {
        while index > 0 && self.heap[index] < self.heap[(index - 1) / ARITY] {
            let parent = (index - 1) / ARITY;
            self.heap.swap(index, parent);
            self.note_place(index);
            index = parent;
        }
        self.note_place(index);
    }

    fn sift_down(&mut self, mut index: usize) {
        loop {
            let first = index * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { break };
            if self.heap[index] <= self.heap[least] {
                break;
            }
            self.heap.swap(index, least);
            self.note_place(index);
            index = least;
        }
        self.note_place(index);
    }

    fn note_place(&mut self, index: usize) {
        if let Slot::Pending { heap_index, .. } = &mut self.slots[self.heap[index].slot as usize] {
            *heap_index = index as u32;
        }
    }
}
