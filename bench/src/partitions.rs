//! `bench partitions`: what it costs that a commit spans many partitions. At the engine, without network: a batch in each
//! of P partitions, then the wait until all are durable.

use crate::cores::Cores;
use crate::error::{BenchError, Result};
use crate::interrupt;
use crate::report::{Latency, histogram};
use crate::rig::batch;
use clap::Args;
use corelog_engine::error::AppendError;
use corelog_engine::limits::JOURNAL_BYTES_DEFAULT;
use corelog_engine::model::PartitionId;
use corelog_engine::node::{self, NodeConfig, Stop};
use corelog_engine::reactor::Reactor;
use corelog_engine::shard::{Command, Completed, PartitionHandle, Session, Shard};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const COUNTS: [u32; 4] = [1, 16, 128, 1024];
/// Commits of one count before the next one's turn, so that all see the same minute of the machine.
const ROUND: u32 = 50;
/// Little, so that all of it was touched before long: a first touch of a page is the machine's cost, not the log's.
const MEMORY: u64 = 512 << 20;
/// Between two tries of an append that found the shard at a bound.
const BUSY_PAUSE: Duration = Duration::from_micros(100);
/// The default of `serve`.
const SPIN: Duration = Duration::from_micros(50);

/// Arguments of `bench partitions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  corelog bench partitions --seconds 10")]
pub struct PartitionsArgs {
    /// Directory for the data, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Bytes of the record in each partition.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub record_bytes: usize,
    /// How long to measure, all in all.
    #[arg(long, value_name = "SECONDS", default_value_t = 8.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// The time of a commit of so many partitions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// Partitions that a commit spans.
    pub partitions: u32,
    /// From the first append to the last acknowledgement.
    pub latency: Latency,
    /// p50 to that of one partition.
    pub to_one: f64,
    /// Flushes for each of these commits.
    pub flushes: f64,
}

/// The report of `bench partitions`.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionsReport {
    /// Bytes of the record in each partition.
    pub record_bytes: usize,
    /// A point for each number of partitions, ascending.
    pub points: Vec<Point>,
}

/// Runs `bench partitions`.
pub(crate) fn run(args: &PartitionsArgs) -> Result<PartitionsReport> {
    let directory = interrupt::scratch(&args.dir)?;
    let (body, duration) = (batch(1, args.record_bytes)?, Duration::from_secs_f64(args.seconds));
    let (data, record_bytes) = (directory.path().join("data"), args.record_bytes);
    Ok(PartitionsReport { record_bytes, points: measure_on_a_shard(&data, body, duration)? })
}

/// Runs a node of one shard, without a server, until all is measured.
fn measure_on_a_shard(data: &Path, body: Vec<u8>, duration: Duration) -> Result<Vec<Point>> {
    let config = NodeConfig {
        data_dir: data.to_owned(),
        shards: 1,
        cpus: Cores::choose().server.into_iter().collect(),
        memory: MEMORY,
        journal_bytes: JOURNAL_BYTES_DEFAULT,
        disk_reserve_bytes: 0,
        retention_interval: Duration::from_secs(60),
        spin: SPIN,
    };
    let (tell, told) = mpsc::channel();
    let body: Arc<[u8]> = body.into();
    let ran = node::run(&config, &Stop::default(), move |start| {
        let (tell, body) = (tell.clone(), body.clone());
        async move {
            let points = measure(start.shard.reactor(), &start.shard, &body, duration).await?;
            // The receiver outlives the node.
            tell.send(points).map_err(|error| error.to_string())
        }
    });
    let failed = |why: String| BenchError::Server(format!("the shard could not be measured: {why}"));
    ran.map_err(|error| failed(error.to_string()))?;
    told.recv().map_err(|error| failed(error.to_string()))
}

async fn measure(
    reactor: &Reactor,
    shard: &Shard,
    body: &[u8],
    duration: Duration,
) -> std::result::Result<Vec<Point>, String> {
    let handles = open(shard).await?;
    let session = Session::new(handles.len());
    let mut samples: Vec<(Histogram<u64>, u64)> = COUNTS.iter().map(|_| (histogram(), 0)).collect();
    commit(reactor, shard, &session, &handles, body).await?; // makes every partition's first segment
    let began = Instant::now();
    while began.elapsed() < duration {
        for (count, (histogram, flushes)) in COUNTS.iter().zip(&mut samples) {
            let before = reactor.counters().flushes.get();
            for _ in 0..ROUND {
                let begin = Instant::now();
                commit(reactor, shard, &session, &handles[..*count as usize], body).await?;
                histogram.saturating_record(begin.elapsed().as_nanos() as u64);
            }
            *flushes += reactor.counters().flushes.get() - before;
        }
    }
    let latencies: Vec<Latency> = samples.iter().map(|(histogram, _)| Latency::of(histogram)).collect();
    let one = latencies.first().map_or(f64::NAN, |latency| latency.p50_us);
    let point = |(at, latency): (usize, &Latency)| Point {
        partitions: COUNTS[at],
        latency: *latency,
        to_one: latency.p50_us / one,
        flushes: samples[at].1 as f64 / latency.count as f64,
    };
    Ok(latencies.iter().enumerate().map(point).collect())
}

async fn open(shard: &Shard) -> std::result::Result<Vec<PartitionHandle>, String> {
    let partitions = COUNTS[COUNTS.len() - 1];
    let create = Command::CreateTopic { name: "bench".into(), partitions, settings: Vec::new() };
    shard.command(create).await.map_err(|error| error.to_string())?;
    let ids: Vec<PartitionId> = shard.catalog().topics().flat_map(|topic| topic.partition_ids()).collect();
    ids.into_iter().map(|id| shard.open(id).ok_or_else(|| format!("{id} does not open"))).collect()
}

/// Appends the batch to each partition and waits for all acknowledgements.
async fn commit(
    reactor: &Reactor,
    shard: &Shard,
    session: &Session,
    handles: &[PartitionHandle],
    body: &[u8],
) -> std::result::Result<(), String> {
    for (ticket, handle) in handles.iter().enumerate() {
        loop {
            match shard.append(*handle, body, session, ticket as u64) {
                Ok(()) => break,
                // A checkpoint frees memory; the wait for it is part of this commit's time.
                Err(AppendError::Busy) => reactor.sleep(BUSY_PAUSE).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    let mut waiting = handles.len();
    while waiting > 0 {
        session.completed().await;
        while let Some(outcome) = session.pop() {
            match outcome {
                Completed::Appended { .. } => waiting -= 1,
                other => return Err(format!("{other:?}")),
            }
        }
    }
    Ok(())
}

impl fmt::Display for PartitionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a durable commit of {} B in each of so many partitions, at the engine", self.record_bytes)?;
        writeln!(f, "partitions  to one  flushes {}", Latency::HEADING)?;
        for Point { partitions, latency, to_one, flushes } in &self.points {
            writeln!(f, "{partitions:>10} {to_one:>7.2} {flushes:>8.2} {latency}")?;
        }
        Ok(())
    }
}
