//! `proof damage`.

use crate::failure::Failure;
use crate::quiet::hush;
use clap::Args;
use corelog_tests::chance::seed;
use corelog_tests::damage::{self, Options};
use std::time::Duration;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Damage {
    /// Decides the order [default: CORELOG_SEED, or one of the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only this damage, like node:flip:17:3, node:cut:4096 or node:removed
    #[arg(long, value_name = "FILE:HOW")]
    only: Option<String>,
    /// Begin no more after so many seconds [default: all of it]
    #[arg(long)]
    seconds: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  proof damage
  proof damage --seconds 60 --seed 7
  proof damage --only shards-1/0/journal:flip:12:0";

pub(crate) fn run(args: &Damage) -> Result<(), Failure> {
    let only = args.only.as_deref().map(str::parse).transpose().map_err(Failure::Usage)?;
    let time = args.seconds.map(Duration::from_secs);
    let options = Options { seed: args.seed.unwrap_or_else(seed), only, time };
    if options.only.is_none() {
        hush().map_err(Failure::Failed)?;
    }
    let report = damage::run(&options).map_err(Failure::Usage)?;
    println!("{report}");
    Failure::unless(report.failures.is_empty())
}
