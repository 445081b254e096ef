//! `bench produce`: what producers get, beside the bare loop under the same load.

use crate::error::Result;
use crate::load::crew::Run;
use crate::load::{self, Load, Pace};
use crate::machine::limits::{self, Meter};
use crate::report::live::Runs;
use crate::report::{Better, Machine, Measured, Moment, Report, Share, median_ratio};
use crate::server::rig::{Place, Rig, load_bare};
use crate::server::usage::Usage;
use crate::workload::batches::Bodies;
use crate::workload::{Workload, WorkloadArgs};
use clap::Args;
use std::time::Duration;

/// Below this part of idle time the driver, not what it drove, set the pace.
const IDLE_MIN: f64 = 0.1;
/// An open loop keeps up while this part of what it intends is acknowledged.
const KEEPS_UP: f64 = 0.98;
pub(crate) const CORELOG: &str = "corelog";
pub(crate) const BARE: &str = "bare loop";
pub(crate) const RECORDS: &str = "records";
pub(crate) const ACK: &str = "acknowledgement";
pub(crate) const CPU: &str = "cpu per record";

/// Arguments of `bench produce`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  corelog bench produce                                    64 producers, one durable 1 KiB record each in flight
  corelog bench produce --rate 20000 --record-bytes 512    open loop: latency counts from when it should have been sent
  corelog bench produce --workload bench/workloads/bursts.toml --html report.html
  corelog bench produce --ramp 1000..100000 --seconds 30 --repeats 1
  corelog bench produce -b 127.0.0.1:7092 --partitions 8   a server that is running already")]
pub struct ProduceArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// Leave out the bare loop.
    #[arg(long)]
    pub no_yardstick: bool,
}

/// Runs `bench produce`.
pub(crate) fn run(args: &ProduceArgs) -> Result<Report> {
    let workload = args.workload.resolve(&Workload::default())?;
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let mut report = Report::new(machine(&args.place, &rig));
    report.results = measure("produce", &workload, &rig, &mut meter, !args.no_yardstick)?;
    report.limits = meter.figures();
    report.notes.push(limits::WARMED.into());
    Ok(report)
}

/// The machine, and how this benchmark shares it out.
pub(crate) fn machine(place: &Place, rig: &Rig) -> Machine {
    let mut machine = Machine::this(&place.dir);
    let core = |core: Option<usize>| core.map_or("any".to_owned(), |core| core.to_string());
    machine.note("core of the server", core(rig.cores.server.filter(|_| place.smp == 1)));
    machine.note("core of the load", core(rig.cores.load));
    machine
}

/// Measures one load on a rig that is there: corelog and, if wanted, the bare loop.
pub(crate) fn measure(
    case: &str,
    workload: &Workload,
    rig: &Rig,
    meter: &mut Meter,
    with_yardstick: bool,
) -> Result<Vec<Measured>> {
    let bodies = Bodies::of(workload)?;
    // The yardstick knows one size of frames only.
    let with_yardstick = with_yardstick && bodies.bodies.len() == 1;
    let topic = rig.topic(workload.partitions, &[("durability", workload.durability.name())])?;
    load::touch(topic.0.lanes(workload.producers, 0..workload.producers)?, &bodies.bodies[0])?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..workload.repeats {
        meter.slice(Duration::from_secs_f64(workload.seconds / 3.0))?;
        if with_yardstick {
            bare.push(load_bare(rig, &bodies, workload)?);
        }
        let live = Runs::new(case, workload.repeats, workload.seconds, f64::from(workload.batch_records));
        ours.push(rig.load(&topic, &bodies, workload, false, Some((live, run)))?);
    }
    let mut results = vec![corelog(case, workload, &bodies, &ours)];
    if with_yardstick {
        results.push(yardstick(case, BARE, workload, &bodies, &bare));
    }
    compare(&mut results, meter);
    Ok(results)
}

/// What a run of corelog is, in figures.
pub(crate) fn corelog(case: &str, workload: &Workload, bodies: &Bodies, runs: &[Run<Usage>]) -> Measured {
    let loads: Vec<&Load> = runs.iter().map(|run| &run.load).collect();
    let mut measured = of_loads(case, CORELOG, workload, bodies, &loads);
    add_usage(&mut measured, workload, runs);
    add_budget(&mut measured, runs);
    measured
}

/// What a run of a yardstick is.
pub(crate) fn yardstick(
    case: &str,
    subject: &str,
    workload: &Workload,
    bodies: &Bodies,
    runs: &[Run<u64>],
) -> Measured {
    let loads: Vec<&Load> = runs.iter().map(|run| &run.load).collect();
    let mut measured = of_loads(case, subject, workload, bodies, &loads);
    let cpu = |run: &Run<u64>| run.after.saturating_sub(run.before) as f64 / 1e3 / records(&run.load, workload);
    measured.figure(CPU, "us", Better::Lower, runs.iter().map(cpu).collect());
    measured
}

fn records(load: &Load, workload: &Workload) -> f64 {
    load.requests as f64 * f64::from(workload.batch_records)
}

/// What the drivers saw.
fn of_loads(case: &str, subject: &str, workload: &Workload, bodies: &Bodies, loads: &[&Load]) -> Measured {
    let mut measured = Measured::new(case, subject, workload.to_string());
    let rates = |per: f64| loads.iter().map(|load| load.requests as f64 * per / load.seconds).collect::<Vec<_>>();
    measured.figure(RECORDS, "1/s", Better::Higher, rates(f64::from(workload.batch_records)));
    measured.figure("keys and values", "B/s", Better::Higher, rates(bodies.payload_bytes));
    let idle: Vec<f64> = loads.iter().map(|load| load.idle * 100.0).collect();
    measured.figure("load generator idle", "%", Better::Neither, idle);
    if loads.iter().any(|load| load.refused > 0) {
        let refused = loads.iter().map(|load| load.refused as f64).collect();
        measured.figure("refused, to be retried", "", Better::Lower, refused);
    }
    let latencies: Vec<_> = loads.iter().map(|load| load.latency.clone()).collect();
    measured.timing(ACK, &latencies);
    measured.each_second = moments(workload, loads);
    let idle = measured.value("load generator idle");
    measured.load_bound = idle < IDLE_MIN * 100.0;
    if measured.load_bound {
        measured.notes.push(format!("the load generator was idle {idle:.1} % of the time: it was the bottleneck"));
    }
    keep_up(&mut measured, workload);
    measured
}

fn moments(workload: &Workload, loads: &[&Load]) -> Vec<Moment> {
    let per = f64::from(workload.batch_records);
    let mut moments = Vec::new();
    for (run, load) in loads.iter().enumerate() {
        let mut at = 0.0;
        for second in &load.each_second {
            let middle = Duration::from_secs_f64(at + second.seconds / 2.0);
            at += second.seconds;
            let intended = workload.pace.intended(middle, workload.span().measured);
            moments.push(Moment {
                run,
                at,
                records_per_second: second.count() as f64 * per / second.seconds,
                intended_per_second: intended.map(|requests| requests * per),
                p50_us: second.quantile_us(0.5),
                p99_us: second.quantile_us(0.99),
                max_us: second.quantile_us(1.0),
            });
        }
    }
    moments
}

/// Whether an open loop was kept up with; of a ramp, up to which rate.
fn keep_up(measured: &mut Measured, workload: &Workload) {
    let fell_behind = |moment: &&Moment| {
        moment.intended_per_second.is_some_and(|intended| moment.records_per_second < KEEPS_UP * intended)
    };
    match workload.pace {
        Pace::Closed { .. } => {}
        Pace::Open { .. } | Pace::Bursts { .. } => {
            let (got, moments) = (measured.value(RECORDS), &measured.each_second);
            let intended = moments.first().and_then(|moment| moment.intended_per_second).unwrap_or(0.0);
            if got < KEEPS_UP * intended {
                measured.notes.push(format!("{got:.0} records/s of the {intended:.0} intended were acknowledged"));
            }
        }
        Pace::Ramp { .. } => {
            let first = |run| {
                let mut of_run = measured.each_second.iter().filter(|moment| moment.run == run);
                of_run.clone().find(fell_behind).or(of_run.next_back()).map(|moment| moment.records_per_second)
            };
            let saturated: Vec<f64> = (0..workload.repeats).filter_map(first).collect();
            if measured.each_second.iter().any(|moment| fell_behind(&moment)) {
                measured.figure("saturation", "1/s", Better::Higher, saturated);
            } else {
                measured.notes.push("it kept up with the whole ramp: saturation lies beyond it".into());
            }
        }
    }
}

/// What the server used for each record.
fn add_usage(measured: &mut Measured, workload: &Workload, runs: &[Run<Usage>]) {
    let each = |of: &dyn Fn(&Run<Usage>) -> Option<f64>| -> Vec<f64> { runs.iter().filter_map(of).collect() };
    let per_record = |run: &Run<Usage>, amount: f64| amount / records(&run.load, workload);
    let cpu = |of: fn((f64, f64)) -> f64| {
        each(&|run| {
            let (before, after) = (run.before.process.as_ref()?, run.after.process.as_ref()?);
            Some(per_record(run, of(after.cpu_since(before)) / 1e3))
        })
    };
    let mut put = |name, unit, runs: Vec<f64>| measured.figure(name, unit, Better::Lower, runs);
    put(CPU, "us", cpu(|(user, kernel)| user + kernel));
    put("cpu per record, user", "us", cpu(|(user, _)| user));
    put("cpu per record, kernel", "us", cpu(|(_, kernel)| kernel));
    let grown = |name: &'static str| each(&|run| Some(per_record(run, run.after.grown(&run.before, name))));
    put("ring calls per record", "", grown("ring_calls"));
    put("flushes per record", "", grown("flushes"));
    let switches = each(&|run| {
        let (before, after) = (run.before.process.as_ref()?, run.after.process.as_ref()?);
        Some(per_record(run, after.switches.saturating_sub(before.switches) as f64))
    });
    put("context switches per record", "", switches);
    put(
        "device bytes per byte",
        "",
        each(&|run| {
            let appended = run.after.grown(&run.before, "appended_bytes");
            (appended > 0.0).then(|| run.after.grown(&run.before, "disk_written_bytes") / appended)
        }),
    );
    let memory = each(&|run| run.after.process.as_ref().map(|process| process.memory_peak as f64));
    put("memory peak", "B", memory);
    let shared = each(&|run| {
        let commits = run.after.grown(&run.before, "commits");
        (commits > 0.0).then(|| run.after.grown(&run.before, "appends") / commits)
    });
    measured.figure("requests per commit", "", Better::Neither, shared);
}

/// The mean time of an append in each stage, over all runs.
fn add_budget(measured: &mut Measured, runs: &[Run<Usage>]) {
    let Some(first) = runs.first() else { return };
    for (place, (name, ..)) in first.after.stages.iter().enumerate() {
        let grown = |of: fn(&(String, u64, u64)) -> u64| -> u64 {
            let of = |usage: &Usage| usage.stages.get(place).map_or(0, of);
            runs.iter().map(|run| of(&run.after).saturating_sub(of(&run.before))).sum()
        };
        let (passed, nanoseconds) = (grown(|stage| stage.1), grown(|stage| stage.2));
        if passed > 0 {
            let mean_us = nanoseconds as f64 / passed as f64 / 1e3;
            measured.budget.push(Share { name: name.clone(), mean_us });
        }
    }
}

/// Sets corelog against the bare loop of the same runs and against the machine.
fn compare(results: &mut [Measured], meter: &Meter) {
    let [ours, rest @ ..] = results else { return };
    if let Some(bare) = rest.first() {
        set_against(ours, bare);
    }
    let p50 = format!("{ACK} p50");
    ours.set_ratio(&p50, "a raw flush and round trip", ours.value(&p50) / meter.flush_and_round_trip_us());
    ours.set_ratio(
        "keys and values",
        "the disk's sequential write",
        ours.value("keys and values") / meter.limit(limits::WRITE),
    );
}

/// Notes what figures are to those of a yardstick in the same runs.
pub(crate) fn set_against(ours: &mut Measured, yardstick: &Measured) {
    for name in [RECORDS, CPU, &format!("{ACK} p50"), &format!("{ACK} p99"), &format!("{ACK} p99.9")] {
        let runs = |measured: &Measured| measured.get(name).map(|figure| figure.runs.clone());
        if let (Some(our_runs), Some(their_runs)) = (runs(ours), runs(yardstick)) {
            let of = format!("the {}", yardstick.subject);
            ours.set_ratio(name, &of, median_ratio(&our_runs, &their_runs));
        }
    }
}
