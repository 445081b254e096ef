//! Power cuts under a real server on real file systems.
//!
//! A recording is a server with clients at load on a logged disk. Any point of the log can be cut: what was flushed is
//! there, of the rest any part. A server on what is left must serve all that clients were told before that point, and
//! nothing else. Cuts also meet the start after a cut. Two negative controls show that the rig would notice: topics that
//! are acknowledged before their flush, and a disk that does not flush.

mod again;
pub mod book;
pub mod check;
mod jobs;
mod met;
mod recording;
mod teller;
mod workload;

pub use jobs::Found;
pub use met::Met;
pub use recording::Recording;

use crate::chance::Chance;
use crate::disk::cut::Cut;
use crate::disk::image::{self, FileSystem};
use crate::disk::log::{self, WriteLog};
use crate::disk::{Result, mount, room};
use crate::interrupt;
use crate::process::{PATIENCE, program};
use check::Loss;
use corelog_bench::{Server, ServerOptions, free_address};
use jobs::Outcome;
use std::path::Path;
use std::time::Instant;

/// One cut in so many is followed by another, in the start after it.
const AGAIN_ONE_IN: u64 = 4;

/// What is recorded and cut.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The file system.
    pub fs: FileSystem,
    /// How many cuts.
    pub cuts: usize,
    /// Cuts of one recording.
    pub cuts_a_recording: usize,
    /// Decides everything but the server's and the kernel's timing.
    pub seed: u64,
    /// What is cut.
    pub subject: Subject,
}

/// What is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The server as it promises to be: nothing may be lost.
    Promise,
    /// Topics that are acknowledged before their flush. Something must be lost.
    Unflushed,
    /// A disk whose flushes do nothing. Something must be lost.
    DeafDisk,
}

impl Subject {
    /// Whether something must be lost.
    pub fn is_control(self) -> bool {
        self != Subject::Promise
    }

    fn durability(self) -> &'static str {
        if self == Subject::Unflushed { "write" } else { "flush" }
    }
}

/// What came of a [`Plan`].
#[derive(Debug, Default)]
pub struct Report {
    /// Cuts checked.
    pub cuts: usize,
    /// Of those, cuts in the start after a cut.
    pub again: usize,
    /// What was lost.
    pub found: Vec<Found>,
    /// What happened in the recordings.
    pub met: Met,
}

/// Who is told what happens, a line at a time.
pub type Tell<'a> = dyn FnMut(&str) + Send + 'a;

impl Report {
    fn add(&mut self, outcome: Outcome) {
        self.cuts += 1;
        self.again += usize::from(outcome.again);
        self.found.extend(outcome.found);
    }

    /// The most acknowledged records that a cut took.
    pub fn worst(&self) -> i64 {
        let lost = |found: &Found| match found.loss {
            Loss::Records(count, _) => count,
            Loss::Broken(_) => 0,
        };
        self.found.iter().map(lost).max().unwrap_or(0)
    }
}

/// Records and cuts. `tell` hears of every recording, and of every loss when it is found. Mounts are this thread's own from
/// now on.
///
/// # Errors
/// When the rig fails (without root, without its tools), or is asked to end. What came of the cuts before is in `report`.
pub fn run(plan: &Plan, report: &mut Report, tell: &mut Tell<'_>) -> Result<()> {
    mount::apart()?;
    if plan.subject.is_control() && jobs::asked_to_keep().is_some() {
        tell("CORELOG_KEEP: nothing is kept of a control, which is there to lose something");
    }
    while report.cuts < plan.cuts {
        interrupt::check()?;
        let count = plan.cuts_a_recording.min(plan.cuts - report.cuts);
        let chance = Chance(plan.seed).part(report.cuts as u64 + 1);
        cut_one_recording(plan, count, chance, report, tell)?;
    }
    // Losses are what the negative controls are for: none is kept.
    if !plan.subject.is_control() && report.found.iter().any(|found| found.kept.is_none()) {
        tell("CORELOG_KEEP=<directory> keeps recording and image of a cut that loses something");
    }
    Ok(())
}

fn cut_one_recording(
    plan: &Plan,
    count: usize,
    mut chance: Chance,
    report: &mut Report,
    tell: &mut Tell<'_>,
) -> Result<()> {
    let began = Instant::now();
    let directory = room()?;
    let seed = chance.draw();
    let recording = recording::record(directory.path(), plan.fs, plan.subject.durability(), seed)?;
    let recorded = began.elapsed();
    report.met.add(&recording.met);
    let entries = recording.log.entries().len();
    tell(&format!("{}: {entries} writes and flushes in {recorded:.1?}: {}", plan.fs, recording.met));
    let mut hear = |outcome: Outcome| {
        outcome.found.iter().for_each(|found| tell(&format!("{}: {found}", plan.fs)));
        report.add(outcome);
    };
    jobs::cut(&recording, directory.path(), plan.subject, count, &mut chance, &mut hear)?;
    let (cuts, found) = (report.cuts, report.found.len());
    tell(&format!("{}: {cuts} of {} cuts, {found} with a loss, {:.1?}", plan.fs, plan.cuts, began.elapsed()));
    Ok(())
}

/// How many entries the log of a kept recording has: the last point that can be cut.
///
/// # Errors
/// When the directory has no recording.
pub fn points(kept: &Path) -> Result<usize> {
    let log = WriteLog::open(&kept.join(log::FILE))
        .map_err(|error| format!("{} holds no recording that was kept: {error}", kept.display()))?;
    Ok(log.entries().len())
}

/// The file system of a kept recording, as far as its image tells.
///
/// # Errors
/// When the directory has no recording.
pub fn file_system(kept: &Path) -> Result<Option<FileSystem>> {
    image::recognise(&kept.join(Recording::BASE))
        .map_err(|error| format!("{} holds no recording that was kept: {error}", kept.display()).into())
}

/// Repeats the check of one cut from a directory that was kept (`CORELOG_KEEP`).
///
/// # Errors
/// When the rig fails, or the directory has no recording.
pub fn repeat(kept: &Path, fs: FileSystem, subject: Subject, cut: Cut) -> Result<Option<Found>> {
    mount::apart()?;
    let recording = Recording::open(kept, fs)?;
    let directory = room()?;
    jobs::repeat(&recording, directory.path(), subject, cut)
}

/// A server on a mounted disk. The reserve fits the small file system.
pub(crate) fn server_options(data: &Path, more: &[&str]) -> Result<ServerOptions> {
    let always = ["--memory", "512MiB", "--journal-bytes", "32MiB"];
    let reserve: &[&str] = if more.contains(&"--disk-reserve") { &[] } else { &["--disk-reserve", "16MiB"] };
    Ok(ServerOptions {
        program: program().to_owned(),
        data_dir: data.to_owned(),
        smp: 1,
        listen: free_address()?,
        more: always.iter().chain(reserve).chain(more).map(|argument| (*argument).to_owned()).collect(),
    })
}

/// What a server had to say of its log.
pub(crate) fn said(server: &Server) -> String {
    let output = server.output();
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("corelog: ")).collect();
    format!("the server said: {}", lines.join("\n  "))
}
