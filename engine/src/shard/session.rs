//! Where the outcomes of one connection's requests arrive.

use super::event::Event;
use super::remote::Reply;
use crate::error::AppendError;
use crate::model::{Offset, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Where records are that were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// Their time, where the topic gives them the one at which they are appended; else, and where they were there already, -1.
    pub at: Timestamp,
    /// First offset of the log.
    pub first: Offset,
}

/// The outcome of something a connection asked for, named by the ticket it gave.
#[derive(Debug)]
pub enum Completed {
    /// The records are in the log, as durable as their topic asks for.
    Appended {
        /// The asker's own number for the request.
        ticket: u64,
        /// Where they are.
        appended: Appended,
    },
    /// The records were refused, or their outcome is not known (the error says which).
    Refused {
        /// The asker's own number for the request.
        ticket: u64,
        /// Why.
        error: AppendError,
    },
    /// A watched partition has something to read, or came to an end (a read then tells).
    Readable {
        /// The asker's own number for the watch.
        ticket: u64,
    },
    /// Another shard answered.
    Remote {
        /// The asker's own number for the request.
        ticket: u64,
        /// Its answer.
        reply: Reply,
    },
}

/// A mailbox of outcomes. Outcomes of one partition's appends arrive in the order of their offsets.
///
/// Its length is bounded by what its owner has asked for and not yet taken.
#[derive(Debug, Clone)]
pub struct Session(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    completed: RefCell<VecDeque<Completed>>,
    arrived: Event,
    share: Cell<Share>,
}

/// How much of what is in memory and not in segments came by a session.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// The last checkpoint's boundary.
    boundary: u64,
    /// Bytes appended since, and between it and the one before.
    since: u64,
    before: u64,
}

impl Share {
    /// The same after the boundary that is the last one now.
    fn at(self, boundary: u64) -> Share {
        match boundary - self.boundary {
            0 => self,
            1 => Share { boundary, since: 0, before: self.since },
            _ => Share { boundary, since: 0, before: 0 },
        }
    }
}

impl Session {
    /// A mailbox with room for `capacity` outcomes before it first grows.
    pub fn new(capacity: usize) -> Session {
        let completed = RefCell::new(VecDeque::with_capacity(capacity));
        Session(Rc::new(Inner { completed, arrived: Event::default(), share: Cell::default() }))
    }

    /// Takes the oldest outcome.
    pub fn pop(&self) -> Option<Completed> {
        self.0.completed.borrow_mut().pop_front()
    }

    /// Waits until there is an outcome to take, or somebody called [`Session::wake`].
    pub async fn completed(&self) {
        if self.0.completed.borrow().is_empty() {
            self.0.arrived.wait().await;
        }
    }

    /// Waits for the next outcome or call of [`Session::wake`], whatever is there already: for who cannot take it now.
    pub async fn news(&self) {
        self.0.arrived.wait().await;
    }

    /// Ends a wait in [`Session::completed`] although nothing came: the owner has other work for the waiter.
    pub fn wake(&self) {
        self.0.arrived.notify();
    }

    /// The offset of the first record, of who asked for one append and nothing else.
    pub(super) async fn append_outcome(&self) -> Result<Offset, AppendError> {
        loop {
            self.completed().await;
            match self.pop() {
                Some(Completed::Appended { appended, .. }) => return Ok(appended.base),
                Some(Completed::Refused { error, .. }) => return Err(error),
                _ => {}
            }
        }
    }

    /// Whether this is the same mailbox.
    pub fn is(&self, other: &Session) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Counts bytes that were appended for it after this boundary.
    pub(super) fn add_to_share(&self, boundary: u64, bytes: usize) {
        let share = self.0.share.get().at(boundary);
        self.0.share.set(Share { since: share.since + bytes as u64, ..share });
    }

    /// Bytes appended for it since the boundary before this one, which is the last.
    pub(super) fn share(&self, boundary: u64) -> u64 {
        let share = self.0.share.get().at(boundary);
        share.since + share.before
    }

    pub(crate) fn appended(&self, ticket: u64, appended: Appended) {
        self.push(Completed::Appended { ticket, appended });
    }

    pub(crate) fn refused(&self, ticket: u64, error: AppendError) {
        self.push(Completed::Refused { ticket, error });
    }

    pub(crate) fn readable(&self, ticket: u64) {
        self.push(Completed::Readable { ticket });
    }

    pub(crate) fn push(&self, outcome: Completed) {
        self.0.completed.borrow_mut().push_back(outcome);
        self.0.arrived.notify();
    }
}
