//! `bench all`: every benchmark of corelog and of the machine with its usual load, in one report.

use super::{checkpoint, consume, e2e, partitions, produce, recovery, zerocopy};
use crate::error::Result;
use crate::load::Pace;
use crate::machine::limits::{self, Meter};
use crate::report::{Measured, Report, live};
use crate::server::rig::{Place, Rig};
use crate::workload::{Sizes, Workload};
use clap::Args;

/// An open loop at this part of what a closed one got: where queues are short if nothing stalls.
const HALF: f64 = 0.5;

/// Arguments of `bench all`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  corelog bench all --html report.html --json > report.json
  corelog bench all --quick

It leaves out `bench reactors`, which needs glommio's program.")]
pub struct AllArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Short runs, without `bench checkpoint`: a look at whether all is well, not figures to quote.
    #[arg(long)]
    pub quick: bool,
}

/// Runs `bench all`.
pub(crate) fn run(args: &AllArgs) -> Result<Report> {
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let mut report = Report::new(produce::machine(&args.place, &rig));
    let workload = args.workload();
    report.results = loads(args, &workload, &rig, &mut meter)?;
    report.limits = meter.figures();
    drop(rig);
    report.results.extend(at_the_engine(args)?);
    if args.place.bootstrap_server.is_none() {
        live::say("recovery");
        let gigabytes = if args.quick { 0.5 } else { 4.0 };
        let recovery = recovery::RecoveryArgs { place: args.place.clone(), gigabytes, partitions: 8, repeats: 3 };
        report.results.push(recovery::measure(&recovery)?);
    }
    let (most_mb, repeats) = if args.quick { (21, 2) } else { (1024, 5) };
    let transfers = zerocopy::ZerocopyArgs { dir: args.place.dir.clone(), most_mb, repeats };
    zerocopy::add(&transfers, &mut report)?;
    report.notes.push(limits::WARMED.into());
    if args.quick {
        report.notes.push("--quick: runs too short for figures to quote".into());
    }
    Ok(report)
}

fn at_the_engine(args: &AllArgs) -> Result<Vec<Measured>> {
    live::say("partitions, at the engine");
    let (dir, seconds) = (args.place.dir.clone(), if args.quick { 3.0 } else { 15.0 });
    let spread = partitions::PartitionsArgs { dir: dir.clone(), record_bytes: 512, most: 10_000, seconds };
    let mut results = partitions::points(&spread)?;
    // The first two checkpoints, before it is measured, alone take a quarter of a minute.
    if !args.quick {
        live::say("checkpoints, at the engine");
        let beside = checkpoint::CheckpointArgs { dir, record_bytes: 1024, partitions: 16, seconds: 10.0 };
        results.push(checkpoint::measured(&beside)?);
    }
    Ok(results)
}

impl AllArgs {
    fn workload(&self) -> Workload {
        let (seconds, warm_up, repeats) = if self.quick { (0.5, 0.2, 2) } else { (3.0, 1.0, 5) };
        Workload { seconds, warm_up, repeats, ..Workload::default() }
    }
}

fn loads(args: &AllArgs, workload: &Workload, rig: &Rig, meter: &mut Meter) -> Result<Vec<Measured>> {
    let mut results = produce::measure("produce", workload, rig, meter, true)?;
    let saturated = results.first().map_or(f64::NAN, |measured| measured.value(produce::RECORDS));
    let mut put = |more: Vec<Measured>| results.extend(more);
    let one = Workload { producers: 1, ..workload.clone() };
    put(produce::measure("produce, one at a time", &one, rig, meter, true)?);
    let open = Workload { pace: Pace::Open { requests_per_second: saturated * HALF }, ..workload.clone() };
    put(produce::measure("produce, half of saturation", &open, rig, meter, true)?);
    let spread = Workload { partitions: 1024, ..open };
    put(produce::measure("produce, 1,024 partitions", &spread, rig, meter, false)?);
    let large = Workload {
        record_bytes: Sizes::Fixed(16 << 10),
        batch_records: 60,
        producers: 1,
        pace: Pace::Closed { window: 4 },
        ..workload.clone()
    };
    put(produce::measure("produce, large batches", &large, rig, meter, true)?);
    let paced = Workload { repeats: workload.repeats, seconds: workload.seconds, ..e2e::default_workload() };
    let paced = Workload { warm_up: workload.warm_up, ..paced };
    put(vec![e2e::measure("e2e", &paced, e2e::Audience { groups: 1, consumers: 1 }, rig, meter)?]);
    let read =
        Workload { seconds: workload.seconds.min(2.0), warm_up: workload.warm_up, ..consume::default_workload() };
    let megabytes = if args.quick { 128 } else { 1024 };
    let topic = consume::topic(rig, &read, None)?;
    put(consume::measure(megabytes, 4, &read, rig, &topic, meter)?);
    Ok(results)
}
