//! Bars of readers.

use super::{Bar, Bench, ratio};
use crate::case::consume;
use crate::case::e2e::{self, Audience, END_TO_END};
use crate::error::{BenchError, Doing, Result};
use crate::machine::limits::{Meter, SEND};
use crate::report::{Measured, median_ratio};
use crate::server::rig::{Place, Rig};
use crate::workload::batches::Bodies;
use crate::workload::{Workload, gigabytes};
use corelog_yardstick::transfer::{Net, Way, transfer};
use std::path::Path;
use std::slice::from_ref;
use std::time::Duration;

/// A backlog is to be read from the disk, and not from the tails.
const LITTLE_MEMORY: &str = "--memory=530MiB";
const FROM_DISK_MIN: f64 = 0.75;
/// What all tails of a server with the usual memory hold.
const IN_MEMORY: u64 = 48 << 20;

pub(super) fn reading(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, _) = bench.rig()?;
    let (tail, send) = tail_fetch(bench, &rig)?;
    let place = Place { serve_args: vec![LITTLE_MEMORY.into()], ..bench.place.clone() };
    let (ours, best) = catch_up(bench, &Rig::start(&place)?, bench.or_quick(2 << 30, 384 << 20))?;
    Ok(vec![
        Bar::at_least(
            "tail fetch, one consumer: bytes/s to loopback send from memory",
            median_ratio(&tail, &send),
            0.8,
            &[],
        ),
        Bar::at_least(
            "catch-up fetch: bytes/s to the best raw path of `bench zerocopy`",
            median_ratio(&ours, &best),
            0.9,
            &[],
        ),
    ])
}

/// Rates of reading what is in memory, and of the machine's own sends beside each.
fn tail_fetch(bench: &Bench<'_>, rig: &Rig) -> Result<(Vec<f64>, Vec<f64>)> {
    let workload = Workload { batch_records: 64, ..bench.workload() };
    let topic = rig.topic(1, &[])?;
    rig.fill(&topic, &Bodies::of(&workload)?, &workload, IN_MEMORY)?;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..workload.repeats {
        let mut beside = Meter::new(rig.directory.path(), rig.cores)?;
        beside.slice(Duration::from_millis(800))?;
        limits.push(beside.limit(SEND));
        ours.push(consume::catch_up(rig, &topic, 1)?.rate());
    }
    Ok((ours, limits))
}

/// Rates of reading a backlog, and of the best way to send a file that no cache holds.
fn catch_up(bench: &Bench<'_>, rig: &Rig, bytes: u64) -> Result<(Vec<f64>, Vec<f64>)> {
    let workload = Workload { batch_records: 64, ..bench.workload() };
    let topic = rig.topic(1, &[])?;
    rig.fill(&topic, &Bodies::of(&workload)?, &workload, bytes)?;
    let path = rig.directory.path().join("raw");
    crate::case::zerocopy::write_file(&path, bytes)?;
    let (mut ours, mut best) = (Vec::new(), Vec::new());
    for _ in 0..workload.repeats.min(3) {
        best.push(best_raw(&path, bytes)?);
        let read = consume::catch_up(rig, &topic, 1)?;
        if read.disk_share() < FROM_DISK_MIN {
            let percent = 100.0 * read.disk_share();
            return Err(BenchError::Server(format!("only {percent:.0} % of the backlog was read from the disk")));
        }
        ours.push(read.rate());
    }
    Ok((ours, best))
}

fn best_raw(path: &Path, bytes: u64) -> Result<f64> {
    let net = Net::loopback();
    let mut best = 0.0_f64;
    for way in Way::ALL.into_iter().filter(|way| *way != Way::Memory) {
        let took = transfer(&net, path, bytes, way, false).doing("sending a file")?;
        best = best.max(bytes as f64 / took.time.as_secs_f64());
    }
    Ok(best)
}

pub(super) fn beside(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let workload = Workload { batch_records: 64, repeats: bench.or_quick(3, 1), ..bench.workload() };
    let topic = rig.topic(1, &[])?;
    let bytes = bench.or_quick(10_000_000_000, 1_000_000_000);
    let filled = gigabytes(rig.fill(&topic, &Bodies::of(&workload)?, &workload, bytes)?);
    let measured = consume::soon(&rig, &topic, &workload, &mut meter)?;
    let p99 = ratio(from_ref(&measured), &format!("{} p99", consume::BESIDE), "that without it");
    let what = format!("durable produce and its push while another reads {filled} from the start: p99 to that without");
    Ok(vec![Bar::at_most(what, p99, 2.0, &[measured])])
}

pub(super) fn end_to_end(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let Workload { seconds, warm_up, repeats, .. } = bench.workload();
    let workload = Workload { seconds, warm_up, repeats, ..e2e::default_workload() };
    let audience = Audience { groups: 1, consumers: 1 };
    let measured: Vec<Measured> = vec![e2e::measure("bars, e2e", &workload, audience, &rig, &mut meter)?];
    let p99 = ratio(&measured, &format!("{END_TO_END} p99"), e2e::OF_FLOOR);
    let what = "end to end, 1 MB/s paced, durable: p99 to a raw flush and two round trips";
    Ok(vec![Bar::at_most(what, p99, 1.5, &measured)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_is_enough_for_a_shard() {
        let given = LITTLE_MEMORY.strip_prefix("--memory=").and_then(|given| given.strip_suffix("MiB"));
        let given: u64 = given.and_then(|given| given.parse().ok()).unwrap_or(0);
        let least = corelog_engine::limits::least_memory(1) >> 20;
        assert!((least..2 * least).contains(&given), "{given} MiB, at least {least} are needed");
    }
}
