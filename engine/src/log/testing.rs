//! What the formats' tests share: examples, arbitrary values, and what a power cut leaves.

use crate::model::{
    LeaderEpoch, Offset, PartitionId, PartitionIndex, Position, ProducerEpoch, ProducerId, ProducerSequence, Timestamp,
    TopicId,
};
use crate::producer::Produced;
use proptest::prelude::*;
use std::path::Path;
use uuid::Uuid;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

pub(crate) fn partition(topic: u128, index: u32) -> PartitionId {
    PartitionId { topic: TopicId(Uuid::from_u128(topic)), index: PartitionIndex(index) }
}

pub(crate) fn any_partition() -> impl Strategy<Value = PartitionId> {
    (any::<u128>(), any::<u32>()).prop_map(|(topic, index)| partition(topic, index))
}

pub(crate) fn any_offset() -> impl Strategy<Value = Offset> {
    prop_oneof![0i64..100_000, 0i64..=i64::MAX / 2].prop_map(Offset)
}

pub(crate) fn any_position() -> impl Strategy<Value = Position> {
    prop_oneof![0u64..10_000_000, 0u64..=u64::MAX / 2].prop_map(Position)
}

pub(crate) fn any_epoch() -> impl Strategy<Value = LeaderEpoch> {
    (0..=i32::MAX).prop_map(LeaderEpoch)
}

pub(crate) fn produced(producer: i64, epoch: i16, first: i32, base: i64, records: u32) -> Produced {
    let (producer, epoch, first) = (ProducerId(producer), ProducerEpoch(epoch), ProducerSequence(first));
    let last = Offset(base + i64::from(records) - 1);
    Produced { producer, epoch, first, base: Offset(base), last, at: Timestamp(1_700_000_000_000 + base) }
}

pub(crate) fn any_produced() -> impl Strategy<Value = Produced> {
    (0..=i64::MAX, 0..=i16::MAX, 0..=i32::MAX, 0i64..1 << 40, 1u32..5000)
        .prop_map(|(producer, epoch, first, base, records)| produced(producer, epoch, first, base, records))
}

pub(crate) fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

/// A write of `new` over `old` that a power cut stopped: for each sector `kept` says whether the new one arrived. Where
/// `old` is shorter there were zeros.
pub(crate) fn torn(old: &[u8], new: &[u8], kept: impl Fn(usize) -> bool) -> Vec<u8> {
    let sector = |(at, new): (usize, &[u8])| {
        let from = at * SECTOR;
        let was = (from..from + new.len()).map(|at| old.get(at).copied().unwrap_or(0));
        if kept(at) { new.to_vec() } else { was.collect() }
    };
    new.chunks(SECTOR).enumerate().flat_map(sector).collect()
}

/// Which sectors arrived: of every way as likely that few, many, the first ones or the last ones did.
pub(crate) fn any_arrival() -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![
        prop::collection::vec(any::<bool>(), 64),
        (0usize..64).prop_map(|first| (0..64).map(|at| at < first).collect()),
        (0usize..64).prop_map(|lost| (0..64).map(|at| at != lost).collect()),
        (0usize..64).prop_map(|only| (0..64).map(|at| at == only).collect()),
    ]
}

/// Compares with a file of `engine/golden`, or writes it when `CORELOG_WRITE_GOLDEN` is set: a change of a format is
/// a change of these files, and needs a new version.
pub(crate) fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("CORELOG_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let stored = std::fs::read(&path).unwrap();
    let differ = stored.iter().zip(bytes).position(|(stored, now)| stored != now);
    assert_eq!((differ, stored.len()), (None, bytes.len()), "{name} is not written as it was");
    stored
}

/// The examples in `docs/formats.md` are lines of the golden file that the first line of their block names: position and
/// bytes in hexadecimal, then what they are.
#[test]
fn the_documented_examples_are_the_golden_bytes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/formats.md")).unwrap();
    let blocks = page.split("```text\n").skip(1).filter_map(|block| block.split("```").next());
    let mut compared = 0;
    for block in blocks.filter(|block| block.lines().next().is_some_and(|name| name.ends_with(".bin"))) {
        let mut lines = block.lines();
        let golden = std::fs::read(root.join("golden").join(lines.next().unwrap())).unwrap();
        for line in lines {
            let (at, rest) = line.split_once("  ").unwrap();
            let bytes: Vec<u8> =
                rest.split("  ").next().unwrap().split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            let at = usize::from_str_radix(at, 16).unwrap();
            assert_eq!(golden[at..at + bytes.len()], bytes, "{line}");
            compared += bytes.len();
        }
    }
    assert!(compared > 400, "only {compared} bytes of examples were found");
}
