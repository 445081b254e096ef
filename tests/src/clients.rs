//! Clients of a shard, in its own reactor: producers, consumers, an operator, and a look at its memory.
//!
//! They use the engine as connections do, remember nothing that a crash of the node would not leave them, and tell
//! everything to the observer.

use crate::invariants::Event;
use crate::keyed::{self, is_keyed};
use crate::numbered;
use crate::records;
use crate::sometimes;
use crate::world::{Server, Shared};
use corelog_batch::Codec;
use corelog_engine::error::{AppendError, ReadError};
use corelog_engine::metadata::Durability;
use corelog_engine::model::{Offset, PartitionId, ShardId};
use corelog_engine::reactor::{Outgoing, Reactor, Task};
use corelog_engine::shard::{
    Appended, Command, CommandError, Completed, Cursor, PartitionHandle, Read, Remote, Reply, Session, Shard,
    ShardConfig,
};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What clients do.
#[derive(Debug, Clone)]
pub struct Load {
    /// No more appends and commands.
    pub calm: bool,
    /// The node is to stop in order.
    pub stopping: bool,
    /// Appends of one producer under way at once.
    pub in_flight: usize,
    /// Longest pause between two appends of a producer, in microseconds.
    pub pause_us_max: u64,
    /// Records of a batch, at most.
    pub records_max: u32,
    /// Bytes of a value, at most, of an ordinary append.
    pub value_bytes_max: usize,
    /// One append in so many is a large one; 0 for none.
    pub large_one_in: u64,
    /// Bytes of the value of a large append.
    pub large_bytes: usize,
    /// Consumers of a shard.
    pub consumers: usize,
    /// Whether topics are created, deleted and altered, and records deleted, all the while.
    pub operator: bool,
    /// Errors of the disk are expected, so that a read may fail.
    pub disk_errors: bool,
    /// Bytes on the disk are damaged, so that a partition may be fenced.
    pub damage: bool,
    /// Nothing makes a shard read its log again, so that its flushes can be weighed against its commits.
    pub weighs_flushes: bool,
}

/// Longest that anything may take while nothing is wrong with the disk.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// One client's view of its shard.
#[derive(Clone)]
struct Client {
    shard: Shard,
    shared: Rc<Shared>,
}

/// Starts the clients of a shard. They end when the tasks are dropped.
pub(crate) fn start(shard: &Shard, config: &ShardConfig, shared: &Rc<Shared>) -> Vec<Task<()>> {
    let client = Client { shard: shard.clone(), shared: shared.clone() };
    let reactor = shard.reactor();
    let mut tasks = vec![
        reactor.spawn(client.clone().produce(false)),
        reactor.spawn(numbered::produce(shard.clone(), shared.clone())),
        reactor.spawn(keyed::produce(shard.clone(), shared.clone())),
        reactor.spawn(keyed::watch(shard.clone(), shared.clone())),
        reactor.spawn(client.clone().watch_memory(memory_bound(config, shared.natives.are_served.get()))),
        reactor.spawn(client.clone().weigh_flushes(config.commits_in_flight)),
    ];
    if shard.shards() > 1 {
        tasks.push(reactor.spawn(client.clone().produce(true)));
    }
    let (consumers, operator) = (shared.load.borrow().consumers, shared.load.borrow().operator);
    tasks.extend((0..consumers).map(|_| reactor.spawn(client.clone().consume())));
    if operator && shard.id() == ShardId(shard.shards() - 1) {
        tasks.push(reactor.spawn(client.operate()));
    }
    tasks
}

/// Completes when the node is to stop.
pub(crate) async fn until_stopping(reactor: &Reactor, shared: &Shared) {
    while !shared.load.borrow().stopping {
        reactor.sleep(LOOK_INTERVAL).await;
    }
}

/// All that may be in buffers at once: tails, reads, what connections receive and send, and what the shard sets aside for
/// itself.
fn memory_bound(config: &ShardConfig, serves: bool) -> usize {
    let limits = Server::limits();
    let connections = if serves { limits.frame_bytes_max + limits.shard_outgoing_bytes_max } else { 0 };
    // The pool gives blocks of a power of two: what is asked for can take nearly twice as much.
    2 * (config.tail_bytes_max + config.read_bytes_max + connections) + config.own_bytes()
}

// Producers ------------------------------------------------------------------------------------------------------------

/// An append under way.
struct Sent {
    partition: PartitionId,
    records: u32,
}

/// One producer's appends under way, by their numbers.
type UnderWay = BTreeMap<u64, Sent>;

impl Client {
    fn reactor(&self) -> &Reactor {
        self.shard.reactor()
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.reactor().random() % bound }
    }

    /// Any partition of this shard, or of another one.
    fn pick(&self, remote: bool) -> Option<(PartitionId, Durability)> {
        let (catalog, me, shards) = (self.shard.catalog(), self.shard.id(), self.shard.shards());
        let topics = catalog.topics().filter(|topic| !is_keyed(topic));
        let all = topics.flat_map(|topic| topic.partition_ids().map(move |id| (id, topic.settings.durability)));
        let of = |id: &PartitionId| catalog.owner(id.topic, id.index, shards);
        let wanted: Vec<_> = all.filter(|(id, _)| (of(id) == Some(me)) != remote).collect();
        let at = self.below(wanted.len() as u64) as usize;
        wanted.get(at).copied()
    }

    async fn produce(self, remote: bool) {
        let (session, producer) = (Session::new(16), self.shared.new_producer());
        let mut under_way = UnderWay::new();
        // Kept past the end of their partitions, to be tried again.
        let mut handles: BTreeMap<PartitionId, PartitionHandle> = BTreeMap::new();
        loop {
            let load = self.shared.load.borrow().clone();
            if under_way.len() < load.in_flight && !load.calm {
                self.append_somewhere(remote, producer, &load, &session, &mut under_way, &mut handles).await;
            } else if under_way.is_empty() {
                self.reactor().sleep(LOOK_INTERVAL).await;
            } else {
                session.completed().await;
            }
            while let Some(outcome) = session.pop() {
                self.take_outcome(outcome, &mut under_way);
            }
            if load.pause_us_max > 0 && self.below(4) == 0 {
                self.reactor().sleep(Duration::from_micros(self.below(load.pause_us_max))).await;
            }
        }
    }

    async fn append_somewhere(
        &self,
        remote: bool,
        producer: u64,
        load: &Load,
        session: &Session,
        under_way: &mut UnderWay,
        handles: &mut BTreeMap<PartitionId, PartitionHandle>,
    ) {
        let Some((partition, durability)) = self.pick_or_stale(remote, handles) else {
            return self.reactor().sleep(LOOK_INTERVAL).await;
        };
        let append = self.shared.new_append(producer);
        let (bytes, count) = self.make_batch(append, load);
        let event = Event::Appending { partition, append, records: count, durability };
        self.shared.observer.tell(&event);
        let refused = if remote {
            self.forward(partition, bytes, session, append)
        } else {
            let handle = handles.get(&partition).copied().or_else(|| self.shard.open(partition));
            if let Some(handle) = handle {
                handles.insert(partition, handle);
            }
            let handle = handle.ok_or(AppendError::UnknownPartition);
            handle.and_then(|handle| self.shard.append(handle, &bytes, session, append)).err()
        };
        match refused {
            None => {
                under_way.insert(append, Sent { partition, records: count });
                self.shared.outstanding.set(self.shared.outstanding.get() + 1);
            }
            Some(error) => {
                self.note_refused(partition, append, &error);
                self.reactor().sleep(Duration::from_micros(500)).await;
            }
        }
    }

    /// Now and then a partition that was opened once and may be gone.
    fn pick_or_stale(
        &self,
        remote: bool,
        handles: &BTreeMap<PartitionId, PartitionHandle>,
    ) -> Option<(PartitionId, Durability)> {
        let stale = handles.keys().nth(self.below(handles.len() as u64) as usize).copied();
        match stale.filter(|_| !remote && self.below(8) == 0) {
            Some(partition) => {
                let durability = self.shard.catalog().topic(partition.topic).map(|topic| topic.settings.durability);
                Some((partition, durability.unwrap_or(Durability::Flush)))
            }
            None => self.pick(remote),
        }
    }

    fn make_batch(&self, append: u64, load: &Load) -> (Vec<u8>, u32) {
        let now = self.reactor().wall_clock().0;
        if load.large_one_in > 0 && self.below(load.large_one_in) == 0 {
            sometimes!("a large batch was appended");
            return (records::batch(append, 1, load.large_bytes, now, Codec::None), 1);
        }
        let count = 1 + self.below(u64::from(load.records_max)) as u32;
        let bytes = self.below(load.value_bytes_max as u64) as usize;
        (records::batch(append, count, bytes, now, Codec::None), count)
    }

    fn forward(&self, partition: PartitionId, bytes: Vec<u8>, session: &Session, ticket: u64) -> Option<AppendError> {
        let owner = self.shard.owner(partition.topic, partition.index)?;
        let Some(bytes) = self.shard.parcel(&bytes) else { return Some(AppendError::Busy) };
        let request = Remote::Append { partition, bytes };
        sometimes!("an append crossed to another shard");
        self.shard.forward(owner, request, session, ticket).is_err().then_some(AppendError::Busy)
    }

    fn take_outcome(&self, outcome: Completed, under_way: &mut UnderWay) {
        match outcome {
            Completed::Appended { ticket, appended } => self.note_appended(ticket, appended, under_way),
            Completed::Refused { ticket, error } => self.note_late_refusal(ticket, &error, under_way),
            Completed::Remote { ticket, reply: Reply::Appended(appended) } => {
                self.note_appended(ticket, appended, under_way);
            }
            Completed::Remote { ticket, reply: Reply::AppendRefused(error) } => {
                self.note_late_refusal(ticket, &error, under_way);
            }
            Completed::Remote { ticket, .. } => self.note_late_refusal(ticket, &AppendError::Busy, under_way),
            Completed::Readable { .. } => {}
        }
    }

    fn note_appended(&self, append: u64, at: Appended, under_way: &mut UnderWay) {
        let Some(sent) = under_way.remove(&append) else {
            return self.shared.observer.broken_by(format!("append {append} has an outcome it did not ask for"));
        };
        self.shared.outstanding.set(self.shared.outstanding.get() - 1);
        self.shared.acknowledged.set(self.shared.acknowledged.get() + u64::from(sent.records));
        let event = Event::Acknowledged { partition: sent.partition, append, base: at.base.0, last: at.last.0 };
        self.shared.observer.tell(&event);
    }

    fn note_late_refusal(&self, append: u64, error: &AppendError, under_way: &mut UnderWay) {
        let Some(sent) = under_way.remove(&append) else {
            return self.shared.observer.broken_by(format!("append {append} has an outcome it did not ask for"));
        };
        self.shared.outstanding.set(self.shared.outstanding.get() - 1);
        self.note_refused(sent.partition, append, error);
    }

    fn note_refused(&self, partition: PartitionId, append: u64, error: &AppendError) {
        match error {
            AppendError::OutcomeUnknown => return sometimes!("the outcome of an append is not known"),
            AppendError::Busy => sometimes!("an append met a bound"),
            AppendError::StorageFull => sometimes!("an append met a full disk"),
            AppendError::Reopening => sometimes!("an append met a shard that recovers"),
            AppendError::UnknownPartition => sometimes!("an append met a partition that is gone"),
            AppendError::Fenced(_) if self.shared.load.borrow().damage => {
                sometimes!("an append met a damaged partition")
            }
            error => self.shared.observer.broken_by(format!("append {append} to {partition} was refused: {error}")),
        }
        self.shared.observer.tell(&Event::Refused { partition, append });
    }
}

// Consumers ------------------------------------------------------------------------------------------------------------

impl Client {
    async fn consume(self) {
        let session = Session::new(4);
        loop {
            let Some((partition, _)) = self.pick(false) else {
                self.reactor().sleep(LOOK_INTERVAL).await;
                continue;
            };
            if let Some(handle) = self.shard.open(partition) {
                self.follow(partition, handle, &session).await;
            }
            self.reactor().sleep(Duration::from_micros(self.below(2000))).await;
        }
    }

    /// Reads a partition from somewhere on for a while.
    async fn follow(&self, partition: PartitionId, handle: PartitionHandle, session: &Session) {
        let Some(status) = self.shard.describe(handle) else { return };
        let span = (status.high_watermark.0 - status.first.0).max(0) as u64;
        let mut from = status.first.0 + self.below(span + 1) as i64;
        let max_bytes = 1 + self.below(128 << 10) as usize;
        let mut cursor = Cursor::default();
        for _ in 0..1 + self.below(50) {
            match self.read_once(partition, handle, from, max_bytes, &mut cursor).await {
                Ok(Some(next)) => from = next,
                Ok(None) => self.wait_for_more(handle, Offset(from), session).await,
                Err(error) => return self.note_read_error(partition, from, &error),
            }
        }
    }

    /// Reads once and tells; the next offset, or nothing at the end.
    pub(crate) async fn read_once(
        &self,
        partition: PartitionId,
        handle: PartitionHandle,
        from: i64,
        max_bytes: usize,
        cursor: &mut Cursor,
    ) -> Result<Option<i64>, ReadError> {
        let mut out = Outgoing::new();
        let read = match self.shard.read(handle, Offset(from), max_bytes, cursor, &mut out)? {
            Read::OnDisk => {
                sometimes!("a reader went to the disk");
                self.shard.read_disk(handle, Offset(from), max_bytes, cursor, &mut out).await?
            }
            read => read,
        };
        let Read::Data { next, high_watermark, bytes } = read else { return Ok(None) };
        if bytes != out.len() {
            self.shared.observer.broken_by(format!("{partition}: a read said {bytes} bytes and gave {}", out.len()));
        }
        // What a connection sends may be sent later: look at the bytes only after others had a turn.
        self.reactor().yield_now().await;
        let bytes: Vec<u8> = out.pieces().iter().flat_map(|piece| piece.iter().copied()).collect();
        match records::read(&bytes) {
            Ok(batches) => {
                let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
                self.shared.records_read.set(self.shared.records_read.get() + count as u64);
                let high_watermark = high_watermark.0;
                self.shared.observer.tell(&Event::Read { partition, from, high_watermark, batches: &batches });
            }
            Err(why) => self.shared.observer.broken_by(format!("{partition} from {from}: {why}")),
        }
        Ok(Some(next.0))
    }

    async fn wait_for_more(&self, handle: PartitionHandle, from: Offset, session: &Session) {
        if self.shard.watch(handle, from, session, 0).is_err() {
            return;
        }
        let wait = Duration::from_micros(1 + self.below(20_000));
        let (watcher, told) =
            (session.clone(), self.reactor().spawn(pause(self.reactor().clone(), wait, session.clone())));
        watcher.completed().await;
        drop(told);
        self.shard.unwatch(handle, session, 0);
        while session.pop().is_some() {
            sometimes!("a waiting reader was woken");
        }
    }

    fn note_read_error(&self, partition: PartitionId, from: i64, error: &ReadError) {
        match error {
            ReadError::OutOfRange { .. } => sometimes!("a reader fell out of the log"),
            error => note_read_error(&self.shared, partition, from, error),
        }
    }
}

/// What a reader of a log that loses nothing at its front may meet.
pub(crate) fn note_read_error(shared: &Shared, partition: PartitionId, from: i64, error: &ReadError) {
    let load = shared.load.borrow();
    match error {
        ReadError::UnknownPartition => sometimes!("a reader's partition is gone"),
        ReadError::Busy => sometimes!("a reader met a bound"),
        ReadError::Reopening => sometimes!("a reader met a shard that recovers"),
        ReadError::Io(_) if load.disk_errors => sometimes!("a read failed"),
        ReadError::Fenced(_) if load.damage => sometimes!("a reader met damage"),
        error => shared.observer.broken_by(format!("reading {partition} from {from}: {error}")),
    }
}

async fn pause(reactor: Reactor, wait: Duration, session: Session) {
    reactor.sleep(wait).await;
    session.wake();
}

// Operator -------------------------------------------------------------------------------------------------------------

impl Client {
    /// Creates, deletes and alters topics, and deletes records.
    async fn operate(self) {
        let mut made = 0;
        loop {
            self.reactor().sleep(Duration::from_micros(500 + self.below(20_000))).await;
            if self.shared.load.borrow().calm {
                continue;
            }
            match self.below(4) {
                0 => {
                    made += 1;
                    let name = format!("passing-{}-{made}", self.reactor().now().nanos());
                    self.create(&name, 1 + self.below(4) as u32, &[]).await;
                }
                1 => self.delete_some_topic().await,
                _ => self.delete_some_records().await,
            }
        }
    }

    /// Creates a topic and tells.
    pub(crate) async fn create(&self, name: &str, partitions: u32, settings: &[(String, String)]) -> bool {
        self.shared.observer.tell(&Event::TopicUncertain { topic: name });
        let command = Command::CreateTopic { name: name.to_owned(), partitions, settings: settings.to_vec() };
        match self.shard.command(command).await {
            Ok(()) => {
                sometimes!("a topic was created");
                self.shared.observer.tell(&Event::Created { topic: name, partitions });
                true
            }
            Err(error) => {
                self.note_command_error(name, &error);
                false
            }
        }
    }

    async fn delete_some_topic(&self) {
        let passing: Vec<String> = {
            let catalog = self.shard.catalog();
            let names = catalog.topics().map(|topic| topic.name.as_str().to_owned());
            names.filter(|name| name.starts_with("passing")).collect()
        };
        let Some(name) = passing.get(self.below(passing.len() as u64) as usize) else { return };
        self.shared.observer.tell(&Event::TopicUncertain { topic: name });
        match self.shard.command(Command::DeleteTopic { name: name.clone() }).await {
            Ok(()) => {
                sometimes!("a topic was deleted");
                self.shared.observer.tell(&Event::Deleted { topic: name });
            }
            Err(error) => self.note_command_error(name, &error),
        }
    }

    fn note_command_error(&self, name: &str, error: &CommandError) {
        match error {
            CommandError::Busy | CommandError::Log(_) => sometimes!("a command failed"),
            error => self.shared.observer.broken_by(format!("a command on topic {name} was refused: {error}")),
        }
    }

    async fn delete_some_records(&self) {
        let Some((partition, _)) = self.pick(false) else { return };
        let Some(handle) = self.shard.open(partition) else { return };
        let Some(status) = self.shard.describe(handle) else { return };
        let span = (status.high_watermark.0 - status.first.0).max(0) as u64;
        let before = status.first.0 + self.below(span + 1) as i64;
        self.shared.observer.tell(&Event::Deleting { partition, before });
        match self.shard.delete_records(handle, Offset(before)).await {
            Ok(first) if first.0 < before => {
                self.shared.observer.broken_by(format!("{partition}: deleted before {before}, begins at {first}"));
            }
            Ok(_) => sometimes!("records were deleted"),
            Err(error) => self.note_read_error(partition, before, &error),
        }
    }

    async fn watch_memory(self, bound: usize) {
        loop {
            let pool = self.reactor().pool();
            let used = pool.total_bytes() - pool.free_bytes();
            self.shared.observer.tell(&Event::Memory { used, bound });
            self.reactor().sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Client {
    /// Holds the flushes of the shard against what they were for.
    async fn weigh_flushes(self, lanes: usize) {
        let begun = self.reactor().counters().flushes.get();
        loop {
            if !self.shared.load.borrow().weighs_flushes {
                return;
            }
            let counters = self.shard.counters();
            let flushes = self.reactor().counters().flushes.get() - begun;
            let (entries, checkpoints) = (counters.commits.get(), counters.checkpoints.get());
            self.shared.observer.tell(&Event::Flushes { flushes, entries, checkpoints, under_way: lanes as u64 });
            self.reactor().sleep(LOOK_INTERVAL).await;
        }
    }

    /// Appends a batch to every partition of this quiet shard at once; the flushes it took until all were acknowledged,
    /// checkpoints left out. Nothing if a checkpoint came between, or a partition refused: while one after the other turns out
    /// damaged, any burst may have to wait for a segment to be opened.
    async fn burst(&self) -> Option<Event<'static>> {
        let (session, producer) = (Session::new(64), self.shared.new_producer());
        let count = |counter: &std::cell::Cell<u64>| counter.get();
        let (flushes, checkpoints) = (&self.reactor().counters().flushes, &self.shard.counters().checkpoints);
        let begun = &self.shard.counters().checkpoints_begun;
        let before = (count(flushes), count(begun));
        let is_quiet = count(begun) == count(checkpoints);
        let (mut under_way, mine) = (UnderWay::new(), self.mine());
        let partitions = mine.len();
        for (partition, durability) in mine {
            let Some(handle) = self.shard.open(partition) else { continue };
            let append = self.shared.new_append(producer);
            let bytes = records::batch(append, 1, 0, self.reactor().wall_clock().0, Codec::None);
            self.shared.observer.tell(&Event::Appending { partition, append, records: 1, durability });
            match self.shard.append(handle, &bytes, &session, append) {
                Ok(()) => {
                    under_way.insert(append, Sent { partition, records: 1 });
                    self.shared.outstanding.set(self.shared.outstanding.get() + 1);
                }
                Err(error) => self.note_refused(partition, append, &error),
            }
        }
        let none_refused = under_way.len() == partitions;
        while !under_way.is_empty() {
            session.completed().await;
            while let Some(outcome) = session.pop() {
                self.take_outcome(outcome, &mut under_way);
            }
        }
        let flushes = count(flushes) - before.0;
        let undisturbed = is_quiet && count(begun) == before.1 && none_refused && partitions > 1;
        undisturbed.then_some(Event::Burst { partitions: partitions as u64, flushes })
    }

    fn mine(&self) -> Vec<(PartitionId, Durability)> {
        let (catalog, me, shards) = (self.shard.catalog(), self.shard.id(), self.shard.shards());
        let of = |id: &PartitionId| catalog.owner(id.topic, id.index, shards) == Some(me);
        let topics = catalog.topics().filter(|topic| !is_keyed(topic));
        let all = topics.flat_map(|topic| topic.partition_ids().map(move |id| (id, topic.settings.durability)));
        all.filter(|(id, durability)| of(id) && *durability == Durability::Flush).collect()
    }
}

// What the harness itself asks for -------------------------------------------------------------------------------------

/// Creates a topic through a shard; false if that failed or took too long.
pub async fn create_topic(
    shard: Shard,
    shared: Rc<Shared>,
    name: String,
    partitions: u32,
    settings: Vec<(String, String)>,
) -> bool {
    Client { shard, shared }.create(&name, partitions, &settings).await
}

/// Bursts of a shard that are tried: in the first, segments may have to be opened, and others may meet a checkpoint or
/// the journal's end.
const BURSTS: usize = 10;

/// Whether many partitions of a quiet shard cost one flush.
pub async fn burst(shard: Shard, shared: Rc<Shared>) {
    let client = Client { shard, shared };
    let mut best: Option<Event<'static>> = None;
    let cost = |event: &Event<'_>| if let Event::Burst { flushes, .. } = event { *flushes } else { u64::MAX };
    for number in 0..BURSTS {
        // Where segments had to be opened, the first takes more, and partitions that turn out damaged are in no other.
        let burst = client.burst().await.filter(|burst| number > 0 || cost(burst) <= 1);
        best = best.into_iter().chain(burst).min_by_key(cost);
        if best.as_ref().is_some_and(|best| cost(best) <= 1) {
            break;
        }
        client.reactor().sleep(LOOK_INTERVAL).await;
    }
    if let Some(best) = best {
        sometimes!("many partitions were committed at once");
        client.shared.observer.tell(&best);
    }
}

/// Reads a whole partition and tells what is in it.
pub async fn read_all(shard: Shard, shared: Rc<Shared>, partition: PartitionId) {
    let client = Client { shard, shared };
    let Some(handle) = client.shard.open(partition) else { return };
    let Some(status) = client.shard.describe(handle) else { return };
    let (first, next) = (status.first.0, status.next.0);
    if let Some(why) = status.fenced {
        if !client.shared.load.borrow().damage {
            client.shared.observer.broken_by(format!("{partition} is fenced: {why}"));
        }
        return;
    }
    let (mut cursor, mut from) = (Cursor::default(), first);
    let until = client.reactor().now().plus(PATIENCE);
    while from < next {
        match client.read_once(partition, handle, from, 256 << 10, &mut cursor).await {
            Ok(Some(after)) => from = after,
            Err(ReadError::Busy) if client.reactor().now() < until => {
                client.reactor().sleep(Duration::from_millis(1)).await;
            }
            Err(ReadError::Fenced(_)) if client.shared.load.borrow().damage => return,
            other => {
                let why = format!("{partition}: reading {from} of {first} to {next} gave {other:?}");
                return client.shared.observer.broken_by(why);
            }
        }
    }
    client.shared.observer.tell(&Event::Finished { partition, first, next });
}
