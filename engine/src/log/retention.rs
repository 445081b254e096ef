//! Which segments a partition may lose, and when its active one is to be sealed: decisions only, in Kafka's sense.
//!
//! Whole segments go, oldest first, and never past one that has to stay: offsets stay contiguous.

use crate::metadata::TopicSettings;
use crate::model::{Offset, Timestamp};

/// A sealed segment, as far as retention looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first record.
    pub base: Offset,
    /// Offset of its last record.
    pub last: Offset,
    /// Bytes of its batches.
    pub bytes: u64,
    /// The newest timestamp in it; negative when its producers gave none.
    pub max_timestamp: Timestamp,
}

/// The rest of what a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The first offset that readers may ask for. Segments wholly below it go, whatever the settings.
    pub first: Offset,
    /// What is at or past it may still be undone, and stays.
    pub high_watermark: Offset,
    /// Bytes of the active segment's batches.
    pub active_bytes: u64,
}

/// How many of the `sealed` segments, which come oldest first, are to be dropped from the front.
pub fn expired(settings: &TopicSettings, now: Timestamp, sealed: &[Segment], rest: &Rest) -> usize {
    let droppable = sealed.iter().take_while(|segment| segment.last < rest.high_watermark).count();
    let below_first = sealed.iter().take_while(|segment| segment.last < rest.first).count();
    let retention_ms = settings.retention_ms.filter(|_| settings.deletes());
    let retention_bytes = settings.retention_bytes.filter(|_| settings.deletes());
    let by_time = retention_ms.map_or(0, |retention| expired_by_time(retention, now, sealed));
    let by_size = retention_bytes.map_or(0, |retention| expired_by_size(retention, sealed, rest));
    below_first.max(by_time).max(by_size).min(droppable)
}

/// Whether the active segment, of `bytes` and begun at `since`, is to be sealed for its age: its time is up, or all of it
/// is past its retention and could go if it were sealed.
pub fn seal_due(
    settings: &TopicSettings,
    now: Timestamp,
    bytes: u64,
    since: Timestamp,
    max_timestamp: Timestamp,
) -> bool {
    let is_old = is_older(now, since, settings.seal_ms());
    let retention_ms = settings.retention_ms.filter(|_| settings.deletes());
    let is_expired = retention_ms.is_some_and(|retention| is_past(retention, now, max_timestamp));
    bytes > 0 && (is_old || is_expired)
}

/// A segment without timestamps is as old as the next one that has some, at least.
fn expired_by_time(retention_ms: u64, now: Timestamp, sealed: &[Segment]) -> usize {
    let stays = |segment: &Segment| segment.max_timestamp.0 >= 0 && !is_past(retention_ms, now, segment.max_timestamp);
    let before_one_that_stays = &sealed[..sealed.iter().position(stays).unwrap_or(sealed.len())];
    let newest_dated = before_one_that_stays.iter().rposition(|segment| segment.max_timestamp.0 >= 0);
    newest_dated.map_or(0, |index| index + 1)
}

/// Drops while what is left is at least `retention_bytes`: a partition holds that much, not less.
fn expired_by_size(retention_bytes: u64, sealed: &[Segment], rest: &Rest) -> usize {
    let mut left = rest.active_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    let is_spare = |segment: &&Segment| {
        left = left.saturating_sub(segment.bytes);
        left >= retention_bytes
    };
    sealed.iter().take_while(is_spare).count()
}

fn is_past(retention_ms: u64, now: Timestamp, newest: Timestamp) -> bool {
    newest.0 >= 0 && is_older(now, newest, retention_ms)
}

/// Producers choose timestamps: the difference of two may exceed 64 bits.
fn is_older(now: Timestamp, then: Timestamp, ms: u64) -> bool {
    i128::from(now.0) - i128::from(then.0) > i128::from(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const NONE: Timestamp = Timestamp(-1);

    fn settings(pairs: &[(&str, &str)]) -> TopicSettings {
        let mut settings = TopicSettings::parse(&[("retention.ms", "-1")]).unwrap();
        for (key, value) in pairs {
            settings.set(key, value).unwrap();
        }
        settings
    }

    /// Segments of ten records and 100 bytes with these newest timestamps.
    fn sealed(timestamps: &[i64]) -> Vec<Segment> {
        let segment = |(index, timestamp): (usize, &i64)| Segment {
            base: Offset(index as i64 * 10),
            last: Offset(index as i64 * 10 + 9),
            bytes: 100,
            max_timestamp: Timestamp(*timestamp),
        };
        timestamps.iter().enumerate().map(segment).collect()
    }

    fn rest(active_bytes: u64) -> Rest {
        Rest { first: Offset(0), high_watermark: Offset(i64::MAX), active_bytes }
    }

    #[test]
    fn segments_go_when_their_newest_record_is_older_than_retention_ms() {
        let hour = settings(&[("retention.ms", "1000")]);
        let at = |timestamps: &[i64]| expired(&hour, NOW, &sealed(timestamps), &rest(0));
        assert_eq!(at(&[998_999, 998_999, 999_000, 1_000_000]), 2, "exactly as old as allowed stays");
        assert_eq!(at(&[1_000_000, 1, 1]), 0, "never past one that stays");
        assert_eq!(at(&[2_000_000, 1]), 0, "a clock that was ahead keeps its segment");
        assert_eq!(at(&[i64::MAX, 1]), 0);
        assert_eq!(expired(&settings(&[]), NOW, &sealed(&[1, 1]), &rest(0)), 0, "-1 keeps for ever");
        assert_eq!(expired(&settings(&[("retention.ms", "0")]), NOW, &sealed(&[1, 999_999]), &rest(0)), 2);
    }

    #[test]
    fn segments_without_timestamps_are_as_old_as_the_next_that_has_some() {
        let hour = settings(&[("retention.ms", "1000")]);
        let at = |timestamps: &[i64]| expired(&hour, NOW, &sealed(timestamps), &rest(0));
        assert_eq!(at(&[-1, -1, 5, -1]), 3);
        assert_eq!(at(&[-1, -1]), 0, "nothing says that they are old");
        assert_eq!(at(&[-1, 1_000_000]), 0);
        assert_eq!(at(&[5, -1, 1_000_000]), 1);
    }

    #[test]
    fn segments_go_while_retention_bytes_would_still_be_there() {
        let at = |bytes: &str, active| {
            expired(&settings(&[("retention.bytes", bytes)]), NOW, &sealed(&[1, 1, 1, 1]), &rest(active))
        };
        assert_eq!(at("-1", 0), 0);
        assert_eq!(at("200", 0), 2);
        assert_eq!(at("201", 0), 1, "not less than retention.bytes is left");
        assert_eq!(at("200", 50), 2);
        assert_eq!(at("200", 100), 3, "the active segment counts");
        assert_eq!(at("0", 0), 4);
        assert_eq!(at("400", 0), 0);
        assert_eq!(at("9223372036854775807", 0), 0);
    }

    #[test]
    fn what_was_deleted_by_hand_goes_whatever_the_settings() {
        let segments = sealed(&[1, 1, 1]);
        let at = |first| expired(&settings(&[]), NOW, &segments, &Rest { first: Offset(first), ..rest(0) });
        assert_eq!([at(0), at(9), at(10), at(25), at(30), at(99)], [0, 0, 1, 2, 3, 3]);
    }

    #[test]
    fn what_is_only_compacted_is_not_deleted() {
        let at = |policy| {
            let pairs = [("cleanup.policy", policy), ("retention.ms", "10"), ("retention.bytes", "0")];
            let settings = settings(&[&pairs[..], &[("max.compaction.lag.ms", "70000")]].concat());
            let is_sealed = |age| seal_due(&settings, NOW, 100, Timestamp(NOW.0 - age), Timestamp(1));
            (expired(&settings, NOW, &sealed(&[1, 1, 1]), &rest(0)), is_sealed(1), is_sealed(70_001))
        };
        assert_eq!(at("compact"), (0, false, true));
        assert_eq!(at("compact,delete"), (3, true, true));
        let by_hand = settings(&[("cleanup.policy", "compact")]);
        assert_eq!(expired(&by_hand, NOW, &sealed(&[1, 1]), &Rest { first: Offset(10), ..rest(0) }), 1);
    }

    #[test]
    fn what_may_still_be_undone_stays() {
        let all = settings(&[("retention.bytes", "0")]);
        let at = |mark| expired(&all, NOW, &sealed(&[1, 1, 1]), &Rest { high_watermark: Offset(mark), ..rest(0) });
        assert_eq!([at(0), at(9), at(10), at(29), at(30)], [0, 0, 1, 2, 3]);
    }

    #[test]
    fn the_active_segment_is_sealed_for_its_age() {
        let due = |pairs: &[(&str, &str)], bytes, since: i64, newest: Timestamp| {
            seal_due(&settings(pairs), NOW, bytes, Timestamp(since), newest)
        };
        let minute = [("segment.ms", "60000")];
        assert!(!due(&minute, 100, 940_000, NOW));
        assert!(due(&minute, 100, 939_999, NOW));
        assert!(!due(&minute, 0, 0, NONE), "an empty one has no age");
        let expires = [("segment.ms", "60000"), ("retention.ms", "10")];
        assert!(due(&expires, 100, 1_000_000, Timestamp(1)), "else nothing of it could ever expire");
        assert!(!due(&expires, 100, 1_000_000, Timestamp(999_990)));
        assert!(!due(&expires, 100, 1_000_000, NONE));
    }

    proptest! {
        #[test]
        fn never_below_retention_bytes_and_never_a_segment_too_many(
            sizes in proptest::collection::vec(0u64..1000, 0..20), active in 0u64..1000, keep in 0u64..5000
        ) {
            let segments: Vec<_> = sealed(&vec![1; sizes.len()]);
            let segments: Vec<_> = segments.iter().zip(&sizes).map(|(s, bytes)| Segment { bytes: *bytes, ..*s }).collect();
            let drop = expired(&settings(&[("retention.bytes", &keep.to_string())]), NOW, &segments, &rest(active));
            let left = |from: usize| active + sizes[from..].iter().sum::<u64>();
            prop_assert!(drop == 0 || left(drop) >= keep);
            prop_assert!(drop == sizes.len() || left(drop + 1) < keep, "one more could have gone");
        }

        #[test]
        fn no_timestamps_overflow(newest: i64, now: i64, ms in 0u64..=i64::MAX as u64) {
            let settings = settings(&[("retention.ms", &ms.to_string())]);
            let segments = sealed(&[newest, newest]);
            let dropped = expired(&settings, Timestamp(now), &segments, &rest(0));
            prop_assert!(dropped == 0 || dropped == 2);
            seal_due(&settings, Timestamp(now), 1, Timestamp(newest), Timestamp(newest));
        }
    }
}
