//! `bench e2e`: from when a record should have been sent until a consumer has it, by one clock.

use crate::case::produce::{self, ACK};
use crate::error::{BenchError, Result};
use crate::load::Pace;
use crate::load::reader::{From, Reader, Seen, Watch};
use crate::machine::limits::{self, FLUSH, Meter, ROUND_TRIP};
use crate::report::live::Runs;
use crate::report::{Better, Measured, Report};
use crate::server::connection::Connection;
use crate::server::rig::{Place, Rig};
use crate::server::topic::Topic;
use crate::workload::batches::Bodies;
use crate::workload::{Workload, WorkloadArgs, counted};
use clap::Args;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub(crate) const END_TO_END: &str = "end to end";
/// What it is compared with.
pub(crate) const OF_FLOOR: &str = "a raw flush and two round trips";
const PACED_FLUSH: &str = "raw flush of 4 KiB at this pace";
/// What is under way when the measured time ends has this time to arrive.
const TO_ARRIVE: Duration = Duration::from_millis(500);
/// Most connections of consumers: each is read by a thread.
const READERS_MAX: usize = 256;

/// Arguments of `bench e2e`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  corelog bench e2e                                  1,000 records of 1 KiB a second, one producer, one consumer
  corelog bench e2e --rate 50000 --partitions 16 --producers 8 --consumers 4 --groups 2")]
pub struct E2eArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) audience: Audience,
}

/// Who reads.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Audience {
    /// Groups of consumers: each group gets every record.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub groups: usize,
    /// Consumers in a group, which share the partitions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub consumers: usize,
}

/// One producer, paced: what most end-to-end measurements of logs are quoted for.
pub(crate) fn default_workload() -> Workload {
    Workload { producers: 1, pace: Pace::Open { requests_per_second: 1000.0 }, ..Workload::default() }
}

/// Runs `bench e2e`.
pub(crate) fn run(args: &E2eArgs) -> Result<Report> {
    let workload = args.workload.resolve(&default_workload())?;
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let mut report = Report::new(produce::machine(&args.place, &rig));
    report.results.push(measure("e2e", &workload, args.audience, &rig, &mut meter)?);
    report.limits = meter.figures();
    report.notes.push(limits::WARMED.into());
    Ok(report)
}

/// Measures one load with its readers on a rig that is there.
pub(crate) fn measure(
    case: &str,
    workload: &Workload,
    audience: Audience,
    rig: &Rig,
    meter: &mut Meter,
) -> Result<Measured> {
    let bodies = Bodies::of(workload)?;
    let (mut runs, mut seen, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..workload.repeats {
        meter.slice(Duration::from_secs_f64(workload.seconds / 3.0))?;
        if let Some(every) = interval(workload) {
            floor.push(meter.paced_flush(every, Duration::from_secs_f64(workload.seconds))?);
        }
        // A new topic each time: readers begin where nobody has written.
        let topic = rig.topic(workload.partitions, &[("durability", workload.durability.name())])?;
        let live = Runs::new(case, workload.repeats, workload.seconds, f64::from(workload.batch_records));
        let readers = readers(&topic, audience)?;
        let streams = readers.iter().map(Reader::stream).collect::<Result<Vec<_>>>()?;
        let watch = Watch::new();
        let (load, got) = thread::scope(|scope| {
            let following: Vec<_> = readers.into_iter().map(|reader| watch.follow(scope, reader)).collect();
            let load = rig.load_watched(&topic, &bodies, workload, &watch, (live, run));
            thread::sleep(TO_ARRIVE);
            watch.close(&streams);
            let panicked = |_| Err(BenchError::Server("a reading thread panicked".into()));
            let got: Result<Vec<Seen>> =
                following.into_iter().map(|reader| reader.join().unwrap_or_else(panicked)).collect();
            (load, got)
        });
        runs.push(load?);
        seen.push(got?);
    }
    let mut measured = produce::corelog(case, workload, &bodies, &runs);
    let Audience { groups, consumers } = audience;
    measured.load += &format!("; {} of {}", counted(groups, "group"), counted(consumers, "consumer"));
    add_seen(&mut measured, &seen, workload);
    compare(&mut measured, meter, &floor);
    Ok(measured)
}

/// Between two requests of an open loop.
fn interval(workload: &Workload) -> Option<Duration> {
    match workload.pace {
        Pace::Open { requests_per_second } => {
            Some(Duration::from_secs_f64(1.0 / requests_per_second).max(Duration::from_nanos(1)))
        }
        _ => None,
    }
}

/// A reader for each consumer and shard, with the partitions that fall to it.
fn readers(topic: &Topic, audience: Audience) -> Result<Vec<Reader>> {
    let Topic(topic) = topic;
    let owners = Connection::open(topic.address)?.owners(&topic.name)?;
    let mut readers = Vec::new();
    for consumer in (0..audience.groups).flat_map(|_| 0..audience.consumers) {
        let mut by_shard: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
        for (partition, owner) in
            owners.iter().enumerate().filter(|(number, _)| number % audience.consumers == consumer)
        {
            by_shard.entry(*owner).or_default().push(partition as u32);
        }
        for (shard, partitions) in by_shard {
            if readers.len() == READERS_MAX {
                return Err(BenchError::Usage(format!("consumers would need more than {READERS_MAX} connections")));
            }
            readers.push(Reader::start(shard, topic, &partitions, From::End)?);
        }
    }
    Ok(readers)
}

fn add_seen(measured: &mut Measured, seen: &[Vec<Seen>], workload: &Workload) {
    let of_run = |of: fn(&Seen) -> u64| -> Vec<f64> {
        seen.iter().map(|run| run.iter().map(of).sum::<u64>() as f64 / workload.seconds).collect()
    };
    measured.figure("records received", "1/s", Better::Higher, of_run(|seen| seen.records));
    measured.figure("bytes received", "B/s", Better::Higher, of_run(|seen| seen.bytes));
    let joined: Vec<_> =
        seen.iter().map(|run| crate::report::latency::joined(run.iter().map(|seen| &seen.latency))).collect();
    measured.timing(END_TO_END, &joined);
}

/// A durable record cannot be there before a flush and two ways over the network. A paced load is set against a flush at
/// the same pace, if it was measured: idle cores and disks answer later than busy ones.
fn compare(measured: &mut Measured, meter: &Meter, paced: &[Histogram<u64>]) {
    if !paced.is_empty() {
        measured.timing(PACED_FLUSH, paced);
    }
    for percentile in ["p50", "p99"] {
        let flush = match paced {
            [] => meter.limit(&format!("{FLUSH} {percentile}")),
            _ => measured.value(&format!("{PACED_FLUSH} {percentile}")),
        };
        let round_trip = meter.limit(&format!("{ROUND_TRIP} {percentile}"));
        let mut compare = |name: &str, limit, of| {
            let name = format!("{name} {percentile}");
            measured.set_ratio(&name, of, measured.value(&name) / limit);
        };
        compare(END_TO_END, flush + 2.0 * round_trip, OF_FLOOR);
        compare(ACK, flush + round_trip, "a raw flush and round trip");
    }
}
