//! The load driver: one thread, many connections that never block, frames built beforehand.
//!
//! It shares a small machine with what it measures, so it does as little as it can: a request is a copy of the same
//! frame with another correlation, sent together with whatever else its connection has to send; an answer is looked up
//! by its correlation. It speaks to the server and to the bare loop alike.

pub(crate) mod crew;
mod pace;
pub(crate) mod reader;

pub use pace::Pace;

use crate::error::{BenchError, Doing, Result};
use crate::report::latency::{Second, histogram};
use corelog_wire::{HEADER_BYTES, Header, Operation, Retry, Status};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Requests of an open loop that one connection may have unanswered. Past it they wait in the driver; their latency
/// counts from when they should have been sent all the same.
const OUTSTANDING_MAX: usize = 1024;
const RECEIVE_BYTES: usize = 64 << 10;
const EVENTS: usize = 128;
/// How often an open loop looks at the sockets at least while it catches up with what is due.
const DUE_AT_ONCE: usize = 64;

/// A connection and the partitions its requests go to in turn.
#[derive(Debug)]
pub struct Lane {
    /// Connected, its hello said.
    pub stream: TcpStream,
    /// Handles of open partitions.
    pub handles: Vec<u32>,
}

/// How long a load runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Before anything counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
}

/// What a load did in its measured time.
#[derive(Debug, Clone)]
pub struct Load {
    /// Requests acknowledged.
    pub requests: u64,
    /// Requests refused with a status that says to try again.
    pub refused: u64,
    /// Measured time, seconds.
    pub seconds: f64,
    /// From the intended send time to the answer, nanoseconds.
    pub latency: Histogram<u64>,
    /// The same of each second of the measured time, and of what is left.
    pub each_second: Vec<Second>,
    /// Part of the time in which the driver had nothing to do. Near 0 the driver was the bottleneck, not what it drove.
    pub idle: f64,
    /// What `probe` answered at the end less what it answered at the beginning of the measured time.
    pub probed: u64,
}

/// What a load consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Bodies of produce requests, sent in turn.
    pub bodies: &'a [Vec<u8>],
    /// When.
    pub pace: Pace,
    /// How long.
    pub span: Span,
    /// Whether the batches say when they should have been sent: for who measures to the other end. Their base timestamp
    /// is that time then, in nanoseconds of CLOCK_MONOTONIC.
    pub stamped: bool,
}

/// Who is told of a load while it runs.
pub trait Watch {
    /// The measured time begins, or ends: a count of the other side, such as its CPU time.
    ///
    /// # Errors
    /// What ends the load.
    fn probe(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// A second of the measured time is over.
    fn second(&mut self, _: &Second) {}
}

/// Nobody.
impl Watch for () {}

/// Who counts something of the other side: [`Load::probed`] is how much it grew.
#[derive(Debug)]
pub struct Count<F>(pub F);

impl<F: FnMut() -> Result<u64>> Watch for Count<F> {
    fn probe(&mut self) -> Result<u64> {
        let Count(count) = self;
        count()
    }
}

/// Loads `lanes` with produce requests.
///
/// # Errors
/// When a connection breaks, or a request is refused for good.
pub fn run(lanes: Vec<Lane>, plan: Plan<'_>, watch: &mut impl Watch) -> Result<Load> {
    let mut driver = Driver::new(lanes, plan)?;
    driver.start()?;
    driver.run_until(plan.span.warm_up)?;
    driver.forget();
    let (probed_before, began) = (watch.probe()?, driver.now());
    let mut at = Duration::from_nanos(began);
    let end = at + plan.span.measured;
    let mut each_second = Vec::new();
    while at < end {
        let next = (at + SECOND).min(end);
        driver.run_until(next)?;
        let second = Second::take(&mut driver.second, next - at);
        watch.second(&second);
        each_second.push(second);
        at = next;
    }
    let took = driver.now() - began;
    let probed = watch.probe()?.saturating_sub(probed_before);
    Ok(Load {
        requests: driver.acknowledged,
        refused: driver.refused,
        seconds: took as f64 / 1e9,
        latency: driver.latency,
        each_second,
        idle: driver.idle as f64 / took as f64,
        probed,
    })
}

/// Has every partition of `lanes` take a request, or refuse it: its first segment is made then, which is a topic's beginning
/// and no load's.
///
/// # Errors
/// When a connection breaks, or a request is refused for good.
pub fn touch(lanes: Vec<Lane>, body: &[u8]) -> Result<()> {
    const SLICE: Duration = Duration::from_millis(5);
    let span = Span { warm_up: Duration::ZERO, measured: Duration::MAX };
    let pace = Pace::Closed { window: 1 };
    let mut driver = Driver::new(lanes, Plan { bodies: &[body.to_vec()], pace, span, stamped: false })?;
    driver.start()?;
    // Who has asked once more than it has partitions has an answer from each.
    while driver.connections.iter().any(|connection| connection.requested <= connection.handles.len()) {
        driver.run_until(Duration::from_nanos(driver.now()) + SLICE)?;
    }
    Ok(())
}

const SECOND: Duration = Duration::from_secs(1);

struct Driver {
    connections: Vec<Connection>,
    epoll: Epoll,
    /// Whole requests, of which correlation, handle and perhaps the time are filled in.
    frames: Vec<Vec<u8>>,
    next_frame: usize,
    pace: Pace,
    span: Span,
    stamped: bool,
    clock: Instant,
    /// CLOCK_MONOTONIC when `clock` was taken, nanoseconds.
    clock_began: u64,
    /// Of an open loop: number of the next request, and of the connection it goes to.
    due: u64,
    turn: usize,
    acknowledged: u64,
    refused: u64,
    latency: Histogram<u64>,
    second: Histogram<u64>,
    /// Nanoseconds in which nothing was to be done.
    idle: u64,
}

struct Connection {
    stream: TcpStream,
    handles: Vec<u32>,
    /// Requests so far.
    requested: usize,
    received: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    sent: usize,
    /// Whether the socket was full, and the poller tells when it is not.
    blocked: bool,
    /// Intended send time of each unanswered request by correlation, and the correlations that are free.
    intended: Vec<u64>,
    free: Vec<u32>,
}

impl Driver {
    fn new(lanes: Vec<Lane>, plan: Plan<'_>) -> Result<Driver> {
        let Plan { bodies, pace, span, stamped } = plan;
        let outstanding = match pace {
            Pace::Closed { window } => window,
            Pace::Open { .. } | Pace::Bursts { .. } | Pace::Ramp { .. } => OUTSTANDING_MAX,
        };
        let frame = |body: &Vec<u8>| {
            let mut frame = Header::request(Operation::Produce, 0, 0).to_bytes().to_vec();
            frame[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
            frame.extend_from_slice(body);
            frame
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from).doing("making a poller")?;
        let connections: Vec<Connection> =
            lanes.into_iter().map(|lane| Connection::new(lane, outstanding)).collect::<Result<_>>()?;
        for (id, connection) in connections.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, id as u64);
            epoll.add(&connection.stream, event).map_err(io::Error::from).doing("watching a connection")?;
        }
        Ok(Driver {
            connections,
            epoll,
            frames: bodies.iter().map(frame).collect(),
            next_frame: 0,
            pace,
            span,
            stamped,
            clock: Instant::now(),
            clock_began: monotonic()?,
            due: 0,
            turn: 0,
            acknowledged: 0,
            refused: 0,
            latency: histogram(),
            second: histogram(),
            idle: 0,
        })
    }

    /// Nanoseconds since the driver was made.
    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Fills the windows of a closed loop.
    fn start(&mut self) -> Result<()> {
        let Pace::Closed { window } = self.pace else { return Ok(()) };
        let now = self.now();
        for id in 0..self.connections.len() {
            (0..window).for_each(|_| self.request(id, now));
            self.flush(id)?;
        }
        Ok(())
    }

    /// Queues the next request at a connection.
    fn request(&mut self, id: usize, intended: u64) {
        let count = self.frames.len();
        let frame = &mut self.frames[self.next_frame];
        self.next_frame = (self.next_frame + 1) % count;
        if self.stamped {
            stamp(&mut frame[HEADER_BYTES..], self.clock_began + intended);
        }
        self.connections[id].request(frame, intended);
    }

    /// Drops what was measured so far. `clear` would keep a histogram's maximum, and with it that of the warm-up.
    fn forget(&mut self) {
        (self.acknowledged, self.refused, self.idle) = (0, 0, 0);
        self.latency.reset();
        self.second.reset();
    }

    fn run_until(&mut self, end: Duration) -> Result<()> {
        let end = end.as_nanos() as u64;
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut idle_since = None;
        loop {
            let now = self.now();
            if now >= end {
                self.idle += idle_since.map_or(0, |since| now - since);
                return Ok(());
            }
            let sent = self.send_due(now)?;
            let polled = self.epoll.wait(&mut events, EpollTimeout::ZERO);
            let ready = polled.map_err(io::Error::from).doing("polling the connections")?;
            if sent + ready == 0 {
                idle_since.get_or_insert(now);
                let _ = nix::sched::sched_yield();
                continue;
            }
            self.idle += idle_since.take().map_or(0, |since| now - since);
            for event in &events[..ready] {
                self.serve(event.data() as usize, event.events())?;
            }
        }
    }

    /// Sends what an open loop should have sent by now, as far as connections can take it. Answers how many it sent.
    fn send_due(&mut self, now: u64) -> Result<usize> {
        if self.pace.is_closed() {
            return Ok(0);
        }
        let mut sent = 0;
        while sent < DUE_AT_ONCE {
            let (intended, id) = (self.pace.due(self.due, self.span), self.turn);
            if intended > now || self.connections[id].free.is_empty() {
                break;
            }
            self.request(id, intended);
            self.turn = (self.turn + 1) % self.connections.len();
            self.due += 1;
            sent += 1;
            self.flush(id)?;
        }
        Ok(sent)
    }

    fn serve(&mut self, id: usize, ready: EpollFlags) -> Result<()> {
        if ready.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.receive(id)?;
        }
        if !self.connections[id].out.is_empty() { self.flush(id) } else { Ok(()) }
    }

    fn receive(&mut self, id: usize) -> Result<()> {
        let closed = self.pace.is_closed();
        if !self.connections[id].fill()? {
            return Ok(());
        }
        let now = self.clock.elapsed().as_nanos() as u64;
        let mut at = 0;
        while let Some((header, end)) = self.connections[id].answer(at)? {
            at = end;
            let intended = self.connections[id].settle(header.correlation)?;
            if header.status == Status::Ok as u16 {
                self.acknowledged += 1;
                self.latency.saturating_record(now - intended);
                self.second.saturating_record(now - intended);
            } else {
                may_try_again(header.status)?;
                self.refused += 1;
            }
            if closed {
                self.request(id, now);
            }
        }
        self.connections[id].keep_from(at);
        Ok(())
    }

    fn flush(&mut self, id: usize) -> Result<()> {
        let connection = &mut self.connections[id];
        let blocked = connection.flush()?;
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let write = if blocked { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | write, id as u64);
            let watched = self.epoll.modify(&connection.stream, &mut event);
            watched.map_err(io::Error::from).doing("watching a connection")?;
        }
        Ok(())
    }
}

impl Connection {
    fn new(lane: Lane, outstanding: usize) -> Result<Connection> {
        lane.stream.set_nonblocking(true).doing("preparing a connection")?;
        Ok(Connection {
            stream: lane.stream,
            handles: lane.handles,
            requested: 0,
            received: vec![0; RECEIVE_BYTES],
            filled: 0,
            out: Vec::new(),
            sent: 0,
            blocked: false,
            intended: vec![0; outstanding],
            free: (0..outstanding as u32).rev().collect(),
        })
    }

    /// Queues a request to the partition whose turn it is.
    fn request(&mut self, frame: &[u8], intended: u64) {
        let Some(correlation) = self.free.pop() else { return };
        self.intended[correlation as usize] = intended;
        let begin = self.out.len();
        self.out.extend_from_slice(frame);
        self.out[begin + 4..begin + 8].copy_from_slice(&correlation.to_le_bytes());
        self.out[begin + 12..begin + 16]
            .copy_from_slice(&self.handles[self.requested % self.handles.len()].to_le_bytes());
        self.requested += 1;
    }

    /// Sends what is queued, as far as the socket takes it. Answers whether something is left.
    fn flush(&mut self) -> Result<bool> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error).doing("sending requests"),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(false)
    }

    /// Receives once. Answers whether anything came.
    fn fill(&mut self) -> Result<bool> {
        match self.stream.read(&mut self.received[self.filled..]) {
            Ok(0) => Err(BenchError::Server("the server closed a connection under load".into())),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).doing("receiving answers"),
        }
    }

    /// The answer that begins at `at`, and where it ends; `None` while it is not all there.
    fn answer(&self, at: usize) -> Result<Option<(Header, usize)>> {
        let Some(header) = self.received[at..self.filled].first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::parse(header);
        let end = at + HEADER_BYTES + header.length as usize;
        if end - at > self.received.len() {
            return Err(garbled(format!("an answer of {} bytes", header.length)));
        }
        Ok((end <= self.filled).then_some((header, end)))
    }

    /// Takes an answered request off the books: when it should have been sent.
    fn settle(&mut self, correlation: u32) -> Result<u64> {
        let intended = self.intended.get(correlation as usize).copied();
        self.free.push(correlation);
        intended.ok_or_else(|| garbled(format!("correlation {correlation} was not asked")))
    }

    fn keep_from(&mut self, at: usize) {
        self.received.copy_within(at..self.filled, 0);
        self.filled -= at;
    }
}

/// CLOCK_MONOTONIC, nanoseconds: one clock for all processes of a machine.
pub(crate) fn monotonic() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_err(io::Error::from);
    let now = Duration::from(now.doing("looking at the clock")?);
    Ok(now.as_nanos() as u64)
}

/// Where a batch has its checksum, what that covers, and its base and greatest timestamp.
const CRC_AT: usize = 17;
const CHECKED_FROM: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;

/// Makes a batch say that it is from this time.
fn stamp(batch: &mut [u8], time: u64) {
    for at in [BASE_TIMESTAMP_AT, MAX_TIMESTAMP_AT] {
        batch[at..at + 8].copy_from_slice(&time.to_be_bytes());
    }
    let crc = corelog_batch::crc32c(&batch[CHECKED_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

fn garbled(why: String) -> BenchError {
    BenchError::Garbled { what: "produce".into(), why }
}

fn may_try_again(status: u16) -> Result<()> {
    let known = Status::from_code(status);
    if known.is_some_and(|status| status.retry() == Retry::Yes) {
        return Ok(());
    }
    let status = known.map_or_else(|| format!("status {status}"), |known| known.name().into());
    Err(BenchError::Refused { what: "produce".into(), status, message: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_yardstick::bare::{Bare, Durable, Options};

    fn bare(body: usize) -> Bare {
        let directory = ".".into();
        let frame_bytes = HEADER_BYTES + body;
        Bare::start(Options {
            directory,
            file_bytes: 4 << 20,
            frame_bytes,
            ack_bytes: 24,
            gather_bytes: 4 << 20,
            cpu: None,
            durable: Durable::Dsync,
        })
        .expect("the yardstick starts")
    }

    fn lanes(bare: &Bare, count: usize) -> Vec<Lane> {
        let lane = |_| Lane { stream: TcpStream::connect(bare.address()).expect("connects"), handles: vec![0] };
        (0..count).map(lane).collect()
    }

    const SPAN: Span = Span { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) };

    #[test]
    fn a_closed_loop_is_answered_and_counted() {
        let bare = bare(1000);
        let plan = Plan { bodies: &[vec![7; 1000]], pace: Pace::Closed { window: 3 }, span: SPAN, stamped: false };
        let load = run(lanes(&bare, 4), plan, &mut ()).expect("runs");
        assert!(load.requests > 0);
        assert_eq!(load.requests, load.latency.len());
        assert_eq!(load.requests, load.each_second.iter().map(|second| second.count()).sum::<u64>());
        assert!(bare.stop().expect("stops").frames >= load.requests);
    }

    #[test]
    fn of_the_warm_up_nothing_is_left_not_even_its_maximum() {
        let bare = bare(100);
        let plan = Plan { bodies: &[vec![7; 100]], pace: Pace::Closed { window: 1 }, span: SPAN, stamped: false };
        let mut driver = Driver::new(lanes(&bare, 1), plan).expect("prepared");
        driver.latency.saturating_record(9_000_000_000);
        driver.forget();
        // An empty histogram has the end of its first step as its maximum, which is below the 1 us where it begins.
        assert!(driver.latency.is_empty() && driver.latency.max() < 1_000, "{}", driver.latency.max());
    }

    #[test]
    fn an_open_loop_keeps_its_rate_and_counts_from_the_intended_time() {
        let bare = bare(100);
        let pace = Pace::Open { requests_per_second: 2000.0 };
        let plan = Plan { bodies: &[vec![7; 100]], pace, span: SPAN, stamped: false };
        let began = Instant::now();
        let load = run(lanes(&bare, 2), plan, &mut ()).expect("runs");
        // Where this thread is kept from running, more is due by the end, and what was due in the warm-up is answered later.
        let due = 2000.0 * began.elapsed().as_secs_f64();
        assert!((100..=due as u64 + 1).contains(&load.requests), "{} of the {due} that were due", load.requests);
    }

    #[test]
    fn a_stamped_batch_is_whole_and_says_its_time() {
        let workload = crate::workload::Workload::default();
        let mut batch = crate::workload::batches::Bodies::of(&workload).expect("batches").bodies.remove(0);
        stamp(&mut batch, 123_456_789);
        let view = corelog_batch::BatchView::first(&batch).expect("a batch");
        assert_eq!((view.base_timestamp(), view.max_timestamp()), (123_456_789, 123_456_789));
        assert_eq!(view.crc(), view.computed_crc());
    }

    #[test]
    fn a_correlation_that_was_not_asked_is_an_error() {
        let bare = bare(100);
        let lane = lanes(&bare, 1).pop().expect("a lane");
        let mut connection = Connection::new(lane, 2).expect("prepared");
        connection.request(&[0; 16], 5);
        assert_eq!(connection.settle(0).expect("asked"), 5);
        assert!(connection.settle(2).is_err());
    }
}
