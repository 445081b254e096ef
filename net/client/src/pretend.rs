//! A server that lives in a test: bytes in, bytes out, with moods. It keeps what the protocol promises (order, spent
//! handles, credit) unless it is told not to.

use corelog_batch::{BatchView, Limits, validate};
use corelog_wire::{
    Credit, Detail, Endpoint, Failure, Fetch, Frame, Header, List, ListOffsets, ListedOffset, Magic, Metadata, Opened,
    Operation, Owner, Produced, Records, Request, Status, Subscribed, Text, Topic, TopicEntry, TopicFacts, VERSION_MAX,
    Welcome,
};
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// Splitmix64: enough chance for a test, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        bound > 0 && self.below(bound) == 0
    }
}

/// How often what goes wrong: once in so many produces; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mood {
    pub(crate) busy: usize,
    pub(crate) outcome_unknown: usize,
    pub(crate) invalid: usize,
    /// Whether a refused produce spends its handle, as the protocol has it.
    pub(crate) forgets_refusals: bool,
    /// Whether answers wait to be let go by `release`.
    pub(crate) holds_answers: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) chance: Chance,
    pub(crate) mood: Mood,
    pub(crate) shards: u16,
    pub(crate) ports: Vec<u16>,
    pub(crate) topics: BTreeMap<String, PretendTopic>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) produces: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) refusals: usize,
    /// So many opens find that their partition is not known.
    pub(crate) ignorant: usize,
    next_connection: u64,
}

#[derive(Debug)]
pub(crate) struct PretendTopic {
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Log>,
}

/// A partition: whole batches, stamped.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) first: i64,
    pub(crate) next: i64,
    pub(crate) batches: Vec<Vec<u8>>,
    /// Of producers that number their batches: epoch, and number, records and offset of the newest.
    producers: BTreeMap<i64, (i16, Vec<Numbered>)>,
}

/// Number of the first record, records, offset of the first.
type Numbered = (i32, i32, i64);

#[derive(Debug)]
pub(crate) struct Connection {
    shard: u16,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Answers to produces that wait, and their partition.
    held: VecDeque<(usize, Vec<u8>)>,
    hello: bool,
    handles: Vec<Handle>,
    fetches: Vec<(Header, String, usize, Fetch)>,
    subscriptions: Vec<Option<Subscription>>,
}

#[derive(Debug, Clone)]
struct Handle {
    topic: String,
    partition: usize,
    /// The status of the refusal that spent it.
    spent: Option<Status>,
    closed: bool,
}

#[derive(Debug)]
struct Subscription {
    correlation: u32,
    topic: String,
    partition: usize,
    next: i64,
    credit: i64,
    bytes_max: u32,
}

impl Log {
    /// Appends a batch, unless it is there; offsets of its first and last record.
    fn append_once(&mut self, batch: &[u8]) -> Result<(i64, i64), Status> {
        let view = BatchView::first(batch).unwrap();
        if view.producer_id() < 0 {
            return Ok(self.append(batch));
        }
        let (first, records) = (view.base_sequence(), view.record_count());
        let (epoch, known) = self.producers.entry(view.producer_id()).or_insert((view.producer_epoch(), Vec::new()));
        if view.producer_epoch() < *epoch {
            return Err(Status::OldProducerEpoch);
        }
        if view.producer_epoch() > *epoch {
            (*epoch, *known) = (view.producer_epoch(), Vec::new());
        }
        if let Some((.., base)) = known.iter().find(|kept| (kept.0, kept.1) == (first, records)) {
            return Ok((*base, base + i64::from(records) - 1));
        }
        if first != known.last().map_or(0, |newest| newest.0 + newest.1) {
            return Err(Status::OutOfOrderSequence);
        }
        known.push((first, records, self.next));
        known.drain(..known.len().saturating_sub(5));
        Ok(self.append(batch))
    }

    pub(crate) fn append(&mut self, batch: &[u8]) -> (i64, i64) {
        let view = BatchView::first(batch).unwrap();
        let mut stored = batch.to_vec();
        stored[..16].copy_from_slice(&view.stamped(self.next, 0));
        let base = self.next;
        self.next += i64::from(view.record_count());
        self.batches.push(stored);
        (base, self.next - 1)
    }

    /// Batches from `offset` on: at least one if there is one, else up to `bytes_max`. And the offset behind them.
    fn read(&self, offset: i64, bytes_max: usize) -> (Vec<u8>, i64) {
        let (mut bytes, mut next) = (Vec::new(), offset);
        for batch in &self.batches {
            let view = BatchView::first(batch).unwrap();
            if view.next_offset() <= offset {
                continue;
            }
            if !bytes.is_empty() && bytes.len() + batch.len() > bytes_max {
                break;
            }
            bytes.extend_from_slice(batch);
            next = view.next_offset();
        }
        (bytes, next)
    }

    fn holds(&self, offset: i64) -> Result<(), (Status, Detail)> {
        let range = Detail::Range { first: self.first, next: self.next };
        if (self.first..=self.next).contains(&offset) { Ok(()) } else { Err((Status::OffsetOutOfRange, range)) }
    }

    /// The values of all records, in order.
    pub(crate) fn values(&self) -> Vec<Vec<u8>> {
        let (mut values, mut scratch) = (Vec::new(), Vec::new());
        for batch in &self.batches {
            for record in BatchView::first(batch).unwrap().records(&mut scratch, 1 << 24).unwrap() {
                values.push(record.unwrap().value.unwrap_or_default().to_vec());
            }
        }
        values
    }
}

type Answered = Result<(), (Status, Detail)>;

impl Server {
    pub(crate) fn new(seed: u64, shards: u16) -> Server {
        let ports = (0..shards).map(|shard| 7100 + shard).collect();
        let (topics, connections) = (BTreeMap::new(), BTreeMap::new());
        let (chance, mood) = (Chance(seed), Mood::default());
        Server {
            chance,
            mood,
            shards,
            ports,
            topics,
            connections,
            produces: 0,
            subscriptions_max: 1000,
            refusals: 0,
            ignorant: 0,
            next_connection: 0,
        }
    }

    pub(crate) fn create(&mut self, topic: &str, partitions: usize) {
        let id = Uuid::from_u128(u128::from(self.chance.next()));
        let partitions = (0..partitions).map(|_| Log::default()).collect();
        self.topics.insert(topic.to_owned(), PretendTopic { id, partitions });
    }

    /// Deletes a topic, and ends what is open of it as the protocol has it.
    pub(crate) fn delete(&mut self, topic: &str) {
        self.topics.remove(topic);
        for connection in self.connections.values_mut() {
            connection.handles.iter_mut().filter(|open| open.topic == topic).for_each(|open| open.closed = true);
            for (header, ..) in connection.fetches.extract_if(.., |(_, of, ..)| of == topic) {
                fail(&header, Status::UnknownHandle, Detail::None, &mut connection.output);
            }
            for (handle, subscription) in connection.subscriptions.iter_mut().enumerate() {
                if let Some(on) = subscription.take_if(|on| on.topic == topic) {
                    let header = Header::request(Operation::Push, on.correlation, handle as u32 + 1).response();
                    fail(&header, Status::UnknownPartition, Detail::None, &mut connection.output);
                }
            }
        }
    }

    pub(crate) fn log(&mut self, topic: &str, partition: usize) -> &mut Log {
        &mut self.topics.get_mut(topic).unwrap().partitions[partition]
    }

    pub(crate) fn connect(&mut self, shard: u16) -> u64 {
        self.next_connection += 1;
        let connection = Connection {
            shard,
            input: Vec::new(),
            output: Vec::new(),
            held: VecDeque::new(),
            hello: false,
            handles: Vec::new(),
            fetches: Vec::new(),
            subscriptions: Vec::new(),
        };
        self.connections.insert(self.next_connection, connection);
        self.next_connection
    }

    /// Does whatever `bytes` complete.
    pub(crate) fn receive(&mut self, id: u64, bytes: &[u8]) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        connection.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut connection.input);
        let mut rest = &input[..];
        while let Some(frame) = Frame::first(rest, 1 << 24).unwrap() {
            rest = &rest[frame.size()..];
            self.frame(&mut connection, &frame);
        }
        connection.input = rest.to_vec();
        self.connections.insert(id, connection);
        self.wake();
    }

    /// What the client may read now.
    pub(crate) fn output(&mut self, id: u64) -> Vec<u8> {
        self.connections.get_mut(&id).map(|connection| std::mem::take(&mut connection.output)).unwrap_or_default()
    }

    /// Lets one held answer go, of any partition, but the oldest of it.
    pub(crate) fn release(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.held.is_empty() {
            return;
        }
        let (partition, _) = connection.held[self.chance.below(connection.held.len())];
        let place = connection.held.iter().position(|held| held.0 == partition).unwrap();
        let (_, answer) = connection.held.remove(place).unwrap();
        connection.output.extend_from_slice(&answer);
    }

    /// Answers fetches and pushes as far as logs have grown.
    pub(crate) fn wake(&mut self) {
        for connection in self.connections.values_mut() {
            for (header, topic, partition, fetch) in std::mem::take(&mut connection.fetches) {
                let Some(log) = self.topics.get(&topic).map(|topic| &topic.partitions[partition]) else { continue };
                if log.next > fetch.offset {
                    put_records(&header, log, fetch.offset, fetch.bytes_max, &mut connection.output);
                } else {
                    connection.fetches.push((header, topic, partition, fetch));
                }
            }
            for (handle, subscription) in connection.subscriptions.iter_mut().enumerate() {
                let Some(on) = subscription else { continue };
                let Some(log) = self.topics.get(&on.topic).map(|topic| &topic.partitions[on.partition]) else {
                    continue;
                };
                let header = Header::request(Operation::Push, on.correlation, handle as u32 + 1).response();
                if log.holds(on.next).is_err() {
                    fail(&header, Status::OffsetOutOfRange, log.holds(on.next).unwrap_err().1, &mut connection.output);
                    *subscription = None;
                    continue;
                }
                while on.credit > 0 && log.next > on.next {
                    let (bytes, next) = put_records(&header, log, on.next, on.bytes_max, &mut connection.output);
                    on.credit -= bytes as i64;
                    on.next = next;
                }
            }
        }
    }

    /// Ends the wait of every fetch.
    pub(crate) fn end_waits(&mut self) {
        for connection in self.connections.values_mut() {
            for (header, topic, partition, fetch) in std::mem::take(&mut connection.fetches) {
                let log = &self.topics[&topic].partitions[partition];
                put_records(&header, log, fetch.offset, fetch.bytes_max, &mut connection.output);
            }
        }
    }

    pub(crate) fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    fn frame(&mut self, connection: &mut Connection, frame: &Frame<'_>) {
        let request = Request::decode(frame).unwrap();
        let header = frame.header;
        assert!(connection.hello != matches!(request, Request::Hello(_)), "{request:?}");
        if let Err((status, detail)) = self.answer(connection, &header, &request) {
            if status == Status::Ok {
                return;
            }
            self.refusals += 1;
            let mut out = Vec::new();
            fail(&header.response(), status, detail, &mut out);
            match request {
                Request::Produce { .. } if self.mood.holds_answers => {
                    let partition = connection.handles.get(header.handle as usize - 1).map_or(0, |open| open.partition);
                    connection.held.push_back((partition, out));
                }
                _ => connection.output.extend_from_slice(&out),
            }
        }
    }

    fn answer(&mut self, connection: &mut Connection, header: &Header, request: &Request<'_>) -> Answered {
        let answer = header.response();
        let mut out = std::mem::take(&mut connection.output);
        let answered = match *request {
            Request::Hello(_) => {
                connection.hello = true;
                answer.put(&self.welcome(connection.shard), 0, &mut out);
                Ok(())
            }
            Request::Ping | Request::Close | Request::Unsubscribe => {
                let place = (header.handle as usize).wrapping_sub(1);
                if let (Request::Close, Some(open)) = (request, connection.handles.get_mut(place)) {
                    open.closed = true;
                }
                if let (Request::Unsubscribe, Some(on)) = (request, connection.subscriptions.get_mut(place)) {
                    *on = None;
                }
                answer.put(&(), 0, &mut out);
                Ok(())
            }
            Request::Metadata(request) => {
                self.metadata(&answer, &request.topics, &mut out);
                Ok(())
            }
            Request::CreateTopic(request) => {
                let name = request.name.as_str();
                if self.topics.contains_key(name) {
                    Err((Status::TopicExists, Detail::None))
                } else {
                    self.create(name, request.partitions.max(1) as usize);
                    let facts = TopicFacts { id: self.topics[name].id, partitions: request.partitions.max(1) };
                    answer.put(&facts, 0, &mut out);
                    Ok(())
                }
            }
            Request::DeleteTopic(request) => match self.find(&request.topic).and_then(|name| self.topics.remove(&name))
            {
                Some(topic) => {
                    let facts = TopicFacts { id: topic.id, partitions: topic.partitions.len() as u32 };
                    answer.put(&facts, 0, &mut out);
                    Ok(())
                }
                None => Err((Status::UnknownTopic, Detail::None)),
            },
            Request::Open(request) => self.open(connection, &answer, &request.topic, request.partition, &mut out),
            Request::Credit(Credit { bytes }) => {
                if let Some(Some(on)) = connection.subscriptions.get_mut(header.handle as usize - 1) {
                    on.credit += i64::from(bytes);
                }
                Ok(())
            }
            _ => self.at_handle(connection, header, request, &mut out),
        };
        // Answers to produces may be held, so the order in which they are put matters.
        std::mem::swap(&mut connection.output, &mut out);
        connection.output.extend_from_slice(&out);
        answered
    }

    fn welcome(&self, shard: u16) -> Welcome<'static> {
        Welcome {
            magic: Magic,
            version: VERSION_MAX,
            shard,
            features: 0,
            body_bytes_max: 1 << 22,
            requests_max: 64,
            request_bytes_max: 1 << 22,
            handles_max: 1000,
            subscriptions_max: 1000,
            idle_timeout_ms: 600_000,
            cluster_id: Uuid::from_u128(7),
            node: 1,
            shards: self.shards,
            software: Text::truncated("pretend"),
        }
    }

    fn metadata(&self, answer: &Header, which: &corelog_wire::Selection<'_>, out: &mut Vec<u8>) {
        let host = Text::truncated("");
        let endpoints = self.ports.iter().enumerate();
        let endpoints =
            endpoints.map(|(shard, &port)| Endpoint { node: 1, shard: shard as u16, port, host }).collect::<Vec<_>>();
        let names = match which {
            corelog_wire::Selection::None => Vec::new(),
            corelog_wire::Selection::After(after) => {
                self.topics.keys().filter(|name| name.as_str() > after.as_str()).cloned().collect()
            }
            corelog_wire::Selection::Named(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
        };
        let owners = names
            .iter()
            .map(|name| self.topics.get(name).map_or(0, |topic| topic.partitions.len()))
            .map(|count| (0..count).map(|at| self.owner(at)).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        let entries = names.iter().zip(&owners).map(|(name, owners)| {
            let id = self.topics.get(name).map(|topic| topic.id);
            let status = if id.is_some() { 0 } else { Status::UnknownTopic as u16 };
            TopicEntry { status, id: id.unwrap_or_default(), name: Text::truncated(name), owners: List::of(owners) }
        });
        // One topic a page, so that paging is used.
        let paged = matches!(which, corelog_wire::Selection::After(_));
        let entries = entries.take(if paged { 1 } else { usize::MAX }).collect::<Vec<_>>();
        let more = entries.len() < names.len();
        let (endpoints, topics) = (List::of(&endpoints), List::of(&entries));
        let metadata = Metadata { cluster_id: Uuid::from_u128(7), node: 1, endpoints, topics, more };
        answer.put(&metadata, 0, out);
    }

    fn owner(&self, partition: usize) -> Owner {
        Owner { node: 1, shard: (partition % usize::from(self.shards)) as u16, leader_epoch: 0 }
    }

    fn find(&self, topic: &Topic<'_>) -> Option<String> {
        let found = match topic {
            Topic::Name(name) => self.topics.get_key_value(name.as_str()),
            Topic::Id(id) => self.topics.iter().find(|(_, topic)| topic.id == *id),
        };
        found.map(|(name, _)| name.clone())
    }

    fn open(
        &mut self,
        connection: &mut Connection,
        answer: &Header,
        topic: &Topic<'_>,
        partition: u32,
        out: &mut Vec<u8>,
    ) -> Answered {
        if self.ignorant > 0 {
            self.ignorant -= 1;
            return Err((Status::UnknownPartition, Detail::None));
        }
        let topic = self.find(topic).ok_or((Status::UnknownTopic, Detail::None))?;
        let state = &self.topics[&topic];
        let log = state.partitions.get(partition as usize).ok_or((Status::UnknownPartition, Detail::None))?;
        let owner = self.owner(partition as usize);
        let opened = Opened {
            topic_id: state.id,
            node: owner.node,
            shard: owner.shard,
            leader_epoch: 0,
            first: log.first,
            next: log.next,
            high_watermark: log.next,
            message_bytes_max: 1 << 20,
        };
        connection.handles.push(Handle { topic, partition: partition as usize, spent: None, closed: false });
        answer.with_handle(connection.handles.len() as u32).put(&opened, 0, out);
        Ok(())
    }

    fn at_handle(
        &mut self,
        connection: &mut Connection,
        header: &Header,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Answered {
        let place = (header.handle as usize).wrapping_sub(1);
        let unknown = (Status::UnknownHandle, Detail::None);
        let open = connection.handles.get(place).filter(|open| !open.closed).cloned().ok_or(unknown)?;
        if !self.topics.contains_key(&open.topic) {
            return Err(unknown);
        }
        let answer = header.response();
        let log = &mut self.topics.get_mut(&open.topic).unwrap().partitions[open.partition];
        match *request {
            Request::Produce { batches, .. } => {
                let produced = self.produce(&mut connection.handles[place], batches);
                let mut bytes = Vec::new();
                answer.put(&produced?, 0, &mut bytes);
                if self.mood.holds_answers {
                    connection.held.push_back((open.partition, bytes));
                } else {
                    out.extend_from_slice(&bytes);
                }
            }
            Request::Fetch(fetch) => {
                log.holds(fetch.offset)?;
                connection.fetches.push((answer, open.topic, open.partition, fetch));
            }
            Request::ListOffsets(which) => {
                let offset = match which {
                    ListOffsets::Earliest => log.first,
                    ListOffsets::At(timestamp) => by_time(log, timestamp),
                    ListOffsets::Latest | ListOffsets::MaxTimestamp => log.next,
                };
                answer.put(&ListedOffset { offset, timestamp: -1 }, 0, out);
            }
            Request::DeleteRecords(request) => {
                log.first = log.first.max(if request.before < 0 { log.next } else { request.before });
                answer.put(&corelog_wire::DeletedRecords { first: log.first }, 0, out);
            }
            Request::Subscribe(request) => {
                if connection.subscriptions.iter().flatten().count() >= self.subscriptions_max {
                    return Err((Status::TooManySubscriptions, Detail::None));
                }
                log.holds(request.offset)?;
                let (correlation, topic, partition) = (header.correlation, open.topic, open.partition);
                let (next, credit, bytes_max) = (request.offset, i64::from(request.credit), request.bytes_max);
                let on = Subscription { correlation, topic, partition, next, credit, bytes_max };
                connection.subscriptions.push(Some(on));
                let answer = answer.with_handle(connection.subscriptions.len() as u32);
                answer.put(&Subscribed { first: log.first, high_watermark: log.next }, 0, out);
            }
            _ => return Err((Status::UnknownOperation, Detail::None)),
        }
        Ok(())
    }

    fn produce(&mut self, open: &mut Handle, batches: &[u8]) -> Result<Produced, (Status, Detail)> {
        self.produces += 1;
        if let Some(status) = open.spent.filter(|_| !self.mood.forgets_refusals) {
            return Err((status, Detail::None));
        }
        validate(batches, Limits { batch_bytes_max: 1 << 20 }).map_err(|_| (Status::InvalidBatch, Detail::None))?;
        if self.chance.one_in(self.mood.busy) {
            open.spent = Some(Status::Busy);
            return Err((Status::Busy, Detail::RetryAfter { ms: 3 }));
        }
        let log = &mut self.topics.get_mut(&open.topic).unwrap().partitions[open.partition];
        if self.chance.one_in(self.mood.outcome_unknown) {
            open.spent = Some(Status::OutcomeUnknown);
            if self.chance.one_in(2) {
                let _ = log.append_once(batches);
            }
            return Err((Status::OutcomeUnknown, Detail::None));
        }
        if self.chance.one_in(self.mood.invalid) {
            return Err((Status::InvalidBatch, Detail::None));
        }
        let (base, last) = log.append_once(batches).map_err(|status| (status, Detail::None))?;
        Ok(Produced { base, last, log_append_time: -1 })
    }
}

fn by_time(log: &Log, timestamp: i64) -> i64 {
    let mut scratch = Vec::new();
    for batch in &log.batches {
        for record in BatchView::first(batch).unwrap().records(&mut scratch, 1 << 24).unwrap().flatten() {
            if record.timestamp >= timestamp {
                return record.offset;
            }
        }
    }
    -1
}

fn put_records(header: &Header, log: &Log, offset: i64, bytes_max: u32, out: &mut Vec<u8>) -> (usize, i64) {
    let (bytes, next) = log.read(offset, bytes_max as usize);
    let records = Records { high_watermark: log.next, first: log.first, next };
    header.put(&records, bytes.len(), out);
    out.extend_from_slice(&bytes);
    (bytes.len(), next)
}

fn fail(header: &Header, status: Status, detail: Detail, out: &mut Vec<u8>) {
    let failure = Failure { detail, message: Text::truncated("") };
    let header = Header { status: status as u16, ..*header };
    header.put(&failure, 0, out);
}
