//! Sockets as a reactor offers them.

use super::Reactor;
use super::buffers::Slice;
use super::driver::{Drive, Handle, HandleKind};
use super::ops::Op;
use super::ring::Provided;
use super::splice::FileRange;
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;

/// A listening socket. All shards may listen on one address; the kernel spreads connections over them.
#[derive(Debug)]
pub struct Listener {
    reactor: Reactor,
    handle: Rc<Handle>,
    address: SocketAddr,
}

/// A connection. Clones are the same connection; closed when the last is dropped and its operations are over.
#[derive(Clone, Debug)]
pub struct Stream(Rc<Connection>);

#[derive(Debug)]
struct Connection {
    reactor: Reactor,
    handle: Rc<Handle>,
    receiving: Cell<bool>,
    sending: Cell<bool>,
    shut: Cell<bool>,
}

/// Bytes that arrived, in memory lent by the driver; it goes back when they are dropped, so drop them soon.
pub struct Chunk(Source);

enum Source {
    Provided(Provided),
    Bytes(Vec<u8>),
    Slice(Slice),
}

/// A reusable list of slices, and of pieces of files between them, to send as one sequence of bytes.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: Vec<Slice>,
    /// Each with the number of slices before it.
    ranges: Vec<(usize, FileRange)>,
    bytes: usize,
}

impl Reactor {
    /// Listens on `address`; port 0 means any free one.
    ///
    /// # Errors
    /// The operating system's, such as `AddrInUse`.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let (number, op) = self.operate(Op::Listen { address }).await;
        let handle = self.handle(HandleKind::Listener, number?);
        let Op::Listen { address } = op else { unreachable!("an operation comes back as it went") };
        Ok(Listener { reactor: self.clone(), handle, address })
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// The operating system's, such as `ConnectionRefused`.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let (number, _) = self.operate(Op::Connect { address }).await;
        Ok(Stream::new(self, number?))
    }
}

impl Listener {
    /// The address listened on, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection and its peer. One caller at a time. Dropping the future loses no connection.
    ///
    /// # Errors
    /// The operating system's; those that concern one connection (the peer gave up, too many open files) leave the
    /// listener usable.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accept = poll_fn(|cx| self.reactor.driver().poll_accept(self.handle.number(), cx));
        let (number, peer) = accept.await?;
        Ok((Stream::new(&self.reactor, number), peer))
    }
}

impl Stream {
    fn new(reactor: &Reactor, number: u64) -> Stream {
        Stream(Rc::new(Connection {
            reactor: reactor.clone(),
            handle: reactor.handle(HandleKind::Stream, number),
            receiving: Cell::new(false),
            sending: Cell::new(false),
            shut: Cell::new(false),
        }))
    }

    /// Has nothing more received until [`Stream::receive`] is called again: for who will not call it soon, so that what
    /// arrives does not take memory that others could use.
    pub fn pause(&self) {
        self.0.reactor.driver().pause_receive(self.0.handle.number());
    }

    /// What arrived next; `None` when the peer ended its direction, or after [`Stream::shutdown`]. One caller at a
    /// time. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The operating system's, such as `ConnectionReset`.
    pub async fn receive(&self) -> io::Result<Option<Chunk>> {
        let _one = Turnstile::enter(&self.0.receiving, "receive");
        poll_fn(|cx| self.0.reactor.driver().poll_receive(self.0.handle.number(), cx)).await
    }

    /// Sends all of `out`, in order, and gives it back empty. One caller at a time. Dropping the future after it began
    /// shuts the stream down: how much was sent is not known.
    ///
    /// # Errors
    /// The operating system's, such as `ConnectionReset`; `BrokenPipe` after [`Stream::shutdown`]. Any part may have
    /// been sent.
    pub async fn send(&self, out: Outgoing) -> (io::Result<()>, Outgoing) {
        if out.is_empty() {
            return (Ok(()), out);
        }
        if self.0.shut.get() {
            return (Err(io::ErrorKind::BrokenPipe.into()), out.emptied());
        }
        let _one = Turnstile::enter(&self.0.sending, "send");
        let unless_done = ShutDown(Some(self));
        let (result, out) = if out.ranges.is_empty() {
            self.send_slices(out).await
        } else {
            (self.send_with_ranges(out).await, Outgoing::new())
        };
        unless_done.forget();
        (result, out)
    }

    async fn send_slices(&self, out: Outgoing) -> (io::Result<()>, Outgoing) {
        let op = Op::Send { stream: self.0.handle.clone(), out };
        let (result, op) = self.0.reactor.operate(op).await;
        let Op::Send { out, .. } = op else { unreachable!("an operation comes back as it went") };
        (result.map(|_| ()), out.emptied())
    }

    async fn send_with_ranges(&self, out: Outgoing) -> io::Result<()> {
        let (mut pieces, mut part, mut taken) = (out.pieces.into_iter(), Outgoing::new(), 0);
        for (before, range) in out.ranges {
            part.extend(pieces.by_ref().take(before - taken));
            taken = before;
            part = self.send_some(part).await?;
            self.splice(range).await?;
        }
        part.extend(pieces);
        self.send_some(part).await.map(drop)
    }

    async fn send_some(&self, part: Outgoing) -> io::Result<Outgoing> {
        if part.is_empty() {
            return Ok(part);
        }
        let (sent, part) = self.send_slices(part).await;
        sent.map(|()| part)
    }

    pub(super) fn handle(&self) -> Rc<Handle> {
        self.0.handle.clone()
    }

    pub(super) fn reactor(&self) -> &Reactor {
        &self.0.reactor
    }

    /// Ends both directions: what was sent arrives, then the peer sees the end. A `receive` gives what had arrived, then
    /// `None`; sends fail, also one under way.
    pub fn shutdown(&self) {
        if !self.0.shut.replace(true) {
            self.0.reactor.driver().shutdown(self.0.handle.number());
        }
    }
}

/// Shuts a stream down if a send is dropped midway.
struct ShutDown<'a>(Option<&'a Stream>);

impl ShutDown<'_> {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for ShutDown<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.shutdown();
        }
    }
}

/// Lets one caller through at a time.
struct Turnstile<'a>(&'a Cell<bool>);

impl<'a> Turnstile<'a> {
    fn enter(taken: &'a Cell<bool>, what: &str) -> Turnstile<'a> {
        assert!(!taken.replace(true), "a second {what} at once on one stream");
        Turnstile(taken)
    }
}

impl Drop for Turnstile<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Chunk {
    pub(super) fn provided(provided: Provided) -> Chunk {
        Chunk(Source::Provided(provided))
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Chunk {
        Chunk(Source::Bytes(bytes))
    }
}

impl From<Slice> for Chunk {
    fn from(slice: Slice) -> Chunk {
        Chunk(Source::Slice(slice))
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Provided(provided) => provided,
            Source::Bytes(bytes) => bytes,
            Source::Slice(slice) => slice,
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

impl Outgoing {
    /// An empty list.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Adds a piece at the end. An empty one is left out.
    pub fn push(&mut self, piece: Slice) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Adds a piece of a file at the end.
    pub fn push_range(&mut self, range: FileRange) {
        self.bytes += range.length;
        self.ranges.push((self.pieces.len(), range));
    }

    /// Moves all of another list to the end of this one.
    pub fn append(&mut self, other: &mut Outgoing) {
        let before = self.pieces.len();
        self.ranges.extend(other.ranges.drain(..).map(|(at, range)| (before + at, range)));
        self.pieces.append(&mut other.pieces);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    fn extend(&mut self, pieces: impl Iterator<Item = Slice>) {
        pieces.for_each(|piece| self.push(piece));
    }

    /// Takes everything out and keeps the list's memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.ranges.clear();
        self.bytes = 0;
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The pieces in memory, in order.
    pub fn pieces(&self) -> &[Slice] {
        &self.pieces
    }

    /// A copy of all bytes in memory, for who must have them in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes);
        self.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    fn emptied(mut self) -> Outgoing {
        self.clear();
        self
    }
}
