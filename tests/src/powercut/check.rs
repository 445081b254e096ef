//! What must hold after a power cut, seen by a real server and real clients.

use super::book::{Book, Existence, Expected, Promise};
use super::teller::{record_at, value_at};
use super::{PATIENCE, said, server_options};
use crate::disk::Result;
use crate::disk::image::FileSystem;
use crate::disk::mount::Mount;
use crate::records::identify;
use corelog_bench::Server;
use corelog_client::blocking::{Admin, Consumer, Producer};
use corelog_client::{ConnectOptions, ConsumerOptions, NewRecord, PartitionInfo, ProducerOptions};
use corelog_engine::log::dump::{Severity, verify};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Without a record for so long a reader is stuck.
const SILENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What a batch takes beside its values, per record, at most.
const OVERHEAD_BYTES: u64 = 100;

/// What is not as it was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// So many acknowledged records are not there.
    Records(i64, String),
    /// Anything else: a server that does not start, a partition that is fenced, records that were never sent.
    Broken(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Records(count, what) => write!(f, "{count} acknowledged records are lost: {what}"),
            Loss::Broken(what) => f.write_str(what),
        }
    }
}

/// Mounts an image that a cut left, starts a server on it, and holds all that it serves against the book.
///
/// # Errors
/// When the rig fails.
pub fn check(image: &Path, directory: &Path, fs: FileSystem, book: &Book) -> Result<Option<Loss>> {
    let mount = match Mount::new(image, &directory.join("mnt"), fs) {
        Ok(mount) => mount,
        // Only a disk that does not flush leads to that: a torn superblock has been mended.
        Err(error) => return Ok(Some(Loss::Broken(format!("it cannot be mounted: {error}")))),
    };
    let loss = served(mount.root(), book).and_then(|()| verified(mount.root()));
    mount.end()?;
    Ok(loss.err())
}

type Checked<T> = std::result::Result<T, Loss>;

fn broken(what: impl ToString) -> Loss {
    Loss::Broken(what.to_string())
}

fn served(data: &Path, book: &Book) -> Checked<()> {
    let options = server_options(data, &[]).map_err(broken)?;
    let mut server = Server::start(options.clone(), PATIENCE).map_err(broken)?;
    let looked = look(&options.listen.to_string(), book);
    let with_words = |loss| match loss {
        Loss::Broken(what) => Loss::Broken(format!("{what}\n{}", said(&server))),
        records @ Loss::Records(..) => records,
    };
    looked.map_err(with_words)?;
    let status = server.terminate(PATIENCE).map_err(broken)?;
    if status.success() { Ok(()) } else { Err(broken(format!("the server ended with {status}\n{}", said(&server)))) }
}

/// `dump-log --verify` of a directory whose server is stopped.
fn verified(data: &Path) -> Checked<()> {
    let mut findings = String::new();
    let summary = verify(data, &mut |finding| {
        if finding.severity != Severity::Note {
            findings.push_str(&format!("\n{finding}"));
        }
        Ok(())
    });
    let summary = summary.map_err(broken)?;
    if summary.is_sound() { Ok(()) } else { Err(broken(format!("dump-log --verify finds:{findings}"))) }
}

fn look(bootstrap: &str, book: &Book) -> Checked<()> {
    let mut admin = Admin::connect(bootstrap, ConnectOptions::default()).map_err(broken)?;
    let there: Vec<String> = admin.topics().map_err(broken)?.into_iter().map(|topic| topic.name).collect();
    if let Some(unknown) = there.iter().find(|name| !book.topics.contains_key(*name)) {
        return Err(broken(format!("topic {unknown} was never created")));
    }
    for (name, expected) in &book.topics {
        match (expected.existence, there.contains(name)) {
            (Existence::Certain, false) => {
                return Err(Loss::Records(
                    expected.partitions.iter().map(|p| p.next).sum(),
                    format!("no topic {name}"),
                ));
            }
            (Existence::Gone, true) => return Err(broken(format!("topic {name} was deleted and is there again"))),
            (_, true) => look_at(bootstrap, &mut admin, name, expected)?,
            (_, false) => {}
        }
    }
    Ok(())
}

/// One topic: what it holds, and that it takes another record in each partition.
fn look_at(bootstrap: &str, admin: &mut Admin, topic: &str, expected: &Expected) -> Checked<()> {
    let described = described(admin, topic)?;
    if described.len() != expected.partitions.len() {
        return Err(broken(format!("topic {topic} has {} partitions", described.len())));
    }
    let mut readings: Vec<Reading> =
        described.iter().map(|partition| Reading::new(topic, expected.stream, partition)).collect();
    read(bootstrap, topic, &mut readings)?;
    for (reading, promise) in readings.iter().zip(&expected.partitions) {
        reading.judge(promise, expected.retention_bytes)?;
    }
    let producer = Producer::connect(bootstrap, topic, ProducerOptions::default()).map_err(broken)?;
    for reading in &readings {
        let (partition, offset) = (reading.partition, reading.next);
        let value = value_at(expected.stream, partition, offset, 200);
        let stored = producer.send_wait(NewRecord::new(&value).partition(partition)).map_err(broken)?;
        if stored.offset != offset {
            return Err(broken(format!(
                "{topic}/{partition} ends at {offset}, and a new record came to {}",
                stored.offset
            )));
        }
    }
    read(bootstrap, topic, &mut readings)
}

fn described(admin: &mut Admin, topic: &str) -> Checked<Vec<PartitionInfo>> {
    let described = admin.describe_topic(topic).map_err(broken)?;
    let fenced =
        described.partitions.iter().find(|partition| partition.fenced.is_some() || partition.trouble.is_some());
    match fenced {
        Some(PartitionInfo { partition, fenced, trouble, .. }) => {
            Err(broken(format!("{topic}/{partition} is fenced: {fenced:?} {trouble:?}")))
        }
        None => Ok(described.partitions),
    }
}

/// What was read of a partition.
struct Reading<'a> {
    topic: &'a str,
    stream: u32,
    partition: u32,
    first: i64,
    /// Offset behind what was read.
    next: i64,
    bytes: u64,
}

impl<'a> Reading<'a> {
    fn new(topic: &'a str, stream: u32, info: &PartitionInfo) -> Reading<'a> {
        Reading { topic, stream, partition: info.partition, first: info.first, next: info.first, bytes: 0 }
    }

    fn take(&mut self, offset: i64, value: &[u8]) -> Checked<()> {
        let Reading { topic, partition, next, .. } = *self;
        if offset != next {
            return Err(broken(format!("{topic}/{partition}: offset {offset} comes where {next} should")));
        }
        if identify(value) != Some(record_at(self.stream, partition, offset)) {
            let found = identify(value);
            return Err(broken(format!("{topic}/{partition}: at {offset} stands what was not sent there: {found:?}")));
        }
        self.next += 1;
        self.bytes += value.len() as u64;
        Ok(())
    }

    fn judge(&self, promise: &Promise, retention_bytes: Option<u64>) -> Checked<()> {
        let Reading { topic, partition, first, next, .. } = *self;
        if next < promise.next {
            return Err(Loss::Records(promise.next - next, format!("{topic}/{partition} ends at {next}")));
        }
        if first < promise.must_begin {
            return Err(broken(format!(
                "{topic}/{partition} begins at {first}, below {} all was deleted",
                promise.must_begin
            )));
        }
        let most = self.bytes + (next - first) as u64 * OVERHEAD_BYTES;
        let retained = retention_bytes.is_some_and(|bytes| most >= bytes);
        if first > promise.may_begin && !retained {
            let what = format!("{topic}/{partition} begins at {first} and holds {} bytes", self.bytes);
            return Err(Loss::Records(first - promise.may_begin, what));
        }
        Ok(())
    }
}

/// Reads a topic on to its end.
fn read(bootstrap: &str, topic: &str, readings: &mut [Reading<'_>]) -> Checked<()> {
    let mut consumer = Consumer::connect(bootstrap, topic, ConsumerOptions::default()).map_err(broken)?;
    let goes_on = |reading: &Reading<'_>| if reading.next > reading.first { Some(reading.next) } else { None };
    for (partition, offset) in readings.iter().filter_map(|reading| Some((reading.partition, goes_on(reading)?))) {
        consumer.seek(partition, offset).map_err(broken)?;
    }
    let mut heard = Instant::now();
    while !consumer.at_end() {
        // The end may become known without another record.
        let fetched = consumer.poll(LOOK_INTERVAL).map_err(|error| broken(format!("reading {topic}: {error}")))?;
        let Some(fetched) = fetched else {
            if heard.elapsed() > SILENCE {
                return Err(broken(format!(
                    "reading {topic}: nothing came for {SILENCE:?}, and the end is not reached"
                )));
            }
            continue;
        };
        heard = Instant::now();
        for record in fetched.records() {
            let record = record.map_err(|error| broken(format!("reading {topic}: {error}")))?;
            readings[fetched.partition() as usize].take(record.offset, record.value.unwrap_or_default())?;
        }
    }
    Ok(())
}
