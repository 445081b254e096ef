//! `bench checkpoint`: what commits feel of checkpoints. At the engine, without network: one commit after the other, told
//! apart by whether a checkpoint was under way.

use super::produce::CORELOG;
use super::shard::{Committer, on_a_shard};
use crate::error::Result;
use crate::report::latency::{histogram, joined};
use crate::report::{Better, Machine, Measured, Report};
use crate::workload::batches::Bodies;
use crate::workload::{Sizes, Workload, counted};
use clap::Args;
use corelog_engine::shard::Shard;
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::slice::from_ref;
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
    pub record_bytes: u32,
    /// Partitions that a commit spans.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// Runs `bench checkpoint`.
pub(crate) fn run(args: &CheckpointArgs) -> Result<Report> {
    let mut report = Report::new(Machine::this(&args.dir));
    report.results.push(measured(args)?);
    Ok(report)
}

/// Commits for so long.
pub(crate) fn measured(args: &CheckpointArgs) -> Result<Measured> {
    let workload = Workload { record_bytes: Sizes::Fixed(args.record_bytes), ..Workload::default() };
    let (body, partitions) = (Bodies::of(&workload)?.bodies.remove(0), args.partitions);
    let duration = Duration::from_secs_f64(args.seconds);
    let samples = on_a_shard(&args.dir, move |shard| measure(shard, partitions, body.clone(), duration))?;
    let each = counted(partitions, "partition");
    let load = format!("{} B in each of {each}, one commit after the other", args.record_bytes);
    let mut measured = Measured::new("checkpoint", CORELOG, load);
    measured.figure("checkpoints", "", Better::Neither, vec![samples.checkpoints as f64]);
    measured.timing("without a checkpoint", from_ref(&samples.without));
    measured.timing("beside a checkpoint", from_ref(&samples.beside));
    measured.timing("all commits", &[joined([&samples.without, &samples.beside])]);
    let (all, without) = (measured.value("all commits p99"), measured.value("without a checkpoint p99"));
    measured.set_ratio("all commits p99", "that without a checkpoint", all / without);
    Ok(measured)
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
