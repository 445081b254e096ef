//! Compaction: of each key the last record stays. What is looked at, what stays, and how batches go on to follow one another:
//! decisions only, in Kafka's sense.
//!
//! A pass reads the sealed segments that no pass has seen yet and notes for every key the offset of its last record, for as many
//! keys as there is memory for. Then it writes all segments up to there anew, oldest first, without the records of those
//! keys that come before. A record without a value says that its key is gone; it stays for `delete.retention.ms` after the
//! pass that saw it first, so that who reads the log meanwhile hears of it.

use crate::limits::COMPACTION_BATCH_BYTES;
use crate::metadata::TopicSettings;
use crate::model::{LeaderEpoch, Offset, Timestamp};
use crate::planted::{self, Bug};
use corelog_batch::{BatchError, BatchView, Rebuild, Record, empty, extend};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A sealed segment, as far as compaction looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset after its last record.
    pub next: Offset,
    /// Its bytes.
    pub bytes: u64,
    /// The newest timestamp in it; negative when its producers gave none.
    pub max_timestamp: Timestamp,
}

/// What a partition has to be compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dirt {
    /// How many of the segments may be looked at.
    pub segments: usize,
    /// Which part of their bytes no pass has seen, from 0 to 1.
    pub ratio: f64,
    /// Some of it has waited for `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

/// What there is to do in `sealed` segments, which come oldest first; `cleaned` is the offset up to which a pass was there.
/// None if there is nothing.
pub fn dirt(settings: &TopicSettings, now: Timestamp, sealed: &[Segment], cleaned: Offset) -> Option<Dirt> {
    let is_older =
        |segment: &Segment, ms: u64| i128::from(now.0) - i128::from(segment.max_timestamp.0) > i128::from(ms);
    let lag = settings.min_compaction_lag_ms;
    let may_be_seen = |segment: &&Segment| lag == 0 || segment.next <= cleaned || is_older(segment, lag);
    let segments = sealed.iter().take_while(may_be_seen).count();
    let sealed = &sealed[..segments];
    let first = sealed.iter().position(|segment| segment.next > cleaned)?;
    let bytes = |segments: &[Segment]| segments.iter().map(|segment| segment.bytes).sum::<u64>() as f64;
    // The oldest record of a segment is not known; it is not older than the newest one of the segment before.
    let before = sealed[first.saturating_sub(1)];
    let is_overdue = is_older(&before, settings.max_compaction_lag_ms);
    Some(Dirt { segments, ratio: bytes(&sealed[first..]) / bytes(sealed).max(1.0), is_overdue })
}

impl Dirt {
    /// Whether it is worth a pass.
    pub fn is_due(&self, settings: &TopicSettings) -> bool {
        self.is_overdue || self.ratio > settings.min_dirty_ratio()
    }
}

/// How many of the segments at the front are written anew as one: as many as fit in a segment, at least one.
pub fn group(settings: &TopicSettings, sealed: &[Segment]) -> usize {
    let mut bytes = 0;
    let fits = |segment: &&Segment| {
        bytes += segment.bytes;
        bytes <= u64::from(settings.segment_bytes)
    };
    sealed.iter().take_while(fits).count().max(1).min(sealed.len())
}

/// No more keys than a pass has memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// For each key the offset of its last record.
///
/// Keys stand there by 128 bits of a hash with a seed that nobody outside knows: two different ones that meet, of which a record would
/// be lost, are not to be expected in the life of any machine.
#[derive(Debug)]
pub struct Keys {
    newest: HashMap<KeyHash, i64, BuildHasherDefault<FirstWord>>,
    seeds: [u64; 2],
    max: usize,
}

/// What a key is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyHash([u64; 2]);

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// What was hashed already is its own hash.
#[derive(Debug, Default)]
struct FirstWord(u64);

impl Hasher for FirstWord {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("it is asked for one word");
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

impl Keys {
    /// Of at most `max` keys. Room for all of them is asked for at once: to grow would take half as much again.
    pub fn new(seeds: [u64; 2], max: usize) -> Keys {
        Keys { newest: HashMap::with_capacity_and_hasher(max, BuildHasherDefault::default()), seeds, max }
    }

    /// Notes a record; they come in the order of their offsets.
    ///
    /// # Errors
    /// There is no room for another key.
    pub fn note(&mut self, key: &[u8], offset: i64) -> Result<(), Full> {
        let hash = self.hash(key);
        if let Some(newest) = self.newest.get_mut(&hash) {
            *newest = offset;
            return Ok(());
        }
        if self.newest.len() >= self.max {
            return Err(Full);
        }
        self.newest.insert(hash, offset);
        Ok(())
    }

    fn is_newest(&self, key: &[u8], offset: i64) -> bool {
        let least = i64::from(planted::active(Bug::NewestLeftOut));
        self.newest.get(&self.hash(key)).is_none_or(|newest| offset - newest >= least)
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.seeds.map(|seed| {
            let mut hasher = DefaultHasher::new();
            (seed, key).hash(&mut hasher);
            hasher.finish()
        }))
    }
}

/// Notes the keys of a batch, from an offset on; the offset of the record for which there is no more room, if there is one.
pub fn note_keys(keys: &mut Keys, batch: &BatchView<'_>, from: Offset, scratch: &mut Vec<u8>) -> Option<Offset> {
    // What cannot be looked into stays as it is.
    let records = look_into(batch).and_then(|()| batch.records(scratch, COMPACTION_BATCH_BYTES)).ok()?;
    let new = records.map_while(Result::ok).skip_while(|record| record.offset < from.0);
    let mut full = new.filter(|record| record.key.is_some_and(|key| keys.note(key, record.offset) == Err(Full)));
    full.next().map(|record| Offset(record.offset))
}

/// Whether a batch's records may be looked at.
fn look_into(batch: &BatchView<'_>) -> Result<(), BatchError> {
    let size = batch.bytes().len();
    if batch.is_control() || size > COMPACTION_BATCH_BYTES {
        return Err(BatchError::TooLarge { size, max: COMPACTION_BATCH_BYTES });
    }
    Ok(())
}

/// How records are judged in one pass.
#[derive(Debug)]
pub struct Judge<'a> {
    /// What the pass has seen.
    pub keys: &'a Keys,
    /// Up to which offset.
    pub to: Offset,
    /// The record at this offset stays, whatever it is: a log that ends with a batch without records would keep readers from its end.
    pub last: Offset,
    /// Records before this offset were deleted.
    pub first: Offset,
    /// By the clock of this node.
    pub now: Timestamp,
    /// How long records without a value stay, in milliseconds.
    pub delete_retention_ms: u64,
}

impl Judge<'_> {
    fn stays(&self, record: &Record<'_>, horizon: Option<i64>, may_forget: bool) -> bool {
        if record.offset >= self.to.0 || record.offset == self.last.0 {
            return true;
        }
        // As in Kafka: what has no key means nothing in such a topic.
        let Some(key) = record.key.filter(|_| record.offset >= self.first.0) else { return false };
        let is_over = record.value.is_none() && horizon.is_some_and(|horizon| horizon < self.now.0);
        self.keys.is_newest(key, record.offset) && !(is_over && may_forget)
    }

    fn horizon(&self) -> i64 {
        self.now.0.saturating_add(i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX))
    }
}

/// Batches of consecutive segments, written anew so that they follow one another as before.
#[derive(Debug)]
pub struct Rewriter {
    /// The batch that may yet stand for more offsets.
    pending: Vec<u8>,
    /// The offset that the next batch begins with.
    next: Offset,
    /// The leader epoch of what came last.
    epoch: LeaderEpoch,
    scratch: Vec<u8>,
    /// A batch stays that could not be looked into: what it has of a key must not come back when the news that it is gone is.
    has_unread: bool,
    /// Records that were left out.
    pub left_out: u64,
    /// Something else than batches without records came out.
    has_records: bool,
}

impl Rewriter {
    /// Of segments that begin with this offset. `has_unread`: whether one in front of them could not be looked into.
    pub fn new(base: Offset, has_unread: bool) -> Rewriter {
        let (pending, scratch) = (Vec::new(), Vec::new());
        Rewriter { pending, next: base, epoch: LeaderEpoch(0), scratch, has_unread, left_out: 0, has_records: false }
    }

    /// Whether a batch so far could not be looked into.
    pub fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Takes the next stored batch. Gives those that are ready to `put`, whole and stamped.
    pub fn take(&mut self, batch: &BatchView<'_>, judge: &Judge<'_>, mut put: impl FnMut(&[u8])) {
        assert_eq!(self.next.0, batch.base_offset(), "batches follow one another");
        self.epoch = self.epoch.max(LeaderEpoch(batch.leader_epoch()));
        let (next, mut out) = (Offset(batch.next_offset()), Vec::new());
        // One that only stands for offsets goes, if the next can begin with them.
        let base = self.placeholder().filter(|base| i32::try_from(next.0 - base).is_ok());
        let is_seen = batch.base_offset() < judge.to.0 || base.is_some();
        let came = if is_seen { self.rebuild(batch, judge, base, &mut out) } else { Ok(None) };
        self.has_unread |= came.is_err();
        match came {
            Ok(Some(0)) => return self.stand_for(next, put),
            Ok(Some(_)) if base.is_some() => {}
            _ if self.pending.is_empty() => {}
            _ => put(&self.pending),
        }
        if !matches!(came, Ok(Some(_))) {
            out.clear();
            out.extend_from_slice(batch.bytes());
        }
        self.has_records = true;
        (self.pending, self.next) = (out, next);
    }

    /// Whether something stays. A segment of which nothing does is best written as one with the next: clients make little of a batch
    /// without records.
    pub fn has_records(&self) -> bool {
        self.has_records
    }

    /// Where the pending batch begins, if it has no records.
    fn placeholder(&self) -> Option<i64> {
        let pending = BatchView::first(&self.pending).ok()?;
        (pending.record_count() == 0).then(|| pending.base_offset())
    }

    /// How many records stay.
    fn rebuild(
        &mut self,
        batch: &BatchView<'_>,
        judge: &Judge<'_>,
        base: Option<i64>,
        out: &mut Vec<u8>,
    ) -> Result<Option<u32>, BatchError> {
        look_into(batch)?;
        let base = base.unwrap_or(batch.base_offset());
        // The day after which the news that a key is gone may go begins when all that the key had is gone.
        let horizon = (batch.next_offset() <= judge.to.0).then(|| judge.horizon());
        let how = Rebuild { base, horizon, unpacked_max: COMPACTION_BATCH_BYTES };
        let (horizon, may_forget) = (batch.delete_horizon(), !self.has_unread);
        let keep = |record: &Record<'_>| judge.stays(record, horizon, may_forget);
        let rebuilt = batch.rebuild(&how, &mut self.scratch, out, keep)?;
        self.left_out += u64::from(rebuilt.left_out);
        Ok(Some(rebuilt.kept))
    }

    /// Has what there is so far go on to this offset.
    fn stand_for(&mut self, next: Offset, mut put: impl FnMut(&[u8])) {
        if !self.pending.is_empty() && extend(&mut self.pending, next.0 - 1) {
            self.next = next;
            return;
        }
        if !self.pending.is_empty() {
            put(&self.pending);
        }
        self.pending = empty(self.next.0, next.0 - 1, self.epoch.0).to_vec();
        self.next = next;
    }

    /// The offset behind what was taken.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The last batch.
    pub fn finish(&mut self, put: impl FnOnce(&[u8])) {
        if !self.pending.is_empty() {
            put(&self.pending);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_batch::{BatchBuilder, Codec, batches, stamp};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const DAY: u64 = 86_400_000;

    /// Offset, key, and value if it has one.
    type Plain = (i64, Vec<u8>, Option<Vec<u8>>);

    fn settings(pairs: &[(&str, &str)]) -> TopicSettings {
        TopicSettings::parse(&[&[("cleanup.policy", "compact")], pairs].concat()).unwrap()
    }

    fn segment(next: i64, bytes: u64, max_timestamp: i64) -> Segment {
        Segment { next: Offset(next), bytes, max_timestamp: Timestamp(max_timestamp) }
    }

    /// One batch for each list of records, each a key and perhaps a value.
    fn log(codec: Codec, lists: &[Vec<(u8, bool)>]) -> Vec<u8> {
        let (mut bytes, mut next) = (Vec::new(), 0);
        for records in lists {
            let mut builder = BatchBuilder::new(1 << 20, codec);
            for (at, (key, has_value)) in (next..).zip(records) {
                let value = has_value.then(|| i64::to_be_bytes(at).repeat(4));
                builder.append(Some(&[*key]), value.as_deref(), &[], at).unwrap();
            }
            let mut batch = builder.build().unwrap();
            stamp(batch.first_chunk_mut().unwrap(), next, 0);
            next += records.len() as i64;
            bytes.extend(batch);
        }
        bytes
    }

    fn plain(bytes: &[u8]) -> Vec<Plain> {
        let mut records = Vec::new();
        let mut next = 0;
        for batch in batches(bytes) {
            let batch = batch.unwrap();
            assert_eq!((batch.base_offset(), batch.crc()), (next, batch.computed_crc()), "it follows the one before");
            next = batch.next_offset();
            for record in batch.records(&mut Vec::new(), 1 << 20).unwrap() {
                let record = record.unwrap();
                assert_eq!(record.timestamp, record.offset, "as it was sent");
                records.push((record.offset, record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec)));
            }
        }
        records
    }

    fn end(bytes: &[u8]) -> i64 {
        batches(bytes).last().map_or(0, |batch| batch.unwrap().next_offset())
    }

    /// A pass over one segment, with memory for so many keys; what comes out, and up to where the pass was.
    fn pass(bytes: &[u8], cleaned: Offset, keys_max: usize, now: Timestamp) -> (Vec<u8>, Offset) {
        let (mut keys, mut to) = (Keys::new([3, 4], keys_max), Offset(end(bytes)));
        for batch in batches(bytes).map(Result::unwrap).filter(|batch| batch.next_offset() > cleaned.0) {
            if let Some(full) = note_keys(&mut keys, &batch, cleaned, &mut Vec::new()) {
                to = full;
                break;
            }
        }
        let last = Offset(end(bytes) - 1);
        let judge = Judge { keys: &keys, to, last, first: Offset(0), now, delete_retention_ms: DAY };
        let (mut rewriter, mut out) = (Rewriter::new(Offset(0), false), Vec::new());
        for batch in batches(bytes).map(Result::unwrap) {
            rewriter.take(&batch, &judge, |batch| out.extend_from_slice(batch));
        }
        rewriter.finish(|batch| out.extend_from_slice(batch));
        (out, to)
    }

    /// What a reader knows of each key in the end: nothing of one that is gone.
    fn state(records: &[Plain]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        for (_, key, value) in records {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        state
    }

    fn any_log() -> impl Strategy<Value = Vec<Vec<(u8, bool)>>> {
        let record = (0u8..12, prop::bool::weighted(0.7));
        prop::collection::vec(prop::collection::vec(record, 1..8), 1..20)
    }

    proptest! {
        #[test]
        fn of_each_key_the_last_stays(lists in any_log(), keys_max in 1usize..16, codec in 0usize..5) {
            let sent = log(Codec::ALL[codec], &lists);
            let all = plain(&sent);
            let (mut bytes, mut cleaned, mut passes) = (sent.clone(), Offset(0), 0);
            while cleaned.0 < end(&sent) {
                let before = plain(&bytes);
                (bytes, cleaned) = pass(&bytes, cleaned, keys_max, NOW);
                let after = plain(&bytes);
                prop_assert_eq!(end(&bytes), end(&sent), "offsets are taken");
                prop_assert!(after.iter().all(|record| before.contains(record)), "nothing is made up");
                prop_assert_eq!(state(&after), state(&all));
                passes += 1;
                prop_assert!(passes <= all.len(), "each gets on");
            }
            let is_last = |record: &&Plain| all.iter().rfind(|other| other.1 == record.1) == Some(*record);
            if keys_max >= 12 {
                prop_assert_eq!(plain(&bytes), all.iter().filter(is_last).cloned().collect::<Vec<_>>());
            }
            // The news that a key is gone stays for a day, and then goes.
            let (kept, _) = pass(&bytes, cleaned, keys_max, Timestamp(NOW.0 + DAY as i64));
            prop_assert_eq!(plain(&kept), plain(&bytes));
            let (rid, _) = pass(&bytes, cleaned, keys_max, Timestamp(NOW.0 + DAY as i64 + 1));
            let end = end(&sent) - 1;
            prop_assert!(plain(&rid).iter().all(|record| record.2.is_some() || record.0 == end), "but for the last");
            prop_assert!(batches(&rid).all(|batch| batch.unwrap().record_count() > 0));
            prop_assert_eq!(state(&plain(&rid)), state(&all));
        }
    }

    #[test]
    fn what_cannot_be_looked_into_stays_and_nothing_of_it_comes_back() {
        let mut sent = log(Codec::Gzip, &[vec![(1, true)], vec![(1, true)], vec![(1, false)]]);
        let first = batches(&sent).next().unwrap().unwrap().bytes().len();
        // As it was sent, and unreadable.
        sent[first - 1] ^= 1;
        let crc = corelog_batch::crc32c(&sent[21..first]);
        sent[17..21].copy_from_slice(&crc.to_be_bytes());
        let (bytes, to) = pass(&sent, Offset(0), 10, NOW);
        let (later, _) = pass(&bytes, to, 10, Timestamp(NOW.0 + DAY as i64 * 2));
        for bytes in [bytes, later] {
            let found: Vec<_> = batches(&bytes).map(|batch| batch.unwrap()).collect();
            assert_eq!(found[0].bytes().len(), first);
            assert!(found[0].records(&mut Vec::new(), 1000).is_err());
            let mut scratch = Vec::new();
            let last = found[1].records(&mut scratch, 1000).unwrap().next().unwrap().unwrap();
            assert_eq!(
                (found.len(), last.offset, last.value),
                (2, 2, None),
                "the news stays for what may be in the first"
            );
        }
    }

    #[test]
    fn there_is_something_to_do_when_enough_is_new() {
        let sealed = [segment(10, 100, 1000), segment(20, 50, 2000), segment(30, 50, 3000)];
        let at = |pairs: &[(&str, &str)], cleaned| {
            let settings = settings(pairs);
            let dirt = dirt(&settings, Timestamp(4000), &sealed, Offset(cleaned));
            dirt.map(|dirt| (dirt.segments, dirt.ratio, dirt.is_due(&settings)))
        };
        assert_eq!(at(&[], 0), Some((3, 1.0, true)));
        assert_eq!(at(&[], 10), Some((3, 0.5, false)));
        assert_eq!(at(&[("min.cleanable.dirty.ratio", "0.4")], 10), Some((3, 0.5, true)));
        assert_eq!(at(&[], 25), Some((3, 0.25, false)));
        assert_eq!(at(&[], 30), None);
        assert_eq!(at(&[("min.compaction.lag.ms", "1000")], 0), Some((2, 1.0, true)), "the last one is too young");
        assert_eq!(at(&[("min.compaction.lag.ms", "1000")], 20), None);
        assert_eq!(at(&[("max.compaction.lag.ms", "2000")], 20), Some((3, 0.25, false)));
        assert_eq!(
            at(&[("max.compaction.lag.ms", "1999")], 20),
            Some((3, 0.25, true)),
            "what is new is older than that"
        );
        let one = [("segment.bytes", "65536")];
        let sizes =
            |bytes: &[u64]| group(&settings(&one), &bytes.iter().map(|b| segment(1, *b, 1)).collect::<Vec<_>>());
        assert_eq!([sizes(&[30_000, 30_000, 6000]), sizes(&[99_999, 1]), sizes(&[1])], [2, 1, 1]);
    }

    #[test]
    fn so_many_offsets_as_a_batch_cannot_have_are_stood_for_by_several() {
        let keys = Keys::new([1, 2], 1);
        let far = Offset(3 << 31);
        let judge = Judge { keys: &keys, to: far, last: far, first: far, now: NOW, delete_retention_ms: 0 };
        let (mut rewriter, mut out) = (Rewriter::new(Offset(0), false), Vec::new());
        for base in 0..3i64 {
            let batch = corelog_batch::empty(base << 31, ((base + 1) << 31) - 1, 7);
            rewriter.take(&BatchView::first(&batch).unwrap(), &judge, |batch| out.extend_from_slice(batch));
        }
        rewriter.finish(|batch| out.extend_from_slice(batch));
        assert_eq!((plain(&out), end(&out)), (vec![], far.0));
        assert!(batches(&out).all(|batch| batch.unwrap().leader_epoch() == 7));
    }
}
