//! One connection: the client library's state machine, and the tasks that carry its bytes.

use super::Ask;
use crate::sometimes;
use crate::world::Shared;
use corelog_client::protocol::{Connection, Event, Settings};
use corelog_client::{ConnectOptions, Ended, Operation, Refusal, Status};
use corelog_engine::reactor::{Outgoing, Reactor, Stream, Task};
use corelog_engine::shard::Session;
use corelog_wire::{Batches, Response, Wire};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a request may stay unanswered: longer than anything takes while nothing is wrong.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// How often a connection is told the time.
const TICK: Duration = Duration::from_millis(20);
/// Bytes sent at once.
const SEND_BYTES_MAX: usize = 32 << 10;

/// The connection is told of the world's time, as of a clock that stood still when it was made.
fn since_begin(reactor: &Reactor) -> Duration {
    Duration::from_nanos(reactor.now().nanos())
}

/// What came from the server. Handles and subscriptions are those of the frame's header.
pub(super) enum Came<'a> {
    Welcomed,
    Answered(Ask, u32, Result<Response<'a>, Refusal>),
    Pushed(Result<Batches<'a>, Refusal>),
}

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over;

/// An open connection; dropped, it is closed.
pub(super) struct Link {
    inner: Rc<Inner>,
    _tasks: [Task<()>; 3],
}

struct Inner {
    reactor: Reactor,
    shared: Rc<Shared>,
    connection: RefCell<Connection<Ask>>,
    received: RefCell<Vec<u8>>,
    over: Cell<bool>,
    /// Behind the frame that was taken last there may be another one.
    more: Cell<bool>,
    /// Something came, or time passed.
    came: Session,
    /// Something is to be sent.
    send: Session,
    begun: Instant,
    disturbances: u64,
}

impl Link {
    pub(super) fn new(reactor: &Reactor, stream: Stream, shared: &Rc<Shared>) -> Link {
        let begun = Instant::now();
        let options = ConnectOptions { request_timeout: REQUEST_TIME, ..ConnectOptions::default() };
        let inner = Rc::new(Inner {
            reactor: reactor.clone(),
            shared: shared.clone(),
            connection: RefCell::new(Connection::new(&Settings::from(&options), begun + since_begin(reactor))),
            received: RefCell::default(),
            over: Cell::new(false),
            more: Cell::new(false),
            came: Session::new(1),
            send: Session::new(1),
            begun,
            disturbances: shared.natives.disturbances.get(),
        });
        let stream = Rc::new(stream);
        let natives = &shared.natives;
        natives.connections.set(natives.connections.get() + 1);
        let tasks = [
            reactor.spawn(inner.clone().receive_all(stream.clone())),
            reactor.spawn(inner.clone().send_all(stream)),
            reactor.spawn(inner.clone().tick()),
        ];
        Link { inner, _tasks: tasks }
    }

    /// The shard that took the connection.
    pub(super) fn shard(&self) -> Option<u16> {
        self.inner.connection.borrow().welcomed().map(|welcomed| welcomed.shard)
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.inner.connection.borrow().has_room(bytes)
    }

    pub(super) fn ask<'w>(&self, operation: Operation, handle: u32, body: &impl Wire<'w>, token: Ask) {
        self.request(operation, handle, body, &[], Duration::ZERO, token);
    }

    pub(super) fn request<'w>(
        &self,
        operation: Operation,
        handle: u32,
        body: &impl Wire<'w>,
        batches: &[u8],
        wait: Duration,
        token: Ask,
    ) {
        let now = self.inner.now();
        self.inner.connection.borrow_mut().request(operation, handle, body, batches, wait, token, now);
        self.inner.send.wake();
    }

    /// A request that is answered only if it fails.
    pub(super) fn tell<'w>(&self, operation: Operation, handle: u32, body: &impl Wire<'w>) {
        self.inner.connection.borrow_mut().tell(operation, handle, body);
        self.inner.send.wake();
    }

    /// What `take` makes of the next thing that came, if there is one.
    pub(super) fn poll<R>(&self, take: impl FnOnce(Came<'_>) -> R) -> Result<Option<R>, Over> {
        self.inner.poll(take)
    }

    /// Waits until something may have come.
    pub(super) async fn wait(&self) {
        self.inner.came.completed().await;
    }

    /// What `take` makes of the next thing that comes.
    pub(super) async fn next<R>(&self, take: impl FnOnce(Came<'_>) -> R) -> Result<R, Over> {
        let mut take = Some(take);
        loop {
            let polled = self.poll(|came| take.take().map(|take| take(came)))?;
            match polled.flatten() {
                Some(taken) => return Ok(taken),
                None => self.wait().await,
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let natives = &self.inner.shared.natives;
        natives.connections.set(natives.connections.get() - 1);
    }
}

impl Inner {
    fn now(&self) -> Instant {
        self.begun + since_begin(&self.reactor)
    }

    fn poll<R>(&self, take: impl FnOnce(Came<'_>) -> R) -> Result<Option<R>, Over> {
        let connection = &mut *self.connection.borrow_mut();
        let bytes = self.received.take();
        // Whoever accepts nothing says that the server was heard, and never pings it.
        if !bytes.is_empty() || self.more.get() {
            let input = connection.gather(&bytes);
            let mut rest = &*input;
            let came = connection.accept(&mut rest, self.now()).map_err(|ended| self.ended(&ended))?;
            let taken = came.map(|event| {
                take(match event {
                    Event::Welcomed(_) => Came::Welcomed,
                    Event::Answered { token, header, outcome } => Came::Answered(token, header.handle, outcome),
                    Event::Pushed { outcome, .. } => Came::Pushed(outcome),
                })
            });
            let left = rest.len();
            connection.keep(input, left);
            self.more.set(taken.is_some());
            if taken.is_some() {
                return Ok(taken);
            }
        }
        connection.tick(self.now()).map_err(|ended| self.ended(&ended))?;
        self.send.wake();
        if self.over.get() {
            sometimes!("a native client's connection broke");
            return Err(Over);
        }
        Ok(None)
    }

    /// Says so if a connection may not end like this.
    fn ended(&self, ended: &Ended) -> Over {
        let natives = &self.shared.natives;
        let quiet = !natives.troubled.get() && natives.disturbances.get() == self.disturbances;
        match ended {
            Ended::Goodbye(why) if why.status() == Some(Status::ShuttingDown) => {
                sometimes!("a native client was told goodbye");
            }
            Ended::TimedOut(_) if !quiet => sometimes!("a native client's request timed out"),
            ended => self.shared.observer.broken_by(format!("a native client's connection: {ended}")),
        }
        Over
    }

    async fn receive_all(self: Rc<Self>, stream: Rc<Stream>) {
        loop {
            let received = stream.receive().await;
            match received {
                Ok(Some(chunk)) => self.received.borrow_mut().extend_from_slice(&chunk),
                Ok(None) | Err(_) => self.over.set(true),
            }
            self.came.wake();
            if self.over.get() {
                return;
            }
            // A client that is slow to take what it asked for.
            if self.reactor.random().is_multiple_of(32) {
                self.reactor.sleep(Duration::from_micros(self.reactor.random() % 2000)).await;
            }
        }
    }

    async fn send_all(self: Rc<Self>, stream: Rc<Stream>) {
        loop {
            let bytes: Vec<u8> = self.connection.borrow().transmit().iter().take(SEND_BYTES_MAX).copied().collect();
            if bytes.is_empty() {
                self.send.completed().await;
                continue;
            }
            let Some(mut buffer) = self.reactor.pool().buffer(bytes.len()) else {
                self.reactor.sleep(TICK).await;
                continue;
            };
            buffer[..bytes.len()].copy_from_slice(&bytes);
            buffer.truncate(bytes.len());
            let mut out = Outgoing::new();
            out.push(buffer.freeze());
            if stream.send(out).await.0.is_err() {
                // What arrived before is still to be read: the receiver finds the end.
                return;
            }
            self.connection.borrow_mut().transmitted(bytes.len());
        }
    }

    async fn tick(self: Rc<Self>) {
        loop {
            self.reactor.sleep(TICK).await;
            self.came.wake();
        }
    }
}
