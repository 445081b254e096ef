use super::*;
use crate::log::testing::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// A section with the bytes that go with it.
#[derive(Debug, Clone)]
enum Said {
    Append(AppendSection, Vec<u8>),
    Truncate(Truncate),
    Start(Start),
    Epoch(Epoch),
    HighWatermark(HighWatermark),
    /// The batches as they are written.
    Produced(PartitionId, Vec<u8>),
}

fn batches(of: &[Produced]) -> Vec<u8> {
    let mut bytes = vec![0; of.len() * PRODUCED_BYTES];
    for (batch, into) in of.iter().zip(bytes.chunks_mut(PRODUCED_BYTES)) {
        Put::into(into).produced(batch);
    }
    bytes
}

impl Said {
    fn section(&self) -> Section<'_> {
        match self {
            Said::Append(append, inline) => Section::Append { append: *append, inline },
            Said::Truncate(cut) => Section::Truncate(*cut),
            Said::Start(start) => Section::Start(*start),
            Said::Epoch(epoch) => Section::Epoch(*epoch),
            Said::HighWatermark(mark) => Section::HighWatermark(*mark),
            Said::Produced(partition, batches) => Section::Produced(ProducedSection { partition: *partition, batches }),
        }
    }

    fn write(&self, entry: &mut EntryWriter<'_>) -> Result<(), Full> {
        match self {
            Said::Append(append, inline) => entry.append(append)?.copy_from_slice(inline),
            Said::Truncate(cut) => entry.truncate(cut)?,
            Said::Start(start) => entry.start(start)?,
            Said::Epoch(epoch) => entry.epoch(epoch)?,
            Said::HighWatermark(mark) => entry.high_watermark(mark)?,
            Said::Produced(partition, batches) => {
                let section = ProducedSection { partition: *partition, batches };
                entry.produced(*partition, section.batches().collect::<Vec<_>>().into_iter())?;
            }
        }
        Ok(())
    }
}

fn header(sequence: u64) -> EntryHeader {
    EntryHeader {
        nonce: Nonce(0x1122_3344_5566_7788),
        sequence: Sequence(sequence),
        position: JournalPosition(3 * BLOCK as u64),
        previous: Checksum(0xabcd_ef01),
        durable: Sequence(sequence - 1),
    }
}

fn expected(header: &EntryHeader) -> Expected {
    let EntryHeader { nonce, sequence, position, previous, .. } = *header;
    Expected { nonce, sequence, position, previous }
}

fn entry(header: EntryHeader, said: &[Said]) -> (Vec<u8>, Checksum) {
    let mut out = vec![0xee; 1 << 20];
    let mut writer = EntryWriter::new(&mut out, header);
    for section in said {
        section.write(&mut writer).unwrap();
    }
    let Finished { length, checksum } = writer.finish();
    out.truncate(length);
    (out, checksum)
}

/// An append that begins `into` bytes into a block, with `direct` whole blocks in the segment.
fn append(into: u64, carried: bool, head: u64, direct: u64, tail: u64) -> AppendSection {
    let block = BLOCK as u64;
    let start = Position(7 * block + into);
    let aligned = Position(start.0.next_multiple_of(block) + (head / block) * block);
    let (direct_from, direct_to, end) = match direct {
        0 => (start.plus(head + tail), start.plus(head + tail), start.plus(head + tail)),
        blocks => (aligned, aligned.plus(blocks * block), aligned.plus(blocks * block + tail)),
    };
    AppendSection {
        partition: partition(9, 4),
        segment_base: Offset(100),
        base_offset: Offset(170),
        last_offset: Offset(175),
        inline_from: if carried { Position(7 * block) } else { start },
        start,
        direct_from,
        direct_to,
        end,
        leader_epoch: LeaderEpoch(3),
        max_timestamp: Timestamp(1_700_000_000_123),
        direct_crc: if direct == 0 { 0 } else { 0x0102_0304 },
    }
}

fn any_append() -> impl Strategy<Value = AppendSection> {
    let shape = (0u64..4096, any::<bool>(), 1u64..9000, 0u64..3, 0u64..9000);
    let who = (any_partition(), any_offset(), 0i64..1000, 0u32..1000, any_epoch(), any_timestamp());
    (shape, who, any::<u32>()).prop_map(|(shape, who, crc)| {
        let (into, carried, head, direct, tail) = shape;
        let (partition, segment_base, gap, records, leader_epoch, max_timestamp) = who;
        let base_offset = Offset(segment_base.0 + gap);
        AppendSection {
            partition,
            segment_base,
            base_offset,
            last_offset: base_offset.plus(records),
            leader_epoch,
            max_timestamp,
            direct_crc: if direct == 0 { 0 } else { crc },
            ..append(into, carried, head, direct, tail)
        }
    })
}

fn any_said() -> impl Strategy<Value = Said> {
    let small = (any_partition(), any_offset(), 0i64..1000, any_position(), any_epoch());
    prop_oneof![
        4 => (any_append(), any::<u8>()).prop_map(|(append, byte)| {
            let inline = (0..append.inline_len()).map(|at| byte.wrapping_add(at as u8)).collect();
            Said::Append(append, inline)
        }),
        1 => (small, 0..4).prop_map(|((partition, offset, more, position, epoch), which)| match which {
            0 => Said::Truncate(Truncate {
                partition,
                to: Offset(offset.0 + more),
                segment_base: offset,
                position,
            }),
            1 => Said::Start(Start { partition, first: offset }),
            2 => Said::Epoch(Epoch { partition, epoch, start: offset }),
            _ => Said::HighWatermark(HighWatermark { partition, offset }),
        }),
        1 => (any_partition(), prop::collection::vec(any_produced(), 1..9))
            .prop_map(|(partition, of)| Said::Produced(partition, batches(&of))),
    ]
}

fn any_content() -> impl Strategy<Value = Vec<Said>> {
    prop::collection::vec(any_said(), 0..6)
}

/// Makes the checksums fit whatever the frame now holds.
fn reseal(bytes: &mut [u8]) {
    let body = Checksum::of(&bytes[frame::HEADER_BYTES..]).0;
    bytes[56..60].copy_from_slice(&body.to_le_bytes());
    let header = Checksum::of(&bytes[..60]).0;
    bytes[60..64].copy_from_slice(&header.to_le_bytes());
}

proptest! {
    #[test]
    fn an_entry_comes_back(said in any_content(), sequence in 1u64..) {
        let header = header(sequence);
        let (bytes, checksum) = entry(header, &said);
        let parsed = parse(&bytes, &expected(&header)).unwrap();
        let sections: Vec<_> = said.iter().map(Said::section).collect();
        prop_assert_eq!(parsed.sections().collect::<Vec<_>>(), sections);
        prop_assert_eq!(parsed.head, EntryHead { header, length: bytes.len(), checksum });
        prop_assert_eq!(peek(&bytes[..BLOCK]), Some(parsed.head));
    }

    #[test]
    fn a_prefix_is_told(said in any_content(), cut: Index) {
        let header = header(5);
        let (bytes, _) = entry(header, &said);
        let cut = cut.index(bytes.len());
        let needs = if cut < frame::HEADER_BYTES { BLOCK } else { bytes.len() };
        let fault = parse(&bytes[..cut], &expected(&header)).unwrap_err();
        prop_assert_eq!(fault, EntryFault::Short { needs });
    }

    #[test]
    fn a_flipped_bit_is_told(said in any_content(), bit: Index) {
        let header = header(5);
        let (mut bytes, _) = entry(header, &said);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let fault = parse(&bytes, &expected(&header)).unwrap_err();
        prop_assert_eq!(fault, fault_of_flip(bit / 8));
    }

    /// Whatever was there before: zeros, an entry of an earlier lap, or the middle of one.
    #[test]
    fn a_torn_entry_is_told(said in any_content(), before in any_content(), shift in 0usize..2, kept in any_arrival()) {
        let header = header(500);
        let (new, _) = entry(header, &said);
        let earlier = EntryHeader { sequence: Sequence(400), durable: Sequence(398), ..header };
        let old = entry(earlier, &before).0.split_off(shift * BLOCK);
        let bytes = torn(&old, &new, |at| kept[at % kept.len()]);
        match parse(&bytes, &expected(&header)) {
            Ok(_) => prop_assert_eq!(bytes, new),
            Err(fault) => prop_assert!(!fault.is_foreign(), "{}", fault),
        }
    }

    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(parse(&bytes, &expected(&header(5))).is_err());
        prop_assert_eq!(peek(&bytes), None);
    }

    /// As a program with a bug would write it: every checksum fits and the content is anything.
    #[test]
    fn any_content_is_harmless(said in any_content(), changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let header = header(5);
        let (mut bytes, _) = entry(header, &said);
        for (at, byte) in changes {
            // Mostly where the structure is, in the first few hundred bytes.
            let at = 40 + at.index(bytes.len().min(600) - 40);
            bytes[at] = byte;
        }
        reseal(&mut bytes);
        match parse(&bytes, &expected(&header)) {
            Ok(entry) => for section in entry.sections() {
                check_small(&section).unwrap();
            },
            Err(fault) => prop_assert!(
                fault.is_foreign() || matches!(fault, EntryFault::Short { .. } | EntryFault::ChainBroken | EntryFault::BodyChecksum),
                "{}", fault
            ),
        }
    }
}

fn fault_of_flip(byte: usize) -> EntryFault {
    match byte {
        0..4 => EntryFault::NotAFrame,
        4..64 => EntryFault::HeaderChecksum,
        _ => EntryFault::BodyChecksum,
    }
}

#[test]
fn every_flipped_bit_of_a_small_entry_is_told() {
    let (mut bytes, _) = entry(header(5), &example());
    assert_eq!(bytes.len(), BLOCK);
    for bit in 0..BLOCK * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let fault = parse(&bytes, &expected(&header(5))).unwrap_err();
        assert_eq!(fault, fault_of_flip(bit / 8), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn an_entry_is_taken_only_where_it_is_expected() {
    let (bytes, _) = entry(header(5), &example());
    let right = expected(&header(5));
    let fault = |expected: Expected| parse(&bytes, &expected).unwrap_err();
    let other = Nonce(right.nonce.0 + 1);
    assert_eq!(fault(Expected { nonce: other, ..right }), EntryFault::OtherNonce(right.nonce));
    let later = Sequence(6);
    assert_eq!(fault(Expected { sequence: later, ..right }), EntryFault::OtherSequence(Sequence(5)));
    let elsewhere = JournalPosition(0);
    assert_eq!(fault(Expected { position: elsewhere, ..right }), EntryFault::OtherPosition(right.position.0));
    assert_eq!(fault(Expected { previous: Checksum(1), ..right }), EntryFault::ChainBroken);
    assert_eq!(parse(&[0; BLOCK], &right).unwrap_err(), EntryFault::Zeros);
}

#[test]
fn what_a_newer_program_wrote_is_told_from_damage() {
    let (written, _) = entry(header(5), &example());
    let fault = |change: fn(&mut [u8])| {
        let mut bytes = written.clone();
        change(&mut bytes);
        reseal(&mut bytes);
        parse(&bytes, &expected(&header(5))).unwrap_err()
    };
    assert_eq!(fault(|bytes| bytes[4] = 2), EntryFault::UnknownVersion(2));
    let at = frame::HEADER_BYTES;
    assert_eq!(fault(|bytes| bytes[64] = 9), EntryFault::UnknownSection { kind: 9, version: 1, at });
    assert_eq!(fault(|bytes| bytes[65] = 2), EntryFault::UnknownSection { kind: 1, version: 2, at });
    assert_eq!(written.len(), BLOCK);
    assert!(matches!(fault(|bytes| bytes[BLOCK - 1] = 1), EntryFault::Malformed { .. }), "padding");
    assert_eq!(fault(|bytes| bytes[41] = 0), EntryFault::Length, "shorter than a block");
    assert_eq!(fault(|bytes| bytes[42] = 1), EntryFault::Length, "longer than its use");
}

/// A reader holds an append to each rule; only one is broken at a time.
#[test]
fn an_append_that_breaks_a_rule_is_refused() {
    let good = append(100, true, 50, 2, 30);
    assert_eq!(good.check(), Ok(()));
    let block = BLOCK as u64;
    let bad = [
        AppendSection { segment_base: Offset(-1), ..good },
        AppendSection { segment_base: Offset(171), ..good },
        AppendSection { last_offset: Offset(169), ..good },
        AppendSection { last_offset: Offset(170 + (1 << 32)), ..good },
        AppendSection { inline_from: good.start.plus(1), ..good },
        AppendSection { inline_from: Position(good.start.0 - 1), ..good },
        AppendSection { inline_from: Position(6 * block), ..good },
        AppendSection { direct_from: good.direct_from.plus(1), ..good },
        AppendSection { direct_to: good.direct_to.plus(1), ..good },
        AppendSection { direct_to: good.direct_from, ..good },
        AppendSection { direct_from: Position(7 * block), ..good },
        AppendSection { end: Position(good.direct_to.0 - 1), ..good },
        AppendSection { end: good.end.plus(1 << 32), ..good },
        AppendSection { direct_crc: 1, ..append(100, true, 50, 0, 30) },
        AppendSection { end: good.start, direct_from: good.start, direct_to: good.start, direct_crc: 0, ..good },
    ];
    for append in bad {
        assert!(append.check().is_err(), "{append:?}");
    }
}

#[test]
fn an_append_fits_the_bounds_of_its_section() {
    const { assert!(SECTION_HEADER_BYTES + APPEND_BYTES <= 96) };
    let append = append(0, false, 10, 0, 0);
    let mut out = [0; BLOCK];
    let mut entry = EntryWriter::new(&mut out, header(1));
    while entry.room() >= append.section_len() {
        entry.append(&append).unwrap();
    }
    let room = entry.room();
    assert_eq!(entry.append(&append), Err(Full));
    assert_eq!(entry.room(), room, "a refused section leaves no trace");
    assert_eq!(entry.finish().length, BLOCK);
}

/// A circular journal as the committer and the kernel would leave it after a power cut.
struct Circle {
    file: Vec<u8>,
    next: Expected,
    written: Vec<(Expected, usize)>,
}

impl Circle {
    fn new(blocks: usize) -> Self {
        let next =
            Expected { nonce: Nonce(77), sequence: Sequence(1), position: JournalPosition(0), previous: Checksum(0) };
        Circle { file: vec![0; blocks * BLOCK], next, written: Vec::new() }
    }

    fn put(&mut self, position: JournalPosition, bytes: &[u8], kept: impl Fn(usize) -> bool) {
        let size = self.file.len();
        let at = position.0 as usize % size;
        let old: Vec<u8> = (0..bytes.len()).map(|byte| self.file[(at + byte) % size]).collect();
        for (byte, value) in torn(&old, bytes, kept).into_iter().enumerate() {
            self.file[(at + byte) % size] = value;
        }
    }

    /// Builds the next entry with `bytes` of content; `lag` of those before it are not durable yet.
    fn write(&mut self, bytes: u64, lag: u64, kept: impl Fn(usize) -> bool) {
        let Expected { nonce, sequence, position, previous } = self.next;
        let durable = Sequence((sequence.0 - 1).saturating_sub(lag));
        let append = append(0, false, bytes, 0, 0);
        let said = Said::Append(append, vec![sequence.0 as u8; bytes as usize]);
        let (entry, checksum) = entry(EntryHeader { nonce, sequence, position, previous, durable }, &[said]);
        self.put(position, &entry, kept);
        self.written.push((self.next, entry.len()));
        self.next = Expected {
            nonce,
            sequence: sequence.next(),
            position: position.plus(entry.len() as u64),
            previous: checksum,
        };
    }

    /// What lies at `position` and on, one lap of it.
    fn from(&self, position: JournalPosition) -> Vec<u8> {
        let at = position.0 as usize % self.file.len();
        [&self.file[at..], &self.file[..at]].concat()
    }

    /// Reads on while entries verify.
    fn replay(&self, mut expected: Expected) -> (Expected, EntryFault) {
        loop {
            match parse(&self.from(expected.position), &expected) {
                Ok(entry) => expected = entry.next(),
                Err(fault) => return (expected, fault),
            }
        }
    }

    /// Entries of which no byte was overwritten since.
    fn whole(&self) -> impl Iterator<Item = Expected> + '_ {
        let oldest = self.next.position.0.saturating_sub(self.file.len() as u64);
        self.written.iter().map(|(entry, _)| *entry).filter(move |entry| entry.position.0 >= oldest)
    }
}

const BLOCKS: usize = 12;

fn any_sizes() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1u64..14_000, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From wherever a checkpoint says, reading ends exactly behind the last entry; what is left of earlier laps is
    /// not taken, and proves nothing.
    #[test]
    fn old_laps_never_pass_as_new(sizes in any_sizes()) {
        let mut circle = Circle::new(BLOCKS);
        for bytes in sizes {
            circle.write(bytes, 1, |_| true);
            for from in circle.whole().chain([circle.next]) {
                let (stop, fault) = circle.replay(from);
                prop_assert_eq!(stop, circle.next);
                prop_assert!(!fault.is_foreign(), "{}", fault);
            }
            let window = circle.from(circle.next.position);
            prop_assert_eq!(proof_of_damage(&window, circle.next.position, &circle.next), None);
        }
    }

    /// Two entries were under way at the power cut, neither acknowledged: both are cut off as torn.
    #[test]
    fn two_torn_commits_are_not_damage(sizes in any_sizes(), one in any_arrival(), two in any_arrival()) {
        let mut circle = Circle::new(BLOCKS);
        for bytes in sizes {
            circle.write(bytes, 1, |_| true);
        }
        let acknowledged = circle.next;
        circle.write(5000, 0, |at| one[at % one.len()]);
        circle.write(5000, 1, |at| two[at % two.len()]);
        let (stop, fault) = circle.replay(acknowledged);
        prop_assert!(!fault.is_foreign(), "{}", fault);
        let window = circle.from(stop.position);
        prop_assert_eq!(proof_of_damage(&window, stop.position, &stop), None);
    }

    /// An entry that two others were written behind was durable, and its loss is told, whatever it is.
    #[test]
    fn a_lost_acknowledged_entry_is_damage(sizes in any_sizes(), lost: Index, byte: Index, how in 0..3) {
        let mut circle = Circle::new(BLOCKS);
        for bytes in sizes {
            circle.write(bytes, 1, |_| true);
        }
        circle.write(100, 1, |_| true);
        circle.write(100, 1, |_| true);
        let whole: Vec<_> = circle.whole().collect();
        prop_assume!(whole.len() > 2);
        let damaged = whole[lost.index(whole.len() - 2)];
        let length = circle.written[damaged.sequence.0 as usize - 1].1;
        match how {
            0 => circle.put(damaged.position, &vec![0; length], |_| true),
            1 => circle.put(damaged.position, &vec![0x5a; length], |_| true),
            _ => {
                let at = (damaged.position.0 as usize + byte.index(length)) % circle.file.len();
                circle.file[at] ^= 0x10;
            }
        }
        let (stop, _) = circle.replay(whole[0]);
        prop_assert_eq!(stop, damaged);
        let window = circle.from(stop.position);
        let proof = proof_of_damage(&window, stop.position, &stop).unwrap();
        prop_assert!(proof.head.header.durable >= damaged.sequence);
    }
}

/// As a record may hold a copy of a journal: a header counts only where it says that it lies, and for its own journal.
#[test]
fn a_header_in_another_place_proves_nothing() {
    let mut circle = Circle::new(BLOCKS);
    for _ in 0..3 {
        circle.write(100, 1, |_| true);
    }
    let missing = circle.written[0].0;
    let proof = |window: &[u8], position, missing: &Expected| proof_of_damage(window, position, missing).is_some();
    let position = circle.written[2].0.position;
    let window = circle.from(position);
    assert!(proof(&window, position, &missing));
    assert!(!proof(&window, position.plus(BLOCK as u64), &missing));
    assert!(!proof(&window, position, &Expected { nonce: Nonce(78), ..missing }));
    assert!(!proof(&window, position, &Expected { sequence: Sequence(2), ..missing }));
}

/// After a cut the journal goes on under the same nonce over what the lost commits left; nothing of that is taken up.
#[test]
fn what_was_cut_off_does_not_come_back() {
    let mut circle = Circle::new(BLOCKS);
    circle.write(100, 1, |_| true);
    let cut = circle.next;
    circle.write(5000, 0, |at| at == 0);
    circle.write(100, 1, |_| true);
    let (stop, _) = circle.replay(circle.written[0].0);
    assert_eq!(stop, cut);
    circle.next = cut;
    circle.write(6000, 0, |_| true);
    let (stop, fault) = circle.replay(circle.written[0].0);
    assert_eq!((stop, fault), (circle.next, EntryFault::ChainBroken), "the successor of the lost entry is still there");
    let window = circle.from(stop.position);
    assert_eq!(proof_of_damage(&window, stop.position, &stop), None);
}

#[test]
fn entries_are_written_as_they_always_were() {
    let first = EntryHeader { sequence: Sequence(1), durable: Sequence(0), previous: Checksum(0), ..header(1) };
    let (one, checksum) = entry(first, &example());
    let position = first.position.plus(one.len() as u64);
    let second = EntryHeader { sequence: Sequence(2), position, previous: checksum, ..first };
    let (two, _) = entry(second, &[]);
    let stored = golden("journal-v1.bin", &[one, two].concat());
    let read = parse(&stored, &expected(&first)).unwrap();
    assert!(read.sections().eq(example().iter().map(Said::section)));
    assert_eq!(parse(&stored[BLOCK..], &read.next()).unwrap().sections().count(), 0);
}

#[test]
fn producers_are_written_as_they_always_were() {
    let first = EntryHeader { sequence: Sequence(1), durable: Sequence(0), previous: Checksum(0), ..header(1) };
    let of = [produced(77, 3, i32::MAX, 100, 10), produced(1 << 40, 0, 0, 110, 1)];
    let said = Said::Produced(partition(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7), batches(&of));
    let (bytes, _) = entry(first, std::slice::from_ref(&said));
    let stored = golden("journal-producers-v1.bin", &bytes);
    let read = parse(&stored, &expected(&first)).unwrap();
    let Some(Section::Produced(section)) = read.sections().next() else { panic!("it is read back") };
    assert!(section.batches().eq(of));
}

/// With numbers that no producer has, an entry whose checksums fit is refused, not misread.
#[test]
fn producers_that_cannot_be_are_refused() {
    let id = partition(1, 7);
    let negative = Produced { producer: crate::model::ProducerId(-1), ..produced(1, 0, 0, 5, 1) };
    for content in [Vec::new(), vec![0; PRODUCED_BYTES - 1], batches(&[negative])] {
        let mut bytes = vec![0; 20];
        Put::into(&mut bytes).partition(id);
        bytes.extend(content);
        assert!(ProducedSection::take(&bytes).is_err());
    }
}

fn example() -> Vec<Said> {
    let id = partition(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 7);
    let said = |append: AppendSection| {
        let inline = (0..append.inline_len()).map(|at| at as u8).collect();
        Said::Append(AppendSection { partition: id, ..append }, inline)
    };
    vec![
        said(append(100, true, 50, 0, 30)),
        said(append(3000, false, 50, 2, 30)),
        Said::Truncate(Truncate {
            partition: id,
            to: Offset(170),
            segment_base: Offset(100),
            position: Position(28_772),
        }),
        Said::Start(Start { partition: id, first: Offset(120) }),
        Said::Epoch(Epoch { partition: id, epoch: LeaderEpoch(4), start: Offset(170) }),
        Said::HighWatermark(HighWatermark { partition: id, offset: Offset(165) }),
    ]
}
