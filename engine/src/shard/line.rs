//! Those who wait for a turn, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

/// A line of tasks of one shard. Only the first is woken: there may be thousands.
#[derive(Debug, Default)]
pub struct Line {
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    tickets: Cell<u64>,
}

/// A place in a [`Line`]; none until it was taken.
#[derive(Debug, Default)]
pub struct Place(Option<u64>);

impl Line {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Whether nobody waits before this place.
    pub fn is_first(&self, place: &Place) -> bool {
        self.waiting.borrow().front().is_none_or(|(first, _)| Some(*first) == place.0)
    }

    /// Takes a place at the end, or keeps the one there is.
    pub fn join(&self, place: &mut Place, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        let ticket = *place.0.get_or_insert_with(|| {
            self.tickets.set(self.tickets.get() + 1);
            self.tickets.get()
        });
        match waiting.iter_mut().find(|(other, _)| *other == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => waiting.push_back((ticket, waker.clone())),
        }
    }

    /// Gives a place up; false if there was none.
    pub fn leave(&self, place: &mut Place) -> bool {
        let Some(ticket) = place.0.take() else { return false };
        self.waiting.borrow_mut().retain(|(other, _)| *other != ticket);
        true
    }

    /// Has the first look again.
    pub fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().front() {
            waker.wake_by_ref();
        }
    }
}
