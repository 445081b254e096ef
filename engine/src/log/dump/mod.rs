//! Shows what the files of a data directory hold, and verifies them. A tool for a server that is stopped: it reads with
//! the blocking calls of `std`, in windows, and writes nothing.

mod files;
mod finding;
mod line;
mod verify;

pub use finding::{Finding, Remedy, Risk, Severity, Summary};
pub use line::{Line, Value};
pub use verify::{topic_names, verify};

use super::checkpoint::{self, Extent, FILE_HEADER_BYTES, Groups, Record, Sealed};
use super::index;
use super::journal::{self, EntryHead, Expected, JournalPosition, Section};
use super::paths::{self, SegmentName};
use super::segment::{ANY_EPOCH, BatchRef};
use super::{BLOCK, round_up};
use crate::data_dir::{NODE, NodeFile};
use crate::model::Offset;
use crate::producer::Produced;
use corelog_batch::BatchView;
use files::{Content, JournalFile, SegmentFile};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that the records of one batch may take when they are decompressed to be shown.
const RECORDS_BYTES_MAX: usize = 256 << 20;
/// No checkpoint file that this program writes comes near.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A whole data directory: it has a `node` file, or has lost it.
    DataDir,
    /// A shard's directory: it has a journal.
    Shard,
    /// A topic's directory: it has partitions'.
    Topic,
    /// A partition's directory: it has segments.
    Partition,
    /// A shard's journal.
    Journal,
    /// A shard's checkpoint file.
    Checkpoint,
    /// A segment.
    Segment,
    /// A segment's index.
    Index,
}

/// Why a path cannot be dumped or verified.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The operating system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is nothing of a data directory.
    #[error(
        "{} is not of a corelog data directory: give one, or a shard's, topic's or partition's directory in it, or a file \
         named journal, journal.damaged-*, checkpoint-N, N.log or N.index",
        path.display()
    )]
    Unrecognised {
        /// The path.
        path: PathBuf,
    },
    /// A server is running on it: what it is writing would pass for damage.
    #[error("{} is in use by a server: stop that first", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// What was found could not be shown.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl DumpError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> DumpError + '_ {
        move |source| DumpError::Io { path: path.to_owned(), source }
    }
}

/// What a path is, by its name and by what a directory holds.
pub fn recognise(path: &Path) -> Result<Kind, DumpError> {
    let meta = fs::metadata(path).map_err(DumpError::io(path))?;
    let kind = if meta.is_dir() { recognise_directory(path)? } else { recognise_file(path) };
    kind.ok_or_else(|| DumpError::Unrecognised { path: path.to_owned() })
}

fn recognise_directory(path: &Path) -> Result<Option<Kind>, DumpError> {
    let names = list(path)?;
    let has = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
    Ok(if is_data_dir(path) {
        Some(Kind::DataDir)
    } else if has(&|name| name == paths::JOURNAL || paths::parse_checkpoint_name(name).is_some()) {
        Some(Kind::Shard)
    } else if has(&|name| paths::parse_segment_name(name).is_some()) {
        Some(Kind::Partition)
    } else if name_of(path).and_then(paths::parse_topic_name).is_some() {
        Some(Kind::Topic)
    } else {
        None
    })
}

/// Without its `node` file it is a damaged one: nothing else has topics beside shards.
fn is_data_dir(path: &Path) -> bool {
    let has_shards = || list(path).is_ok_and(|names| names.iter().any(|name| paths::parse_shards_name(name).is_some()));
    path.join(NODE).exists() || (paths::topics(path).is_dir() && has_shards())
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn recognise_file(path: &Path) -> Option<Kind> {
    let name = name_of(path)?;
    if name == paths::JOURNAL || name.starts_with(paths::DAMAGED_JOURNAL) {
        Some(Kind::Journal)
    } else if paths::parse_checkpoint_name(name).is_some() {
        Some(Kind::Checkpoint)
    } else if paths::parse_segment_name(name).is_some() {
        Some(Kind::Segment)
    } else {
        paths::parse_index_name(name).map(|_| Kind::Index)
    }
}

/// Names in a directory, sorted; none if it is not there.
fn list(path: &Path) -> Result<Vec<String>, DumpError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(DumpError::io(path))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names = entries.map(name).collect::<Result<Vec<_>, _>>().map_err(DumpError::io(path))?;
    names.sort_unstable();
    Ok(names)
}

fn read_node(root: &Path) -> Result<Result<NodeFile, String>, DumpError> {
    let path = root.join(NODE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err("its node file is missing".to_owned())),
        bytes => bytes.map_err(DumpError::io(&path))?,
    };
    Ok(NodeFile::parse(&bytes).map_err(|error| error.to_string()))
}

fn read_checkpoint(path: &Path) -> Result<Vec<u8>, DumpError> {
    let length = fs::metadata(path).map_err(DumpError::io(path))?.len();
    if length > CHECKPOINT_BYTES_MAX {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "no checkpoint is that long");
        return Err(DumpError::Io { path: path.to_owned(), source });
    }
    fs::read(path).map_err(DumpError::io(path))
}

/// The checkpoint file of a shard's directory that counts.
fn newest_checkpoint(shard: &Path) -> Result<Option<PathBuf>, DumpError> {
    let names = list(shard)?;
    let newest = names.iter().filter_map(|name| paths::parse_checkpoint_name(name)).max();
    Ok(newest.map(|sequence| shard.join(paths::checkpoint_name(sequence))))
}

/// Where lines go. An error ends the dump.
pub type Show<'a> = dyn FnMut(Line) -> io::Result<()> + 'a;

/// What to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Also the records in each batch.
    pub records: bool,
}

/// Shows what a file or a directory holds, for as long as it can be read; a line `stop` says where that ended and why.
pub fn dump(path: &Path, options: Options, show: &mut Show<'_>) -> Result<(), DumpError> {
    let kind = recognise(path)?;
    let dump = Dump { options };
    dump.path(path, kind, show)
}

struct Dump {
    options: Options,
}

impl Dump {
    fn path(&self, path: &Path, kind: Kind, show: &mut Show<'_>) -> Result<(), DumpError> {
        match kind {
            Kind::DataDir => self.data_dir(path, show),
            Kind::Shard => self.shard(path, show),
            Kind::Topic => partitions_of(path)?.iter().try_for_each(|partition| self.partition(partition, show)),
            Kind::Partition => self.partition(path, show),
            Kind::Journal => self.journal(path, show),
            Kind::Checkpoint => self.checkpoint(path, show),
            Kind::Segment => self.segment(path, show),
            Kind::Index => self.index(path, show),
        }
    }

    fn data_dir(&self, root: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        let line = match read_node(root)? {
            Ok(node) => Line::new(0, "node")
                .text("cluster-id", node.cluster_id)
                .number("node-id", node.node_id)
                .number("generation", node.generation as i128)
                .number("shards", node.shards),
            Err(why) => Line::new(0, "stop").text("why", why),
        };
        show(line).map_err(DumpError::Output)?;
        for shard in shard_directories(root)? {
            self.shard(&shard, show)?;
        }
        for partition in partition_directories(root)? {
            self.partition(&partition, show)?;
        }
        Ok(())
    }

    fn shard(&self, directory: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        if let Some(path) = newest_checkpoint(directory)? {
            self.checkpoint(&path, show)?;
        }
        let journal = directory.join(paths::JOURNAL);
        if journal.exists() { self.journal(&journal, show) } else { Ok(()) }
    }

    fn partition(&self, directory: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        for name in list(directory)? {
            let path = directory.join(&name);
            match recognise_file(&path) {
                Some(Kind::Segment) => self.segment(&path, show)?,
                Some(Kind::Index) => self.index(&path, show)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// From where the checkpoint beside it says, as recovery would; without a checkpoint, whatever entries there are.
    fn journal(&self, path: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        let file = JournalFile::open(path).map_err(DumpError::io(path))?;
        show(file_line(path, Kind::Journal, file.size)).map_err(DumpError::Output)?;
        let shard = path.parent().unwrap_or(Path::new("."));
        let state = match newest_checkpoint(shard)? {
            Some(checkpoint) => checkpoint::replay(&read_checkpoint(&checkpoint)?).ok(),
            None => None,
        };
        match state {
            Some(replayed) => self.entries_from(path, &file, replayed.state.journal.expected(), show),
            None => self.entries_anywhere(path, &file, show),
        }
    }

    fn entries_from(
        &self,
        path: &Path,
        file: &JournalFile,
        mut expected: Expected,
        show: &mut Show<'_>,
    ) -> Result<(), DumpError> {
        loop {
            let bytes = file.entry(&expected).map_err(DumpError::io(path))?;
            match journal::parse(&bytes, &expected) {
                Ok(entry) => {
                    show_entry(file, &entry.head, entry.sections(), show).map_err(DumpError::Output)?;
                    expected = entry.next();
                }
                Err(fault) => {
                    let at = expected.position.0.checked_rem(file.size).unwrap_or(0);
                    return show(stop_line(at, fault)).map_err(DumpError::Output);
                }
            }
        }
    }

    /// In the order of the file, each for itself: of which lap it is, its sequence says.
    fn entries_anywhere(&self, path: &Path, file: &JournalFile, show: &mut Show<'_>) -> Result<(), DumpError> {
        let mut at = 0;
        while at < file.size {
            let position = JournalPosition(at);
            let head = file.head(position).map_err(DumpError::io(path))?;
            at += BLOCK as u64;
            let Ok(head) = head else { continue };
            let bytes = file.bytes(position, head.length).map_err(DumpError::io(path))?;
            match journal::parse(&bytes, &itself(&head)) {
                Ok(entry) => {
                    show_entry(file, &head, entry.sections(), show).map_err(DumpError::Output)?;
                    at += (head.length - BLOCK) as u64;
                }
                // Damaged, or its end was written over by a later lap.
                Err(fault) => show(stop_line(position.0, fault)).map_err(DumpError::Output)?,
            }
        }
        Ok(())
    }

    fn checkpoint(&self, path: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        let bytes = read_checkpoint(path)?;
        show(file_line(path, Kind::Checkpoint, bytes.len() as u64)).map_err(DumpError::Output)?;
        show_checkpoint(&bytes, show).map_err(DumpError::Output)
    }

    fn segment(&self, path: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        let file = SegmentFile::open(path, Vec::new()).map_err(DumpError::io(path))?;
        show(file_line(path, Kind::Segment, file.length)).map_err(DumpError::Output)?;
        let content = Content { base: segment_of(path).base, end: None, epochs: ANY_EPOCH };
        let mut failed = None;
        let walked = file.walk(&content, |batch, bytes| {
            self.show_batch(&batch, bytes, show).inspect_err(|error| failed = Some(error.kind()))
        });
        let walked = walked.map_err(|source| match failed {
            Some(_) => DumpError::Output(source),
            None => DumpError::Io { path: path.to_owned(), source },
        })?;
        show(stop_line(walked.position.0, walked.stop)).map_err(DumpError::Output)
    }

    fn show_batch(&self, batch: &BatchRef, bytes: &[u8], show: &mut Show<'_>) -> io::Result<()> {
        let Ok(view) = BatchView::first(bytes) else { return Ok(()) };
        let codec = view.codec().map_or_else(|error| error.to_string(), |codec| codec.to_string());
        show(
            Line::new(1, "batch")
                .number("position", batch.position.0)
                .number("bytes", batch.length as i128)
                .number("base-offset", batch.base.0)
                .number("last-offset", batch.last.0)
                .number("records", view.record_count())
                .text("compression", codec)
                .number("base-timestamp", view.base_timestamp())
                .number("max-timestamp", view.max_timestamp())
                .number("leader-epoch", batch.leader_epoch.0)
                .hex("crc", view.crc()),
        )?;
        if self.options.records { show_records(&view, show) } else { Ok(()) }
    }

    fn index(&self, path: &Path, show: &mut Show<'_>) -> Result<(), DumpError> {
        let bytes = read_index(path)?;
        show(file_line(path, Kind::Index, bytes.len() as u64)).map_err(DumpError::Output)?;
        show_index(&bytes, show).map_err(DumpError::Output)
    }
}

fn read_index(path: &Path) -> Result<Vec<u8>, DumpError> {
    let length = fs::metadata(path).map_err(DumpError::io(path))?.len();
    // A longer one is told as such by its first bytes beyond the bound.
    let file = fs::File::open(path).map_err(DumpError::io(path))?;
    let mut bytes = Vec::new();
    let bound = length.min(round_up(index::FILE_BYTES_MAX + 1) as u64);
    io::Read::read_to_end(&mut io::Read::take(file, bound), &mut bytes).map_err(DumpError::io(path))?;
    Ok(bytes)
}

fn segment_of(path: &Path) -> SegmentName {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    paths::parse_segment_name(name).or_else(|| paths::parse_index_name(name)).unwrap_or(Offset(0).into())
}

/// The directories of all shards, of every generation that is there.
fn shard_directories(root: &Path) -> Result<Vec<PathBuf>, DumpError> {
    let mut found = Vec::new();
    for generation in list(root)?.iter().filter_map(|name| paths::parse_shards_name(name)) {
        let directory = paths::shards(root, generation);
        let mut shards: Vec<_> = list(&directory)?.iter().filter_map(|name| paths::parse_shard_name(name)).collect();
        shards.sort_unstable();
        found.extend(shards.into_iter().map(|shard| paths::shard(root, generation, shard)));
    }
    Ok(found)
}

fn partition_directories(root: &Path) -> Result<Vec<PathBuf>, DumpError> {
    let mut found = Vec::new();
    for topic in list(&paths::topics(root))?.iter().filter_map(|name| paths::parse_topic_name(name)) {
        found.extend(partitions_of(&paths::topic(root, topic))?);
    }
    Ok(found)
}

/// The partitions' directories of a topic, by number.
fn partitions_of(topic: &Path) -> Result<Vec<PathBuf>, DumpError> {
    let mut partitions: Vec<_> = list(topic)?.iter().filter_map(|name| paths::parse_partition_name(name)).collect();
    partitions.sort_unstable();
    Ok(partitions.into_iter().map(|index| topic.join(index.to_string())).collect())
}

/// What an entry that is looked at for itself must be: what its own header says.
fn itself(head: &EntryHead) -> Expected {
    let journal::EntryHeader { nonce, sequence, position, previous, .. } = head.header;
    Expected { nonce, sequence, position, previous }
}

fn file_line(path: &Path, kind: Kind, bytes: u64) -> Line {
    let what = match kind {
        Kind::Journal => "journal",
        Kind::Checkpoint => "checkpoint",
        Kind::Segment => "segment",
        Kind::Index => "index",
        Kind::DataDir | Kind::Shard | Kind::Topic | Kind::Partition => "directory",
    };
    Line::new(0, what).text("path", path.display()).number("bytes", bytes)
}

fn stop_line(at: u64, why: impl ToString) -> Line {
    Line::new(1, "stop").number("at", at).text("why", why)
}

fn show_entry<'a>(
    file: &JournalFile,
    head: &EntryHead,
    sections: impl Iterator<Item = Section<'a>>,
    show: &mut Show<'_>,
) -> io::Result<()> {
    let header = head.header;
    show(
        Line::new(1, "entry")
            .number("at", header.position.0.checked_rem(file.size).unwrap_or(0))
            .number("position", header.position.0)
            .number("bytes", head.length as i128)
            .number("sequence", header.sequence.0)
            .number("durable", header.durable.0)
            .hex("nonce", header.nonce.0)
            .hex("previous", header.previous.0)
            .hex("checksum", head.checksum.0),
    )?;
    for section in sections {
        show(section_line(&section))?;
        if let Section::Produced(section) = section {
            section.batches().map(|batch| produced_line(Line::new(3, "produced"), &batch)).try_for_each(&mut *show)?;
        }
    }
    Ok(())
}

fn section_line(section: &Section<'_>) -> Line {
    match section {
        Section::Append { append, inline } => Line::new(2, "append")
            .text("partition", append.partition)
            .number("segment", append.segment_base.0)
            .number("base-offset", append.base_offset.0)
            .number("last-offset", append.last_offset.0)
            .number("inline-from", append.inline_from.0)
            .number("start", append.start.0)
            .number("direct-from", append.direct_from.0)
            .number("direct-to", append.direct_to.0)
            .number("end", append.end.0)
            .number("inline-bytes", inline.len() as i128)
            .number("leader-epoch", append.leader_epoch.0)
            .number("max-timestamp", append.max_timestamp.0)
            .hex("direct-crc", append.direct_crc),
        Section::Truncate(cut) => Line::new(2, "truncate")
            .text("partition", cut.partition)
            .number("to", cut.to.0)
            .number("segment", cut.segment_base.0)
            .number("position", cut.position.0),
        Section::Start(start) => {
            Line::new(2, "start").text("partition", start.partition).number("first", start.first.0)
        }
        Section::Epoch(epoch) => Line::new(2, "epoch")
            .text("partition", epoch.partition)
            .number("epoch", epoch.epoch.0)
            .number("start", epoch.start.0),
        Section::HighWatermark(mark) => {
            Line::new(2, "high-watermark").text("partition", mark.partition).number("offset", mark.offset.0)
        }
        Section::Produced(section) => Line::new(2, "producers")
            .text("partition", section.partition)
            .number("batches", section.batches().count() as i128),
    }
}

fn produced_line(line: Line, batch: &Produced) -> Line {
    line.number("producer", batch.producer.0)
        .number("epoch", batch.epoch.0)
        .number("sequence", batch.first.0)
        .number("base-offset", batch.base.0)
        .number("last-offset", batch.last.0)
        .number("at", batch.at.0)
}

fn show_checkpoint(bytes: &[u8], show: &mut Show<'_>) -> io::Result<()> {
    let header = match checkpoint::read_file_header(bytes) {
        Ok(header) => header,
        Err(error) => return show(stop_line(0, error)),
    };
    show(
        Line::new(1, "header")
            .number("sequence", header.sequence)
            .number("node", header.node)
            .number("generation", header.generation)
            .number("shard", header.shard.0)
            .hex("nonce", header.nonce.0),
    )?;
    let mut groups = Groups::of(bytes, &header);
    for group in groups.by_ref() {
        show(
            Line::new(1, "group")
                .number("at", group.this.position)
                .number("bytes", group.finished.length as i128)
                .number("sequence", group.this.sequence.0)
                .number("durable", group.this.durable.0)
                .hex("checksum", group.finished.checksum.0),
        )?;
        group.records().map(|record| record_line(&record)).try_for_each(&mut *show)?;
    }
    let (stopped, fault) = groups.stopped();
    match fault {
        _ if stopped.position == bytes.len().max(FILE_HEADER_BYTES) as u64 => {
            show(stop_line(stopped.position, "the end"))
        }
        Some(fault) => show(stop_line(stopped.position, fault)),
        None => Ok(()),
    }
}

fn record_line(record: &Record) -> Line {
    match record {
        Record::JournalFrom(from) => Line::new(2, "journal-from")
            .number("position", from.position.0)
            .number("sequence", from.sequence.0)
            .number("size", from.size)
            .hex("nonce", from.nonce.0)
            .hex("previous", from.previous.0),
        Record::Partition { partition, extent } => {
            extent_line(Line::new(2, "partition").text("partition", partition), extent)
        }
        Record::Sealed { partition, base, sealed } => {
            sealed_line(Line::new(2, "sealed").text("partition", partition).number("base", base.0), sealed)
        }
        Record::Rewritten { partition, base, sealed } => {
            let line = Line::new(2, "rewritten").text("partition", partition).number("base", base.0);
            sealed_line(line, sealed).number("rewrite", sealed.rewrite)
        }
        Record::Cleaned { partition, to } => Line::new(2, "cleaned").text("partition", partition).number("to", to.0),
        Record::Dropped { partition, below } => {
            Line::new(2, "dropped").text("partition", partition).number("below", below.0)
        }
        Record::EpochStart { partition, epoch, start } => {
            Line::new(2, "epoch-start").text("partition", partition).number("epoch", epoch.0).number("start", start.0)
        }
        Record::Truncated { partition, to } => {
            Line::new(2, "truncated").text("partition", partition).number("to", to.0)
        }
        Record::Fenced { partition, from } => {
            Line::new(2, "fenced").text("partition", partition).number("from", from.0)
        }
        Record::Produced { partition, batch } => {
            produced_line(Line::new(2, "produced").text("partition", partition), batch)
        }
        Record::Gone { partition } => Line::new(2, "gone").text("partition", partition),
    }
}

fn extent_line(line: Line, extent: &Extent) -> Line {
    line.number("first", extent.first.0)
        .number("next", extent.next.0)
        .number("high-watermark", extent.high_watermark.0)
        .number("segment", extent.segment_base.0)
        .number("end", extent.end.0)
        .number("max-timestamp", extent.max_timestamp.0)
        .number("leader-epoch", extent.leader_epoch.0)
        .text("replica", extent.replica)
}

fn sealed_line(line: Line, sealed: &Sealed) -> Line {
    line.number("last", sealed.last.0).number("end", sealed.end.0).number("max-timestamp", sealed.max_timestamp.0)
}

fn show_records(batch: &BatchView<'_>, show: &mut Show<'_>) -> io::Result<()> {
    let mut scratch = Vec::new();
    let records = match batch.records(&mut scratch, RECORDS_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => return show(Line::new(2, "stop").text("why", error)),
    };
    for record in records {
        match record {
            Ok(record) => show_record(&record, show)?,
            Err(error) => return show(Line::new(2, "stop").text("why", error)),
        }
    }
    Ok(())
}

fn show_record(record: &corelog_batch::Record<'_>, show: &mut Show<'_>) -> io::Result<()> {
    show(
        Line::new(2, "record")
            .number("offset", record.offset)
            .number("timestamp", record.timestamp)
            .bytes("key", record.key)
            .bytes("value", record.value),
    )?;
    let header = |header: corelog_batch::Header<'_>| {
        Line::new(3, "header").bytes("key", Some(header.key)).bytes("value", header.value)
    };
    record.headers.map(header).try_for_each(show)
}

fn show_index(bytes: &[u8], show: &mut Show<'_>) -> io::Result<()> {
    let (identity, index) = match index::decode(bytes) {
        Ok(decoded) => decoded,
        Err(fault) => return show(stop_line(0, fault)),
    };
    show(
        Line::new(1, "header")
            .text("partition", identity.partition)
            .number("base", identity.base.0)
            .number("end", identity.end.0)
            .number("max-timestamp", index.max_timestamp().0)
            .number("entries", index.entries().len() as i128),
    )?;
    index.entries().iter().try_for_each(|entry| {
        show(
            Line::new(2, "index-entry")
                .number("offset", entry.offset.0)
                .number("position", entry.position.0)
                .number("max-timestamp-before", entry.max_timestamp_before.0),
        )
    })
}

#[cfg(test)]
mod tests;
