//! One connection: a task that receives and one that sends, around state that both share.
//!
//! The receiving task parses frames and begins what they ask for; most answers are queued at once. The sending task takes
//! outcomes from the session, ends waits whose time is over, moves data for readers, and sends what is queued. Neither
//! waits while it holds the state.

use super::foreign;
use super::inbox::{Inbox, Next};
use super::rate::Rate;
use super::refusal::Refusal;
use super::server::Shared;
use super::state::{Phase, State};
use super::unpacking::{self, Turn};
use corelog_batch::BatchError;
use corelog_engine::error::AppendError;
use corelog_engine::reactor::{Chunk, Instant, Outgoing, Sleep, Stream, either};
use corelog_engine::shard::{Event, Session, Shard, Stage, count};
use corelog_wire::{FLAG_RESPONSE, Frame, FrameError, FrameTooLarge, HEADER_BYTES, Header, Operation, Request, Status};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A pause before another try when the buffer pool is exhausted.
const MEMORY_PAUSE: Duration = Duration::from_millis(5);
/// Outcomes a session has room for before it grows.
const SESSION_CAPACITY: usize = 16;

/// See the module.
pub(super) struct Connection {
    pub(super) shared: Rc<Shared>,
    pub(super) session: Session,
    pub(super) state: RefCell<State>,
    /// Something got room: the receiving task may go on.
    pub(super) room: Event,
    /// Has asked for a produce.
    produces: Cell<bool>,
    rate: Rate,
    stream: Stream,
    peer: SocketAddr,
    accepted: Instant,
    times: Times,
}

/// What the server's sweep looks at.
#[derive(Debug)]
struct Times {
    /// When a byte came last.
    heard: Cell<Instant>,
    /// When the frame that is not whole yet began.
    frame_began: Cell<Option<Instant>>,
    /// When the send that is under way began.
    send_began: Cell<Option<Instant>>,
    /// When the last response was sent, of a connection that ends.
    finished: Cell<Option<Instant>>,
}

impl Connection {
    pub(super) fn new(shared: &Rc<Shared>, stream: Stream, peer: SocketAddr) -> Rc<Connection> {
        let now = shared.shard.reactor().now();
        let times = Times {
            heard: Cell::new(now),
            frame_began: Cell::default(),
            send_began: Cell::default(),
            finished: Cell::default(),
        };
        Rc::new(Connection {
            state: RefCell::new(State::new(shared)),
            shared: shared.clone(),
            session: Session::new(SESSION_CAPACITY),
            room: Event::default(),
            produces: Cell::new(false),
            rate: Rate::new(shared.limits.produce_rate_max),
            stream,
            peer,
            accepted: now,
            times,
        })
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shared.shard
    }

    /// Since when it has not said hello, unless it has.
    pub(super) fn greeting_since(&self) -> Option<Instant> {
        (self.state.borrow().phase == Phase::Greeting).then_some(self.accepted)
    }

    pub(super) fn now(&self) -> Instant {
        self.shard().reactor().now()
    }

    /// An append that arrived is looked at.
    pub(super) fn note_received(&self) {
        let waited = self.shard().reactor().clock().since(self.times.heard.get());
        self.shard().stages().record(Stage::Receive, waited, 1);
    }

    /// Serves the connection to its end.
    pub(super) async fn run(self: Rc<Connection>) {
        let sender = {
            let connection = self.clone();
            self.shard().reactor().spawn(async move { connection.send_all().await })
        };
        self.receive_all().await;
        self.drain();
        sender.await;
        self.stream.shutdown();
        self.state.borrow_mut().close(&self);
    }

    /// Ends the connection in order: no more requests, but what was asked for is answered.
    pub(super) fn drain(&self) {
        self.state.borrow_mut().drain(self);
        self.room.notify();
        self.session.wake();
    }

    /// Ends the connection in order, and says why first.
    pub(super) fn say_goodbye(&self, refusal: &Refusal) {
        let header = Header { flags: FLAG_RESPONSE, ..Header::request(Operation::Goodbye, 0, 0) };
        self.state.borrow_mut().fail(header, refusal);
        self.drain();
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.stream.shutdown();
        self.drain();
    }

    /// Closes what has taken too long, gives back memory of readers that pause.
    pub(super) fn sweep(&self, now: Instant) {
        let limits = &self.shared.limits;
        let over = |since: Option<Instant>, time: Duration| since.is_some_and(|since| now >= since.plus(time));
        let send_time = if self.shared.is_memory_short() { limits.short_send_time } else { limits.send_time };
        if over(self.times.send_began.get(), send_time) {
            self.shared.log.say(now, || format!("{}: slow reader, connection closed", self.peer));
            return self.cut();
        }
        if over(self.times.finished.get(), limits.linger_time) {
            return self.cut();
        }
        let phase = self.state.borrow().phase;
        match phase {
            Phase::Greeting if over(Some(self.accepted), limits.hello_time) => {
                self.say_goodbye(&Refusal::new(Status::HelloTimeout, "no hello came in time"));
            }
            Phase::Serving if over(Some(self.times.heard.get()), limits.idle_time) => {
                self.say_goodbye(&Refusal::new(Status::IdleTimeout, "nothing came for too long; send pings"));
            }
            Phase::Serving if over(self.times.frame_began.get(), limits.frame_time) => {
                self.say_goodbye(&Refusal::new(Status::IdleTimeout, "a frame was begun and not finished in time"));
            }
            _ => self.state.borrow_mut().release_idle_cursors(),
        }
        if over(self.times.send_began.get(), limits.stalled_time) {
            self.state.borrow_mut().release_subscriptions();
        }
    }

    async fn receive_all(self: &Rc<Self>) {
        let mut inbox = Inbox::new(self.shard().reactor().pool(), &self.shared.frame_memory);
        loop {
            if self.produces.get() {
                self.hold_back().await;
            }
            let Ok(Some(chunk)) = self.stream.receive().await else { return };
            self.times.heard.set(self.now());
            // A connection that ends discards what still comes, so that the client is not reset before it has read why.
            if self.is_open() {
                self.take_in(&mut inbox, chunk).await;
                self.note_frame_in_part(&inbox);
            }
        }
    }

    /// A producer is not listened to while it is ahead of the rate that it may have, nor while memory for its appends is
    /// scarce: that is better than to refuse it.
    async fn hold_back(&self) {
        let debt = || self.rate.debt(self.now()).filter(|_| self.is_open());
        if debt().is_some() {
            self.stop_listening();
            count(&self.shard().counters().throttles, 1);
        }
        // Whatever got room ends a wait; that of the end is one of them.
        while let Some(debt) = debt() {
            either(self.room.wait(), self.shard().reactor().sleep(debt)).await;
        }
        if self.shard().is_crowded(&self.session) {
            self.stop_listening();
            self.shard().room(&self.session).await;
        }
    }

    fn stop_listening(&self) {
        self.stream.pause();
        // The rest of a frame cannot come meanwhile.
        self.times.frame_began.set(None);
    }

    fn is_open(&self) -> bool {
        self.state.borrow().phase != Phase::Draining
    }

    fn note_frame_in_part(&self, inbox: &Inbox) {
        let began = inbox.is_waiting().then(|| self.times.frame_began.get().unwrap_or(self.now()));
        self.times.frame_began.set(began);
    }

    async fn take_in(self: &Rc<Self>, inbox: &mut Inbox, chunk: Chunk) {
        let (mut chunk, mut at) = (Some(chunk), 0);
        let mut turn = None;
        while self.is_open() {
            let all = chunk.as_deref().unwrap_or(&[]);
            let mut fresh = &all[at..];
            let next = inbox.next(&mut fresh, self.body_bytes_max());
            at = all.len() - fresh.len();
            let frame = match next {
                Ok(Next::Fresh) => first(fresh),
                Ok(Next::Held) => first(inbox.held()),
                Ok(Next::None) => break,
                Ok(Next::Blocked) => {
                    self.shard().reactor().sleep(MEMORY_PAUSE).await;
                    continue;
                }
                Ok(Next::Skipped(header)) => {
                    self.charge(header);
                    self.refuse(header, &Refusal::busy("no memory for a frame that arrives in parts"));
                    continue;
                }
                Err(too_large) => return self.refuse_length(too_large),
            };
            let Some(frame) = frame else { break };
            // It is here, however long it waits for its turn.
            self.times.frame_began.set(None);
            let is_admitted = self.state.borrow_mut().admits(self, frame.body.len());
            let is_packed = is_admitted && self.is_packed(&frame);
            if is_packed && turn.is_none() {
                turn = self.shared.unpacking.try_turn();
            }
            if !is_admitted || is_packed && turn.is_none() {
                // The memory of a chunk is the shard's: it must not wait for this client, nor this client for others.
                if inbox.hold(fresh).is_ok() {
                    (chunk, at) = (None, 0);
                }
                self.stream.pause();
                drop(turn.take());
                turn = self.wait_to_go_on(is_admitted).await;
                continue;
            }
            self.charge(frame.header);
            match self.look_inside(turn.take(), &frame).await {
                Ok(()) => self.take_frame(&frame),
                Err(error) => self.refuse(frame.header, &AppendError::Invalid(error).into()),
            }
            let size = frame.size();
            if next == Ok(Next::Held) { inbox.consume(size) } else { at += size }
        }
        self.wake_sender_if_needed();
    }

    /// Whether there are compressed batches in it, for a partition that takes them.
    fn is_packed(&self, frame: &Frame<'_>) -> bool {
        unpacking::concerns(frame) && self.state.borrow_mut().may_produce(frame.header.handle)
    }

    /// Waits for room or, where there is room, for a turn to unpack.
    async fn wait_to_go_on(&self, is_admitted: bool) -> Option<Turn<'_>> {
        if !is_admitted {
            self.wait_for_room().await;
            return None;
        }
        self.wake_sender_if_needed();
        Some(self.shared.unpacking.turn().await)
    }

    /// Checks what is inside compressed batches.
    async fn look_inside(&self, turn: Option<Turn<'_>>, frame: &Frame<'_>) -> Result<(), BatchError> {
        let Some(turn) = turn else { return Ok(()) };
        // What was answered before is not to wait for this.
        self.wake_sender_if_needed();
        // Few frames come here, and all connections would have to have the memory for it.
        Box::pin(turn.check(self.shard().reactor(), frame)).await
    }

    fn body_bytes_max(&self) -> u32 {
        match self.state.borrow().phase {
            Phase::Greeting => corelog_wire::HELLO_BODY_BYTES_MAX,
            Phase::Serving | Phase::Draining => self.shared.limits.body_bytes_max,
        }
    }

    async fn wait_for_room(&self) {
        // What fills the bounds may be waiting for the sender, also for another try at memory.
        self.session.wake();
        let more_memory = self.shard().reactor().sleep(MEMORY_PAUSE);
        either(self.room.wait(), more_memory).await;
    }

    /// A produce counts whatever comes of it: refused ones cost their unpacking.
    fn charge(&self, header: Header) {
        if header.operation == Operation::Produce as u8 {
            self.produces.set(true);
            self.rate.take(self.now(), HEADER_BYTES + header.length as usize);
        }
    }

    fn take_frame(self: &Rc<Self>, frame: &Frame<'_>) {
        let mut state = self.state.borrow_mut();
        let header = frame.header;
        match (state.phase, Request::decode(frame)) {
            (Phase::Greeting, Ok(Request::Hello(hello))) => state.greet(self, header, &hello),
            (Phase::Greeting, Ok(_) | Err(FrameError::UnknownOperation(_) | FrameError::Unexpected { .. })) => {
                state.violate(self, header, Refusal::new(Status::HelloRequired, "the first frame must be a hello"));
            }
            (Phase::Serving, Ok(Request::Hello(_))) => {
                state.violate(self, header, Refusal::new(Status::UnexpectedOperation, "hello was said before"));
            }
            (Phase::Serving, Ok(request)) => {
                count(&self.shard().counters().requests, 1);
                state.serve(self, header, request);
            }
            (Phase::Serving, Err(error @ FrameError::UnknownOperation(_))) => {
                state.fail(header.response(), &error.into())
            }
            (_, Err(error)) => state.violate(self, header, error.into()),
            (Phase::Draining, Ok(_)) => {}
        }
    }

    fn refuse(&self, header: Header, refusal: &Refusal) {
        self.state.borrow_mut().fail(header.response(), refusal);
        self.wake_sender_if_needed();
    }

    fn refuse_length(&self, frame: FrameTooLarge) {
        let greeting = self.state.borrow().phase == Phase::Greeting;
        match foreign::protocol(&frame.header.to_bytes()).filter(|_| greeting) {
            Some(protocol) => {
                let line = || format!("{} speaks {protocol}, this port speaks corelog's native protocol", self.peer);
                self.shared.log.say(self.now(), line);
                self.cut();
            }
            None => {
                self.refuse(frame.header, &FrameError::TooLarge(frame).into());
                self.drain();
            }
        }
    }

    fn wake_sender_if_needed(&self) {
        if self.state.borrow().has_work() {
            self.session.wake();
        }
    }

    async fn send_all(self: Rc<Connection>) {
        let mut spare = Outgoing::new();
        let mut alarm = Alarm(None);
        loop {
            self.state.borrow_mut().work(&self);
            if self.take_outgoing(&mut spare) {
                let (bytes, acknowledged) = (spare.len(), self.state.borrow_mut().outbox.take_acknowledged());
                self.times.send_began.set(Some(self.now()));
                let (sent, back) = self.send(spare).await;
                self.times.send_began.set(None);
                if let Some((since, appends)) = acknowledged {
                    self.shard().stages().record(Stage::Send, self.now().since(since), appends);
                }
                spare = back;
                self.state.borrow_mut().outbox.sent(bytes);
                self.room.notify();
                if sent.is_err() {
                    return self.cut();
                }
                continue;
            }
            if self.state.borrow().is_finished() {
                self.times.finished.set(Some(self.now()));
                return;
            }
            let due = self.state.borrow().due;
            let can_take = self.state.borrow_mut().outbox.is_ready();
            match can_take {
                true => either(self.session.completed(), alarm.wait(&self, due)).await,
                // What has come stays where it is until there is memory: not to be asked for without a pause.
                false => either(self.session.news(), alarm.wait(&self, due)).await,
            }
        }
    }

    /// Sends, and takes outcomes meanwhile: what other shards answered is memory of theirs, which must not wait for this
    /// client.
    async fn send(self: &Rc<Self>, out: Outgoing) -> (io::Result<()>, Outgoing) {
        let mut sending = pin!(self.stream.send(out));
        loop {
            let mut news = pin!(self.session.news());
            let sent = poll_fn(|cx| match sending.as_mut().poll(cx) {
                Poll::Ready(sent) => Poll::Ready(Some(sent)),
                Poll::Pending => news.as_mut().poll(cx).map(|()| None),
            });
            match sent.await {
                Some(sent) => return sent,
                None => self.state.borrow_mut().work(self),
            }
        }
    }

    fn take_outgoing(&self, spare: &mut Outgoing) -> bool {
        let mut state = self.state.borrow_mut();
        !state.is_broken() && state.outbox.take(spare)
    }
}

/// The frame at the front of bytes that hold a whole one.
fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    Frame::first(bytes, u32::MAX).ok().flatten()
}

/// A timer that is set anew only when it must ring earlier, so that a wait does not cost a timer each.
struct Alarm(Option<(Instant, Sleep)>);

impl Alarm {
    /// Ends at `due`, or earlier; never without one.
    async fn wait(&mut self, connection: &Connection, due: Option<Instant>) {
        let Some(due) = due else { return std::future::pending().await };
        if self.0.as_ref().is_none_or(|(at, _)| *at > due) {
            self.0 = Some((due, connection.shard().reactor().sleep_until(due)));
        }
        if let Some((_, sleep)) = &mut self.0 {
            poll_fn(|cx| pin!(&mut *sleep).poll(cx)).await;
            self.0 = None;
        }
    }
}
