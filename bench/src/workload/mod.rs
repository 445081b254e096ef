//! What a load is made of: records, partitions, producers, when requests are sent, for how long. From flags or a TOML file.

pub(crate) mod batches;
mod sizes;

pub use sizes::Sizes;

use crate::error::{BenchError, Result};
use crate::load::{Pace, Span};
use clap::{Args, ValueEnum};
use corelog_batch::Codec;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    pub(crate) fn codec(self) -> Codec {
        match self {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as the topic's setting has them")]
pub enum Durability {
    Flush,
    Write,
    Memory,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Flush => "flush",
            Durability::Write => "write",
            Durability::Memory => "memory",
        }
    }
}

/// Flags of a load. What is not given comes from the file of `--workload`, or else is the default.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct WorkloadArgs {
    /// A TOML file with these options by their names; flags win over it. Some are in bench/workloads
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub workload: Option<PathBuf>,
    /// Bytes of a record's value: 1024, evenly from a range 100..2000, or by weight 100:9,10000:1 [default: 1024]
    #[arg(long, value_name = "SIZES")]
    pub record_bytes: Option<Sizes>,
    /// Give each record one of so many keys; 0 gives none [default: 0]
    #[arg(long, value_name = "N")]
    pub keys: Option<u64>,
    /// Records in a batch; a request is one batch [default: 1]
    #[arg(long, value_name = "N")]
    pub batch_records: Option<u32>,
    /// How batches are compressed [default: none]
    #[arg(long, value_name = "CODEC", value_enum)]
    pub compression: Option<Compression>,
    /// Partitions of the topic [default: 1]
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// The topic's durability [default: flush]
    #[arg(long, value_name = "HOW", value_enum)]
    pub durability: Option<Durability>,
    /// Producers: a connection each [default: 64; consume: 8; e2e: 1]
    #[arg(long, value_name = "N", alias = "connections")]
    pub producers: Option<usize>,
    /// Closed loop: requests that each producer keeps unanswered [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "ramp"])]
    pub window: Option<usize>,
    /// Open loop: records a second over all producers, evenly spaced. Latency counts from when each was due
    #[arg(long, value_name = "RECORDS", conflicts_with = "ramp")]
    pub rate: Option<f64>,
    /// Open loop in bursts: so often, all that is due by then at once; with --rate
    #[arg(long, value_name = "MILLISECONDS", requires = "rate")]
    pub burst_every_ms: Option<u64>,
    /// Open loop that speeds up evenly from one rate to another over the measured time, as in 1000..100000: finds where it
    /// saturates
    #[arg(long, value_name = "FROM..TO")]
    pub ramp: Option<String>,
    /// Measured time of one run [default: 3]
    #[arg(long, value_name = "SECONDS", value_parser = crate::seconds)]
    pub seconds: Option<f64>,
    /// Time before each run in which nothing counts [default: 1]
    #[arg(long, value_name = "SECONDS")]
    pub warm_up: Option<f64>,
    /// Runs, with the machine's limits measured before each; `bench diff` wants at least 4 [default: 5]
    #[arg(long, value_name = "N")]
    pub repeats: Option<usize>,
    /// Processes that make the load, their measurements joined; 1 is a thread of this one [default: 1]
    #[arg(long, value_name = "N")]
    pub processes: Option<usize>,
}

/// What one machine has ports for.
const PRODUCERS_MAX: usize = 20_000;
/// More say nothing more: `bench diff` compares each with each.
const REPEATS_MAX: usize = 1000;
const PROCESSES_MAX: usize = 256;

/// A load, with nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Bytes of records' values.
    pub record_bytes: Sizes,
    /// How many keys there are; 0: none have one.
    pub keys: u64,
    /// Records in a batch.
    pub batch_records: u32,
    /// How batches are compressed.
    pub compression: Compression,
    /// Partitions of the topic.
    pub partitions: u32,
    /// The topic's durability.
    pub durability: Durability,
    /// Connections.
    pub producers: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// Measured time of one run, seconds.
    pub seconds: f64,
    /// Time before it in which nothing counts, seconds.
    pub warm_up: f64,
    /// Runs.
    pub repeats: usize,
    /// Processes that make the load.
    pub processes: usize,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            record_bytes: Sizes::Fixed(1024),
            keys: 0,
            batch_records: 1,
            compression: Compression::None,
            partitions: 1,
            durability: Durability::Flush,
            producers: 64,
            pace: Pace::Closed { window: 1 },
            seconds: 3.0,
            warm_up: 1.0,
            repeats: 5,
            processes: 1,
        }
    }
}

impl WorkloadArgs {
    /// The load that is meant: flags over the file over `default`.
    ///
    /// # Errors
    /// What cannot be: by its name, with what is allowed.
    pub(crate) fn resolve(&self, default: &Workload) -> Result<Workload> {
        let file = match &self.workload {
            Some(path) => WorkloadArgs::read(path)?,
            None => WorkloadArgs::default(),
        };
        let flags = self;
        macro_rules! either {
            ($field:ident) => {
                flags.$field.clone().or(file.$field.clone()).unwrap_or_else(|| default.$field.clone())
            };
        }
        let batch_records = either!(batch_records);
        // A pace on the command line replaces the file's as a whole.
        let pace = flags.pace(batch_records)?.or(file.pace(batch_records)?).unwrap_or(default.pace);
        let workload = Workload {
            record_bytes: either!(record_bytes),
            keys: either!(keys),
            batch_records,
            compression: either!(compression),
            partitions: either!(partitions),
            durability: either!(durability),
            producers: either!(producers),
            pace,
            seconds: either!(seconds),
            warm_up: either!(warm_up),
            repeats: either!(repeats),
            processes: either!(processes),
        };
        workload.check()?;
        Ok(workload)
    }

    fn read(path: &Path) -> Result<WorkloadArgs> {
        let unreadable = |error| BenchError::Usage(format!("cannot read the workload {}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let wrong = |error: toml::de::Error| {
            let line = 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count();
            BenchError::Usage(format!("{} line {line}: {}", path.display(), error.message().replace('\n', " ")))
        };
        toml::from_str(&text).map_err(wrong)
    }

    fn pace(&self, batch_records: u32) -> Result<Option<Pace>> {
        let requests = |records: f64| records / f64::from(batch_records.max(1));
        let refuse = |what: &str| Err(BenchError::Usage(what.to_owned()));
        let pace = match (self.window, self.rate, self.burst_every_ms, &self.ramp) {
            (None, None, None, None) => return Ok(None),
            (Some(window), None, None, None) => Pace::Closed { window },
            (None, Some(rate), None, None) => Pace::Open { requests_per_second: requests(rate) },
            (None, Some(rate), Some(every_ms), None) => {
                Pace::Bursts { requests_per_second: requests(rate), every: Duration::from_millis(every_ms) }
            }
            (None, None, None, Some(ramp)) => {
                let rate = |text: &str| text.trim().parse().ok().filter(|rate: &f64| *rate >= 0.0 && rate.is_finite());
                let rates = ramp.split_once("..").and_then(|(from, to)| Some((rate(from)?, rate(to)?)));
                match rates {
                    Some((from, to)) if to > from => Pace::Ramp { from: requests(from), to: requests(to) },
                    _ => return refuse("ramp is two rates in records a second, the lesser first, as in 1000..100000"),
                }
            }
            (None, None, Some(_), None) => return refuse("burst-every-ms goes with rate: records a second in bursts"),
            _ => return refuse("window, rate (with or without burst-every-ms) and ramp exclude each other"),
        };
        Ok(Some(pace))
    }
}

impl Workload {
    fn check(&self) -> Result<()> {
        let within = |what: &str, value: usize, most: usize| match value {
            0 => Err(BenchError::Usage(format!("{what} is 0; it must be at least 1"))),
            _ if value > most => Err(BenchError::Usage(format!("{what} is {value}; it must be at most {most}"))),
            _ => Ok(()),
        };
        within("producers", self.producers, PRODUCERS_MAX)?;
        within("partitions", self.partitions as usize, usize::MAX)?;
        within("batch-records", self.batch_records as usize, usize::MAX)?;
        within("repeats", self.repeats, REPEATS_MAX)?;
        within("processes", self.processes, PROCESSES_MAX)?;
        let time = |what: &str, value: f64, least: f64| match value {
            _ if (least..=*crate::SECONDS.end()).contains(&value) => Ok(()),
            _ => Err(BenchError::Usage(format!("{what} is {value}; it must be a number from {least} to 86400"))),
        };
        time("seconds", self.seconds, *crate::SECONDS.start())?;
        time("warm-up", self.warm_up, 0.0)?;
        if self.processes > self.producers {
            let (processes, producers) = (self.processes, self.producers);
            let producers = counted(producers, "producer");
            return Err(BenchError::Usage(format!("{processes} processes cannot share {producers}")));
        }
        self.pace.check().map_err(BenchError::Usage)
    }

    pub(crate) fn span(&self) -> Span {
        let time = |seconds| Duration::from_secs_f64(seconds);
        Span { warm_up: time(self.warm_up), measured: time(self.seconds) }
    }
}

/// A number of things in words: `1 partition`, `3 partitions`.
pub(crate) fn counted<N: fmt::Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// An amount of data in words: `0.5 GB`, `10 GB`.
pub(crate) fn gigabytes(bytes: u64) -> String {
    let tenths = format!("{:.1}", bytes as f64 / 1e9);
    format!("{} GB", tenths.strip_suffix(".0").unwrap_or(&tenths))
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { record_bytes, batch_records, .. } = self;
        let records = f64::from(*batch_records);
        let (producers, partitions) = (counted(self.producers, "producer"), counted(self.partitions, "partition"));
        match self.pace {
            Pace::Closed { window } => write!(f, "closed loop, {window} in flight each")?,
            Pace::Open { requests_per_second } => {
                write!(f, "open loop, {:.0} records/s", requests_per_second * records)?
            }
            Pace::Bursts { requests_per_second, every } => write!(
                f,
                "open loop, {:.0} records/s in bursts every {} ms",
                requests_per_second * records,
                every.as_millis()
            )?,
            Pace::Ramp { from, to } => {
                write!(f, "open loop, {:.0} to {:.0} records/s", from * records, to * records)?;
            }
        }
        write!(f, ", {producers}, {record_bytes} B records, {batch_records} a batch")?;
        if self.keys > 0 {
            write!(f, ", {}", counted(self.keys, "key"))?;
        }
        if self.compression != Compression::None {
            write!(f, ", {}", self.compression.name())?;
        }
        write!(f, ", {partitions}, durability {}", self.durability.name())?;
        if self.processes > 1 {
            write!(f, ", from {} processes", self.processes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    fn resolve(args: &WorkloadArgs) -> std::result::Result<Workload, String> {
        args.resolve(&Workload::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_default() {
        let file =
            file("record-bytes = 100\npartitions = 16\nrate = 5000\nbatch-records = 10\ncompression = \"lz4\"\n");
        let path = Some(file.path().to_owned());
        let workload = resolve(&WorkloadArgs { workload: path.clone(), partitions: Some(4), ..Default::default() });
        let expected = Workload {
            record_bytes: Sizes::Fixed(100),
            partitions: 4,
            batch_records: 10,
            compression: Compression::Lz4,
            pace: Pace::Open { requests_per_second: 500.0 },
            ..Workload::default()
        };
        assert_eq!(workload, Ok(expected));
        let closed =
            resolve(&WorkloadArgs { workload: path, window: Some(8), ..Default::default() }).expect("resolved");
        assert_eq!(closed.pace, Pace::Closed { window: 8 }, "a pace replaces the file's");
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        let refused = |text: &str| {
            let file = file(text);
            resolve(&WorkloadArgs { workload: Some(file.path().to_owned()), ..Default::default() }).unwrap_err()
        };
        assert!(refused("partitions = 3\nrecords = 5\n").contains("line 2: unknown field `records`"));
        assert!(refused("record-bytes = \"big\"\n").contains("a range like 100..2000"));
        assert_eq!(refused("producers = 0\n"), "producers is 0; it must be at least 1");
        assert_eq!(refused("producers = 1000000\n"), "producers is 1000000; it must be at most 20000");
        assert_eq!(refused("window = 9000000000\n"), "window is 9000000000; it must be at most 1048576");
        for seconds in ["inf", "nan", "-1", "1e300", "0.0"] {
            assert!(refused(&format!("seconds = {seconds}\n")).contains("it must be a number from 0.1 to 86400"));
        }
        for warm_up in ["inf", "nan", "-1.5", "1e300"] {
            assert!(refused(&format!("warm-up = {warm_up}\n")).contains("it must be a number from 0 to 86400"));
        }
        assert!(refused("ramp = \"9..3\"\n").starts_with("ramp is two rates"));
        assert!(refused("record-bytes = -1\n").contains("it must be bytes up to 16777216"));
        assert!(refused("burst-every-ms = 5\n").starts_with("burst-every-ms goes with rate"));
        assert!(refused("rate = 1e300\n").starts_with("rate must be a number"));
        assert!(refused("rate = 10\nwindow = 2\n").contains("exclude each other"));
        assert!(refused("processes = 65\n").contains("65 processes cannot share 64 producers"));
    }

    #[test]
    fn one_of_a_kind_is_said_as_one() {
        let one = Workload { producers: 1, keys: 1, ..Workload::default() };
        let expected = "closed loop, 1 in flight each, 1 producer, 1024 B records, 1 a batch, 1 key, 1 partition, \
                        durability flush";
        assert_eq!(one.to_string(), expected);
        let several = Workload { producers: 2, partitions: 3, ..one };
        assert!(several.to_string().contains(", 2 producers,") && several.to_string().contains(", 3 partitions,"));
        assert_eq!((counted(0_u32, "group"), counted(1_u64, "group")), ("0 groups".into(), "1 group".into()));
    }

    #[test]
    fn the_ready_files_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let mut found = 0;
        for entry in std::fs::read_dir(directory).expect("bench/workloads") {
            let path = entry.expect("an entry").path();
            let args = WorkloadArgs { workload: Some(path.clone()), ..Default::default() };
            assert!(resolve(&args).is_ok(), "{}: {:?}", path.display(), resolve(&args));
            found += 1;
        }
        assert!(found >= 6);
    }
}
