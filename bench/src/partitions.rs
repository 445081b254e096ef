//! `bench partitions`: what it costs that a commit spans many partitions. At the engine, without network: a batch in each
//! of P partitions, then the wait until all are durable.

use crate::error::Result;
use crate::report::{Latency, histogram};
use crate::rig::batch;
use crate::shard::{Committer, on_a_shard};
use clap::Args;
use corelog_engine::shard::Shard;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const COUNTS: [u32; 4] = [1, 16, 128, 1024];
/// Commits of one count before the next one's turn, so that all see the same minute of the machine.
const ROUND: u32 = 50;
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
    let (body, duration) = (batch(1, args.record_bytes)?, Duration::from_secs_f64(args.seconds));
    let points = on_a_shard(&args.dir, move |shard| measure(shard, body.clone(), duration))?;
    Ok(PartitionsReport { record_bytes: args.record_bytes, points })
}

async fn measure(shard: Shard, body: Vec<u8>, duration: Duration) -> std::result::Result<Vec<Point>, String> {
    let mut committer = Committer::new(&shard, COUNTS[COUNTS.len() - 1], body).await?;
    let flushes_now = || shard.reactor().counters().flushes.get();
    let mut samples: Vec<(Histogram<u64>, u64)> = COUNTS.iter().map(|_| (histogram(), 0)).collect();
    committer.commit(COUNTS[COUNTS.len() - 1]).await?; // makes every partition's first segment
    let began = Instant::now();
    while began.elapsed() < duration {
        for (count, (histogram, flushes)) in COUNTS.iter().zip(&mut samples) {
            let before = flushes_now();
            for _ in 0..ROUND {
                let begin = Instant::now();
                committer.commit(*count).await?;
                histogram.saturating_record(begin.elapsed().as_nanos() as u64);
            }
            *flushes += flushes_now() - before;
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
