//! `bench partitions`: what it costs that a commit spans many partitions. At the engine, without network: a batch in each
//! of P partitions, then the wait until all are durable.

use crate::cores::Cores;
use crate::error::{BenchError, Doing, Result};
use crate::report::{Latency, histogram};
use crate::rig::batch;
use clap::Args;
use corelog_engine::limits::{
    COMMITS_IN_FLIGHT_MAX, DIRECT_BYTES_MIN, JOURNAL_BYTES_DEFAULT, JOURNAL_ENTRY_BYTES_MAX, MemoryBudget,
};
use corelog_engine::metadata::Bounds;
use corelog_engine::model::{PartitionId, ShardId};
use corelog_engine::reactor::{Reactor, mesh, ring, run_ring};
use corelog_engine::shard::{Command, Completed, PartitionHandle, Session, Shard, ShardConfig};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const COUNTS: [u32; 4] = [1, 16, 128, 1024];
/// Commits of one count before the next one's turn, so that all see the same minute of the machine.
const ROUND: u32 = 50;
const MEMORY: u64 = 1 << 30;

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
    #[arg(long, value_name = "SECONDS", default_value_t = 8.0)]
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
    let directory = tempfile::Builder::new().prefix("corelog-bench-").tempdir_in(&args.dir);
    let directory = directory.doing("making a directory for the data")?;
    let (body, duration) = (batch(1, args.record_bytes)?, Duration::from_secs_f64(args.seconds));
    let (data, record_bytes) = (directory.path().join("data"), args.record_bytes);
    // A thread of its own, because the reactor pins the one it runs on.
    let measured = thread::spawn(move || measure_on_a_shard(&data, body, duration)).join();
    let points = measured.unwrap_or_else(|_| Err(BenchError::Server("the shard's thread panicked".into())))?;
    Ok(PartitionsReport { record_bytes, points })
}

fn measure_on_a_shard(data: &Path, body: Vec<u8>, duration: Duration) -> Result<Vec<Point>> {
    let budget = MemoryBudget::plan(MEMORY, 1).map_err(|error| BenchError::Usage(error.to_string()))?;
    let pool_bytes = budget.pool.bytes as usize;
    let cpu = Cores::choose().server;
    let options = ring::Options { shard: ShardId(0), shards: 1, cpu, pool_bytes, ..ring::Options::default() };
    let config = config(data, &budget);
    let ran = run_ring(options, move |reactor| async move {
        let mesh = mesh::build(1, 16).pop().ok_or("the mesh has no end")?.attach(&reactor);
        let shard = Shard::start(reactor.clone(), mesh, config).await.map_err(|error| error.to_string())?;
        let points = measure(&reactor, &shard, &body, duration).await;
        shard.stop().await;
        points
    });
    let failed = |why: String| BenchError::Server(format!("the shard could not be measured: {why}"));
    ran.map_err(|error| failed(error.to_string()))?.map_err(failed)
}

/// What `serve` gives a single shard, with the space of a small disk in mind.
fn config(data: &Path, budget: &MemoryBudget) -> ShardConfig {
    ShardConfig {
        data_dir: data.to_owned(),
        generation: 0,
        node: 1,
        journal_bytes: JOURNAL_BYTES_DEFAULT,
        entry_bytes_max: JOURNAL_ENTRY_BYTES_MAX as usize,
        commits_in_flight: usize::from(COMMITS_IN_FLIGHT_MAX),
        direct_bytes_min: DIRECT_BYTES_MIN as usize,
        tail_bytes_max: budget.pool.tails as usize,
        waiting_bytes_max: 16 << 20,
        read_bytes: 1 << 20,
        read_bytes_max: budget.pool.reads as usize,
        files_max: 256,
        checkpoint_interval: Duration::from_secs(1),
        retention_interval: Duration::from_secs(60),
        disk_reserve_bytes: 0,
        bounds: Bounds::default(),
    }
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
    commit(shard, &session, &handles, body).await?; // makes every partition's first segment
    let began = Instant::now();
    while began.elapsed() < duration {
        for (count, (histogram, flushes)) in COUNTS.iter().zip(&mut samples) {
            let before = reactor.counters().flushes.get();
            for _ in 0..ROUND {
                let begin = Instant::now();
                commit(shard, &session, &handles[..*count as usize], body).await?;
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
    shard: &Shard,
    session: &Session,
    handles: &[PartitionHandle],
    body: &[u8],
) -> std::result::Result<(), String> {
    for (ticket, handle) in handles.iter().enumerate() {
        shard.append(*handle, body, session, ticket as u64).map_err(|error| error.to_string())?;
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
