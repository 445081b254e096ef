//! Bars of producers.

use super::{Bar, Bench, ack, ratio};
use crate::case::produce::{self, CPU, RECORDS};
use crate::error::{BenchError, Result};
use crate::load::Pace;
use crate::machine::limits::{FLUSH, Meter, WRITE};
use crate::report::{Measured, median};
use crate::server::rig::{Place, Rig};
use crate::server::topic::Topic;
use crate::workload::{Sizes, Workload};
use corelog_client::blocking::Producer;
use corelog_client::{NewRecord, ProducerOptions};
use std::time::{Duration, Instant};

const BARE: &str = "the bare loop";
const RECORD_BYTES: usize = 1024;
/// Records that the client library's producer has in flight.
const IN_FLIGHT: usize = 1024;
/// What a record takes of a producer's buffer beside its value, at most.
const OVERHEAD_BYTES: usize = 100;

pub(super) fn closed(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let results = produce::measure("bars, 64 producers", &bench.workload(), &rig, &mut meter, true)?;
    let what = |figure: &str| format!("durable 1 KiB, 64 closed connections: {figure} to the bare loop");
    Ok(vec![
        Bar::at_least(what("records/s"), ratio(&results, RECORDS, BARE), 0.9, &results),
        Bar::at_most(what("CPU per record"), ratio(&results, CPU, BARE), 1.2, &[]),
        Bar::at_most(what("p99"), ratio(&results, &ack("p99"), BARE), 1.3, &[]),
    ])
}

pub(super) fn one(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let workload = Workload { producers: 1, ..bench.workload() };
    let results = produce::measure("bars, one producer", &workload, &rig, &mut meter, true)?;
    let to_limits = ratio(&results, &ack("p50"), "a raw flush and round trip");
    let what = "durable small record, one closed connection: p50 to a raw flush and round trip";
    Ok(vec![Bar::at_most(what, to_limits, 1.15, &results)])
}

/// Records a second that 64 closed connections get.
fn saturation(rig: &Rig, meter: &mut Meter, workload: &Workload) -> Result<f64> {
    let results = produce::measure("bars, saturation", workload, rig, meter, false)?;
    Ok(results.first().map_or(f64::NAN, |measured| measured.value(RECORDS)))
}

pub(super) fn spread(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let small = Workload { record_bytes: Sizes::Fixed(512), ..bench.workload() };
    let pace = Pace::Open { requests_per_second: saturation(&rig, &mut meter, &small)? / 2.0 };
    let mut points: Vec<Measured> = Vec::new();
    for partitions in [1, 1024, 10_000] {
        let open = Workload { pace, partitions, ..small.clone() };
        points.extend(produce::measure("bars, spread", &open, &rig, &mut meter, false)?);
    }
    let mut bars = Vec::new();
    for (percentile, most) in [("p50", [1.3, 2.0]), ("p99", [2.0, 3.0])] {
        let of = |place: usize| points.get(place).map_or(f64::NAN, |point: &Measured| point.value(&ack(percentile)));
        for (place, (partitions, most)) in ["1,024", "10,000"].into_iter().zip(most).enumerate() {
            let what =
                format!("512 B, open loop at half of saturation: {percentile} over {partitions} partitions to one");
            let behind = if bars.is_empty() { &points[..] } else { &[] };
            bars.push(Bar::at_most(what, of(place + 1) / of(0), most, behind));
        }
    }
    Ok(bars)
}

pub(super) fn near_saturation(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let workload = bench.workload();
    let pace = Pace::Open { requests_per_second: saturation(&rig, &mut meter, &workload)? * 0.7 };
    let mut results = produce::measure("bars, 70 %", &Workload { pace, ..workload }, &rig, &mut meter, false)?;
    let flush_p99 = meter.limit(&format!("{FLUSH} p99"));
    let p99_ms = results.first().map_or(f64::NAN, |measured| measured.value(&ack("p99"))) / 1e3;
    let what = "open loop at 70 % of saturation: p99, ms, where the raw flush's p99 is under 1 ms";
    if flush_p99 >= 1000.0 {
        let note = format!("the raw flush's own p99 is {:.1} ms here: this bar does not apply", flush_p99 / 1e3);
        results.iter_mut().for_each(|measured| measured.notes.push(note.clone()));
        return Ok(vec![Bar { met: None, ..Bar::at_most(format!("{what}: it is not"), p99_ms, 3.0, &results) }]);
    }
    Ok(vec![Bar::at_most(what, p99_ms, 3.0, &results)])
}

pub(super) fn client_library(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let Workload { seconds, repeats, .. } = bench.workload();
    let topic = rig.topic(1, &[])?;
    let mut ratios = Vec::new();
    for _ in 0..repeats {
        meter.slice(Duration::from_millis(400))?;
        ratios.push(batched_by_the_client(&topic, Duration::from_secs_f64(seconds))?);
    }
    let rate = median(&ratios);
    let what = "one producer, 1 KiB records, 1,024 in flight, batched by the client: bytes/s to the disk's write";
    Ok(vec![Bar::at_least(what, rate / meter.limit(WRITE), 0.5, &[])])
}

/// Bytes of values a second that the client library's producer gets acknowledged.
fn batched_by_the_client(topic: &Topic, duration: Duration) -> Result<f64> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Server(format!("the client library's producer: {error}"));
    let buffer_bytes = IN_FLIGHT * (RECORD_BYTES + OVERHEAD_BYTES);
    let options = ProducerOptions { buffer_bytes, ..ProducerOptions::default() };
    let producer =
        Producer::connect(&topic.0.address.to_string(), &topic.0.name, options).map_err(|error| failed(&error))?;
    let (value, began, mut sent) = (vec![0x5a; RECORD_BYTES], Instant::now(), 0_u64);
    while began.elapsed() < duration {
        for _ in 0..64 {
            producer.send(NewRecord::new(&value)).map_err(|error| failed(&error))?;
        }
        sent += 64;
    }
    producer.close().map_err(|error| failed(&error))?;
    Ok(sent as f64 * RECORD_BYTES as f64 / began.elapsed().as_secs_f64())
}

pub(super) fn large_batches(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (rig, mut meter) = bench.rig()?;
    let large = Workload {
        record_bytes: Sizes::Fixed(16 << 10),
        batch_records: 60,
        producers: 1,
        pace: Pace::Closed { window: 4 },
        // Segments of a topic that is gone are used again by the next: the first run has none of those.
        repeats: 1,
        ..bench.workload()
    };
    let mut bars = Vec::new();
    for (segments, least) in [("fresh", 0.6), ("recycled", 0.8)] {
        let results = produce::measure(&format!("bars, {segments} segments"), &large, &rig, &mut meter, false)?;
        let to_disk = ratio(&results, "keys and values", "the disk's sequential write");
        let what = format!("durable 1 MB batches, one producer, {segments} segments: bytes/s to the disk's write");
        bars.push(Bar::at_least(what, to_disk, least, &results));
    }
    Ok(bars)
}

pub(super) fn sustained(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    // A small journal is passed several times in the time there is.
    let place = Place { serve_args: vec!["--journal-bytes=32MiB".into()], ..bench.place.clone() };
    let rig = Rig::start(&place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let workload = Workload { seconds: bench.or_quick(60.0, 4.0), repeats: 1, ..bench.workload() };
    let results = produce::measure("bars, sustained", &workload, &rig, &mut meter, true)?;
    let what = |figure: &str| format!("durable 1 KiB, 64 connections, past the journal's end: {figure}");
    let written = results.first().map_or(f64::NAN, |measured| measured.value("device bytes per byte"));
    Ok(vec![
        Bar::at_most(what("p99.9 to that of the bare loop"), ratio(&results, &ack("p99.9"), BARE), 1.5, &results),
        Bar::at_most(what("bytes to the device per byte"), written, 2.3, &[]),
    ])
}

pub(super) fn two_shards(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let mut costs = Vec::new();
    let mut behind = Vec::new();
    for smp in [1, 2] {
        let rig = Rig::start(&Place { smp, ..bench.place.clone() })?;
        let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
        let workload = Workload { partitions: 8, ..bench.workload() };
        let results = produce::measure(&format!("bars, {smp} shards"), &workload, &rig, &mut meter, false)?;
        costs.push(results.first().map_or(f64::NAN, |measured| measured.value(CPU)));
        behind.extend(results);
    }
    let ratio = costs[1] / costs[0];
    Ok(vec![Bar::at_most("1 to 2 shards, 64 producers: CPU per record", ratio, 1.1, &behind)])
}
