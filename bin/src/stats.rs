//! `corelog stats`: what the shards have counted, and where the time of acknowledged appends went.

use crate::failure::Failure;
use crate::quantity;
use crate::server::{ServerArgs, failed};
use crate::table::Table;
use clap::Args;
use corelog_client::blocking::Admin;
use corelog_client::{ShardStats, StageInfo};
use serde_json::json;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

/// More shards than this are shown as their sum alone: nobody reads a line of a hundred columns.
const COLUMNS_MAX: usize = 8;
/// Lines of `--every` between two headings.
const HEADING_EVERY: u64 = 20;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Stats {
    #[command(flatten)]
    server: ServerArgs,
    /// Only this shard; may be repeated [default: all]
    #[arg(long = "shard", value_name = "N")]
    shards: Vec<u16>,
    /// Show a line of rates for each interval, like 1s, until interrupted
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    every: Option<Duration>,
    /// End after so many lines
    #[arg(long, value_name = "N", requires = "every", value_parser = quantity::number(1_u64.., "a number from 1"))]
    count: Option<u64>,
    /// Show JSON: one object, or one for each interval on a line of its own
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  corelog stats
  corelog stats --every 1s
  corelog stats --shard 0 --json

Totals are counted since the server's start. A stage is a part of the way of an append from its arrival at the core to
its acknowledgement; docs/operations.md says what each number and stage means. `serve --admin-listen` serves the same to
Prometheus.";

fn interval(text: &str) -> Result<Duration, String> {
    let interval = quantity::duration(text)?;
    let allowed = Duration::from_millis(10)..=Duration::from_secs(86_400);
    allowed.contains(&interval).then_some(interval).ok_or_else(|| "it must be a duration from 10ms to 1d".into())
}

pub(crate) fn run(args: Stats) -> Result<(), Failure> {
    let mut admin = args.server.admin()?;
    let shards = chosen(&args, &mut admin)?;
    match args.every {
        Some(interval) => follow(&args, &mut admin, &shards, interval),
        None => {
            let stats = ask(&mut admin, &shards)?;
            write(&if args.json { json_of(&stats) } else { text_of(&stats) })
        }
    }
}

fn chosen(args: &Stats, admin: &mut Admin) -> Result<Vec<u16>, Failure> {
    if !args.shards.is_empty() {
        return Ok(args.shards.clone());
    }
    let cluster = admin.cluster().map_err(failed)?;
    Ok(cluster.endpoints.iter().filter(|endpoint| endpoint.node == cluster.node).map(|e| e.shard).collect())
}

fn ask(admin: &mut Admin, shards: &[u16]) -> Result<Vec<ShardStats>, Failure> {
    shards.iter().map(|shard| admin.stats(*shard).map_err(failed)).collect()
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

fn sum(stats: &[ShardStats]) -> ShardStats {
    let (first, rest) =
        stats.split_first().map_or((ShardStats::default(), &[][..]), |(first, rest)| (first.clone(), rest));
    rest.iter().fold(first, |mut sum, shard| {
        sum.add(shard);
        sum
    })
}

fn text_of(stats: &[ShardStats]) -> String {
    let all = sum(stats);
    let columns = if stats.len() <= COLUMNS_MAX { stats } else { &[] };
    let mut heading = vec!["COUNT".to_owned()];
    heading.extend(columns.iter().map(|shard| format!("SHARD {}", shard.shard)));
    if columns.len() != 1 {
        heading.push("ALL".into());
    }
    let mut counts = Table::new(heading);
    for count in &all.counts {
        let mut row = vec![count.name.clone()];
        row.extend(columns.iter().map(|shard| shard.count(&count.name).to_string()));
        if columns.len() != 1 {
            row.push(count.value.to_string());
        }
        counts.row(row);
    }
    let mut stages = Table::new(["STAGE (us)", "APPENDS", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"]);
    for stage in &all.stages {
        let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        let mut row = vec![stage.name.clone(), stage.count().to_string(), us(stage.mean())];
        row.extend([0.5, 0.9, 0.99, 0.999, 1.0].map(|part| us(stage.quantile(part))));
        stages.row(row);
    }
    format!("{}\n{}", counts.text(), stages.text())
}

fn json_of(stats: &[ShardStats]) -> String {
    let shards: Vec<_> = stats.iter().map(json_of_shard).collect();
    format!("{}\n", json!({ "shards": shards }))
}

fn json_of_shard(stats: &ShardStats) -> serde_json::Value {
    let counts: serde_json::Map<_, _> =
        stats.counts.iter().map(|count| (count.name.clone(), count.value.into())).collect();
    let stages: serde_json::Map<_, _> =
        stats.stages.iter().map(|stage| (stage.name.clone(), json_of_stage(stage))).collect();
    json!({ "shard": stats.shard, "counts": counts, "stages": stages })
}

fn json_of_stage(stage: &StageInfo) -> serde_json::Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |part| us(stage.quantile(part));
    json!({
        "appends": stage.count(), "sum_us": us(stage.sum), "mean_us": us(stage.mean()), "p50_us": at(0.5),
        "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999), "p9999_us": at(0.9999), "max_us": at(1.0),
    })
}

fn follow(args: &Stats, admin: &mut Admin, shards: &[u16], interval: Duration) -> Result<(), Failure> {
    let (mut before, mut asked) = (sum(&ask(admin, shards)?), Instant::now());
    for line in 0..args.count.unwrap_or(u64::MAX) {
        thread::sleep((asked + interval).saturating_duration_since(Instant::now()));
        let (now, at) = (sum(&ask(admin, shards)?), Instant::now());
        let rates = Rates::of(&now.since(&before), at - asked);
        (before, asked) = (now, at);
        match args.json {
            true => write(&format!("{}\n", rates.json()))?,
            false if line % HEADING_EVERY == 0 => write(&format!("{}{}", Rates::HEADING, rates.line()))?,
            false => write(&rates.line())?,
        }
    }
    Ok(())
}

/// What happened in an interval, a second.
struct Rates {
    seconds: f64,
    appends: f64,
    records: f64,
    appended_bytes: f64,
    read_bytes: f64,
    commits: f64,
    refusals: f64,
    /// Mean time of an append in all stages, and the 99th part of the longest.
    mean: Duration,
    slowest: StageInfo,
}

impl Rates {
    const HEADING: &str =
        " appends/s  records/s  in MB/s out MB/s  commits/s refused/s  mean us  slowest stage, its mean and p99 us\n";

    fn of(stats: &ShardStats, interval: Duration) -> Rates {
        let seconds = interval.as_secs_f64();
        let rate = |name| stats.count(name) as f64 / seconds;
        Rates {
            seconds,
            appends: rate("appends"),
            records: rate("appended_records"),
            appended_bytes: rate("appended_bytes"),
            read_bytes: rate("read_bytes"),
            commits: rate("commits"),
            refusals: rate("refusals"),
            mean: stats.stages.iter().map(StageInfo::mean).sum(),
            slowest: stats.stages.iter().max_by_key(|stage| stage.mean()).cloned().unwrap_or_default(),
        }
    }

    fn line(&self) -> String {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        format!(
            "{:>10.0} {:>10.0} {:>8.1} {:>8.1} {:>10.0} {:>9.0} {:>8.0}  {} {:.0} {:.0}\n",
            self.appends,
            self.records,
            self.appended_bytes / 1e6,
            self.read_bytes / 1e6,
            self.commits,
            self.refusals,
            us(self.mean),
            if self.slowest.count() == 0 { "-" } else { &self.slowest.name },
            us(self.slowest.mean()),
            us(self.slowest.quantile(0.99)),
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "seconds": self.seconds, "appends_per_second": self.appends, "records_per_second": self.records,
            "appended_bytes_per_second": self.appended_bytes, "read_bytes_per_second": self.read_bytes,
            "commits_per_second": self.commits, "refusals_per_second": self.refusals,
            "mean_us": self.mean.as_secs_f64() * 1e6, "slowest_stage": self.slowest.name,
        })
    }
}
