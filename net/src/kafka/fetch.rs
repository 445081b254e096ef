//! Fetch: partitions are read one behind the other, from memory at once, from disk and other shards by waiting for each. What
//! is too little waits as one entry in the connection's slots, with a watch on every partition, and is read again when one
//! of them ends.

use super::dialect::Connection;
use super::errors;
use super::state::{State, Waiting};
use super::topics::{find, resolve};
use crate::transport::{Key, NoMemory, Outbox, Place, Watch};
use corelog_engine::model::{Offset, PartitionId, ShardId};
use corelog_engine::reactor::{Instant, Outgoing};
use corelog_engine::shard::{Cursor, PartitionHandle, Read, Remote, Reply};
use corelog_kafka::ErrorCode;
use corelog_kafka::api::Api;
use corelog_kafka::codec::{Malformed, Sink, Size};
use corelog_kafka::fetch::{self, Found, Topic};
use corelog_kafka::header::{self, Request};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// How long another shard may take to answer.
const CROSSING_TIME: Duration = Duration::from_secs(30);
/// A pause after a bound of the shard was met.
const PAUSE: Duration = Duration::from_millis(20);

/// The fetch that is not answered yet.
#[derive(Debug)]
pub(super) struct Fetch {
    key: Key,
    version: i16,
    correlation: i32,
    error: ErrorCode,
    bytes_min: usize,
    bytes_max: usize,
    /// The wait ends here.
    deadline: Instant,
    names: String,
    topics: Vec<Named>,
    parts: Vec<Part>,
    /// Parts before this one have been read.
    at: usize,
    /// A part that was read has an error, or will have no more records: it is not waited for more.
    is_over: bool,
    course: Course,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// The next part can be read.
    Running,
    /// Until a task has read from the disk.
    Reading,
    /// Until another shard has answered, or this time.
    Asking(Instant),
    /// Until there is more in one of the partitions.
    Watching,
    /// Until then; a bound was met.
    Paused(Instant),
}

/// A topic of it.
#[derive(Debug, Clone, Copy)]
struct Named {
    /// Its name ends here, before version 13.
    name_end: usize,
    /// Its id, from then on.
    id: Uuid,
    parts: usize,
}

/// A partition of it.
#[derive(Debug)]
struct Part {
    place: Result<Place, ErrorCode>,
    partition: i32,
    offset: Offset,
    bytes_max: usize,
    error: ErrorCode,
    high_watermark: i64,
    first: i64,
    /// Where the next record is, as far as was read.
    next: Offset,
    /// What was found.
    slices: Outgoing,
    watch: Option<Watch>,
}

/// Where a connection left off in a partition.
#[derive(Debug, Default)]
pub(super) struct Reader {
    cursor: Cursor,
    /// Since the last sweep.
    used: bool,
}

impl State {
    pub(super) fn begin_fetch(&mut self, connection: &Rc<Connection>, request: &Request<'_>) -> Result<(), Malformed> {
        let wanted = fetch::Fetch::parse(request)?;
        if self.waiting.total() + wanted.partitions() > connection.shared.limits.shard_waits_max {
            self.refuse(connection, "the shard has as many waiting requests as it may");
            return Ok(());
        }
        let key = self.waiting.insert(Waiting::Fetch);
        let mut fetch = self.spare_fetch.take().unwrap_or_else(|| Fetch::new(key));
        fetch.begin(connection, key, request, &wanted);
        if wanted.session != 0 {
            fetch.error = ErrorCode::FetchSessionIdNotFound;
        } else if self.waiting.total() > connection.shared.limits.shard_reader_waits_max {
            // Idle readers leave room for producers.
            fetch.deadline = connection.now();
        }
        fetch.is_over = fetch.error != ErrorCode::None;
        if !fetch.is_over {
            for part in wanted.parts() {
                let place = self.place_of(connection, &part.topic, part.partition);
                fetch.add(&part, place);
            }
        }
        fetch.count_waits(connection, true);
        self.flow.requests += 1;
        self.fetch = Some(fetch);
        self.run_fetch(connection);
        Ok(())
    }

    fn place_of(&mut self, connection: &Connection, topic: &Topic<'_>, partition: i32) -> Result<Place, ErrorCode> {
        match topic {
            Topic::Name(name) => self.topics.place(connection, name, partition),
            Topic::Id(_) => resolve(connection.shard(), find(connection.shard(), topic)?.id, partition),
        }
    }

    /// Whether the sending task is to go on with it.
    pub(super) fn has_fetch_to_run(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.course == Course::Running)
    }

    /// Reads on, as far as that goes without waiting, and answers if there is enough.
    pub(super) fn run_fetch(&mut self, connection: &Rc<Connection>) {
        let Some(mut fetch) = self.fetch.take() else { return };
        while fetch.course == Course::Running && fetch.at < fetch.parts.len() {
            self.read_part(connection, &mut fetch);
        }
        if fetch.course == Course::Running {
            let is_over = fetch.is_over || fetch.parts.is_empty() || connection.now() >= fetch.deadline;
            if is_over || fetch.bytes() >= fetch.bytes_min {
                return self.answer_fetch(connection, fetch);
            }
            self.watch_parts(connection, &mut fetch);
        }
        self.fetch = Some(fetch);
    }

    fn read_part(&mut self, connection: &Rc<Connection>, fetch: &mut Fetch) {
        let left = fetch.bytes_max.saturating_sub(fetch.bytes());
        let part = &mut fetch.parts[fetch.at];
        let place = match part.place {
            Ok(place) => place,
            Err(error) => return fetch.fail(error),
        };
        // Where nothing more fits, it is told how far the partition goes nevertheless.
        let wanted = part.bytes_max.min(left).min(connection.shared.limits.fetch_bytes_max);
        let Some(bytes_max) = self.flow.allowance(&connection.shared, wanted.max(1)) else {
            let until = connection.now().plus(PAUSE);
            fetch.course = Course::Paused(until);
            return self.flow.due_by(until);
        };
        match place {
            Place::Here(handle) if left == 0 => {
                part.tell_extent(connection, handle);
                fetch.at += 1;
            }
            Place::Here(handle) => self.read_here(connection, fetch, handle, bytes_max),
            Place::There(..) if left == 0 => fetch.at += 1,
            Place::There(owner, partition) => self.ask(connection, fetch, owner, partition, bytes_max),
        }
    }

    fn read_here(&mut self, connection: &Rc<Connection>, fetch: &mut Fetch, handle: PartitionHandle, bytes_max: usize) {
        let part = &mut fetch.parts[fetch.at];
        let reader = self.readers.entry(handle).or_default();
        reader.used = true;
        let read = connection.shard().read(handle, part.offset, bytes_max, &mut reader.cursor, &mut part.slices);
        match read {
            Ok(Read::OnDisk) => {
                let cursor = std::mem::take(&mut reader.cursor);
                fetch.course = Course::Reading;
                self.spawn_read(connection, fetch.key, handle, part.offset, bytes_max, cursor);
            }
            Err(error) => {
                part.tell_extent(connection, handle);
                fetch.fail(errors::of_read(&error));
            }
            Ok(read) => {
                part.take(&read);
                part.tell_extent(connection, handle);
                // Nothing more will come to a partition that is fenced, and its watch ends at once: who waited would turn for
                // ever.
                fetch.is_over |= connection.shard().is_fenced(handle);
                fetch.at += 1;
            }
        }
    }

    fn spawn_read(
        &mut self,
        connection: &Rc<Connection>,
        key: Key,
        handle: PartitionHandle,
        from: Offset,
        bytes_max: usize,
        mut cursor: Cursor,
    ) {
        let reactor = connection.shard().reactor().clone();
        let connection = connection.clone();
        let task = async move {
            let mut slices = Outgoing::new();
            let shard = connection.shard();
            let read = shard.read_to_send(handle, from, bytes_max, &mut cursor, &mut slices).await;
            let mut state = connection.state.borrow_mut();
            if let Some(reader) = state.readers.get_mut(&handle) {
                reader.cursor = cursor;
                reader.used = true;
            }
            if let Some(fetch) = state.fetch.as_mut().filter(|fetch| fetch.key == key) {
                fetch.course = Course::Running;
                let part = &mut fetch.parts[fetch.at];
                match read {
                    // It is in memory now, or the end: the next look says so.
                    Ok(Read::OnDisk | Read::End { .. }) => {}
                    Ok(read) => {
                        part.slices.append(&mut slices);
                        part.take(&read);
                        part.tell_extent(&connection, handle);
                        fetch.at += 1;
                    }
                    Err(error) => fetch.fail(errors::of_read(&error)),
                }
            }
            drop(state);
            connection.session.wake();
        };
        reactor.spawn(task).detach();
    }

    fn ask(
        &mut self,
        connection: &Connection,
        fetch: &mut Fetch,
        owner: ShardId,
        partition: PartitionId,
        max_bytes: usize,
    ) {
        let remote = Remote::Fetch { partition, from: fetch.parts[fetch.at].offset, max_bytes };
        if connection.shard().forward(owner, remote, &connection.session, fetch.key.ticket()).is_err() {
            return fetch.fail(ErrorCode::OffsetNotAvailable);
        }
        let until = connection.now().plus(CROSSING_TIME);
        fetch.course = Course::Asking(until);
        self.flow.due_by(until);
    }

    /// Another shard answered.
    pub(super) fn take_remote_fetch(&mut self, connection: &Connection, key: Key, reply: Reply) {
        let has_room = self.flow.has_room(&connection.shared);
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.key == key) else { return };
        if !matches!(fetch.course, Course::Asking(_)) {
            return;
        }
        fetch.course = Course::Running;
        let part = &mut fetch.parts[fetch.at];
        match reply {
            Reply::Fetched { bytes, next, first, high_watermark } if has_room => {
                let buffer = connection.shard().reactor().pool().buffer(bytes.len());
                let Some(mut buffer) = buffer else { return fetch.fail(ErrorCode::OffsetNotAvailable) };
                buffer.copy_from_slice(&bytes);
                part.slices.push(buffer.freeze());
                (part.first, part.high_watermark, part.next) = (first.0, high_watermark.0, next);
                fetch.at += 1;
            }
            Reply::End { first, high_watermark } => {
                (part.first, part.high_watermark) = (first.0, high_watermark.0);
                fetch.at += 1;
            }
            Reply::ReadRefused(error) => fetch.fail(errors::of_read(&error)),
            _ => fetch.fail(ErrorCode::OffsetNotAvailable),
        }
    }

    /// Too little was found: waits for more. What was found is read again then.
    fn watch_parts(&mut self, connection: &Connection, fetch: &mut Fetch) {
        fetch.course = Course::Watching;
        self.flow.due_by(fetch.deadline);
        let key = fetch.key;
        for part in &mut fetch.parts {
            part.slices.clear();
            let Ok(place) = part.place else { continue };
            // A partition of which there was something already is read again with the others.
            part.watch = place.watch(connection, part.next, key);
            if part.watch.is_none() {
                // It is gone; the next look says so.
                fetch.course = Course::Running;
            }
        }
        if fetch.course == Course::Running {
            fetch.restart(connection);
            self.flow.due_by(connection.now());
        }
    }

    /// One of its partitions has more. A watch of an earlier fetch may say so: its ticket is out of date.
    pub(super) fn wake_fetch(&mut self, connection: &Connection, key: Key) {
        let woken = self.fetch.as_mut().filter(|fetch| fetch.key == key && fetch.course == Course::Watching);
        if let Some(fetch) = woken {
            fetch.restart(connection);
        }
    }

    /// Its time may be over, or that of another shard.
    pub(super) fn look_at_fetch(&mut self, connection: &Connection, now: Instant) {
        let Some(fetch) = &mut self.fetch else { return };
        match fetch.course {
            Course::Watching if now >= fetch.deadline => fetch.restart(connection),
            Course::Watching => self.flow.due_by(fetch.deadline),
            Course::Paused(until) if now >= until => fetch.course = Course::Running,
            Course::Asking(until) if now >= until => {
                // The answer that comes later finds nobody.
                self.waiting.remove(fetch.key);
                fetch.key = self.waiting.insert(Waiting::Fetch);
                fetch.fail(ErrorCode::OffsetNotAvailable);
                fetch.course = Course::Running;
            }
            Course::Paused(until) | Course::Asking(until) => self.flow.due_by(until),
            Course::Running | Course::Reading => {}
        }
    }

    /// No more is waited for.
    pub(super) fn end_fetch_wait(&mut self, connection: &Connection) {
        if let Some(fetch) = &mut self.fetch {
            fetch.deadline = fetch.deadline.min(connection.now());
        }
        self.flow.due_by(connection.now());
    }

    pub(super) fn forget_fetch(&mut self, connection: &Connection) {
        if let Some(mut fetch) = self.fetch.take() {
            fetch.unwatch(connection);
            fetch.count_waits(connection, false);
        }
    }

    fn answer_fetch(&mut self, connection: &Connection, mut fetch: Fetch) {
        fetch.unwatch(connection);
        fetch.count_waits(connection, false);
        self.waiting.remove(fetch.key);
        self.flow.requests -= 1;
        connection.room.notify();
        if fetch.reply(&mut self.flow.outbox).is_err() {
            self.flow.give_up();
        }
        // A topic that was deleted and made again is another: the next request looks it up anew.
        fetch.unknown_topics().for_each(|topic| self.topics.forget(topic));
        fetch.clear();
        self.spare_fetch = Some(fetch);
    }

    /// Gives back the memory of readers that no fetch used since the last call.
    pub(super) fn release_idle_cursors(&mut self) {
        self.readers.retain(|_, reader| std::mem::take(&mut reader.used));
    }
}

impl Fetch {
    fn new(key: Key) -> Fetch {
        Fetch {
            key,
            version: 0,
            correlation: 0,
            error: ErrorCode::None,
            bytes_min: 0,
            bytes_max: 0,
            deadline: Instant::default(),
            names: String::new(),
            topics: Vec::new(),
            parts: Vec::new(),
            at: 0,
            is_over: false,
            course: Course::Running,
        }
    }

    fn begin(&mut self, connection: &Connection, key: Key, request: &Request<'_>, wanted: &fetch::Fetch<'_>) {
        let wait = Duration::from_millis(u64::try_from(wanted.wait_ms).unwrap_or(0));
        let bytes = |number: i32| usize::try_from(number).unwrap_or(0);
        (self.key, self.version, self.correlation) = (key, request.version, request.correlation);
        self.error = ErrorCode::None;
        self.bytes_max = bytes(wanted.bytes_max).clamp(1, connection.shared.limits.fetch_bytes_max);
        self.bytes_min = bytes(wanted.bytes_min).min(self.bytes_max);
        self.deadline = connection.now().plus(wait.min(connection.shared.limits.fetch_wait_max));
        (self.at, self.is_over, self.course) = (0, false, Course::Running);
    }

    fn add(&mut self, part: &fetch::Part<'_>, place: Result<Place, ErrorCode>) {
        if let Some(parts) = part.first_of {
            let id = match part.topic {
                Topic::Name(name) => {
                    self.names.push_str(name);
                    Uuid::nil()
                }
                Topic::Id(id) => id,
            };
            self.topics.push(Named { name_end: self.names.len(), id, parts });
        }
        let offset = Offset(part.offset);
        self.parts.push(Part {
            place,
            partition: part.partition,
            offset,
            bytes_max: usize::try_from(part.bytes_max).unwrap_or(0),
            error: ErrorCode::None,
            high_watermark: -1,
            first: -1,
            next: offset,
            slices: Outgoing::new(),
            watch: None,
        });
    }

    /// Each part counts as a request that waits: it takes about as much memory.
    fn count_waits(&self, connection: &Connection, begins: bool) {
        let waits = &connection.shared.waits;
        waits.set(if begins { waits.get() + self.parts.len() } else { waits.get() - self.parts.len() });
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.slices.len()).sum()
    }

    /// The part that is next cannot be read.
    fn fail(&mut self, error: ErrorCode) {
        self.parts[self.at].error = error;
        self.is_over = true;
        self.at += 1;
    }

    /// Names of those with a partition that is gone.
    fn unknown_topics(&self) -> impl Iterator<Item = &str> {
        let (mut name_begin, mut parts) = (0, self.parts.iter());
        self.topics.iter().filter_map(move |topic| {
            let name = &self.names[name_begin..topic.name_end];
            name_begin = topic.name_end;
            let unknown = |part: &Part| part.error == ErrorCode::UnknownTopicOrPartition;
            let unknown = parts.by_ref().take(topic.parts).filter(|part| unknown(part)).count();
            (unknown > 0).then_some(name)
        })
    }

    /// All of it is to be read again.
    fn restart(&mut self, connection: &Connection) {
        self.unwatch(connection);
        for part in &mut self.parts {
            part.slices.clear();
            (part.error, part.next) = (ErrorCode::None, part.offset);
        }
        (self.at, self.is_over, self.course) = (0, false, Course::Running);
    }

    fn unwatch(&mut self, connection: &Connection) {
        let key = self.key;
        for watch in self.parts.iter_mut().filter_map(|part| part.watch.take()) {
            watch.end(connection, key);
        }
    }

    fn reply(&mut self, outbox: &mut Outbox) -> Result<(), NoMemory> {
        let mut size = Size::default();
        self.put(&mut size, |size, slices| size.0 += slices.len());
        let mut out = Pieces { outbox, outcome: Ok(()) };
        header::put_response(Api::Fetch, self.version, self.correlation, size.0, &mut out);
        self.put(&mut out, |out, slices| out.outbox.pass_on(slices));
        out.outcome
    }

    fn put<S: Sink>(&mut self, out: &mut S, put_records: impl Fn(&mut S, &mut Outgoing)) {
        let version = self.version;
        fetch::put_begin(version, self.error, self.topics.len(), out);
        let (mut name_begin, mut parts) = (0, self.parts.iter_mut());
        for topic in &self.topics {
            let name = &self.names[name_begin..topic.name_end];
            name_begin = topic.name_end;
            fetch::put_topic(
                version,
                if version >= 13 { Topic::Id(topic.id) } else { Topic::Name(name) },
                topic.parts,
                out,
            );
            for part in parts.by_ref().take(topic.parts) {
                fetch::put_partition(version, &part.found(), out);
                put_records(out, &mut part.slices);
                fetch::put_partition_end(version, out);
            }
            fetch::put_topic_end(version, out);
        }
        fetch::put_end(version, out);
    }

    fn clear(&mut self) {
        self.names.clear();
        self.topics.clear();
        self.parts.clear();
    }
}

impl Part {
    fn take(&mut self, read: &Read) {
        if let Read::Data { next, .. } = read {
            self.next = *next;
        }
    }

    fn tell_extent(&mut self, connection: &Connection, handle: PartitionHandle) {
        if let Some(status) = connection.shard().describe(handle) {
            (self.first, self.high_watermark) = (status.first.0, status.high_watermark.0);
        }
    }

    fn found(&self) -> Found {
        Found {
            partition: self.partition,
            error: self.error,
            high_watermark: self.high_watermark,
            first_offset: self.first,
            records_bytes: self.slices.len(),
        }
    }
}

/// An outbox as where fields are put, between records that are passed on.
struct Pieces<'a> {
    outbox: &'a mut Outbox,
    outcome: Result<(), NoMemory>,
}

impl Sink for Pieces<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if self.outcome.is_ok() {
            self.outcome = self.outbox.put(bytes.len(), |out| out.append(bytes));
        }
    }
}
