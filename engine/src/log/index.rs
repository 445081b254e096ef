//! The sparse index of a segment: from an offset or a time to a position near and before it.
//!
//! Bounded: at most [`ENTRIES_MAX`] entries. When they are used up the least distance between entries doubles and those that
//! are nearer go, so that a lookup leads to a scan of about a 256th of the segment.

use super::fields::{Fields, Put, checked, rule};
use super::frame::Checksum;
use super::{BLOCK, round_up};
use crate::model::{Offset, PartitionId, Position, Timestamp};

/// No index has more.
pub const ENTRIES_MAX: usize = 512;
/// Least distance between entries before any had to go.
pub const INTERVAL_BYTES_MIN: u64 = 4096;
/// Bytes of the largest index file.
pub const FILE_BYTES_MAX: usize = file_bytes(ENTRIES_MAX);

const MAGIC: [u8; 4] = *b"CLIX";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;

/// A batch's place, and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Base offset of the batch.
    pub offset: Offset,
    /// Where it begins.
    pub position: Position,
    /// The highest timestamp of all batches before it: a record of a later time lies here or behind.
    pub max_timestamp_before: Timestamp,
}

/// The index of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseIndex {
    base: Offset,
    entries: Vec<Entry>,
    interval: u64,
    max_timestamp: Timestamp,
}

impl SparseIndex {
    /// Of an empty segment. Allocates nothing.
    pub fn new(base: Offset) -> Self {
        SparseIndex { base, entries: Vec::new(), interval: INTERVAL_BYTES_MIN, max_timestamp: Timestamp(-1) }
    }

    /// The highest timestamp of all batches; an upper bound after [`truncate`](Self::truncate); -1 for none.
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// The entries, by offset.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Tells of the next batch. Every batch is told, in order.
    pub fn note(&mut self, offset: Offset, position: Position, max_timestamp: Timestamp) {
        let last = self.entries.last().map_or(Position(0), |entry| entry.position);
        assert!(last <= position && self.base <= offset, "batches are told in order");
        if position.0 - last.0 >= self.interval {
            self.add(Entry { offset, position, max_timestamp_before: self.max_timestamp });
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// Adds what another index of the same segment knows of batches behind all that were told here.
    pub fn join(&mut self, later: &SparseIndex) {
        for entry in &later.entries {
            // Before the entry is added: the time of the batches that it leaves behind, not of its own.
            self.max_timestamp = self.max_timestamp.max(entry.max_timestamp_before);
            self.note(entry.offset, entry.position, Timestamp(-1));
        }
        self.max_timestamp = self.max_timestamp.max(later.max_timestamp);
    }

    fn add(&mut self, entry: Entry) {
        if self.entries.len() == ENTRIES_MAX {
            self.thin_out();
        }
        // Growth by doubling that stops at the bound, also after a decoded index of any length.
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().max(4).min(ENTRIES_MAX - self.entries.len());
            self.entries.reserve_exact(more);
        }
        self.entries.push(entry);
    }

    /// Widens the interval until an entry goes, and at most every other one does. Those of large batches are further apart
    /// than the interval: were they to go without regard to that, segments would have few at their front.
    fn thin_out(&mut self) {
        while self.entries.len() == ENTRIES_MAX {
            self.interval *= 2;
            let (interval, mut last) = (self.interval, None);
            self.entries.retain(|entry| {
                let stays = last.is_none_or(|last: Position| entry.position.0 - last.0 >= interval);
                if stays {
                    last = Some(entry.position);
                }
                stays
            });
        }
    }

    /// Forgets what lay at `end` and behind it. The highest timestamp stays, as an upper bound.
    pub fn truncate(&mut self, end: Position) {
        let left = self.entries.partition_point(|entry| entry.position < end);
        self.entries.truncate(left);
    }

    /// A batch from which a scan forward finds `offset`: its base offset and position.
    pub fn lookup(&self, offset: Offset) -> (Offset, Position) {
        self.floor(|entry| entry.offset <= offset)
    }

    /// A batch from which a scan forward finds the first record at or after `time`; `None` if there is none in the segment.
    pub fn lookup_time(&self, time: Timestamp) -> Option<(Offset, Position)> {
        (time <= self.max_timestamp).then(|| self.floor(|entry| entry.max_timestamp_before < time))
    }

    /// The last entry of those for which `before` holds, which are the first ones; else the beginning of the segment.
    fn floor(&self, before: impl FnMut(&Entry) -> bool) -> (Offset, Position) {
        let behind = self.entries.partition_point(before);
        let entry = behind.checked_sub(1).and_then(|floor| self.entries.get(floor));
        entry.map_or((self.base, Position(0)), |entry| (entry.offset, entry.position))
    }
}

const fn file_bytes(entries: usize) -> usize {
    round_up(HEADER_BYTES + entries * ENTRY_BYTES + CHECKSUM_BYTES)
}

/// What segment an index file is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Whose segment.
    pub partition: PartitionId,
    /// Its base offset.
    pub base: Offset,
    /// Where the batches that the index knows end.
    pub end: Position,
}

/// Why an index file is of no use. It is rebuilt from its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// It begins with something else.
    #[error("it is not an index file")]
    NotAnIndex,
    /// It is shorter or longer than it says, or than any index can be.
    #[error("its length is wrong")]
    Length,
    /// The checksum does not fit.
    #[error("its checksum does not fit")]
    Checksum,
    /// Written by a program that knows another version.
    #[error("its version {0} is not known to this program")]
    UnknownVersion(u16),
    /// Every byte is as it was written, and the content breaks a rule.
    #[error("{0}")]
    Malformed(&'static str),
}

impl SparseIndex {
    /// Bytes of the file: whole blocks, at most [`FILE_BYTES_MAX`].
    pub fn file_bytes(&self) -> usize {
        file_bytes(self.entries.len())
    }

    /// Writes the whole file to the front of `out` and gives its length, [`file_bytes`](Self::file_bytes).
    pub fn encode(&self, identity: &Identity, out: &mut [u8]) -> usize {
        assert_eq!(self.base, identity.base, "an index of another segment");
        checked(self.check(identity.end));
        let length = self.file_bytes();
        let (covered, checksum) = out[..length].split_at_mut(length - CHECKSUM_BYTES);
        let header = Put::into(covered)
            .bytes(&MAGIC)
            .u16(VERSION)
            .u16(HEADER_BYTES as u16)
            .partition(identity.partition)
            .u32(self.entries.len() as u32)
            .offset(identity.base)
            .position(identity.end)
            .timestamp(self.max_timestamp)
            .u64(self.interval);
        self.entries.iter().fold(header, |put, entry| entry.put(put)).rest().fill(0);
        checksum.copy_from_slice(&Checksum::of(covered).0.to_le_bytes());
        length
    }

    fn check(&self, end: Position) -> Result<(), &'static str> {
        rule(Offset(0) <= self.base, "the base offset is negative")?;
        rule(self.entries.len() <= ENTRIES_MAX, "there are too many entries")?;
        let doubled = self.interval / INTERVAL_BYTES_MIN;
        rule(
            self.interval.is_multiple_of(INTERVAL_BYTES_MIN) && doubled.is_power_of_two(),
            "the interval is not one that doubling leads to",
        )?;
        let sorted = self.entries.is_sorted_by(|one, other| {
            one.offset < other.offset
                && one.position < other.position
                && one.max_timestamp_before <= other.max_timestamp_before
        });
        rule(sorted, "the entries are not in order")?;
        rule(self.entries.first().is_none_or(|first| self.base <= first.offset), "an entry lies before the segment")?;
        rule(
            self.entries
                .last()
                .is_none_or(|last| last.position < end && last.max_timestamp_before <= self.max_timestamp),
            "an entry lies behind the segment's end",
        )
    }
}

/// Reads a whole file. The caller compares the identity with the segment it has.
pub fn decode(file: &[u8]) -> Result<(Identity, SparseIndex), IndexFault> {
    if file.get(..4) != Some(MAGIC.as_slice()) {
        return Err(IndexFault::NotAnIndex);
    }
    if !file.len().is_multiple_of(BLOCK) || file.len() > FILE_BYTES_MAX {
        return Err(IndexFault::Length);
    }
    let (covered, checksum) = file.split_last_chunk::<CHECKSUM_BYTES>().ok_or(IndexFault::Length)?;
    if Checksum::of(covered) != Checksum(u32::from_le_bytes(*checksum)) {
        return Err(IndexFault::Checksum);
    }
    let version = u16::from_le_bytes([covered[4], covered[5]]);
    if version != VERSION {
        return Err(IndexFault::UnknownVersion(version));
    }
    let (identity, index) = take(covered).ok_or(IndexFault::Length)?;
    index.check(identity.end).map_err(IndexFault::Malformed)?;
    Ok((identity, index))
}

/// Whether a crash can have left this of a file: it is written into fresh blocks, and a sector that did not get its bytes is
/// zeros. Of what cannot be decoded this tells the half-written from the damaged.
pub fn is_cut_short(file: &[u8]) -> bool {
    const SECTOR_BYTES: usize = 512;
    let count = Fields::of(file.get(28..).unwrap_or_default()).u32().unwrap_or(0) as usize;
    let used = HEADER_BYTES + count.min(ENTRIES_MAX) * ENTRY_BYTES;
    let last = file.len().saturating_sub(SECTOR_BYTES);
    let has_bytes = |at: usize| at < used || at == last;
    let sectors = (0..).step_by(SECTOR_BYTES).zip(file.chunks(SECTOR_BYTES));
    file.is_empty() || sectors.into_iter().any(|(at, sector)| has_bytes(at) && sector.iter().all(|byte| *byte == 0))
}

fn take(covered: &[u8]) -> Option<(Identity, SparseIndex)> {
    let mut fields = Fields::of(&covered[6..]);
    if usize::from(fields.u16()?) != HEADER_BYTES {
        return None;
    }
    let (partition, count) = (fields.partition()?, fields.u32()? as usize);
    let identity = Identity { partition, base: fields.offset()?, end: fields.position()? };
    let (max_timestamp, interval) = (fields.timestamp()?, fields.u64()?);
    if count > ENTRIES_MAX || file_bytes(count) != covered.len() + CHECKSUM_BYTES {
        return None;
    }
    let entries = (0..count).map(|_| Entry::take(&mut fields)).collect::<Option<Vec<_>>>()?;
    let padded = fields.rest().iter().all(|byte| *byte == 0);
    padded.then_some((identity, SparseIndex { base: identity.base, entries, interval, max_timestamp }))
}

impl Entry {
    fn put<'a>(&self, into: Put<'a>) -> Put<'a> {
        into.offset(self.offset).position(self.position).timestamp(self.max_timestamp_before)
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Entry {
            offset: fields.offset()?,
            position: fields.position()?,
            max_timestamp_before: fields.timestamp()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    const BASE: Offset = Offset(1000);

    /// A batch as the index sees it: records, bytes, highest timestamp.
    type Batch = (u32, u64, i64);

    fn any_batches() -> impl Strategy<Value = Vec<Batch>> {
        let bytes = prop_oneof![61u64..500, 61u64..20_000, 1_000_000u64..9_000_000];
        prop::collection::vec((1u32..50, bytes, -1i64..1_000), 0..3000)
    }

    /// The index, and what a scan would find: offset, position and timestamp of each batch.
    fn indexed(batches: &[Batch]) -> (SparseIndex, Vec<(Offset, Position, i64)>, Identity) {
        let mut index = SparseIndex::new(BASE);
        let (mut offset, mut position) = (BASE, Position(0));
        let mut all = Vec::new();
        for (records, bytes, time) in batches {
            index.note(offset, position, Timestamp(*time));
            all.push((offset, position, *time));
            (offset, position) = (offset.plus(*records), position.plus(*bytes));
        }
        (index, all, Identity { partition: partition(1, 2), base: BASE, end: position })
    }

    fn encoded(index: &SparseIndex, identity: &Identity) -> Vec<u8> {
        let mut file = vec![0xee; FILE_BYTES_MAX];
        let length = index.encode(identity, &mut file);
        assert_eq!(length, index.file_bytes());
        file.truncate(length);
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_lookup_leads_to_a_batch_at_or_before_the_offset(batches in any_batches(), back in 0i64..70_000) {
            let (index, all, _) = indexed(&batches);
            let wanted = Offset(BASE.0 + back);
            let (offset, position) = index.lookup(wanted);
            prop_assert!(offset <= wanted);
            let first = (BASE, Position(0));
            prop_assert!((offset, position) == first || all.iter().any(|batch| (batch.0, batch.1) == (offset, position)));
        }

        /// Nothing before the place found has the time, so that a scan from there meets the first record that has.
        #[test]
        fn a_lookup_by_time_passes_over_nothing(batches in any_batches(), time in -2i64..1_001) {
            let (index, all, _) = indexed(&batches);
            let first = all.iter().find(|batch| batch.2 >= time);
            match index.lookup_time(Timestamp(time)) {
                Some((offset, _)) => prop_assert!(first.is_none_or(|first| offset <= first.0)),
                None => prop_assert_eq!(first, None),
            }
        }

        /// What a start leaves: one index of the batches before it, and one of those after. Times rise, as they mostly do.
        #[test]
        fn joined_it_passes_over_nothing_either(batches in any_batches(), at in any::<Index>(), wanted in any::<Index>()) {
            let rising = |(number, (records, bytes, time)): (usize, &Batch)| (*records, *bytes, number as i64 * 9 + time % 9);
            let batches: Vec<Batch> = batches.iter().enumerate().map(rising).collect();
            let (_, all, _) = indexed(&batches);
            let at = at.index(batches.len() + 1);
            let (mut index, mut later) = (SparseIndex::new(BASE), SparseIndex::new(BASE));
            let mut max_timestamp = Timestamp(-1);
            for (number, (offset, position, time)) in all.iter().enumerate() {
                max_timestamp = max_timestamp.max(Timestamp(*time));
                let of = if number < at { &mut index } else { &mut later };
                of.note(*offset, *position, max_timestamp);
            }
            index.join(&later);
            prop_assert_eq!(index.max_timestamp, max_timestamp);
            prop_assert!(index.entries.len() <= ENTRIES_MAX);
            if let Some(first) = all.get(wanted.index(all.len() + 1)) {
                prop_assert!(index.lookup(first.0).0 <= first.0);
                let earliest = all.iter().find(|batch| batch.2 >= first.2);
                let found = index.lookup_time(Timestamp(first.2));
                prop_assert!(found.zip(earliest).is_some_and(|(found, earliest)| found.0 <= earliest.0));
            }
        }

        #[test]
        fn memory_and_scans_are_bounded(batches in any_batches()) {
            let (index, all, identity) = indexed(&batches);
            prop_assert!(index.entries.len() <= ENTRIES_MAX && index.entries.capacity() <= ENTRIES_MAX);
            let largest = batches.iter().map(|batch| batch.1).max().unwrap_or(0);
            let bound = 2 * index.interval + largest;
            let places = [Position(0)].into_iter().chain(index.entries.iter().map(|entry| entry.position));
            let next = index.entries.iter().map(|entry| entry.position).chain([identity.end]);
            for (from, to) in places.zip(next) {
                prop_assert!(to.0 - from.0 <= bound, "{} bytes from {}, and the bound is {bound}", to.0 - from.0, from.0);
            }
            // Thinning happens only when there was enough to fill half of the entries again, so that the bound follows from
            // the segment's size.
            let is_thinned = index.interval > INTERVAL_BYTES_MIN;
            prop_assert!(!is_thinned || index.entries.len() >= ENTRIES_MAX / 2);
            prop_assert!(!is_thinned || index.interval <= identity.end.0 / (ENTRIES_MAX / 2) as u64);
            prop_assert!(index.entries.len() <= all.len());
        }

        #[test]
        fn a_file_comes_back(batches in any_batches()) {
            let (index, _, identity) = indexed(&batches);
            prop_assert_eq!(decode(&encoded(&index, &identity)), Ok((identity, index)));
        }

        #[test]
        fn a_decoded_index_goes_on_as_the_first_would(batches in any_batches(), more in any_batches()) {
            let (mut index, _, identity) = indexed(&batches);
            let (_, mut decoded) = decode(&encoded(&index, &identity)).unwrap();
            let (mut offset, mut position) = (Offset(1_000_000), identity.end);
            for (records, bytes, time) in more {
                index.note(offset, position, Timestamp(time));
                decoded.note(offset, position, Timestamp(time));
                (offset, position) = (offset.plus(records), position.plus(bytes));
            }
            prop_assert!(decoded.entries.capacity() <= ENTRIES_MAX);
            prop_assert_eq!(decoded, index);
        }

        #[test]
        fn a_flipped_bit_is_told(batches in any_batches(), bit: Index) {
            let (index, _, identity) = indexed(&batches);
            let mut file = encoded(&index, &identity);
            let bit = bit.index(file.len() * 8);
            file[bit / 8] ^= 1 << (bit % 8);
            let fault = if bit < 32 { IndexFault::NotAnIndex } else { IndexFault::Checksum };
            prop_assert_eq!(decode(&file), Err(fault));
        }

        #[test]
        fn a_prefix_is_told(batches in any_batches(), cut: Index) {
            let (index, _, identity) = indexed(&batches);
            let file = encoded(&index, &identity);
            let cut = cut.index(file.len());
            let fault = match cut {
                0..4 => IndexFault::NotAnIndex,
                _ if cut % BLOCK != 0 => IndexFault::Length,
                _ => IndexFault::Checksum,
            };
            prop_assert_eq!(decode(&file[..cut]), Err(fault));
        }

        #[test]
        fn a_torn_file_is_told(batches in any_batches(), before in any_batches(), kept in any_arrival()) {
            let (index, _, identity) = indexed(&batches);
            let (old, _, was) = indexed(&before);
            let new = encoded(&index, &identity);
            let file = torn(&encoded(&old, &was), &new, |at| kept[at % kept.len()]);
            match decode(&file) {
                Ok(read) => prop_assert!(read == (identity, index) || read == (was, old)),
                Err(fault) => prop_assert!(matches!(fault, IndexFault::NotAnIndex | IndexFault::Checksum), "{}", fault),
            }
        }

        #[test]
        fn what_a_crash_cuts_short_is_told_from_damage(batches in any_batches(), kept in any_arrival(), bit: Index) {
            let (index, _, identity) = indexed(&batches);
            let whole = encoded(&index, &identity);
            let half = torn(&vec![0; whole.len()], &whole, |at| kept[at % kept.len()]);
            prop_assert_eq!(decode(&half).is_err(), is_cut_short(&half));
            let mut damaged = whole;
            let bit = bit.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_cut_short(&damaged));
        }

        #[test]
        fn truncation_forgets_what_lay_behind(batches in any_batches(), cut: Index) {
            let (mut index, all, _) = indexed(&batches);
            prop_assume!(!all.is_empty());
            let end = all[cut.index(all.len())].1;
            index.truncate(end);
            prop_assert!(index.entries.iter().all(|entry| entry.position < end));
            index.check(end).unwrap();
        }

        /// Every checksum fits and the content is anything.
        #[test]
        fn any_content_is_harmless(batches in any_batches(), changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6)) {
            let (index, _, identity) = indexed(&batches);
            let mut file = encoded(&index, &identity);
            for (at, byte) in changes {
                file[6 + at.index(120)] = byte;
            }
            let (covered, checksum) = file.split_last_chunk_mut::<4>().unwrap();
            *checksum = Checksum::of(covered).0.to_le_bytes();
            if let Ok((identity, index)) = decode(&file) {
                index.check(identity.end).unwrap();
            }
        }
    }

    #[test]
    fn an_idle_index_takes_no_memory() {
        assert_eq!(SparseIndex::new(BASE).entries.capacity(), 0);
        assert_eq!(SparseIndex::new(BASE).lookup(Offset(5000)), (BASE, Position(0)));
        assert_eq!(SparseIndex::new(BASE).lookup_time(Timestamp(0)), None);
    }

    #[test]
    fn large_batches_do_not_thin_out_the_front() {
        const SEGMENT_BYTES: u64 = 1 << 30;
        for bytes in [64 << 10, 100_000, 256 << 10, 1 << 20] {
            let batches = vec![(100, bytes, 7); (SEGMENT_BYTES / bytes) as usize];
            let (index, _, _) = indexed(&batches);
            let widest = index.entries.windows(2).map(|pair| pair[1].position.0 - pair[0].position.0).max();
            assert!(
                widest.is_some_and(|widest| widest <= SEGMENT_BYTES / 256 + bytes),
                "batches of {bytes} bytes: {widest:?} between two entries of {}",
                index.entries.len()
            );
        }
    }

    #[test]
    fn files_are_written_as_they_always_were() {
        let batches: Vec<Batch> = (0..600).map(|at| (3, 4096 + at, 1_700_000_000_000 + at as i64 * 7)).collect();
        let (index, _, identity) = indexed(&batches);
        assert_eq!(index.interval, 2 * INTERVAL_BYTES_MIN, "the example was thinned out once");
        let stored = golden("index-v1.bin", &encoded(&index, &identity));
        assert_eq!(decode(&stored), Ok((identity, index)));
    }
}
