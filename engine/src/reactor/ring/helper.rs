//! One thread beside each shard for what blocks and has no place in the ring.
//!
//! It takes one job after another and rings the shard's event counter when one is done.
#![allow(unsafe_code)]

use crate::reactor::file::{DirEntry, Space};
use crate::reactor::ops::OpId;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the helper does.
pub(super) enum Job {
    ListDir(PathBuf),
    SyncDir(PathBuf),
    SyncFs(PathBuf),
    FreeSpace(PathBuf),
    LockFile(PathBuf),
    /// A file that stays open until the answer is taken.
    Truncate(RawFd, u64),
    /// The last close of a file whose name is gone frees its blocks, which takes time.
    Close(OwnedFd),
}

/// What came out of a job.
pub(super) enum Answer {
    Done,
    Entries(Vec<DirEntry>),
    Space(Space),
    Opened(OwnedFd),
}

/// The helper of one shard. Dropping it waits for the jobs under way.
pub(super) struct Helper {
    jobs: Option<Sender<(Option<OpId>, Job)>>,
    answers: Receiver<(OpId, io::Result<Answer>)>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    /// Starts the thread. It writes to `bell`, an event counter, after each answer.
    pub(super) fn start(name: String, bell: Arc<OwnedFd>) -> io::Result<Helper> {
        let (jobs, to_do) = channel::<(Option<OpId>, Job)>();
        let (done, answers) = channel();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let mut synced = Synced::default();
            for (id, job) in to_do {
                let answer = perform(job, &mut synced);
                let Some(id) = id else { continue };
                if done.send((id, answer)).is_err() {
                    return;
                }
                ring(&bell);
            }
        })?;
        Ok(Helper { jobs: Some(jobs), answers, thread: Some(thread) })
    }

    /// Queues a job; with an id, its answer will come.
    pub(super) fn ask(&self, id: Option<OpId>, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this sender is dropped.
            let _ = jobs.send((id, job));
        }
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&self) -> Option<(OpId, io::Result<Answer>)> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Adds one to an event counter. It cannot be full: the reader empties it.
pub(super) fn ring(bell: &OwnedFd) {
    let _ = nix::unistd::write(bell, &1u64.to_ne_bytes());
}

/// File systems whose syncs are asked for.
#[derive(Default)]
struct Synced(Vec<(PathBuf, File)>);

/// More than a shard has data directories.
const SYNCED_MAX: usize = 8;

impl Synced {
    /// Keeps a descriptor for each path: syncfs reports the write-back errors that occurred since its descriptor was
    /// opened, so a fresh one each time would miss those in between.
    fn sync(&mut self, path: PathBuf) -> io::Result<()> {
        let known = self.0.iter().position(|(known, _)| *known == path);
        let index = match known {
            Some(index) => index,
            None => {
                self.0.truncate(SYNCED_MAX - 1);
                let file = File::open(&path)?;
                self.0.insert(0, (path, file));
                0
            }
        };
        Ok(nix::unistd::syncfs(&self.0[index].1)?)
    }
}

fn perform(job: Job, synced: &mut Synced) -> io::Result<Answer> {
    match job {
        Job::ListDir(path) => list(&path).map(Answer::Entries),
        Job::SyncDir(path) => File::open(path)?.sync_all().map(|()| Answer::Done),
        Job::SyncFs(path) => synced.sync(path).map(|()| Answer::Done),
        Job::FreeSpace(path) => free_space(&path).map(Answer::Space),
        Job::LockFile(path) => lock(&path).map(Answer::Opened),
        Job::Truncate(fd, length) => truncate(fd, length).map(|()| Answer::Done),
        Job::Close(fd) => {
            drop(fd);
            Ok(Answer::Done)
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    fs::read_dir(path)?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok(DirEntry { name, is_dir: entry.file_type()?.is_dir() })
        })
        .collect()
}

fn free_space(path: &Path) -> io::Result<Space> {
    let found = nix::sys::statvfs::statvfs(path)?;
    let unit = found.fragment_size();
    Ok(Space { free: found.blocks_available() * unit, total: found.blocks() * unit })
}

fn lock(path: &Path) -> io::Result<OwnedFd> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file.into()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn truncate(fd: RawFd, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the operation that asked for this holds the file open until the answer is taken.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(nix::unistd::ftruncate(file, length)?)
}
