//! What is going to happen in the world, in its order, and the hash of what did.

use super::net::NetEvent;
use super::random::Random;
use crate::reactor::ops::OpId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A reactor of the world. Never used again, so what is meant for one that ended finds nobody.
pub(super) type ReactorKey = u32;

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// An operation takes its effect, or makes progress.
    Land {
        reactor: ReactorKey,
        op: OpId,
    },
    /// A reactor runs its ready tasks.
    Turn {
        reactor: ReactorKey,
    },
    /// A timer of a reactor is due, or its bell rings.
    Wake {
        reactor: ReactorKey,
    },
    Net(NetEvent),
}

/// The heap of events and the clock they move.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Nanoseconds since the world began.
    pub(super) now: u64,
    /// Reactors that something has been made ready for.
    pub(super) woken: Vec<ReactorKey>,
    heap: BinaryHeap<Reverse<Entry>>,
    pushed: u64,
    random: Random,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    /// Events of one time come in an order that the seed decides, not the order of their making.
    order: u64,
    event: Event,
}

impl Schedule {
    pub(super) fn new(random: Random) -> Schedule {
        Schedule { now: 0, woken: Vec::new(), heap: BinaryHeap::new(), pushed: 0, random }
    }

    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        let order = self.random.bits() << 40 | (self.pushed & ((1 << 40) - 1));
        self.heap.push(Reverse(Entry { at: at.max(self.now), order, event }));
    }

    /// The next event not after `until`; the clock moves to it.
    pub(super) fn pop(&mut self, until: u64) -> Option<Event> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A hash of everything that happened, bytes written and sent included: two runs with one hash went the same way.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    hash: u64,
    pub(super) events: u64,
}

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        let mut trace = Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0 };
        trace.add(seed);
        trace
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// FNV-1a by words, with a rotation so that high bits come down again.
    pub(super) fn add(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(PRIME).rotate_left(23);
    }

    pub(super) fn add_all<const N: usize>(&mut self, words: [u64; N]) {
        words.into_iter().for_each(|word| self.add(word));
    }

    /// Four lanes at a time: every byte that is written passes here.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        let mut lanes = [1u64, 2, 3, 4];
        let mut pieces = bytes.chunks_exact(32);
        for piece in &mut pieces {
            for (lane, word) in lanes.iter_mut().zip(piece.chunks_exact(8)) {
                let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
                *lane = (*lane ^ word).wrapping_mul(PRIME).rotate_left(23);
            }
        }
        self.add_all(lanes);
        pieces.remainder().iter().for_each(|byte| self.add(u64::from(*byte)));
        self.add(bytes.len() as u64);
    }

    pub(super) fn event(&mut self, now: u64, event: &Event) {
        self.events += 1;
        self.add(now);
        match *event {
            Event::Land { reactor, op } => self.add_all([1, reactor.into(), op.slot.into()]),
            Event::Turn { reactor } => self.add_all([2, reactor.into()]),
            Event::Wake { reactor } => self.add_all([3, reactor.into()]),
            Event::Net(NetEvent::Knock { socket, .. }) => self.add_all([4, socket]),
            Event::Net(NetEvent::Arrive { socket }) => self.add_all([5, socket]),
            Event::Net(NetEvent::Rejected { socket }) => self.add_all([6, socket]),
        }
    }
}
