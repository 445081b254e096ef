//! Subscriptions: what comes into a partition is pushed as long as the client gives credit. Like fetches they are entries in
//! slots; at the end of the log the engine wakes them, behind it a few tasks read the disk for them.

use super::dialect::Connection;
use super::fetch::records;
use super::refusal::Refusal;
use super::state::{State, Waiting, Work};
use crate::transport::{Key, Place, Watch};
use corelog_engine::error::ReadError;
use corelog_engine::model::Offset;
use corelog_engine::reactor::{Instant, Outgoing};
use corelog_engine::shard::{Cursor, PartitionHandle, Read, Remote, Reply};
use corelog_wire::{Credit, Detail, Header, Operation, Records, Status, Subscribe, Subscribed};
use std::rc::Rc;
use std::time::Duration;

/// A pause after a bound of the shard was met.
const PAUSE: Duration = Duration::from_millis(20);

/// A partition that is pushed to the client.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Of every push.
    header: Header,
    place: Place,
    /// In whose name the engine wakes it.
    ticket: Key,
    /// Where the next push begins.
    next: Offset,
    /// Bytes that may be pushed; below 0 after a push that took more than was left.
    credit: i64,
    bytes_max: usize,
    cursor: Cursor,
    course: Course,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// In the queue of those with something to read.
    Queued,
    /// At the end of the log.
    Watching(Watch),
    /// A task, or another shard, reads for it.
    Reading,
    /// Until the client gives credit.
    OutOfCredit,
    /// Until then; a bound was met.
    Paused(Instant),
}

impl State {
    pub(super) fn subscribe(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        request: Subscribe,
    ) -> Result<(), Refusal> {
        self.check_waits(connection.shared.limits.shard_reader_waits_max)?;
        let max = connection.shared.limits.subscriptions_max;
        if self.subscriptions.len() >= max {
            let status = Status::TooManySubscriptions;
            return Err(Refusal::limit(status, "as many subscriptions as may be", self.subscriptions.len() + 1, max));
        }
        let opened = self.opened.key(header.handle).and_then(|key| self.opened.get_mut(key));
        let place = opened.ok_or_else(Refusal::unknown_handle)?.place;
        let shard = connection.shard().clone();
        match place {
            Place::Here(handle) => {
                let status = shard.describe(handle).ok_or_else(Refusal::unknown_handle)?;
                self.begin_subscription(connection, header, place, request, (status.first, status.high_watermark))
            }
            Place::There(owner, partition) => {
                let describe = async move {
                    let status = super::partitions::describe_remote(&shard, owner, partition).await?;
                    Ok(move |state: &mut State, connection: &Rc<Connection>| {
                        let range = (status.first, status.high_watermark);
                        state.begin_subscription(connection, header, place, request, range)
                    })
                };
                self.errand(connection, header, describe);
                Ok(())
            }
        }
    }

    fn begin_subscription(
        &mut self,
        connection: &Connection,
        header: Header,
        place: Place,
        request: Subscribe,
        (first, high_watermark): (Offset, Offset),
    ) -> Result<(), Refusal> {
        let next = Offset(request.offset);
        if next < first || next > high_watermark {
            return Err(ReadError::OutOfRange { first, next: high_watermark }.into());
        }
        let key = self.subscriptions.insert(Subscription {
            header: Header { operation: Operation::Push as u8, ..header.response() },
            place,
            ticket: Key::of_ticket(0),
            next,
            credit: request.credit.into(),
            bytes_max: (request.bytes_max as usize).clamp(1, connection.shared.limits.fetch_bytes_max),
            cursor: Cursor::default(),
            course: Course::Queued,
        });
        let ticket = self.waiting.insert(Waiting::Subscription(key));
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.header.handle = key.wire();
            subscription.ticket = ticket;
        }
        let subscribed = Subscribed { first: first.0, high_watermark: high_watermark.0 };
        self.reply(header.response().with_handle(key.wire()), &subscribed);
        self.runnable.push_back(Work::Push(key));
        Ok(())
    }

    pub(super) fn credit(&mut self, header: Header, credit: Credit) -> Result<(), Refusal> {
        let key = self.subscription(header)?;
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.credit = subscription.credit.saturating_add(credit.bytes.into());
            if subscription.course == Course::OutOfCredit {
                self.queue_subscription(key);
            }
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, connection: &Connection, header: Header) -> Result<(), Refusal> {
        let key = self.subscription(header)?;
        self.remove_subscription(connection, key);
        self.reply(header.response(), &());
        Ok(())
    }

    fn subscription(&self, header: Header) -> Result<Key, Refusal> {
        let unknown = || Refusal::new(Status::UnknownSubscription, "the subscription does not exist, or has ended");
        self.subscriptions.key(header.handle).ok_or_else(unknown)
    }

    fn remove_subscription(&mut self, connection: &Connection, key: Key) -> Option<Subscription> {
        let subscription = self.subscriptions.remove(key)?;
        self.waiting.remove(subscription.ticket);
        if let Course::Watching(watch) = subscription.course {
            watch.end(connection, subscription.ticket);
        }
        Some(subscription)
    }

    /// Gives back what was read for the client, who does not take what he has: it is read again when he does.
    pub(super) fn release_subscriptions(&mut self) {
        self.subscriptions.iter_mut().for_each(|(_, subscription)| subscription.cursor.release());
    }

    /// Ends all of them without a word.
    pub(super) fn end_subscriptions(&mut self, connection: &Connection) {
        let next = |state: &mut State| state.subscriptions.iter_mut().map(|(key, _)| key).next();
        while let Some(key) = next(self) {
            self.remove_subscription(connection, key);
        }
    }

    /// Ends one, and says why.
    fn fail_subscription(&mut self, connection: &Connection, key: Key, refusal: &Refusal) {
        if let Some(subscription) = self.remove_subscription(connection, key) {
            self.fail(subscription.header, refusal);
        }
    }

    fn queue_subscription(&mut self, key: Key) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.course = Course::Queued;
            self.runnable.push_back(Work::Push(key));
        }
    }

    /// The engine has more for it.
    pub(super) fn wake_subscription(&mut self, key: Key) {
        if let Some(Subscription { course: Course::Watching(_), .. }) = self.subscriptions.get_mut(key) {
            self.queue_subscription(key);
        }
    }

    fn pause_subscription(&mut self, connection: &Connection, key: Key) {
        let until = connection.now().plus(PAUSE);
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.course = Course::Paused(until);
            self.flow.due_by(until);
        }
    }

    pub(super) fn end_subscription_pauses(&mut self, now: Instant) {
        let State { subscriptions, runnable, flow, .. } = self;
        for (key, subscription) in subscriptions.iter_mut() {
            let Course::Paused(until) = subscription.course else { continue };
            if until > now {
                flow.due_by(until);
            } else {
                subscription.course = Course::Queued;
                runnable.push_back(Work::Push(key));
            }
        }
    }

    /// Pushes once, if there is something to push.
    pub(super) fn run_subscription(&mut self, connection: &Rc<Connection>, key: Key) {
        let allowance = self.flow.allowance(&connection.shared, usize::MAX);
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        if subscription.course != Course::Queued {
            return;
        }
        if subscription.credit <= 0 {
            subscription.course = Course::OutOfCredit;
            return subscription.cursor.release();
        }
        let Some(allowance) = allowance else { return self.pause_subscription(connection, key) };
        let bytes_max = subscription.push_bytes_max().min(allowance);
        match subscription.place {
            Place::Here(handle) => self.push_from_memory(connection, key, handle, bytes_max),
            Place::There(..) => self.ask_for_push(connection, key, bytes_max),
        }
    }

    fn push_from_memory(&mut self, connection: &Rc<Connection>, key: Key, handle: PartitionHandle, bytes_max: usize) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let next = subscription.next;
        self.scratch.clear();
        let read = connection.shard().read(handle, next, bytes_max, &mut subscription.cursor, &mut self.scratch);
        match read {
            Ok(Read::OnDisk) if self.disk_reads >= connection.shared.limits.disk_reads_max => {
                self.stalled.push_back(Work::Push(key));
            }
            Ok(Read::OnDisk) => self.spawn_push(connection, key, handle, bytes_max),
            read => {
                let mut slices = std::mem::take(&mut self.scratch);
                self.push(connection, key, handle, read, &mut slices);
                self.scratch = slices;
            }
        }
    }

    fn spawn_push(&mut self, connection: &Rc<Connection>, key: Key, handle: PartitionHandle, bytes_max: usize) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        subscription.course = Course::Reading;
        let next = subscription.next;
        let mut cursor = std::mem::take(&mut subscription.cursor);
        self.disk_reads += 1;
        let reactor = connection.shard().reactor().clone();
        let connection = connection.clone();
        let task = async move {
            let mut slices = Outgoing::new();
            let read = connection.shard().read_to_send(handle, next, bytes_max, &mut cursor, &mut slices).await;
            let mut state = connection.state.borrow_mut();
            state.end_disk_read();
            if let Some(subscription) = state.subscriptions.get_mut(key) {
                subscription.cursor = cursor;
                state.push(&connection, key, handle, read, &mut slices);
            }
            drop(state);
            connection.session.wake();
        };
        reactor.spawn(task).detach();
    }

    /// Queues what was read, and decides how the subscription goes on.
    fn push(
        &mut self,
        connection: &Connection,
        key: Key,
        handle: PartitionHandle,
        read: Result<Read, ReadError>,
        slices: &mut Outgoing,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        match read {
            Ok(Read::Data { bytes, next, high_watermark }) => {
                subscription.advance(next, bytes);
                let header = subscription.header;
                let records = records(connection, handle, next, high_watermark);
                self.reply_with_slices(header, &records, slices);
                if next < high_watermark {
                    self.queue_subscription(key);
                } else {
                    self.watch_subscription(connection, key);
                }
            }
            Ok(Read::End { .. }) => self.watch_subscription(connection, key),
            Ok(Read::OnDisk) => self.queue_subscription(key),
            Err(error) => self.take_read_error(connection, key, error),
        }
    }

    fn take_read_error(&mut self, connection: &Connection, key: Key, error: ReadError) {
        match error {
            ReadError::Busy | ReadError::Reopening => self.pause_subscription(connection, key),
            ReadError::UnknownPartition => {
                let refusal = Refusal::new(Status::UnknownPartition, "the partition is gone").with(Detail::None);
                self.fail_subscription(connection, key, &refusal);
            }
            error => self.fail_subscription(connection, key, &error.into()),
        }
    }

    fn watch_subscription(&mut self, connection: &Connection, key: Key) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        subscription.cursor.release();
        match subscription.place.watch(connection, subscription.next, subscription.ticket) {
            Some(watch) => subscription.course = Course::Watching(watch),
            // The partition is gone; the next look says so.
            None => self.queue_subscription(key),
        }
    }

    fn ask_for_push(&mut self, connection: &Connection, key: Key, max_bytes: usize) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let Place::There(owner, partition) = subscription.place else { return };
        let from = subscription.next;
        let remote = Remote::Fetch { partition, from, max_bytes };
        subscription.course = Course::Reading;
        let ticket = subscription.ticket.ticket();
        if connection.shard().forward(owner, remote, &connection.session, ticket).is_err() {
            self.pause_subscription(connection, key);
        }
    }

    pub(super) fn take_remote_push(&mut self, connection: &Connection, key: Key, reply: Reply) {
        let room = self.flow.has_room(&connection.shared);
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        match reply {
            // To be read again once there is room for it.
            Reply::Fetched { .. } if !room => self.pause_subscription(connection, key),
            Reply::Fetched { bytes, next, first, high_watermark } => {
                subscription.advance(next, bytes.len());
                let header = subscription.header;
                let records = Records { high_watermark: high_watermark.0, first: first.0, next: next.0 };
                self.reply_with_copy(header, &records, &bytes);
                if next < high_watermark {
                    self.queue_subscription(key);
                } else {
                    self.watch_subscription(connection, key);
                }
            }
            Reply::End { .. } => self.watch_subscription(connection, key),
            Reply::ReadRefused(error) => self.take_read_error(connection, key, error),
            _ => self.pause_subscription(connection, key),
        }
    }
}

impl Subscription {
    fn push_bytes_max(&self) -> usize {
        self.bytes_max.min(usize::try_from(self.credit).unwrap_or(0)).max(1)
    }

    fn advance(&mut self, next: Offset, bytes: usize) {
        assert!(next > self.next, "a push brings at least one record");
        self.next = next;
        self.credit -= bytes as i64;
    }
}
