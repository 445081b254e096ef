//! Load and reports: how fast corelog is, set against what the machine itself can do in the same minutes.
//!
//! [`run`] is `corelog bench`. Every run shows the machine's limits, measured in turns with it, and the ratio to them:
//! figures of a shared or virtual machine mean little by themselves.
#![forbid(unsafe_code)]

mod bars;
mod checkpoint;
mod connection;
mod consume;
mod cores;
mod error;
mod interrupt;
mod limits;
pub mod load;
mod partitions;
mod produce;
mod recovery;
mod report;
mod rig;
mod server;
mod shard;

pub use bars::{Bar, BarsArgs, BarsReport};
pub use checkpoint::{CheckpointArgs, CheckpointReport};
pub use connection::Connection;
pub use consume::{ConsumeArgs, ConsumeReport};
pub use cores::{Cores, CpuClock};
pub use error::BenchError;
pub use limits::{Limits, LimitsArgs};
pub use partitions::{PartitionsArgs, PartitionsReport, Point};
pub use produce::{ProduceArgs, ProduceReport, Side};
pub use recovery::{RecoveryArgs, RecoveryReport, Restart};
pub use report::Latency;
pub use rig::Place;
pub use server::{Server, ServerOptions, free_address};

use clap::Subcommand;
use error::Result;
use serde::Serialize;
use std::fmt::Display;

/// Arguments of `corelog bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  corelog bench limits\n\nExit status: 0 measured, 1 could not be measured, 2 usage, \
                        3 measured and a bar was not met."
)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
    /// Print one JSON object instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A time to measure in: zero would measure nothing.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.1 && *seconds <= 86_400.0);
    seconds.ok_or_else(|| "it must be a number of seconds from 0.1 to 86400".to_owned())
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum What {
    /// What the machine can do: flush, disk, loopback, checksum, memory.
    Limits(LimitsArgs),
    /// Producers: throughput, latency and CPU, beside a bare loop under the same load.
    Produce(ProduceArgs),
    /// Consumers: catching up, following the tail, and the time from send to push.
    Consume(ConsumeArgs),
    /// Time from a kill under load to the next acknowledgement.
    Recovery(RecoveryArgs),
    /// A commit that spans 1, 16, 128, 1,024 partitions, at the engine.
    Partitions(PartitionsArgs),
    /// Commits while a checkpoint is under way, and while none is, at the engine.
    Checkpoint(CheckpointArgs),
    /// All that corelog promises of speed and memory, each with its bar.
    Bars(BarsArgs),
}

/// How a benchmark that could be run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There were figures to show, or all bars were met.
    Measured,
    /// At least one bar was not met: exit status 3.
    BelowBar,
}

/// Runs a benchmark and prints its report to standard output.
///
/// # Errors
/// When it could not be run.
pub fn run(args: &Args) -> Result<Outcome> {
    interrupt::watch()?;
    match &args.what {
        What::Limits(limits) => show(args.json, &limits::run(limits)?),
        What::Produce(produce) => show(args.json, &produce::run(produce)?),
        What::Consume(consume) => show(args.json, &consume::run(consume)?),
        What::Recovery(recovery) => show(args.json, &recovery::run(recovery)?),
        What::Partitions(partitions) => show(args.json, &partitions::run(partitions)?),
        What::Checkpoint(checkpoint) => show(args.json, &checkpoint::run(checkpoint)?),
        What::Bars(bars) => {
            let report = bars::run(bars)?;
            show(args.json, &report);
            return Ok(if report.met() { Outcome::Measured } else { Outcome::BelowBar });
        }
    }
    Ok(Outcome::Measured)
}

fn show(json: bool, report: &(impl Serialize + Display)) {
    // A report of numbers and texts always has a JSON form.
    match serde_json::to_string_pretty(report) {
        Ok(text) if json => println!("{text}"),
        _ => println!("{report}"),
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
