use super::*;
use crate::log::testing::*;
use proptest::prelude::*;
use proptest::sample::Index;

fn header() -> FileHeader {
    FileHeader { nonce: Nonce(0x99aa), sequence: 12, generation: 3, node: 1, shard: ShardId(2) }
}

fn journal(sequence: u64) -> JournalFrom {
    JournalFrom {
        nonce: Nonce(0x1122_3344),
        size: 64 << 20,
        position: JournalPosition(sequence * BLOCK as u64),
        sequence: Sequence(sequence),
        previous: Checksum(0x0bad_cafe),
    }
}

fn extent(first: i64, segment_base: i64, next: i64) -> Extent {
    Extent {
        first: Offset(first),
        next: Offset(next),
        high_watermark: Offset(next),
        segment_base: Offset(segment_base),
        end: Position(4_000),
        max_timestamp: Timestamp(1_700_000_000_123),
        leader_epoch: LeaderEpoch(2),
        replica: Uuid::from_u128(0x5555),
    }
}

fn sealed(last: i64) -> Sealed {
    Sealed { last: Offset(last), end: Position(1 << 20), max_timestamp: Timestamp(1_600_000_000_000), rewrite: 0 }
}

/// A file written run by run, as the shard does.
struct Written {
    bytes: Vec<u8>,
    next: Next,
    /// After each completed checkpoint: the length of the file, and what it then says.
    completed: Vec<(usize, CheckpointState)>,
}

impl Written {
    fn new(header: &FileHeader) -> Self {
        let mut block = [0xee; FILE_HEADER_BYTES];
        write_file_header(header, &mut block);
        Written { bytes: block.to_vec(), next: Next::first(header), completed: Vec::new() }
    }

    fn group(&mut self, records: &[Record]) {
        let mut out = vec![0xee; 1 << 16];
        let mut group = GroupWriter::new(&mut out, &self.next);
        for record in records {
            group.push(record).unwrap();
        }
        let finished = group.finish();
        self.bytes.extend_from_slice(&out[..finished.length]);
        self.next = self.next.after(finished);
    }

    /// A run of as many groups as there are parts, the last completed by where the journal then is.
    fn checkpoint(&mut self, parts: &[Vec<Record>], from: JournalFrom) {
        let (last, others) = parts.split_last().unwrap();
        for part in others {
            self.group(part);
        }
        self.group(&[last.as_slice(), &[Record::JournalFrom(from)]].concat());
        self.next = self.next.synced();
        let state = replay(&self.bytes).unwrap().state;
        self.completed.push((self.bytes.len(), state));
    }

    /// What a file says that was cut off here.
    fn says(&self, length: usize) -> Option<&CheckpointState> {
        self.completed.iter().rfind(|(end, _)| *end <= length).map(|(_, state)| state)
    }
}

/// Four partitions are enough for records to meet.
fn any_record() -> impl Strategy<Value = Record> {
    let shape = (0u32..4, 0i64..50, 0i64..50, 0i64..50, 0i32..5);
    (shape, 0..10).prop_map(|((index, one, two, three, epoch), kind)| {
        let partition = partition(1, index);
        let epoch = LeaderEpoch(epoch);
        match kind {
            0 => Record::Sealed { partition, base: Offset(one), sealed: sealed(one + two) },
            1 => Record::Dropped { partition, below: Offset(one) },
            2 => Record::EpochStart { partition, epoch, start: Offset(one) },
            3 => Record::Truncated { partition, to: Offset(one) },
            4 => Record::Gone { partition },
            5 => Record::Fenced { partition, from: Offset(one) },
            6 => Record::Produced { partition, batch: produced(one % 4, 0, two as i32, two, three as u32 + 1) },
            7 => Record::Cleaned { partition, to: Offset(one) },
            8 => {
                let sealed = Sealed { rewrite: three as u32 + 1, ..sealed(one + two) };
                Record::Rewritten { partition, base: Offset(one), sealed }
            }
            _ => Record::Partition { partition, extent: extent(one, one + two, one + two + three) },
        }
    })
}

/// Those of any records that may be said in this order.
fn sayable(records: Vec<Record>, known: &mut BTreeMap<PartitionId, Offset>) -> Vec<Record> {
    let mut said = Vec::new();
    for record in records {
        let fits = match record {
            Record::Partition { partition, extent } => {
                known.insert(partition, extent.segment_base);
                true
            }
            Record::Gone { partition } => {
                known.remove(&partition);
                true
            }
            Record::Sealed { partition, base, .. } | Record::Rewritten { partition, base, .. } => {
                known.get(&partition).is_some_and(|active| base < *active)
            }
            Record::Dropped { partition, .. }
            | Record::Cleaned { partition, .. }
            | Record::EpochStart { partition, .. }
            | Record::Truncated { partition, .. }
            | Record::Fenced { partition, .. }
            | Record::Produced { partition, .. } => known.contains_key(&partition),
            Record::JournalFrom(_) => true,
        };
        if fits {
            said.push(record);
        }
    }
    said
}

fn any_written() -> impl Strategy<Value = Written> {
    let group = prop::collection::vec(any_record(), 0..60);
    let run = prop::collection::vec(group, 1..3);
    prop::collection::vec(run, 1..5).prop_map(|runs| {
        let mut written = Written::new(&header());
        let mut known = BTreeMap::new();
        for (number, run) in (1..).zip(runs) {
            let parts: Vec<_> = run.into_iter().map(|records| sayable(records, &mut known)).collect();
            written.checkpoint(&parts, journal(number));
        }
        written
    })
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, completed at {:?}", self.bytes.len(), self.completed)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_says_the_same(written in any_written(), blocks in 1usize..4) {
        let replayed = replay(&written.bytes).unwrap();
        prop_assert_eq!(replayed.tail, Tail::Clean);
        prop_assert_eq!(replayed.next, written.next);
        let fresh = FileHeader { nonce: Nonce(5), sequence: 13, ..header() };
        let (file, next) = snapshot(&replayed.state, &fresh, blocks * BLOCK);
        let again = replay(&file).unwrap();
        prop_assert_eq!(again, Replayed { header: fresh, state: replayed.state, next, tail: Tail::Clean });
    }

    #[test]
    fn a_prefix_says_what_was_completed_in_it(written in any_written(), cut: Index) {
        let cut = cut.index(written.bytes.len());
        match (replay(&written.bytes[..cut]), written.says(cut)) {
            (Ok(replayed), Some(state)) => prop_assert_eq!(&replayed.state, state),
            (Err(error), None) => prop_assert!(
                matches!(error, CheckpointError::NotACheckpoint | CheckpointError::Incomplete { .. }), "{}", error
            ),
            (replayed, state) => prop_assert!(false, "{replayed:?} is not {state:?}"),
        }
    }

    /// In all but the last checkpoint it is damage; the last one may as well be torn, and does not count.
    #[test]
    fn a_flipped_bit_is_told(mut written in any_written(), bit: Index) {
        let bit = bit.index(written.bytes.len() * 8);
        written.bytes[bit / 8] ^= 1 << (bit % 8);
        let before = written.completed.iter().rev().nth(1);
        let synced = before.map_or(FILE_HEADER_BYTES, |(end, _)| *end);
        match replay(&written.bytes) {
            Ok(replayed) => {
                prop_assert!(bit / 8 >= synced);
                prop_assert!(matches!(replayed.tail, Tail::Torn(_)));
                prop_assert_eq!(Some(&replayed.state), before.map(|(_, state)| state));
            }
            Err(CheckpointError::NotACheckpoint) => prop_assert!(bit / 8 < 4),
            Err(CheckpointError::HeaderDamaged) => prop_assert!((4..FILE_HEADER_BYTES).contains(&(bit / 8))),
            Err(CheckpointError::Damaged { at, .. }) => {
                prop_assert!((FILE_HEADER_BYTES..synced).contains(&(bit / 8)));
                prop_assert!(at as usize <= bit / 8);
            }
            Err(CheckpointError::Incomplete { .. }) => prop_assert!(written.completed.len() == 1),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// The last run was under way at the power cut, over what another file or an earlier try left in its blocks.
    #[test]
    fn a_torn_tail_does_not_count(
        written in any_written(),
        old in prop::collection::vec(1usize..200, 0..4),
        kept in any_arrival(),
        tried: bool,
    ) {
        let before = written.completed.iter().rev().nth(1);
        let (synced, next) = before.map_or((FILE_HEADER_BYTES, Next::first(&header())), |(end, _)| {
            (*end, replay(&written.bytes[..*end]).unwrap().next)
        });
        let nonce = if tried { next.nonce } else { Nonce(6) };
        let mut under = Written { bytes: Vec::new(), next: Next { nonce, ..next }, completed: Vec::new() };
        for records in old {
            under.group(&vec![Record::Gone { partition: partition(1, 0) }; records]);
        }
        let tail = torn(&under.bytes, &written.bytes[synced..], |at| kept[at % kept.len()]);
        let left = under.bytes.get(tail.len()..).unwrap_or(&[]);
        let bytes = [&written.bytes[..synced], &tail, left].concat();
        match replay(&bytes) {
            Ok(replayed) if bytes.starts_with(&written.bytes) => {
                prop_assert_eq!(Some(&replayed.state), written.completed.last().map(|(_, state)| state));
            }
            Ok(replayed) => prop_assert_eq!(Some(&replayed.state), before.map(|(_, state)| state)),
            Err(error) => {
                prop_assert!(before.is_none(), "{}", error);
                prop_assert!(matches!(error, CheckpointError::Incomplete { .. }), "{}", error);
            }
        }
    }

    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(replay(&bytes).is_err());
        let file = [&Written::new(&header()).bytes, bytes.as_slice()].concat();
        let incomplete = matches!(replay(&file), Err(CheckpointError::Incomplete { .. }));
        prop_assert!(incomplete);
    }
}

#[test]
fn every_flipped_bit_of_the_file_header_is_told() {
    let mut block = [0; FILE_HEADER_BYTES];
    write_file_header(&header(), &mut block);
    assert_eq!(read_file_header(&block), Ok(header()));
    for bit in 0..FILE_HEADER_BYTES * 8 {
        block[bit / 8] ^= 1 << (bit % 8);
        let error = if bit < 32 { CheckpointError::NotACheckpoint } else { CheckpointError::HeaderDamaged };
        assert_eq!(read_file_header(&block), Err(error), "bit {bit}");
        block[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut block = [0; FILE_HEADER_BYTES];
    write_file_header(&header(), &mut block);
    block[4] = 2;
    let checksum = Checksum::of(&block[..FILE_CHECKSUM_AT]);
    block[FILE_CHECKSUM_AT..].copy_from_slice(&checksum.0.to_le_bytes());
    assert_eq!(read_file_header(&block), Err(CheckpointError::UnknownVersion(2)));
}

/// Groups that no `JournalFrom` completed are written over, and must not be taken up by the checkpoint that does so.
#[test]
fn an_uncompleted_run_never_counts() {
    let id = partition(1, 0);
    let mut written = Written::new(&header());
    written.checkpoint(&[vec![Record::Partition { partition: id, extent: extent(0, 0, 5) }]], journal(1));
    let (length, next) = (written.bytes.len(), written.next);
    let state = replay(&written.bytes).unwrap().state;
    let other = partition(1, 1);
    written.group(&[Record::Gone { partition: id }]);
    written.group(&[Record::Partition { partition: other, extent: extent(0, 0, 1) }]);
    let replayed = replay(&written.bytes).unwrap();
    assert_eq!((replayed.state, replayed.next, replayed.tail), (state, next, Tail::Torn(Fault::Zeros)));

    // The next checkpoint takes their place and is cut short itself, in front of the second of them.
    let left = written.bytes.split_off(length);
    written.next = next;
    written.checkpoint(&[vec![Record::Partition { partition: id, extent: extent(0, 0, 9) }]], journal(2));
    let whole = [written.bytes.as_slice(), &left[BLOCK..]].concat();
    let replayed = replay(&whole).unwrap();
    assert_eq!(replayed.state, written.completed[1].1);
    assert_eq!(replayed.tail, Tail::Torn(Fault::ChainBroken));
    let mut cut = whole;
    cut[length..length + BLOCK].fill(0);
    assert_eq!(replay(&cut).unwrap().state, written.completed[0].1, "what is left of the first try proves nothing");
}

#[test]
fn a_record_of_an_unknown_partition_is_a_bug_that_is_told() {
    let mut written = Written::new(&header());
    written.group(&[Record::Truncated { partition: partition(1, 0), to: Offset(1) }, Record::JournalFrom(journal(1))]);
    let what = "a record of a partition that is not known";
    let fault = Fault::Malformed { at: 0, what };
    assert_eq!(replay(&written.bytes), Err(CheckpointError::Foreign { at: BLOCK as u64, fault }));
}

fn state_of(records: &[Record]) -> PartitionState {
    let mut written = Written::new(&header());
    written.checkpoint(&[records.to_vec()], journal(1));
    replay(&written.bytes).unwrap().state.partitions.remove(&partition(1, 0)).unwrap()
}

#[test]
fn segments_are_sealed_dropped_and_taken_up_again() {
    let id = partition(1, 0);
    let seal = |base, last| Record::Sealed { partition: id, base: Offset(base), sealed: sealed(last) };
    let records = [
        Record::Partition { partition: id, extent: extent(0, 30, 35) },
        seal(0, 9),
        seal(10, 19),
        seal(20, 29),
        Record::Dropped { partition: id, below: Offset(10) },
    ];
    let bases = |state: PartitionState| state.sealed.keys().map(|base| base.0).collect::<Vec<_>>();
    assert_eq!(bases(state_of(&records)), [10, 20]);
    let cut = [
        Record::Truncated { partition: id, to: Offset(25) },
        Record::Partition { partition: id, extent: extent(10, 20, 25) },
    ];
    assert_eq!(
        bases(state_of(&[records.as_slice(), &cut].concat())),
        [10],
        "the segment of the new end is active again"
    );
}

#[test]
fn epochs_follow_truncation_and_the_first_offset() {
    let id = partition(1, 0);
    let epoch = |epoch, start| Record::EpochStart { partition: id, epoch: LeaderEpoch(epoch), start: Offset(start) };
    let at = |first, next| Record::Partition { partition: id, extent: extent(first, first, next) };
    let epochs = |more: &[Record]| {
        let records = [&[at(0, 100), epoch(0, 0), epoch(2, 10), epoch(5, 40)], more].concat();
        state_of(&records).epochs.into_iter().map(|(epoch, start)| (epoch.0, start.0)).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&[]), [(0, 0), (2, 10), (5, 40)]);
    assert_eq!(epochs(&[at(10, 100)]), [(2, 10), (5, 40)]);
    assert_eq!(epochs(&[at(39, 100)]), [(2, 10), (5, 40)], "the epoch of the first record began before it");
    let cut = Record::Truncated { partition: id, to: Offset(40) };
    assert_eq!(epochs(&[cut]), [(0, 0), (2, 10)]);
    assert_eq!(epochs(&[epoch(6, 30)]), [(0, 0), (2, 10), (6, 30)], "what contradicts a new epoch goes");
    assert_eq!(epochs(&[epoch(2, 20)]), [(0, 0), (2, 20)]);
}

#[test]
fn a_fence_stays_until_the_log_is_cut_off_before_the_loss() {
    let id = partition(1, 0);
    let at = |next| Record::Partition { partition: id, extent: extent(0, 0, next) };
    let cut = |to| Record::Truncated { partition: id, to: Offset(to) };
    let fenced = |more: &[Record]| {
        let records = [&[at(50), Record::Fenced { partition: id, from: Offset(40) }], more].concat();
        state_of(&records).fenced
    };
    assert_eq!(fenced(&[]), Some(Offset(40)));
    assert_eq!(fenced(&[at(60)]), Some(Offset(40)));
    assert_eq!(fenced(&[cut(41), at(41)]), Some(Offset(40)));
    assert_eq!(fenced(&[cut(40), at(40)]), None);
}

#[test]
fn rules_hold_on_both_sides() {
    let partition = partition(1, 0);
    let with = |change: fn(&mut Extent)| {
        let mut extent = extent(3, 5, 9);
        change(&mut extent);
        Record::Partition { partition, extent }
    };
    assert_eq!(with(|_| ()).check(), Ok(()));
    let bad = [
        with(|extent| extent.first = Offset(-1)),
        with(|extent| extent.first = Offset(10)),
        with(|extent| extent.segment_base = Offset(10)),
        with(|extent| extent.high_watermark = Offset(10)),
        with(|extent| extent.high_watermark = Offset(-1)),
        Record::Sealed { partition, base: Offset(2), sealed: sealed(1) },
        Record::Dropped { partition, below: Offset(-1) },
        Record::Truncated { partition, to: Offset(-1) },
        Record::Fenced { partition, from: Offset(-1) },
        Record::EpochStart { partition, epoch: LeaderEpoch(-1), start: Offset(0) },
        Record::JournalFrom(JournalFrom { size: 0, ..journal(1) }),
        Record::JournalFrom(JournalFrom { position: JournalPosition(1), ..journal(1) }),
        Record::JournalFrom(journal(0)),
    ];
    for record in bad {
        assert!(record.check().is_err(), "{record:?}");
    }
}

#[test]
fn files_are_written_as_they_always_were() {
    let (one, two) = (partition(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7), partition(1, 0));
    let mut written = Written::new(&header());
    let records = vec![
        Record::Partition { partition: one, extent: extent(3, 20, 29) },
        Record::Sealed { partition: one, base: Offset(0), sealed: sealed(19) },
        Record::EpochStart { partition: one, epoch: LeaderEpoch(2), start: Offset(3) },
        Record::Partition { partition: two, extent: extent(0, 0, 1) },
    ];
    written.checkpoint(&[records], journal(41));
    let records = vec![
        Record::Dropped { partition: one, below: Offset(20) },
        Record::Truncated { partition: one, to: Offset(25) },
        Record::Partition { partition: one, extent: extent(20, 20, 25) },
        Record::Fenced { partition: one, from: Offset(24) },
        Record::Gone { partition: two },
    ];
    written.checkpoint(&[records], journal(50));
    let stored = golden("checkpoint-v1.bin", &written.bytes);
    let replayed = replay(&stored).unwrap();
    assert_eq!(replayed.header, header());
    assert_eq!(replayed.state.journal, journal(50));
    let epochs = BTreeMap::from([(LeaderEpoch(2), Offset(3))]);
    let state = PartitionState { epochs, fenced: Some(Offset(24)), ..PartitionState::new(extent(20, 20, 25)) };
    assert_eq!(replayed.state.partitions, BTreeMap::from([(one, state)]));
}

#[test]
fn producers_are_written_as_they_always_were() {
    let one = partition(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7);
    let mut written = Written::new(&header());
    let batches = [produced(77, 3, i32::MAX, 3, 10), produced(1 << 40, 0, 0, 13, 1), produced(77, 3, 9, 14, 2)];
    let of = |batch: &Produced| Record::Produced { partition: one, batch: *batch };
    let begin = Record::Partition { partition: one, extent: extent(3, 20, 25) };
    written.checkpoint(&[std::iter::once(begin).chain(batches.iter().map(of)).collect()], journal(50));
    let stored = golden("checkpoint-producers-v1.bin", &written.bytes);
    let replayed = replay(&stored).unwrap();
    let windows = &replayed.state.partitions[&one].producers;
    assert!(
        windows[&ProducerId(77)]
            .batches(ProducerId(77))
            .eq([batches[0], batches[2]].map(|batch| Produced { at: batches[2].at, ..batch }))
    );
    assert!(windows[&ProducerId(1 << 40)].batches(ProducerId(1 << 40)).eq([batches[1]]));
}

#[test]
fn what_compaction_did_is_written_as_it_always_was() {
    let one = partition(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7);
    let mut written = Written::new(&header());
    let seal = |base, last| Record::Sealed { partition: one, base: Offset(base), sealed: sealed(last) };
    let rewritten = Sealed { rewrite: 3, ..sealed(29) };
    let begin = Record::Partition { partition: one, extent: extent(0, 40, 45) };
    written.checkpoint(&[vec![begin, seal(0, 9), seal(10, 19), seal(20, 29), seal(30, 39)]], journal(50));
    let compacted = vec![
        Record::Rewritten { partition: one, base: Offset(10), sealed: rewritten },
        Record::Cleaned { partition: one, to: Offset(27) },
    ];
    written.checkpoint(&[compacted], journal(51));
    let replayed = replay(&golden("checkpoint-compaction-v1.bin", &written.bytes)).unwrap();
    let state = &replayed.state.partitions[&one];
    let expected = [(Offset(0), sealed(9)), (Offset(10), rewritten), (Offset(30), sealed(39))];
    assert_eq!((&state.sealed, state.cleaned), (&BTreeMap::from(expected), Offset(27)));
    let no_name = Record::Rewritten { partition: one, base: Offset(10), sealed: sealed(29) };
    let sealed_late = Record::Sealed { partition: one, base: Offset(10), sealed: rewritten };
    assert!(no_name.check().is_err() && sealed_late.check().is_err());
}
