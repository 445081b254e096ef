//! A server on a disk that can be made to misbehave, and a writer that remembers what it was told.

use crate::disk::image::{self, FileSystem};
use crate::disk::{Disk, Result, room, run};
use crate::powercut::{said, server_options};
use crate::process::PATIENCE;
use crate::records::{RecordId, fill, identify};
use corelog_bench::{Server, ServerOptions};
use corelog_client::blocking::{Admin, Consumer, Producer};
use corelog_client::{ConnectOptions, ConsumerOptions, NewRecord, ProducerOptions};
use corelog_engine::log::dump::{Severity, verify};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The one topic, and its partition, that records go to.
pub(super) const TOPIC: &str = "written";
/// How long a client waits for an answer before it gives up.
const TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A server on a disk of its own. Everything is gone when it is dropped.
pub(super) struct Rig {
    // In the order in which they must end.
    server: Option<Server>,
    pub(super) options: ServerOptions,
    pub(super) disk: Disk,
    _directory: TempDir,
}

impl Rig {
    pub(super) fn start(fs: FileSystem, more: &[&str]) -> Result<Rig> {
        let directory = room()?;
        let image = directory.path().join("disk.img");
        image::make(&image, fs)?;
        let disk = Disk::start(directory.path(), &image, fs)?;
        let options = server_options(disk.root(), more)?;
        let mut rig = Rig { server: None, options, disk, _directory: directory };
        rig.serve()?;
        rig.admin()?.create_topic(TOPIC, 1, &[])?;
        Ok(rig)
    }

    pub(super) fn serve(&mut self) -> Result<()> {
        self.server = Some(Server::start(self.options.clone(), PATIENCE)?);
        Ok(())
    }

    /// Kills the server, if it runs.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), |mut server| Ok(server.kill()?))
    }

    /// Asks the server to end; it must, within the patience of tests.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), |mut server| Ok(server.terminate(PATIENCE).map(drop)?))
    }

    pub(super) fn bootstrap(&self) -> String {
        self.options.listen.to_string()
    }

    pub(super) fn admin(&self) -> Result<Admin> {
        Ok(Admin::connect(&self.bootstrap(), ConnectOptions::default())?)
    }

    /// The server may write no file beyond this size from now on (bytes, or "unlimited").
    pub(super) fn limit_files(&self, bytes: &str) -> Result<()> {
        let pid = self.server.as_ref().ok_or("no server runs")?.pid().to_string();
        run("prlimit", ["--pid", &pid, &format!("--fsize={bytes}:unlimited")])
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.options.data_dir.join("shards-1/0/journal")
    }

    /// The segment files of a topic's partition 0, in order.
    pub(super) fn segments(&self, topic: &str) -> Result<Vec<PathBuf>> {
        let id = self.admin()?.topic(topic)?.id;
        let directory = self.options.data_dir.join(format!("topics/{id}/0"));
        let entries = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        Ok(paths)
    }

    /// What the server had to say of its log, all its lives together.
    pub(super) fn said(&self) -> String {
        self.server.as_ref().map(said).unwrap_or_default()
    }

    /// Waits until the server says something: the first line of its log that has these words.
    pub(super) fn hears(&self, words: &str) -> Result<String> {
        let line = || self.said().lines().find(|line| line.contains(words)).map(|line| line.trim().to_owned());
        let heard = until(|| line().is_some()).map(|_| line().unwrap_or_default());
        heard.map_err(|_| format!("the server never said \"{words}\"; {}", self.said()).into())
    }

    /// The same server goes on, and the next one, after a crash, has all that was acknowledged; and nothing is damaged.
    pub(super) fn has_all(&mut self, writer: Writer) -> Result<()> {
        let told = writer.end();
        read_all(&self.bootstrap(), &told)?;
        self.kill()?;
        self.serve()?;
        read_all(&self.bootstrap(), &told)?;
        self.stop()?;
        let mut findings = String::new();
        let summary = verify(&self.options.data_dir, &mut |finding| {
            if finding.severity != Severity::Note {
                findings.push_str(&format!("\n{finding}"));
            }
            Ok(())
        })?;
        ensure(summary.is_sound(), || format!("dump-log --verify finds:{findings}"))
    }
}

/// What a writer was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Number of the record at each acknowledged offset.
    pub(super) acknowledged: BTreeMap<i64, u64>,
    /// What the others failed with, and when.
    pub(super) errors: Vec<(Instant, String)>,
    /// When an acknowledgement came last.
    last: Option<Instant>,
}

/// Writes all the time. Dropping it ends it.
pub(super) struct Writer {
    told: Arc<Mutex<Told>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Records of so many bytes, to partition 0.
    pub(super) fn start(bootstrap: &str, topic: &str, bytes: usize) -> Result<Writer> {
        let told: Arc<Mutex<Told>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let connect = ConnectOptions {
            request_timeout: TIMEOUT,
            backoff_max: Duration::from_millis(100),
            ..ConnectOptions::default()
        };
        let options = ProducerOptions {
            connect,
            delivery_timeout: TIMEOUT,
            buffer_bytes: 1 << 20,
            block_max: Duration::from_millis(50),
            ..ProducerOptions::default()
        };
        let telling = Arc::clone(&told);
        let producer = Producer::with_deliveries(bootstrap, topic, options, move |delivery| {
            let mut told = lock(&telling);
            match &delivery.outcome {
                Ok(base) => {
                    let records = (0..u64::from(delivery.count)).map(|at| (base + at as i64, delivery.first + at));
                    told.acknowledged.extend(records);
                    told.last = Some(Instant::now());
                }
                Err(error) => told.errors.push((Instant::now(), error.to_string())),
            }
        })?;
        let ending = Arc::clone(&over);
        let thread = thread::spawn(move || write(&producer, bytes, &ending));
        Ok(Writer { told, over, thread: Some(thread) })
    }

    pub(super) fn told(&self) -> Told {
        lock(&self.told).clone()
    }

    /// Waits until so many records more are acknowledged.
    pub(super) fn goes_on(&self, records: usize) -> Result<Duration> {
        let before = lock(&self.told).acknowledged.len();
        until(|| lock(&self.told).acknowledged.len() >= before + records).map_err(|_| {
            format!("nothing is acknowledged any more; last error: {:?}", self.told().errors.last()).into()
        })
    }

    /// Waits for an acknowledgement after `since`; how long after that was.
    pub(super) fn resumes(&self, since: Instant) -> Result<Duration> {
        until(|| lock(&self.told).last.is_some_and(|last| last > since))
            .map_err(|_| format!("writing does not resume; last error: {:?}", self.told().errors.last()))?;
        Ok(since.elapsed())
    }

    /// Waits for an error after `since` that contains these words.
    pub(super) fn fails(&self, since: Instant, words: &[&str]) -> Result<String> {
        let error = || {
            let told = lock(&self.told);
            let mut errors = told.errors.iter().filter(|(at, _)| *at > since).map(|(_, error)| error);
            errors.find(|error| words.iter().any(|word| error.contains(word))).cloned()
        };
        let failed = until(|| error().is_some());
        failed.map_err(|_| format!("no record failed with {words:?}, but with {:?}", self.told().errors.last()))?;
        Ok(error().unwrap_or_default())
    }

    /// Ends it: what was told by then.
    pub(super) fn end(mut self) -> Told {
        self.join();
        self.told()
    }

    fn join(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(producer: &Producer, bytes: usize, over: &AtomicBool) {
    let (mut value, mut number) = (vec![0; bytes], 0);
    while !over.load(Ordering::Relaxed) {
        fill(&mut value, record(number));
        // A full buffer is what a disk that hangs leads to.
        if producer.send(NewRecord::new(&value).partition(0)).is_ok() {
            number += 1;
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

fn record(number: u64) -> RecordId {
    RecordId { append: 1, index: number as u32 }
}

/// Reads the topic to its end: all that was acknowledged is there, where it was said to be.
pub(super) fn read_all(bootstrap: &str, told: &Told) -> Result<()> {
    let seen = read(bootstrap, TOPIC)?;
    for (offset, number) in &told.acknowledged {
        let found = seen.get(offset);
        ensure(found == Some(&record(*number)), || format!("record {number} was acknowledged at {offset}: {found:?}"))?;
    }
    Ok(())
}

/// All records of a topic's partition 0, each as it was made, without a gap.
pub(super) fn read(bootstrap: &str, topic: &str) -> Result<BTreeMap<i64, RecordId>> {
    let mut consumer = Consumer::connect(bootstrap, topic, ConsumerOptions::default())?;
    let mut seen = BTreeMap::new();
    let mut heard = Instant::now();
    while !consumer.at_end() {
        ensure(heard.elapsed() < PATIENCE, || format!("reading stopped at {:?}", consumer.position(0)))?;
        let Some(fetched) = consumer.poll(LOOK_INTERVAL)? else { continue };
        heard = Instant::now();
        for record in fetched.records() {
            let record = record?;
            let id =
                identify(record.value.unwrap_or_default()).ok_or_else(|| format!("damage at {}", record.offset))?;
            let next = seen.last_key_value().map_or(0, |(last, _)| last + 1);
            ensure(record.offset == next, || format!("offset {} comes where {next} should", record.offset))?;
            seen.insert(record.offset, id);
        }
    }
    Ok(seen)
}

/// Waits until something is so: how long that took.
pub(super) fn until(mut is_so: impl FnMut() -> bool) -> Result<Duration> {
    let began = Instant::now();
    while !is_so() {
        ensure(began.elapsed() < PATIENCE, || "it never came to be".to_owned())?;
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(began.elapsed())
}

/// An error, unless something holds.
pub(super) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(why().into()) }
}

/// Bytes free for the server on the file system of a path.
pub(super) fn free_bytes(path: &Path) -> Result<u64> {
    let found = nix::sys::statvfs::statvfs(path)?;
    Ok(found.blocks_free() * found.fragment_size())
}

/// Creates a topic of one partition.
pub(super) fn create(bootstrap: &str, topic: &str) -> Result<()> {
    Ok(Admin::connect(bootstrap, ConnectOptions::default())?.create_topic(topic, 1, &[]).map(drop)?)
}
