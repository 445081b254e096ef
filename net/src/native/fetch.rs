//! Fetch: what is in memory is answered at once; a fetch at the end of the log waits as an entry in the connection's slots,
//! not as a task; what is on disk is read by one of a few tasks.

use super::dialect::Connection;
use super::refusal::Refusal;
use super::state::{State, Waiting, Work};
use crate::transport::{Key, Place, Watch};
use corelog_engine::model::{Offset, PartitionId, ShardId};
use corelog_engine::reactor::{Instant, Outgoing};
use corelog_engine::shard::{Cursor, PartitionHandle, Read, Remote, Reply};
use corelog_wire::{Header, Records, Status};
use std::rc::Rc;
use std::time::Duration;

/// How long another shard may take to answer.
const CROSSING_TIME: Duration = Duration::from_secs(30);

/// A fetch that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch {
    header: Header,
    place: Place,
    /// Whose cursor it uses; may be closed meanwhile.
    opened: Key,
    offset: Offset,
    bytes_max: usize,
    bytes_min: usize,
    /// The wait ends here.
    pub(super) deadline: Instant,
    course: Course,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Will be looked at by the sending task.
    Queued,
    /// Until the engine says that there is more.
    Watching(Watch),
    /// Until a task has read.
    Reading,
    /// Until another shard has answered, or this time.
    Asking(Instant),
}

/// What came of looking for records.
enum Attempt {
    Answered,
    /// There is not enough before this offset.
    Wait(Offset),
    /// It must be read from the disk: at most so many bytes.
    OnDisk(usize),
}

impl Fetch {
    /// Takes the watch back, if there is one.
    pub(super) fn unwatch(&mut self, connection: &Connection, key: Key) {
        if let Course::Watching(watch) = self.course {
            watch.end(connection, key);
            self.course = Course::Queued;
        }
    }

    /// When it is to be looked at, should nothing come before.
    fn due(&self) -> Instant {
        if let Course::Asking(until) = self.course { until } else { self.deadline }
    }
}

impl State {
    pub(super) fn fetch(
        &mut self,
        connection: &Connection,
        header: Header,
        request: corelog_wire::Fetch,
    ) -> Result<(), Refusal> {
        self.check_waits(connection.shared.limits.shard_reader_waits_max)?;
        let limits = &connection.shared.limits;
        let opened = self.opened.key(header.handle).ok_or_else(Refusal::unknown_handle)?;
        let place = self.opened.get_mut(opened).ok_or_else(Refusal::unknown_handle)?.place;
        let wait = Duration::from_millis(request.wait_ms.into()).min(limits.fetch_wait_max);
        let bytes_max = (request.bytes_max as usize).clamp(1, limits.fetch_bytes_max);
        let fetch = Fetch {
            header,
            place,
            opened,
            offset: Offset(request.offset),
            bytes_max,
            bytes_min: (request.bytes_min as usize).min(bytes_max),
            deadline: connection.now().plus(wait),
            course: Course::Queued,
        };
        match place {
            Place::Here(handle) => match self.attempt_fetch(connection, &fetch, handle, wait.is_zero())? {
                Attempt::Answered => {}
                Attempt::OnDisk(_) => {
                    let key = self.begin(Waiting::Fetch(fetch));
                    self.runnable.push_back(Work::Fetch(key));
                }
                Attempt::Wait(from) => {
                    let key = self.begin(Waiting::Fetch(fetch));
                    self.watch_fetch(connection, key, from);
                }
            },
            Place::There(owner, partition) => {
                let key = self.begin(Waiting::Fetch(fetch));
                self.ask_for_fetch(connection, key, owner, partition);
            }
        }
        Ok(())
    }

    /// Answers from memory, if it can be.
    fn attempt_fetch(
        &mut self,
        connection: &Connection,
        fetch: &Fetch,
        handle: PartitionHandle,
        over: bool,
    ) -> Result<Attempt, Refusal> {
        let bytes_max = self.flow.allowance(&connection.shared, fetch.bytes_max).ok_or_else(full)?;
        let mut closed = Cursor::default();
        let cursor = match self.opened.get_mut(fetch.opened) {
            Some(opened) => {
                opened.used = true;
                &mut opened.cursor
            }
            None => &mut closed,
        };
        self.scratch.clear();
        // Nothing more will come to a partition that is fenced, and its watch ends at once: who waited would turn for ever.
        let over = over || connection.shard().is_fenced(handle);
        let (next, high_watermark) =
            match connection.shard().read(handle, fetch.offset, bytes_max, cursor, &mut self.scratch)? {
                Read::Data { bytes, next, high_watermark }
                    if bytes < fetch.bytes_min && next >= high_watermark && !over =>
                {
                    self.scratch.clear();
                    return Ok(Attempt::Wait(next));
                }
                Read::Data { next, high_watermark, .. } => (next, high_watermark),
                Read::End { .. } if !over => return Ok(Attempt::Wait(fetch.offset)),
                Read::End { high_watermark } => (fetch.offset, high_watermark),
                Read::OnDisk => return Ok(Attempt::OnDisk(bytes_max)),
            };
        let records = records(connection, handle, next, high_watermark);
        let mut slices = std::mem::take(&mut self.scratch);
        self.reply_with_slices(fetch.header.response(), &records, &mut slices);
        self.scratch = slices;
        Ok(Attempt::Answered)
    }

    /// Has the owner read.
    fn ask_for_fetch(&mut self, connection: &Connection, key: Key, owner: ShardId, partition: PartitionId) {
        let allowance = self.flow.allowance(&connection.shared, usize::MAX);
        let Some(allowance) = allowance else { return self.refuse_fetch(connection, key, &full()) };
        let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) else { return };
        let until = connection.now().plus(CROSSING_TIME);
        fetch.course = Course::Asking(until);
        let remote = Remote::Fetch { partition, from: fetch.offset, max_bytes: fetch.bytes_max.min(allowance) };
        self.flow.due_by(until);
        if connection.shard().forward(owner, remote, &connection.session, key.ticket()).is_err() {
            let refusal = Refusal::busy("too many requests are on their way to other shards");
            self.refuse_fetch(connection, key, &refusal);
        }
    }

    fn watch_fetch(&mut self, connection: &Connection, key: Key, from: Offset) {
        let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) else { return };
        let deadline = fetch.deadline;
        match fetch.place.watch(connection, from, key) {
            Some(watch) => fetch.course = Course::Watching(watch),
            // The partition is gone; the next look says so.
            None => self.requeue_fetch(key),
        }
        self.flow.due_by(deadline);
    }

    /// The engine has more for it.
    pub(super) fn queue_fetch(&mut self, key: Key) {
        if let Some(Waiting::Fetch(Fetch { course: Course::Watching(_), .. })) = self.waiting.get_mut(key) {
            self.requeue_fetch(key);
        }
    }

    pub(super) fn run_fetch(&mut self, connection: &Rc<Connection>, key: Key) {
        let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) else { return };
        let fetch = *fetch;
        if fetch.course != Course::Queued {
            return;
        }
        let handle = match fetch.place {
            Place::Here(handle) => handle,
            Place::There(owner, partition) => return self.ask_for_fetch(connection, key, owner, partition),
        };
        let over = connection.now() >= fetch.deadline;
        match self.attempt_fetch(connection, &fetch, handle, over) {
            Ok(Attempt::Wait(from)) => self.watch_fetch(connection, key, from),
            Ok(Attempt::OnDisk(_)) if self.disk_reads >= connection.shared.limits.disk_reads_max => {
                self.stalled.push_back(Work::Fetch(key));
            }
            Ok(Attempt::OnDisk(bytes_max)) => self.spawn_fetch(connection, key, fetch, bytes_max),
            Ok(Attempt::Answered) => drop(self.end(connection, key)),
            Err(refusal) => self.refuse_fetch(connection, key, &refusal),
        }
    }

    fn refuse_fetch(&mut self, connection: &Connection, key: Key, refusal: &Refusal) {
        if let Some(Waiting::Fetch(fetch)) = self.end(connection, key) {
            self.fail(fetch.header.response(), refusal);
        }
    }

    fn spawn_fetch(&mut self, connection: &Rc<Connection>, key: Key, fetch: Fetch, bytes_max: usize) {
        let Place::Here(handle) = fetch.place else { return };
        if let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) {
            fetch.course = Course::Reading;
        }
        let mut cursor = match self.opened.get_mut(fetch.opened) {
            Some(opened) => std::mem::take(&mut opened.cursor),
            None => Cursor::default(),
        };
        self.disk_reads += 1;
        let reactor = connection.shard().reactor().clone();
        let connection = connection.clone();
        let task = async move {
            let mut slices = Outgoing::new();
            let shard = connection.shard();
            let read = shard.read_to_send(handle, fetch.offset, bytes_max, &mut cursor, &mut slices).await;
            let mut state = connection.state.borrow_mut();
            state.end_disk_read();
            state.keep_cursor(fetch.opened, cursor);
            match read {
                Ok(Read::Data { next, high_watermark, .. }) => {
                    if state.end(&connection, key).is_some() {
                        let records = records(&connection, handle, next, high_watermark);
                        state.reply_with_slices(fetch.header.response(), &records, &mut slices);
                    }
                }
                Ok(Read::End { .. } | Read::OnDisk) => state.requeue_fetch(key),
                Err(error) => state.refuse_fetch(&connection, key, &error.into()),
            }
            drop(state);
            connection.session.wake();
        };
        reactor.spawn(task).detach();
    }

    /// It is to be looked at again.
    fn requeue_fetch(&mut self, key: Key) {
        if let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) {
            fetch.course = Course::Queued;
            self.runnable.push_back(Work::Fetch(key));
        }
    }

    fn keep_cursor(&mut self, key: Key, cursor: Cursor) {
        if let Some(opened) = self.opened.get_mut(key) {
            opened.cursor = cursor;
            opened.used = true;
            if !self.warm.contains(&key) {
                self.warm.push(key);
            }
        }
    }

    /// Another shard answered. What it read is little or nothing: then the fetch waits as one at home would.
    pub(super) fn take_remote_fetch(&mut self, connection: &Connection, key: Key, reply: Reply) {
        let Some(Waiting::Fetch(fetch)) = self.waiting.get_mut(key) else { return };
        let (header, over) = (fetch.header.response(), connection.now() >= fetch.deadline);
        let (offset, bytes_min) = (fetch.offset, fetch.bytes_min);
        match &reply {
            Reply::Fetched { bytes, next, high_watermark, .. }
                if bytes.len() < bytes_min && next >= high_watermark && !over =>
            {
                return self.watch_fetch(connection, key, *next);
            }
            Reply::End { .. } if !over => return self.watch_fetch(connection, key, offset),
            _ => {}
        }
        self.end(connection, key);
        match reply {
            Reply::Fetched { .. } if !self.flow.has_room(&connection.shared) => self.fail(header, &full()),
            Reply::Fetched { bytes, next, first, high_watermark } => {
                let records = Records { high_watermark: high_watermark.0, first: first.0, next: next.0 };
                self.reply_with_copy(header, &records, &bytes);
            }
            Reply::End { first, high_watermark } => {
                let records = Records { high_watermark: high_watermark.0, first: first.0, next: offset.0 };
                self.reply(header, &records);
            }
            Reply::ReadRefused(error) => self.fail(header, &error.into()),
            _ => self.fail(header, &Refusal::busy("the owning shard is at one of its bounds")),
        }
    }

    /// Queues fetches whose wait is over, and gives up those that another shard does not answer.
    pub(super) fn end_fetch_waits(&mut self, connection: &Connection) {
        let now = connection.now();
        let State { waiting, runnable, flow, .. } = self;
        let mut late = Vec::new();
        for (key, waiting) in waiting.iter_mut() {
            let Waiting::Fetch(fetch) = waiting else { continue };
            match fetch.course {
                _ if fetch.due() > now => flow.due_by(fetch.due()),
                Course::Watching(_) => {
                    fetch.unwatch(connection, key);
                    runnable.push_back(Work::Fetch(key));
                }
                Course::Asking(_) => late.push(key),
                Course::Queued | Course::Reading => {}
            }
        }
        for key in late {
            self.refuse_fetch(connection, key, &Refusal::new(Status::TimedOut, "another shard did not answer in time"));
        }
    }
}

fn full() -> Refusal {
    Refusal::busy("the shard has as many responses under way as it may")
}

/// The fixed part of a response with records.
pub(super) fn records(
    connection: &Connection,
    handle: PartitionHandle,
    next: Offset,
    high_watermark: Offset,
) -> Records {
    let first = connection.shard().first_offset(handle).unwrap_or(next);
    Records { high_watermark: high_watermark.0, first: first.0, next: next.0 }
}
