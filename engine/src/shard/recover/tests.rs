//! Every case of the table in `log/recovery.rs` that is decided by reading: a directory is written as a crash left it,
//! and read in the simulator.

use super::*;
use crate::log::BLOCK as BLOCK_BYTES;
use crate::log::checkpoint::{Extent, FileHeader, GroupWriter, Next as NextGroup, PartitionState, Record, snapshot};
use crate::log::journal::{EntryHeader, EntryWriter, Start, unflushed_max};
use crate::log::testing::partition;
use crate::model::{LeaderEpoch, Offset, PartitionId, Position, ShardId, Timestamp};
use crate::reactor::sim::{World, WorldOptions};
use crate::shard::suite;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const DATA: &str = "data";
const ENTRY_BYTES_MAX: usize = 3 << 20;
const JOURNAL_BYTES: usize = 8 << 20;

/// A shard's directory, and one segment.
struct Disk {
    journal: Vec<u8>,
    next: Expected,
    /// The partition's next offset and the end of its segment.
    end: (Offset, Position),
    /// What every entry says of itself, and where it lies.
    entries: Vec<(Expected, usize)>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// What was read, as far as the tests look at it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    entries: u64,
    damaged: bool,
    next: Offset,
    fenced: Option<String>,
}

fn id() -> PartitionId {
    partition(1, 0)
}

fn directory() -> PathBuf {
    paths::shard(Path::new(DATA), 0, ShardId(0))
}

fn config() -> ShardConfig {
    ShardConfig {
        journal_bytes: JOURNAL_BYTES as u64,
        entry_bytes_max: ENTRY_BYTES_MAX,
        ..suite::config(Path::new(DATA))
    }
}

fn header(nonce: u64, sequence: u64) -> FileHeader {
    FileHeader { nonce: Nonce(nonce), sequence, generation: 0, node: 1, shard: ShardId(0) }
}

impl Disk {
    fn new() -> Self {
        let next =
            Expected { nonce: Nonce(5), sequence: Sequence(1), position: JournalPosition(0), previous: Checksum(0) };
        let end = (Offset(0), Position(0));
        let mut disk = Disk { journal: vec![0; JOURNAL_BYTES], next, end, entries: Vec::new(), files: BTreeMap::new() };
        disk.checkpoint(1);
        disk
    }

    fn extent(&self) -> Extent {
        Extent {
            first: Offset(0),
            next: self.end.0,
            high_watermark: self.end.0,
            segment_base: Offset(0),
            end: self.end.1,
            max_timestamp: Timestamp(-1),
            leader_epoch: LeaderEpoch(0),
            replica: Uuid::nil(),
        }
    }

    fn journal_from(&self) -> JournalFrom {
        let Expected { nonce, sequence, position, previous } = self.next;
        JournalFrom { nonce, size: JOURNAL_BYTES as u64, position, sequence, previous }
    }

    /// A checkpoint file of this number that says how things are now.
    fn checkpoint(&mut self, number: u64) -> NextGroup {
        let state = PartitionState::new(self.extent());
        let state = CheckpointState { journal: self.journal_from(), partitions: BTreeMap::from([(id(), state)]) };
        let (file, next) = snapshot(&state, &header(number, number), BLOCK_BYTES);
        self.files.insert(directory().join(paths::checkpoint_name(number)), file);
        next
    }

    /// A commit of one append of so many bytes; `direct` blocks of it went to the segment.
    fn commit(&mut self, bytes: u64, direct: u64, lag: u64) {
        let start = self.end.1;
        let end = start.plus(bytes + direct * BLOCK);
        let (direct_from, direct_to) = match direct {
            0 => (end, end),
            _ => {
                assert!(start.0.is_multiple_of(BLOCK));
                (start, start.plus(direct * BLOCK))
            }
        };
        let blocks = vec![self.next.sequence.0 as u8; (direct * BLOCK) as usize];
        let append = AppendSection {
            partition: id(),
            segment_base: Offset(0),
            base_offset: self.end.0,
            last_offset: self.end.0,
            inline_from: start,
            start,
            direct_from,
            direct_to,
            end,
            leader_epoch: LeaderEpoch(0),
            max_timestamp: Timestamp(7),
            direct_crc: if direct == 0 { 0 } else { Checksum::of(&blocks).0 },
        };
        if direct > 0 {
            self.files.insert(paths::segment(Path::new(DATA), id(), Offset(0)), blocks);
        }
        self.end = (self.end.0.plus(1), end);
        self.entry(bytes, lag, |writer| {
            writer.append(&append).unwrap().fill(3);
        });
    }

    fn entry(&mut self, bytes: u64, lag: u64, say: impl FnOnce(&mut EntryWriter<'_>)) {
        let Expected { nonce, sequence, position, previous } = self.next;
        let durable = Sequence((sequence.0 - 1).saturating_sub(lag));
        let mut buffer = vec![0; crate::log::round_up(bytes as usize + 1000)];
        let mut writer = EntryWriter::new(&mut buffer, EntryHeader { nonce, sequence, position, previous, durable });
        say(&mut writer);
        let finished = writer.finish();
        for (at, byte) in buffer[..finished.length].iter().enumerate() {
            self.journal[(position.0 as usize + at) % JOURNAL_BYTES] = *byte;
        }
        self.entries.push((self.next, finished.length));
        self.next = Expected {
            nonce,
            sequence: sequence.next(),
            position: position.plus(finished.length as u64),
            previous: finished.checksum,
        };
    }

    /// Changes the bytes of an entry in the journal.
    fn spoil(&mut self, sequence: u64, change: impl FnOnce(&mut [u8])) {
        let (entry, length) = self.entries[sequence as usize - 1];
        let at = entry.position.0 as usize % JOURNAL_BYTES;
        change(&mut self.journal[at..at + length]);
    }

    fn read_with(mut self, config: ShardConfig, must_exist: bool) -> Result<Read, ShardError> {
        if !self.journal.is_empty() {
            self.files.insert(directory().join(paths::JOURNAL), self.journal);
        }
        let world = World::new(1, WorldOptions::default());
        let node = world.add_node("n");
        let told = Rc::new(RefCell::new(None));
        let (result, files) = (told.clone(), self.files);
        world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
            for (path, bytes) in files {
                write(&reactor, &path, &bytes).await;
            }
            let memory = OwnMemory::set_aside(&reactor, &config).unwrap();
            let found = Reader::new(&reactor, &memory, &config, directory()).read(must_exist).await;
            *result.borrow_mut() = Some(found.map(|found| read(&found)));
        });
        assert!(world.run_until(Duration::from_secs(100), || !world.is_up(node)), "it ends");
        told.take().unwrap()
    }

    fn read(self) -> Result<Read, ShardError> {
        self.read_with(config(), true)
    }

    /// Reading goes well, as far as this many entries.
    #[track_caller]
    fn reads(self, entries: u64, next: i64) {
        let read = self.read().unwrap();
        assert_eq!(read, Read { entries, damaged: false, next: Offset(next), fenced: None });
    }

    #[track_caller]
    fn refuses(self, why: &str) {
        let error = self.read().unwrap_err();
        assert!(matches!(error, ShardError::Damaged { .. }) && error.to_string().contains(why), "{error}");
    }
}

fn read(found: &Found) -> Read {
    let partition = found.recovery.partitions.get(&id());
    Read {
        entries: found.entries,
        damaged: found.damaged,
        next: partition.map_or(Offset(-1), |recovered| recovered.state.extent.next),
        fenced: partition.and_then(|recovered| recovered.fenced.clone()),
    }
}

async fn write(reactor: &Reactor, path: &Path, bytes: &[u8]) {
    let above: Vec<_> = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
    for above in above.into_iter().rev() {
        reactor.create_dir(above).await.unwrap();
    }
    let file = reactor.open(path, Open::Create).await.unwrap();
    for (at, piece) in (0..).step_by(1 << 20).zip(bytes.chunks(1 << 20)) {
        let mut buffer = reactor.pool().buffer(piece.len()).unwrap();
        buffer[..piece.len()].copy_from_slice(piece);
        file.write_at(at, buffer.freeze(), WriteSync::None).await.unwrap();
    }
}

/// Makes the checksums of an entry fit what it now holds.
fn reseal(entry: &mut [u8]) {
    let body = Checksum::of(&entry[64..]).0;
    entry[56..60].copy_from_slice(&body.to_le_bytes());
    let header = Checksum::of(&entry[..60]).0;
    entry[60..64].copy_from_slice(&header.to_le_bytes());
}

/// A whole checkpoint (A), entries that continue the chain (D), and zeros behind them (E). With an entry limit of megabytes,
/// as it is by default: what proves the last ones is looked for further on than is kept in memory at once.
#[test]
fn entries_behind_the_checkpoint_are_replayed() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.commit(2_500_000, 0, 1);
    disk.commit(100, 0, 1);
    disk.reads(3, 3);
}

#[test]
fn entries_before_the_checkpoint_are_not_read() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.checkpoint(2);
    disk.commit(100, 0, 1);
    disk.reads(1, 2);
}

#[test]
fn case_b_an_uncompleted_checkpoint_does_not_count() {
    let mut disk = Disk::new();
    let next = disk.checkpoint(2);
    disk.commit(100, 0, 1);
    let mut group = vec![0; BLOCK_BYTES];
    let mut writer = GroupWriter::new(&mut group, &next);
    writer.push(&Record::Gone { partition: id() }).unwrap();
    let _ = writer.finish();
    disk.files.get_mut(&directory().join("checkpoint-2")).unwrap().extend(group);
    disk.reads(1, 1);
}

#[test]
fn case_c_a_checkpoint_file_that_is_not_in_place_does_not_count() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.files.insert(directory().join("checkpoint-9.new"), vec![1; BLOCK_BYTES]);
    disk.reads(1, 1);
}

/// The journal has gone around: what comes next is of the lap before.
#[test]
fn case_e_an_earlier_lap_is_the_end() {
    let mut disk = Disk::new();
    for _ in 0..6 {
        disk.commit(2_500_000, 0, 1);
    }
    disk.checkpoint(2);
    disk.commit(100, 0, 1);
    disk.commit(100, 0, 1);
    disk.reads(2, 8);
}

#[test]
fn case_f_a_torn_entry_is_cut_off() {
    for spoil in [0, 10, 62, 100] {
        let mut disk = Disk::new();
        disk.commit(100, 0, 1);
        disk.commit(5000, 0, 1);
        disk.spoil(2, |entry| entry[spoil] ^= 1);
        disk.reads(1, 1);
    }
    // Its successor arrived; when that was built the first of them was not known durable.
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.commit(5000, 0, 1);
    disk.commit(100, 0, 1);
    disk.spoil(2, |entry| entry.fill(0));
    disk.reads(1, 1);
}

#[test]
fn case_g_a_damaged_entry_fences() {
    for spoil in [0, 10, 62, 100] {
        let mut disk = Disk::new();
        disk.commit(100, 0, 1);
        disk.commit(2_900_000, 0, 1);
        disk.commit(2_900_000, 0, 1);
        disk.commit(100, 0, 1);
        disk.spoil(2, |entry| entry[spoil] ^= 1);
        let read = disk.read().unwrap();
        assert_eq!((read.entries, read.damaged, read.next), (1, true, Offset(1)));
        let why = read.fenced.unwrap();
        assert!(why.contains("entry 2 was acknowledged (entry 4 says so)"), "{why}");
    }
}

/// Entries of topics that ask for no flush claim nothing new, nor does one that was built during the flush.
#[test]
fn case_g_after_a_long_stretch_without_a_flush() {
    const ENTRY: u64 = 300_000;
    for damaged in [2, 5] {
        let mut disk = Disk::new();
        let small = ShardConfig { entry_bytes_max: 320 << 10, ..config() };
        let stretch = unflushed_max(small.entry_bytes_max) as u64 / ENTRY + 1;
        disk.commit(100, 0, 0);
        for unflushed in 0..stretch {
            disk.commit(ENTRY, 0, unflushed);
        }
        // The one that is flushed, the one beside it, and the one that says so.
        disk.commit(ENTRY, 0, stretch);
        disk.commit(ENTRY, 0, stretch + 1);
        disk.commit(100, 0, 1);
        disk.spoil(damaged, |entry| entry[100] ^= 1);
        let read = disk.read_with(small, true).unwrap();
        assert_eq!((read.entries, read.damaged), (damaged - 1, true));
    }
}

#[test]
fn case_h_what_the_checkpoint_has_is_skipped() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.commit(100, 0, 1);
    let ahead = disk.end;
    let mut behind = Disk::new();
    behind.end = ahead;
    behind.checkpoint(1);
    disk.files = behind.files;
    disk.commit(100, 0, 1);
    disk.reads(3, 3);
}

#[test]
fn case_i_a_gap_fences() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.end.0 = disk.end.0.plus(1);
    disk.commit(100, 0, 1);
    let read = disk.read().unwrap();
    assert_eq!((read.damaged, read.next), (false, Offset(1)));
    assert!(read.fenced.unwrap().contains("continues at offset 2, the log ends at 1"));
}

#[test]
fn case_j_what_a_newer_program_wrote_is_refused() {
    let spoiled = |change: fn(&mut [u8])| {
        let mut disk = Disk::new();
        disk.commit(100, 0, 1);
        disk.spoil(1, change);
        disk
    };
    let version = |entry: &mut [u8]| {
        entry[4] = 2;
        reseal(entry);
    };
    spoiled(version).refuses("version 2 is not known");
    let section = |entry: &mut [u8]| {
        entry[64] = 99;
        reseal(entry);
    };
    spoiled(section).refuses("section kind 99");
    let malformed = |entry: &mut [u8]| {
        entry[66] = 1;
        reseal(entry);
    };
    spoiled(malformed).refuses("a section's header");
    let length = |entry: &mut [u8]| {
        entry[42] = 0xff;
        reseal(entry);
    };
    spoiled(length).refuses("lengths");
}

#[test]
fn case_k_direct_blocks_that_did_not_arrive_are_torn() {
    let segment = paths::segment(Path::new(DATA), id(), Offset(0));
    let direct = |spoil: bool| {
        let mut disk = Disk::new();
        disk.commit(0, 3, 1);
        if spoil {
            disk.files.get_mut(&segment).unwrap()[5000] ^= 1;
        }
        disk
    };
    direct(false).reads(1, 1);
    direct(true).reads(0, 0);
    let mut short = direct(false);
    short.files.get_mut(&segment).unwrap().truncate(BLOCK_BYTES);
    short.reads(0, 0);
    // Known durable: not torn. That it is damaged is told where it is read, by the batch's own checksum.
    let mut proven = direct(true);
    proven.commit(100, 0, 0);
    proven.reads(2, 2);
}

#[test]
fn case_m_what_somebody_removed_is_missed() {
    let mut disk = Disk::new();
    disk.files.clear();
    disk.refuses("checkpoint file is missing");
    let mut disk = Disk::new();
    disk.journal.clear();
    disk.refuses("it is missing");
    let mut fresh = Disk::new();
    (fresh.files, fresh.journal) = (BTreeMap::from([(directory().join("other"), vec![0; BLOCK_BYTES])]), Vec::new());
    let read = fresh.read_with(config(), false).unwrap();
    assert_eq!(read, Read { entries: 0, damaged: false, next: Offset(-1), fenced: None });
}

/// A journal is made anew in another size only after a checkpoint that needs nothing of it.
#[test]
fn case_n_a_journal_of_another_length_is_damaged_unless_nothing_was_written_to_it() {
    for length in [JOURNAL_BYTES + BLOCK_BYTES, JOURNAL_BYTES - BLOCK_BYTES, BLOCK_BYTES] {
        let mut written = Disk::new();
        written.commit(100, 0, 0);
        written.journal.resize(length, 0);
        let read = written.read_with(config(), true).unwrap();
        assert!(read.damaged && read.fenced.is_some(), "{length}: {read:?}");

        let mut checkpointed = Disk::new();
        checkpointed.commit(100, 0, 0);
        checkpointed.checkpoint(2);
        checkpointed.journal.resize(length, 0);
        let read = checkpointed.read_with(config(), true).unwrap();
        assert!(read.damaged && read.fenced.is_some(), "{length}: {read:?}");

        let mut unwritten = Disk::new();
        unwritten.journal.resize(length, 0);
        let read = unwritten.read_with(config(), true).unwrap();
        assert!(!read.damaged && read.fenced.is_none(), "{length}: {read:?}");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let mut disk = Disk::new();
    disk.files.get_mut(&directory().join("checkpoint-1")).unwrap()[5000] ^= 1;
    disk.refuses("it has no completed checkpoint");
}

#[test]
fn a_first_offset_is_replayed() {
    let mut disk = Disk::new();
    disk.commit(100, 0, 1);
    disk.commit(100, 0, 1);
    disk.entry(0, 1, |writer| writer.start(&Start { partition: id(), first: Offset(1) }).unwrap());
    disk.reads(3, 2);
}
