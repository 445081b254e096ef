//! The batches of a producer on their way, without sockets and clock.
//!
//! Batches of a partition stand in line. Some at the front are on their way; when one of those is refused or its fate becomes
//! unknown, no more are sent until all that are on their way have come back. Then it is settled, front to back, which are
//! sent again (in the same order) and which are reported. So nothing is ever sent again behind a later batch that is
//! there already.
//!
//! Where nothing is to be there twice, batches are numbered when they are first sent, and keep their number as long as
//! they may have been written. One that fails leaves a gap, which the server lets nothing pass: what comes behind it is numbered
//! anew, under the next epoch, once nothing of the one before is on its way.

use crate::accumulator::Sealed;
use crate::cluster::{Cluster, LinkId, Token};
use crate::error::{Ended, ProduceError, Refusal};
use crate::machine::Machine;
use crate::options::{ProducerOptions, RetryUnknown};
use crate::protocol::Event;
use crate::report::Delivery;
use crate::routes::Routes;
use corelog_wire::{Detail, Operation, Response, Retry, Status};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// So many batches of a producer are recognised by a server when they come again.
const RECOGNISED: usize = 5;

/// Under whose name a partition's batches are numbered, and under which of its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Era {
    producer: i64,
    epoch: i16,
}

impl Era {
    fn new() -> Era {
        Era { producer: (Uuid::new_v4().as_u64_pair().0 >> 1) as i64, epoch: 0 }
    }

    fn next(self) -> Era {
        self.epoch.checked_add(1).map_or_else(Era::new, |epoch| Era { epoch, ..self })
    }
}

/// How a partition's batches are numbered.
#[derive(Debug)]
struct Numbering {
    era: Era,
    /// Of the next record.
    next: i32,
}

impl Numbering {
    /// Numbers begin anew: one of this era failed. Nothing, if that is known.
    fn end(&mut self, era: Era) {
        if self.era == era {
            *self = Numbering { era: era.next(), next: 0 };
        }
    }

    fn take(&mut self, records: u32) -> i32 {
        let first = self.next;
        // They go on with 0 behind the greatest.
        self.next = first.wrapping_add_unsigned(records) & i32::MAX;
        first
    }
}

/// Connections, routes, and a line of batches for every partition.
#[derive(Debug)]
pub(crate) struct ProducerCore {
    cluster: Cluster,
    routes: Routes,
    options: ProducerOptions,
    lines: Vec<Line>,
    /// Where the next pump begins, so that no partition is always last.
    turn: usize,
    /// Batches in all lines.
    queued: usize,
    settled: Vec<Settled>,
}

/// A delivery, and the bytes of the producer's buffer that it frees.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) delivery: Delivery,
    pub(crate) reserved: usize,
    /// An earlier try may have written the records too.
    pub(crate) resent: bool,
}

/// The batches of one partition. The first `sent` of them are not `Waiting`.
#[derive(Debug, Default)]
struct Line {
    batches: VecDeque<Queued>,
    /// Serial of the first batch in `batches`.
    first_serial: u64,
    sent: usize,
    /// Of those sent, how many were not answered yet.
    inflight: usize,
    /// One was refused or its fate is unknown: nothing more is sent until all have come back.
    held: bool,
    retry_at: Option<Instant>,
    pause: Duration,
    /// When a batch was acknowledged last.
    acknowledged: Option<Instant>,
    /// Where nothing is to be there twice.
    numbering: Option<Numbering>,
}

/// When a batch that waits is given up. While others of its partition are acknowledged it only waits its turn.
fn expires(batch: &Sealed, acknowledged: Option<Instant>, timeout: Duration) -> Instant {
    acknowledged.map_or(batch.born, |last| last.max(batch.born)) + timeout
}

#[derive(Debug)]
struct Queued {
    batch: Sealed,
    state: State,
    /// Why it had to be sent again, the last time.
    trouble: Option<Trouble>,
    /// It is numbered under this one.
    era: Option<Era>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Sent,
    Acknowledged(i64),
    /// Not written, and may be sent again.
    Refused(Refusal),
    /// Written or not.
    Unknown(String),
    Failed(ProduceError),
}

#[derive(Debug)]
enum Trouble {
    NotWritten(String),
    MaybeWritten(String),
}

impl ProducerCore {
    pub(crate) fn new(cluster: Cluster, routes: Routes, mut options: ProducerOptions) -> ProducerCore {
        if options.retry_unknown == RetryUnknown::ExactlyOnce {
            options.inflight = options.inflight.min(RECOGNISED);
        }
        ProducerCore { cluster, routes, options, lines: Vec::new(), turn: 0, queued: 0, settled: Vec::new() }
    }

    /// Number of partitions once it is known, or why it never will be.
    pub(crate) fn partitions(&self) -> Result<Option<u32>, Refusal> {
        match (self.routes.partitions(), self.routes.trouble()) {
            (None, Some(trouble)) => Err(trouble.clone()),
            (partitions, _) => Ok(partitions),
        }
    }

    /// Why nothing moves, for messages.
    pub(crate) fn waiting_for(&self) -> String {
        let why = self.routes.waiting_for();
        if why.is_empty() { self.cluster.trouble() } else { why.to_owned() }
    }

    /// Whether a batch pushed now would be sent soon. Without room it is better left to grow.
    pub(crate) fn has_room(&self, partition: u32) -> bool {
        let line = self.lines.get(partition as usize);
        line.is_none_or(|line| !line.held && line.batches.len() < self.options.inflight)
    }

    /// Puts a batch at the end of its partition's line.
    pub(crate) fn push(&mut self, batch: Sealed) {
        let partition = batch.partition as usize;
        if self.lines.len() <= partition {
            let is_numbered = self.options.retry_unknown == RetryUnknown::ExactlyOnce;
            let numbering = || is_numbered.then(|| Numbering { era: Era::new(), next: 0 });
            self.lines.resize_with(partition + 1, || Line { numbering: numbering(), ..Line::default() });
        }
        self.lines[partition].batches.push_back(Queued { batch, state: State::Waiting, trouble: None, era: None });
        self.queued += 1;
    }

    /// What became known since the last call.
    pub(crate) fn settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Ends every batch: what was not sent is not written, what is on its way may be.
    pub(crate) fn give_up(&mut self) {
        for partition in 0..self.lines.len() {
            for queued in &mut self.lines[partition].batches {
                let state = std::mem::replace(&mut queued.state, State::Waiting);
                queued.state = match state {
                    State::Sent | State::Unknown(_) => {
                        State::Failed(ProduceError::OutcomeUnknown("the producer was closed".to_owned()))
                    }
                    State::Waiting | State::Refused(_) => State::Failed(queued.give_up(ProduceError::Closed)),
                    state => state,
                };
            }
            let line = &mut self.lines[partition];
            (line.sent, line.inflight, line.held) = (line.batches.len(), 0, false);
            self.report(partition);
        }
    }

    fn pump_line(&mut self, partition: usize, now: Instant) {
        self.expire(partition, now);
        let line = &self.lines[partition];
        if line.held || line.sent == line.batches.len() || line.retry_at.is_some_and(|at| at > now) {
            return;
        }
        if let Some(trouble) = self.routes.trouble() {
            let error = ProduceError::Refused(trouble.clone());
            return self.fail_waiting(partition, &error);
        }
        let Some(lane) = self.routes.lane(partition as u32, &mut self.cluster, now) else { return };
        while self.lines[partition].inflight < self.options.inflight && self.send_next(partition, lane, now) {}
    }

    /// Sends the first batch that waits, if there is one and its link has room.
    fn send_next(&mut self, partition: usize, lane: (LinkId, u32), now: Instant) -> bool {
        let body_bytes_max = self.cluster.body_bytes_max(lane.0);
        let line = &mut self.lines[partition];
        let serial = line.first_serial + line.sent as u64;
        let Some(queued) = line.batches.get_mut(line.sent) else { return false };
        if !matches!(queued.state, State::Waiting) {
            // It failed for good while one before it is sent again.
            line.sent += 1;
            return true;
        }
        let size = queued.batch.bytes.len();
        if size > body_bytes_max {
            queued.state = State::Failed(ProduceError::Refused(too_large(size, body_bytes_max)));
            line.sent += 1;
            self.report(partition);
            return true;
        }
        if !self.cluster.has_room(lane.0, size) {
            return false;
        }
        let Some(connection) = self.cluster.connection(lane.0) else { return false };
        if !line.number_next() {
            return false;
        }
        let Some(queued) = line.batches.get_mut(line.sent) else { return false };
        let token = Token::Produce { partition: partition as u32, serial };
        connection.request(Operation::Produce, lane.1, &(), &queued.batch.bytes, Duration::ZERO, token, now);
        queued.state = State::Sent;
        line.sent += 1;
        line.inflight += 1;
        true
    }

    fn came_back(&mut self, partition: u32, serial: u64, state: State, now: Instant) {
        let partition = partition as usize;
        let Some(line) = self.lines.get_mut(partition) else { return };
        let index = serial.wrapping_sub(line.first_serial) as usize;
        let Some(queued) = line.batches.get_mut(index).filter(|queued| matches!(queued.state, State::Sent)) else {
            return;
        };
        if matches!(state, State::Acknowledged(_)) {
            line.acknowledged = Some(now);
        }
        line.held |= matches!(state, State::Refused(_) | State::Unknown(_));
        queued.state = match state {
            State::Failed(error) => State::Failed(queued.give_up(error)),
            state => state,
        };
        line.inflight -= 1;
        if line.held && line.inflight == 0 {
            self.settle(partition, now);
        }
        self.report(partition);
    }

    /// All that was on its way has come back and some of it must be sent again or given up.
    fn settle(&mut self, partition: usize, now: Instant) {
        let again = self.options.retry_unknown != RetryUnknown::AtMostOnce;
        let line = &mut self.lines[partition];
        let there = |queued: &Queued| matches!(queued.state, State::Acknowledged(_));
        let overtaken_before = line.batches.range(..line.sent).rposition(there).unwrap_or(0);
        let mut first_again = None;
        let mut pause = Duration::ZERO;
        for (index, queued) in line.batches.range_mut(..line.sent).enumerate() {
            let overtaken = index < overtaken_before;
            let state = std::mem::replace(&mut queued.state, State::Waiting);
            queued.state = match state {
                State::Refused(refusal) if overtaken => State::Failed(ProduceError::Overtaken(refusal)),
                State::Refused(refusal) => {
                    pause = pause.max(refusal.retry_after().unwrap_or_default());
                    queued.remember(Trouble::NotWritten(refusal.to_string()));
                    State::Waiting
                }
                // One with a number goes where it belongs, whatever is there.
                State::Unknown(why) if overtaken && queued.era.is_none() || !again => {
                    State::Failed(ProduceError::OutcomeUnknown(why))
                }
                State::Unknown(why) => {
                    queued.remember(Trouble::MaybeWritten(why));
                    State::Waiting
                }
                state => state,
            };
            if matches!(queued.state, State::Waiting) {
                first_again.get_or_insert(index);
            }
        }
        line.held = false;
        if let Some(first) = first_again {
            // What follows a batch that is sent again was refused or unknown too, or failed for good; the latter are
            // reported in their turn.
            line.sent = first;
            line.pause = (line.pause * 2).clamp(self.options.connect.backoff, self.options.connect.backoff_max);
            line.retry_at = Some(now + pause.max(line.pause));
        }
    }

    /// Gives up what waited too long.
    fn expire(&mut self, partition: usize, now: Instant) {
        let line = &mut self.lines[partition];
        if line.held {
            return;
        }
        let mut expired = false;
        while let Some(queued) = line.batches.get_mut(line.sent) {
            if matches!(queued.state, State::Waiting) {
                if expires(&queued.batch, line.acknowledged, self.options.delivery_timeout) > now {
                    break;
                }
                let why = match &queued.trouble {
                    Some(Trouble::NotWritten(why) | Trouble::MaybeWritten(why)) => why.clone(),
                    None => self.routes.waiting_for().to_owned(),
                };
                let why = if why.is_empty() { self.cluster.trouble() } else { why };
                queued.state = State::Failed(queued.give_up(ProduceError::TimedOut(why)));
            }
            expired = true;
            line.sent += 1;
        }
        if expired {
            self.report(partition);
        }
    }

    fn fail_waiting(&mut self, partition: usize, error: &ProduceError) {
        let line = &mut self.lines[partition];
        for queued in line.batches.range_mut(line.sent..) {
            if matches!(queued.state, State::Waiting) {
                queued.state = State::Failed(queued.give_up(error.clone()));
            }
        }
        line.sent = line.batches.len();
        self.report(partition);
    }

    /// Reports what is known at the front of the line.
    fn report(&mut self, partition: usize) {
        let line = &mut self.lines[partition];
        while let Some(Queued { state: State::Acknowledged(_) | State::Failed(_), .. }) = line.batches.front() {
            // While it is held nothing can be `sent` beyond what is counted, so the front is among the sent.
            let Some(queued) = line.batches.pop_front() else { break };
            line.first_serial += 1;
            line.sent = line.sent.saturating_sub(1);
            self.queued -= 1;
            let outcome = match queued.state {
                State::Acknowledged(base) => {
                    (line.pause, line.retry_at) = (Duration::ZERO, None);
                    Ok(base)
                }
                State::Failed(error) => {
                    if let (Some(numbering), Some(era)) = (&mut line.numbering, queued.era) {
                        numbering.end(era);
                    }
                    Err(error)
                }
                _ => continue,
            };
            let Sealed { partition, first, count, bytes, reserved, .. } = queued.batch;
            let delivery = Delivery { partition, first, count, bytes: bytes.len(), outcome };
            let resent = matches!(queued.trouble, Some(Trouble::MaybeWritten(_)));
            self.settled.push(Settled { delivery, reserved, resent });
        }
    }

    /// Whether a batch that the server finds behind a gap is to be numbered anew: it is not there, unless an earlier try wrote it.
    fn ends_era(&mut self, partition: u32, serial: u64) -> bool {
        let Some(line) = self.lines.get_mut(partition as usize) else { return false };
        let index = serial.wrapping_sub(line.first_serial) as usize;
        let (Some(numbering), Some(queued)) = (&mut line.numbering, line.batches.get_mut(index)) else { return false };
        let Some(era) = queued.era else { return false };
        if matches!(queued.trouble, Some(Trouble::MaybeWritten(_))) {
            return false;
        }
        numbering.end(era);
        true
    }

    fn produced(&mut self, partition: u32, serial: u64, outcome: Result<i64, Refusal>, now: Instant) {
        let state = match outcome {
            Ok(base) => State::Acknowledged(base),
            Err(refusal) => {
                let unknown_handle = refusal.status() == Some(Status::UnknownHandle);
                let is_behind_a_gap = refusal.status() == Some(Status::OutOfOrderSequence);
                match refusal.retry() {
                    Retry::No if is_behind_a_gap && self.ends_era(partition, serial) => State::Refused(refusal),
                    Retry::No if !unknown_handle => State::Failed(ProduceError::Refused(refusal)),
                    Retry::MayRepeat => {
                        self.routes.shut(partition, &mut self.cluster, now);
                        State::Unknown(refusal.to_string())
                    }
                    // The server refuses all that comes later by this handle, so a new one has to be opened.
                    _ => {
                        self.routes.shut(partition, &mut self.cluster, now);
                        State::Refused(refusal)
                    }
                }
            }
        };
        self.came_back(partition, serial, state, now);
    }
}

impl Line {
    /// Numbers the batch that is to be sent, unless it has a number that it may be known by. False if that has to wait for batches
    /// of the era before: behind a newer one the server would not know them.
    fn number_next(&mut self) -> bool {
        let Some(numbering) = &mut self.numbering else { return true };
        let is_old = |queued: &Queued| {
            queued.era.is_some_and(|era| era != numbering.era)
                && !matches!(queued.state, State::Acknowledged(_) | State::Failed(_))
        };
        let waits = self.batches.range(..self.sent).any(is_old);
        let Some(queued) = self.batches.get_mut(self.sent) else { return false };
        let is_known = queued.era == Some(numbering.era) || matches!(queued.trouble, Some(Trouble::MaybeWritten(_)));
        if is_known {
            return queued.era != Some(numbering.era) || !waits;
        }
        if waits {
            return false;
        }
        let first = numbering.take(queued.batch.count);
        let Era { producer, epoch } = numbering.era;
        let is_numbered = corelog_batch::number(&mut queued.batch.bytes, producer, epoch, first).is_ok();
        assert!(is_numbered, "a batch that was built can be numbered");
        queued.era = Some(numbering.era);
        true
    }
}

impl Queued {
    /// The error for a batch that is not sent any more.
    fn give_up(&self, error: ProduceError) -> ProduceError {
        match &self.trouble {
            Some(Trouble::MaybeWritten(why)) => ProduceError::OutcomeUnknown(why.clone()),
            _ => error,
        }
    }

    fn remember(&mut self, trouble: Trouble) {
        // Once it may have been written, it may have been written.
        if !matches!((&self.trouble, &trouble), (Some(Trouble::MaybeWritten(_)), Trouble::NotWritten(_))) {
            self.trouble = Some(trouble);
        }
    }
}

impl Machine for ProducerCore {
    fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    fn event(&mut self, link: LinkId, event: Event<'_, Token>, now: Instant) {
        match event {
            Event::Answered { token: Token::Produce { partition, serial }, outcome, .. } => {
                let base = match outcome {
                    Ok(Response::Produce(produced)) => Ok(produced.base),
                    Ok(_) => return,
                    Err(refusal) => Err(refusal),
                };
                self.produced(partition, serial, base, now);
            }
            event => {
                if let Err((partition, refusal)) = self.routes.answered(link, event, &mut self.cluster, now)
                    && (partition as usize) < self.lines.len()
                {
                    self.fail_waiting(partition as usize, &ProduceError::Refused(refusal));
                }
            }
        }
    }

    fn lost(&mut self, link: LinkId, why: &Ended, unanswered: Vec<(Token, bool)>, now: Instant) {
        self.routes.lost(link, now);
        for (token, whole) in unanswered {
            if let Token::Produce { partition, serial } = token {
                let state = if whole { State::Unknown(why.to_string()) } else { State::Refused(not_sent(why)) };
                self.came_back(partition, serial, state, now);
            }
        }
    }

    fn pump(&mut self, now: Instant) {
        self.routes.pump(&mut self.cluster, now);
        let lines = self.lines.len();
        for place in 0..lines {
            let partition = (self.turn + place) % lines;
            if !self.lines[partition].batches.is_empty() {
                self.pump_line(partition, now);
            }
        }
        self.turn = self.turn.wrapping_add(1);
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let line_due = |line: &Line| {
            let waiting = line.batches.get(line.sent).filter(|_| !line.held)?;
            let expires = expires(&waiting.batch, line.acknowledged, self.options.delivery_timeout);
            Some(line.retry_at.filter(|&at| at > now).map_or(expires, |at| at.min(expires)))
        };
        let lines = if self.queued == 0 { None } else { self.lines.iter().filter_map(line_due).min() };
        [lines, self.cluster.deadline(now), self.routes.deadline().filter(|&at| at > now)].into_iter().flatten().min()
    }
}

fn not_sent(why: &Ended) -> Refusal {
    let message = format!("the connection ended before they were sent: {why}");
    Refusal { operation: Operation::Produce, code: Status::Busy as u16, detail: Detail::None, message }
}

fn too_large(size: usize, max: usize) -> Refusal {
    let detail = Detail::Limit { actual: size as u64, max: max as u64 };
    let message = "the batch is over what the server takes in one request".to_owned();
    Refusal { operation: Operation::Produce, code: Status::BatchTooLarge as u16, detail, message }
}
