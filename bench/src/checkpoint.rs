//! `bench checkpoint`: what commits feel of checkpoints. At the engine, without network: one commit after the other, told
//! apart by whether a checkpoint was under way.

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

/// Arguments of `bench checkpoint`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  corelog bench checkpoint --seconds 20")]
pub struct CheckpointArgs {
    /// Directory for the data, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Bytes of the record in each partition.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub record_bytes: usize,
    /// Partitions that a commit spans.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// The report of `bench checkpoint`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointReport {
    /// Bytes of the record in each partition.
    pub record_bytes: usize,
    /// Partitions that a commit spans.
    pub partitions: u32,
    /// Checkpoints that were completed.
    pub checkpoints: u64,
    /// Commits while none was under way.
    pub without: Latency,
    /// Commits that met one.
    pub beside: Latency,
    /// All of them.
    pub all: Latency,
    /// p99 of all commits to p99 of those without.
    pub p99_to_without: f64,
}

/// Runs `bench checkpoint`.
pub(crate) fn run(args: &CheckpointArgs) -> Result<CheckpointReport> {
    let (body, partitions) = (batch(1, args.record_bytes)?, args.partitions);
    let duration = Duration::from_secs_f64(args.seconds);
    let samples = on_a_shard(&args.dir, move |shard| measure(shard, partitions, body.clone(), duration))?;
    let mut all = samples.without.clone();
    // Histograms of the same bounds always add up.
    let _ = all.add(&samples.beside);
    let (without, beside, all) = (Latency::of(&samples.without), Latency::of(&samples.beside), Latency::of(&all));
    Ok(CheckpointReport {
        record_bytes: args.record_bytes,
        partitions,
        checkpoints: samples.checkpoints,
        p99_to_without: all.p99_us / without.p99_us,
        without,
        beside,
        all,
    })
}

struct Samples {
    without: Histogram<u64>,
    beside: Histogram<u64>,
    checkpoints: u64,
}

async fn measure(
    shard: Shard,
    partitions: u32,
    body: Vec<u8>,
    duration: Duration,
) -> std::result::Result<Samples, String> {
    let mut committer = Committer::new(&shard, partitions, body).await?;
    let counters = shard.counters();
    let begun = || counters.checkpoints_begun.get();
    let mut samples = Samples { without: histogram(), beside: histogram(), checkpoints: 0 };
    // The first round of the journal touches its space for the first time, and its blocks' memory.
    while counters.checkpoints.get() < 2 {
        committer.commit(partitions).await?;
    }
    let (before, began) = (counters.checkpoints.get(), Instant::now());
    while began.elapsed() < duration {
        let (under_way, seen) = (begun() != counters.checkpoints.get(), begun());
        let commit = Instant::now();
        committer.commit(partitions).await?;
        let is_beside = under_way || begun() != seen;
        let histogram = if is_beside { &mut samples.beside } else { &mut samples.without };
        histogram.saturating_record(commit.elapsed().as_nanos() as u64);
    }
    samples.checkpoints = counters.checkpoints.get() - before;
    Ok(samples)
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckpointReport { record_bytes, partitions, checkpoints, without, beside, all, p99_to_without } = self;
        writeln!(f, "durable commits of {record_bytes} B in each of {partitions} partitions, one after the other")?;
        writeln!(f, "{checkpoints} checkpoints       commits {}", Latency::HEADING)?;
        for (what, latency) in [("without a checkpoint", without), ("beside a checkpoint", beside), ("all", all)] {
            writeln!(f, "{what:<22} {:>9} {latency}", latency.count)?;
        }
        writeln!(f, "p99 of all to p99 of those without: {p99_to_without:.2}")
    }
}
