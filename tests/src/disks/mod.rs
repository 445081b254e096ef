//! Real servers on disks that misbehave. Each story ends with every acknowledged record in its place, before and after a
//! crash, and with files in which `dump-log --verify` finds nothing wrong, unless it is one of damage.

mod rig;

use crate::disk::faults::{Fault, place_of};
use crate::disk::image::{self, FileSystem};
use crate::disk::{Disk, Result, mount, room, run};
use crate::process::{Node, PATIENCE};
use corelog_bench::Server;
use corelog_client::blocking::Consumer;
use corelog_client::{ClientError, ConsumerOptions};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rig::{Rig, TOPIC, Told, Writer, ensure, free_bytes, read, read_all};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Words of what a producer is told when an outcome cannot be known.
const UNKNOWN: &str = "it is unknown";
const OPEN_AGAIN: &str = "the log is open again";
const STOPS: &str = "stops acknowledging and reopens its log";

/// The least that is written at once, and allocated.
const BLOCK: u64 = 4096;

/// A story: what it is called, and what it tells of its figures.
pub type Story = (&'static str, fn(FileSystem) -> Result<String>);

/// All of them but the disk that hangs, which is told how long.
pub const STORIES: [Story; 8] = [
    ("full to its reserve", |fs| full(fs, "64MiB", 32 << 20)),
    ("full to the last block", |fs| full(fs, "0", 0)),
    ("an error of a write", error_of_a_write),
    ("an error of a flush", error_of_a_flush),
    ("errors of reads", errors_of_reads),
    ("a file system that turns read-only", read_only),
    ("short writes", short_writes),
    ("files deleted and truncated", files_gone),
];

/// Tells a story with mounts of its own.
///
/// # Errors
/// What was not as it should be.
pub fn tell(story: impl FnOnce(FileSystem) -> Result<String>, fs: FileSystem) -> Result<String> {
    mount::apart()?;
    story(fs)
}

/// Has a disk as the stories need it, and lets go of it: tells a machine that cannot from stories that went wrong.
///
/// # Errors
/// Without root, without its tools or devices.
pub fn rehearse(fs: FileSystem) -> Result<()> {
    mount::apart()?;
    let directory = room()?;
    let image = directory.path().join("disk.img");
    image::make(&image, fs)?;
    Disk::start(directory.path(), &image, fs)?.finish().map(drop)
}

/// The disk is full but for `left` bytes; then there is space again, and writing resumes within a second.
fn full(fs: FileSystem, reserve: &str, left: u64) -> Result<String> {
    let mut rig = Rig::start(fs, &["--disk-reserve", reserve])?;
    rig.admin()?.create_topic("spare", 1, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 20_000)?;
    writer.goes_on(10)?;
    let filler = rig.options.data_dir.join("filler");
    let full = Instant::now();
    fill_up(&filler, free_bytes(&rig.options.data_dir)?.saturating_sub(left))?;
    let error = writer.fails(full, &["storage_full"])?;
    read_all(&rig.bootstrap(), &writer.told())?;
    rig.admin()?.delete_topic("spare")?;
    let freed = Instant::now();
    fs::remove_file(&filler)?;
    let resumed = writer.resumes(freed)?;
    ensure(resumed < Duration::from_secs(1), || format!("writing resumed only {resumed:?} after space was freed"))?;
    writer.goes_on(100)?;
    rig.has_all(writer)?;
    Ok(format!("producers were told \"{error}\"; writing resumed {resumed:.0?} after space was freed"))
}

/// Takes so many bytes of the file system with a file, or all that can be had.
fn fill_up(filler: &Path, bytes: u64) -> Result<()> {
    File::create(filler)?;
    let (mut at, mut step) = (0, bytes);
    while step >= BLOCK && at < bytes {
        let place = ["-o", &at.to_string(), "-l", &step.min(bytes - at).to_string()].map(str::to_owned);
        match run("fallocate", place.iter().map(OsStr::new).chain([filler.as_os_str()])) {
            Ok(()) => at += step,
            Err(_) => step = step / 2 / BLOCK * BLOCK,
        }
    }
    Ok(())
}

/// A sector of the journal cannot be written.
fn error_of_a_write(fs: FileSystem) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 20_000)?;
    writer.goes_on(10)?;
    let broken = Instant::now();
    rig.disk.break_down(Fault::Write(place_of(&rig.journal(), 6 << 20)?))?;
    let line = rig.hears(STOPS)?;
    rig.hears(OPEN_AGAIN)?;
    rig.disk.heal()?;
    let error = writer.fails(broken, &[UNKNOWN, "reopening"])?;
    writer.goes_on(100)?;
    rig.has_all(writer)?;
    Ok(format!("producers were told \"{error}\", the log says \"{line}\""))
}

/// One flush fails. It is never tried again: what it should have covered is read from disk, and written anew.
fn error_of_a_flush(fs: FileSystem) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 2_000)?;
    writer.goes_on(10)?;
    let broken = Instant::now();
    rig.disk.break_down(Fault::Flush)?;
    let line = rig.hears(STOPS)?;
    rig.disk.heal()?;
    rig.hears(OPEN_AGAIN)?;
    let error = writer.fails(broken, &[UNKNOWN, "reopening"])?;
    writer.goes_on(100)?;
    rig.has_all(writer)?;
    Ok(format!("producers were told \"{error}\", the log says \"{line}\""))
}

/// A sector of a segment cannot be read, for a while.
fn errors_of_reads(fs: FileSystem) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 20_000)?;
    writer.goes_on(200)?;
    let told = writer.end();
    // The next server has nothing in memory.
    rig.stop()?;
    rig.serve()?;
    rig.admin()?.create_topic("other", 1, &[])?;
    let segments = rig.segments(TOPIC)?;
    rig.disk.break_down(Fault::Read(place_of(&segments[0], 2 << 20)?))?;
    rig.disk.forget_reads()?;
    let mut consumer = Consumer::connect(&rig.bootstrap(), TOPIC, ConsumerOptions::default())?;
    let other = Writer::start(&rig.bootstrap(), "other", 2_000)?;
    let until = Instant::now() + Duration::from_secs(2);
    let mut refused = None;
    while Instant::now() < until {
        if let Err(error) = consumer.poll(Duration::from_millis(50)) {
            refused.get_or_insert(error);
        }
    }
    let position = consumer.position(0).unwrap_or(0);
    ensure(position < told.acknowledged.len() as i64, || "the sector that cannot be read was read".to_owned())?;
    other.goes_on(50)?;
    rig.disk.heal()?;
    read_all(&rig.bootstrap(), &told)?;
    other.end();
    let how = refused.map_or_else(|| "without an error".to_owned(), |error| format!("told \"{error}\""));
    Ok(format!("a reader waited at offset {position} {how}, others went on, and then it had all"))
}

/// The file system turns read-only, as after an error that it cannot live with: mounted again it has all.
fn read_only(fs: FileSystem) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 2_000)?;
    writer.goes_on(50)?;
    let turned = Instant::now();
    rig.disk.turn_read_only()?;
    rig.hears(STOPS)?;
    let error = writer.fails(turned, &[UNKNOWN, "reopening"])?;
    let line = rig.hears("reopening failed")?;
    let told = writer.end();
    rig.stop()?;
    rig.disk.mount_again()?;
    rig.serve()?;
    read_all(&rig.bootstrap(), &told)?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 2_000)?;
    writer.goes_on(10)?;
    Ok(format!("producers were told \"{error}\", the log says \"{line}\""))
}

/// The process may not write files beyond a size, which lies a block behind what the journal has: the kernel writes one block
/// of the next entry, and refuses the rest. Other causes of short writes are met in the simulation only: blocks are reserved
/// before they are written, and writes are whole blocks.
fn short_writes(fs: FileSystem) -> Result<String> {
    let mut rig = block_size_signal(|| Rig::start(fs, &[]))?;
    let before = fill_journal(&rig)?;
    let limit = journal_end(&rig)? + BLOCK;
    rig.limit_files(&limit.to_string())?;
    let limited = Instant::now();
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 20_000)?;
    let line = rig.hears(STOPS)?;
    let error = writer.fails(limited, &[UNKNOWN, "reopening"])?;
    let end = journal_end(&rig)?;
    ensure(line.contains("/journal"), || format!("the log was not reopened for a write of the journal: {line}"))?;
    ensure(end == limit, || format!("no write was short: the journal has {end} bytes and may have {limit}"))?;
    ensure(writer.told().acknowledged.is_empty(), || "an entry of which one block was written is acknowledged".into())?;
    rig.limit_files("unlimited")?;
    rig.hears(OPEN_AGAIN)?;
    writer.goes_on(100)?;
    read_all(&rig.bootstrap(), &before)?;
    rig.has_all(writer)?;
    Ok(format!("one block of an entry was written; producers were told \"{error}\", the log says \"{line}\""))
}

/// What a process gets that writes beyond its limit would end it; the server inherits that it is blocked.
fn block_size_signal<T>(start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = SigSet::from(Signal::SIGXFSZ).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

/// Brings the journal's end behind the size of any segment, which are not to meet the limit. What was acknowledged of the
/// topic that is looked at.
fn fill_journal(rig: &Rig) -> Result<Told> {
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 20_000)?;
    writer.goes_on(10)?;
    let told = writer.end();
    rig.admin()?.create_topic("filler", 1, &[("segment.bytes", "1048576")])?;
    Writer::start(&rig.bootstrap(), "filler", 20_000)?.goes_on(400)?;
    Ok(told)
}

/// Where the journal's last entry ends. It is filled with zeros before it is written, and not gone around yet.
fn journal_end(rig: &Rig) -> Result<u64> {
    let journal = fs::read(rig.journal())?;
    let last = journal.iter().rposition(|byte| *byte != 0).ok_or("the journal is empty")? as u64;
    Ok((last + 1).next_multiple_of(BLOCK))
}

/// The disk answers nothing for so long. Readers of what is in memory and servers on other disks go on, producers are
/// told that time is up, and all resumes.
///
/// # Errors
/// What was not as it should be.
pub fn hang(fs: FileSystem, time: Duration) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let neighbour = Node::start(1, &["--memory", "512MiB", "--journal-bytes", "32MiB"]);
    rig::create(&neighbour.bootstrap(), "other")?;
    let other = Writer::start(&neighbour.bootstrap(), "other", 2_000)?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 2_000)?;
    writer.goes_on(200)?;
    let told = writer.told();
    let hung = Instant::now();
    let hanging = rig.disk.hang()?;
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    read_all(&rig.bootstrap(), &told)?;
    let read = began.elapsed();
    ensure(hung.elapsed() < time, || format!("a reader of what is in memory waited {read:?}"))?;
    let error = writer.fails(hung, &[UNKNOWN, "in time"])?;
    while hung.elapsed() < time {
        other.goes_on(10)?;
    }
    drop(hanging);
    let resumed = writer.resumes(Instant::now())?;
    writer.goes_on(100)?;
    rig.has_all(writer)?;
    Ok(format!("a reader had all in {read:.0?}, producers were told \"{error}\", writing resumed after {resumed:.0?}"))
}

/// Files that somebody removed or cut: told by name, and the other topics go on.
fn files_gone(fs: FileSystem) -> Result<String> {
    let mut words = Vec::new();
    for (what, change) in [("removed", removed as fn(&Path) -> Result<()>), ("truncated", truncated)] {
        for running in [false, true] {
            let when = if running { "under a running server" } else { "between runs" };
            let told =
                a_segment_gone(fs, change, running).map_err(|error| format!("a segment {what} {when}: {error}"))?;
            words.push(format!("{what} {when}: {told}"));
        }
    }
    words.push(format!("no journal: {}", a_journal_gone(fs)?));
    Ok(words.join("; "))
}

fn removed(path: &Path) -> Result<()> {
    Ok(fs::remove_file(path)?)
}

fn truncated(path: &Path) -> Result<()> {
    Ok(File::options().write(true).open(path)?.set_len(4096)?)
}

fn a_segment_gone(fs: FileSystem, change: fn(&Path) -> Result<()>, running: bool) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    rig.admin()?.create_topic("hurt", 1, &[("segment.bytes", "65536")])?;
    for topic in ["hurt", TOPIC] {
        let writer = Writer::start(&rig.bootstrap(), topic, 10_000)?;
        writer.goes_on(40)?;
    }
    let whole = read(&rig.bootstrap(), TOPIC)?;
    let victim = rig.segments("hurt")?.get(1).cloned().ok_or("there is one segment only")?;
    rig.stop()?;
    if !running {
        change(&victim)?;
    }
    rig.serve()?;
    if running {
        change(&victim)?;
    }
    let error = match read(&rig.bootstrap(), "hurt") {
        Ok(_) => return Err("all of it was read".into()),
        Err(error) => error,
    };
    let refusal = error.downcast_ref::<ClientError>().ok_or_else(|| error.to_string())?.to_string();
    let name = victim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure(refusal.contains(&name), || format!("the error does not name {name}: {refusal}"))?;
    let others = read(&rig.bootstrap(), TOPIC)?;
    let kept = whole.iter().all(|(offset, id)| others.get(offset) == Some(id));
    ensure(kept, || "another topic lost something".to_owned())?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 1_000)?;
    writer.goes_on(10)?;
    Ok(refusal)
}

fn a_journal_gone(fs: FileSystem) -> Result<String> {
    let mut rig = Rig::start(fs, &[])?;
    let writer = Writer::start(&rig.bootstrap(), TOPIC, 2_000)?;
    writer.goes_on(10)?;
    rig.kill()?;
    fs::remove_file(rig.journal())?;
    match Server::start(rig.options.clone(), PATIENCE) {
        Ok(_) => Err("a server started without its journal".into()),
        Err(error) => {
            let line = error.to_string().lines().rfind(|line| line.starts_with("corelog: ")).unwrap_or("").to_owned();
            ensure(line.contains("journal is damaged: it is missing"), || error.to_string())?;
            Ok(line)
        }
    }
}
