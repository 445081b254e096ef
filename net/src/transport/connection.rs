//! One connection: a task that receives and one that sends, around state that both share.
//!
//! The receiving task parses frames and begins what they ask for; most answers are queued at once. The sending task takes
//! outcomes from the session, ends waits whose time is over, moves data for readers, and sends what is queued. Neither
//! waits while it holds the state.

use super::dialect::{Compression, Dialect, Goodbye, Head, Looked};
use super::flow::Phase;
use super::foreign;
use super::inbox::{Inbox, Next, TooLarge};
use super::rate::Rate;
use super::server::Shared;
use super::unpacking::{Bounds, Turn, is_as_asked};
use corelog_engine::reactor::{Chunk, Instant, Outgoing, Sleep, Stream, either};
use corelog_engine::shard::{Event, Session, Shard, Stage, count};
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
pub(crate) struct Connection<D: Dialect> {
    pub(crate) shared: Rc<Shared<D>>,
    pub(crate) session: Session,
    pub(crate) state: RefCell<D>,
    /// Something got room: the receiving task may go on.
    pub(crate) room: Event,
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

impl<D: Dialect> Connection<D> {
    /// Where the client is.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn new(shared: &Rc<Shared<D>>, stream: Stream, peer: SocketAddr) -> Rc<Self> {
        let now = shared.shard.reactor().now();
        let times = Times {
            heard: Cell::new(now),
            frame_began: Cell::default(),
            send_began: Cell::default(),
            finished: Cell::default(),
        };
        Rc::new(Connection {
            state: RefCell::new(D::new(shared)),
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

    pub(crate) fn shard(&self) -> &Shard {
        &self.shared.shard
    }

    /// Since when it has not said what it speaks, unless it has.
    pub(crate) fn greeting_since(&self) -> Option<Instant> {
        (self.phase() == Phase::Greeting).then_some(self.accepted)
    }

    fn phase(&self) -> Phase {
        self.state.borrow().flow().phase
    }

    pub(crate) fn now(&self) -> Instant {
        self.shard().reactor().now()
    }

    /// An append that arrived is looked at.
    pub(crate) fn note_received(&self) {
        let waited = self.shard().reactor().clock().since(self.times.heard.get());
        self.shard().stages().record(Stage::Receive, waited, 1);
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(self: Rc<Self>) {
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
    pub(crate) fn drain(&self) {
        self.state.borrow_mut().drain(self);
        self.room.notify();
        self.session.wake();
    }

    /// Ends the connection in order, and says why first if its protocol has words for it.
    pub(crate) fn say_goodbye(&self, why: Goodbye) {
        self.state.borrow_mut().say_goodbye(self, why);
        self.drain();
    }

    /// Tells the operator why the connection is closed.
    pub(crate) fn say_closed(&self, why: &str) {
        self.shared.log.say(self.now(), || format!("{}: {why}; connection closed", self.peer));
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.stream.shutdown();
        self.drain();
    }

    /// Closes what has taken too long, gives back memory of readers that pause.
    pub(crate) fn sweep(&self, now: Instant) {
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
        match self.phase() {
            Phase::Greeting if over(Some(self.accepted), limits.hello_time) => self.say_goodbye(Goodbye::Unknown),
            Phase::Serving if over(Some(self.times.heard.get()), limits.idle_time) => self.say_goodbye(Goodbye::Idle),
            Phase::Serving if over(self.times.frame_began.get(), limits.frame_time) => {
                self.say_goodbye(Goodbye::Unfinished);
            }
            _ => {
                let is_stalled = over(self.times.send_began.get(), limits.stalled_time);
                self.state.borrow_mut().tidy(is_stalled);
            }
        }
    }

    async fn receive_all(self: &Rc<Self>) {
        let mut inbox = Inbox::<D>::new(self.shard().reactor().pool(), &self.shared.frame_memory);
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
        self.phase() != Phase::Draining
    }

    fn note_frame_in_part(&self, inbox: &Inbox<D>) {
        let began = inbox.is_waiting().then(|| self.times.frame_began.get().unwrap_or(self.now()));
        self.times.frame_began.set(began);
    }

    async fn take_in(self: &Rc<Self>, inbox: &mut Inbox<D>, chunk: Chunk) {
        let (mut chunk, mut at) = (Some(chunk), 0);
        let mut turn = None;
        while self.is_open() {
            let all = chunk.as_deref().unwrap_or(&[]);
            let mut fresh = &all[at..];
            let next = inbox.next(&mut fresh, self.frame_bytes_max());
            at = all.len() - fresh.len();
            let frame = match next {
                Ok(Next::Fresh(size)) => &fresh[..size],
                Ok(Next::Held(size)) => &inbox.held()[..size],
                Ok(Next::None) => break,
                Ok(Next::Blocked) => {
                    self.shard().reactor().sleep(MEMORY_PAUSE).await;
                    continue;
                }
                Ok(Next::Skipped(head)) => {
                    self.skip(&head);
                    continue;
                }
                Err(too_large) => return self.refuse_length(too_large),
            };
            // It is here, however long it waits for its turn.
            self.times.frame_began.set(None);
            let is_admitted = self.state.borrow_mut().admits(self, frame);
            let asked = self.compressions(frame);
            let needs_turn = is_admitted && self.needs_look(frame, &asked);
            if needs_turn && turn.is_none() {
                turn = self.shared.unpacking.try_turn();
            }
            if !is_admitted || needs_turn && turn.is_none() {
                // The memory of a chunk is the shard's: it must not wait for this client, nor this client for others.
                if inbox.hold(fresh).is_ok() {
                    (chunk, at) = (None, 0);
                }
                self.stream.pause();
                drop(turn.take());
                turn = self.wait_to_go_on(is_admitted).await;
                continue;
            }
            self.charge(frame, frame.len());
            let looked = self.look_inside(turn.take(), frame, &asked).await;
            self.state.borrow_mut().take(self, frame, &looked);
            let size = frame.len();
            if matches!(next, Ok(Next::Held(_))) { inbox.consume(size) } else { at += size }
        }
        self.wake_sender_if_needed();
    }

    /// How each section is to be compressed; empty where that is left to producers.
    fn compressions(&self, frame: &[u8]) -> Vec<Option<Compression>> {
        if D::is_produce(frame) && self.shard().catalog().has_repacked() {
            self.state.borrow_mut().compressions(self, frame)
        } else {
            Vec::new()
        }
    }

    /// Whether there are batches in it that are compressed, or are to be, for a partition that takes them.
    fn needs_look(&self, frame: &[u8], asked: &[Option<Compression>]) -> bool {
        let mut asked = asked.iter().copied().chain(std::iter::repeat(None));
        D::sections(frame).any(|section| !is_as_asked(section, asked.next().flatten()))
            && self.state.borrow_mut().may_produce(frame)
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

    /// Checks what is inside compressed batches, and compresses anew what its topic asks to have otherwise.
    async fn look_inside(&self, turn: Option<Turn<'_>>, frame: &[u8], asked: &[Option<Compression>]) -> Vec<Looked> {
        let Some(turn) = turn else { return Vec::new() };
        // What was answered before is not to wait for this.
        self.wake_sender_if_needed();
        // Few frames come here, and all connections would have to have the memory for it.
        Box::pin(self.look_at_sections(turn, frame, asked)).await
    }

    async fn look_at_sections(&self, mut turn: Turn<'_>, frame: &[u8], asked: &[Option<Compression>]) -> Vec<Looked> {
        let (mut bounds, mut looked) = (Bounds::of(&self.shared.limits), Vec::new());
        for (section, bytes) in D::sections(frame).enumerate() {
            let asked = asked.get(section).copied().flatten();
            let found = turn.look(self.shard().reactor(), bytes, asked, &mut bounds).await;
            if let Some(found) = found.transpose() {
                looked.push(Looked { section, found });
            }
        }
        looked
    }

    fn frame_bytes_max(&self) -> usize {
        self.state.borrow().frame_bytes_max(&self.shared.limits)
    }

    async fn wait_for_room(&self) {
        // What fills the bounds may be waiting for the sender, also for another try at memory.
        self.session.wake();
        let more_memory = self.shard().reactor().sleep(MEMORY_PAUSE);
        either(self.room.wait(), more_memory).await;
    }

    /// A produce counts whatever comes of it: refused ones cost their unpacking.
    fn charge(&self, first: &[u8], bytes: usize) {
        if D::is_produce(first) {
            self.produces.set(true);
            self.rate.take(self.now(), bytes);
        }
    }

    /// There was no memory for a frame that arrived in parts.
    fn skip(&self, head: &Head) {
        self.charge(head, D::frame_bytes(head));
        self.state.borrow_mut().skipped(self, head);
        self.wake_sender_if_needed();
    }

    fn refuse_length(&self, TooLarge(head): TooLarge) {
        match foreign::protocol(&head, D::NAME).filter(|_| self.phase() == Phase::Greeting) {
            Some(protocol) => {
                self.shared
                    .log
                    .say(self.now(), || format!("{} speaks {protocol}, this port speaks {}", self.peer, D::NAME));
                self.cut();
            }
            None => {
                self.state.borrow_mut().too_large(self, &head);
                self.drain();
            }
        }
    }

    fn wake_sender_if_needed(&self) {
        let state = self.state.borrow();
        if state.flow().has_work() || state.has_readers() {
            self.session.wake();
        }
    }

    async fn send_all(self: Rc<Self>) {
        let mut spare = Outgoing::new();
        let mut alarm = Alarm(None);
        loop {
            self.work();
            if self.take_outgoing(&mut spare) {
                let (bytes, acknowledged) =
                    (spare.len(), self.state.borrow_mut().flow_mut().outbox.take_acknowledged());
                self.times.send_began.set(Some(self.now()));
                let (sent, back) = self.send(spare).await;
                self.times.send_began.set(None);
                if let Some((since, appends)) = acknowledged {
                    self.shard().stages().record(Stage::Send, self.now().since(since), appends);
                }
                spare = back;
                self.state.borrow_mut().flow_mut().outbox.sent(bytes);
                self.room.notify();
                if sent.is_err() {
                    return self.cut();
                }
                continue;
            }
            if self.state.borrow().flow().is_finished() {
                self.times.finished.set(Some(self.now()));
                return;
            }
            let due = self.state.borrow().flow().due;
            let can_take = self.state.borrow_mut().flow_mut().outbox.is_ready();
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
                None => self.work(),
            }
        }
    }

    fn work(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.flow_mut().begin_work();
        state.work(self);
    }

    fn take_outgoing(&self, spare: &mut Outgoing) -> bool {
        let mut state = self.state.borrow_mut();
        let flow = state.flow_mut();
        !flow.broken && flow.outbox.take(spare)
    }
}

/// A timer that is set anew only when it must ring earlier, so that a wait does not cost a timer each.
struct Alarm(Option<(Instant, Sleep)>);

impl Alarm {
    /// Ends at `due`, or earlier; never without one.
    async fn wait<D: Dialect>(&mut self, connection: &Connection<D>, due: Option<Instant>) {
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
