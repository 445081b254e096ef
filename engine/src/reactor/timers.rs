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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::task::Wake;

    /// Notes its number when it is woken.
    struct Noted(u64, Arc<Mutex<Vec<u64>>>);

    impl Wake for Noted {
        fn wake(self: Arc<Noted>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Set(u64),
        Cancel(usize),
        Fire(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0..50u64).prop_map(Act::Set),
            1 => any::<usize>().prop_map(Act::Cancel),
            1 => (0..20u64).prop_map(Act::Fire),
        ];
        proptest::collection::vec(act, 1..if cfg!(miri) { 30 } else { 300 })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default()
        })]

        /// Against a sorted list: what is due fires, in the order of times and then of setting; what is cancelled
        /// does not.
        #[test]
        fn timers_fire_as_a_sorted_list_would(acts in acts()) {
            let mut timers = Timers::default();
            let woken = Arc::new(Mutex::new(Vec::new()));
            let mut model: Vec<(Instant, u64)> = Vec::new();
            let mut ids: Vec<(u64, TimerId)> = Vec::new();
            let (mut now, mut number) = (0, 0);
            for act in acts {
                match act {
                    Act::Set(ahead) => {
                        let at = Instant::from_nanos(now + ahead);
                        let waker = Waker::from(Arc::new(Noted(number, woken.clone())));
                        ids.push((number, timers.set(at, waker)));
                        model.push((at, number));
                        number += 1;
                    }
                    Act::Cancel(at) if !ids.is_empty() => {
                        let (number, id) = ids.swap_remove(at % ids.len());
                        timers.cancel(id);
                        model.retain(|(_, other)| *other != number);
                    }
                    Act::Cancel(_) => {}
                    Act::Fire(ahead) => {
                        now += ahead;
                        timers.fire(Instant::from_nanos(now));
                        model.sort_unstable();
                        let due = model.partition_point(|(at, _)| at.nanos() <= now);
                        let expected: Vec<u64> = model.drain(..due).map(|(_, number)| number).collect();
                        prop_assert_eq!(std::mem::take(&mut *woken.lock().unwrap()), expected);
                    }
                }
                prop_assert_eq!(timers.next(), model.iter().map(|(at, _)| *at).min());
                for (number, id) in &ids {
                    let fired = !model.iter().any(|(_, other)| other == number);
                    prop_assert_eq!(timers.poll(id, &Waker::from(Arc::new(Noted(*number, woken.clone())))), fired);
                }
            }
            prop_assert!(timers.slots.len() <= timers.free.len() + ids.len());
        }
    }
}
