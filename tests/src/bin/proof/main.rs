//! Long proofs, for a night or for one case again: each is a test of this crate with as much time as it is given.
#![forbid(unsafe_code)]

mod boundaries;
mod damage;
mod disks;
mod edges;
mod failure;
mod powercut;
mod quiet;
mod simulate;

use clap::{Parser, Subcommand};
use corelog_tests::interrupt::watch;
use failure::Failure;
use std::process::ExitCode;

/// Proofs that take longer than a test run: power cuts, failing disks, kills at every I/O boundary, damage of every bit,
/// crowds of bad clients, a long simulation
#[derive(Parser)]
#[command(name = "proof", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --locked --profile proof -p corelog-tests --bin proof -- powercut --fs ext4 --cuts 100 --seed 7
  cargo run --locked --profile proof -p corelog-tests --features planted --bin proof -- boundaries --seed 7

Exit status: 0 all held, 1 could not be run, 2 asked for wrongly, 3 something did not hold.";

#[derive(Subcommand)]
enum Command {
    /// Cut the power of a real server's disk, as often as asked
    Powercut(powercut::Arguments),
    /// Tell the stories of disks that misbehave
    Disks(disks::Arguments),
    /// Put crowds of bad clients beside honest ones, and measure what those notice
    Edges(edges::Arguments),
    /// Kill the server before and after each operation that changes the disk
    Boundaries(boundaries::Boundaries),
    /// Flip every bit of a small data directory, and cut every file at every block
    Damage(damage::Damage),
    /// Run random seeds of the simulation on all cores for a time, and keep those that fail
    Simulate(simulate::Simulate),
    /// The server that `boundaries` kills
    #[command(hide = true)]
    ServeUntil(boundaries::ServeUntil),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Err(error) = watch() {
        return Failure::Failed(error).exit();
    }
    let outcome = match command {
        Command::Powercut(args) => powercut::run(&args),
        Command::Disks(args) => disks::run(&args),
        Command::Edges(args) => edges::run(&args),
        Command::Boundaries(args) => boundaries::run(&args),
        Command::Damage(args) => damage::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::ServeUntil(args) => boundaries::serve_until(&args),
    };
    outcome.map_or_else(Failure::exit, |()| ExitCode::SUCCESS)
}
