use super::*;
use crate::data_dir::LOCK;
use crate::log::checkpoint::{CheckpointState, FileHeader, JournalFrom, PartitionState, snapshot};
use crate::log::frame::{Checksum, Nonce, Sequence};
use crate::log::index::{Identity, SparseIndex};
use crate::log::journal::{AppendSection, EntryHeader, EntryWriter, Start};
use crate::log::testing::{golden, partition as id};
use crate::metadata::{MetadataRecord, TopicInfo, TopicName, TopicSettings};
use crate::model::{LeaderEpoch, PartitionId, Position, ShardId, Timestamp, TopicId};
use corelog_batch::{BatchBuilder, Codec, stamp};
use std::collections::BTreeMap;
use tempfile::TempDir;
use uuid::Uuid;

const TOPIC: u128 = 0xabc;
const JOURNAL_BLOCKS: usize = 64;
const NONCE: Nonce = Nonce(0x7777);

/// A data directory with a metadata log of one topic, and of its partition 0 a sealed segment with its index, an active
/// segment that the checkpoint knows in part, and a journal with what came after.
struct DataDir {
    temp: TempDir,
    journal: Vec<u8>,
    next: Expected,
}

fn batch(base: Offset, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, Codec::None);
    for value in values {
        builder.append(None, Some(value), &[], 1_700_000_000_000 + base.0).unwrap();
    }
    let mut bytes = builder.build().unwrap();
    stamp(bytes.first_chunk_mut().unwrap(), base.0, 0);
    bytes
}

/// Batches of one record each.
fn batches(base: i64, count: i64, bytes: usize) -> Vec<Vec<u8>> {
    (base..base + count).map(|offset| batch(Offset(offset), &[vec![offset as u8; bytes]])).collect()
}

fn state(segment_base: i64, next: i64, end: u64) -> PartitionState {
    let extent = Extent {
        first: Offset(0),
        next: Offset(next),
        high_watermark: Offset(next),
        segment_base: Offset(segment_base),
        end: Position(end),
        max_timestamp: Timestamp(1_700_000_000_000 + next),
        leader_epoch: LeaderEpoch(0),
        replica: Uuid::nil(),
    };
    PartitionState::new(extent)
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(round_up(bytes.len() + 1), 0);
    bytes
}

impl DataDir {
    fn new() -> Self {
        let next =
            Expected { nonce: NONCE, sequence: Sequence(1), position: JournalPosition(0), previous: Checksum(0) };
        let mut dir = DataDir { temp: TempDir::new().unwrap(), journal: vec![0; JOURNAL_BLOCKS * BLOCK], next };
        let node = NodeFile { cluster_id: Uuid::from_u128(5), node_id: 1, generation: 0, shards: 1 };
        write(&dir.root().join(NODE), node.to_text().as_bytes());
        write(&dir.root().join(LOCK), b"");

        let metadata = dir.metadata(&[MetadataRecord::TopicCreated(topic())]);
        let mut clicks = state(40, 42, 0);
        let sealed = batches(0, 40, 300);
        let end = dir.segment(partition(), Offset(0), &sealed);
        dir.index(&sealed);
        clicks.sealed.insert(
            Offset(0),
            Sealed { last: Offset(39), end, max_timestamp: Timestamp(1_700_000_000_039), rewrite: 0 },
        );
        clicks.extent.end = dir.segment(partition(), Offset(40), &batches(40, 2, 100));
        dir.checkpoint(BTreeMap::from([(METADATA, metadata), (partition(), clicks.clone())]));
        // Two commits of bytes that only the journal has, and two with blocks that are in the segment.
        let mut end = clicks.extent.end;
        for (offset, bytes) in [(42, 100), (43, 10_000), (44, 10_000), (45, 100)] {
            end = dir.commit(Offset(offset), end, bytes);
        }
        dir.write_journal();
        dir
    }

    fn root(&self) -> &Path {
        self.temp.path()
    }

    fn shard(&self) -> PathBuf {
        paths::shard(self.root(), 0, ShardId(0))
    }

    fn metadata(&self, records: &[MetadataRecord]) -> PartitionState {
        let value = |record: &MetadataRecord| {
            let mut value = Vec::new();
            record.encode(&mut value);
            value
        };
        let values: Vec<_> = records.iter().map(value).collect();
        let end = self.segment(METADATA, Offset(0), &[batch(Offset(0), &values)]);
        state(0, records.len() as i64, end.0)
    }

    fn segment(&self, id: PartitionId, base: Offset, batches: &[Vec<u8>]) -> Position {
        let bytes = batches.concat();
        let end = Position(bytes.len() as u64);
        write(&paths::segment(self.root(), id, base), &padded(bytes));
        end
    }

    fn index(&self, batches: &[Vec<u8>]) {
        let (mut index, mut position) = (SparseIndex::new(Offset(0)), Position(0));
        for (offset, batch) in (0..).zip(batches) {
            index.note(Offset(offset), position, Timestamp(1_700_000_000_000 + offset));
            position = position.plus(batch.len() as u64);
        }
        let mut file = vec![0; index::FILE_BYTES_MAX];
        let length = index.encode(&Identity { partition: partition(), base: Offset(0), end: position }, &mut file);
        write(&paths::index(self.root(), partition(), Offset(0)), &file[..length]);
    }

    fn checkpoint(&self, partitions: BTreeMap<PartitionId, PartitionState>) {
        let Expected { nonce, sequence, position, previous } = self.next;
        let size = self.journal.len() as u64;
        let state = CheckpointState { journal: JournalFrom { nonce, size, position, sequence, previous }, partitions };
        let header = FileHeader { nonce: Nonce(9), sequence: 1, generation: 0, node: 1, shard: ShardId(0) };
        let (file, _) = snapshot(&state, &header, BLOCK);
        write(&self.shard().join(paths::checkpoint_name(1)), &file);
    }

    /// Appends one batch to the active segment: whole blocks of it directly, the rest by the journal alone.
    fn commit(&mut self, offset: Offset, start: Position, bytes: usize) -> Position {
        let batch = batch(offset, &[vec![offset.0 as u8; bytes]]);
        let end = start.plus(batch.len() as u64);
        let block = BLOCK as u64;
        let (from, to) = (start.0.next_multiple_of(block), end.0 / block * block);
        let (direct_from, direct_to) = if from < to { (Position(from), Position(to)) } else { (end, end) };
        let direct = &batch[(direct_from.0 - start.0) as usize..(direct_to.0 - start.0) as usize];
        let append = AppendSection {
            partition: partition(),
            segment_base: Offset(40),
            base_offset: offset,
            last_offset: offset,
            inline_from: start,
            start,
            direct_from,
            direct_to,
            end,
            leader_epoch: LeaderEpoch(0),
            max_timestamp: Timestamp(1_700_000_000_000 + offset.0),
            direct_crc: if direct.is_empty() { 0 } else { Checksum::of(direct).0 },
        };
        self.edit(&self.active(), |file| {
            file.resize(file.len().max(round_up(end.0 as usize)), 0);
            file[direct_from.0 as usize..direct_to.0 as usize].copy_from_slice(direct);
        });
        let inline =
            [&batch[..(direct_from.0 - start.0) as usize], &batch[(direct_to.0 - start.0) as usize..]].concat();
        self.entry(&append, &inline);
        end
    }

    /// Begins a segment with one batch, by the journal alone.
    fn roll(&mut self, offset: Offset) {
        let batch = batch(offset, &[vec![1; 100]]);
        let end = Position(batch.len() as u64);
        let append = AppendSection {
            partition: partition(),
            segment_base: offset,
            base_offset: offset,
            last_offset: offset,
            inline_from: Position(0),
            start: Position(0),
            direct_from: end,
            direct_to: end,
            end,
            leader_epoch: LeaderEpoch(0),
            max_timestamp: Timestamp(1_700_000_000_000 + offset.0),
            direct_crc: 0,
        };
        self.entry(&append, &batch);
    }

    fn entry(&mut self, append: &AppendSection, inline: &[u8]) {
        self.entry_of(|entry| entry.append(append).unwrap().copy_from_slice(inline));
    }

    fn entry_of(&mut self, sections: impl FnOnce(&mut EntryWriter<'_>)) {
        let Expected { nonce, sequence, position, previous } = self.next;
        let durable = Sequence(sequence.0.saturating_sub(2));
        let at = position.0 as usize;
        let header = EntryHeader { nonce, sequence, position, previous, durable };
        let mut entry = EntryWriter::new(&mut self.journal[at..], header);
        sections(&mut entry);
        let finished = entry.finish();
        self.next = Expected {
            nonce,
            sequence: sequence.next(),
            position: position.plus(finished.length as u64),
            previous: finished.checksum,
        };
    }

    fn write_journal(&self) {
        write(&self.shard().join(paths::JOURNAL), &self.journal);
    }

    fn active(&self) -> PathBuf {
        paths::segment(self.root(), partition(), Offset(40))
    }

    fn sealed(&self) -> PathBuf {
        paths::segment(self.root(), partition(), Offset(0))
    }

    fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    fn verify(&self) -> (Vec<Finding>, Summary) {
        findings(self.root())
    }

    /// The one thing that is found.
    #[track_caller]
    fn finds(&self, severity: Severity, path: &Path, what: &str) -> Finding {
        let (findings, summary) = self.verify();
        let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
        assert_eq!((finding.severity, finding.path.as_path()), (severity, path), "{finding}");
        assert!(finding.what.contains(what), "{finding}");
        assert_eq!(summary.is_sound(), severity == Severity::Note);
        finding.clone()
    }
}

fn findings(path: &Path) -> (Vec<Finding>, Summary) {
    let mut findings = Vec::new();
    let mut report = |finding| {
        findings.push(finding);
        Ok(())
    };
    let summary = verify(path, &mut report).unwrap();
    (findings, summary)
}

const METADATA: PartitionId = PartitionId { topic: TopicId::METADATA, index: crate::model::PartitionIndex(0) };

fn partition() -> PartitionId {
    id(TOPIC, 0)
}

fn topic() -> TopicInfo {
    let settings = TopicSettings::default();
    let name = TopicName::parse("clicks").unwrap();
    TopicInfo { id: TopicId(Uuid::from_u128(TOPIC)), name, partitions: 1, placement: 0, settings }
}

#[test]
fn a_sound_directory_has_no_findings() {
    let dir = DataDir::new();
    let (findings, summary) = dir.verify();
    assert_eq!(findings, []);
    let Summary { partitions, segments, batches, indexes, journal_entries, checkpoint_groups, .. } = summary;
    assert_eq!((partitions, segments, batches, indexes), (2, 3, 1 + 40 + 6, 1));
    assert_eq!((journal_entries, checkpoint_groups), (4, 1));
    assert!(summary.is_sound());
}

#[test]
fn parts_are_held_against_their_directory() {
    let dir = DataDir::new();
    let count = |path: &Path| {
        let (found, summary) = findings(path);
        assert_eq!(found, [], "{}", path.display());
        (summary.segments, summary.batches, summary.indexes, summary.journal_entries, summary.checkpoint_groups)
    };
    assert_eq!(count(&dir.shard()), (0, 0, 0, 4, 1));
    assert_eq!(count(&dir.shard().join("journal")), (0, 0, 0, 4, 1));
    assert_eq!(count(&dir.shard().join("checkpoint-1")), (0, 0, 0, 0, 1));
    assert_eq!(count(&paths::partition(dir.root(), partition())), (2, 46, 1, 0, 0));
    assert_eq!(count(paths::partition(dir.root(), partition()).parent().unwrap()), (2, 46, 1, 0, 0));
    assert_eq!(count(&dir.active()), (1, 6, 0, 0, 0), "four of them are in the journal in part or whole");
    assert_eq!(count(&paths::index(dir.root(), partition(), Offset(0))), (1, 40, 1, 0, 0));
}

#[test]
fn a_flipped_bit_anywhere_in_acknowledged_records_is_found() {
    for at in [3, 15, 16, 20, 70, 5000] {
        let dir = DataDir::new();
        dir.edit(&dir.sealed(), |bytes| bytes[at] ^= 1);
        let finding = dir.finds(Severity::Error, &dir.sealed(), "to 39 cannot be read");
        assert!(finding.at.unwrap() <= at as u64);
    }
}

#[test]
fn a_batch_that_does_not_unpack_is_found() {
    let dir = DataDir::new();
    dir.edit(&dir.sealed(), |bytes| {
        let batch = &mut bytes[11 * 370..12 * 370];
        batch[22] = corelog_batch::Codec::Gzip.code();
        let crc = corelog_batch::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    });
    let finding = dir.finds(Severity::Error, &dir.sealed(), "offsets 11 to 11 are as they were sent");
    assert_eq!(finding.at, Some(11 * 370));
    assert!(finding.what.contains("gzip"), "{finding}");
}

#[test]
fn missing_and_short_segments_are_found() {
    let dir = DataDir::new();
    fs::remove_file(dir.sealed()).unwrap();
    let missing = dir.finds(Severity::Error, &dir.sealed(), "it is missing");
    assert!(missing.remedy.steps().contains("what is in the segments behind it"), "{missing}");
    let dir = DataDir::new();
    dir.edit(&dir.sealed(), |bytes| bytes.truncate(4096));
    let finding = dir.finds(Severity::Error, &dir.sealed(), "from offset 11 to 39");
    assert_eq!(finding.at, Some(11 * 370));
}

#[test]
fn a_segment_removed_after_the_checkpoint_is_not_missed() {
    let mut dir = DataDir::new();
    let first = Offset(40);
    dir.entry_of(|entry| entry.start(&Start { partition: partition(), first }).unwrap());
    dir.write_journal();
    fs::remove_file(dir.sealed()).unwrap();
    fs::remove_file(paths::index(dir.root(), partition(), Offset(0))).unwrap();
    let (findings, summary) = dir.verify();
    assert!(summary.is_sound(), "{findings:#?}");
}

#[test]
fn a_segment_that_the_journal_has_is_made_again() {
    let mut dir = DataDir::new();
    dir.roll(Offset(46));
    dir.write_journal();
    let path = paths::segment(dir.root(), partition(), Offset(46));
    let finding = dir.finds(Severity::Note, &path, "the journal has all of it");
    assert_eq!((finding.remedy, finding.risk), (Remedy::Carried, Risk::None));
}

/// As the next start takes it: it makes the journal again without a word.
#[test]
fn a_journal_of_another_length_that_nothing_was_written_to_is_no_damage() {
    let dir = DataDir::new();
    let path = dir.shard().join("journal");
    write(&path, &vec![0; (JOURNAL_BLOCKS - 1) * BLOCK]);
    let finding = dir.finds(Severity::Note, &path, "its checkpoint says");
    assert_eq!((finding.remedy, finding.risk), (Remedy::Unwritten, Risk::None));
    dir.write_journal();
    dir.edit(&path, |bytes| bytes.truncate((JOURNAL_BLOCKS - 1) * BLOCK));
    assert_eq!(dir.finds(Severity::Error, &path, "its checkpoint says").remedy, Remedy::OtherJournal);
}

#[test]
fn an_index_is_held_against_its_segment() {
    let dir = DataDir::new();
    let path = paths::index(dir.root(), partition(), Offset(0));
    let whole = fs::read(&path).unwrap();
    dir.edit(&path, |bytes| bytes[100] ^= 1);
    dir.finds(Severity::Warning, &path, "checksum");
    // The second entry's position, with a checksum that fits.
    let mut astray = whole;
    astray[64 + 24 + 8] ^= 4;
    let (covered, checksum) = astray.split_last_chunk_mut::<4>().unwrap();
    *checksum = Checksum::of(covered).0.to_le_bytes();
    fs::write(&path, astray).unwrap();
    dir.finds(Severity::Error, &path, "leads astray");
    fs::remove_file(&path).unwrap();
    assert_eq!(dir.verify().0, [], "a missing one is built again");
}

#[test]
fn an_index_of_another_segment_is_found() {
    let dir = DataDir::new();
    let path = paths::index(dir.root(), partition(), Offset(0));
    let mut file = vec![0; index::FILE_BYTES_MAX];
    let length = SparseIndex::new(Offset(0))
        .encode(&Identity { partition: id(TOPIC, 1), base: Offset(0), end: Position(5) }, &mut file);
    fs::write(&path, &file[..length]).unwrap();
    dir.finds(Severity::Warning, &path, "it is of partition");
}

#[test]
fn a_damaged_checkpoint_and_a_damaged_node_file_are_found() {
    let dir = DataDir::new();
    let path = dir.shard().join("checkpoint-1");
    dir.edit(&path, |bytes| bytes[5000] ^= 1);
    let (found, _) = dir.verify();
    assert!(found.iter().any(|finding| finding.severity == Severity::Error && finding.path == path), "{found:#?}");
    let dir = DataDir::new();
    dir.edit(&dir.root().join(NODE), |bytes| bytes[80] ^= 1);
    let (found, _) = dir.verify();
    assert_eq!((found[0].severity, &found[0].path), (Severity::Error, &dir.root().join(NODE)));
}

#[test]
fn a_missing_node_file_is_found() {
    let dir = DataDir::new();
    fs::remove_file(dir.root().join(NODE)).unwrap();
    let finding = dir.finds(Severity::Error, &dir.root().join(NODE), "its node file is missing");
    assert_eq!(finding.remedy, Remedy::RestoreNode);
    let (found, _) = findings(&paths::partition(dir.root(), partition()));
    assert!(found[0].what.contains("may concern it"), "{found:?}");
    fs::remove_dir_all(paths::topics(dir.root())).unwrap();
    let refused = verify(dir.root(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(refused, DumpError::Unrecognised { .. }), "{refused}");
}

#[test]
fn what_a_crash_cut_short_is_a_note() {
    let mut dir = DataDir::new();
    let last = dir.next.position.0 as usize - 100;
    dir.journal[last] ^= 1;
    dir.write_journal();
    let torn = dir.finds(Severity::Note, &dir.shard().join("journal"), "entry 4 was cut short");
    assert!(torn.advice.contains("if no crash came before, it is damage"), "{torn}");
    let dir = DataDir::new();
    dir.edit(&dir.shard().join("checkpoint-1"), |bytes| bytes.extend([7; 100]));
    dir.finds(Severity::Note, &dir.shard().join("checkpoint-1"), "a checkpoint was cut short");
}

#[test]
fn a_damaged_entry_is_told_from_a_torn_one() {
    for at in [0, 10, 70] {
        let mut dir = DataDir::new();
        dir.journal[at] ^= 1;
        dir.write_journal();
        let journal = dir.shard().join("journal");
        let finding = dir.finds(Severity::Error, &journal, "entry 1 was acknowledged (entry 3 says so) and is damaged");
        assert_eq!(finding.at, Some(0));
    }
}

/// What the damaged entry and those behind it told of is not known: nothing may be called superfluous.
#[test]
fn beside_a_damaged_journal_a_later_segment_is_to_be_kept() {
    let mut dir = DataDir::new();
    let later = paths::segment(dir.root(), partition(), Offset(99));
    write(&later, &padded(batch(Offset(99), &[vec![1; 100]])));
    assert_eq!(dir.finds(Severity::Note, &later, "do not know it").risk, Risk::None);
    dir.journal[70] ^= 1;
    dir.write_journal();
    for asked in [dir.root().to_owned(), paths::partition(dir.root(), partition()), later.clone()] {
        let (found, _) = findings(&asked);
        let of_it = found.iter().find(|finding| finding.path == later).unwrap_or_else(|| panic!("{found:#?}"));
        assert_eq!((of_it.remedy, of_it.risk), (Remedy::Unproven, Risk::AtRisk), "{asked:?}: {of_it}");
    }
}

#[test]
fn beside_a_damaged_journal_a_partition_that_no_shard_knows_is_to_be_kept() {
    let mut dir = DataDir::new();
    write(&paths::segment(dir.root(), id(TOPIC, 5), Offset(0)), b"");
    let directory = paths::partition(dir.root(), id(TOPIC, 5));
    assert_eq!(dir.finds(Severity::Note, &directory, "its topic was deleted").remedy, Remedy::NextStart);
    dir.journal[70] ^= 1;
    dir.write_journal();
    let (found, _) = dir.verify();
    let of_it = found.iter().find(|finding| finding.path == directory).unwrap_or_else(|| panic!("{found:#?}"));
    assert!(of_it.remedy == Remedy::Unproven && of_it.what.contains("its topic may be what is lost"), "{of_it}");
}

#[test]
fn blocks_that_an_entry_left_to_the_segment_are_looked_at() {
    // Entry 2 is known durable by entry 4, entry 3 is not.
    for (block, severity) in [(4096, Severity::Error), (2 * 4096 + 4096, Severity::Note)] {
        let dir = DataDir::new();
        dir.edit(&dir.active(), |bytes| bytes[block + 10] ^= 1);
        dir.finds(severity, &dir.active(), "wrote here is not here");
    }
}

#[test]
fn an_index_that_was_not_written_whole_is_no_damage() {
    let dir = DataDir::new();
    let path = paths::index(dir.root(), partition(), Offset(0));
    let length = fs::metadata(&path).unwrap().len() as usize;
    for short in [0, length] {
        fs::write(&path, vec![0; short]).unwrap();
        dir.finds(Severity::Note, &path, "a crash cut its writing short");
    }
}

#[test]
fn a_segment_of_which_all_records_were_deleted_need_not_be_there() {
    let dir = DataDir::new();
    let metadata = dir.metadata(&[MetadataRecord::TopicCreated(topic())]);
    let end = batches(40, 2, 100).concat().len() as u64;
    fs::remove_file(dir.sealed()).unwrap();
    fs::remove_file(paths::index(dir.root(), partition(), Offset(0))).unwrap();
    for (first, severity) in [(40, None), (39, Some(Severity::Error))] {
        let mut clicks = state(40, 42, end);
        clicks.extent.first = Offset(first);
        let sealed = Sealed {
            last: Offset(39),
            end: Position(40 * 370),
            max_timestamp: Timestamp(1_700_000_000_039),
            rewrite: 0,
        };
        clicks.sealed.insert(Offset(0), sealed);
        dir.checkpoint(BTreeMap::from([(METADATA, metadata.clone()), (partition(), clicks)]));
        let found = dir.verify().0;
        assert_eq!(found.first().map(|finding| finding.severity), severity, "{found:#?}");
    }
}

#[test]
fn what_nobody_knows_is_a_note() {
    let dir = DataDir::new();
    let stray = paths::segment(dir.root(), partition(), Offset(99));
    write(&stray, b"");
    assert_eq!(
        dir.finds(Severity::Note, &stray, "do not know it").advice,
        "a server writes over it when a segment begins there"
    );
    fs::remove_file(stray).unwrap();
    let foreign = paths::partition(dir.root(), partition()).join("notes.txt");
    write(&foreign, b"mine");
    let finding = dir.finds(Severity::Note, &foreign, "none of corelog's files");
    assert!(finding.advice.starts_with("a server leaves it alone"), "{finding:?}");
    fs::remove_file(foreign).unwrap();
    let alone = verify(&paths::partition(dir.root(), partition()), &mut |_| Ok(())).unwrap();
    assert_eq!(alone.partitions, 1);
    let unknown = paths::segment(dir.root(), id(TOPIC, 5), Offset(0));
    write(&unknown, b"");
    dir.finds(Severity::Note, unknown.parent().unwrap(), "no shard knows");
    fs::remove_file(unknown).unwrap();
    let old = paths::shard(dir.root(), 7, ShardId(0));
    fs::create_dir_all(&old).unwrap();
    dir.finds(Severity::Note, &old, "not in force");
}

/// A crash came between the record that deleted the topic and the end of its removal.
#[test]
fn the_rest_of_a_deleted_topic_is_a_note() {
    let dir = DataDir::new();
    let id = TopicId(Uuid::from_u128(TOPIC));
    let records = [MetadataRecord::TopicCreated(topic()), MetadataRecord::TopicDeleted { id }];
    let metadata = dir.metadata(&records);
    dir.checkpoint(BTreeMap::from([(METADATA, metadata), (partition(), state(0, 10, 1000))]));
    fs::remove_file(dir.shard().join("journal")).unwrap();
    write(&dir.shard().join("journal"), &vec![0; JOURNAL_BLOCKS * BLOCK]);
    dir.finds(Severity::Note, &paths::partition(dir.root(), partition()), "its topic was deleted");
}

/// A fenced metadata log cannot be copied, and a topic that it does not have may only have been lost with its end.
#[test]
fn what_a_fenced_metadata_log_does_not_know_is_to_be_kept() {
    let dir = DataDir::new();
    let mut metadata = dir.metadata(&[MetadataRecord::TopicCreated(topic())]);
    metadata.fenced = Some(Offset(1));
    let hidden = id(TOPIC + 1, 0);
    let end = dir.segment(hidden, Offset(0), &batches(0, 10, 100));
    dir.checkpoint(BTreeMap::from([(METADATA, metadata), (hidden, state(0, 10, end.0))]));
    write(&dir.shard().join("journal"), &vec![0; JOURNAL_BLOCKS * BLOCK]);
    let (found, _) = dir.verify();
    let [fenced, kept, ..] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((fenced.partition, fenced.remedy, fenced.risk), (Some(METADATA), Remedy::FencedMetadata, Risk::Lost));
    assert!(fenced.remedy.steps().contains("their files are kept"), "{fenced}");
    assert_eq!((kept.partition, kept.remedy, kept.risk), (Some(hidden), Remedy::Unproven, Risk::AtRisk));
}

#[test]
fn damage_that_may_concern_a_part_is_told_with_it() {
    let dir = DataDir::new();
    dir.edit(&dir.shard().join("journal"), |bytes| bytes[200] ^= 1);
    let (_, whole) = dir.verify();
    assert!(!whole.is_sound());
    let directory = paths::partition(dir.root(), partition());
    let (found, summary) = findings(&directory);
    assert!(!summary.is_sound() && found[0].what.contains("may concern it"), "{found:?}");
    // A copy of what is sealed by itself: what is there is checked.
    let copy = tempfile::tempdir().unwrap();
    for name in list(&directory).unwrap().into_iter().filter(|name| name.starts_with("00000000000000000000.")) {
        fs::copy(directory.join(&name), copy.path().join(&name)).unwrap();
    }
    let (found, summary) = findings(copy.path());
    assert!(summary.is_sound() && found[0].what.contains("only what is there"), "{found:?}");
    assert_eq!(summary.indexes, 1);
    let index = list(copy.path()).unwrap().into_iter().find(|name| name.ends_with(".index")).unwrap();
    fs::write(copy.path().join(index), "garbage").unwrap();
    assert!(!findings(copy.path()).1.is_sound());
}

#[test]
fn a_kept_copy_of_a_journal_is_shown() {
    let dir = DataDir::new();
    let copy = dir.root().join("journal.damaged-shards-1-0-7");
    fs::copy(dir.shard().join("journal"), &copy).unwrap();
    let count = |wanted: &str| {
        let mut count = 0;
        let mut show = |line: Line| {
            count += u32::from(line.what == wanted);
            Ok(())
        };
        dump(&copy, Options::default(), &mut show).unwrap();
        count
    };
    assert_eq!((count("entry"), count("stop")), (4, 0));
    assert_eq!(findings(&copy).1.journal_entries, 4);
    dir.edit(&copy, |bytes| bytes[200] ^= 1);
    assert_eq!((count("entry"), count("stop")), (3, 1), "where it is damaged is shown");
}

#[test]
fn a_running_server_is_left_alone() {
    let dir = DataDir::new();
    let lock = fs::File::open(dir.root().join(LOCK)).unwrap();
    lock.lock().unwrap();
    let refused = verify(dir.root(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(refused, DumpError::InUse { .. }), "{refused}");
}

#[test]
fn paths_are_recognised() {
    let dir = DataDir::new();
    let kind = |path: &Path| recognise(path).unwrap();
    assert_eq!(kind(dir.root()), Kind::DataDir);
    assert_eq!(kind(&dir.shard()), Kind::Shard);
    assert_eq!(kind(&dir.shard().join("journal")), Kind::Journal);
    assert_eq!(kind(dir.active().parent().unwrap()), Kind::Partition);
    assert_eq!(kind(dir.active().parent().unwrap().parent().unwrap()), Kind::Topic);
    assert!(matches!(recognise(&dir.root().join("lock")), Err(DumpError::Unrecognised { .. })));
    assert!(matches!(recognise(&dir.root().join("topics")), Err(DumpError::Unrecognised { .. })));
    assert!(matches!(recognise(&dir.root().join("nothing")), Err(DumpError::Io { .. })));
}

/// Every line of every golden file, as text and as JSON.
#[test]
fn a_dump_is_as_it_always_was() {
    let temp = TempDir::new().unwrap();
    let copy = |name: &str, to: &str| {
        let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        fs::copy(stored, temp.path().join(to)).unwrap();
    };
    copy("journal-v1.bin", "journal");
    copy("segment-v1.bin", "00000000000000000040.log");
    copy("index-v1.bin", "00000000000000001000.index");
    let checkpoints = temp.path().join("other");
    fs::create_dir(&checkpoints).unwrap();
    copy("checkpoint-v1.bin", "other/checkpoint-12");
    let mut text = String::new();
    let mut show = |line: Line| {
        text += &format!("{line}\n");
        Ok(())
    };
    for name in ["journal", "00000000000000000040.log", "00000000000000001000.index", "other/checkpoint-12"] {
        dump(&temp.path().join(name), Options { records: true }, &mut show).unwrap();
    }
    let text = text.replace(temp.path().to_str().unwrap(), "");
    golden("dump-v1.txt", text.as_bytes());
}

#[test]
fn a_whole_directory_is_dumped() {
    let dir = DataDir::new();
    let mut count = BTreeMap::new();
    let mut show = |line: Line| {
        *count.entry(line.what).or_insert(0) += 1;
        Ok(())
    };
    dump(dir.root(), Options::default(), &mut show).unwrap();
    assert_eq!((count["node"], count["checkpoint"], count["journal"], count["entry"]), (1, 1, 1, 4));
    // Of the active segment what is in the file: the two batches of the checkpoint.
    assert_eq!((count["segment"], count["batch"], count["index"]), (3, 43, 1));
}

#[test]
fn an_output_that_fails_ends_the_dump() {
    let dir = DataDir::new();
    let mut left = 50;
    let mut show = |_| {
        left -= 1;
        if left > 0 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::BrokenPipe)) }
    };
    let ended = dump(dir.root(), Options::default(), &mut show).unwrap_err();
    assert!(matches!(ended, DumpError::Output(_)), "{ended}");
    assert_eq!(left, 0);
}

#[test]
fn no_byte_of_a_record_is_lost_in_json() {
    let line = Line::new(2, "record").number("offset", 1).bytes("key", None).bytes("value", Some(b"\xff\x00"));
    assert_eq!(line.to_string(), "    record  offset 1  key null  value \"\\xff\\x00\"");
    let json = serde_json::to_string(&line).unwrap();
    assert_eq!(json, r#"{"what":"record","offset":1,"key":null,"value":{"hex":"ff00"}}"#);
}

/// Larger than the windows in which a segment is read, with batches across their edges.
#[test]
fn a_large_segment_is_read_in_windows() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("00000000000000000000.log");
    let bytes = batches(0, 90, 99_991).concat();
    fs::write(&path, padded(bytes.clone())).unwrap();
    let (found, summary) = findings(&path);
    assert_eq!((found, summary.batches, summary.batch_bytes), (vec![], 90, bytes.len() as u64));
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (found, summary) = findings(&path);
    assert_eq!((found.len(), summary.batches), (1, 89));
}
