//! `bench bars`: the speed and memory that corelog promises, each measured beside its limit and set against its bar.

use super::produce::{self, ACK, RECORDS};
use super::{partitions, recovery};
use crate::error::Result;
use crate::load::Pace;
use crate::machine::limits::Meter;
use crate::report::Measured;
use crate::server::rig::{Place, Rig};
use crate::workload::{Sizes, Workload};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Partitions of the idle topic.
const IDLE_PARTITIONS: u32 = 10_000;
const SPREAD_PARTITIONS: u32 = 1024;

/// Arguments of `bench bars`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  corelog bench bars --quick || echo 'a bar was not met'")]
pub struct BarsArgs {
    /// Directory for data and scratch files, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Short runs, and a log of 1 GB instead of 10 for the recovery.
    #[arg(long)]
    pub quick: bool,
}

/// One bar.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// What was measured.
    pub figure: &'static str,
    /// What came out.
    pub ratio: f64,
    /// What it should be.
    pub bar: f64,
    /// Whether `bar` is the least or the most that is allowed.
    pub at_least: bool,
    /// Whether it is met.
    pub met: bool,
    /// The results behind it.
    #[serde(skip)]
    pub behind: Vec<Measured>,
}

/// The report of `bench bars`: as JSON a list.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct BarsReport {
    /// All bars.
    pub bars: Vec<Bar>,
}

impl BarsReport {
    /// Whether all are met.
    pub fn met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }
}

/// Runs `bench bars`.
pub(crate) fn run(args: &BarsArgs) -> Result<BarsReport> {
    let place = Place { bootstrap_server: None, dir: args.dir.clone(), smp: 1, serve_args: Vec::new() };
    let mut bars = {
        let rig = Rig::start(&place)?;
        let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
        let mut loads = Loads { workload: args.workload(), rig: &rig, meter: &mut meter };
        vec![told(loads.throughput()?), told(loads.latency()?), told(loads.spread()?), told(idle_partition(&rig)?)]
    };
    bars.push(told(many_partitions(args)?));
    bars.push(told(recovery_time(args, place)?));
    Ok(BarsReport { bars })
}

/// All of it takes minutes: whoever waits sees how far it is.
fn told(bar: Bar) -> Bar {
    eprintln!("{bar}");
    bar
}

impl BarsArgs {
    fn workload(&self) -> Workload {
        let (seconds, warm_up, repeats) = if self.quick { (1.0, 0.3, 3) } else { (4.0, 1.0, 5) };
        Workload { seconds, warm_up, repeats, ..Workload::default() }
    }
}

/// The bars that are loads of a server.
struct Loads<'a> {
    workload: Workload,
    rig: &'a Rig,
    meter: &'a mut Meter,
}

impl Loads<'_> {
    fn measure(&mut self, workload: &Workload, with_yardstick: bool) -> Result<Vec<Measured>> {
        produce::measure("bars", workload, self.rig, self.meter, with_yardstick)
    }

    fn throughput(&mut self) -> Result<Bar> {
        let results = self.measure(&self.workload.clone(), true)?;
        let ratio = ratio(&results, RECORDS, "the bare loop");
        let what = "durable 1 KiB, closed loop over 64 connections: records/s to the bare loop";
        Ok(Bar::at_least(what, ratio, 0.7, results))
    }

    fn latency(&mut self) -> Result<Bar> {
        let results = self.measure(&Workload { producers: 1, ..self.workload.clone() }, true)?;
        let ratio = ratio(&results, &format!("{ACK} p50"), "a raw flush and round trip");
        let what = "durable 1 KiB, one connection: p50 to a raw flush and a raw round trip";
        Ok(Bar::at_most(what, ratio, 1.3, results))
    }

    fn spread(&mut self) -> Result<Bar> {
        let small = Workload { record_bytes: Sizes::Fixed(512), ..self.workload.clone() };
        // Of the same connections: a deeper window saturates at a rate that one record at a time never sees.
        let saturated = self.measure(&small, false)?;
        let rate = saturated.first().map_or(f64::NAN, |measured| measured.value(RECORDS)) / 2.0;
        let open = Workload { pace: Pace::Open { requests_per_second: rate }, ..small };
        let mut results = self.measure(&open, false)?;
        results.extend(self.measure(&Workload { partitions: SPREAD_PARTITIONS, ..open }, false)?);
        let p50 = |place: usize| results.get(place).map_or(f64::NAN, |measured| measured.value(&format!("{ACK} p50")));
        let what = "512 B, open loop at half of saturation: p50 over 1,024 partitions to p50 over one";
        Ok(Bar::at_most(what, p50(1) / p50(0), 1.5, results))
    }
}

fn ratio(results: &[Measured], figure: &str, of: &str) -> f64 {
    let limits = results.first().and_then(|measured| measured.get(figure)).map(|figure| &figure.limits);
    limits.and_then(|limits| limits.iter().find(|limit| limit.of == of)).map_or(f64::NAN, |limit| limit.ratio)
}

fn idle_partition(rig: &Rig) -> Result<Bar> {
    let before = rig.server_bytes()?;
    let _topic = rig.topic(IDLE_PARTITIONS, &[])?;
    let each = rig.server_bytes()?.saturating_sub(before) as f64 / f64::from(IDLE_PARTITIONS);
    Ok(Bar::at_most("an idle partition, bytes of memory", each, 16384.0, vec![]))
}

fn many_partitions(args: &BarsArgs) -> Result<Bar> {
    let seconds = if args.quick { 3.0 } else { 10.0 };
    let args =
        partitions::PartitionsArgs { dir: args.dir.clone(), record_bytes: 512, most: SPREAD_PARTITIONS, seconds };
    let results = partitions::points(&args)?;
    let last = results.last().map_or(&[][..], std::slice::from_ref);
    let ratio = ratio(last, &format!("{} p50", partitions::COMMIT), partitions::OF_ONE);
    let what = "a commit of 512 B in each of 1,024 partitions at the engine: p50 to that of one";
    Ok(Bar::at_most(what, ratio, 3.0, results))
}

fn recovery_time(args: &BarsArgs, place: Place) -> Result<Bar> {
    let gigabytes = if args.quick { 1.0 } else { 10.0 };
    let measured = recovery::measure(&recovery::RecoveryArgs { place, gigabytes, partitions: 8, repeats: 3 })?;
    let what = "recovery after kill -9 to the first acknowledgement, ms, median of three";
    Ok(Bar::at_most(what, measured.value(recovery::FIRST_ACK), 1000.0, vec![measured]))
}

impl Bar {
    fn at_least(figure: &'static str, ratio: f64, bar: f64, behind: Vec<Measured>) -> Bar {
        Bar { figure, ratio, bar, at_least: true, met: ratio >= bar, behind }
    }

    fn at_most(figure: &'static str, ratio: f64, bar: f64, behind: Vec<Measured>) -> Bar {
        Bar { figure, ratio, bar, at_least: false, met: ratio <= bar, behind }
    }
}

impl fmt::Display for BarsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bar in &self.bars {
            bar.behind.iter().try_for_each(|measured| writeln!(f, "{measured}"))?;
        }
        writeln!(f, "measured       bar   met")?;
        self.bars.iter().try_for_each(|bar| writeln!(f, "{bar}"))
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { figure, ratio, bar, at_least, met, .. } = self;
        let (sign, met) = (if *at_least { ">=" } else { "<=" }, if *met { "yes" } else { "NO " });
        write!(f, "{ratio:>8.2} {sign} {bar:>6} {met:>5}  {figure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_cannot_be_measured_is_not_met() {
        assert!(!Bar::at_least("ratio", f64::NAN, 0.7, vec![]).met);
        assert!(!Bar::at_most("ratio", f64::NAN, 1.3, vec![]).met);
        let (good, bad) = (Bar::at_most("ms", 5.0, 10.0, vec![]), Bar::at_least("ratio", 0.5, 0.7, vec![]));
        assert!(!BarsReport { bars: vec![good.clone(), bad] }.met());
        assert!(BarsReport { bars: vec![good] }.met());
    }
}
