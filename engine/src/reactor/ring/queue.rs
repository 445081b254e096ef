//! The two queues shared with the kernel.

use crate::reactor::Counters;
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

/// The ring, and what did not fit in its submission queue.
pub(super) struct Queue {
    ring: IoUring,
    backlog: VecDeque<Entry>,
    completions: Vec<Completion>,
}

impl Queue {
    pub(super) fn new(ring: IoUring) -> Queue {
        Queue { ring, backlog: VecDeque::new(), completions: Vec::new() }
    }

    pub(super) fn ring(&mut self) -> &mut IoUring {
        &mut self.ring
    }

    /// Queues an entry; the kernel sees it with the next `submit`, in the order of pushing.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion was taken from here.
    #[allow(unsafe_code)]
    pub(super) unsafe fn push(&mut self, entry: Entry, token: Token) {
        self.backlog.push_back(entry.user_data(token.to_bits()));
        if self.backlog.len() == 1 {
            self.fill();
        }
    }

    /// Hands queued entries to the kernel and lets it deliver. One system call at most, none if there is nothing to do.
    pub(super) fn submit(&mut self, counters: &Counters) {
        loop {
            self.fill();
            let submission = self.ring.submission();
            let nothing = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
            drop(submission);
            if nothing || !self.enter(counters, |ring| ring.submit()) || self.backlog.is_empty() {
                return;
            }
        }
    }

    /// As `submit`, then sleeps until a completion is there or the time is over.
    pub(super) fn submit_and_wait(&mut self, counters: &Counters, timeout: Option<Duration>) {
        self.fill();
        // What does not fit must not wait for what does.
        let wanted = usize::from(self.backlog.is_empty() && self.ring.completion().is_empty());
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

    /// Moves from the backlog to the submission queue what fits.
    #[allow(unsafe_code)]
    fn fill(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever called `push` promised that what the entry points to is valid until its completion.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }
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

const KINDS: [Kind; 7] =
    [Kind::Nothing, Kind::Op, Kind::Receive, Kind::Readable, Kind::Accept, Kind::Bell, Kind::Message];

impl Token {
    pub(super) const NOTHING: Token = Token::new(Kind::Nothing, 0);
    pub(super) const BELL: Token = Token::new(Kind::Bell, 0);
    pub(super) const MESSAGE: Token = Token::new(Kind::Message, 0);

    pub(super) const fn new(kind: Kind, index: u32) -> Token {
        Token { kind, index }
    }

    pub(super) const fn to_bits(self) -> u64 {
        ((self.kind as u64) << 32) | self.index as u64
    }

    fn from_bits(bits: u64) -> Token {
        Token { kind: KINDS[(bits >> 32) as usize], index: bits as u32 }
    }
}
