//! Files and directories as a reactor offers them.

use super::Reactor;
use super::buffers::{Buffer, PAGE, Slice};
use super::driver::{Handle, HandleKind};
use super::ops::Op;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// An open file. Closed in the background when the last clone is dropped and its operations are over.
///
/// Positions, lengths and buffers are multiples of 4096 in every operation that moves bytes, also where the file
/// system would not mind: what runs on one machine must run on all.
#[derive(Clone, Debug)]
pub struct File {
    reactor: Reactor,
    handle: Rc<Handle>,
    direct: bool,
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Existing, to read.
    Read,
    /// Existing, to read through the page cache: for a [`FileRange`](super::FileRange). What is written past the cache is not
    /// hidden by it.
    ReadCached,
    /// Existing, to read and write.
    ReadWrite,
    /// To read and write; created empty if it is not there.
    Create,
    /// To read and write; an error if it is there.
    CreateNew,
}

/// What a write promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteSync {
    /// Handed to the device.
    None,
    /// This write's own bytes, and the metadata to find them, are on stable storage. Nothing is said of others.
    Data,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Name within the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Room of a file system in bytes, as unprivileged users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes that can still be allocated.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// An exclusive lock on a file, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock {
    _handle: Rc<Handle>,
}

/// Operations on paths. All errors are the operating system's.
impl Reactor {
    /// Opens a file past the page cache, or through it where the file system refuses that.
    pub async fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let (number, op) = self.operate(Op::Open { path: path.to_owned(), how, direct: false }).await;
        let handle = self.handle(HandleKind::File, number?);
        Ok(File { reactor: self.clone(), handle, direct: matches!(op, Op::Open { direct: true, .. }) })
    }

    /// Creates a directory; one that is there already is a success.
    pub async fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.operate_unit(Op::CreateDir { path: path.to_owned() }).await
    }

    /// Renames within a file system, replacing a file at `to`. Durable after `sync_dir` of the parents or `sync_fs`.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate_unit(Op::Rename { from: from.to_owned(), to: to.to_owned() }).await
    }

    /// Removes a file's name.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operate_unit(Op::RemoveFile { path: path.to_owned() }).await
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.operate_unit(Op::RemoveDir { path: path.to_owned() }).await
    }

    /// The entries of a directory, sorted by name. Names that are not UTF-8 are given with replacement characters.
    pub async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let (result, op) = self.operate(Op::ListDir { path: path.to_owned(), entries: Vec::new() }).await;
        result?;
        let Op::ListDir { mut entries, .. } = op else { unreachable!("an operation comes back as it went") };
        entries.sort();
        Ok(entries)
    }

    /// Makes the names in a directory durable.
    pub async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.operate_unit(Op::SyncDir { path: path.to_owned() }).await
    }

    /// Makes everything written to the file system of `any_path_on_it` before this call durable.
    pub async fn sync_fs(&self, any_path_on_it: &Path) -> io::Result<()> {
        self.operate_unit(Op::SyncFs { path: any_path_on_it.to_owned() }).await
    }

    /// Room of the file system that holds `path`.
    pub async fn free_space(&self, path: &Path) -> io::Result<Space> {
        let (result, op) = self.operate(Op::FreeSpace { path: path.to_owned(), space: Space::default() }).await;
        result?;
        let Op::FreeSpace { space, .. } = op else { unreachable!("an operation comes back as it went") };
        Ok(space)
    }

    /// Takes the lock on a file, which is created if need be. `WouldBlock` if another process or holder has it.
    pub async fn lock_file(&self, path: &Path) -> io::Result<FileLock> {
        let (number, _) = self.operate(Op::LockFile { path: path.to_owned() }).await;
        Ok(FileLock { _handle: self.handle(HandleKind::File, number?) })
    }
}

impl File {
    pub(super) fn handle(&self) -> Rc<Handle> {
        self.handle.clone()
    }

    /// Whether reads and writes bypass the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// Fills `buffer` from `position` on. Less than its length is read only where the file ends.
    pub async fn read_at(&self, position: u64, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        assert_aligned(position, buffer.len());
        let file = self.handle.clone();
        let (result, op) = self.reactor.operate(Op::Read { file, position, buffer }).await;
        let Op::Read { buffer, .. } = op else { unreachable!("an operation comes back as it went") };
        (result.map(|read| read as usize), buffer)
    }

    /// Writes all of `data` at `position`.
    ///
    /// # Errors
    /// Any part of it may have been written.
    pub async fn write_at(&self, position: u64, data: Slice, sync: WriteSync) -> io::Result<()> {
        assert_aligned(position, data.len());
        assert!((data.as_ptr() as usize).is_multiple_of(PAGE), "data to write must be aligned to {PAGE}");
        self.reactor.operate_unit(Op::Write { file: self.handle.clone(), position, data, sync }).await
    }

    /// Makes every finished write to this file durable, and its length. After an error nothing is known of what
    /// reached the disk, and asking again does not help.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.reactor.operate_unit(Op::SyncData { file: self.handle.clone() }).await
    }

    /// Reserves blocks for `length` bytes from `position` on, which read as zeros; the file grows to their end.
    pub async fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.reactor.operate_unit(Op::Allocate { file: self.handle.clone(), position, length }).await
    }

    /// Sets the length.
    pub async fn truncate(&self, length: u64) -> io::Result<()> {
        self.reactor.operate_unit(Op::Truncate { file: self.handle.clone(), length }).await
    }

    /// Bytes up to the end of the file.
    pub async fn length(&self) -> io::Result<u64> {
        self.reactor.operate(Op::Length { file: self.handle.clone() }).await.0
    }

    /// Bytes of blocks that the file holds on the disk.
    pub async fn allocated(&self) -> io::Result<u64> {
        self.reactor.operate(Op::Allocated { file: self.handle.clone() }).await.0
    }
}

fn assert_aligned(position: u64, len: usize) {
    let aligned = position.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE) && len > 0;
    assert!(aligned, "{len} bytes at {position} are not whole blocks of {PAGE}");
}
