//! `proof simulate`.

use crate::failure::Failure;
use crate::quiet::hush;
use clap::Args;
use corelog_engine::reactor::sim::Random;
use corelog_tests::campaign::{never, run_all};
use corelog_tests::chance::seed;
use corelog_tests::interrupt::is_asked;
use corelog_tests::kept::keep;
use std::time::{Duration, Instant};

/// Seeds are below it: short enough to be typed.
const SEEDS: u64 = 1 << 32;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Simulate {
    /// Begin no run after so many minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    minutes: u64,
    /// Decides which seeds are run [default: CORELOG_SEED, or one of the time]
    #[arg(long)]
    seed: Option<u64>,
}

const EXAMPLES: &str = "\
Example:
  proof simulate --minutes 480

A seed that fails is added to tests/seeds.txt, with what it found: commit that, and every test run repeats it.
Exit status 3 also when a rare path was never met.";

pub(crate) fn run(args: &Simulate) -> Result<(), Failure> {
    let mut random = Random::new(args.seed.unwrap_or_else(seed));
    hush().map_err(Failure::Failed)?;
    let until = Instant::now() + Duration::from_secs(args.minutes * 60);
    let outcome = run_all(|| (Instant::now() < until && !is_asked()).then(|| random.below(SEEDS)));
    println!("{outcome}");
    for (seed, found) in &outcome.failures {
        keep(*seed, found).map_err(|error| Failure::Failed(format!("seed {seed} cannot be kept: {error}")))?;
    }
    for what in never() {
        println!("never met: {what}");
    }
    Failure::unless(outcome.failures.is_empty())?;
    Failure::unless(never().is_empty())
}
