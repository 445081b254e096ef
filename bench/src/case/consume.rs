//! `bench consume`: how fast readers far behind catch up, alone and many at once, how fast one keeps pace at the tail, how
//! soon a record that is sent comes out again, and what of that a reader far behind takes away.

use crate::case::produce::{self, CORELOG};
use crate::error::{BenchError, Result};
use crate::load::Pace;
use crate::load::reader::{From, Reader};
use crate::machine::limits::{self, Meter, SEND, SENDFILE, SPLICE};
use crate::report::latency::histogram;
use crate::report::{Better, Measured, Report, live, median};
use crate::server::connection::Connection;
use crate::server::rig::{Place, Rig, on_core};
use crate::server::topic::Topic;
use crate::server::usage::Usage;
use crate::workload::batches::Bodies;
use crate::workload::{Workload, WorkloadArgs, counted};
use clap::Args;
use corelog_wire::{Operation, Status};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The tail alone and the tail beside a reader far behind take turns of this length, to see the same minute of the machine.
const TURN: Duration = Duration::from_millis(500);
const SENT_TO_PUSHED: &str = "send to push";
pub(crate) const BESIDE: &str = "beside a reader far behind";

const MOSTLY_MEMORY: &str = "most of it was still in the server's memory: for readers of the disk more --megabytes, or \
                             --serve-arg=--memory=530MiB";

/// Arguments of `bench consume`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  corelog bench consume --megabytes 2048 --groups 8
  corelog bench consume --serve-arg=--memory=530MiB          # little of it is still in memory
  corelog bench consume --segment-bytes 134217728 --serve-arg=--fetch-path=splice")]
pub struct ConsumeArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// How much there is to catch up with, MB: at least this, for it is written for half a second at a time.
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub megabytes: u64,
    /// Readers that read all of it at the same time, in the part with many.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub groups: usize,
    /// The topic's segment.bytes [default: the server's]
    #[arg(long, value_name = "BYTES")]
    pub segment_bytes: Option<u32>,
}

/// Batches of some size, from producers with enough in flight to use the disk.
pub(crate) fn default_workload() -> Workload {
    Workload { batch_records: 64, producers: 8, pace: Pace::Closed { window: 4 }, repeats: 3, ..Workload::default() }
}

/// Runs `bench consume`.
pub(crate) fn run(args: &ConsumeArgs) -> Result<Report> {
    let workload = args.workload.resolve(&default_workload())?;
    if workload.partitions != 1 {
        return Err(BenchError::Usage("`bench consume` reads one partition; `bench e2e` has many".into()));
    }
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let mut report = Report::new(produce::machine(&args.place, &rig));
    let topic = topic(&rig, &workload, args.segment_bytes)?;
    report.results = measure(args.megabytes, args.groups.max(1), &workload, &rig, &topic, &mut meter)?;
    report.limits = meter.figures();
    report.notes.push(limits::WARMED.into());
    Ok(report)
}

/// A topic to be read.
pub(crate) fn topic(rig: &Rig, workload: &Workload, segment_bytes: Option<u32>) -> Result<Topic> {
    let segment_bytes = segment_bytes.map(|bytes| bytes.to_string());
    let segment_bytes = segment_bytes.as_deref().map(|bytes| ("segment.bytes", bytes));
    let settings: Vec<_> = [("durability", workload.durability.name())].into_iter().chain(segment_bytes).collect();
    rig.topic(1, &settings)
}

/// Measures all parts on a rig that is there.
pub(crate) fn measure(
    megabytes: u64,
    groups: usize,
    workload: &Workload,
    rig: &Rig,
    topic: &Topic,
    meter: &mut Meter,
) -> Result<Vec<Measured>> {
    let bodies = Bodies::of(workload)?;
    meter.slice(Duration::from_secs(1))?;
    let filled = rig.fill(topic, &bodies, workload, megabytes * 1_000_000)?;
    let mut one = catching_up("consume catch-up", 1, filled, workload);
    let mut many = catching_up("consume catch-up", groups, filled, workload);
    for run in 0..workload.repeats {
        live::say(&format!("{} catching up", live::bar(run as f64 / workload.repeats as f64)));
        for ((_, spent), readers) in [(&mut one, 1), (&mut many, groups)] {
            spent.push(catch_up(rig, topic, readers)?);
        }
        meter.slice(Duration::from_millis(500))?;
    }
    let send = meter.limit(SEND);
    let mut results = Vec::new();
    for (mut measured, spent) in [one, many] {
        measured.figure("bytes read", "B/s", Better::Higher, spent.iter().map(Spent::rate).collect());
        for limit in [SEND, SENDFILE, SPLICE] {
            measured.set_ratio("bytes read", limit, measured.value("bytes read") / meter.limit(limit));
        }
        add_spent(&mut measured, &spent);
        if spent.iter().any(|spent| spent.disk_share() < 0.5) {
            measured.notes.push(MOSTLY_MEMORY.into());
        }
        results.push(measured);
    }
    if groups == 1 {
        results.pop();
    }
    results.push(tail(rig, topic, &bodies, workload, send)?);
    results.push(soon(rig, topic, workload, meter)?);
    Ok(results)
}

fn catching_up(case: &str, readers: usize, bytes: u64, workload: &Workload) -> (Measured, Vec<Spent>) {
    let Workload { record_bytes, batch_records, .. } = workload;
    let megabytes = bytes / 1_000_000;
    let (readers, records) = (counted(readers, "reader"), counted(*batch_records, "record"));
    let load = format!("{readers} of {megabytes} MB each, {records} of {record_bytes} B a batch");
    (Measured::new(case, CORELOG, load), Vec::new())
}

/// What was read, and what the server used for it.
pub(crate) struct Spent {
    bytes: f64,
    seconds: f64,
    before: Usage,
    after: Usage,
}

impl Spent {
    /// Bytes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes / self.seconds
    }

    /// The part that the server read from the disk; blocks that were read twice count twice.
    pub(crate) fn disk_share(&self) -> f64 {
        self.after.grown(&self.before, "disk_read_bytes") / self.bytes
    }
}

/// What the server used for each GB that was read.
fn add_spent(measured: &mut Measured, runs: &[Spent]) {
    let per_gb = |of: &dyn Fn(&Spent) -> Option<f64>| -> Vec<f64> {
        runs.iter().filter_map(|spent| Some(of(spent)? / (spent.bytes / 1e9))).collect()
    };
    let processes = |spent: &Spent| spent.before.process.zip(spent.after.process);
    let cpu = |of: fn((f64, f64)) -> f64| {
        per_gb(&|spent| processes(spent).map(|(before, after)| of(after.cpu_since(&before)) / 1e9))
    };
    let switches =
        per_gb(&|spent| processes(spent).map(|(before, after)| after.switches.saturating_sub(before.switches) as f64));
    let grown = |name: &'static str| per_gb(&|spent| Some(spent.after.grown(&spent.before, name)));
    let memory = runs.iter().filter_map(|spent| Some(spent.after.process.as_ref()?.memory_peak as f64)).collect();
    let mut put = |name, unit, runs: Vec<f64>| measured.figure(name, unit, Better::Lower, runs);
    put("cpu per GB", "s", cpu(|(user, kernel)| user + kernel));
    put("cpu per GB, user", "s", cpu(|(user, _)| user));
    put("cpu per GB, kernel", "s", cpu(|(_, kernel)| kernel));
    put("ring calls per GB", "", grown("ring_calls"));
    put("flushes per GB", "", grown("flushes"));
    put("context switches per GB", "", switches);
    put("bytes from the device per GB", "B", grown("disk_read_bytes"));
    put("memory peak", "B", memory);
}

/// Reads all there is from the beginning, so many readers at once.
pub(crate) fn catch_up(rig: &Rig, topic: &Topic, readers: usize) -> Result<Spent> {
    let owner = topic.0.owner(0)?;
    let (before, began) = (rig.usage()?, Instant::now());
    let bytes = thread::scope(|scope| {
        let read = || -> Result<usize> {
            let mut reader = Reader::start(owner, &topic.0, &[0], From::Beginning)?;
            let mut bytes = 0;
            while !reader.is_at_end() {
                bytes += reader.receive(|_| ())?;
            }
            Ok(bytes)
        };
        let reading: Vec<_> = (0..readers).map(|_| scope.spawn(read)).collect();
        reading.into_iter().map(joined).sum::<Result<usize>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Spent { bytes: bytes as f64, seconds, before, after: rig.usage()? })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(BenchError::Server("a reading thread panicked".into())))
}

/// Produces as fast as it goes while a reader follows.
fn tail(rig: &Rig, topic: &Topic, bodies: &Bodies, workload: &Workload, send: f64) -> Result<Measured> {
    let (mut produced, mut consumed) = (Vec::new(), Vec::new());
    let each = bodies.bodies.iter().map(Vec::len).sum::<usize>() as f64 / bodies.bodies.len() as f64;
    for run in 0..workload.repeats {
        live::say(&format!("{} following the tail", live::bar(run as f64 / workload.repeats as f64)));
        let mut reader = Reader::start(topic.0.owner(0)?, &topic.0, &[0], From::End)?;
        let (stream, over, got) = (reader.stream()?, AtomicBool::new(false), AtomicU64::new(0));
        let (load, read) = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                loop {
                    match reader.receive(|_| ()) {
                        Ok(bytes) => drop(got.fetch_add(bytes as u64, Ordering::Relaxed)),
                        Err(_) if over.load(Ordering::Relaxed) => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            });
            let look = || Ok((got.load(Ordering::Relaxed), rig.usage()?));
            let load = rig.load_looked_at(topic, bodies, workload, look);
            over.store(true, Ordering::Relaxed);
            // One that ended by itself is as good.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            (load, joined(reading))
        });
        let (load, ()) = (load?, read?);
        produced.push(load.load.requests as f64 * each / load.load.seconds);
        let ((from, before), (to, after)) = (load.before, load.after);
        consumed.push(Spent { bytes: (to - from) as f64, seconds: load.load.seconds, before, after });
    }
    let mut measured = Measured::new("consume tail", CORELOG, workload.to_string());
    measured.figure("bytes produced", "B/s", Better::Higher, produced);
    measured.figure("bytes read", "B/s", Better::Higher, consumed.iter().map(Spent::rate).collect());
    measured.set_ratio("bytes read", SEND, measured.value("bytes read") / send);
    measured.set_ratio("bytes read", "bytes produced", measured.value("bytes read") / measured.value("bytes produced"));
    add_spent(&mut measured, &consumed);
    Ok(measured)
}

/// From send to push, one record at a time: with nobody else there, and beside a reader that is far behind.
pub(crate) fn soon(rig: &Rig, topic: &Topic, workload: &Workload, meter: &mut Meter) -> Result<Measured> {
    let one = Bodies::of(&Workload { batch_records: 1, ..workload.clone() })?;
    let (mut alone, mut beside, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..workload.repeats {
        live::say(&format!("{} from send to push", live::bar(run as f64 / workload.repeats as f64)));
        meter.slice(Duration::from_millis(500))?;
        let (mut quiet, mut busy) = (histogram(), histogram());
        let (began, turn) = (Instant::now(), TURN.min(Duration::from_secs_f64(workload.seconds)));
        while began.elapsed().as_secs_f64() < 2.0 * workload.seconds {
            send_and_wait(topic, &one.bodies[0], turn, &mut quiet)?;
            let is_over = AtomicBool::new(false);
            rates.push(thread::scope(|scope| {
                let other = scope.spawn(|| on_core(rig.cores.load, || read_again_and_again(topic, &is_over)));
                let measured = send_and_wait(topic, &one.bodies[0], turn, &mut busy);
                is_over.store(true, Ordering::Relaxed);
                let rate = joined(other);
                measured.and(rate)
            })?);
        }
        alone.push(quiet);
        beside.push(busy);
    }
    let size = &workload.record_bytes;
    let mut measured = Measured::new("consume soon", CORELOG, format!("one durable record of {size} B at a time"));
    measured.timing(SENT_TO_PUSHED, &alone);
    measured.timing(BESIDE, &beside);
    measured.figure("bytes read by the other", "B/s", Better::Higher, vec![median(&rates)]);
    let name = |timing: &str, percentile: &str| format!("{timing} {percentile}");
    let p50 = name(SENT_TO_PUSHED, "p50");
    let to_limits = measured.value(&p50) / meter.flush_and_round_trip_us();
    measured.set_ratio(&p50, "a raw flush and round trip", to_limits);
    for percentile in ["p50", "p99"] {
        let (with, without) = (name(BESIDE, percentile), name(SENT_TO_PUSHED, percentile));
        measured.set_ratio(&with, "that without it", measured.value(&with) / measured.value(&without));
    }
    Ok(measured)
}

/// Reads from the beginning to the end and begins anew, until told: bytes a second.
fn read_again_and_again(topic: &Topic, is_over: &AtomicBool) -> Result<f64> {
    let (began, mut bytes) = (Instant::now(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut reader = Reader::start(topic.0.owner(0)?, &topic.0, &[0], From::Beginning)?;
        while !reader.is_at_end() && !is_over.load(Ordering::Relaxed) {
            bytes += reader.receive(|_| ())?;
        }
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// Sends a record, waits until it is pushed, and so on.
fn send_and_wait(topic: &Topic, body: &[u8], duration: Duration, samples: &mut Histogram<u64>) -> Result<()> {
    let owner = topic.0.owner(0)?;
    let mut reader = Reader::start(owner, &topic.0, &[0], From::End)?;
    let mut producer = Connection::open(owner)?;
    let (handle, _) = producer.open_partition(&topic.0.name, 0)?;
    let began = Instant::now();
    while began.elapsed() < duration {
        let sent = Instant::now();
        producer.send(Operation::Produce, handle, &(), body)?;
        reader.receive(|_| ())?;
        samples.saturating_record(sent.elapsed().as_nanos() as u64);
        let answer = producer.receive()?;
        if answer.status != Status::Ok as u16 {
            return Err(producer.refused("produce", answer.status));
        }
    }
    Ok(())
}
