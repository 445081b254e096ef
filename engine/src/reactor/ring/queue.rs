//! The two queues shared with the kernel.

use crate::reactor::Counters;
use crate::reactor::ops::OpId;
use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, types};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// One completion.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) token: Token,
    pub(super) result: i32,
    flags: u32,
}

/// What an entry was submitted for; travels through the kernel as `user_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Slot of the operation, or number of the stream or listener.
    pub(super) index: u32,
    /// Of an operation, the low 24 bits of its generation: a cancellation that comes late must not meet the next one in its
    /// slot.
    generation: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// Cancellations and bells that were sent: nobody waits for their result.
    Nothing,
    /// An operation of the front.
    Op,
    /// Bytes on a stream.
    Receive,
    /// A stream has something to read (kernels without provided buffers).
    Readable,
    /// A connection on a listener.
    Accept,
    /// The read of the own event counter: the helper, or another core without ring messages.
    Bell,
    /// Another core's ring message.
    Message,
}

/// When an entry is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Before everything else, and in a system call of its own: the kernel holds block I/O back until it has begun all
    /// entries of a call, and a send to a socket takes microseconds. A flush would begin only after all acknowledgements
    /// of the one before.
    First,
    /// In small groups, so that what completed meanwhile is seen soon.
    InTurn,
}

/// Entries handed over at once that are not first: half a millisecond of sends, before what completed meanwhile is seen.
const GROUP_MAX: usize = 64;

/// The ring, and what was not handed over yet.
pub(super) struct Queue {
    ring: IoUring,
    first: VecDeque<Entry>,
    in_turn: VecDeque<Entry>,
    completions: Vec<Completion>,
}

impl Queue {
    pub(super) fn new(ring: IoUring) -> Queue {
        Queue { ring, first: VecDeque::new(), in_turn: VecDeque::new(), completions: Vec::new() }
    }

    pub(super) fn ring(&mut self) -> &mut IoUring {
        &mut self.ring
    }

    /// Queues an entry; the kernel sees those of one order in the order of pushing.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion was taken from here.
    #[allow(unsafe_code)]
    pub(super) unsafe fn push(&mut self, order: Order, entry: Entry, token: Token) {
        let entry = entry.user_data(token.to_bits());
        match order {
            Order::First => self.first.push_back(entry),
            Order::InTurn => self.in_turn.push_back(entry),
        }
    }

    /// Whether entries that are first wait to be handed over.
    pub(super) fn has_first(&self) -> bool {
        !self.first.is_empty()
    }

    /// Whether any entries do.
    pub(super) fn has_more(&self) -> bool {
        self.has_first() || !self.in_turn.is_empty()
    }

    /// Hands over the entries that are first, and lets the kernel deliver what is done. False, and no system call, if
    /// there is neither.
    pub(super) fn submit_first(&mut self, counters: &Counters) -> bool {
        fill(&mut self.ring, &mut self.first, usize::MAX);
        let submission = self.ring.submission();
        let nothing = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        !nothing && self.enter(counters, |ring| ring.submit())
    }

    /// Hands over a group of the others.
    pub(super) fn submit_group(&mut self, counters: &Counters) {
        if fill(&mut self.ring, &mut self.in_turn, GROUP_MAX) {
            self.enter(counters, |ring| ring.submit());
        }
    }

    /// Hands over all, then sleeps until a completion is there or the time is over.
    pub(super) fn submit_and_wait(&mut self, counters: &Counters, timeout: Option<Duration>) {
        fill(&mut self.ring, &mut self.first, usize::MAX);
        fill(&mut self.ring, &mut self.in_turn, GROUP_MAX);
        // What is not handed over must not wait for what is.
        let wanted = usize::from(!self.has_more() && self.ring.completion().is_empty());
        self.enter(counters, |ring| match timeout {
            None => ring.submit_and_wait(wanted),
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                ring.submitter().submit_with_args(wanted, &types::SubmitArgs::new().timespec(&timeout))
            }
        });
    }

    /// Takes out all completions. The list comes back with `give_back`, so that it is allocated once.
    pub(super) fn take_completions(&mut self) -> Vec<Completion> {
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion().map(Completion::from));
        completions
    }

    pub(super) fn give_back(&mut self, mut completions: Vec<Completion>) {
        completions.clear();
        self.completions = completions;
    }

    /// Whether the kernel took what was queued. If not: a time-out, a signal, or completions that must be taken in
    /// first; the run loop comes back in each case.
    fn enter(&mut self, counters: &Counters, enter: impl FnOnce(&IoUring) -> io::Result<usize>) -> bool {
        counters.submits.set(counters.submits.get() + 1);
        let Err(error) = enter(&self.ring) else { return true };
        // Anything else is a bug in this room, and going on would lose operations.
        let code = error.raw_os_error().unwrap_or(0);
        assert!(matches!(code, libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), "io_uring_enter: {error}");
        false
    }
}

/// Moves entries to the submission queue, as many as fit and at most `count`. Whether it is to be handed over.
#[allow(unsafe_code)]
fn fill(ring: &mut IoUring, entries: &mut VecDeque<Entry>, count: usize) -> bool {
    if entries.is_empty() {
        return false;
    }
    let mut submission = ring.submission();
    for _ in 0..count {
        let Some(entry) = entries.front() else { break };
        // SAFETY: whoever called `push` promised that what the entry points to is valid until its completion.
        if unsafe { submission.push(entry) }.is_err() {
            break;
        }
        entries.pop_front();
    }
    true
}

impl From<cqueue::Entry> for Completion {
    fn from(entry: cqueue::Entry) -> Completion {
        Completion { token: Token::from_bits(entry.user_data()), result: entry.result(), flags: entry.flags() }
    }
}

impl Completion {
    /// Whether the same entry will complete again.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// Which provided buffer was filled.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

const GENERATION_MASK: u32 = (1 << 24) - 1;
const KINDS: [Kind; 7] =
    [Kind::Nothing, Kind::Op, Kind::Receive, Kind::Readable, Kind::Accept, Kind::Bell, Kind::Message];

impl Token {
    pub(super) const NOTHING: Token = Token::new(Kind::Nothing, 0);
    pub(super) const BELL: Token = Token::new(Kind::Bell, 0);
    pub(super) const MESSAGE: Token = Token::new(Kind::Message, 0);

    pub(super) const fn new(kind: Kind, index: u32) -> Token {
        Token { kind, index, generation: 0 }
    }

    pub(super) const fn op(id: OpId) -> Token {
        Token { kind: Kind::Op, index: id.slot, generation: id.generation & GENERATION_MASK }
    }

    pub(super) const fn to_bits(self) -> u64 {
        ((self.kind as u64) << 56) | ((self.generation as u64) << 32) | self.index as u64
    }

    fn from_bits(bits: u64) -> Token {
        let generation = (bits >> 32) as u32 & GENERATION_MASK;
        Token { kind: KINDS[(bits >> 56) as usize], index: bits as u32, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_follow_in_one_slot_have_tokens_of_their_own() {
        let token = |slot, generation| Token::op(OpId { slot, generation });
        let all = [token(7, 0), token(7, 1), token(8, 0), token(7, GENERATION_MASK), Token::new(Kind::Receive, 7)];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(Token::from_bits(one.to_bits()), *one);
            assert!(all[..at].iter().all(|other| other.to_bits() != one.to_bits()), "{one:?}");
        }
        assert_eq!(token(7, u32::MAX).to_bits(), token(7, GENERATION_MASK).to_bits());
    }
}
