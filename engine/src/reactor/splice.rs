//! Pieces of files that are sent without passing through memory of ours: from the file to a pipe, and from there to the
//! stream.

use super::driver::{Handle, HandleKind};
use super::file::File;
use super::ops::Op;
use super::socket::Stream;
use super::{Counters, Reactor};
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// Where bytes are on their way from a file to a stream. Clones are the same pipe; closed when the last is dropped.
#[derive(Clone, Debug)]
pub struct Pipe(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    reactor: Reactor,
    handle: Rc<Handle>,
    /// A piece is on its way, or was left in it by a send that failed or was dropped. It would go to another's stream.
    is_in_use: Cell<bool>,
}

/// A piece of a file to be sent. Its position and length may be any.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// Opened with [`Open::ReadCached`](super::Open::ReadCached). What is there when it is sent is sent.
    pub file: File,
    /// What it passes through: that of no other send at the same time.
    pub pipe: Pipe,
    /// Of its first byte in the file.
    pub position: u64,
    /// In bytes.
    pub length: usize,
}

impl Reactor {
    /// A pipe that is empty: two file descriptors.
    ///
    /// # Errors
    /// The operating system's, such as too many open files.
    pub async fn pipe(&self) -> io::Result<Pipe> {
        let (number, _) = self.operate(Op::Pipe).await;
        let handle = self.handle(HandleKind::Pipe, number?);
        self.counters().pipes.set(self.counters().pipes.get() + 1);
        Ok(Pipe(Rc::new(Inner { reactor: self.clone(), handle, is_in_use: Cell::new(false) })))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Counters { pipes, .. } = self.reactor.counters();
        pipes.set(pipes.get() - 1);
    }
}

impl Stream {
    /// Sends a piece of a file, all of it. `UnexpectedEof` if the file ends within.
    pub(super) async fn splice(&self, range: FileRange) -> io::Result<()> {
        let FileRange { file, pipe, position, length } = range;
        if pipe.0.is_in_use.replace(true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (file, stream, through) = (file.handle(), self.handle(), pipe.0.handle.clone());
        let result = self.reactor().operate_unit(Op::Splice { file, pipe: through, stream, position, length }).await;
        pipe.0.is_in_use.set(result.is_err());
        result
    }
}
