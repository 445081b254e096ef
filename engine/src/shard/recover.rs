//! Recovery: the newest checkpoint, and the journal behind it; time in proportion to the journal's tail.
//!
//! What is found is written to the segments, made durable with one barrier, and said in a new checkpoint file; only then
//! does the shard take requests. Nothing is changed before that, so that a crash in the midst changes nothing.

use super::ShardConfig;
use super::memory::OwnMemory;
use crate::error::ShardError;
use crate::log::checkpoint::{CheckpointState, JournalFrom, Replayed, replay};
use crate::log::frame::{Checksum, Nonce, Sequence};
use crate::log::journal::{self, AppendSection, EntryFault, EntryHeader, Expected, JournalPosition, Section};
use crate::log::paths;
use crate::log::recovery::Recovery;
use crate::log::tail::BLOCK;
use crate::planted::{self, Bug};
use crate::reactor::{File, Open, Reactor, Slice, WriteSync};
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Bytes read or written at once.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of a new journal that are written at the same time.
const FILLERS: usize = 8;

/// What was found in a shard's directory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) recovery: Recovery,
    /// Number of the checkpoint file that counts; 0 if there is none yet.
    pub(super) checkpoint: u64,
    /// Whether the journal must be kept as it is, for whoever repairs what was acknowledged and is damaged.
    pub(super) damaged: bool,
    /// How many entries were replayed.
    pub(super) entries: u64,
    /// What was cut off at the journal's end: an entry that nothing says was acknowledged.
    pub(super) torn: Option<String>,
}

/// Reads a shard's directory.
pub(super) struct Reader<'a> {
    reactor: &'a Reactor,
    memory: &'a OwnMemory,
    config: &'a ShardConfig,
    directory: PathBuf,
}

/// Entries read one after another; the last two may not have been acknowledged.
struct Journal<'a> {
    reader: &'a Reader<'a>,
    file: File,
    size: u64,
    /// Bytes from `start` on.
    window: Vec<u8>,
    start: JournalPosition,
}

enum Next {
    Entry,
    /// With what was begun there, if anything.
    Torn(Option<String>),
    Damaged(String),
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        reactor: &'a Reactor,
        memory: &'a OwnMemory,
        config: &'a ShardConfig,
        directory: PathBuf,
    ) -> Reader<'a> {
        Reader { reactor, memory, config, directory }
    }

    /// Reads checkpoint and journal. `must_exist`: the directory was completed once, so that nothing may be missing.
    pub(super) async fn read(&self, must_exist: bool) -> Result<Found, ShardError> {
        let Some((number, checkpoint)) = self.newest_checkpoint().await? else {
            if must_exist {
                return Err(self.damaged(&self.directory, "its checkpoint file is missing".into()));
            }
            return Ok(Found { recovery: Recovery::default(), checkpoint: 0, damaged: false, entries: 0, torn: None });
        };
        let mut found = Found {
            recovery: Recovery::new(&checkpoint.state),
            checkpoint: number,
            damaged: false,
            entries: 0,
            torn: None,
        };
        self.read_journal(&checkpoint.state, &mut found).await?;
        Ok(found)
    }

    async fn newest_checkpoint(&self) -> Result<Option<(u64, Replayed)>, ShardError> {
        let listed = self.reactor.list_dir(&self.directory).await;
        let listed = listed.map_err(|error| ShardError::io("listing", &self.directory, &error))?;
        let Some(number) = listed.iter().filter_map(|entry| paths::parse_checkpoint_name(&entry.name)).max() else {
            return Ok(None);
        };
        let path = self.directory.join(paths::checkpoint_name(number));
        let bytes = self.read_file(&path).await?;
        let replayed = replay(&bytes).map_err(|error| self.damaged(&path, error.to_string()))?;
        Ok(Some((number, replayed)))
    }

    async fn read_journal(&self, state: &CheckpointState, found: &mut Found) -> Result<(), ShardError> {
        let path = self.directory.join(paths::JOURNAL);
        let file = self.reactor.open(&path, Open::Read).await;
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.damaged(&path, "it is missing".into()));
            }
            file => file.map_err(|error| ShardError::io("opening", &path, &error))?,
        };
        let size = file.length().await.map_err(|error| ShardError::io("reading", &path, &error))?;
        if size != state.journal.size {
            // A crash while the journal was made anew in another size: the checkpoint that came first needs nothing of it.
            if self.is_unwritten(&file, size, state).await? {
                return Ok(());
            }
            found.damaged = true;
            let why = format!("{} has {size} bytes instead of {}", path.display(), state.journal.size);
            found.recovery.fence_all(&why);
            return Ok(());
        }
        let start = state.journal.position;
        let mut journal = Journal { reader: self, file, size, window: Vec::new(), start };
        let mut expected = state.journal.expected();
        loop {
            match self.take_entry(&mut journal, &mut expected, found, start).await? {
                Next::Entry => found.entries += 1,
                Next::Torn(begun) => {
                    found.torn = begun;
                    return Ok(());
                }
                Next::Damaged(why) => {
                    found.damaged = true;
                    found.recovery.fence_all(&why);
                    return Ok(());
                }
            }
        }
    }

    /// Whether no entry was ever written under the checkpoint's nonce. A journal is never shorter than a block.
    async fn is_unwritten(&self, file: &File, size: u64, state: &CheckpointState) -> Result<bool, ShardError> {
        let fresh = state.journal.sequence == Sequence(1) && state.journal.position == JournalPosition(0);
        if !fresh || size < BLOCK {
            return Ok(false);
        }
        let (read, buffer) = file.read_at(0, self.memory.wait_buffer(BLOCK as usize).await).await;
        let read = read.map_err(|error| ShardError::io("reading", &self.directory, &error))?;
        Ok(journal::inspect(&buffer[..read]).map_or(true, |head| head.header.nonce != state.journal.nonce))
    }

    async fn take_entry(
        &self,
        journal: &mut Journal<'_>,
        expected: &mut Expected,
        found: &mut Found,
        start: JournalPosition,
    ) -> Result<Next, ShardError> {
        if expected.position.0 - start.0 >= journal.size {
            return Ok(Next::Torn(None));
        }
        journal.forget_before(expected.position);
        let length = match journal::inspect(journal.bytes(expected.position, BLOCK as usize).await?) {
            Ok(head) => head.length,
            Err(fault) => return self.judge(journal, expected, fault).await,
        };
        let unproven = self.proven(journal, expected, length).await?.is_none();
        let bytes = journal.bytes(expected.position, length).await?;
        let here = expected.position;
        if planted::active(Bug::ChainNotChecked)
            && let Ok(head) = journal::inspect(bytes)
        {
            let EntryHeader { nonce, sequence, position, previous, .. } = head.header;
            *expected = Expected { nonce, sequence, position, previous };
        }
        let entry = match journal::parse(bytes, expected) {
            Ok(entry) => entry,
            Err(fault) => return self.judge(journal, expected, fault).await,
        };
        let mut blocks = Vec::new();
        let appends: Vec<AppendSection> = entry.sections().filter_map(direct).filter(|_| unproven).collect();
        for append in &appends {
            match self.direct_blocks(append).await? {
                Some(read) => blocks.push(read),
                None => {
                    let segment = paths::segment(&self.config.data_dir, append.partition, append.segment_base);
                    let why =
                        format!("what it wrote to {} at byte {} is not there", segment.display(), append.direct_from);
                    return Ok(Next::Torn(Some(self.torn(
                        journal.size,
                        &Expected { position: here, ..*expected },
                        &why,
                    ))));
                }
            }
        }
        let mut blocks = blocks.into_iter();
        for section in entry.sections() {
            match &section {
                Section::Append { append, inline } if unproven && !append.is_inline() => {
                    found.recovery.append(expected.sequence, append, inline, &blocks.next().unwrap_or_default());
                }
                section => found.recovery.section(expected.sequence, section),
            }
        }
        *expected = Expected { position: here.plus(length as u64), ..entry.next() };
        Ok(Next::Entry)
    }

    /// Whether a broken entry was acknowledged: one of those behind it says so.
    async fn judge(
        &self,
        journal: &mut Journal<'_>,
        expected: &Expected,
        fault: EntryFault,
    ) -> Result<Next, ShardError> {
        // Written whole, by a program with other rules: to cut it off would lose what was acknowledged.
        if fault.is_foreign() {
            return Err(self.damaged(&self.directory.join(paths::JOURNAL), fault.to_string()));
        }
        match self.proven(journal, expected, 0).await? {
            None if planted::active(Bug::TornTakenForDamaged) => Ok(Next::Damaged(fault.to_string())),
            Some(_) if planted::active(Bug::DamagedTakenForTorn) => Ok(Next::Torn(None)),
            None => {
                let block = journal.bytes(expected.position, BLOCK as usize).await?;
                let is_begun = journal::is_begun(block, expected, fault);
                Ok(Next::Torn(is_begun.then(|| self.torn(journal.size, expected, &fault.to_string()))))
            }
            Some(by) => Ok(Next::Damaged(format!(
                "{} at byte {}: entry {} was acknowledged (entry {} says so) and is damaged: {fault}",
                self.directory.join(paths::JOURNAL).display(),
                expected.position.0 % journal.size,
                expected.sequence.0,
                by.0
            ))),
        }
    }

    /// Says what is cut off, for an operator who knows of no crash: then it is damage.
    fn torn(&self, size: u64, expected: &Expected, why: &str) -> String {
        let path = self.directory.join(paths::JOURNAL);
        let (at, sequence) = (expected.position.0 % size, expected.sequence.0);
        format!(
            "{} at byte {at}: entry {sequence}, which nothing says was acknowledged, is cut off: {why}",
            path.display()
        )
    }

    /// The entry, behind the first `skip` bytes from the expected one on, that says the expected one was durable.
    async fn proven(
        &self,
        journal: &mut Journal<'_>,
        expected: &Expected,
        skip: usize,
    ) -> Result<Option<Sequence>, ShardError> {
        let window = journal::proof_window(self.config.entry_bytes_max).min(journal.size as usize);
        let position = expected.position.plus(skip as u64);
        let mut at = 0;
        while at < window {
            let piece = PIECE_BYTES.min(window - at);
            let here = position.plus(at as u64);
            let bytes = journal.bytes(here, piece).await?;
            if let Some(proof) = journal::proof_of_damage(bytes, here, expected) {
                return Ok(Some(proof.head.header.sequence));
            }
            at += piece;
        }
        Ok(None)
    }

    /// The blocks that an append wrote to its segment directly, if all of them are there.
    async fn direct_blocks(&self, append: &AppendSection) -> Result<Option<Vec<u8>>, ShardError> {
        let path = paths::segment(&self.config.data_dir, append.partition, append.segment_base);
        let file = match self.reactor.open(&path, Open::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It may be there: to take its blocks for torn would cut off what was acknowledged.
            Err(error) => return Err(ShardError::io("opening", &path, &error)),
        };
        let mut blocks = Vec::new();
        let mut at = append.direct_from.0;
        while at < append.direct_to.0 {
            let length = PIECE_BYTES.min((append.direct_to.0 - at) as usize);
            let (read, buffer) = file.read_at(at, self.memory.wait_buffer(length).await).await;
            let read = read.map_err(|error| ShardError::io("reading", &path, &error))?;
            if read < length {
                return Ok(None);
            }
            blocks.extend_from_slice(&buffer[..length]);
            at += length as u64;
        }
        Ok((Checksum::of(&blocks).0 == append.direct_crc).then_some(blocks))
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>, ShardError> {
        let failed = |error| ShardError::io("reading", path, &error);
        let file = self.reactor.open(path, Open::Read).await.map_err(failed)?;
        let mut bytes = Vec::new();
        loop {
            let (read, buffer) = file.read_at(bytes.len() as u64, self.memory.wait_buffer(PIECE_BYTES).await).await;
            let read = read.map_err(failed)?;
            bytes.extend_from_slice(&buffer[..read]);
            if read < PIECE_BYTES {
                return Ok(bytes);
            }
        }
    }

    fn damaged(&self, path: &Path, why: String) -> ShardError {
        ShardError::Damaged { path: path.display().to_string().into(), why: why.into() }
    }
}

impl Journal<'_> {
    /// What lies before is not asked for again. What lies behind may be read far ahead, to find what proves an entry.
    fn forget_before(&mut self, position: JournalPosition) {
        let behind = (position.0 - self.start.0) as usize;
        if behind >= 4 * PIECE_BYTES {
            self.window.drain(..behind.min(self.window.len()));
            self.start = position;
        }
    }

    /// Bytes from a logical position on; the file is circular.
    async fn bytes(&mut self, from: JournalPosition, length: usize) -> Result<&[u8], ShardError> {
        let to = (from.0 - self.start.0) as usize + length;
        while self.window.len() < to {
            self.read_on().await?;
        }
        Ok(&self.window[to - length..to])
    }

    async fn read_on(&mut self) -> Result<(), ShardError> {
        let at = (self.start.0 + self.window.len() as u64) % self.size;
        let length = PIECE_BYTES.min((self.size - at) as usize);
        let (read, buffer) = self.file.read_at(at, self.reader.memory.wait_buffer(length).await).await;
        let path = self.reader.directory.join(paths::JOURNAL);
        let read = read.map_err(|error| ShardError::io("reading", &path, &error))?;
        if read < length {
            return Err(self.reader.damaged(&path, format!("it ends at byte {}", at + read as u64)));
        }
        self.window.extend_from_slice(&buffer[..length]);
        Ok(())
    }
}

fn direct(section: Section<'_>) -> Option<AppendSection> {
    match section {
        Section::Append { append, .. } if !append.is_inline() => Some(append),
        _ => None,
    }
}

/// Makes sure that there is a journal file of the configured size; true if it was made anew. A new one is zero-filled,
/// so that writing to it changes no metadata of the file system.
pub(super) async fn ensure_journal(
    reactor: &Reactor,
    memory: &OwnMemory,
    config: &ShardConfig,
    directory: &Path,
) -> Result<(), ShardError> {
    let path = directory.join(paths::JOURNAL);
    let failed = |error: io::Error| ShardError::io("making", &path, &error);
    if let Ok(file) = reactor.open(&path, Open::Read).await
        && file.length().await.map_err(failed)? == config.journal_bytes
    {
        return Ok(());
    }
    let temporary = directory.join("journal.new");
    let file = reactor.open(&temporary, Open::Create).await.map_err(failed)?;
    file.truncate(0).await.map_err(failed)?;
    let mut buffer = memory.wait_buffer(PIECE_BYTES).await;
    buffer.fill(0);
    let (zeros, file) = (buffer.freeze(), Rc::new(file));
    // Reserved first: writes that extend a file go one after another.
    file.allocate(0, config.journal_bytes).await.map_err(failed)?;
    fill(reactor, &file, &zeros, config.journal_bytes).await.map_err(failed)?;
    file.sync_data().await.map_err(failed)?;
    drop(file);
    reactor.rename(&temporary, &path).await.map_err(failed)?;
    reactor.sync_dir(directory).await.map_err(failed)
}

/// Writes zeros from the beginning of a file up to `bytes`, several pieces at a time.
async fn fill(reactor: &Reactor, file: &Rc<File>, zeros: &Slice, bytes: u64) -> io::Result<()> {
    let places = (0..bytes).step_by(zeros.len());
    let (file, zeros) = (file.clone(), zeros.clone());
    // One that lands late would undo what is written to the journal by then.
    for_each(reactor, FILLERS, places, move |at| {
        let (file, length) = (file.clone(), zeros.len().min((bytes - at) as usize));
        let piece = zeros.slice(0..length);
        async move { file.write_at(at, piece, WriteSync::None).await }
    })
    .await
}

/// Works on each of many, `at_once` of them at the same time. After an error nothing more is begun, and what is under way
/// is waited for, so that nothing lands later.
async fn for_each<T: 'static, F, E: 'static>(
    reactor: &Reactor,
    at_once: usize,
    items: impl Iterator<Item = T> + 'static,
    work: impl Fn(T) -> F + Clone + 'static,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>> + 'static,
{
    let items = Rc::new(RefCell::new(Some(items)));
    let take = |items: &RefCell<Option<_>>| items.borrow_mut().as_mut().and_then(Iterator::next);
    let workers: Vec<_> = (0..at_once)
        .map_while(|_| {
            let (items, work, mut item) = (items.clone(), work.clone(), Some(take(&items)?));
            Some(reactor.spawn(async move {
                while let Some(taken) = item {
                    if let Err(error) = work(taken).await {
                        *items.borrow_mut() = None;
                        return Err(error);
                    }
                    item = take(&items);
                }
                Ok(())
            }))
        })
        .collect();
    let mut outcome = Ok(());
    for worker in workers {
        outcome = outcome.and(worker.await);
    }
    outcome
}

/// Where a journal begins that nothing of is needed: a new nonce, so that nothing written before can pass as new.
pub(super) fn fresh_journal(reactor: &Reactor, config: &ShardConfig) -> JournalFrom {
    JournalFrom {
        nonce: Nonce(reactor.random()),
        size: config.journal_bytes,
        position: JournalPosition(0),
        sequence: Sequence(1),
        previous: Checksum(0),
    }
}

mod keep;
mod settle;
#[cfg(test)]
mod tests;

pub(super) use keep::keep_journal;
pub(super) use settle::settle;
