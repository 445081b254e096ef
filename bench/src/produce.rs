//! `bench produce`: what producers get, beside the bare loop under the same load.

use crate::cores::Cores;
use crate::error::{BenchError, Result};
use crate::limits::{Limits, Meter};
use crate::load::{Load, Pace, Span};
use crate::report::{Latency, histogram, median, rate_text};
use crate::rig::{Place, Rig, Shape, batch, load_bare};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Below this part of idle time the driver, not what it drove, set the pace.
const IDLE_MIN: f64 = 0.1;

/// Arguments of `bench produce`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  corelog bench produce                                    64 connections, one durable 1 KiB record each in flight
  corelog bench produce --rate 20000 --record-bytes 512    open loop: latency counts from when it should have been sent
  corelog bench produce -b 127.0.0.1:7092 --partitions 8   a server that is running already")]
pub struct ProduceArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Closed loop: requests each connection keeps unanswered.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate")]
    pub window: usize,
    /// Open loop: records a second, evenly spaced, over all connections.
    #[arg(long, value_name = "RECORDS")]
    pub rate: Option<f64>,
    /// Bytes of a record's value.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records in a batch; a request is one batch.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_records: u32,
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub partitions: u32,
    /// The topic's durability: flush, write or memory.
    #[arg(long, value_name = "HOW", default_value = "flush")]
    pub durability: String,
    /// Measured time of one run.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = crate::seconds)]
    pub seconds: f64,
    /// Time before each run in which nothing counts.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warm_up: f64,
    /// Runs, with the limits and the yardstick measured before each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub repeats: usize,
    /// Leave out the bare loop.
    #[arg(long)]
    pub no_yardstick: bool,
}

/// What one side did, over all repeats.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Median over the repeats.
    pub records_per_second: f64,
    /// Bytes of values, median over the repeats.
    pub bytes_per_second: f64,
    /// From intended send time to acknowledgement, all repeats.
    pub latency: Latency,
    /// CPU time of the serving side per record, median; null where it cannot be known. A loop that looks for work
    /// instead of sleeping uses all there is, so this says something near saturation only.
    pub cpu_us_per_record: Option<f64>,
    /// Requests refused with "try again".
    pub refused: u64,
    /// Part of the time in which the load driver had nothing to do, median.
    pub driver_idle: f64,
    /// Records a second of each repeat.
    pub runs: Vec<f64>,
}

/// The report of `bench produce`.
#[derive(Debug, Clone, Serialize)]
pub struct ProduceReport {
    /// The load in words.
    pub load: String,
    /// Who ran where.
    pub cores: Cores,
    /// The machine in the same minutes.
    pub limits: Limits,
    /// The server.
    pub corelog: Side,
    /// The bare loop.
    pub bare: Option<Side>,
    /// Records a second, corelog to bare: median of the repeats' ratios.
    pub throughput_ratio: Option<f64>,
    /// p50, corelog to bare.
    pub p50_ratio: Option<f64>,
    /// p50 to a raw flush and a raw round trip, medians.
    pub p50_to_limits: f64,
    /// What to keep in mind.
    pub notes: Vec<String>,
}

/// Runs `bench produce`.
pub(crate) fn run(args: &ProduceArgs) -> Result<ProduceReport> {
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    measure(args, &rig, &mut meter)
}

/// Measures one shape of load on a rig that is there.
pub(crate) fn measure(args: &ProduceArgs, rig: &Rig, meter: &mut Meter) -> Result<ProduceReport> {
    let (shape, body) = (shape(args)?, batch(args.batch_records, args.record_bytes)?);
    let topic = rig.topic(args.partitions, &[("durability", &args.durability)])?;
    let (mut corelog, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..args.repeats.max(1) {
        meter.slice(Duration::from_secs_f64(args.seconds / 3.0))?;
        if !args.no_yardstick {
            bare.push(load_bare(rig.directory.path(), rig.cores, &body, shape)?);
        }
        corelog.push(rig.load(&topic, &body, shape)?);
    }
    Ok(report(args, rig.cores, meter.limits(), &corelog, &bare))
}

fn shape(args: &ProduceArgs) -> Result<Shape> {
    if args.connections == 0 || args.window == 0 || args.partitions == 0 || args.rate.is_some_and(|rate| rate <= 0.0) {
        return Err(BenchError::Usage("connections, window, partitions and rate are at least 1".into()));
    }
    let requests = |rate: f64| Pace::Open { requests_per_second: rate / f64::from(args.batch_records) };
    let pace = args.rate.map_or(Pace::Closed { window: args.window }, requests);
    let span = Span { warm_up: Duration::from_secs_f64(args.warm_up), measured: Duration::from_secs_f64(args.seconds) };
    Ok(Shape { connections: args.connections, pace, span })
}

fn report(args: &ProduceArgs, cores: Cores, limits: Limits, corelog: &[Load], bare: &[Load]) -> ProduceReport {
    let side = |loads: &[Load]| Side::of(loads, f64::from(args.batch_records), args.record_bytes as f64);
    let (corelog, bare) = (side(corelog), (!bare.is_empty()).then(|| side(bare)));
    let ratios =
        |bare: &Side| median(&corelog.runs.iter().zip(&bare.runs).map(|(ours, best)| ours / best).collect::<Vec<_>>());
    ProduceReport {
        load: load_text(args),
        cores,
        throughput_ratio: bare.as_ref().map(ratios),
        p50_ratio: bare.as_ref().map(|bare| corelog.latency.p50_us / bare.latency.p50_us),
        p50_to_limits: corelog.latency.p50_us / (limits.flush.p50_us + limits.round_trip.p50_us),
        notes: notes(args, cores, &corelog, bare.as_ref()),
        limits,
        corelog,
        bare,
    }
}

fn load_text(args: &ProduceArgs) -> String {
    let ProduceArgs { connections, window, record_bytes, batch_records, partitions, durability, .. } = args;
    let pace = match args.rate {
        Some(rate) => format!("open loop of {rate} records/s"),
        None => format!("closed loop, {window} in flight each"),
    };
    format!(
        "{pace}, {connections} connections, {record_bytes} B records, {batch_records} a batch, {partitions} partitions, \
         durability {durability}"
    )
}

fn notes(args: &ProduceArgs, cores: Cores, corelog: &Side, bare: Option<&Side>) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, side) in [("corelog", Some(corelog)), ("the bare loop", bare)] {
        let Some(side) = side.filter(|side| side.driver_idle < IDLE_MIN) else { continue };
        notes.push(format!(
            "the load driver was idle {:.1} % of the time against {name}: it, not {name}, was the bottleneck",
            side.driver_idle * 100.0
        ));
    }
    if let Some(rate) = args.rate.filter(|rate| corelog.records_per_second < 0.99 * rate) {
        notes.push(format!("{:.0} records/s of the {rate} intended were acknowledged", corelog.records_per_second));
    }
    if cores.server.is_none() {
        notes.push("server and load share one core".into());
    }
    notes
}

impl Side {
    fn of(loads: &[Load], batch_records: f64, record_bytes: f64) -> Side {
        let mut latency: Histogram<u64> = histogram();
        // All of them have the same bounds, so adding cannot fail.
        loads.iter().for_each(|load| latency.add(&load.latency).unwrap_or_default());
        let runs: Vec<f64> = loads.iter().map(|load| load.requests as f64 * batch_records / load.seconds).collect();
        let cpu = |load: &Load| load.probed as f64 / 1e3 / (load.requests as f64 * batch_records);
        let cpu = median(&loads.iter().map(cpu).collect::<Vec<_>>());
        Side {
            records_per_second: median(&runs),
            bytes_per_second: median(&runs) * record_bytes,
            latency: Latency::of(&latency),
            cpu_us_per_record: (cpu > 0.0).then_some(cpu),
            refused: loads.iter().map(|load| load.refused).sum(),
            driver_idle: median(&loads.iter().map(|load| load.idle).collect::<Vec<_>>()),
            runs,
        }
    }
}

impl fmt::Display for ProduceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.load, self.limits)?;
        writeln!(f, "           records/s        bytes  cpu us/rec  driver idle {}", Latency::HEADING)?;
        write_side(f, "corelog", &self.corelog)?;
        if let Some(bare) = &self.bare {
            write_side(f, "bare loop", bare)?;
        }
        if let (Some(throughput), Some(p50)) = (self.throughput_ratio, self.p50_ratio) {
            writeln!(f, "\ncorelog to the bare loop: {throughput:.2} of its records/s, {p50:.2} of its p50")?;
        }
        writeln!(f, "p50 to a raw flush and a raw round trip: {:.2}", self.p50_to_limits)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn write_side(f: &mut fmt::Formatter<'_>, name: &str, side: &Side) -> fmt::Result {
    let cpu = side.cpu_us_per_record.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
    let (records, bytes, idle) = (side.records_per_second, rate_text(side.bytes_per_second), side.driver_idle * 100.0);
    writeln!(f, "{name:<10} {records:>9.0} {bytes:>12} {cpu:>11} {idle:>10.1} % {}", side.latency)
}
