//! The `corelog` program: composes the server, and the commands that talk to one.
#![forbid(unsafe_code)]

mod consume;
mod doctor;
mod dump_log;
mod failure;
mod format;
mod group;
mod lines;
mod node;
mod produce;
mod progress;
mod quantity;
mod serve;
mod server;
mod settings;
mod stats;
mod table;
mod topic;
mod tune;
mod when;

use clap::{Parser, Subcommand};
use corelog_bench::{BenchError, Counting, Outcome};
use failure::Failure;
use std::process::ExitCode;

/// For `bench bars`, which runs a node in this process and counts what a record takes from the heap. The price is one look at
/// a thread-local for each allocation, and a record of the steady state makes none.
#[global_allocator]
static HEAP: Counting = Counting;

/// A partitioned commit log: one io_uring reactor per core, every acknowledged record on stable storage
#[derive(Parser)]
#[command(name = "corelog", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  corelog serve
  corelog topic create clicks --partitions 8
  corelog produce clicks < access.log
  corelog consume clicks --from beginning --exit-at-end

`corelog COMMAND --help` has more examples, units and defaults.
Exit status: 0 done, 1 failed, 2 asked for wrongly, 3 a check found problems.";

#[derive(Subcommand)]
enum Command {
    /// Serve the log in a data directory
    Serve(serve::Serve),
    /// Create, list, describe, alter and delete topics, and delete their records
    Topic(topic::Topic),
    /// Show consumer groups and how far they lag behind, and set, export, import and delete their offsets
    Group(group::Group),
    /// Write each line of standard input as a record
    Produce(produce::Produce),
    /// Write a topic's records to standard output
    Consume(consume::Consume),
    /// Show what the server's shards have counted, and where the time of appends goes
    Stats(stats::Stats),
    /// Show or verify the files of a data directory
    DumpLog(dump_log::DumpLog),
    /// Examine a stopped server's data directory, and say what can be done about damage
    Doctor(doctor::Doctor),
    /// Measure throughput and latency beside the machine's own limits
    Bench(corelog_bench::Args),
    /// Check whether this machine suits corelog
    Tune(tune::Tune),
}

fn bench(args: &corelog_bench::Args) -> Result<(), Failure> {
    match corelog_bench::run(args) {
        Ok(Outcome::Measured) => Ok(()),
        Ok(Outcome::BelowBar) => Err(Failure::Found),
        Err(error @ BenchError::Usage(_)) => Err(Failure::usage(error)),
        Err(error) => Err(Failure::failed(error)),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Group(args) => group::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Stats(args) => stats::run(args),
        Command::DumpLog(args) => dump_log::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Bench(args) => bench(&args),
        Command::Tune(args) => tune::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure::for_terminal(&failure.to_string());
            if !text.is_empty() {
                eprintln!("corelog: {text}");
            }
            failure.exit_code()
        }
    }
}
