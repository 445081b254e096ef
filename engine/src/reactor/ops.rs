//! The closed list of operations and the slab that keeps each from its start to its completion.
//!
//! A slot owns its [`Op`], with every buffer and path in it, until the driver completes it, whatever became of the
//! future that asked for it:
//!
//! ```text
//!            start              poll                complete, poll
//!  (free) ----------> Submitted -----> Waiting ----------------------> (free), result and Op to the future
//!                        |  \____________|________ Completed __________/
//!            drop future |               |
//!                        +-> Abandoned <-+   ---- complete -----------> (free), Op dropped, what it opened closed
//! ```

use super::buffers::{Buffer, Slice};
use super::driver::{Closings, Handle, HandleKind};
use super::file::{DirEntry, Open, Space, WriteSync};
use super::socket::Outgoing;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a driver can be asked to do once. Receiving and accepting, which go on and on, are polled instead.
/// Each says what its success value is; where none is named it is 0.
#[derive(Debug)]
pub(crate) enum Op {
    /// Success: the file's number. Sets `direct` to whether the file bypasses the page cache.
    Open {
        path: PathBuf,
        how: Open,
        direct: bool,
    },
    /// An existing directory is a success.
    CreateDir {
        path: PathBuf,
    },
    /// Replaces what is at `to`.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
    /// Fills `entries`, in any order.
    ListDir {
        path: PathBuf,
        entries: Vec<DirEntry>,
    },
    SyncDir {
        path: PathBuf,
    },
    SyncFs {
        path: PathBuf,
    },
    /// Sets `space`.
    FreeSpace {
        path: PathBuf,
        space: Space,
    },
    /// Success: the number of the lock, which is closed as a file is.
    LockFile {
        path: PathBuf,
    },
    /// Reads until `buffer` is full or the file ends. Success: bytes read.
    Read {
        file: Rc<Handle>,
        position: u64,
        buffer: Buffer,
    },
    /// Writes all of `data`. Never a success with less.
    Write {
        file: Rc<Handle>,
        position: u64,
        data: Slice,
        sync: WriteSync,
    },
    SyncData {
        file: Rc<Handle>,
    },
    /// Reserves blocks and grows the file. They read as zeros.
    Allocate {
        file: Rc<Handle>,
        position: u64,
        length: u64,
    },
    Truncate {
        file: Rc<Handle>,
        length: u64,
    },
    /// Success: bytes up to the file's end.
    Length {
        file: Rc<Handle>,
    },
    /// Success: bytes of blocks that the file holds.
    Allocated {
        file: Rc<Handle>,
    },
    /// Success: the listener's number. Sets `address` to the one bound.
    Listen {
        address: SocketAddr,
    },
    /// Success: the stream's number.
    Connect {
        address: SocketAddr,
    },
    /// Sends every piece of `out`, in order. Never a success with less.
    Send {
        stream: Rc<Handle>,
        out: Outgoing,
    },
    /// Success: the pipe's number.
    Pipe,
    /// Sends `length` bytes of the file from `position` on, through the pipe. Never a success with less.
    Splice {
        file: Rc<Handle>,
        pipe: Rc<Handle>,
        stream: Rc<Handle>,
        position: u64,
        length: usize,
    },
}

impl Op {
    /// What a successful completion has opened, to be closed if nobody takes it.
    fn opens(&self) -> Option<HandleKind> {
        match self {
            Op::Open { .. } | Op::LockFile { .. } => Some(HandleKind::File),
            Op::Listen { .. } => Some(HandleKind::Listener),
            Op::Connect { .. } => Some(HandleKind::Stream),
            Op::Pipe => Some(HandleKind::Pipe),
            _ => None,
        }
    }
}

/// Names an operation in flight. The generation tells it from later ones in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OpId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The operations in flight of one reactor.
pub(crate) struct Ops {
    slots: Vec<Slot>,
    free: Vec<u32>,
    closings: Rc<Closings>,
}

struct Slot {
    generation: u32,
    state: State,
    op: Option<Op>,
}

enum State {
    Free,
    /// The driver has it; nobody has polled yet.
    Submitted,
    /// The driver has it; a task waits.
    Waiting(Waker),
    /// The driver is done; the future has not looked yet.
    Completed(io::Result<u64>),
    /// The driver has it; the future is gone.
    Abandoned,
}

impl Ops {
    pub(crate) fn new(closings: Rc<Closings>) -> Ops {
        Ops { slots: Vec::new(), free: Vec::new(), closings }
    }

    /// Puts an operation that the driver is about to start into a slot.
    pub(super) fn insert(&mut self, op: Op) -> OpId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, state: State::Free, op: None });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.state = State::Submitted;
        entry.op = Some(op);
        OpId { slot, generation: entry.generation }
    }

    /// For the driver: the operation itself, to read what it needs and to set what it returns besides a number. The
    /// `Op` may move while in flight; what its buffers, slices and paths point to does not.
    pub(crate) fn op(&mut self, id: OpId) -> &mut Op {
        let Some(op) = &mut self.slot(id).op else { unreachable!("a slot in use has an operation") };
        op
    }

    /// For the driver: the operation is over and nothing outside holds its memory any longer. Wakes who waits.
    pub(crate) fn complete(&mut self, id: OpId, result: io::Result<u64>) {
        let slot = self.slot(id);
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Submitted => slot.state = State::Completed(result),
            State::Waiting(waker) => {
                slot.state = State::Completed(result);
                waker.wake();
            }
            State::Abandoned => {
                let op = self.release(id);
                if let (Some(kind), Ok(number)) = (op.opens(), result) {
                    self.closings.push(kind, number);
                }
            }
            State::Free | State::Completed(_) => unreachable!("{id:?} completed twice"),
        }
    }

    pub(super) fn poll(&mut self, id: OpId, cx: &mut Context<'_>) -> Poll<(io::Result<u64>, Op)> {
        let slot = self.slot(id);
        match &mut slot.state {
            State::Submitted => slot.state = State::Waiting(cx.waker().clone()),
            State::Waiting(waker) => waker.clone_from(cx.waker()),
            State::Completed(_) => {
                let State::Completed(result) = std::mem::replace(&mut slot.state, State::Free) else { unreachable!() };
                return Poll::Ready((result, self.release(id)));
            }
            State::Free | State::Abandoned => unreachable!("{id:?} polled after its end"),
        }
        Poll::Pending
    }

    /// The future is gone. Returns whether the driver still has the operation.
    pub(super) fn abandon(&mut self, id: OpId) -> bool {
        let slot = self.slot(id);
        match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Completed(result) => {
                // As if it had been abandoned before.
                self.complete(id, result);
                false
            }
            State::Submitted | State::Waiting(_) => true,
            State::Free | State::Abandoned => unreachable!("{id:?} abandoned after its end"),
        }
    }

    fn slot(&mut self, id: OpId) -> &mut Slot {
        let slot = &mut self.slots[id.slot as usize];
        assert_eq!(slot.generation, id.generation, "an operation is named after its end");
        slot
    }

    fn release(&mut self, id: OpId) -> Op {
        let slot = self.slot(id);
        slot.generation = slot.generation.wrapping_add(1);
        let Some(op) = slot.op.take() else { unreachable!("a slot in use has an operation") };
        self.free.push(id.slot);
        op
    }
}
