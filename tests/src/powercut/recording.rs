//! A real server with real clients on a logged disk, from an empty directory on: what power cuts are taken from.

use super::book::What;
use super::met::{Met, Segments};
use super::teller::{Stream, Teller};
use super::workload::{Clients, Phase, streams};
use super::{PATIENCE, server_options};
use crate::chance::Chance;
use crate::disk::image::{self, FileSystem};
use crate::disk::log::{self, WriteLog};
use crate::disk::{Disk, Result};
use corelog_bench::Server;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Size of the journals: the least that is allowed, so that they are gone around soon.
const JOURNAL_BYTES: u64 = 32 << 20;
/// What the clients do before the server is killed, before it is stopped, and at last. The first is enough to go around the
/// journal however slow the machine is: two of the producers' records are too small to go past it.
const PHASES: [Phase; 3] = [
    Phase { time: Duration::from_millis(2500), bytes: 20 << 20 },
    Phase { time: Duration::from_millis(1500), bytes: 0 },
    Phase { time: Duration::from_millis(700), bytes: 0 },
];
/// How often segment files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A recording: what the disk held before, and all it was asked.
pub struct Recording {
    /// The file system.
    pub fs: FileSystem,
    /// Image of the disk before.
    pub base: PathBuf,
    /// The log.
    pub log: WriteLog,
    /// What happened in it.
    pub met: Met,
    /// Whether it is of a start after a cut, and begins with what was known then.
    pub is_again: bool,
}

impl Recording {
    /// Name of the image of the disk before.
    pub(super) const BASE: &str = "base.img";

    /// Opens one that was kept.
    ///
    /// # Errors
    /// When the directory has none.
    pub(super) fn open(directory: &Path, fs: FileSystem) -> Result<Recording> {
        let log = WriteLog::open(&directory.join(log::FILE))?;
        Ok(Recording { fs, base: directory.join(Recording::BASE), log, met: Met::default(), is_again: true })
    }
}

/// Records in `directory`. `durability` is that of all topics that are written to all the time.
///
/// # Errors
/// When the rig fails, or anything that clients asked for: no fault is in play here.
pub(super) fn record(directory: &Path, fs: FileSystem, durability: &'static str, seed: u64) -> Result<Recording> {
    let (base, image) = (directory.join(Recording::BASE), directory.join("disk.img"));
    image::make(&base, fs)?;
    image::copy(&base, &image)?;
    let disk = Disk::start(directory, &image, fs)?;
    let mut met = Met::default();
    let teller = Arc::new(Teller::new(disk.marks()?));
    watched(disk.root(), &mut met, |met| work(disk.root(), &teller, durability, seed, met))?;
    drop(teller);
    let log = disk.finish()?;
    fs::remove_file(&image)?;
    met.look_at(&log, JOURNAL_BYTES)?;
    Ok(Recording { fs, base, log, met, is_again: false })
}

/// Does `work` while segment files are followed.
fn watched(data: &Path, met: &mut Met, work: impl FnOnce(&mut Met) -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut segments = Segments::default();
            while !over.load(Ordering::Relaxed) {
                segments.look(data);
                thread::sleep(LOOK_INTERVAL);
            }
            segments
        });
        let outcome = work(met);
        over.store(true, Ordering::Relaxed);
        let segments = watching.join().map_err(|_| "the look at segment files ended")?;
        (met.rolls, met.recycled) = (segments.rolls, segments.recycled);
        outcome
    })
}

fn work(data: &Path, teller: &Arc<Teller>, durability: &'static str, seed: u64, met: &mut Met) -> Result<()> {
    let streams = streams(durability);
    let options = server_options(data, &["--retention-check-interval", "200ms"])?;
    let mut server = Server::start(options.clone(), PATIENCE)?;
    let bootstrap = options.listen.to_string();
    let mut clients = Clients { bootstrap, teller, chance: Chance(seed), brief: 0, alive: VecDeque::new() };
    let mut admin = clients.admin()?;
    streams.iter().try_for_each(|stream| clients.create(&mut admin, stream))?;
    teller.tell(What::Begun, &streams[0], 0, 0);
    clients.run(&streams, PHASES[0])?;
    server.kill()?;
    let mut server = Server::start(options.clone(), PATIENCE)?;
    met.recoveries += 1;
    clients.run(&streams, PHASES[1])?;
    let status = server.terminate(PATIENCE)?;
    if !status.success() {
        return Err(format!("the server ended with {status}:\n{}", server.output()).into());
    }
    let _server = Server::start(options, PATIENCE)?;
    clients.run(&streams, PHASES[2])?;
    count(&clients, &streams, met)
    // The server is killed here, so that the log has no orderly end.
}

/// What the server itself can say.
fn count(clients: &Clients<'_>, streams: &[Stream], met: &mut Met) -> Result<()> {
    let mut admin = clients.admin()?;
    met.created = clients.brief as usize;
    met.deleted = clients.brief as usize - clients.alive.len();
    for stream in streams {
        let dropped: i64 =
            admin.describe_topic(&stream.topic)?.partitions.iter().map(|partition| partition.first).sum();
        let counted = if stream.retention_bytes() < 0 { &mut met.deleted_records } else { &mut met.retained };
        *counted += dropped;
    }
    Ok(())
}
