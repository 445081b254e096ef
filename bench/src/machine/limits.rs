//! What the machine itself can do, measured in slices so that every run can be set against limits of the same minute.

use super::cores::Cores;
use crate::case::zerocopy::write_file;
use crate::error::{Doing, Result};
use crate::report::latency::histogram;
use crate::report::{Better, Figure, Machine, Measured, Report, live};
use clap::Args;
use corelog_yardstick::disk::Disk;
use corelog_yardstick::loopback;
use corelog_yardstick::transfer::{Net, Way, transfer};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Bytes of one durable write, the smallest a commit can be.
const FLUSH_BYTES: usize = 4096;
/// Bytes of the request and the reply of a round trip: a 1 KiB record with its batch and frame, and its acknowledgement.
const REQUEST_BYTES: usize = 1110;
const REPLY_BYTES: usize = 40;
const SCRATCH_BYTES: u64 = 128 << 20;
/// Of the file that is sent from the page cache.
const SENT_BYTES: u64 = 32 << 20;
/// Slices of `bench limits`: the runs of its figures.
const SLICES: usize = 5;

/// The case of `bench limits` by itself.
pub(crate) const CASE: &str = "limits";
/// The names of the limits: what ratios refer to.
pub(crate) const FLUSH: &str = "flush of 4 KiB";
pub(crate) const ROUND_TRIP: &str = "loopback round trip";
pub(crate) const WRITE: &str = "disk write";
pub(crate) const READ: &str = "disk read";
pub(crate) const SEND: &str = "loopback send";
pub(crate) const SENDFILE: &str = "sendfile over loopback";
pub(crate) const SPLICE: &str = "splice over loopback";
const CHECKSUM: &str = "CRC-32C of 64 KiB";
const COPY: &str = "memory copy";

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

/// Measures the limits a slice at a time.
pub(crate) struct Meter {
    disk: Disk,
    /// What is sent from the page cache.
    sent: NamedTempFile,
    cores: Cores,
    slices: Vec<Slice>,
}

/// One slice's measurements.
struct Slice {
    flush: Histogram<u64>,
    round_trip: Histogram<u64>,
    write: f64,
    read: f64,
    send: f64,
    sendfile: f64,
    splice: f64,
    checksum: f64,
    copy: f64,
}

/// Runs `bench limits`.
pub(crate) fn run(args: &LimitsArgs) -> Result<Report> {
    let mut meter = Meter::new(&args.dir, Cores::choose())?;
    for slice in 0..SLICES {
        live::say(&format!("{} the machine's limits", live::bar(slice as f64 / SLICES as f64)));
        meter.slice(Duration::from_secs_f64(args.seconds / SLICES as f64))?;
    }
    let mut report = Report::new(Machine::this(&args.dir));
    report.limits = meter.figures();
    report.results.push(meter.timings());
    report.notes.push(WARMED.into());
    Ok(report)
}

/// What was done about memory before it was measured.
pub(crate) const WARMED: &str = "all memory was written once before anything was measured: a page that was never \
                                 touched, or was given back, costs a fault or two that are not I/O";

impl Meter {
    /// Prepares a scratch file on the file system of `directory`.
    pub(crate) fn new(directory: &Path, cores: Cores) -> Result<Meter> {
        let doing = &format!("preparing a scratch file in {}", directory.display());
        let disk = Disk::new(directory, SCRATCH_BYTES).doing(doing)?;
        let sent = NamedTempFile::new_in(directory).doing(doing)?;
        write_file(sent.path(), SENT_BYTES)?;
        Ok(Meter { disk, sent, cores, slices: Vec::new() })
    }

    /// Measures every limit for a part of `duration`.
    pub(crate) fn slice(&mut self, duration: Duration) -> Result<()> {
        let (part, server) = (duration / 4, self.cores.server);
        let (mut flush, mut round_trip) = (histogram(), histogram());
        self.disk.flush(FLUSH_BYTES, part, |ns| flush.saturating_record(ns)).doing("measuring the flush")?;
        let sample = |ns| round_trip.saturating_record(ns);
        loopback::round_trip(REQUEST_BYTES, REPLY_BYTES, server, part, sample).doing("measuring the round trip")?;
        self.slices.push(Slice {
            flush,
            round_trip,
            send: loopback::send_from_memory(server, part).doing("measuring the loopback send")?,
            write: self.disk.sequential_write(SCRATCH_BYTES).doing("measuring the disk's writes")?,
            read: self.disk.sequential_read(SCRATCH_BYTES).doing("measuring the disk's reads")?,
            sendfile: self.send_cached(Way::Sendfile)?,
            splice: self.send_cached(Way::Splice)?,
            checksum: checksum_rate(part / 2),
            copy: copy_rate(part / 2),
        });
        Ok(())
    }

    /// Bytes a second of a file in the page cache over loopback.
    fn send_cached(&self, way: Way) -> Result<f64> {
        let loopback = Net::loopback();
        let took = transfer(&loopback, self.sent.path(), SENT_BYTES, way, true);
        Ok(SENT_BYTES as f64 / took.doing(&format!("measuring {}", way.name()))?.time.as_secs_f64())
    }

    /// A flush in an open loop, a request `every` so often, for `duration`: nanoseconds from when each was due.
    pub(crate) fn paced_flush(&mut self, every: Duration, duration: Duration) -> Result<Histogram<u64>> {
        let mut flush = histogram();
        let sample = |ns| flush.saturating_record(ns);
        self.disk.flush_paced(FLUSH_BYTES, every, duration, sample).doing("measuring the flush")?;
        Ok(flush)
    }

    /// What was measured so far, by name: percentiles over all slices, medians of the rates.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.measured().figures
    }

    /// The same with the curves of what takes time.
    fn timings(&self) -> Measured {
        Measured { figures: Vec::new(), ..self.measured() }
    }

    fn measured(&self) -> Measured {
        let mut limits = Measured::new(CASE, "machine", "each for a part of the time");
        let times = |of: fn(&Slice) -> &Histogram<u64>| self.slices.iter().map(of).cloned().collect::<Vec<_>>();
        limits.timing(FLUSH, &times(|slice| &slice.flush));
        limits.timing(ROUND_TRIP, &times(|slice| &slice.round_trip));
        let mut rate = |name, of: fn(&Slice) -> f64| {
            limits.figure(name, "B/s", Better::Higher, self.slices.iter().map(of).collect());
        };
        rate(WRITE, |slice| slice.write);
        rate(READ, |slice| slice.read);
        rate(SEND, |slice| slice.send);
        rate(SENDFILE, |slice| slice.sendfile);
        rate(SPLICE, |slice| slice.splice);
        rate(CHECKSUM, |slice| slice.checksum);
        rate(COPY, |slice| slice.copy);
        limits
    }

    /// A limit by its name, such as "disk write" or "flush of 4 KiB p50"; NaN of one that there is not.
    pub(crate) fn limit(&self, name: &str) -> f64 {
        self.measured().value(name)
    }

    /// p50 of a flush and a round trip, one after the other, us: what one durable request takes at least.
    pub(crate) fn flush_and_round_trip_us(&self) -> f64 {
        self.limit(&format!("{FLUSH} p50")) + self.limit(&format!("{ROUND_TRIP} p50"))
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
