//! What a consumer reads, without sockets and clock.

use crate::cluster::{Cluster, LinkId, Token};
use crate::error::{ClientError, Ended, Refusal};
use crate::fetched::Fetched;
use crate::machine::Machine;
use crate::options::{ConsumerOptions, Mode, OutOfRange, Start};
use crate::protocol::Event;
use crate::routes::Routes;
use corelog_batch::{BatchError, BatchView, Codec, batches};
use corelog_wire::{Batches, Credit, Fetch, ListOffsets, ListedOffset, Operation, Response, Retry, Status, Subscribe};
use std::collections::VecDeque;
use std::time::Instant;

/// Connections, routes, and a reader for every partition.
#[derive(Debug)]
pub(crate) struct ConsumerCore {
    cluster: Cluster,
    routes: Routes,
    options: ConsumerOptions,
    readers: Vec<Reader>,
    /// What came and was not handed over, in the order in which it came.
    arrived: VecDeque<Arrived>,
    /// Bytes in `arrived`, and bytes that may come without being asked for again.
    buffered: usize,
    /// Each with the number of arrivals before it: those are handed over first.
    troubles: VecDeque<(u64, ClientError)>,
    /// All that ever were put into `arrived`.
    arrivals: u64,
    turn: usize,
}

/// One partition. `handed <= next`: what is between them has arrived or is dropped by a seek.
#[derive(Debug)]
struct Reader {
    partition: u32,
    state: State,
    /// Offset behind the last record that arrived; None before it is known where to begin.
    next: Option<i64>,
    /// Offset behind the last record handed over.
    handed: Option<i64>,
    start: Start,
    /// Pull where the connection has as many subscriptions as it may.
    mode: Mode,
    high_watermark: Option<i64>,
    /// Answers of earlier generations are of no interest.
    generation: u32,
    not_before: Instant,
    /// Its bytes in `arrived`.
    buffered: usize,
    /// Bytes handed over or dropped since it subscribed, that its credit was not told of yet.
    owed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A request is on its way.
    Asked {
        link: LinkId,
    },
    /// Pushes come.
    Subscribed {
        link: LinkId,
        subscription: u32,
    },
    /// It ended with an error and waits for a seek.
    Halted,
}

#[derive(Debug)]
struct Arrived {
    reader: usize,
    generation: u32,
    next: i64,
    high_watermark: i64,
    bytes: Vec<u8>,
    /// Bytes of it that were handed over.
    done: usize,
}

impl ConsumerCore {
    pub(crate) fn new(cluster: Cluster, routes: Routes, options: ConsumerOptions) -> ConsumerCore {
        let (arrived, troubles) = (VecDeque::new(), VecDeque::new());
        ConsumerCore {
            cluster,
            routes,
            options,
            readers: Vec::new(),
            arrived,
            buffered: 0,
            troubles,
            arrivals: 0,
            turn: 0,
        }
    }

    /// Whether the topic's partitions are known, or why they never will be.
    pub(crate) fn is_ready(&self) -> Result<bool, ClientError> {
        let Some(count) = self.routes.partitions() else {
            return self.routes.trouble().map_or(Ok(false), |trouble| Err(trouble.clone().into()));
        };
        let beyond = self.options.partitions.iter().flatten().find(|&&partition| partition >= count);
        match beyond {
            Some(partition) => {
                Err(ClientError::Invalid(format!("partition {partition} does not exist: the topic has {count}")))
            }
            None => Ok(true),
        }
    }

    pub(crate) fn waiting_for(&self) -> String {
        let why = self.routes.waiting_for();
        if why.is_empty() { self.cluster.trouble() } else { why.to_owned() }
    }

    /// The next records, if some have arrived.
    pub(crate) fn take(&mut self) -> Result<Option<Fetched>, ClientError> {
        loop {
            let handed = self.arrivals - self.arrived.len() as u64;
            if let Some((_, trouble)) = self.troubles.pop_front_if(|(before, _)| *before <= handed) {
                return Err(trouble);
            }
            let Some(arrived) = self.arrived.pop_front() else { return Ok(None) };
            let (reader, bytes) = (arrived.reader, arrived.bytes.len() - arrived.done);
            if self.readers[reader].generation != arrived.generation {
                self.freed(reader, bytes);
                continue;
            }
            let fetched = self.hand_over(arrived)?;
            if fetched.is_some() {
                return Ok(fetched);
            }
        }
    }

    fn note_trouble(&mut self, trouble: ClientError) {
        self.troubles.push_back((self.arrivals, trouble));
    }

    pub(crate) fn partitions(&self) -> Vec<u32> {
        self.readers.iter().map(|reader| reader.partition).collect()
    }

    pub(crate) fn position(&self, partition: u32) -> Option<i64> {
        self.reader(partition)?.handed
    }

    pub(crate) fn high_watermark(&self, partition: u32) -> Option<i64> {
        self.reader(partition)?.high_watermark
    }

    pub(crate) fn halted(&self) -> Vec<u32> {
        let halted = self.readers.iter().filter(|reader| reader.state == State::Halted);
        halted.map(|reader| reader.partition).collect()
    }

    pub(crate) fn at_end(&self) -> bool {
        let at_end =
            |reader: &Reader| matches!((reader.handed, reader.high_watermark), (Some(at), Some(end)) if at >= end);
        self.readers.iter().all(at_end)
    }

    pub(crate) fn seek(&mut self, partition: u32, offset: i64, now: Instant) -> Result<(), ClientError> {
        let Some(index) = self.index(partition) else {
            return Err(ClientError::Invalid(format!("partition {partition} is not read by this consumer")));
        };
        if offset < 0 {
            return Err(ClientError::Invalid(format!("{offset} is no offset")));
        }
        self.restart(index, Start::Offset(offset), now);
        Ok(())
    }

    fn reader(&self, partition: u32) -> Option<&Reader> {
        self.index(partition).map(|index| &self.readers[index])
    }

    /// Takes the first batches off what arrived: all that are not compressed, or one that is.
    fn hand_over(&mut self, mut arrived: Arrived) -> Result<Option<Fetched>, ClientError> {
        let index = arrived.reader;
        let (run, checked) = self.first_run(&arrived.bytes[arrived.done..]);
        if run == 0 {
            let left = arrived.bytes.len() - arrived.done;
            self.freed(index, left);
            return match checked {
                Err(error) => Err(self.halt(index, error)),
                Ok(_) => {
                    self.readers[index].handed = Some(arrived.next);
                    Ok(None)
                }
            };
        }
        let Some(from) = self.readers[index].handed else { return Ok(None) };
        let all = arrived.done == 0 && run == arrived.bytes.len();
        let is_last = arrived.done + run == arrived.bytes.len();
        let part = &arrived.bytes[arrived.done..arrived.done + run];
        let next = if is_last { arrived.next } else { last_next(part).unwrap_or(from) };
        let plain = match checked {
            Ok(Codec::None) if all => Ok(std::mem::take(&mut arrived.bytes)),
            Ok(Codec::None) => Ok(part.to_vec()),
            _ => self.decompress(part),
        };
        self.freed(index, run);
        let bytes = match plain {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.halt(index, error)),
        };
        let (partition, high_watermark) = (self.readers[index].partition, arrived.high_watermark);
        self.readers[index].handed = Some(next.max(from));
        if !is_last {
            arrived.done += run;
            self.arrived.push_front(arrived);
        }
        Ok(Some(Fetched { partition, from, next: next.max(from), high_watermark, bytes }))
    }

    /// Length and kind of the first batches that can be handed over together: as many as are not compressed, or one that
    /// is. A length of 0 with an error where the first is bad; those behind good ones have their turn later.
    fn first_run(&self, bytes: &[u8]) -> (usize, Result<Codec, BatchError>) {
        let mut run = 0;
        for batch in batches(bytes) {
            match batch.and_then(|batch| Ok((batch, self.check(&batch)?))) {
                Ok((batch, Codec::None)) => run += batch.bytes().len(),
                Ok((batch, codec)) if run == 0 => return (batch.bytes().len(), Ok(codec)),
                Err(error) if run == 0 => return (0, Err(error)),
                _ => break,
            }
        }
        (run, Ok(Codec::None))
    }

    fn check(&self, batch: &BatchView<'_>) -> Result<Codec, BatchError> {
        if self.options.check_crc {
            let (declared, computed) = (batch.crc(), batch.computed_crc());
            if declared != computed {
                return Err(BatchError::CrcMismatch { declared, computed });
            }
        }
        batch.codec()
    }

    fn decompress(&self, batch: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut plain = Vec::new();
        BatchView::first(batch)?.decompress_into(&mut plain, self.options.decompressed_bytes_max)?;
        Ok(plain)
    }

    /// The reader cannot go on: what it has is dropped, and it waits for a seek.
    fn halt(&mut self, index: usize, error: BatchError) -> ClientError {
        let reader = &mut self.readers[index];
        reader.state = State::Halted;
        reader.generation += 1;
        let offset = reader.handed.unwrap_or_default();
        ClientError::Corrupt { partition: reader.partition, offset, error }
    }

    /// Bytes that arrived have been handed over or dropped; a subscription gets credit for them.
    fn freed(&mut self, index: usize, bytes: usize) {
        self.buffered -= bytes;
        self.readers[index].buffered -= bytes;
        self.readers[index].owed += bytes;
        self.give_credit(index);
    }

    /// Tells a subscription's server what it may push again, once that is worth a request.
    fn give_credit(&mut self, index: usize) {
        let worth = self.credit() as usize / 2;
        let reader = &mut self.readers[index];
        let State::Subscribed { link, subscription } = reader.state else { return };
        if reader.owed == 0 || reader.owed < worth {
            return;
        }
        let body = Credit { bytes: u32::try_from(reader.owed).unwrap_or(u32::MAX) };
        reader.owed = 0;
        if let Some(connection) = self.cluster.connection(link) {
            connection.tell(Operation::Credit, subscription, &body);
        }
    }

    /// A subscription's share of the buffer.
    fn credit(&self) -> u32 {
        let share = self.options.buffer_bytes / self.readers.len().max(1);
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }

    fn restart(&mut self, index: usize, start: Start, now: Instant) {
        let reader = &mut self.readers[index];
        reader.generation += 1;
        reader.not_before = now;
        reader.start = start;
        let offset = if let Start::Offset(offset) = start { Some(offset) } else { None };
        (reader.next, reader.handed) = (offset, offset);
        if let State::Subscribed { link, subscription, .. } = reader.state {
            self.cluster.request((link, subscription), Operation::Unsubscribe, &(), Token::Unsubscribe, now);
        }
        self.readers[index].state = State::Idle;
    }

    fn pump_reader(&mut self, index: usize, now: Instant) {
        let reader = &self.readers[index];
        if reader.state != State::Idle || reader.not_before > now {
            return;
        }
        let (partition, generation) = (reader.partition, reader.generation);
        let Some(lane) = self.routes.lane(partition, &mut self.cluster, now) else { return };
        if !self.cluster.has_room(lane.0, 0) {
            return;
        }
        let Some(offset) = self.locate(index, lane, now) else { return };
        match self.readers[index].mode {
            Mode::Push => {
                // What has arrived and waits to be polled is credited when it is handed over.
                let waiting = u32::try_from(self.readers[index].buffered).unwrap_or(u32::MAX);
                let (credit, bytes_max) = (self.credit().saturating_sub(waiting), self.options.fetch_bytes);
                self.readers[index].owed = 0;
                let token = Token::Subscribe { partition, generation };
                let body = Subscribe { offset, credit, bytes_max };
                self.cluster.request(lane, Operation::Subscribe, &body, token, now);
            }
            Mode::Pull => {
                // A reader with nothing of its own may always ask, so that none starves.
                let bytes_max = self.options.fetch_bytes;
                let full = self.buffered + bytes_max as usize > self.options.buffer_bytes;
                if full && self.readers[index].buffered > 0 {
                    return;
                }
                let wait = self.options.fetch_wait;
                let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                let body = Fetch { offset, bytes_max, bytes_min: self.options.fetch_bytes_min, wait_ms };
                let token = Token::Fetch { partition, generation };
                self.cluster.request_waiting(lane, Operation::Fetch, &body, wait, token, now);
            }
        }
        self.readers[index].state = State::Asked { link: lane.0 };
    }

    /// Where to read on; None while the server is asked.
    fn locate(&mut self, index: usize, lane: (LinkId, u32), now: Instant) -> Option<i64> {
        let reader = &mut self.readers[index];
        let opened = self.routes.opened(reader.partition);
        if reader.high_watermark.is_none() {
            reader.high_watermark = opened.map(|opened| opened.high_watermark);
        }
        if reader.next.is_some() {
            return reader.next;
        }
        let which = match reader.start {
            Start::Beginning => ListOffsets::Earliest,
            Start::End => ListOffsets::Latest,
            Start::Timestamp(timestamp) => ListOffsets::At(timestamp),
            Start::Offset(offset) => {
                (reader.next, reader.handed) = (Some(offset), Some(offset));
                return reader.next;
            }
        };
        let token = Token::Locate { partition: reader.partition, generation: reader.generation };
        reader.state = State::Asked { link: lane.0 };
        self.cluster.request(lane, Operation::ListOffsets, &which, token, now);
        None
    }

    fn index_of(&self, partition: u32, generation: u32) -> Option<usize> {
        self.index(partition).filter(|&index| self.readers[index].generation == generation)
    }

    /// Most consumers read all partitions, and have each at its own number.
    fn index(&self, partition: u32) -> Option<usize> {
        let this = |reader: &Reader| reader.partition == partition;
        let there = self.readers.get(partition as usize).is_some_and(this);
        if there { Some(partition as usize) } else { self.readers.iter().position(this) }
    }

    fn located(&mut self, index: usize, found: ListedOffset) {
        let reader = &mut self.readers[index];
        reader.state = State::Idle;
        if found.offset >= 0 {
            (reader.next, reader.handed) = (Some(found.offset), Some(found.offset));
        } else {
            // No record is so late: begin with the next one.
            reader.start = Start::End;
        }
    }

    fn arrived(&mut self, index: usize, came: &Batches<'_>) {
        let reader = &mut self.readers[index];
        let high_watermark = came.records.high_watermark;
        reader.high_watermark = reader.high_watermark.max(Some(high_watermark));
        let next = came.records.next.max(reader.next.unwrap_or(0));
        reader.next = Some(next);
        if came.bytes.is_empty() {
            return;
        }
        let (bytes, generation) = (came.bytes.to_vec(), reader.generation);
        reader.buffered += bytes.len();
        self.buffered += bytes.len();
        self.arrivals += 1;
        self.arrived.push_back(Arrived { reader: index, generation, next, high_watermark, bytes, done: 0 });
    }

    fn refused(&mut self, index: usize, refusal: Refusal, now: Instant) {
        let (partition, pause) = (self.readers[index].partition, self.options.connect.backoff);
        self.readers[index].state = State::Idle;
        match refusal.status() {
            Some(Status::OffsetOutOfRange) => match self.options.out_of_range {
                OutOfRange::Beginning => self.restart(index, Start::Beginning, now),
                OutOfRange::End => self.restart(index, Start::End, now),
                OutOfRange::Fail => {
                    let message = format!("partition {partition} does not hold that offset");
                    self.give_up(index, Refusal { message, ..refusal });
                }
            },
            Some(Status::TooManySubscriptions) => self.readers[index].mode = Mode::Pull,
            // A partition that is gone is not open any more either; whether it is there again, and why not, shows when it
            // is opened.
            Some(
                Status::UnknownHandle | Status::UnknownSubscription | Status::UnknownPartition | Status::UnknownTopic,
            ) => {
                self.routes.shut(partition, &mut self.cluster, now);
                self.readers[index].not_before = now + pause;
            }
            _ if refusal.retry() != Retry::No => {
                self.readers[index].not_before = now + refusal.retry_after().unwrap_or(pause);
            }
            _ => {
                let message = format!("partition {partition}: {}", refusal.message);
                self.give_up(index, Refusal { message, ..refusal });
            }
        }
    }

    fn give_up(&mut self, index: usize, refusal: Refusal) {
        self.readers[index].state = State::Halted;
        self.note_trouble(refusal.into());
    }

    /// Adds readers for partitions that have none yet.
    fn add_readers(&mut self, now: Instant) {
        let Some(count) = self.routes.partitions() else { return };
        let first = self.readers.is_empty();
        let wanted = match &self.options.partitions {
            Some(partitions) if first => partitions.clone(),
            Some(_) => return,
            None => (self.readers.len() as u32..count).collect(),
        };
        // A partition that was added since has only records that came since.
        let start = if first { self.options.start } else { Start::Beginning };
        for partition in wanted {
            let (next, handed, mode) = (None, None, self.options.mode);
            let (state, not_before) = (State::Idle, now);
            let (high_watermark, generation, buffered, owed) = (None, 0, 0, 0);
            let reader = Reader {
                partition,
                state,
                next,
                handed,
                start,
                mode,
                high_watermark,
                generation,
                not_before,
                buffered,
                owed,
            };
            self.readers.push(reader);
        }
    }

    fn answered(
        &mut self,
        link: LinkId,
        handle: u32,
        token: Token,
        outcome: Result<Response<'_>, Refusal>,
        now: Instant,
    ) {
        let (Token::Locate { partition, generation }
        | Token::Fetch { partition, generation }
        | Token::Subscribe { partition, generation }) = token
        else {
            return;
        };
        let Some(index) = self.index_of(partition, generation) else {
            // A subscription of an earlier generation is of no use.
            if matches!(outcome, Ok(Response::Subscribe(_))) {
                self.cluster.request((link, handle), Operation::Unsubscribe, &(), Token::Unsubscribe, now);
            }
            return;
        };
        match outcome {
            Ok(Response::ListOffsets(found)) => self.located(index, found),
            Ok(Response::Fetch(came)) => {
                self.readers[index].state = State::Idle;
                self.arrived(index, &came);
            }
            Ok(Response::Subscribe(subscribed)) => {
                self.readers[index].state = State::Subscribed { link, subscription: handle };
                self.readers[index].high_watermark = Some(subscribed.high_watermark);
                // Bytes of before the subscription may have been handed over while it was made.
                self.give_credit(index);
            }
            Ok(_) => self.readers[index].state = State::Idle,
            Err(refusal) => self.refused(index, refusal, now),
        }
    }
}

impl Machine for ConsumerCore {
    fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    fn event(&mut self, link: LinkId, event: Event<'_, Token>, now: Instant) {
        match event {
            Event::Welcomed(_) => {}
            Event::Answered { token: Token::Metadata | Token::Open { .. }, .. } => {
                if let Err((partition, refusal)) = self.routes.answered(link, event, &mut self.cluster, now)
                    && let Some(index) = self.index(partition)
                {
                    self.give_up(index, refusal);
                }
                self.add_readers(now);
            }
            Event::Answered { token, header, outcome } => self.answered(link, header.handle, token, outcome, now),
            Event::Pushed { token: Token::Subscribe { partition, generation }, outcome, .. } => {
                match (self.index_of(partition, generation), outcome) {
                    (Some(index), Ok(came)) => self.arrived(index, &came),
                    (Some(index), Err(refusal)) => self.refused(index, refusal, now),
                    (None, _) => {}
                }
            }
            Event::Pushed { .. } => {}
        }
    }

    fn lost(&mut self, link: LinkId, _: &Ended, _: Vec<(Token, bool)>, now: Instant) {
        self.routes.lost(link, now);
        for reader in &mut self.readers {
            let on = match reader.state {
                State::Asked { link } | State::Subscribed { link, .. } => Some(link),
                State::Idle | State::Halted => None,
            };
            if on == Some(link) {
                // Reading has no effects: what was on its way is simply asked for again.
                reader.state = State::Idle;
            }
        }
    }

    fn pump(&mut self, now: Instant) {
        self.routes.pump(&mut self.cluster, now);
        if let Some(trouble) = self.routes.trouble()
            && self.readers.iter().any(|reader| reader.state != State::Halted)
        {
            let trouble = trouble.clone().into();
            self.note_trouble(trouble);
            self.readers.iter_mut().for_each(|reader| reader.state = State::Halted);
        }
        let readers = self.readers.len();
        for place in 0..readers {
            self.pump_reader((self.turn + place) % readers, now);
        }
        self.turn = self.turn.wrapping_add(1);
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let waiting = self.readers.iter().filter(|reader| reader.state == State::Idle);
        let readers = waiting.map(|reader| reader.not_before).filter(|&at| at > now).min();
        [readers, self.cluster.deadline(now), self.routes.deadline().filter(|&at| at > now)].into_iter().flatten().min()
    }
}

/// Offset behind the last of these batches.
fn last_next(bytes: &[u8]) -> Option<i64> {
    batches(bytes).flatten().last().map(|batch| batch.next_offset())
}
