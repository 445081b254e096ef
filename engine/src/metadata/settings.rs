//! Settings of a topic: Kafka's names and meanings where Kafka has the setting, and `durability`, which is ours.
//!
//! One table says for every key what it is allowed to be, how it is read and how it is shown; a second one names what
//! of Kafka's is refused, and why. Nothing is accepted and then ignored.

use crate::limits::{COMPACTION_BATCH_BYTES, MESSAGE_BYTES_MAX, REPACKED_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::model::Timestamp;
use corelog_batch::Codec;
use std::fmt;

/// The longest value that is looked at, in bytes. No setting needs as much; an error quotes what it was given.
const VALUE_BYTES_MAX: usize = 128;

/// How much has happened to a record when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// It is in the memory of the owning shard (and of its replicas, once there are any).
    Memory,
    /// It was handed to the device: it survives a crash of the process, not a power cut.
    Write,
    /// It is on stable storage.
    Flush,
}

impl Durability {
    /// The word that stands for it in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Write => "write",
            Durability::Flush => "flush",
        }
    }
}

/// Kafka's word for a number that is never reached.
const NEVER: &str = "9223372036854775807";

/// What happens to old segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cleanup {
    /// They are deleted when they are too old or too much.
    Delete,
    /// Of each key the last record stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl Cleanup {
    fn parse(text: &str) -> Option<Cleanup> {
        match text {
            "delete" => Some(Cleanup::Delete),
            "compact" => Some(Cleanup::Compact),
            "compact,delete" | "delete,compact" => Some(Cleanup::CompactAndDelete),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactAndDelete => "compact,delete",
        }
    }
}

/// Whose clock the time of a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The server's, when it is appended.
    LogAppendTime,
}

impl TimestampType {
    fn parse(text: &str) -> Option<TimestampType> {
        [TimestampType::CreateTime, TimestampType::LogAppendTime].into_iter().find(|one| one.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        }
    }
}

/// What is in force for a topic, defaults included.
///
/// Values may be read directly. They are set by [`TopicSettings::set`] and [`TopicSettings::unset`] only, which check
/// them and remember which ones were given: just those are stored, so that a default may improve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// Largest record batch, in bytes, as it is stored.
    pub max_message_bytes: u32,
    /// A segment is sealed before it would grow past this, in bytes.
    pub segment_bytes: u32,
    /// A segment that is not empty is sealed at this age, in milliseconds.
    pub segment_ms: u64,
    /// Segments whose newest record is older are deleted, in milliseconds; `None` keeps them for ever.
    pub retention_ms: Option<u64>,
    /// Oldest segments are deleted while the partition would still hold this many bytes; `None` is no bound.
    pub retention_bytes: Option<u64>,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// What happens to old segments.
    pub cleanup: Cleanup,
    /// How batches are compressed when they are stored; `None` leaves it to the producer.
    pub compression: Option<Codec>,
    /// Whose clock the time of a record is from.
    pub timestamps: TimestampType,
    /// How far a producer's time may be before the server's, in milliseconds.
    pub timestamp_before_max_ms: u64,
    /// How far it may be after the server's.
    pub timestamp_after_max_ms: u64,
    /// How long records without a value stay once compaction has seen them, in milliseconds.
    pub delete_retention_ms: u64,
    /// Younger records are not compacted, in milliseconds.
    pub min_compaction_lag_ms: u64,
    /// Older records are, as soon as it can be, in milliseconds.
    pub max_compaction_lag_ms: u64,
    /// Compaction waits until so many millionths of a partition were not compacted yet.
    min_dirty_millionths: u32,
    /// Bit `i` is set when entry `i` of `TABLE` was given and is not a default.
    given: u32,
}

/// A setting that was refused. The caller has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such key, here or in Kafka.
    #[error("unknown setting {key:?}; did you mean {nearest:?}?")]
    Unknown {
        /// What was given, cut off where it is absurdly long.
        key: String,
        /// The valid key that is nearest to it.
        nearest: &'static str,
    },
    /// Kafka has this setting, and it is refused here.
    #[error("setting {key:?} is not available: {reason}")]
    Unavailable {
        /// The key.
        key: &'static str,
        /// Why, and what to use instead.
        reason: &'static str,
    },
    /// The value is not allowed.
    #[error("setting {key:?} cannot be {value:?}; it must be {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given, cut off where it is absurdly long.
        value: String,
        /// What would be allowed.
        allowed: &'static str,
    },
}

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its key.
    pub key: &'static str,
    /// Its value in force.
    pub value: String,
    /// Whether nobody has set it.
    pub is_default: bool,
}

/// One line of documentation, for `docs/operations.md` and the command line's help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Documented {
    /// The key.
    pub key: &'static str,
    /// Which values are allowed.
    pub allowed: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

struct Setting {
    key: &'static str,
    allowed: &'static str,
    meaning: &'static str,
    /// Reads a value; `None` when it is not allowed.
    set: fn(&mut TopicSettings, &str) -> Option<()>,
    /// Takes the value over from other settings, to go back to a default.
    copy: fn(&mut TopicSettings, &TopicSettings),
    show: fn(&TopicSettings) -> String,
}

const TABLE: [Setting; 18] = [
    Setting {
        key: "cleanup.policy",
        allowed: "delete, compact, or compact,delete",
        meaning: "what happens to old segments: they are deleted when too old or too much, or of each key the last record stays",
        set: |to, text| Cleanup::parse(text).map(|value| to.cleanup = value),
        copy: |to, from| to.cleanup = from.cleanup,
        show: |of| of.cleanup.as_str().into(),
    },
    Setting {
        key: "compression.type",
        allowed: "producer, uncompressed, gzip, snappy, lz4 or zstd",
        meaning: "how batches are stored: compressed as the producer sent them, or compressed anew where that differs",
        set: |to, text| compression(text).map(|value| to.compression = value),
        copy: |to, from| to.compression = from.compression,
        show: |of| compression_name(of.compression).into(),
    },
    Setting {
        key: "delete.retention.ms",
        allowed: "a number of milliseconds from 0",
        meaning: "how long a record without a value, which says that its key is gone, stays once compaction has seen it",
        set: |to, text| number(text).map(|value| to.delete_retention_ms = value),
        copy: |to, from| to.delete_retention_ms = from.delete_retention_ms,
        show: |of| of.delete_retention_ms.to_string(),
    },
    Setting {
        key: "durability",
        allowed: "flush, write or memory",
        meaning: "what an acknowledgement means: on stable storage, handed to the device, or in memory only",
        set: |to, text| durability(text).map(|value| to.durability = value),
        copy: |to, from| to.durability = from.durability,
        show: |of| of.durability.as_str().into(),
    },
    Setting {
        key: "flush.messages",
        allowed: "9223372036854775807",
        meaning: "told to those who ask; durability says when a record counts as stored",
        set: |_, text| (text == NEVER).then_some(()),
        copy: |_, _| (),
        show: |_| NEVER.into(),
    },
    Setting {
        key: "flush.ms",
        allowed: "9223372036854775807",
        meaning: "told to those who ask; durability says when a record counts as stored",
        set: |_, text| (text == NEVER).then_some(()),
        copy: |_, _| (),
        show: |_| NEVER.into(),
    },
    Setting {
        key: "max.compaction.lag.ms",
        allowed: "a number of milliseconds from 1",
        meaning: "what is older is compacted as soon as it can be; segments are sealed at this age, if segment.ms is more",
        set: |to, text| number(text).filter(|ms| *ms >= 1).map(|value| to.max_compaction_lag_ms = value),
        copy: |to, from| to.max_compaction_lag_ms = from.max_compaction_lag_ms,
        show: |of| of.max_compaction_lag_ms.to_string(),
    },
    Setting {
        key: "max.message.bytes",
        allowed: "a number of bytes from 1024 to 16777216",
        meaning: "largest record batch, as it is stored; one larger than segment.bytes is refused as well",
        set: |to, text| within(text, 1 << 10, MESSAGE_BYTES_MAX).map(|value| to.max_message_bytes = value),
        copy: |to, from| to.max_message_bytes = from.max_message_bytes,
        show: |of| of.max_message_bytes.to_string(),
    },
    Setting {
        key: "message.timestamp.after.max.ms",
        allowed: "a number of milliseconds from 0",
        meaning: "a batch with a record whose time is further ahead of the server's is refused",
        set: |to, text| number(text).map(|value| to.timestamp_after_max_ms = value),
        copy: |to, from| to.timestamp_after_max_ms = from.timestamp_after_max_ms,
        show: |of| of.timestamp_after_max_ms.to_string(),
    },
    Setting {
        key: "message.timestamp.before.max.ms",
        allowed: "a number of milliseconds from 0",
        meaning: "a batch with a record whose time is further behind the server's is refused",
        set: |to, text| number(text).map(|value| to.timestamp_before_max_ms = value),
        copy: |to, from| to.timestamp_before_max_ms = from.timestamp_before_max_ms,
        show: |of| of.timestamp_before_max_ms.to_string(),
    },
    Setting {
        key: "message.timestamp.type",
        allowed: "CreateTime or LogAppendTime",
        meaning: "whose clock a record's time is from: the producer's, or the server's when it is appended",
        set: |to, text| TimestampType::parse(text).map(|value| to.timestamps = value),
        copy: |to, from| to.timestamps = from.timestamps,
        show: |of| of.timestamps.as_str().into(),
    },
    Setting {
        key: "min.cleanable.dirty.ratio",
        allowed: "a number from 0 to 1",
        meaning: "compaction waits until more than this part of a partition's sealed segments was not compacted yet",
        set: |to, text| millionths(text).map(|value| to.min_dirty_millionths = value),
        copy: |to, from| to.min_dirty_millionths = from.min_dirty_millionths,
        show: |of| of.min_dirty_ratio().to_string(),
    },
    Setting {
        key: "min.compaction.lag.ms",
        allowed: "a number of milliseconds from 0",
        meaning: "records that are younger are not compacted",
        set: |to, text| number(text).map(|value| to.min_compaction_lag_ms = value),
        copy: |to, from| to.min_compaction_lag_ms = from.min_compaction_lag_ms,
        show: |of| of.min_compaction_lag_ms.to_string(),
    },
    Setting {
        key: "min.insync.replicas",
        allowed: "1, for replication is not available yet",
        meaning: "told to those who ask",
        set: |_, text| (text == "1").then_some(()),
        copy: |_, _| (),
        show: |_| "1".into(),
    },
    Setting {
        key: "retention.bytes",
        allowed: "-1 (no bound) or a number of bytes from 0",
        meaning: "a partition's oldest segments are deleted while it would still hold as much",
        set: |to, text| unless_minus_one(text).map(|value| to.retention_bytes = value),
        copy: |to, from| to.retention_bytes = from.retention_bytes,
        show: |of| minus_one_or(of.retention_bytes),
    },
    Setting {
        key: "retention.ms",
        allowed: "-1 (for ever) or a number of milliseconds from 0",
        meaning: "segments are deleted when their newest record is older",
        set: |to, text| unless_minus_one(text).map(|value| to.retention_ms = value),
        copy: |to, from| to.retention_ms = from.retention_ms,
        show: |of| minus_one_or(of.retention_ms),
    },
    Setting {
        key: "segment.bytes",
        allowed: "a number of bytes from 65536 to 2147483648",
        meaning: "a segment is sealed before it would grow past this",
        set: |to, text| within(text, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).map(|value| to.segment_bytes = value),
        copy: |to, from| to.segment_bytes = from.segment_bytes,
        show: |of| of.segment_bytes.to_string(),
    },
    Setting {
        key: "segment.ms",
        allowed: "a number of milliseconds from 1",
        meaning: "a segment that is not empty is sealed at this age",
        set: |to, text| number(text).filter(|ms| *ms >= 1).map(|value| to.segment_ms = value),
        copy: |to, from| to.segment_ms = from.segment_ms,
        show: |of| of.segment_ms.to_string(),
    },
];

/// Kafka's settings of a topic that have no meaning here, or none yet.
const UNAVAILABLE: [(&str, &str); 15] = [
    ("file.delete.delay.ms", "a segment's file is reused or deleted as soon as no reader holds it"),
    ("follower.replication.throttled.replicas", "replication is not available yet"),
    ("index.interval.bytes", "the index widens its own interval so that it never exceeds 512 entries a segment"),
    ("leader.replication.throttled.replicas", "replication is not available yet"),
    ("local.retention.bytes", "tiered storage is not available"),
    ("local.retention.ms", "tiered storage is not available"),
    ("message.downconversion.enable", "old message formats are neither stored nor served"),
    ("message.format.version", "record batch v2 is the only format"),
    ("message.timestamp.difference.max.ms", "use message.timestamp.before.max.ms and message.timestamp.after.max.ms"),
    ("preallocate", "space is always reserved ahead, in steps that grow"),
    ("remote.log.copy.disable", "tiered storage is not available"),
    ("remote.storage.enable", "tiered storage is not available"),
    ("segment.index.bytes", "an index has at most 512 entries"),
    ("segment.jitter.ms", "segments are sealed by their own age, which spreads by itself"),
    ("unclean.leader.election.enable", "replication is not available yet"),
];

impl Default for TopicSettings {
    fn default() -> TopicSettings {
        TopicSettings {
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            durability: Durability::Flush,
            cleanup: Cleanup::Delete,
            compression: None,
            timestamps: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX as u64,
            timestamp_after_max_ms: 3_600_000,
            delete_retention_ms: 86_400_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX as u64,
            min_dirty_millionths: 500_000,
            given: 0,
        }
    }
}

impl TopicSettings {
    /// The defaults with `pairs` set, in their order; the last one of a key wins.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> Result<TopicSettings, SettingError> {
        let mut settings = TopicSettings::default();
        for (key, value) in pairs {
            settings.set(key.as_ref(), value.as_ref())?;
        }
        Ok(settings)
    }

    /// Gives `key` a value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let index = find(key)?;
        let setting = &TABLE[index];
        let short = value.len() <= VALUE_BYTES_MAX;
        if short && (setting.set)(self, value).is_some() {
            self.given |= 1 << index;
            return Ok(());
        }
        Err(refused(setting, value))
    }

    /// Puts `key` back to its default.
    pub fn unset(&mut self, key: &str) -> Result<(), SettingError> {
        let index = find(key)?;
        (TABLE[index].copy)(self, &TopicSettings::default());
        self.given &= !(1 << index);
        Ok(())
    }

    /// Every setting, in the order of the keys.
    pub fn show(&self) -> Vec<Shown> {
        let shown = |(index, setting): (usize, &Setting)| Shown {
            key: setting.key,
            value: (setting.show)(self),
            is_default: self.given & (1 << index) == 0,
        };
        TABLE.iter().enumerate().map(shown).collect()
    }

    /// What was given and is not a default: what is stored.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.show().into_iter().filter(|shown| !shown.is_default).map(|shown| (shown.key, shown.value))
    }

    /// The largest batch that a partition takes: as in Kafka, one that would not fit a segment is refused too.
    /// So is one that compaction would have to leave as it is, or for which there is no memory to compress it anew.
    pub fn batch_bytes_max(&self) -> u32 {
        let compacted = if self.compacts() { COMPACTION_BATCH_BYTES as u32 } else { u32::MAX };
        let repacked = if self.compression.is_some() { REPACKED_BYTES as u32 } else { u32::MAX };
        self.max_message_bytes.min(self.segment_bytes).min(compacted).min(repacked)
    }

    /// One if batches may have to be compressed anew, else nothing.
    pub(super) fn count_repacked(&self) -> u32 {
        u32::from(self.compression.is_some())
    }

    /// Whether of each key only the last record stays.
    pub fn compacts(&self) -> bool {
        self.cleanup != Cleanup::Delete
    }

    /// Whether segments are deleted when they are too old or too much.
    pub fn deletes(&self) -> bool {
        self.cleanup != Cleanup::Compact
    }

    /// The age at which a segment that is not empty is sealed, in milliseconds: before then nothing of it is compacted.
    pub fn seal_ms(&self) -> u64 {
        if self.compacts() { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }

    /// From when to when the time of a producer's record may be. Where the server sets it, it does not matter.
    pub(crate) fn times_taken(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let least = now.0.saturating_sub_unsigned(self.timestamp_before_max_ms);
        let most = now.0.saturating_add_unsigned(self.timestamp_after_max_ms);
        match self.timestamps {
            TimestampType::CreateTime => (Timestamp(least), Timestamp(most)),
            TimestampType::LogAppendTime => (Timestamp(i64::MIN), Timestamp(i64::MAX)),
        }
    }

    /// Compaction waits until more than this part of a partition was not compacted yet.
    pub fn min_dirty_ratio(&self) -> f64 {
        f64::from(self.min_dirty_millionths) / 1e6
    }

    /// The table of keys, for documentation.
    pub fn documented() -> impl Iterator<Item = Documented> {
        TABLE.iter().map(|s| Documented { key: s.key, allowed: s.allowed, meaning: s.meaning })
    }
}

/// The one of `candidates` that is the fewest edits away from `word`; the first of equals.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| strsim::osa_distance(word, candidate))
}

fn find(key: &str) -> Result<usize, SettingError> {
    if let Some(index) = TABLE.iter().position(|setting| setting.key == key) {
        return Ok(index);
    }
    if let Some((key, reason)) = UNAVAILABLE.iter().find(|(name, _)| *name == key) {
        return Err(SettingError::Unavailable { key, reason });
    }
    let key = cut_off(key);
    let nearest = nearest(&key, TABLE.iter().map(|setting| setting.key)).unwrap_or(TABLE[0].key);
    Err(SettingError::Unknown { key, nearest })
}

fn refused(setting: &Setting, value: &str) -> SettingError {
    SettingError::Value { key: setting.key, value: cut_off(value), allowed: setting.allowed }
}

/// Keeps errors short, whatever a client sends.
fn cut_off(text: &str) -> String {
    match text.char_indices().nth(VALUE_BYTES_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Plain digits. Not `u64::from_str` alone, which would let `+5` pass.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Timestamps and sizes are i64 in Kafka's protocol: nothing larger could be told to its clients.
    text.parse().ok().filter(|value| digits && *value <= i64::MAX as u64)
}

fn within(text: &str, least: u32, most: u32) -> Option<u32> {
    let value = u32::try_from(number(text)?).ok()?;
    (least..=most).contains(&value).then_some(value)
}

/// A part of one, as digits with at most six behind the point.
fn millionths(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let part = text.parse::<f64>().ok().filter(|part| plain && (0.0..=1.0).contains(part))?;
    let millionths = (part * 1e6).round() as u32;
    // What would be rounded would not be shown as it was given.
    ((f64::from(millionths) / 1e6).to_string().parse() == Ok(part)).then_some(millionths)
}

fn unless_minus_one(text: &str) -> Option<Option<u64>> {
    if text == "-1" { Some(None) } else { number(text).map(Some) }
}

fn minus_one_or(value: Option<u64>) -> String {
    value.map_or_else(|| "-1".into(), |value| value.to_string())
}

/// Kafka's words for how batches are stored.
const COMPRESSIONS: [(&str, Option<Codec>); 6] = [
    ("producer", None),
    ("uncompressed", Some(Codec::None)),
    ("gzip", Some(Codec::Gzip)),
    ("snappy", Some(Codec::Snappy)),
    ("lz4", Some(Codec::Lz4)),
    ("zstd", Some(Codec::Zstd)),
];

fn compression(text: &str) -> Option<Option<Codec>> {
    COMPRESSIONS.into_iter().find(|(name, _)| *name == text).map(|(_, codec)| codec)
}

fn compression_name(codec: Option<Codec>) -> &'static str {
    COMPRESSIONS.into_iter().find(|(_, one)| *one == codec).map_or("producer", |(name, _)| name)
}

fn durability(text: &str) -> Option<Durability> {
    [Durability::Flush, Durability::Write, Durability::Memory].into_iter().find(|d| d.as_str() == text)
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(key: &str, value: &str) -> String {
        TopicSettings::parse(&[(key, value)]).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_kafka() {
        let shown: Vec<_> = TopicSettings::default().show().into_iter().map(|s| (s.key, s.value)).collect();
        let expected = [
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("delete.retention.ms", "86400000"),
            ("durability", "flush"),
            ("flush.messages", NEVER),
            ("flush.ms", NEVER),
            ("max.compaction.lag.ms", "9223372036854775807"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("message.timestamp.before.max.ms", NEVER),
            ("message.timestamp.type", "CreateTime"),
            ("min.cleanable.dirty.ratio", "0.5"),
            ("min.compaction.lag.ms", "0"),
            ("min.insync.replicas", "1"),
            ("retention.bytes", "-1"),
            ("retention.ms", "604800000"),
            ("segment.bytes", "1073741824"),
            ("segment.ms", "604800000"),
        ];
        assert_eq!(shown, expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn every_default_is_an_allowed_value_and_the_table_is_sorted() {
        for shown in TopicSettings::default().show() {
            TopicSettings::parse(&[(shown.key, shown.value)]).unwrap();
        }
        assert!(TABLE.is_sorted_by_key(|setting| setting.key));
        assert!(UNAVAILABLE.is_sorted_by_key(|(key, _)| *key));
        assert!(UNAVAILABLE.iter().all(|(key, _)| TABLE.iter().all(|setting| setting.key != *key)));
    }

    #[test]
    fn a_setting_knows_whether_it_was_given() {
        let mut settings = TopicSettings::parse(&[("segment.bytes", "65536"), ("durability", "flush")]).unwrap();
        let given: Vec<_> = settings.given().collect();
        assert_eq!(given, [("durability", "flush".to_owned()), ("segment.bytes", "65536".to_owned())]);
        settings.unset("segment.bytes").unwrap();
        settings.unset("durability").unwrap();
        assert_eq!(settings, TopicSettings::default());
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        for (key, good, bad) in [
            ("max.message.bytes", ["1024", "16777216"], ["1023", "16777217"]),
            ("segment.bytes", ["65536", "2147483648"], ["65535", "2147483649"]),
            ("segment.ms", ["1", "9223372036854775807"], ["0", "9223372036854775808"]),
            ("retention.ms", ["-1", "0"], ["-2", "+1"]),
            ("retention.bytes", ["-1", "9223372036854775807"], ["", "1.5"]),
            ("durability", ["memory", "write"], ["Flush", "all"]),
            ("cleanup.policy", ["compact", "delete,compact"], ["compact, delete", ""]),
            ("min.cleanable.dirty.ratio", ["0", "0.000001"], ["1.1", "-0"]),
            ("min.cleanable.dirty.ratio", ["1.0", ".5"], ["NaN", "0.0000001"]),
            ("max.compaction.lag.ms", ["1", "9223372036854775807"], ["0", "-1"]),
            ("compression.type", ["uncompressed", "zstd"], ["none", "Gzip"]),
        ] {
            for value in good {
                TopicSettings::parse(&[(key, value)]).unwrap();
            }
            for value in bad {
                assert!(error(key, value).contains("it must be"), "{key} = {value:?}");
            }
        }
    }

    #[test]
    fn a_batch_has_to_fit_a_segment() {
        let settings = TopicSettings::parse(&[("segment.bytes", "65536")]).unwrap();
        assert_eq!(settings.batch_bytes_max(), 65536);
        assert_eq!(TopicSettings::default().batch_bytes_max(), 1_048_588);
        let compacted = [("cleanup.policy", "compact"), ("max.message.bytes", "16777216")];
        assert_eq!(TopicSettings::parse(&compacted).unwrap().batch_bytes_max() as usize, COMPACTION_BATCH_BYTES);
        let repacked = [("compression.type", "lz4"), ("max.message.bytes", "16777216")];
        assert_eq!(TopicSettings::parse(&repacked).unwrap().batch_bytes_max() as usize, REPACKED_BYTES);
    }

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(error("retention.sm", "5"), "unknown setting \"retention.sm\"; did you mean \"retention.ms\"?");
        assert_eq!(
            error("max.mesage.bytes", "5"),
            "unknown setting \"max.mesage.bytes\"; did you mean \"max.message.bytes\"?"
        );
        assert_eq!(
            error("flush.messages", "1"),
            "setting \"flush.messages\" cannot be \"1\"; it must be 9223372036854775807"
        );
        assert_eq!(
            error("segment.bytes", "1k"),
            "setting \"segment.bytes\" cannot be \"1k\"; it must be a number of bytes from 65536 to 2147483648"
        );
        assert!(error("index.interval.bytes", "4096").contains("512 entries"));
    }

    #[test]
    fn an_absurd_key_or_value_makes_a_short_error() {
        let long = "é".repeat(1 << 20);
        assert!(error(&long, "1").len() < 1024);
        assert!(error("segment.bytes", &long).len() < 1024);
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(bytes in 65536u32..=2 << 30, ms in any::<Option<u32>>(), flush: bool) {
            let mut settings = TopicSettings::parse(&[("segment.bytes", bytes.to_string())]).unwrap();
            settings.set("retention.ms", &minus_one_or(ms.map(u64::from))).unwrap();
            settings.set("durability", if flush { "flush" } else { "write" }).unwrap();
            settings.set("cleanup.policy", if flush { "compact" } else { "compact,delete" }).unwrap();
            settings.set("min.cleanable.dirty.ratio", &(f64::from(bytes % 1_000_001) / 1e6).to_string()).unwrap();
            let pairs: Vec<_> = settings.given().collect();
            prop_assert_eq!(TopicSettings::parse(&pairs).unwrap(), settings);
        }

        #[test]
        fn no_text_panics(key in ".{0,40}", value in ".{0,200}") {
            let _ = TopicSettings::parse(&[(key.as_str(), value.as_str())]);
            for setting in &TABLE {
                let _ = TopicSettings::parse(&[(setting.key, value.as_str())]);
            }
        }
    }
}
