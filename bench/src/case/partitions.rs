//! `bench partitions`: what it costs that a commit spans many partitions. At the engine, without network: a batch in each
//! of P partitions, then the wait until all are durable.

use super::produce::CORELOG;
use super::shard::{Committer, on_a_shard};
use crate::error::Result;
use crate::machine::limits;
use crate::report::latency::{histogram, joined};
use crate::report::{Better, Machine, Measured, Report, live};
use crate::workload::batches::Bodies;
use crate::workload::{Sizes, Workload, counted};
use clap::Args;
use corelog_engine::shard::Shard;
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const COUNTS: [u32; 5] = [1, 16, 128, 1024, 10_000];
/// Parts of the measured time: the runs of a figure.
const FIFTHS: u32 = 5;
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
    pub record_bytes: u32,
    /// Leave out commits that span more partitions than this.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub most: u32,
    /// How long to measure, all in all.
    #[arg(long, value_name = "SECONDS", default_value_t = 8.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// Runs `bench partitions`.
pub(crate) fn run(args: &PartitionsArgs) -> Result<Report> {
    let mut report = Report::new(Machine::this(&args.dir));
    report.results = points(args)?;
    report.notes.push(limits::WARMED.into());
    Ok(report)
}

/// The name of what a point's p50 and flushes are called.
pub(crate) const COMMIT: &str = "commit";
pub(crate) const OF_ONE: &str = "that of one partition";

/// A result for each number of partitions, ascending.
pub(crate) fn points(args: &PartitionsArgs) -> Result<Vec<Measured>> {
    let workload = Workload { record_bytes: Sizes::Fixed(args.record_bytes), ..Workload::default() };
    let (body, duration) = (Bodies::of(&workload)?.bodies.remove(0), Duration::from_secs_f64(args.seconds));
    let counts: Vec<u32> = COUNTS.into_iter().filter(|count| *count <= args.most).collect();
    let samples = on_a_shard(&args.dir, move |shard| measure(shard, counts.clone(), body.clone(), duration))?;
    let one = samples.first().map_or(f64::NAN, median_us);
    let point = |samples: &Samples| {
        let load = format!("{} B in each of {}", args.record_bytes, counted(samples.partitions, "partition"));
        let mut measured = Measured::new("partitions", CORELOG, load);
        measured.timing(COMMIT, &samples.rounds);
        measured.figure("flushes", "", Better::Lower, vec![samples.flushes as f64 / samples.commits() as f64]);
        measured.set_ratio(&format!("{COMMIT} p50"), OF_ONE, median_us(samples) / one);
        measured
    };
    Ok(samples.iter().map(point).collect())
}

/// Commits that span so many partitions, a histogram for each fifth of the time: empty where those of other counts took longer
/// than that.
struct Samples {
    partitions: u32,
    rounds: Vec<Histogram<u64>>,
    flushes: u64,
}

impl Samples {
    fn commits(&self) -> u64 {
        self.rounds.iter().map(Histogram::len).sum()
    }
}

fn median_us(samples: &Samples) -> f64 {
    joined(&samples.rounds).value_at_quantile(0.5) as f64 / 1e3
}

async fn measure(
    shard: Shard,
    counts: Vec<u32>,
    body: Vec<u8>,
    duration: Duration,
) -> std::result::Result<Vec<Samples>, String> {
    let most = counts.last().copied().unwrap_or(1);
    let mut committer = Committer::new(&shard, most, body).await?;
    let flushes_now = || shard.reactor().counters().flushes.get();
    let samples = |partitions| Samples { partitions, rounds: Vec::new(), flushes: 0 };
    let mut all: Vec<Samples> = counts.into_iter().map(samples).collect();
    committer.commit(most).await?; // makes every partition's first segment
    let began = Instant::now();
    for fifth in 1..=FIFTHS {
        all.iter_mut().for_each(|samples| samples.rounds.push(histogram()));
        while began.elapsed() < duration * fifth / FIFTHS {
            for samples in &mut all {
                let before = flushes_now();
                for _ in 0..round(samples.partitions) {
                    let begin = Instant::now();
                    committer.commit(samples.partitions).await?;
                    let took = begin.elapsed().as_nanos() as u64;
                    samples.rounds.last_mut().into_iter().for_each(|round| round.saturating_record(took));
                }
                samples.flushes += flushes_now() - before;
            }
        }
        live::say(&format!("{} partitions", live::bar(f64::from(fifth) / f64::from(FIFTHS))));
    }
    Ok(all)
}

/// Commits of one count before the next one's turn: fewer of those that take long, so that all have their share.
fn round(partitions: u32) -> u32 {
    if partitions > 1024 { ROUND / 10 } else { ROUND }
}
