use super::*;
use crate::log::BLOCK;
use crate::log::checkpoint::JournalFrom;
use crate::log::frame::{Checksum, Nonce};
use crate::log::journal::{Epoch, HighWatermark, JournalPosition};
use crate::log::testing::{partition, produced};
use crate::producer::Produced;
use proptest::prelude::*;
use proptest::sample::Index;

/// A partition as it would be without a crash: the bytes of its segments, and where it begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    segments: BTreeMap<Offset, Vec<u8>>,
    state: PartitionState,
    /// Of each append the offset and the place of its end, to cut off at, and its timestamp.
    ends: Vec<(Offset, Place, Timestamp)>,
    /// The next entry carries the last block from its beginning.
    prefix_due: bool,
    appends: u32,
}

/// What a journal entry says of the partition, and what went to the segment directly.
struct Said {
    section: Owned,
    direct: Option<(Offset, Position, Vec<u8>)>,
}

enum Owned {
    Append(AppendSection, Vec<u8>),
    Start(Start),
    Truncate(Truncate),
    Epoch(Epoch),
}

impl Owned {
    fn section(&self) -> Section<'_> {
        match self {
            Owned::Append(append, inline) => Section::Append { append: *append, inline },
            Owned::Start(start) => Section::Start(*start),
            Owned::Truncate(cut) => Section::Truncate(*cut),
            Owned::Epoch(epoch) => Section::Epoch(*epoch),
        }
    }
}

fn id() -> PartitionId {
    partition(1, 0)
}

fn put(segment: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    segment.resize(segment.len().max(end), 0);
    segment[at as usize..end].copy_from_slice(bytes);
}

impl Model {
    fn new() -> Self {
        let state = Recovered::empty().state;
        Model { segments: BTreeMap::new(), state, ends: Vec::new(), prefix_due: false, appends: 0 }
    }

    fn append(&mut self, bytes: usize, rolls: bool, large: bool) -> Said {
        let extent = &mut self.state.extent;
        if rolls && extent.end > Position(0) {
            let sealed = Sealed {
                last: Offset(extent.next.0 - 1),
                end: extent.end,
                max_timestamp: extent.max_timestamp,
                rewrite: 0,
            };
            self.state.sealed.insert(extent.segment_base, sealed);
            extent.segment_base = extent.next;
            extent.end = Position(0);
            extent.max_timestamp = Timestamp(-1);
        }
        self.appends += 1;
        let new: Vec<u8> = (0..bytes).map(|at| (at as u32).wrapping_mul(7).wrapping_add(self.appends) as u8).collect();
        let (start, end) = (extent.end, extent.end.plus(bytes as u64));
        let block = BLOCK as u64;
        let (from, to) = (start.0.next_multiple_of(block), end.0 / block * block);
        let direct = if large && from < to { (Position(from), Position(to)) } else { (end, end) };
        let inline_from = if self.prefix_due { Position(start.0 / block * block) } else { start };
        self.prefix_due = false;
        let segment = self.segments.entry(extent.segment_base).or_default();
        put(segment, start.0, &new);
        let of = |from: Position, to: Position| segment[from.0 as usize..to.0 as usize].to_vec();
        let inline = [of(inline_from, direct.0), of(direct.1, end)].concat();
        let direct_bytes = of(direct.0, direct.1);
        let append = AppendSection {
            partition: id(),
            segment_base: extent.segment_base,
            base_offset: extent.next,
            last_offset: extent.next.plus(2),
            inline_from,
            start,
            direct_from: direct.0,
            direct_to: direct.1,
            end,
            leader_epoch: extent.leader_epoch,
            max_timestamp: Timestamp(i64::from(self.appends)),
            direct_crc: 0,
        };
        extent.next = extent.next.plus(3);
        extent.high_watermark = extent.next;
        extent.end = end;
        extent.max_timestamp = append.max_timestamp;
        self.ends.push((extent.next, Place { segment: extent.segment_base, position: end }, append.max_timestamp));
        Said {
            section: Owned::Append(append, inline),
            direct: (direct.0 < direct.1).then_some((extent.segment_base, direct.0, direct_bytes)),
        }
    }

    fn start(&mut self, at: Index) -> Said {
        let first = Offset(at.index(self.state.extent.next.0 as usize + 1) as i64);
        self.state.extent.first = self.state.extent.first.max(first);
        self.state.forget_epochs_before(self.state.extent.first);
        Said { section: Owned::Start(Start { partition: id(), first }), direct: None }
    }

    fn epoch(&mut self) -> Said {
        let epoch = LeaderEpoch(self.state.extent.leader_epoch.0 + 1);
        self.state.extent.leader_epoch = epoch;
        let start = self.state.extent.next;
        self.state.begin_epoch(epoch, start);
        Said { section: Owned::Epoch(Epoch { partition: id(), epoch, start }), direct: None }
    }

    /// Cuts off at the end of one of the appends.
    fn truncate(&mut self, at: Index) -> Option<Said> {
        let Extent { first, next, .. } = self.state.extent;
        let ends: Vec<_> = self.ends.iter().filter(|(end, ..)| (first..next).contains(end)).copied().collect();
        if ends.is_empty() {
            return None;
        }
        let (to, place, _) = ends[at.index(ends.len())];
        self.ends.retain(|(next, ..)| *next <= to);
        self.segments.retain(|base, _| *base <= place.segment);
        self.segments.entry(place.segment).or_default().truncate(place.position.0 as usize);
        self.state.sealed.retain(|base, _| *base < place.segment);
        self.state.epochs.retain(|_, start| *start < to);
        let extent = &mut self.state.extent;
        extent.next = to;
        extent.high_watermark = to;
        extent.segment_base = place.segment;
        extent.end = place.position;
        self.prefix_due = true;
        let cut = Truncate { partition: id(), to, segment_base: place.segment, position: place.position };
        Some(Said { section: Owned::Truncate(cut), direct: None })
    }
}

/// What happens to the partition.
#[derive(Debug, Clone)]
enum Step {
    Append { bytes: usize, rolls: bool, large: bool },
    Start(Index),
    Epoch,
    Truncate(Index),
}

fn any_step(cuts: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..20_000, prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(bytes, rolls, large)| Step::Append { bytes, rolls, large }),
        1 => any::<Index>().prop_map(Step::Start),
        1 => Just(Step::Epoch),
        cuts => any::<Index>().prop_map(Step::Truncate),
    ]
}

fn take(model: &mut Model, step: &Step) -> Option<Said> {
    Some(match step {
        Step::Append { bytes, rolls, large } => model.append(*bytes, *rolls, *large),
        Step::Start(at) => model.start(*at),
        Step::Epoch => model.epoch(),
        Step::Truncate(at) => return model.truncate(*at),
    })
}

fn journal_from() -> JournalFrom {
    JournalFrom {
        nonce: Nonce(1),
        size: BLOCK as u64,
        position: JournalPosition(0),
        sequence: Sequence(1),
        previous: Checksum(0),
    }
}

fn recovery(state: &PartitionState) -> Recovery {
    let partitions = BTreeMap::from([(id(), state.clone())]);
    Recovery::new(&CheckpointState { journal: journal_from(), partitions })
}

/// The segments as the crash left them: what the checkpoint wrote, and what went there directly since. What had been
/// written without being durable is as good as lost.
fn on_disk(checkpointed: &Model, said: &[Said]) -> BTreeMap<Offset, Vec<u8>> {
    let mut disk = checkpointed.segments.clone();
    for (segment, at, bytes) in said.iter().filter_map(|said| said.direct.as_ref()) {
        put(disk.entry(*segment).or_default(), at.0, bytes);
    }
    disk
}

fn settled(mut disk: BTreeMap<Offset, Vec<u8>>, pieces: &[Piece]) -> BTreeMap<Offset, Vec<u8>> {
    for piece in pieces {
        put(disk.entry(piece.segment).or_default(), piece.from.0, &piece.bytes);
    }
    disk
}

/// What must be equal. After a cut the highest timestamp may be that of what was cut off: it is compared as a bound.
fn comparable(state: &PartitionState) -> PartitionState {
    let mut state = state.clone();
    state.extent.max_timestamp = Timestamp(-1);
    state.sealed.values_mut().for_each(|sealed| sealed.max_timestamp = Timestamp(-1));
    // Whether an epoch that has no record left is forgotten at once or with the next first offset is no difference.
    state.forget_epochs_before(state.extent.first);
    state
}

fn assert_times_hold(state: &PartitionState, model: &Model) {
    for (_, place, time) in &model.ends {
        let sealed = state.sealed.get(&place.segment).map(|sealed| sealed.max_timestamp);
        assert!(sealed.unwrap_or(state.extent.max_timestamp) >= *time, "segment {}", place.segment);
    }
}

/// Every byte that the model has is on the disk.
fn assert_holds(disk: &BTreeMap<Offset, Vec<u8>>, model: &Model) {
    let extent = &model.state.extent;
    let ends = model.state.sealed.iter().map(|(base, sealed)| (*base, sealed.end));
    for (base, end) in ends.chain([(extent.segment_base, extent.end)]) {
        let end = end.0 as usize;
        assert!(
            disk.get(&base).map_or(end == 0, |bytes| bytes[..end] == model.segments[&base][..end]),
            "segment {base}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// From any checkpoint, what came after leads to the state and the bytes that there would be without the crash.
    #[test]
    fn replay_leads_to_what_was(steps in prop::collection::vec(any_step(1), 1..40), at: Index) {
        let at = at.index(steps.len());
        let mut model = Model::new();
        steps[..at].iter().for_each(|step| { take(&mut model, step); });
        model.prefix_due = true;
        let checkpointed = model.clone();
        let said: Vec<_> = steps[at..].iter().filter_map(|step| take(&mut model, step)).collect();
        let mut recovery = recovery(&checkpointed.state);
        for (sequence, said) in (1..).zip(&said) {
            recovery.section(Sequence(sequence), &said.section.section());
        }
        let recovered = &recovery.partitions[&id()];
        prop_assert_eq!(recovered.fenced.as_deref(), None);
        prop_assert_eq!(comparable(&recovered.state), comparable(&model.state));
        assert_times_hold(&recovered.state, &model);
        // A piece is written in whole blocks, so it has to know its first block from the beginning.
        for piece in &recovered.pieces {
            prop_assert!(piece.from.0.is_multiple_of(BLOCK as u64), "a piece begins at {}", piece.from);
        }
        assert_holds(&settled(on_disk(&checkpointed, &said), &recovered.pieces), &model);
    }

    /// Case H: extents are captured while commits go on, so that a checkpoint may know more than its journal position.
    #[test]
    fn what_a_checkpoint_has_already_is_skipped(steps in prop::collection::vec(any_step(0), 1..40), from: Index, at: Index) {
        let at = at.index(steps.len() + 1);
        let from = from.index(at + 1);
        let mut model = Model::new();
        steps[..from].iter().for_each(|step| { take(&mut model, step); });
        model.prefix_due = true;
        let mut said: Vec<_> = steps[from..at].iter().filter_map(|step| take(&mut model, step)).collect();
        model.prefix_due = true;
        let captured = model.clone();
        said.extend(steps[at..].iter().filter_map(|step| take(&mut model, step)));
        let mut recovery = recovery(&captured.state);
        said.iter().for_each(|said| recovery.section(Sequence(1), &said.section.section()));
        let recovered = &recovery.partitions[&id()];
        prop_assert_eq!(recovered.fenced.as_deref(), None);
        prop_assert_eq!(comparable(&recovered.state), comparable(&model.state));
        assert_times_hold(&recovered.state, &model);
        assert_holds(&settled(on_disk(&captured, &said), &recovered.pieces), &model);
    }

    /// Case I: whichever append is lost from the middle, the partition is fenced at the end of what is whole.
    #[test]
    fn a_lost_append_fences_its_partition(sizes in prop::collection::vec((1usize..9000, any::<bool>()), 2..12), lost: Index) {
        let mut model = Model::new();
        let lost = lost.index(sizes.len() - 1);
        let mut recovery = Recovery::default();
        let mut whole = Offset(0);
        for (at, (bytes, rolls)) in sizes.into_iter().enumerate() {
            let said = model.append(bytes, rolls, false);
            if at == lost {
                whole = Offset(model.state.extent.next.0 - 3);
                continue;
            }
            recovery.section(Sequence(1), &said.section.section());
        }
        let recovered = &recovery.partitions[&id()];
        prop_assert!(recovered.fenced.is_some());
        prop_assert_eq!(recovered.state.extent.next, whole);
    }
}

fn append(model: &mut Model, recovery: &mut Recovery, bytes: usize) {
    let said = model.append(bytes, false, false);
    recovery.section(Sequence(3), &said.section.section());
}

#[test]
fn a_fence_says_where_and_takes_nothing_more() {
    let (mut model, mut recovery) = (Model::new(), Recovery::default());
    append(&mut model, &mut recovery, 100);
    model.append(100, false, false);
    append(&mut model, &mut recovery, 100);
    append(&mut model, &mut recovery, 100);
    let recovered = &recovery.partitions[&id()];
    let why = "journal entry 3 continues at offset 6, the log ends at 3: what lies between is lost";
    assert_eq!(recovered.fenced.as_deref(), Some(why));
    assert_eq!(recovered.state.extent.next, Offset(3));
    assert_eq!(recovered.pieces.len(), 1);
}

/// The right offset in the wrong place: behind a hole, or in a segment that does not begin with it.
#[test]
fn an_append_that_does_not_continue_the_bytes_fences() {
    let wrong: [fn(&mut AppendSection); 3] = [
        |append| (append.start, append.inline_from) = (append.start.plus(1), append.inline_from.plus(1)),
        |append| append.segment_base = Offset(1),
        |append| append.segment_base = append.base_offset,
    ];
    for change in wrong {
        let (mut model, mut recovery) = (Model::new(), Recovery::default());
        append(&mut model, &mut recovery, 100);
        let Owned::Append(mut append, mut inline) = model.append(100, false, false).section else {
            panic!("an append")
        };
        change(&mut append);
        inline.truncate(append.inline_len());
        recovery.section(Sequence(2), &Section::Append { append, inline: &inline });
        let recovered = &recovery.partitions[&id()];
        assert!(recovered.fenced.is_some(), "{append:?}");
        assert_eq!(recovered.state.extent.end, Position(100));
    }
}

/// The next recovery starts from a checkpoint that was made after the loss was found.
#[test]
fn a_fence_outlives_a_restart() {
    let (mut model, mut first) = (Model::new(), Recovery::default());
    append(&mut model, &mut first, 100);
    first.fence_all("the journal is damaged");
    let state = &first.partitions[&id()].state;
    assert_eq!(state.fenced, Some(Offset(3)));
    let second = recovery(state);
    let why = second.partitions[&id()].fenced.as_deref();
    assert_eq!(why, Some("acknowledged records from offset 3 on may be lost, as an earlier start found"));
}

#[test]
fn other_partitions_do_not_mind() {
    let (mut model, mut recovery) = (Model::new(), Recovery::default());
    append(&mut model, &mut recovery, 100);
    let mark = HighWatermark { partition: partition(1, 1), offset: Offset(9) };
    recovery.section(Sequence(2), &Section::HighWatermark(mark));
    let other = &recovery.partitions[&partition(1, 1)];
    assert_eq!(other.state.extent.high_watermark, Offset(0), "a mark is never behind the end");
    recovery.fence_all("lost");
    assert!(recovery.partitions.values().all(|recovered| recovered.fenced.as_deref() == Some("lost")));
}

#[test]
fn a_first_offset_behind_the_end_fences() {
    let (mut model, mut recovery) = (Model::new(), Recovery::default());
    append(&mut model, &mut recovery, 100);
    recovery.section(Sequence(2), &Section::Start(Start { partition: id(), first: Offset(4) }));
    let recovered = &recovery.partitions[&id()];
    assert!(recovered.fenced.is_some());
    assert_eq!(recovered.state.extent.first, Offset(0));
}

/// Blocks that no later entry says were flushed are written again with the rest; those that a checkpoint has are not.
#[test]
fn direct_blocks_that_may_not_be_durable_are_written_again() {
    let (mut model, mut recovery) = (Model::new(), Recovery::default());
    append(&mut model, &mut recovery, 100);
    let said = model.append(3 * BLOCK, false, true);
    let (Owned::Append(section, inline), Some((_, _, blocks))) = (said.section, said.direct) else {
        panic!("a large append")
    };
    for _ in 0..2 {
        recovery.append(Sequence(4), &section, &inline, &blocks);
        let recovered = &recovery.partitions[&id()];
        assert_eq!(recovered.state.extent, model.state.extent);
        let written = Piece { segment: Offset(0), from: Position(0), bytes: model.segments[&Offset(0)].clone() };
        assert_eq!(recovered.pieces, [written]);
    }
}

/// What an entry says of producers, as bytes.
fn produced_entry(batches: &[Produced]) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let header = crate::log::journal::EntryHeader {
        nonce: Nonce(1),
        sequence: Sequence(1),
        position: JournalPosition(0),
        previous: Checksum(0),
        durable: Sequence(0),
    };
    let mut writer = crate::log::journal::EntryWriter::new(&mut bytes, header);
    writer.produced(id(), batches.iter().copied()).unwrap();
    let length = writer.finish().length;
    bytes.truncate(length);
    bytes
}

fn note(recovery: &mut Recovery, batches: &[Produced]) {
    let bytes = produced_entry(batches);
    let entry = crate::log::journal::parse(&bytes, &journal_from().expected()).unwrap();
    entry.sections().for_each(|section| recovery.section(Sequence(1), &section));
}

/// A producer may send again what is not in the log, and must not have appended again what is.
#[test]
fn producers_are_known_by_what_is_in_the_log() {
    let (mut model, mut recovery) = (Model::new(), Recovery::default());
    append(&mut model, &mut recovery, 100);
    append(&mut model, &mut recovery, 100);
    let batches = [produced(5, 0, 0, 0, 3), produced(5, 0, 3, 3, 3), produced(5, 0, 6, 6, 3)];
    note(&mut recovery, &batches);
    let known = |recovery: &Recovery| -> Vec<Produced> {
        let windows = &recovery.partitions[&id()].state.producers;
        windows.iter().flat_map(|(producer, window)| window.batches(*producer).collect::<Vec<_>>()).collect()
    };
    let offsets = |batches: Vec<Produced>| batches.iter().map(|batch| batch.base.0).collect::<Vec<_>>();
    assert_eq!(offsets(known(&recovery)), [0, 3], "the third is not in the log");
    note(&mut recovery, &batches);
    assert_eq!(offsets(known(&recovery)), [0, 3], "the same again");
    let place = model.ends[0].1;
    let cut = Truncate { partition: id(), to: Offset(3), segment_base: place.segment, position: place.position };
    recovery.section(Sequence(2), &Section::Truncate(cut));
    assert_eq!(offsets(known(&recovery)), [0], "what was cut off may come again");
}
