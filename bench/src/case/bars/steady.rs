//! Bars of what a record in the steady state does without: the heap, and system calls other than the ring's.
//!
//! Both are counted over windows of many requests, and the quietest one counts. A checkpoint, or a segment that is made ready
//! ahead, is not a request's doing; what each request does is in every window.

use super::{Bar, Bench};
use crate::case::produce::CORELOG;
use crate::error::{BenchError, Result};
use crate::load::{self, Count, Load, Pace, Plan, Span};
use crate::machine::cores::Cores;
use crate::report::{Better, Measured};
use crate::server::calls::Tracer;
use crate::server::connection::Connection;
use crate::server::embedded::Embedded;
use crate::server::rig::{Place, Rig, on_core};
use crate::server::topic::TopicName;
use crate::workload::Workload;
use crate::workload::batches::Bodies;
use corelog_yardstick::heap::{allocations, is_installed};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Long enough for hundreds of requests, and short enough that some are without the beginning of a checkpoint, and without a
/// segment that is made longer: at 100 MB/s that is every 160 ms.
const WINDOW: Span = Span { warm_up: Duration::from_millis(20), measured: Duration::from_millis(25) };
/// All windows together, if one of them was quiet.
const COUNTED: Duration = Duration::from_millis(700);
/// If none was: on a machine that does other things the first ones may still belong to the start.
const PATIENCE: Duration = Duration::from_secs(3);
/// A window with fewer is too small to be called quiet.
const REQUESTS_MIN: u64 = 100;
const ALLOCATIONS: &str = "heap allocations per record, steady state";
const CALLS: &str = "system calls per record besides io_uring_enter, steady state";

pub(super) fn heap(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    if !is_installed() {
        let why = "nobody counts: the program has another allocator";
        return Ok(vec![Bar::at_most(format!("{ALLOCATIONS}: {why}"), f64::NAN, 0.0, &[])]);
    }
    let node = Embedded::start(&bench.args.dir)?;
    let topic = TopicName { name: "steady".into(), partitions: 1, address: node.address() };
    Connection::open(topic.address)?.create_topic(&topic.name, topic.partitions, &[])?;
    let windows = windows(&topic, Cores::choose(), || Ok(allocations()))?;
    node.stop()?;
    Ok(vec![bar(ALLOCATIONS, &windows)])
}

pub(super) fn calls(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    // A shard that looks for work before it sleeps calls sched_yield meanwhile: this one waits in the ring at once.
    let place = Place { serve_args: vec!["--spin=0".into()], ..bench.place.clone() };
    let rig = Rig::start(&place)?;
    let topic = rig.topic(1, &[])?;
    let pid = rig.pid().ok_or_else(|| BenchError::Usage("this needs a server that is started here".into()))?;
    let tracer = match Tracer::start(pid, "shard-0") {
        Ok(tracer) => tracer,
        Err(BenchError::Io { what, source })
            if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) =>
        {
            return Ok(vec![Bar::not_here(format!("{CALLS}: {what}: {source}"), 0.0)]);
        }
        Err(error) => return Err(error),
    };
    let windows = windows(&topic.0, rig.cores, || tracer.calls())?;
    if tracer.stop()? == 0 {
        return Err(BenchError::Server("the tracer saw no call of the ring: what it counted says nothing".into()));
    }
    Ok(vec![bar(CALLS, &windows)])
}

/// Loads the topic in windows, and counts in each.
fn windows(topic: &TopicName, cores: Cores, count: impl Fn() -> Result<u64> + Sync) -> Result<Vec<Load>> {
    let workload = workload();
    let bodies = Bodies::of(&workload)?.bodies;
    let plan = Plan { bodies: &bodies, pace: workload.pace, span: WINDOW, stamped: false };
    on_core(cores.load, || {
        let (began, mut windows) = (Instant::now(), Vec::new());
        while began.elapsed() < if windows.iter().any(is_quiet) { COUNTED } else { PATIENCE } {
            // What connections cost to be made is over before a window begins.
            let lanes = topic.lanes(workload.producers, 0..workload.producers)?;
            windows.push(load::run(lanes, plan, &mut Count(&count))?);
        }
        Ok(windows)
    })
}

fn is_quiet(window: &Load) -> bool {
    window.requests >= REQUESTS_MIN && window.probed == 0
}

/// A request is one record.
fn workload() -> Workload {
    Workload { producers: 8, pace: Pace::Closed { window: 4 }, ..Workload::default() }
}

fn bar(what: &str, windows: &[Load]) -> Bar {
    let mut measured = Measured::new("bars, steady state", CORELOG, workload().to_string());
    let large: Vec<&Load> = windows.iter().filter(|window| window.requests >= REQUESTS_MIN).collect();
    let requests = large.iter().map(|window| window.requests as f64).collect();
    measured.figure("records in a window", "", Better::Neither, requests);
    let each = large.iter().map(|window| window.probed as f64 / window.requests as f64).collect();
    measured.figure(what, "", Better::Lower, each);
    let quietest = measured.get(what).map_or(f64::NAN, |figure| figure.runs.iter().copied().fold(f64::NAN, f64::min));
    Bar::at_most(what, quietest, 0.0, &[measured])
}

#[cfg(test)]
mod tests {
    use super::super::BarsArgs;
    use super::*;
    use crate::report::latency::histogram;

    fn windows(counts: &[(u64, u64)]) -> Vec<Load> {
        let window = |(requests, probed): &(u64, u64)| Load {
            requests: *requests,
            refused: 0,
            seconds: 0.04,
            latency: histogram(),
            each_second: Vec::new(),
            idle: 0.5,
            probed: *probed,
        };
        counts.iter().map(window).collect()
    }

    #[test]
    fn the_quietest_window_with_enough_records_counts() {
        let quiet = bar(ALLOCATIONS, &windows(&[(100, 7), (200, 0), (100, 1)]));
        assert!((quiet.ratio, quiet.met) == (0.0, Some(true)), "{quiet:?}");
        let each = bar(ALLOCATIONS, &windows(&[(100, 300), (200, 400), (99, 0), (0, 0)]));
        assert!((each.ratio, each.met) == (2.0, Some(false)), "one with few records says nothing: {each:?}");
        let unknown = bar(ALLOCATIONS, &windows(&[(0, 0), (99, 0)]));
        assert!(unknown.ratio.is_nan() && unknown.met == Some(false), "nor do several: {unknown:?}");
    }

    #[test]
    fn without_a_counter_the_bar_is_not_met() {
        let args = BarsArgs { dir: ".".into(), quick: true, only: Vec::new() };
        let place = Place { bootstrap_server: None, dir: ".".into(), smp: 1, serve_args: Vec::new() };
        // The tests of this crate have the system's allocator.
        let bars = heap(&Bench { args: &args, place }).expect("needs no node");
        assert!(bars[0].ratio.is_nan() && bars[0].met == Some(false), "{bars:?}");
    }
}
