//! Verifies files against each other: every journal entry, every checkpoint group, every batch of every segment against
//! what checkpoint and journal say of it, every index against its segment.

use super::files::{Content, JournalFile, Overlay, SegmentFile, Walked};
use super::finding::{Finding, Remedy, Severity, Summary, fenced, partition_of, restore_segment};
use super::{
    DumpError, Kind, RECORDS_BYTES_MAX, is_data_dir, itself, list, newest_checkpoint, read_checkpoint, read_index,
    read_node, recognise, segment_of,
};
use super::{partition_directories, partitions_of, shard_directories};
use crate::data_dir::{LOCK, NODE};
use crate::log::BLOCK;
use crate::log::checkpoint::{self, CheckpointState, PartitionState, Tail};
use crate::log::frame::{Checksum, Sequence};
use crate::log::index::{self, IndexFault, SparseIndex};
use crate::log::journal::{self, AppendSection, Entry, EntryFault, Expected, JournalPosition, Section};
use crate::log::paths::{self, SegmentName};
use crate::log::recovery::{Recovered, Recovery};
use crate::log::segment::{ANY_EPOCH, BatchRef, Stop};
use crate::metadata::{Catalog, Replay};
use crate::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Position, Timestamp, TopicId};
use corelog_batch::{BatchError, BatchView, Codec};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The metadata log's one partition.
const METADATA: PartitionId = PartitionId { topic: TopicId::METADATA, index: PartitionIndex(0) };
/// Its batches are not compressed; this is only a bound.
const METADATA_BATCH_BYTES_MAX: usize = 64 << 20;

/// Verifies a data directory, or a part of one. A part is held against the rest of its data directory where it lies in
/// one, which is read as far as needed.
pub fn verify(path: &Path, report: &mut dyn FnMut(Finding) -> io::Result<()>) -> Result<Summary, DumpError> {
    let kind = recognise(path)?;
    let path = path.canonicalize().map_err(DumpError::io(path))?;
    let root = path.ancestors().skip(usize::from(kind != Kind::DataDir)).find(|above| is_data_dir(above));
    // Held to the end: a server that starts meanwhile is told that the directory is in use.
    let _lock = root.map(keep_servers_out).transpose()?;
    let mut verify = Verify::new(root, report);
    verify.path(&path, kind)?;
    Ok(verify.summary)
}

/// `None` where there is no lock file, as in a copy of a directory.
fn keep_servers_out(root: &Path) -> Result<Option<File>, DumpError> {
    let path = root.join(LOCK);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(DumpError::io(&path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(DumpError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(DumpError::Io { path, source }),
    }
}

/// The names of the topics of a data directory, as far as its metadata log can be read; of a stopped server.
///
/// # Errors
/// When the directory cannot be read.
pub fn topic_names(root: &Path) -> Result<BTreeMap<TopicId, String>, DumpError> {
    let mut silent = |_| Ok(());
    let mut verify = Verify::new(Some(root), &mut silent);
    verify.shards(root)?;
    let known = std::mem::take(&mut verify.known);
    let catalog = verify.catalog(root, known.get(&METADATA))?;
    let topics = catalog.iter().flat_map(Catalog::topics);
    Ok(topics.map(|topic| (topic.id, topic.name.as_str().to_owned())).collect())
}

struct Verify<'a> {
    root: Option<&'a Path>,
    report: &'a mut dyn FnMut(Finding) -> io::Result<()>,
    summary: Summary,
    /// What checkpoints and journals say of each partition.
    known: BTreeMap<PartitionId, Recovered>,
    /// Whether they could all be read. If not, a file that they do not tell of may hold what was acknowledged.
    is_told_whole: bool,
}

impl<'a> Verify<'a> {
    fn new(root: Option<&'a Path>, report: &'a mut dyn FnMut(Finding) -> io::Result<()>) -> Verify<'a> {
        Verify { root, report, summary: Summary::default(), known: BTreeMap::new(), is_told_whole: true }
    }

    fn path(&mut self, path: &Path, kind: Kind) -> Result<(), DumpError> {
        match kind {
            Kind::DataDir => self.data_dir(path),
            Kind::Shard => self.shard(path),
            Kind::Topic => partitions_of(path)?.iter().try_for_each(|partition| self.partition_directory(partition)),
            Kind::Partition => self.partition_directory(path),
            Kind::Journal => self.journal_alone(path),
            Kind::Checkpoint => self.checkpoint(path).map(drop),
            Kind::Segment => self.segment_alone(path),
            Kind::Index => self.index_alone(path),
        }
    }

    fn find(
        &mut self,
        severity: Severity,
        path: &Path,
        at: Option<u64>,
        what: impl fmt::Display,
        remedy: Remedy,
    ) -> Result<(), DumpError> {
        self.tell(Finding::new(severity, path, at, what, remedy))
    }

    fn tell(&mut self, finding: Finding) -> Result<(), DumpError> {
        *match finding.severity {
            Severity::Note => &mut self.summary.notes,
            Severity::Warning => &mut self.summary.warnings,
            Severity::Error => &mut self.summary.errors,
        } += 1;
        (self.report)(finding).map_err(DumpError::Output)
    }

    fn data_dir(&mut self, root: &Path) -> Result<(), DumpError> {
        self.shards(root)?;
        // With a node file, a checkpoint or a journal that cannot be read, it is not known what partitions there are.
        self.is_told_whole = self.summary.errors == 0;
        let known = std::mem::take(&mut self.known);
        let catalog = self.catalog(root, known.get(&METADATA))?;
        for (id, recovered) in &known {
            let directory = paths::partition(root, *id);
            if *id != METADATA && catalog.as_ref().is_some_and(|catalog| catalog.topic(id.topic).is_none()) {
                let (what, remedy) = match self.is_told_whole {
                    true => ("its topic was deleted", Remedy::NextStart),
                    false => ("what can be read of the metadata log does not have its topic", Remedy::Unproven),
                };
                self.find(Severity::Note, &directory, None, what, remedy)?;
            } else {
                self.partition(*id, recovered, &directory, None)?;
            }
        }
        // Where nothing is known, as without a node file, that is told once and not of each.
        let is_any_known = self.is_told_whole || !known.is_empty();
        for directory in partition_directories(root)?.into_iter().filter(|_| is_any_known) {
            if partition_of(&directory).is_none_or(|id| !known.contains_key(&id)) && !list(&directory)?.is_empty() {
                let (what, remedy) = match self.is_told_whole {
                    true => ("its topic was deleted, or nothing was ever acknowledged", Remedy::NextStart),
                    false => ("its topic may be what is lost", Remedy::Unproven),
                };
                let what = format_args!("no shard knows this partition: {what}");
                self.find(Severity::Note, &directory, None, what, remedy)?;
            }
        }
        Ok(())
    }

    /// What the metadata log says. `None` if it cannot be read whole.
    fn catalog(&mut self, root: &Path, metadata: Option<&Recovered>) -> Result<Option<Catalog>, DumpError> {
        let Some(recovered) = metadata else { return Ok(None) };
        let directory = paths::partition(root, METADATA);
        let mut replay = Some(Replay::new(recovered.state.extent.first));
        let mut failed = None;
        for segment in expected_segments(&recovered.state) {
            let path = directory.join(paths::segment_name(segment.base));
            let Ok(file) = SegmentFile::open(&path, recovered.overlays(segment.base)) else { return Ok(None) };
            let walked = file.walk(&segment.content(), |_, bytes| {
                let first = recovered.state.extent.first;
                failed = failed.take().or_else(|| replay_batch(replay.as_mut()?, bytes, first).err());
                Ok(())
            });
            if walked.map_err(DumpError::io(&path))?.position != segment.end {
                // Told where the partition is verified.
                return Ok(None);
            }
        }
        let finished = match failed {
            Some(why) => Err(why),
            None => replay.take().map(Replay::finish).transpose().map_err(|error| error.to_string()),
        };
        match finished {
            Ok(catalog) => Ok(catalog),
            Err(why) => self.find(Severity::Error, &directory, None, why, Remedy::RestoreMetadata).map(|()| None),
        }
    }

    /// The shards in force. Those of other generations are leftovers.
    fn shards(&mut self, root: &Path) -> Result<(), DumpError> {
        let node = match read_node(root)? {
            Ok(node) => node,
            Err(why) => return self.find(Severity::Error, &root.join(NODE), None, why, Remedy::RestoreNode),
        };
        let in_force = paths::shards(root, node.generation);
        for directory in shard_directories(root)? {
            if directory.parent() == Some(&in_force) {
                self.shard(&directory)?;
            } else {
                let what = "it is of a generation that is not in force";
                self.find(Severity::Note, &directory, None, what, Remedy::NextStart)?;
            }
        }
        Ok(())
    }

    fn shard(&mut self, directory: &Path) -> Result<(), DumpError> {
        let Some(newest) = newest_checkpoint(directory)? else {
            return self.find(Severity::Error, directory, None, "it has no checkpoint file", Remedy::RestoreShard);
        };
        let Some(state) = self.checkpoint(&newest)? else { return Ok(()) };
        let journal = directory.join(paths::JOURNAL);
        let recovery = self.journal(&journal, &state)?;
        self.summary.partitions += recovery.partitions.len() as u64;
        for (id, recovered) in recovery.partitions {
            if let Some(why) = &recovered.fenced {
                let what = format_args!("partition {id}: {why}");
                let finding = Finding::new(Severity::Error, &journal, None, what, fenced(id));
                self.tell(Finding { partition: Some(id), ..finding })?;
            }
            if self.known.insert(id, recovered).is_some() {
                let what = format_args!("partition {id} is also in another shard's checkpoint");
                self.find(Severity::Error, directory, None, what, Remedy::RestoreShard)?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path) -> Result<Option<CheckpointState>, DumpError> {
        let bytes = read_checkpoint(path)?;
        if let Ok(header) = checkpoint::read_file_header(&bytes) {
            self.summary.checkpoint_groups += checkpoint::Groups::of(&bytes, &header).count() as u64;
        }
        match checkpoint::replay(&bytes) {
            Ok(replayed) => {
                if let Tail::Torn(fault) = replayed.tail {
                    let what = format_args!("a checkpoint was cut short by a crash ({fault})");
                    self.find(Severity::Note, path, Some(replayed.next.position), what, Remedy::NextStart)?;
                }
                Ok(Some(replayed.state))
            }
            Err(error) => self.find(Severity::Error, path, None, error, Remedy::RestoreShard).map(|()| None),
        }
    }

    /// Reads on from where the checkpoint says, as recovery does.
    fn journal(&mut self, path: &Path, state: &CheckpointState) -> Result<Recovery, DumpError> {
        let mut recovery = Recovery::new(state);
        let file = match JournalFile::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.find(Severity::Error, path, None, "it is missing", Remedy::RestoreShard)?;
                return Ok(recovery);
            }
            Err(error) => {
                self.find(Severity::Error, path, None, error, Remedy::RestoreShard)?;
                return Ok(recovery);
            }
        };
        if file.length != state.journal.size {
            let what = format_args!("it has {} bytes, its checkpoint says {}", file.length, state.journal.size);
            let expected = state.journal.expected();
            let begins = (expected.sequence == Sequence(1) && file.size > 0).then(|| file.head(expected.position));
            match begins.transpose().map_err(DumpError::io(path))? {
                Some(head) if head.as_ref().map_or(true, |head| head.header.nonce != expected.nonce) => {
                    self.find(Severity::Note, path, None, what, Remedy::Unwritten)?;
                }
                _ => self.find(Severity::Error, path, None, what, Remedy::OtherJournal)?,
            }
            return Ok(recovery);
        }
        let mut expected = state.journal.expected();
        while expected.position.0 - state.journal.position.0 < file.size {
            let bytes = file.entry(&expected).map_err(DumpError::io(path))?;
            let entry = match journal::parse(&bytes, &expected) {
                Ok(entry) => entry,
                Err(fault) => {
                    self.journal_stop(path, &file, &expected, fault)?;
                    break;
                }
            };
            if !self.direct_ranges(path, &file, &entry, &recovery)? {
                break;
            }
            self.summary.journal_entries += 1;
            entry.sections().for_each(|section| recovery.section(expected.sequence, &section));
            expected = entry.next();
        }
        Ok(recovery)
    }

    /// Tells the end of the journal from a torn entry from a damaged one.
    fn journal_stop(
        &mut self,
        path: &Path,
        file: &JournalFile,
        expected: &Expected,
        fault: EntryFault,
    ) -> Result<(), DumpError> {
        let at = Some(expected.position.0 % file.size);
        if fault.is_foreign() {
            return self.find(Severity::Error, path, at, fault, Remedy::Newer);
        }
        let sequence = expected.sequence.0;
        if let Some(proof) = file.proof_of_damage(expected).map_err(DumpError::io(path))? {
            let by = proof.head.header.sequence.0;
            let what = format_args!("entry {sequence} was acknowledged (entry {by} says so) and is damaged: {fault}");
            return self.find(Severity::Error, path, at, what, Remedy::RestoreJournal);
        }
        // Else zeros, or any part of an earlier lap: the end.
        let block = file.bytes(expected.position, BLOCK).map_err(DumpError::io(path))?;
        if !journal::is_begun(&block, expected, fault) {
            return Ok(());
        }
        let what =
            format_args!("entry {sequence} was cut short by a crash ({fault}); nothing says that it was acknowledged");
        self.find(Severity::Note, path, at, what, Remedy::CutOff)
    }

    /// Whether what an entry left to the segments is there. If not, the entry counts as torn or damaged itself.
    fn direct_ranges(
        &mut self,
        path: &Path,
        file: &JournalFile,
        entry: &Entry<'_>,
        recovery: &Recovery,
    ) -> Result<bool, DumpError> {
        let Some(root) = self.root else { return Ok(true) };
        // What the checkpoint has already may be gone again.
        let is_new = |append: &AppendSection| {
            let known = recovery.partitions.get(&append.partition);
            known.is_none_or(|known| known.state.extent.next <= append.last_offset)
        };
        let appends = entry.sections().filter_map(|section| match section {
            Section::Append { append, .. } if !append.is_inline() && is_new(&append) => Some(append),
            _ => None,
        });
        for append in appends {
            if direct_is_whole(root, &append)? {
                continue;
            }
            let here = itself(&entry.head);
            let proof = file.proof_of_damage(&here).map_err(DumpError::io(path))?;
            let segment = paths::segment(root, append.partition, append.segment_base);
            let at = Some(append.direct_from.0);
            let what = format_args!("what journal entry {} wrote here is not here", here.sequence.0);
            match proof {
                Some(_) => self.find(Severity::Error, &segment, at, what, Remedy::RestoreSegment)?,
                None => self.find(Severity::Note, &segment, at, what, Remedy::CutOff)?,
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn journal_alone(&mut self, path: &Path) -> Result<(), DumpError> {
        let shard = path.parent().unwrap_or(Path::new("."));
        let state = match newest_checkpoint(shard)? {
            Some(checkpoint) => self.checkpoint(&checkpoint)?,
            None => None,
        };
        if let Some(state) = state {
            return self.journal(path, &state).map(drop);
        }
        let what = "without its checkpoint nobody knows which of its entries count";
        self.find(Severity::Warning, path, None, what, Remedy::VerifyJournalInPlace)?;
        let file = JournalFile::open(path).map_err(DumpError::io(path))?;
        let mut at = 0;
        while at < file.size {
            let position = JournalPosition(at);
            let head = file.head(position).map_err(DumpError::io(path))?;
            at += BLOCK as u64;
            if let Ok(head) = head
                && journal::parse(&file.bytes(position, head.length).map_err(DumpError::io(path))?, &itself(&head))
                    .is_ok()
            {
                self.summary.journal_entries += 1;
            }
        }
        Ok(())
    }

    /// What is known of the partition that a file or directory is of.
    fn known_of(&mut self, directory: &Path) -> Result<Option<(PartitionId, Recovered)>, DumpError> {
        let (Some(root), Some(id)) = (self.root, partition_of(directory)) else { return Ok(None) };
        // Only what concerns the part that was asked for is to be reported and counted.
        let mut silent = |_| Ok(());
        let mut all = Verify::new(Some(root), &mut silent);
        all.shards(root)?;
        let (errors, known) = (all.summary.errors, all.known.remove(&id));
        if errors > 0 {
            self.is_told_whole = false;
            let what = format_args!("{errors} errors in checkpoints and journals of its data directory may concern it");
            self.find(Severity::Error, directory, None, what, Remedy::VerifyWhole)?;
        }
        Ok(known.map(|recovered| (id, recovered)))
    }

    fn partition_directory(&mut self, directory: &Path) -> Result<(), DumpError> {
        let known = self.known_of(directory)?;
        self.summary.partitions += 1;
        if let Some((id, recovered)) = known {
            return self.partition(id, &recovered, directory, None);
        }
        let what = "no checkpoint says what it must hold: only what is there is checked";
        self.find(Severity::Note, directory, None, what, Remedy::VerifyInPlace)?;
        for name in list(directory)? {
            let path = directory.join(&name);
            if paths::parse_segment_name(&name).is_some() {
                self.unknown_segment(&path)?;
            } else if paths::parse_index_name(&name).is_some() {
                self.unknown_index(&path)?;
            }
        }
        Ok(())
    }

    fn segment_alone(&mut self, path: &Path) -> Result<(), DumpError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        match self.known_of(directory)? {
            Some((id, recovered)) => self.partition(id, &recovered, directory, Some(segment_of(path))),
            None => self.unknown_segment(path),
        }
    }

    fn index_alone(&mut self, path: &Path) -> Result<(), DumpError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        match self.known_of(directory)? {
            Some((id, recovered)) => self.partition(id, &recovered, directory, Some(segment_of(path))),
            None => self.unknown_index(path),
        }
    }

    fn unknown_index(&mut self, path: &Path) -> Result<(), DumpError> {
        let file = read_index(path)?;
        match index::decode(&file) {
            Ok(_) => {
                self.summary.indexes += 1;
                Ok(())
            }
            Err(fault) => self.index_fault(path, &file, fault),
        }
    }

    fn index_fault(&mut self, path: &Path, file: &[u8], fault: IndexFault) -> Result<(), DumpError> {
        if index::is_cut_short(file) {
            return self.find(Severity::Note, path, None, "a crash cut its writing short", Remedy::WhenNeeded);
        }
        self.find(Severity::Warning, path, None, fault, Remedy::Rebuild)
    }

    /// A segment of which nobody says where it ends.
    fn unknown_segment(&mut self, path: &Path) -> Result<(), DumpError> {
        let content = Content { base: segment_of(path).base, end: None, epochs: ANY_EPOCH };
        let walked = self.walk(path, Vec::new(), &content, |_| {})?;
        match walked.stop {
            Stop::End | Stop::Zeros => Ok(()),
            stop => self.find(Severity::Warning, path, Some(walked.position.0), stop, Remedy::VerifyEnd),
        }
    }

    fn walk(
        &mut self,
        path: &Path,
        overlays: Vec<Overlay>,
        content: &Content,
        mut see: impl FnMut(BatchRef),
    ) -> Result<Walked, DumpError> {
        let file = SegmentFile::open(path, overlays).map_err(DumpError::io(path))?;
        self.summary.segments += 1;
        let summary = &mut self.summary;
        let (mut unreadable, mut scratch) = (Vec::new(), Vec::new());
        let walked = file.walk(content, |batch, bytes| {
            summary.batches += 1;
            summary.batch_bytes += bytes.len() as u64;
            if let Err(error) = unpack(bytes, &mut scratch) {
                unreadable.push((batch, error));
            }
            see(batch);
            Ok(())
        });
        for (batch, error) in unreadable {
            let what =
                format_args!("offsets {} to {} are as they were sent and unreadable: {error}", batch.base, batch.last);
            self.find(Severity::Error, path, Some(batch.position.0), what, Remedy::ReadOn)?;
        }
        walked.map_err(DumpError::io(path))
    }

    /// All segments of a partition, or the one of this name.
    fn partition(
        &mut self,
        id: PartitionId,
        recovered: &Recovered,
        directory: &Path,
        only: Option<SegmentName>,
    ) -> Result<(), DumpError> {
        let state = &recovered.state;
        let segments = expected_segments(state);
        for segment in segments.iter().filter(|segment| only.is_none_or(|only| only == segment.name())) {
            self.segment(id, directory, segment, recovered.overlays(segment.base))?;
        }
        for name in list(directory)? {
            let found = paths::parse_segment_name(&name).or_else(|| paths::parse_index_name(&name));
            let is_known = found.is_some_and(|found| segments.iter().any(|segment| segment.name() == found));
            let active = SegmentName::from(state.extent.segment_base);
            if !is_known && only.is_none_or(|only| found == Some(only)) && found != Some(active) {
                let first = segments.first().map_or(active.base, |segment| segment.base);
                let is_held = |base| segments.iter().any(|segment| segment.base <= base && base < segment.next);
                let (what, remedy) = match found {
                    None => ("it is none of corelog's files", Remedy::Foreign),
                    Some(found) if found.base < first => {
                        ("checkpoint and journal do not know it, or its records were deleted", Remedy::NextStart)
                    }
                    Some(found) if is_held(found.base) => {
                        ("another file has its offsets, as after compaction or behind damage", Remedy::NextStart)
                    }
                    Some(_) if !self.is_told_whole => {
                        ("what can be read of checkpoint and journal does not tell of it", Remedy::Unproven)
                    }
                    Some(_) => ("checkpoint and journal do not know it", Remedy::Ahead),
                };
                self.find(Severity::Note, &directory.join(name), None, what, remedy)?;
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        id: PartitionId,
        directory: &Path,
        segment: &Expect,
        overlays: Vec<Overlay>,
    ) -> Result<(), DumpError> {
        let path = directory.join(paths::segment_name(segment.name()));
        if !path.exists() {
            return match is_carried(&overlays, segment.end) {
                true => {
                    self.find(Severity::Note, &path, None, "it is missing; the journal has all of it", Remedy::Carried)
                }
                false => {
                    let (base, last) = (segment.base, segment.next.0 - 1);
                    let what = format_args!("it is missing, with offsets {base} to {last}");
                    self.find(Severity::Error, &path, None, what, restore_segment(directory))
                }
            };
        }
        let mut index = self.index_of(id, directory, segment)?;
        let mut max_timestamp = Timestamp(-1);
        let walked = self.walk(&path, overlays, &segment.content(), |batch| {
            if let Some(index) = &mut index {
                index.see(&batch, max_timestamp);
            }
            max_timestamp = max_timestamp.max(batch.max_timestamp);
        })?;
        let is_whole = walked == Walked { position: segment.end, next: segment.next, stop: Stop::End };
        if !is_whole {
            self.segment_stop(&path, segment, &walked)?;
        } else if max_timestamp > segment.max_timestamp {
            let what =
                format_args!("a batch has time {max_timestamp}, its checkpoint says at most {}", segment.max_timestamp);
            self.find(Severity::Warning, &path, None, what, Remedy::EarlyRetention)?;
        }
        let Some(index) = index else { return Ok(()) };
        if index.agrees() || !is_whole {
            self.summary.indexes += 1;
            return Ok(());
        }
        self.find(
            Severity::Error,
            &directory.join(paths::index_name(segment.name())),
            None,
            "it leads astray",
            Remedy::Misleading,
        )
    }

    fn segment_stop(&mut self, path: &Path, segment: &Expect, walked: &Walked) -> Result<(), DumpError> {
        let restore = restore_segment(path.parent().unwrap_or(Path::new(".")));
        let at = Some(walked.position.0);
        if walked.position == segment.end {
            let what = format_args!("its batches end at offset {}, its checkpoint says {}", walked.next, segment.next);
            return self.find(Severity::Error, path, at, what, restore);
        }
        let (end, next) = (segment.end, segment.next);
        let what = format_args!(
            "acknowledged records from offset {} to {} cannot be read: {} (the segment must go on to byte {end})",
            walked.next,
            next.0 - 1,
            walked.stop
        );
        self.find(Severity::Error, path, at, what, restore)
    }

    /// The index of a sealed segment. An active one has none that must be right.
    fn index_of(
        &mut self,
        id: PartitionId,
        directory: &Path,
        segment: &Expect,
    ) -> Result<Option<Agreement>, DumpError> {
        let path = directory.join(paths::index_name(segment.base));
        if !path.exists() {
            return Ok(None);
        }
        let file = read_index(&path)?;
        let (identity, index) = match index::decode(&file) {
            Ok(decoded) => decoded,
            Err(fault) => return self.index_fault(&path, &file, fault).map(|()| None),
        };
        if identity.partition != id || identity.base != segment.base || identity.end > segment.end {
            let what = format_args!(
                "it is of partition {}, base offset {}, end {}",
                identity.partition, identity.base, identity.end
            );
            return self.find(Severity::Warning, &path, None, what, Remedy::Rebuild).map(|()| None);
        }
        Ok(Some(Agreement { index, met: 0, passed: false }))
    }
}

/// A segment as checkpoint and journal have it.
struct Expect {
    base: Offset,
    end: Position,
    next: Offset,
    max_timestamp: Timestamp,
    leader_epoch: LeaderEpoch,
    rewrite: u32,
}

impl Expect {
    fn name(&self) -> SegmentName {
        SegmentName { base: self.base, rewrite: self.rewrite }
    }

    fn content(&self) -> Content {
        Content { base: self.base, end: Some(self.end), epochs: LeaderEpoch(0)..=self.leader_epoch }
    }
}

impl Recovered {
    /// What the journal has of a segment, which may not be in it yet.
    fn overlays(&self, segment: Offset) -> Vec<Overlay> {
        let pieces = self.pieces.iter().filter(|piece| piece.segment == segment);
        pieces.map(|piece| Overlay { from: piece.from, bytes: piece.bytes.clone() }).collect()
    }
}

/// Whether the journal has a segment from its first byte to `end`: then the next start makes the file anew.
fn is_carried(overlays: &[Overlay], end: Position) -> bool {
    let reached = overlays.iter().fold(0, |reached, overlay| match overlay.from.0 <= reached {
        true => reached.max(overlay.from.0 + overlay.bytes.len() as u64),
        false => reached,
    });
    reached >= end.0
}

/// Whether a reader can unpack a compressed batch. What the checksum covers can be wrong since it was sent.
fn unpack(batch: &[u8], scratch: &mut Vec<u8>) -> Result<(), BatchError> {
    let batch = BatchView::first(batch)?;
    if batch.codec()? == Codec::None {
        return Ok(());
    }
    let mut records = batch.records(scratch, RECORDS_BYTES_MAX)?;
    records.try_for_each(|record| record.map(drop))
}

fn replay_batch(replay: &mut Replay, batch: &[u8], first: Offset) -> Result<(), String> {
    let mut scratch = Vec::new();
    let batch = BatchView::first(batch).map_err(|error| error.to_string())?;
    let records = batch.records(&mut scratch, METADATA_BATCH_BYTES_MAX).map_err(|error| error.to_string())?;
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset >= first.0 {
            let value = record.value.unwrap_or_default();
            replay.value(Offset(record.offset), value).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn expected_segments(state: &PartitionState) -> Vec<Expect> {
    let extent = &state.extent;
    let leader_epoch = extent.leader_epoch;
    let sealed = state.sealed.iter().map(|(base, sealed)| Expect {
        base: *base,
        end: sealed.end,
        next: sealed.last.plus(1),
        max_timestamp: sealed.max_timestamp,
        leader_epoch,
        rewrite: sealed.rewrite,
    });
    let active = Expect {
        base: extent.segment_base,
        end: extent.end,
        next: extent.next,
        max_timestamp: extent.max_timestamp,
        leader_epoch,
        rewrite: 0,
    };
    // A sealed one of which all records were deleted has no file any more, or will not for long; an active one without a
    // byte may have none yet.
    let sealed = sealed.filter(|segment| segment.next > extent.first);
    sealed.chain((extent.end > Position(0)).then_some(active)).collect()
}

/// Whether an index says of its segment what is so: each entry is a batch, and none before it is of a later time.
struct Agreement {
    index: SparseIndex,
    met: usize,
    passed: bool,
}

impl Agreement {
    fn see(&mut self, batch: &BatchRef, max_timestamp_before: Timestamp) {
        let Some(entry) = self.index.entries().get(self.met) else { return };
        if entry.position == batch.position {
            self.passed |= entry.offset != batch.base || entry.max_timestamp_before < max_timestamp_before;
            self.met += 1;
        } else if entry.position < batch.position {
            self.passed = true;
        }
    }

    fn agrees(&self) -> bool {
        !self.passed && self.met == self.index.entries().len()
    }
}

/// A segment that is not there at all is told where its partition is verified, if it should be.
fn direct_is_whole(root: &Path, append: &AppendSection) -> Result<bool, DumpError> {
    let path = paths::segment(root, append.partition, append.segment_base);
    let mut bytes = vec![0; (append.direct_to.0 - append.direct_from.0) as usize];
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        file => file.map_err(DumpError::io(&path))?,
    };
    match file.read_exact_at(&mut bytes, append.direct_from.0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map_err(DumpError::io(&path)).map(|()| Checksum::of(&bytes).0 == append.direct_crc),
    }
}
