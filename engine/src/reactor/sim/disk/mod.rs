//! A simulated disk with one file system on it, which knows what a power cut would leave.
//!
//! Data and metadata become durable apart from each other, as on ext4 and XFS with direct writes:
//!
//! | Call | What it makes durable, of what finished before it began |
//! |---|---|
//! | `sync_data` of any file | the data of all finished writes, whatever their file; that file's own length and extents |
//! | `write` with `durable` | its own bytes, the conversion of the blocks it wrote, the length and extents that reach them |
//! | `sync_dir` | that directory's entries |
//! | `sync_fs` | everything |
//!
//! So a write into blocks that were written before (zero-filled, recycled) needs any one flush; a write into reserved,
//! never written blocks, or past the end of the file, needs its own file committed as well, or it reads as zeros after
//! the cut. Real file systems commit more than this at times; what they do not promise is not given.
//!
//! Nothing here knows of time or operations: the driver calls in when an operation lands.

mod cut;
mod file;
#[cfg(test)]
mod tests;

use super::random::Random;
use file::{File, Page};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Component, Path};

/// Bytes of a file system block: positions and lengths of direct I/O are multiples of it.
pub(crate) const BLOCK: usize = 4096;
/// Bytes the medium writes as one.
pub(crate) const SECTOR: usize = 512;

/// A moment in the disk's life: counts the changes made to it.
type Seq = u64;
type Ino = u64;
const ROOT: Ino = 0;

/// What was finished when a flush began, and so what it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(Seq);

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(Ino);

/// What an open may do to the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Create {
    /// The file must be there.
    No,
    /// Opens what is there, else creates.
    Allowed,
    /// The file must not be there.
    Must,
}

type Names = BTreeMap<Ino, BTreeMap<String, Ino>>;
type Key = (Ino, String);

/// One atomic change of directory entries.
#[derive(Debug)]
struct NameChange {
    seq: Seq,
    removes: Option<(Key, Ino)>,
    adds: Option<(Key, Ino)>,
    is_dir: bool,
    committed: bool,
}

/// A write that no flush has covered: what the block held before.
#[derive(Debug)]
struct Unflushed {
    seq: Seq,
    writer: u32,
    ino: Ino,
    block: u32,
    old: Page,
}

#[derive(Debug)]
struct Inode {
    is_dir: bool,
    file: File,
    open: u32,
    /// Names in the live tree. With none, and nobody that has it open, the space is free again.
    links: u32,
    /// Blocks counted in `used_blocks` for it.
    charged: u64,
    /// Names in the committed tree and in changes on the way to it: a power cut may bring the file back.
    pins: u32,
}

/// The disk of one node.
#[derive(Debug)]
pub(crate) struct Disk {
    random: Random,
    seq: Seq,
    /// Who asks: a failed flush lets go of the asker's own writes. Linux reports a failure to everybody whose writes it
    /// concerns; a flush that succeeds for somebody has covered what is his.
    pub(crate) writer: u32,
    capacity_blocks: u64,
    used_blocks: u64,
    inodes: Vec<Option<Box<Inode>>>,
    names: Names,
    committed_names: Names,
    /// Changes of `names` that `committed_names` has not seen, in their order.
    name_changes: VecDeque<NameChange>,
    /// Writes in the device's cache, in their order.
    unflushed: VecDeque<Unflushed>,
    /// Writes that a failed flush has let go of: readable for now, and no later flush covers them.
    doomed: Vec<Unflushed>,
    /// When each asker's last flush failed.
    failed: BTreeMap<u32, Seq>,
    /// Files with changes the file system has not committed.
    uncommitted: BTreeSet<Ino>,
    locked: BTreeSet<Ino>,
}

impl Disk {
    /// An empty file system of `capacity` bytes. `random` decides what power cuts and failed flushes leave.
    pub(crate) fn new(random: Random, capacity: u64) -> Disk {
        let root = Inode { is_dir: true, file: File::default(), open: 0, links: 1, charged: 0, pins: 1 };
        Disk {
            random,
            seq: 0,
            writer: 0,
            capacity_blocks: capacity / BLOCK as u64,
            used_blocks: 0,
            inodes: vec![Some(Box::new(root))],
            names: BTreeMap::from([(ROOT, BTreeMap::new())]),
            committed_names: BTreeMap::from([(ROOT, BTreeMap::new())]),
            name_changes: VecDeque::new(),
            unflushed: VecDeque::new(),
            doomed: Vec::new(),
            failed: BTreeMap::new(),
            uncommitted: BTreeSet::new(),
            locked: BTreeSet::new(),
        }
    }

    /// What a flush that begins now will cover.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.seq)
    }

    /// Free and total bytes.
    pub(crate) fn space(&self) -> (u64, u64) {
        let block = BLOCK as u64;
        (self.capacity_blocks.saturating_sub(self.used_blocks) * block, self.capacity_blocks * block)
    }

    /// Changes the size of the disk; what is stored stays, even beyond it.
    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_blocks = bytes / BLOCK as u64;
    }

    // Files --------------------------------------------------------------------------------------------------------

    pub(crate) fn open(&mut self, path: &Path, create: Create) -> io::Result<FileId> {
        let (dir, name) = self.parent(path)?;
        let ino = match (self.names[&dir].get(&name).copied(), create) {
            (Some(_), Create::Must) => return Err(error(libc::EEXIST)),
            (Some(ino), _) if self.inode(ino).is_dir => return Err(error(libc::EISDIR)),
            (Some(ino), _) => ino,
            (None, Create::No) => return Err(error(libc::ENOENT)),
            (None, _) if self.used_blocks >= self.capacity_blocks => return Err(error(libc::ENOSPC)),
            (None, _) => self.create((dir, name), false),
        };
        self.inode_mut(ino).open += 1;
        Ok(FileId(ino))
    }

    pub(crate) fn close(&mut self, file: FileId) {
        let inode = self.inode_mut(file.0);
        assert!(inode.open > 0, "closed more often than opened");
        inode.open -= 1;
        self.forget_if_gone(file.0);
    }

    /// Bytes read: fewer than asked for only at the end of the file.
    pub(crate) fn read(&self, file: FileId, position: u64, into: &mut [u8]) -> usize {
        self.inode(file.0).file.read(position, into)
    }

    /// Writes whole blocks. With `durable` they are on the medium when this returns.
    pub(crate) fn write(&mut self, file: FileId, position: u64, bytes: &[u8], durable: bool) -> io::Result<()> {
        assert!(
            position.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK),
            "direct writes are of blocks"
        );
        let first = (position / BLOCK as u64) as usize;
        self.reserve(file.0, first, first + bytes.len() / BLOCK)?;
        let seq = self.next_seq();
        for (index, bytes) in bytes.chunks_exact(BLOCK).enumerate() {
            self.put(file.0, first + index, bytes, seq, durable);
        }
        let data = &mut self.inode_mut(file.0).file;
        data.extend(position + bytes.len() as u64, seq);
        if durable {
            data.commit_shapes();
        }
        self.note_uncommitted(file.0);
        Ok(())
    }

    /// Reserves space that reads as zeros; the file grows to cover it.
    pub(crate) fn allocate(&mut self, file: FileId, position: u64, length: u64) -> io::Result<()> {
        let (first, end) = ((position / BLOCK as u64) as usize, file::blocks_of(position + length));
        self.reserve(file.0, first, end)?;
        let new = self.inode(file.0).file.holes(first, end);
        let seq = self.next_seq();
        self.inode_mut(file.0).file.allocate(position, position + length, seq);
        self.charge(file.0, new);
        self.note_uncommitted(file.0);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, file: FileId, length: u64) {
        let seq = self.next_seq();
        let mut data = std::mem::take(&mut self.inode_mut(file.0).file);
        let (before, kept) = (data.used(), file::blocks_of(length));
        data.truncate(length, seq, |data, block| self.durable_block(file.0, data, block));
        let freed = before - data.used();
        self.used_blocks -= freed;
        let inode = self.inode_mut(file.0);
        inode.charged -= freed;
        inode.file = data;
        let cut_off = |write: &Unflushed| write.ino == file.0 && write.block as usize >= kept;
        self.unflushed.retain(|write| !cut_off(write));
        self.doomed.retain(|write| !cut_off(write));
        self.note_uncommitted(file.0);
    }

    pub(crate) fn length(&self, file: FileId) -> u64 {
        self.inode(file.0).file.length
    }

    /// Bytes of space the file takes.
    pub(crate) fn allocated(&self, file: FileId) -> u64 {
        self.inode(file.0).file.used() * BLOCK as u64
    }

    fn reserve(&self, ino: Ino, first: usize, end: usize) -> io::Result<()> {
        let new = self.inode(ino).file.holes(first, end);
        if new > 0 && self.used_blocks + new > self.capacity_blocks { Err(error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn charge(&mut self, ino: Ino, blocks: u64) {
        self.inode_mut(ino).charged += blocks;
        self.used_blocks += blocks;
    }

    fn put(&mut self, ino: Ino, index: usize, bytes: &[u8], seq: Seq, durable: bool) {
        let (old, took_space) = self.inode_mut(ino).file.put(index, file::page_of(bytes), seq, durable);
        self.charge(ino, u64::from(took_space));
        if !durable {
            self.unflushed.push_back(Unflushed { seq, writer: self.writer, ino, block: index as u32, old });
        }
    }

    // Flushes ------------------------------------------------------------------------------------------------------

    pub(crate) fn sync_data(&mut self, file: FileId, mark: Mark) -> io::Result<()> {
        self.flush(mark)?;
        self.commit(file.0, mark);
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path, mark: Mark) -> io::Result<()> {
        let dir = self.directory(path)?;
        let touches = |key: &Option<(Key, Ino)>| key.as_ref().is_some_and(|((d, _), _)| *d == dir);
        for change in self.name_changes.iter_mut().filter(|c| c.seq <= mark.0) {
            change.committed |= touches(&change.removes) || touches(&change.adds);
        }
        self.fold_names();
        Ok(())
    }

    pub(crate) fn sync_fs(&mut self, mark: Mark) -> io::Result<()> {
        self.flush(mark)?;
        for ino in std::mem::take(&mut self.uncommitted) {
            self.commit(ino, mark);
        }
        self.name_changes.iter_mut().for_each(|change| change.committed |= change.seq <= mark.0);
        self.fold_names();
        Ok(())
    }

    /// A flush that failed: as in Linux, the writes it should have covered are let go of and no later flush brings
    /// them back. Half of the time all of them can be read up to the next power cut, as from a page cache; else some read
    /// as before at once.
    pub(crate) fn fail_flush(&mut self, mark: Mark) {
        let writer = self.writer;
        let now = self.next_seq();
        self.failed.insert(writer, now);
        let (gone, kept) =
            self.unflushed.drain(..).partition(|write: &Unflushed| write.seq <= mark.0 && write.writer == writer);
        self.unflushed = kept;
        let gone: VecDeque<Unflushed> = gone;
        let mut dropped: BTreeMap<(Ino, u32), Vec<Unflushed>> = BTreeMap::new();
        for write in gone {
            dropped.entry((write.ino, write.block)).or_default().push(write);
        }
        let overwritten: BTreeSet<(Ino, u32)> =
            self.unflushed.iter().chain(&self.doomed).map(|write| (write.ino, write.block)).collect();
        let all_readable = self.random.coin();
        for (block, writes) in dropped {
            if all_readable || overwritten.contains(&block) || self.random.coin() {
                self.doomed.extend(writes);
            } else {
                self.revert(writes);
            }
        }
    }

    fn revert(&mut self, writes: Vec<Unflushed>) {
        let Some(first) = writes.into_iter().next() else { return };
        if let Some(inode) = self.inodes[first.ino as usize].as_mut() {
            inode.file.blocks[first.block as usize].page = first.old;
        }
    }

    /// One that began before another of the same asker failed fails too: what it was to cover is gone.
    fn flush(&mut self, mark: Mark) -> io::Result<()> {
        if self.failed.get(&self.writer).is_some_and(|failed| *failed > mark.0) {
            return Err(error(libc::EIO));
        }
        let covered = self.unflushed.partition_point(|write| write.seq <= mark.0);
        let writes = self.unflushed.drain(..covered);
        if self.doomed.is_empty() {
            return Ok(());
        }
        for write in writes {
            let Some(inode) = self.inodes[write.ino as usize].as_mut() else { continue };
            inode.file.blocks[write.block as usize].stable = write.seq;
        }
        Ok(())
    }

    fn commit(&mut self, ino: Ino, mark: Mark) {
        let Some(inode) = self.inodes[ino as usize].as_mut() else { return };
        inode.file.commit(mark.0);
        if inode.file.is_committed() {
            self.uncommitted.remove(&ino);
        } else {
            self.uncommitted.insert(ino);
        }
    }

    fn note_uncommitted(&mut self, ino: Ino) {
        if !self.inode(ino).file.is_committed() {
            self.uncommitted.insert(ino);
        }
    }

    // Names --------------------------------------------------------------------------------------------------------

    /// Fine if the directory is there already.
    pub(crate) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.directory(path).is_ok() {
            return Ok(());
        }
        let (dir, name) = self.parent(path)?;
        if self.names[&dir].contains_key(&name) {
            return Err(error(libc::EEXIST));
        }
        self.create((dir, name), true);
        Ok(())
    }

    /// Replaces a file that has the new name.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.parent(from)?, self.parent(to)?);
        let ino = *self.names[&from.0].get(&from.1).ok_or_else(|| error(libc::ENOENT))?;
        let replaced = self.names[&to.0].get(&to.1).copied();
        match replaced {
            Some(same) if same == ino => return Ok(()),
            Some(other) if self.inode(other).is_dir || self.inode(ino).is_dir => return Err(error(libc::EEXIST)),
            _ => self.change_names(Some((from, ino)), Some((to, ino))),
        }
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (key, ino) = self.existing(path)?;
        if self.inode(ino).is_dir {
            return Err(error(libc::EISDIR));
        }
        self.change_names(Some((key, ino)), None);
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (key, ino) = self.existing(path)?;
        match self.names.get(&ino) {
            None => return Err(error(libc::ENOTDIR)),
            Some(names) if !names.is_empty() => return Err(error(libc::ENOTEMPTY)),
            Some(_) => self.change_names(Some((key, ino)), None),
        }
        Ok(())
    }

    /// Names and whether they are directories, sorted.
    pub(crate) fn list_dir(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let dir = self.directory(path)?;
        Ok(self.names[&dir].iter().map(|(name, ino)| (name.clone(), self.inode(*ino).is_dir)).collect())
    }

    /// Opens, creating if need be, and locks; `EWOULDBLOCK` while another has it.
    pub(crate) fn lock(&mut self, path: &Path) -> io::Result<FileId> {
        let file = self.open(path, Create::Allowed)?;
        if !self.locked.insert(file.0) {
            self.close(file);
            return Err(error(libc::EWOULDBLOCK));
        }
        Ok(file)
    }

    pub(crate) fn unlock(&mut self, file: FileId) {
        self.locked.remove(&file.0);
        self.close(file);
    }

    fn create(&mut self, key: Key, is_dir: bool) -> Ino {
        let ino = self.inodes.len() as Ino;
        let inode = Inode { is_dir, file: File::default(), open: 0, links: 0, charged: 0, pins: 0 };
        self.inodes.push(Some(Box::new(inode)));
        self.change_names(None, Some((key, ino)));
        ino
    }

    fn change_names(&mut self, removes: Option<(Key, Ino)>, adds: Option<(Key, Ino)>) {
        let seq = self.next_seq();
        let is_dir = [&removes, &adds].into_iter().flatten().any(|(_, ino)| self.inode(*ino).is_dir);
        let change = NameChange { seq, removes, adds, is_dir, committed: false };
        change.inodes().for_each(|ino| self.inode_mut(ino).pins += 1);
        let moved = apply(&mut self.names, &change);
        self.name_changes.push_back(change);
        moved.gained.into_iter().for_each(|ino| self.inode_mut(ino).links += 1);
        for ino in moved.lost.into_iter().flatten() {
            self.inode_mut(ino).links -= 1;
            self.forget_if_gone(ino);
        }
    }

    /// Moves committed changes with no uncommitted one before them into the committed tree.
    fn fold_names(&mut self) {
        while self.name_changes.front().is_some_and(|change| change.committed) {
            let Some(change) = self.name_changes.pop_front() else { return };
            let moved = apply(&mut self.committed_names, &change);
            moved.gained.into_iter().for_each(|ino| self.inode_mut(ino).pins += 1);
            for ino in moved.lost.into_iter().flatten().chain(change.inodes()) {
                self.inode_mut(ino).pins -= 1;
            }
            moved.lost.into_iter().flatten().chain(change.inodes()).for_each(|ino| self.forget_if_gone(ino));
        }
    }

    fn existing(&self, path: &Path) -> io::Result<(Key, Ino)> {
        let (dir, name) = self.parent(path)?;
        let ino = *self.names[&dir].get(&name).ok_or_else(|| error(libc::ENOENT))?;
        Ok(((dir, name), ino))
    }

    /// The directory a path lies in, and its last name. The working directory is the root.
    fn parent(&self, path: &Path) -> io::Result<Key> {
        let name = path.file_name().ok_or_else(|| error(libc::EISDIR))?;
        let dir = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    fn directory(&self, path: &Path) -> io::Result<Ino> {
        let mut dir = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let names = self.names.get(&dir).ok_or_else(|| error(libc::ENOTDIR))?;
            dir = *names.get(&*name.to_string_lossy()).ok_or_else(|| error(libc::ENOENT))?;
        }
        if self.names.contains_key(&dir) { Ok(dir) } else { Err(error(libc::ENOTDIR)) }
    }

    // Inodes -------------------------------------------------------------------------------------------------------

    #[expect(clippy::expect_used, reason = "an open file's inode lives until it is closed")]
    fn inode(&self, ino: Ino) -> &Inode {
        self.inodes[ino as usize].as_deref().expect("a live inode")
    }

    #[expect(clippy::expect_used, reason = "an open file's inode lives until it is closed")]
    fn inode_mut(&mut self, ino: Ino) -> &mut Inode {
        self.inodes[ino as usize].as_deref_mut().expect("a live inode")
    }

    /// Frees the space of a file that no name leads to and nobody has open; forgets it when not even a power cut can
    /// bring it back.
    fn forget_if_gone(&mut self, ino: Ino) {
        let Some(inode) = self.inodes[ino as usize].as_deref_mut() else { return };
        if inode.links > 0 || inode.open > 0 {
            return;
        }
        self.used_blocks -= std::mem::take(&mut inode.charged);
        if inode.pins == 0 {
            self.inodes[ino as usize] = None;
            self.uncommitted.remove(&ino);
        }
    }

    fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        self.seq
    }
}

impl NameChange {
    /// The inodes this change names: they must outlive it.
    fn inodes(&self) -> impl Iterator<Item = Ino> + use<> {
        let ino = |side: &Option<(Key, Ino)>| side.as_ref().map(|(_, ino)| *ino);
        [ino(&self.removes), ino(&self.adds)].into_iter().flatten()
    }
}

/// Which inodes a change gave a name to, and which it took one from.
#[derive(Debug, Default)]
struct Moved {
    gained: Option<Ino>,
    lost: [Option<Ino>; 2],
}

/// Applies one change to a tree. What it needs and does not find there it leaves alone: after a power cut the changes
/// before it may be missing.
fn apply(names: &mut Names, change: &NameChange) -> Moved {
    let mut moved = Moved::default();
    if let Some(((dir, name), ino)) = &change.removes
        && let Some(entries) = names.get_mut(dir)
        && entries.get(name) == Some(ino)
    {
        entries.remove(name);
        moved.lost[0] = Some(*ino);
    }
    if let Some(((dir, name), ino)) = &change.adds
        && let Some(entries) = names.get_mut(dir)
    {
        moved.lost[1] = entries.insert(name.clone(), *ino);
        moved.gained = Some(*ino);
    }
    match (change.is_dir, moved.gained, moved.lost[0]) {
        (true, Some(dir), _) => drop(names.entry(dir).or_default()),
        (true, None, Some(dir)) => drop(names.remove(&dir)),
        _ => {}
    }
    moved
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
