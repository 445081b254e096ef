//! The bare loop's work as tasks over a runtime, to see what the runtime takes: the same program runs on the engine's
//! reactor and on glommio.
//!
//! It takes frames as [`crate::bare`] does, gathers all that arrived into one buffer, has that written directly and
//! durably to a zero-filled file, and then acknowledges every frame of it. A connection has a task that receives and one that
//! sends; another one commits. One write is under way while the next is gathered.

use crate::frame::{gather, push_ack, take_frames};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What the broker needs of a runtime: one thread's.
pub trait Runtime: 'static {
    /// A connection.
    type Stream: Stream;
    /// Memory for one gathered write: whole pages of 4096 bytes.
    type Buffer: 'static;

    /// Runs a task beside the others.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// A buffer for the next write.
    ///
    /// # Errors
    /// When there is no memory for it.
    fn buffer(&self) -> io::Result<Self::Buffer>;

    /// The bytes of a buffer.
    fn bytes(buffer: &mut Self::Buffer) -> &mut [u8];

    /// The next connection, with TCP_NODELAY.
    ///
    /// # Errors
    /// The operating system's.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Writes the first `bytes` of `buffer` (a multiple of 4096) at `position`, directly and durably.
    ///
    /// # Errors
    /// The operating system's; a short write is one.
    fn write(&self, position: u64, buffer: Self::Buffer, bytes: usize) -> impl Future<Output = io::Result<()>>;
}

/// A connection of a runtime. One task receives while another one sends.
pub trait Stream: 'static {
    /// Gives what arrived next to `take`. Answers false at the end of the connection.
    ///
    /// # Errors
    /// What `take` answers. Errors of the socket are the end of the connection.
    fn receive(&self, take: impl FnMut(&[u8]) -> io::Result<()>) -> impl Future<Output = io::Result<bool>>;

    /// Sends all of `bytes` and leaves it empty.
    ///
    /// # Errors
    /// When there is no memory for it. Errors of the socket are the end of the connection, which who receives sees.
    fn send(&self, bytes: &mut Vec<u8>) -> impl Future<Output = io::Result<()>>;
}

/// What the broker serves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of the zero-filled file, which is written round and round.
    pub file_bytes: u64,
    /// Bytes of every request frame, header included.
    pub frame_bytes: usize,
    /// Bytes of every acknowledgement after its header.
    pub ack_bytes: usize,
}

/// Serves until something fails that is not one connection's.
///
/// # Errors
/// What a write, an accept, or a frame that is not of the agreed form brought.
pub async fn serve<R: Runtime>(runtime: R, options: Options) -> io::Result<()> {
    let gathering = Gathered::new(runtime.buffer()?);
    let broker = Rc::new(Broker {
        runtime,
        options,
        gathering: RefCell::new(gathering),
        arrived: Bell::default(),
        failed: RefCell::default(),
    });
    let accepting = broker.clone();
    broker.runtime.spawn(async move { accepting.accept().await });
    broker.commit().await
}

struct Broker<R: Runtime> {
    runtime: R,
    options: Options,
    gathering: RefCell<Gathered<R>>,
    /// Rung when something was gathered, or has failed.
    arrived: Bell,
    failed: RefCell<Option<io::Error>>,
}

/// One write's worth of requests and whom to tell.
struct Gathered<R: Runtime> {
    buffer: R::Buffer,
    filled: usize,
    acks: Vec<(Rc<Connection<R>>, u32)>,
}

struct Connection<R: Runtime> {
    stream: R::Stream,
    /// Acknowledgements to be sent.
    pending: RefCell<Vec<u8>>,
    /// Rung when there are some, or the connection has ended.
    acknowledged: Bell,
    ended: Cell<bool>,
}

impl<R: Runtime> Broker<R> {
    async fn accept(self: Rc<Self>) {
        loop {
            match self.runtime.accept().await {
                Ok(stream) => self.connected(stream),
                Err(error) => return self.fail(error),
            }
        }
    }

    fn connected(self: &Rc<Self>, stream: R::Stream) {
        let connection = Rc::new(Connection {
            stream,
            pending: RefCell::default(),
            acknowledged: Bell::default(),
            ended: Cell::new(false),
        });
        let (broker, receiving) = (self.clone(), connection.clone());
        self.runtime.spawn(async move { broker.receive(receiving).await });
        let broker = self.clone();
        self.runtime.spawn(async move { connection.send().await.unwrap_or_else(|error| broker.fail(error)) });
    }

    async fn receive(self: Rc<Self>, connection: Rc<Connection<R>>) {
        let mut partial = Vec::with_capacity(self.options.frame_bytes);
        loop {
            let arrived = |bytes: &[u8]| {
                let gather = |correlation, body: &[u8]| self.gathering.borrow_mut().add(&connection, correlation, body);
                take_frames(bytes, &mut partial, self.options.frame_bytes, gather)?;
                self.arrived.ring();
                Ok(())
            };
            match connection.stream.receive(arrived).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
        }
        connection.ended.set(true);
        connection.acknowledged.ring();
    }

    fn fail(&self, error: io::Error) {
        *self.failed.borrow_mut() = Some(error);
        self.arrived.ring();
    }

    async fn commit(&self) -> io::Result<()> {
        let Options { file_bytes, ack_bytes, .. } = self.options;
        let mut position = 0;
        loop {
            let mut next = Gathered::new(self.runtime.buffer()?);
            self.arrived.wait(|| !self.gathering.borrow().acks.is_empty() || self.failed.borrow().is_some()).await;
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            std::mem::swap(&mut next, &mut self.gathering.borrow_mut());
            let Gathered { buffer, filled, acks } = next;
            let bytes = filled.next_multiple_of(4096);
            if position + bytes as u64 > file_bytes {
                position = 0;
            }
            self.runtime.write(position, buffer, bytes).await?;
            position += bytes as u64;
            for (connection, correlation) in acks {
                push_ack(&mut connection.pending.borrow_mut(), correlation, ack_bytes);
                connection.acknowledged.ring();
            }
        }
    }
}

impl<R: Runtime> Gathered<R> {
    fn new(buffer: R::Buffer) -> Gathered<R> {
        Gathered { buffer, filled: 0, acks: Vec::with_capacity(64) }
    }

    fn add(&mut self, connection: &Rc<Connection<R>>, correlation: u32, body: &[u8]) -> io::Result<()> {
        gather(R::bytes(&mut self.buffer), &mut self.filled, body)?;
        self.acks.push((connection.clone(), correlation));
        Ok(())
    }
}

impl<R: Runtime> Connection<R> {
    async fn send(&self) -> io::Result<()> {
        let mut sending = Vec::new();
        loop {
            self.acknowledged.wait(|| self.ended.get() || !self.pending.borrow().is_empty()).await;
            if self.ended.get() {
                return Ok(());
            }
            std::mem::swap(&mut sending, &mut self.pending.borrow_mut());
            self.stream.send(&mut sending).await?;
        }
    }
}

/// Wakes the one task that waits for others to have something for it.
#[derive(Default)]
struct Bell(Cell<Option<Waker>>);

impl Bell {
    fn ring(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }

    async fn wait(&self, mut until: impl FnMut() -> bool) {
        poll_fn(|cx| {
            if until() {
                return Poll::Ready(());
            }
            self.0.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
