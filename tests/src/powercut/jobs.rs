//! Cuts of one recording: made in the order of the log, checked two at a time.

use super::book::{Book, Mark, What};
use super::check::{Loss, check};
use super::{AGAIN_ONE_IN, Recording, Subject, again};
use crate::chance::Chance;
use crate::disk::cut::{Cut, Replay, Survivors};
use crate::disk::image::FileSystem;
use crate::disk::mount::Mount;
use crate::disk::{Result, image, log};
use crate::interrupt;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Checks at once.
const WORKERS: usize = 2;

/// A cut after which something was not as it was promised.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where.
    pub cut: Cut,
    /// What the cut left.
    pub survivors: Survivors,
    /// What is not as it was promised.
    pub loss: Loss,
    /// Where recording and image are kept, and how to check them again.
    pub kept: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survivors { whole, torn, lost } = self.survivors;
        write!(f, "{} (of unflushed writes {whole} survive, {torn} torn, {lost} lost): {}", self.cut, self.loss)?;
        self.kept.iter().try_for_each(|kept| write!(f, "\n  kept: {kept}"))
    }
}

/// What came of one cut.
pub(super) struct Outcome {
    /// Whether it was one in the start after a cut.
    pub(super) again: bool,
    pub(super) found: Option<Found>,
}

/// A cut's image, to be checked.
pub(super) struct Job {
    pub(super) cut: Cut,
    pub(super) survivors: Survivors,
    /// What holds after it.
    pub(super) book: Book,
    /// A directory of its own, with the image.
    pub(super) directory: PathBuf,
    /// Whether the start after it is to be cut.
    again: bool,
}

const IMAGE: &str = "cut.img";

impl Job {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join(IMAGE)
    }
}

/// Who hears what came of each cut as soon as it is known.
pub(super) type Hear<'a> = dyn FnMut(Outcome) + Send + 'a;

/// Cuts a recording at `count` points of the log. Who asks it to end still hears of those that are under way.
pub(super) fn cut(
    recording: &Recording,
    directory: &Path,
    subject: Subject,
    count: usize,
    chance: &mut Chance,
    hear: &mut Hear<'_>,
) -> Result<()> {
    let (sender, receiver) = sync_channel::<Job>(0);
    let (receiver, hear) = (Mutex::new(receiver), Mutex::new(hear));
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|_| scope.spawn(|| work(recording, subject, &receiver, &hear))).collect();
        let mut cutting = Cutting::new(recording, directory, subject)?;
        for cut in cutting.draw(count, chance) {
            interrupt::check()?;
            let again = subject == Subject::Promise && Chance(cut.seed).part(1).one_in(AGAIN_ONE_IN);
            let job = cutting.job(cut, again)?;
            if sender.send(job).is_err() {
                break;
            }
        }
        drop(sender);
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a check ended")?)
    })
}

/// Cuts a recording at one point.
pub(super) fn repeat(recording: &Recording, directory: &Path, subject: Subject, cut: Cut) -> Result<Option<Found>> {
    let job = Cutting::new(recording, directory, subject)?.job(cut, false)?;
    found(recording, subject, &job)
}

fn work(
    recording: &Recording,
    subject: Subject,
    jobs: &Mutex<Receiver<Job>>,
    hear: &Mutex<&mut Hear<'_>>,
) -> Result<()> {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return Ok(()) };
        let found = if job.again { again::found(recording, &job)? } else { found(recording, subject, &job)? };
        hear.lock().unwrap_or_else(PoisonError::into_inner)(Outcome { again: job.again, found });
        fs::remove_dir_all(&job.directory)?;
    }
}

/// Checks a cut.
pub(super) fn found(recording: &Recording, subject: Subject, job: &Job) -> Result<Option<Found>> {
    // The check writes to the image; what is kept is the image before.
    let keep = keep(subject);
    let image = job.directory.join("checked.img");
    match &keep {
        Some(_) => image::copy(&job.image(), &image)?,
        None => fs::rename(job.image(), &image)?,
    }
    let Some(loss) = check(&image, &job.directory, recording.fs, &job.book)? else { return Ok(None) };
    let kept = keep.map(|keep| kept(recording, job, &keep)).transpose()?;
    Ok(Some(Found { cut: job.cut, survivors: job.survivors, loss, kept }))
}

/// Where cuts that lost something are kept, if they are. Losses are what the negative controls are for.
pub(super) fn keep(subject: Subject) -> Option<PathBuf> {
    asked_to_keep().filter(|_| !subject.is_control())
}

/// Where cuts that lost something are to be kept.
pub(super) fn asked_to_keep() -> Option<PathBuf> {
    std::env::var_os("CORELOG_KEEP").map(PathBuf::from)
}

/// Copies what is needed to check a cut again; answers the command that does.
pub(super) fn kept(recording: &Recording, job: &Job, keep: &Path) -> Result<String> {
    let Cut { point, seed } = job.cut;
    let directory = keep.join(format!("{}-{point}-{seed}", recording.fs));
    fs::create_dir_all(&directory)?;
    let of = recording.base.parent().unwrap_or(Path::new("."));
    for name in [Recording::BASE, log::FILE] {
        image::copy(&of.join(name), &directory.join(name))?;
    }
    image::copy(&job.image(), &directory.join(IMAGE))?;
    let directory = directory.display();
    Ok(format!(
        "cargo run --profile proof -p corelog-tests --bin proof -- powercut --fs {} --again {directory} --point {point} --seed {seed}",
        recording.fs
    ))
}

/// Follows a recording's log and makes the images of cuts.
struct Cutting<'a> {
    recording: &'a Recording,
    directory: &'a Path,
    replay: Replay<'a>,
    book: Book,
    /// The first point that may be cut.
    from: usize,
}

impl<'a> Cutting<'a> {
    fn new(recording: &'a Recording, directory: &'a Path, subject: Subject) -> Result<Cutting<'a>> {
        let stable = directory.join("stable.img");
        image::copy(&recording.base, &stable)?;
        let mut replay = Replay::new(&recording.log, &stable)?;
        let begun = begun(recording)?;
        if subject == Subject::DeafDisk {
            replay = replay.deaf_from(begun);
        }
        // A server's first start is to be cut too, but there is nothing to lose in it.
        let from = if subject == Subject::Promise && !recording.is_again { 0 } else { begun };
        Ok(Cutting { recording, directory, replay, book: Book::default(), from })
    }

    /// Whether the kernel mounts an image. It is tried with a copy: to mount one changes it.
    fn is_mountable(&self, image: &Path) -> Result<bool> {
        let copy = self.directory.join("tried.img");
        image::copy(image, &copy)?;
        let mounted = Mount::new(&copy, &self.directory.join("tried"), self.recording.fs);
        let is_mountable = mounted.is_ok();
        mounted.map_or(Ok(()), Mount::end)?;
        fs::remove_file(copy)?;
        Ok(is_mountable)
    }

    /// Points in the order of the log, with a seed each.
    fn draw(&self, count: usize, chance: &mut Chance) -> Vec<Cut> {
        let end = self.recording.log.entries().len();
        let mut points = BTreeSet::new();
        while points.len() < count.min(end - self.from) {
            points.insert(self.from + 1 + chance.below((end - self.from) as u64) as usize);
        }
        points.into_iter().map(|point| Cut { point, seed: chance.draw() }).collect()
    }

    fn job(&mut self, cut: Cut, again: bool) -> Result<Job> {
        let book = &mut self.book;
        self.replay.advance(cut.point, |mark| book.note(&Mark::decode(mark)?))?;
        let directory = self.directory.join(format!("cut-{}", cut.point));
        fs::create_dir_all(&directory)?;
        let image = directory.join(IMAGE);
        let fs = self.recording.fs;
        let survivors = self.replay.cut(cut.seed, &image, true)?;
        image::mend_superblock(&image, fs)?;
        if fs == FileSystem::Xfs && survivors.torn > 0 && !self.is_mountable(&image)? {
            // A directory block of XFS is eight sectors under one checksum, which its recovery refuses to read torn. A server
            // has no part in that.
            println!(
                "{fs}: {cut}: it does not mount with a torn block of its own: it is cut again with all writes whole"
            );
            self.replay.cut(cut.seed, &image, false)?;
        }
        Ok(Job { cut, survivors, book: self.book.clone(), directory, again })
    }
}

/// Where in the log what is to be cut begins.
pub(super) fn begun(recording: &Recording) -> Result<usize> {
    for (place, entry) in recording.log.entries().iter().enumerate().filter(|(_, entry)| entry.is_mark()) {
        if Mark::decode(&recording.log.data(entry)?)?.what == What::Begun {
            return Ok(place);
        }
    }
    Err("the recording has no beginning".into())
}
