//! `bench consume`: how fast a reader far behind catches up, how fast one keeps pace at the tail, how soon a record that is
//! sent comes out again, and what of that a reader far behind takes away.

use crate::connection::Connection;
use crate::error::{BenchError, Result};
use crate::limits::{Limits, Meter};
use crate::load::{Pace, Span};
use crate::report::{Latency, histogram, median, rate_text};
use crate::rig::{Place, Rig, Shape, Topic, batch, on_core};
use clap::Args;
use corelog_wire::{Batches, Credit, Operation, Status, Subscribe, Subscribed};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes in one push.
const PUSH_BYTES: u32 = 1 << 20;
/// Bytes that may be on their way: enough that the server never waits for the reader's credit to arrive.
const CREDIT_BYTES: u32 = 8 << 20;
/// The producers of the fill and of the tail: enough in flight to use the disk.
const PRODUCERS: usize = 8;
const PRODUCER_WINDOW: usize = 4;
/// The tail alone and the tail beside a reader far behind take turns of this length, to see the same minute of the machine.
const TURN: Duration = Duration::from_millis(500);

/// Arguments of `bench consume`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  corelog bench consume --megabytes 2048")]
pub struct ConsumeArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How much there is to catch up with, MB.
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub megabytes: u64,
    /// Bytes of a record's value.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records in a batch.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_records: u32,
    /// How long to follow the tail.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// The report of `bench consume`.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumeReport {
    /// The machine in the same minutes.
    pub limits: Limits,
    /// Bytes of batches a second to a reader that began at the beginning.
    pub catch_up_bytes_per_second: f64,
    /// The same to the machine's loopback send.
    pub catch_up_to_loopback: f64,
    /// Bytes a second that producers wrote while a reader followed the tail.
    pub tail_produced_bytes_per_second: f64,
    /// Bytes a second that the reader got meanwhile.
    pub tail_consumed_bytes_per_second: f64,
    /// From the sending of a durable record to its push to a reader that sleeps, one at a time.
    pub end_to_end: Latency,
    /// p50 of that to a raw flush and a raw round trip.
    pub end_to_end_to_limits: f64,
    /// The same while another reader of the partition reads it from the beginning, as fast as it can.
    pub beside_catch_up: Latency,
    /// p50 of that to the p50 without.
    pub beside_to_alone: f64,
    /// Bytes a second that the other reader got meanwhile.
    pub beside_bytes_per_second: f64,
}

/// Runs `bench consume`.
pub(crate) fn run(args: &ConsumeArgs) -> Result<ConsumeReport> {
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let topic = rig.topic(1, &[])?;
    let body = batch(args.batch_records, args.record_bytes)?;
    meter.slice(Duration::from_secs(1))?;
    rig.fill(&topic, &body, args.megabytes * 1_000_000)?;
    let catch_up = catch_up(&topic)?;
    meter.slice(Duration::from_secs(1))?;
    let (produced, consumed) = follow(&rig, &topic, &body, Duration::from_secs_f64(args.seconds))?;
    let tail = tail_alone_and_beside(&rig, &topic, &batch(1, args.record_bytes)?, args.seconds)?;
    let (end_to_end, beside) = (Latency::of(&tail.alone), Latency::of(&tail.beside));
    meter.slice(Duration::from_secs(1))?;
    let limits = meter.limits();
    Ok(ConsumeReport {
        catch_up_bytes_per_second: catch_up,
        catch_up_to_loopback: catch_up / limits.send_bytes_per_second,
        tail_produced_bytes_per_second: produced,
        tail_consumed_bytes_per_second: consumed,
        end_to_end_to_limits: end_to_end.p50_us / (limits.flush.p50_us + limits.round_trip.p50_us),
        beside_to_alone: beside.p50_us / end_to_end.p50_us,
        beside_bytes_per_second: tail.other_bytes_per_second,
        beside_catch_up: beside,
        end_to_end,
        limits,
    })
}

/// A subscription to a topic's only partition.
struct Reader {
    connection: Connection,
    subscription: u32,
    /// Offset after the last record that came.
    next: i64,
    /// Bytes that came since credit was last given.
    uncredited: u32,
}

impl Reader {
    /// Subscribes from `offset`, or from the end. Also answers the high watermark.
    fn start(topic: &Topic, offset: Option<i64>) -> Result<(Reader, i64)> {
        let mut connection = Connection::open(topic.owner()?)?;
        let (handle, opened) = connection.open_partition(&topic.name, 0)?;
        let next = offset.unwrap_or(opened.high_watermark);
        let subscribe = Subscribe { offset: next, credit: CREDIT_BYTES, bytes_max: PUSH_BYTES };
        let answer = connection.call(Operation::Subscribe, handle, &subscribe, &[])?;
        let subscribed: Subscribed = connection.decode(Operation::Subscribe)?;
        Ok((Reader { connection, subscription: answer.handle, next, uncredited: 0 }, subscribed.high_watermark))
    }

    /// Waits for the next push: bytes of its batches.
    fn receive(&mut self) -> Result<usize> {
        let header = self.connection.receive()?;
        if header.status != Status::Ok as u16 {
            return Err(self.connection.refused("push", header.status));
        }
        let garbled = |why| BenchError::Garbled { what: "push".into(), why: format!("{why}") };
        let pushed = Batches::decode(self.connection.body()).map_err(garbled)?;
        let bytes = pushed.bytes.len();
        self.next = pushed.records.next;
        self.uncredited += bytes as u32;
        if self.uncredited >= CREDIT_BYTES / 4 {
            let credit = Credit { bytes: std::mem::take(&mut self.uncredited) };
            self.connection.send(Operation::Credit, self.subscription, &credit, &[])?;
        }
        Ok(bytes)
    }
}

/// Reads all there is from the beginning: bytes a second.
fn catch_up(topic: &Topic) -> Result<f64> {
    let began = Instant::now();
    let (mut reader, end) = Reader::start(topic, Some(0))?;
    let mut bytes = 0;
    while reader.next < end {
        bytes += reader.receive()?;
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// Produces as fast as it goes while a reader follows: bytes a second in and out.
fn follow(rig: &Rig, topic: &Topic, body: &[u8], measured: Duration) -> Result<(f64, f64)> {
    let (mut reader, _) = Reader::start(topic, None)?;
    let consumed = AtomicU64::new(0);
    let span = Span { warm_up: Duration::from_millis(500), measured };
    let shape = Shape { connections: PRODUCERS, pace: Pace::Closed { window: PRODUCER_WINDOW }, span };
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let end = Instant::now() + span.warm_up + span.measured;
            while Instant::now() < end {
                consumed.fetch_add(reader.receive()? as u64, Ordering::Relaxed);
            }
            Ok(())
        });
        // What the reader got in the warm-up counts for neither side: both are read when it is over.
        let at_begin = AtomicU64::new(u64::MAX);
        let load = rig.load_probed(topic, body, shape, || {
            at_begin.fetch_min(consumed.load(Ordering::Relaxed), Ordering::Relaxed);
            Ok(0)
        })?;
        let got = consumed.load(Ordering::Relaxed) - at_begin.load(Ordering::Relaxed);
        reading.join().unwrap_or_else(|_| Err(BenchError::Server("the reading thread panicked".into())))?;
        Ok(((load.requests * body.len() as u64) as f64 / load.seconds, got as f64 / load.seconds))
    })
}

/// From send to push, with nobody else there and beside a reader that is far behind.
struct Tail {
    alone: Histogram<u64>,
    beside: Histogram<u64>,
    other_bytes_per_second: f64,
}

fn tail_alone_and_beside(rig: &Rig, topic: &Topic, body: &[u8], seconds: f64) -> Result<Tail> {
    let mut tail = Tail { alone: histogram(), beside: histogram(), other_bytes_per_second: 0.0 };
    let (began, turn) = (Instant::now(), TURN.min(Duration::from_secs_f64(seconds)));
    let mut rates = Vec::new();
    while began.elapsed().as_secs_f64() < 2.0 * seconds {
        end_to_end(topic, body, turn, &mut tail.alone)?;
        let is_over = AtomicBool::new(false);
        let rate = thread::scope(|scope| {
            let other = scope.spawn(|| on_core(rig.cores.load, || read_again_and_again(topic, &is_over)));
            let measured = end_to_end(topic, body, turn, &mut tail.beside);
            is_over.store(true, Ordering::Relaxed);
            let rate = other.join().unwrap_or_else(|_| Err(BenchError::Server("the reading thread panicked".into())));
            measured.and(rate)
        })?;
        rates.push(rate);
    }
    tail.other_bytes_per_second = median(&rates);
    Ok(tail)
}

/// Reads from the beginning to the end and begins anew, until told: bytes a second.
fn read_again_and_again(topic: &Topic, is_over: &AtomicBool) -> Result<f64> {
    let (began, mut bytes) = (Instant::now(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let (mut reader, end) = Reader::start(topic, Some(0))?;
        while reader.next < end && !is_over.load(Ordering::Relaxed) {
            bytes += reader.receive()?;
        }
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// Sends a record, waits until it is pushed, and so on.
fn end_to_end(topic: &Topic, body: &[u8], duration: Duration, samples: &mut Histogram<u64>) -> Result<()> {
    let (mut reader, _) = Reader::start(topic, None)?;
    let mut producer = Connection::open(topic.owner()?)?;
    let (handle, _) = producer.open_partition(&topic.name, 0)?;
    let began = Instant::now();
    while began.elapsed() < duration {
        let sent = Instant::now();
        producer.send(Operation::Produce, handle, &(), body)?;
        reader.receive()?;
        samples.saturating_record(sent.elapsed().as_nanos() as u64);
        let answer = producer.receive()?;
        if answer.status != Status::Ok as u16 {
            return Err(producer.refused("produce", answer.status));
        }
    }
    Ok(())
}

impl fmt::Display for ConsumeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.limits)?;
        let catch_up = rate_text(self.catch_up_bytes_per_second);
        writeln!(f, "catching up        {catch_up:>12}   {:.2} of the loopback send", self.catch_up_to_loopback)?;
        writeln!(f, "tail, produced     {:>12}", rate_text(self.tail_produced_bytes_per_second))?;
        writeln!(f, "tail, consumed     {:>12}", rate_text(self.tail_consumed_bytes_per_second))?;
        writeln!(f, "                   {}", Latency::HEADING)?;
        writeln!(f, "send to push       {}", self.end_to_end)?;
        writeln!(f, "  beside catch-up  {}", self.beside_catch_up)?;
        writeln!(f, "p50 to a raw flush and a raw round trip: {:.2}", self.end_to_end_to_limits)?;
        let other = rate_text(self.beside_bytes_per_second);
        writeln!(f, "p50 beside a reader far behind, who got {other}, to p50 alone: {:.2}", self.beside_to_alone)
    }
}
