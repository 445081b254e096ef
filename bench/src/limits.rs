//! What the machine itself can do, measured in slices so that every run can be set against limits of the same minute.

use crate::cores::Cores;
use crate::error::{Doing, Result};
use crate::report::{Latency, histogram, median, rate_text};
use clap::Args;
use corelog_yardstick::{disk::Disk, loopback};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one durable write, the smallest a commit can be.
const FLUSH_BYTES: usize = 4096;
/// Bytes of the request and the reply of a round trip: a 1 KiB record with its batch and frame, and its acknowledgement.
const REQUEST_BYTES: usize = 1110;
const REPLY_BYTES: usize = 40;
const SCRATCH_BYTES: u64 = 128 << 20;

/// Arguments of `bench limits`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  corelog bench limits --dir /var/lib/corelog --seconds 5")]
pub struct LimitsArgs {
    /// Directory on the file system to measure.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// How long to measure, all in all.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = crate::seconds)]
    pub seconds: f64,
}

/// The machine's limits.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// One durable write of 4 KiB into a zero-filled file.
    pub flush: Latency,
    /// Direct sequential writes of 1 MiB, bytes a second.
    pub write_bytes_per_second: f64,
    /// A request of 1 KiB and a short reply between two threads that poll.
    pub round_trip: Latency,
    /// Sending from memory over loopback, bytes a second.
    pub send_bytes_per_second: f64,
    /// CRC-32C of 64 KiB at a time, bytes a second.
    pub checksum_bytes_per_second: f64,
    /// Copying memory that no cache holds, bytes a second.
    pub copy_bytes_per_second: f64,
}

/// Measures the limits a slice at a time.
pub(crate) struct Meter {
    disk: Disk,
    cores: Cores,
    flush: Histogram<u64>,
    round_trip: Histogram<u64>,
    write: Vec<f64>,
    send: Vec<f64>,
    checksum: Vec<f64>,
    copy: Vec<f64>,
}

/// Runs `bench limits`.
pub(crate) fn run(args: &LimitsArgs) -> Result<Limits> {
    let mut meter = Meter::new(&args.dir, Cores::choose())?;
    for _ in 0..5 {
        meter.slice(Duration::from_secs_f64(args.seconds / 5.0))?;
    }
    Ok(meter.limits())
}

impl Meter {
    /// Prepares a scratch file on the file system of `directory`.
    pub(crate) fn new(directory: &Path, cores: Cores) -> Result<Meter> {
        let disk = Disk::new(directory, SCRATCH_BYTES).doing("preparing a scratch file")?;
        let (flush, round_trip) = (histogram(), histogram());
        let (write, send, checksum, copy) = Default::default();
        Ok(Meter { disk, cores, flush, round_trip, write, send, checksum, copy })
    }

    /// Measures every limit for a part of `duration`.
    pub(crate) fn slice(&mut self, duration: Duration) -> Result<()> {
        let part = duration / 4;
        let (flush, round_trip) = (&mut self.flush, &mut self.round_trip);
        self.disk.flush(FLUSH_BYTES, part, |ns| flush.saturating_record(ns)).doing("measuring the flush")?;
        loopback::round_trip(REQUEST_BYTES, REPLY_BYTES, self.cores.server, part, |ns| {
            round_trip.saturating_record(ns)
        })
        .doing("measuring the loopback round trip")?;
        self.send.push(loopback::send_from_memory(self.cores.server, part).doing("measuring the loopback send")?);
        self.write.push(self.disk.sequential_write(SCRATCH_BYTES).doing("measuring the disk's bandwidth")?);
        self.checksum.push(checksum_rate(part / 2));
        self.copy.push(copy_rate(part / 2));
        Ok(())
    }

    /// What was measured so far: percentiles over all slices, medians of the rates.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            flush: Latency::of(&self.flush),
            write_bytes_per_second: median(&self.write),
            round_trip: Latency::of(&self.round_trip),
            send_bytes_per_second: median(&self.send),
            checksum_bytes_per_second: median(&self.checksum),
            copy_bytes_per_second: median(&self.copy),
        }
    }
}

fn checksum_rate(duration: Duration) -> f64 {
    let bytes = vec![0x5a; 64 << 10];
    rate(duration, bytes.len(), || {
        black_box(corelog_batch::crc32c(black_box(&bytes)));
    })
}

fn copy_rate(duration: Duration) -> f64 {
    let (from, mut to) = (vec![1_u8; 128 << 20], vec![2_u8; 128 << 20]);
    rate(duration, from.len(), || black_box(&mut to).copy_from_slice(black_box(&from)))
}

fn rate(duration: Duration, bytes: usize, mut work: impl FnMut()) -> f64 {
    work(); // warms caches, and memory on its first touch
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < duration {
        work();
        done += bytes;
    }
    done as f64 / began.elapsed().as_secs_f64()
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "limits of the machine    {}", Latency::HEADING)?;
        writeln!(f, "  flush, 4 KiB           {}", self.flush)?;
        writeln!(f, "  loopback round trip    {}", self.round_trip)?;
        let mut line = |what, rate| writeln!(f, "  {what:<22} {:>12}", rate_text(rate));
        line("disk write", self.write_bytes_per_second)?;
        line("loopback send", self.send_bytes_per_second)?;
        line("CRC-32C", self.checksum_bytes_per_second)?;
        line("memory copy", self.copy_bytes_per_second)
    }
}
