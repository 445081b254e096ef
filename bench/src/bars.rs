//! `bench bars`: the speed and memory that corelog promises, each measured beside its limit and set against its bar.

use crate::error::Result;
use crate::limits::Meter;
use crate::produce::{ProduceArgs, ProduceReport, measure};
use crate::report::median;
use crate::rig::{Place, Rig};
use crate::{partitions, recovery};
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
    pub what: &'static str,
    /// What came out.
    pub measured: f64,
    /// What it should be.
    pub bar: f64,
    /// Whether `bar` is the least or the most that is allowed.
    pub at_least: bool,
    /// Whether it is met.
    pub met: bool,
    /// The figures behind it, and what to keep in mind.
    pub behind: Vec<String>,
}

/// The report of `bench bars`.
#[derive(Debug, Clone, Serialize)]
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
    let place = Place { bootstrap_server: None, dir: args.dir.clone(), smp: 1 };
    let mut bars = {
        let rig = Rig::start(&place)?;
        let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
        let mut loads = Loads { args: args.produce(&place), rig: &rig, meter: &mut meter };
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
    fn produce(&self, place: &Place) -> ProduceArgs {
        ProduceArgs {
            place: place.clone(),
            connections: 64,
            window: 1,
            rate: None,
            record_bytes: 1024,
            batch_records: 1,
            partitions: 1,
            durability: "flush".into(),
            seconds: if self.quick { 1.0 } else { 4.0 },
            warm_up: if self.quick { 0.3 } else { 1.0 },
            repeats: if self.quick { 3 } else { 5 },
            no_yardstick: false,
        }
    }
}

/// The bars that are loads of a server.
struct Loads<'a> {
    args: ProduceArgs,
    rig: &'a Rig,
    meter: &'a mut Meter,
}

impl Loads<'_> {
    fn measure(&mut self, args: ProduceArgs) -> Result<ProduceReport> {
        measure(&args, self.rig, self.meter)
    }

    fn throughput(&mut self) -> Result<Bar> {
        let report = self.measure(self.args.clone())?;
        let ratio = report.throughput_ratio.unwrap_or(f64::NAN);
        let what = "durable 1 KiB, closed loop over 64 connections: records/s to the bare loop";
        Ok(Bar::at_least(what, ratio, 0.7, vec![report.to_string()]))
    }

    fn latency(&mut self) -> Result<Bar> {
        let report = self.measure(ProduceArgs { connections: 1, ..self.args.clone() })?;
        let what = "durable 1 KiB, one connection: p50 to a raw flush and a raw round trip";
        Ok(Bar::at_most(what, report.p50_to_limits, 1.3, vec![report.to_string()]))
    }

    fn spread(&mut self) -> Result<Bar> {
        let small = ProduceArgs { record_bytes: 512, no_yardstick: true, ..self.args.clone() };
        // Of the same connections: a deeper window saturates at a rate that one record at a time never sees.
        let saturated = self.measure(small.clone())?;
        let open = ProduceArgs { rate: Some(saturated.corelog.records_per_second / 2.0), ..small };
        let one = self.measure(open.clone())?;
        let many = self.measure(ProduceArgs { partitions: SPREAD_PARTITIONS, ..open })?;
        let ratio = many.corelog.latency.p50_us / one.corelog.latency.p50_us;
        let what = "512 B, open loop at half of saturation: p50 over 1,024 partitions to p50 over one";
        Ok(Bar::at_most(what, ratio, 1.5, vec![one.to_string(), many.to_string()]))
    }
}

fn idle_partition(rig: &Rig) -> Result<Bar> {
    let before = rig.server_bytes()?;
    let _topic = rig.topic(IDLE_PARTITIONS, &[])?;
    let after = rig.server_bytes()?;
    let each = after.saturating_sub(before) as f64 / f64::from(IDLE_PARTITIONS);
    let behind = format!("resident memory before {IDLE_PARTITIONS} partitions {before}, after {after} bytes");
    Ok(Bar::at_most("an idle partition, bytes of memory", each, 16384.0, vec![behind]))
}

fn many_partitions(args: &BarsArgs) -> Result<Bar> {
    let seconds = if args.quick { 3.0 } else { 10.0 };
    let report = partitions::run(&partitions::PartitionsArgs { dir: args.dir.clone(), record_bytes: 512, seconds })?;
    let ratio = report.points.last().map_or(f64::NAN, |point| point.to_one);
    let what = "a commit of 512 B in each of 1,024 partitions at the engine: p50 to that of one";
    Ok(Bar::at_most(what, ratio, 3.0, vec![report.to_string()]))
}

fn recovery_time(args: &BarsArgs, place: Place) -> Result<Bar> {
    let gigabytes = if args.quick { 1.0 } else { 10.0 };
    let report = recovery::run(&recovery::RecoveryArgs { place, gigabytes, partitions: 8, repeats: 3 })?;
    let middle = median(&report.restarts.iter().map(|restart| restart.first_ack_ms).collect::<Vec<_>>());
    Ok(Bar::at_most(
        "recovery after kill -9 to the first acknowledgement, ms, median of three",
        middle,
        1000.0,
        vec![report.to_string()],
    ))
}

impl Bar {
    fn at_least(what: &'static str, measured: f64, bar: f64, behind: Vec<String>) -> Bar {
        Bar { what, measured, bar, at_least: true, met: measured >= bar, behind }
    }

    fn at_most(what: &'static str, measured: f64, bar: f64, behind: Vec<String>) -> Bar {
        Bar { what, measured, bar, at_least: false, met: measured <= bar, behind }
    }
}

impl fmt::Display for BarsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bar in &self.bars {
            bar.behind.iter().try_for_each(|report| writeln!(f, "{report}"))?;
        }
        writeln!(f, "measured       bar   met")?;
        self.bars.iter().try_for_each(|bar| writeln!(f, "{bar}"))
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { what, measured, bar, at_least, met, .. } = self;
        let (sign, met) = (if *at_least { ">=" } else { "<=" }, if *met { "yes" } else { "NO " });
        write!(f, "{measured:>8.2} {sign} {bar:>6} {met:>5}  {what}")
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
