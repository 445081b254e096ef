//! `proof`: what the tests prove, for longer than a test run can take.
#![forbid(unsafe_code)]

mod disks;
mod powercut;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Proves corelog's promises at length, with the machinery of its tests.
#[derive(Parser)]
#[command(
    name = "proof",
    after_help = "Example:\n  cargo run --profile proof -p corelog-tests --bin proof -- powercut --fs ext4 --cuts 100 --seed 7\n\n\
                  Exit status: 0 all held, 1 could not be run, 2 usage, 3 something did not hold."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cuts the power of a real server's disk, as often as asked.
    Powercut(powercut::Arguments),
    /// Tells the stories of disks that misbehave.
    Disks(disks::Arguments),
}

/// How a proof came out.
enum Outcome {
    Held,
    /// Exit status 3.
    Broken,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Powercut(arguments) => powercut::run(&arguments),
        Command::Disks(arguments) => disks::run(&arguments),
    };
    match outcome {
        Ok(Outcome::Held) => ExitCode::SUCCESS,
        Ok(Outcome::Broken) => ExitCode::from(3),
        Err(error) => {
            eprintln!("proof: {error}");
            ExitCode::FAILURE
        }
    }
}
