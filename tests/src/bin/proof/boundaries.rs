//! `proof boundaries`, and the server that it starts and kills.

use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Boundaries {
    /// Decides the order of the boundaries and where restarts are killed [default: CORELOG_SEED, or one of the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only this boundary, like 17:before or 17:after
    #[arg(long, value_name = "NUMBER:SIDE")]
    only: Option<String>,
    /// Begin no new one after so many seconds [default: all of them]
    #[arg(long)]
    seconds: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  proof boundaries
  proof boundaries --seconds 60 --seed 7
  CORELOG_KEEP=1 proof boundaries --only 117:after --seed 7     # its directory is kept if it fails

Threads decide the order of operations: the same number is about the same place in another run, not the same operation.
Takes the feature `planted`, with which the server can be ended at an operation of choice.";

#[derive(Args)]
pub(crate) struct ServeUntil {
    /// The data directory
    directory: PathBuf,
    /// Where to end, like 17:before
    boundary: Option<String>,
}

#[cfg(feature = "planted")]
mod with_feature {
    use super::{Boundaries, ServeUntil};
    use crate::failure::Failure;
    use corelog_engine::reactor::ring::Boundary;
    use corelog_tests::boundaries::{self, Options};
    use corelog_tests::chance::seed;
    use std::time::Duration;

    pub(crate) fn run(args: &Boundaries) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::Failed(error.to_string()))?;
        let options = Options {
            program,
            seed: args.seed.unwrap_or_else(seed),
            only: parse(args.only.as_deref())?,
            time: args.seconds.map(Duration::from_secs),
        };
        let report = boundaries::run(&options).map_err(Failure::Failed)?;
        println!("{report}");
        Failure::unless(report.failures.is_empty())?;
        if options.only.is_some() && report.killed == 0 {
            return Err(Failure::Usage(format!("no run came to that boundary, of {} operations", report.operations)));
        }
        Ok(())
    }

    pub(crate) fn serve_until(args: &ServeUntil) -> Result<(), Failure> {
        let boundary = parse(args.boundary.as_deref())?;
        boundaries::serve(&args.directory, boundary).map_err(Failure::Failed)
    }

    fn parse(text: Option<&str>) -> Result<Option<Boundary>, Failure> {
        text.map(str::parse).transpose().map_err(Failure::Usage)
    }
}

#[cfg(feature = "planted")]
pub(crate) use with_feature::{run, serve_until};

#[cfg(not(feature = "planted"))]
mod without_feature {
    use super::{Boundaries, ServeUntil};
    use crate::failure::Failure;

    const WHAT_TO_DO: &str =
        "build it with --features planted: only then a server can be ended at an operation of choice";

    pub(crate) fn run(_: &Boundaries) -> Result<(), Failure> {
        Err(Failure::Usage(WHAT_TO_DO.into()))
    }

    pub(crate) fn serve_until(_: &ServeUntil) -> Result<(), Failure> {
        Err(Failure::Usage(WHAT_TO_DO.into()))
    }
}

#[cfg(not(feature = "planted"))]
pub(crate) use without_feature::{run, serve_until};
