//! Load and reports: how fast corelog is, set against what the machine itself can do in the same minutes.
//!
//! [`run`] is `corelog bench`. Every run shows the machine's limits, measured in turns with it, and the ratio to them:
//! figures of a shared or virtual machine mean little by themselves.
#![forbid(unsafe_code)]

mod case;
mod error;
pub mod load;
mod machine;
pub mod report;
mod server;
pub mod workload;

pub use case::bars::{Bar, BarsReport};
pub use corelog_yardstick::heap::Counting;
pub use error::BenchError;
pub use report::diff::DiffArgs;
pub use server::connection::Connection;
pub use server::embedded::Embedded;
pub use server::process::{Server, ServerOptions, free_address};

use case::{all, bars, checkpoint, consume, e2e, partitions, produce, reactors, recovery, zerocopy};
use clap::Subcommand;
use error::{Doing, Result};
use report::{Report, live};
use serde::Serialize;
pub use server::interrupt;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

/// Arguments of `corelog bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  corelog bench limits
  corelog bench produce --html report.html
  corelog bench all --json > report.json

Exit status: 0 measured, 1 could not be measured, 2 usage, 3 a bar was not met or something got worse.")]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
    /// Print JSON instead of tables.
    #[arg(long, global = true, conflicts_with = "csv")]
    pub json: bool,
    /// Print a row of CSV for each run of each figure; `bars` and `diff` have none.
    #[arg(long, global = true)]
    pub csv: bool,
    /// Also write one HTML page with charts, which needs no network; `bars` and `diff` have none.
    #[arg(long, global = true, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Say a line a second on standard error although it is no terminal.
    #[arg(long, global = true, conflicts_with = "quiet")]
    pub live: bool,
    /// Say nothing while it runs.
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// A time to measure in: zero would measure nothing.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| SECONDS.contains(seconds));
    seconds.ok_or_else(|| "it must be a number of seconds from 0.1 to 86400".to_owned())
}

const SECONDS: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum What {
    /// What the machine can do: flush, disk, loopback, checksum, memory.
    Limits(machine::limits::LimitsArgs),
    /// Producers: throughput, latency and CPU, beside a bare loop under the same load.
    Produce(produce::ProduceArgs),
    /// A mini broker on the engine's reactor and on glommio, beside the bare loop and all of corelog.
    Reactors(reactors::ReactorsArgs),
    /// Consumers: catching up, following the tail, and the time from send to push.
    Consume(consume::ConsumeArgs),
    /// Producers and consumers: the time from when a record was due to when it was read.
    E2e(e2e::E2eArgs),
    /// Time from a kill under load to the next acknowledgement.
    Recovery(recovery::RecoveryArgs),
    /// A commit that spans 1, 16, 128, 1,024, 10,000 partitions, at the engine.
    Partitions(partitions::PartitionsArgs),
    /// Commits while a checkpoint is under way, and while none is, at the engine.
    Checkpoint(checkpoint::CheckpointArgs),
    /// A file over TCP in every way there is, from 7 MB to 1 GB, hot and cold.
    Zerocopy(zerocopy::ZerocopyArgs),
    /// All of these but reactors with their usual loads, in one report.
    All(all::AllArgs),
    /// All that corelog promises of speed and memory, each with its bar.
    Bars(bars::BarsArgs),
    /// What changed from one report to another beyond noise.
    Diff(DiffArgs),
    /// A process of a load that several make.
    #[command(hide = true, after_help = "Started by `corelog bench --processes`.")]
    Worker,
}

/// How a benchmark that could be run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There were figures to show, or all bars were met.
    Measured,
    /// At least one bar was not met, or a figure got worse: exit status 3.
    BelowBar,
}

impl Outcome {
    fn good(is_good: bool) -> Outcome {
        if is_good { Outcome::Measured } else { Outcome::BelowBar }
    }
}

/// Runs a benchmark and prints its report to standard output.
///
/// # Errors
/// When it could not be run.
pub fn run(args: &Args) -> Result<Outcome> {
    if args.live || args.quiet {
        live::want(args.live);
    }
    check_forms(args)?;
    // A page that cannot be written should not be noticed after an hour.
    if let Some(path) = &args.html {
        std::fs::write(path, "").doing(&format!("writing {}", path.display()))?;
    }
    interrupt::watch()?;
    let outcome = measure(args);
    interrupt::give_way();
    outcome
}

fn measure(args: &Args) -> Result<Outcome> {
    let report = match &args.what {
        What::Limits(limits) => machine::limits::run(limits)?,
        What::Produce(produce) => produce::run(produce)?,
        What::Reactors(reactors) => reactors::run(reactors)?,
        What::Consume(consume) => consume::run(consume)?,
        What::E2e(e2e) => e2e::run(e2e)?,
        What::Recovery(recovery) => recovery::run(recovery)?,
        What::Partitions(partitions) => partitions::run(partitions)?,
        What::Checkpoint(checkpoint) => checkpoint::run(checkpoint)?,
        What::Zerocopy(zerocopy) => zerocopy::run(zerocopy)?,
        What::All(all) => all::run(all)?,
        What::Bars(bars) => {
            let report = bars::run(bars)?;
            show(args.json, &report)?;
            return Ok(Outcome::good(report.met()));
        }
        What::Diff(diff) => {
            let diff = report::diff::run(diff)?;
            show(args.json, &diff)?;
            diff.check()?;
            return Ok(Outcome::good(!diff.is_worse()));
        }
        What::Worker => {
            load::crew::work()?;
            return Ok(Outcome::Measured);
        }
    };
    print(args, &report)?;
    Ok(Outcome::Measured)
}

/// What is no report of measurements is a table or JSON.
fn check_forms(args: &Args) -> Result<()> {
    let name = match args.what {
        What::Bars(_) => "bars",
        What::Diff(_) => "diff",
        What::Worker => "worker",
        _ => return Ok(()),
    };
    if args.csv || args.html.is_some() {
        let form = if args.csv { "--csv" } else { "--html" };
        return Err(BenchError::Usage(format!(
            "`bench {name}` has no {form}: it prints a table or, with --json, JSON"
        )));
    }
    Ok(())
}

fn print(args: &Args, report: &Report) -> Result<()> {
    if let Some(path) = &args.html {
        std::fs::write(path, report::to_html(report)).doing(&format!("writing {}", path.display()))?;
    }
    match args.csv {
        true => say(&report::to_csv(report)),
        false => show(args.json, report),
    }
}

fn show(json: bool, report: &(impl Serialize + Display)) -> Result<()> {
    // A report of numbers and texts always has a JSON form.
    match serde_json::to_string_pretty(report) {
        Ok(text) if json => say(&format!("{text}\n")),
        _ => say(&format!("{report}\n")),
    }
}

/// Writes to standard output. A reader who has seen enough and closed it is no error.
fn say(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).doing("writing to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args as _;

    #[test]
    fn the_arguments_go_together_and_every_benchmark_shows_an_example() {
        let mut command = Args::augment_args(clap::Command::new("bench"));
        command.clone().debug_assert();
        command.build();
        for benchmark in command.get_subcommands().filter(|benchmark| benchmark.get_name() != "help") {
            let help = benchmark.clone().render_long_help().to_string();
            assert!(help.contains("corelog bench"), "{help}");
        }
    }
}
