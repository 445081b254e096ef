//! What a connection knows: what is open, what is asked for and not answered, what is queued.

use super::dialect::{Connection, Shared};
use super::fetch::Fetch;
use super::produce::produced;
use super::refusal::Refusal;
use super::subscribe::Subscription;
use crate::transport::{Flow, Key, Phase, Place, Slot, Slots};
use corelog_engine::limits::{HANDLE_BYTES, WAITER_BYTES};
use corelog_engine::model::TopicId;
use corelog_engine::reactor::{AppendBuffer, Outgoing};
use corelog_engine::shard::{Completed, Cursor, Reply, Shard, count};
use corelog_wire::Detail;
use corelog_wire::{
    FEATURES, HEADER_BYTES, Header, Hello, Magic, Operation, Records, Request, Sink, Status, Text, VERSION_MAX,
    VERSION_MIN, Welcome, Wire,
};
use std::collections::VecDeque;
use std::rc::Rc;

/// What the engine keeps of a waiter beside: where and what to tell it.
const ENGINE_WAITER_BYTES: usize = 96;

// The memory budget counts handles and waiters at these sizes.
const _: () = assert!(size_of::<Slot<Opened>>() <= HANDLE_BYTES as usize);
const _: () = assert!(
    size_of::<Slot<Waiting>>() + size_of::<Slot<Subscription>>() + ENGINE_WAITER_BYTES <= WAITER_BYTES as usize
);

/// A partition that the client opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) topic: TopicId,
    pub(super) place: Place,
    /// Where the last fetch left off.
    pub(super) cursor: Cursor,
    /// A fetch used the cursor since the last sweep.
    pub(super) used: bool,
    /// A produce was refused that its client will send again. Later ones must not overtake it, so they are refused too,
    /// until the client opens the partition again.
    pub(super) spent: Option<Status>,
}

/// Who waits for the outcome with a ticket.
#[derive(Debug)]
pub(super) enum Waiting {
    Produce { header: Header, silent: bool, bytes: usize },
    Fetch(Fetch),
    Subscription(Key),
}

/// Something that can go on once there is room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Fetch(Key),
    Push(Key),
}

/// See the module.
pub(super) struct State {
    shard: Shard,
    pub(super) flow: Flow,
    pub(super) opened: Slots<Opened>,
    pub(super) subscriptions: Slots<Subscription>,
    pub(super) waiting: Slots<Waiting>,
    pub(super) disk_reads: usize,
    /// Readers with something to read.
    pub(super) runnable: VecDeque<Work>,
    /// Readers that wait until a disk read of this connection ends.
    pub(super) stalled: VecDeque<Work>,
    /// Partitions whose cursors may hold memory.
    pub(super) warm: Vec<Key>,
    /// For slices on their way from the engine to the outbox.
    pub(super) scratch: Outgoing,
}

impl State {
    pub(super) fn new(shared: &Rc<Shared>) -> State {
        State {
            shard: shared.shard.clone(),
            flow: Flow::new(shared),
            opened: Slots::new(),
            subscriptions: Slots::new(),
            waiting: Slots::counted(&shared.waits),
            disk_reads: 0,
            runnable: VecDeque::new(),
            stalled: VecDeque::new(),
            warm: Vec::new(),
            scratch: Outgoing::new(),
        }
    }

    /// Answers a hello.
    pub(super) fn greet(&mut self, connection: &Connection, header: Header, hello: &Hello<'_>) {
        let Some(version) = hello.version() else {
            let range = Detail::Versions { min: VERSION_MIN, max: VERSION_MAX };
            let refusal = Refusal::new(Status::UnsupportedVersion, "no version is spoken by both").with(range);
            return self.violate(connection, header, refusal);
        };
        self.flow.phase = Phase::Serving;
        let limits = &connection.shared.limits;
        let node = connection.shard().node();
        let welcome = Welcome {
            magic: Magic,
            version,
            shard: connection.shard().id().0,
            features: hello.features & FEATURES,
            body_bytes_max: limits.body_bytes_max,
            requests_max: clamp(limits.requests_max),
            request_bytes_max: clamp(limits.request_bytes_max),
            handles_max: clamp(limits.handles_max),
            subscriptions_max: clamp(limits.subscriptions_max),
            idle_timeout_ms: clamp(limits.idle_time.as_millis() as usize),
            cluster_id: node.cluster_id,
            node: node.node_id,
            shards: connection.shard().shards(),
            software: Text::truncated(concat!("corelog/", env!("CARGO_PKG_VERSION"))),
        };
        self.reply(header.response(), &welcome);
    }

    /// Begins a request.
    pub(super) fn serve(&mut self, connection: &Rc<Connection>, header: Header, request: Request<'_>) {
        let outcome = match request {
            Request::Ping => {
                self.reply(header.response(), &());
                Ok(())
            }
            Request::Produce { batches, silent } => self.produce(connection, header, batches, silent),
            Request::Fetch(fetch) => self.fetch(connection, header, fetch),
            Request::Subscribe(subscribe) => self.subscribe(connection, header, subscribe),
            Request::Credit(credit) => self.credit(header, credit),
            Request::Unsubscribe => self.unsubscribe(connection, header),
            Request::Open(open) => self.open(connection, header, open),
            Request::Close => self.close_partition(connection, header),
            Request::ListOffsets(query) => self.list_offsets(connection, header, query),
            Request::DeleteRecords(delete) => self.delete_records(connection, header, delete),
            Request::Metadata(request) => self.metadata(connection, header, request),
            Request::Stats(request) => self.stats(connection, header, request),
            Request::CreateTopic(create) => self.create_topic(connection, header, create),
            Request::DeleteTopic(delete) => self.delete_topic(connection, header, delete),
            Request::AlterTopic(alter) => self.alter_topic(connection, header, alter),
            Request::DescribeTopic(describe) => self.describe_topic(connection, header, describe),
            Request::Hello(_) => Ok(()),
        };
        if let Err(refusal) = outcome {
            self.fail(header.response(), &refusal);
        }
    }

    /// Queues a response.
    pub(super) fn reply<'a>(&mut self, header: Header, body: &impl Wire<'a>) {
        self.put(header, body, 0);
    }

    /// Queues a failure.
    pub(super) fn fail(&mut self, header: Header, refusal: &Refusal) {
        count(&self.shard.counters().refusals, 1);
        if header.operation == Operation::Produce as u8 {
            self.spend(header.handle, refusal);
        }
        self.reply(Header { status: refusal.status as u16, ..header }, &refusal.body());
    }

    /// Queues a fetch's response or a push, and empties the list of its batches.
    pub(super) fn reply_with_slices(&mut self, header: Header, records: &Records, batches: &mut Outgoing) {
        self.put(header, records, batches.len());
        self.flow.outbox.pass_on(batches);
    }

    /// The same with batches that came from another shard.
    pub(super) fn reply_with_copy(&mut self, header: Header, records: &Records, batches: &[u8]) {
        self.put(header, records, batches.len());
        if self.flow.outbox.copy(batches).is_err() {
            self.flow.give_up();
        }
    }

    /// Queues a response but for `extra` bytes of its body, which are queued next.
    fn put<'a>(&mut self, header: Header, body: &impl Wire<'a>, extra: usize) {
        let size = HEADER_BYTES + body.size();
        if self.flow.outbox.put(size, |out| header.put(body, extra, &mut Parts(out))).is_err() {
            self.flow.give_up();
        }
    }

    /// Answers what breaks the protocol, and ends the connection.
    pub(super) fn violate(&mut self, connection: &Connection, header: Header, refusal: Refusal) {
        self.fail(header.response(), &refusal);
        self.drain(connection);
    }

    /// Takes no more requests. Waits end now, subscriptions too.
    pub(super) fn drain(&mut self, connection: &Connection) {
        self.flow.phase = Phase::Draining;
        self.end_subscriptions(connection);
        let now = connection.now();
        for (_, waiting) in self.waiting.iter_mut() {
            if let Waiting::Fetch(fetch) = waiting {
                fetch.deadline = fetch.deadline.min(now);
            }
        }
        self.flow.due_by(now);
    }

    /// Gives back what others hold for this connection.
    pub(super) fn close(&mut self, connection: &Connection) {
        self.end_subscriptions(connection);
        for (key, waiting) in self.waiting.iter_mut() {
            if let Waiting::Fetch(fetch) = waiting {
                fetch.unwatch(connection, key);
            }
        }
        let handles = &connection.shared.own.handles;
        handles.set(handles.get() - self.opened.len());
        self.opened = Slots::new();
        self.flow.broken = true;
    }

    /// Whether one more may wait.
    pub(super) fn check_waits(&self, max: usize) -> Result<(), Refusal> {
        if self.waiting.total() >= max {
            return Err(Refusal::busy("the shard has as many waiting requests as it may"));
        }
        Ok(())
    }

    /// Counts a request as begun and remembers what it waits for.
    pub(super) fn begin(&mut self, waiting: Waiting) -> Key {
        self.flow.requests += 1;
        if let Waiting::Produce { bytes, .. } = waiting {
            self.flow.request_bytes += bytes;
        }
        self.waiting.insert(waiting)
    }

    /// The end of what [`State::begin`] began.
    pub(super) fn end(&mut self, connection: &Connection, key: Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        if let Waiting::Produce { bytes, .. } = waiting {
            self.flow.request_bytes -= bytes;
        }
        self.flow.requests -= 1;
        connection.room.notify();
        Some(waiting)
    }

    /// Does something lengthy in a task of its own. On success the task's outcome answers.
    pub(super) fn errand<A>(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        work: impl Future<Output = Result<A, Refusal>> + 'static,
    ) where
        A: FnOnce(&mut State, &Rc<Connection>) -> Result<(), Refusal> + 'static,
    {
        self.flow.begin_errand();
        let reactor = connection.shard().reactor().clone();
        let connection = connection.clone();
        let task = async move {
            let outcome = work.await;
            let mut state = connection.state.borrow_mut();
            state.flow.end_errand(&connection);
            if !state.flow.broken
                && let Err(refusal) = outcome.and_then(|answer| answer(&mut state, &connection))
            {
                state.fail(header.response(), &refusal);
            }
        };
        reactor.spawn(task).detach();
    }

    /// What the sending task does between sends: takes outcomes, ends waits, lets readers go on.
    pub(super) fn work(&mut self, connection: &Rc<Connection>) {
        while self.flow.outbox.is_ready() {
            let Some(completed) = connection.session.pop() else {
                self.end_waits(connection);
                return self.run_readers(connection);
            };
            self.take_outcome(connection, completed);
        }
        self.flow.wait_for_memory(connection.now());
    }

    fn take_outcome(&mut self, connection: &Rc<Connection>, completed: Completed) {
        match completed {
            Completed::Appended { ticket, appended } => {
                self.end_produce(connection, Key::of_ticket(ticket), Ok(produced(&appended)));
            }
            Completed::Refused { ticket, error } => {
                self.end_produce(connection, Key::of_ticket(ticket), Err(error.into()));
            }
            Completed::Readable { ticket } => self.take_readable(Key::of_ticket(ticket)),
            Completed::Remote { ticket, reply } => self.take_remote(connection, Key::of_ticket(ticket), reply),
        }
    }

    /// A watch ended. The waiter may be gone: then the ticket is out of date.
    fn take_readable(&mut self, key: Key) {
        match self.waiting.get_mut(key) {
            Some(Waiting::Fetch(_)) => self.queue_fetch(key),
            Some(Waiting::Subscription(subscription)) => {
                let subscription = *subscription;
                self.wake_subscription(subscription);
            }
            Some(Waiting::Produce { .. }) | None => {}
        }
    }

    fn take_remote(&mut self, connection: &Rc<Connection>, key: Key, reply: Reply) {
        match self.waiting.get_mut(key) {
            Some(Waiting::Produce { .. }) => self.end_remote_produce(connection, key, reply),
            Some(Waiting::Fetch(_)) => self.take_remote_fetch(connection, key, reply),
            Some(Waiting::Subscription(subscription)) => {
                let subscription = *subscription;
                self.take_remote_push(connection, subscription, reply);
            }
            None => {}
        }
    }

    fn end_waits(&mut self, connection: &Rc<Connection>) {
        let now = connection.now();
        if self.flow.take_due(now) {
            self.end_fetch_waits(connection);
            self.end_subscription_pauses(now);
        }
    }

    /// Lets readers go on as long as the client takes what they bring.
    fn run_readers(&mut self, connection: &Rc<Connection>) {
        // A turn is bounded by what is runnable now; whoever has more goes to the back.
        for _ in 0..self.runnable.len() {
            if self.flow.outbox.bytes() >= connection.shared.limits.outgoing_bytes_max {
                return;
            }
            match self.runnable.pop_front() {
                Some(Work::Fetch(key)) => self.run_fetch(connection, key),
                Some(Work::Push(key)) => self.run_subscription(connection, key),
                None => return,
            }
        }
        if !self.runnable.is_empty() && self.flow.outbox.bytes() == 0 {
            // Nothing is being sent that would bring the sending task back here.
            self.flow.due_by(connection.now());
        }
    }

    /// A disk read ended: others may begin.
    pub(super) fn end_disk_read(&mut self) {
        self.disk_reads -= 1;
        self.runnable.extend(self.stalled.drain(..));
    }

    /// Gives back the memory of cursors that no fetch used since the last call.
    pub(super) fn release_idle_cursors(&mut self) {
        let opened = &mut self.opened;
        self.warm.retain(|key| {
            let Some(opened) = opened.get_mut(*key) else { return false };
            let used = std::mem::replace(&mut opened.used, false);
            if !used {
                opened.cursor.release();
            }
            used
        });
    }
}

struct Parts<'a>(&'a mut AppendBuffer);

impl Sink for Parts<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
