//! Names of the files of a data directory, both ways. What does not parse is not ours and is left alone.

use crate::model::{Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Which file holds a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Offset of its first record.
    pub base: Offset,
    /// How often it was written anew: what was read at a place of one file is not looked for in another.
    pub rewrite: u32,
}

impl From<Offset> for SegmentName {
    /// As it is appended to.
    fn from(base: Offset) -> SegmentName {
        SegmentName { base, rewrite: 0 }
    }
}

/// Directory of all topics.
pub const TOPICS: &str = "topics";
/// Name of a shard's journal.
pub const JOURNAL: &str = "journal";
/// How the name of a journal that is set aside begins; of which shard it is, and the checkpoint file that it follows, come behind.
pub const DAMAGED_JOURNAL: &str = "journal.damaged-";
/// Name of a shard's directory of retired segment files.
pub const RECYCLED: &str = "recycled";

const LOG: &str = ".log";
const INDEX: &str = ".index";
const CHECKPOINT: &str = "checkpoint-";
const SHARDS: &str = "shards-";
/// Twenty digits hold any 64-bit number, so that names sort as their numbers do.
const DIGITS: usize = 20;

/// `<root>/topics`.
pub fn topics(root: &Path) -> PathBuf {
    root.join(TOPICS)
}

/// `<root>/topics/<uuid>`.
pub fn topic(root: &Path, topic: TopicId) -> PathBuf {
    topics(root).join(topic.to_string())
}

/// `<root>/topics/<uuid>/<partition>`.
pub fn partition(root: &Path, id: PartitionId) -> PathBuf {
    topic(root, id.topic).join(id.index.to_string())
}

/// A segment's file.
pub fn segment(root: &Path, id: PartitionId, name: impl Into<SegmentName>) -> PathBuf {
    partition(root, id).join(segment_name(name))
}

/// A sealed segment's index file.
pub fn index(root: &Path, id: PartitionId, name: impl Into<SegmentName>) -> PathBuf {
    partition(root, id).join(index_name(name))
}

/// `<root>/shards-<generation>`.
pub fn shards(root: &Path, generation: u64) -> PathBuf {
    root.join(format!("{SHARDS}{generation}"))
}

/// `<root>/shards-<generation>/<shard>`.
pub fn shard(root: &Path, generation: u64, shard: ShardId) -> PathBuf {
    shards(root, generation).join(shard.to_string())
}

/// A segment's file name.
pub fn segment_name(name: impl Into<SegmentName>) -> String {
    stem(name.into()) + LOG
}

/// A sealed segment's index file name.
pub fn index_name(name: impl Into<SegmentName>) -> String {
    stem(name.into()) + INDEX
}

fn stem(name: SegmentName) -> String {
    match name.rewrite {
        0 => format!("{:0DIGITS$}", name.base.0),
        rewrite => format!("{:0DIGITS$}-{rewrite}", name.base.0),
    }
}

/// A checkpoint's file name.
pub fn checkpoint_name(sequence: u64) -> String {
    format!("{CHECKPOINT}{sequence}")
}

/// Which segment a file's name says it holds.
pub fn parse_segment_name(name: &str) -> Option<SegmentName> {
    name.strip_suffix(LOG).and_then(parse_stem)
}

/// Which segment an index file's name says it is of.
pub fn parse_index_name(name: &str) -> Option<SegmentName> {
    name.strip_suffix(INDEX).and_then(parse_stem)
}

fn parse_stem(stem: &str) -> Option<SegmentName> {
    let Some((base, rewrite)) = stem.split_once('-') else { return base_offset(stem).map(SegmentName::from) };
    let rewrite = number(rewrite)?.try_into().ok().filter(|rewrite| *rewrite > 0)?;
    Some(SegmentName { base: base_offset(base)?, rewrite })
}

/// Sequence of a checkpoint's file name.
pub fn parse_checkpoint_name(name: &str) -> Option<u64> {
    name.strip_prefix(CHECKPOINT).and_then(number)
}

/// Generation of a `shards-<generation>` directory.
pub fn parse_shards_name(name: &str) -> Option<u64> {
    name.strip_prefix(SHARDS).and_then(number)
}

/// Shard of a directory's name.
pub fn parse_shard_name(name: &str) -> Option<ShardId> {
    number(name).and_then(|shard| shard.try_into().ok()).map(ShardId)
}

/// Topic of a directory's name.
pub fn parse_topic_name(name: &str) -> Option<TopicId> {
    let id = Uuid::try_parse(name).ok().map(TopicId)?;
    (id.to_string() == name).then_some(id)
}

/// Partition of a directory's name.
pub fn parse_partition_name(name: &str) -> Option<PartitionIndex> {
    number(name).and_then(|index| index.try_into().ok()).map(PartitionIndex)
}

fn base_offset(digits: &str) -> Option<Offset> {
    let well_formed = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().ok().map(Offset)).flatten()
}

/// As we write it: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back(base in 0i64.., rewrite in 0..3u32, sequence: u64) {
            let name = SegmentName { base: Offset(base), rewrite };
            prop_assert_eq!(parse_segment_name(&segment_name(name)), Some(name));
            prop_assert_eq!(parse_index_name(&index_name(name)), Some(name));
            prop_assert_eq!(parse_segment_name(&index_name(name)), None);
            prop_assert_eq!(parse_checkpoint_name(&checkpoint_name(sequence)), Some(sequence));
        }

        #[test]
        fn a_name_is_ours_only_as_we_write_it(name in "[-+0-9.a-z]{0,30}") {
            if let Some(base) = parse_segment_name(&name) {
                prop_assert_eq!(segment_name(base), name.clone());
            }
            if let Some(sequence) = parse_checkpoint_name(&name) {
                prop_assert_eq!(checkpoint_name(sequence), name.clone());
            }
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let log = |stem: &str| parse_segment_name(&format!("{stem}.log"));
        assert_eq!(log("00000000000000000007"), Some(Offset(7).into()));
        assert_eq!(log("00000000000000000007-2"), Some(SegmentName { base: Offset(7), rewrite: 2 }));
        let name = "00000000000000000007";
        for rewrite in ["-0", "-02", "-", "--1", "-4294967296", "-1-1"] {
            assert_eq!(log(&format!("{name}{rewrite}")), None, "{rewrite}");
        }
        for stem in ["7", "+0000000000000000007", "-0000000000000000007", "99999999999999999999", ""] {
            assert_eq!(log(stem), None, "{stem}");
        }
        assert_eq!(parse_checkpoint_name("checkpoint-07"), None);
        assert_eq!(parse_checkpoint_name("checkpoint-7.new"), None);
        assert_eq!(parse_partition_name("4294967296"), None);
        assert_eq!(parse_shard_name("65535"), Some(ShardId(65535)));
        assert_eq!(parse_topic_name("00000000-0000-0000-0000-00000000000A"), None);
        assert_eq!(parse_topic_name("00000000-0000-0000-0000-000000000001"), Some(TopicId::METADATA));
        assert_eq!(parse_shards_name("shards-3"), Some(3));
    }
}
