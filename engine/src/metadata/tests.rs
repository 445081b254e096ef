//! The catalog as a state machine: whatever commands come, replaying what was logged gives the same catalog.

use super::*;
use crate::model::{Offset, PartitionIndex, ShardId, TopicId};
use corelog_batch::{BatchBuilder, Codec};
use proptest::prelude::*;
use std::collections::BTreeSet;
use uuid::Uuid;

const BOUNDS: Bounds = Bounds { partitions_per_topic: 10, partitions: 40 };
const NO_SETTINGS: [(&str, &str); 0] = [];

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number + 100))
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn created(catalog: &mut Catalog, number: u128, name: &str, partitions: u32) -> TopicId {
    let record = catalog.decide_create(&BOUNDS, id(number), name, partitions, &NO_SETTINGS).unwrap();
    catalog.apply(&record).unwrap();
    id(number)
}

#[test]
fn a_create_that_is_sent_again_answers_exists() {
    let mut catalog = Catalog::default();
    created(&mut catalog, 1, "clicks", 3);
    let again = catalog.decide_create(&BOUNDS, id(2), "clicks", 3, &NO_SETTINGS);
    assert_eq!(again, Err(MetadataError::Exists { name: name("clicks") }));
}

#[test]
fn names_that_differ_in_dots_and_underscores_collide() {
    let mut catalog = Catalog::default();
    created(&mut catalog, 1, "a.b", 1);
    let error = catalog.decide_create(&BOUNDS, id(2), "a_b", 1, &NO_SETTINGS).unwrap_err();
    assert_eq!(error.to_string(), "topic name a_b collides with topic a.b: '.' and '_' count as one");
    assert_eq!(catalog.named(&name("a_b")), None, "the other spelling is not the topic");
    assert_eq!(catalog.decide_delete("a_b"), Err(MetadataError::Unknown { name: name("a_b") }));
}

#[test]
fn bounds_of_partitions() {
    let mut catalog = Catalog::default();
    for asked in [0, 11, u32::MAX] {
        let refused = catalog.decide_create(&BOUNDS, id(1), "a", asked, &NO_SETTINGS);
        assert_eq!(refused, Err(MetadataError::PartitionCount { asked, most: 10 }));
    }
    for topic in 0..4 {
        created(&mut catalog, topic, &format!("t{topic}"), 9);
    }
    let full = MetadataError::NodeFull { asked: 5, has: 36, most: 40 };
    assert_eq!(catalog.decide_create(&BOUNDS, id(9), "a", 5, &NO_SETTINGS), Err(full));
    assert!(catalog.decide_create(&BOUNDS, id(9), "a", 4, &NO_SETTINGS).is_ok());
    created(&mut catalog, 9, "a", 4);
    let full = MetadataError::NodeFull { asked: 1, has: 40, most: 40 };
    assert_eq!(catalog.decide_partitions(&BOUNDS, "t0", 10), Err(full));
}

#[test]
fn partitions_can_only_be_added() {
    let mut catalog = Catalog::default();
    let topic = created(&mut catalog, 1, "a", 4);
    for asked in [0, 3, 4] {
        let refused = catalog.decide_partitions(&BOUNDS, "a", asked);
        assert_eq!(refused, Err(MetadataError::NotMore { name: name("a"), has: 4, asked }));
    }
    let record = catalog.decide_partitions(&BOUNDS, "a", 10).unwrap();
    catalog.apply(&record).unwrap();
    assert_eq!((catalog.topic(topic).unwrap().partitions, catalog.partition_count()), (10, 10));
    assert_eq!(
        catalog.apply(&MetadataRecord::PartitionsAdded { id: topic, partitions: 9 }),
        Err(catalog::ApplyError::Partitions { id: topic, partitions: 9 })
    );
}

#[test]
fn settings_go_back_to_their_defaults() {
    let mut catalog = Catalog::default();
    let topic = created(&mut catalog, 1, "a", 1);
    for (changes, expected) in [
        (vec![("retention.ms", Some("5")), ("segment.bytes", Some("65536"))], (Some(5), 65536)),
        (vec![("retention.ms", None)], (Some(604_800_000), 65536)),
    ] {
        let record = catalog.decide_alter("a", &changes).unwrap();
        catalog.apply(&record).unwrap();
        let settings = catalog.topic(topic).unwrap().settings;
        assert_eq!((settings.retention_ms, settings.segment_bytes), expected);
    }
    let typo = catalog.decide_alter("a", &[("retention", Some("5"))]);
    assert!(matches!(typo, Err(MetadataError::Setting(SettingError::Unknown { .. }))));
}

#[test]
fn topics_of_one_partition_spread_over_the_shards() {
    let mut catalog = Catalog::default();
    let topics: Vec<_> = (0..4).map(|number| created(&mut catalog, number, &format!("t{number}"), 1)).collect();
    let owners: BTreeSet<_> = topics.iter().map(|id| catalog.owner(*id, PartitionIndex(0), 4)).collect();
    assert_eq!(owners.len(), 4);
    assert_eq!(catalog.owner(id(0), PartitionIndex(1), 4), None, "no such partition");
    assert_eq!(catalog.owner(id(7), PartitionIndex(0), 4), None, "no such topic");
    assert_eq!(catalog.owner(TopicId::METADATA, PartitionIndex(0), 4), Some(ShardId(0)));
}

#[test]
fn placement_may_wrap_and_partitions_still_spread_evenly() {
    let info = TopicInfo {
        id: id(1),
        name: name("a"),
        partitions: 9,
        placement: u32::MAX - 2,
        settings: TopicSettings::default(),
    };
    for shard in 0..3 {
        assert_eq!(info.owned_by(ShardId(shard), 3).count(), 3);
    }
}

#[test]
fn records_that_contradict_the_catalog_change_nothing() {
    let mut catalog = Catalog::default();
    let topic = created(&mut catalog, 1, "a", 4);
    let before = catalog.clone();
    let again = TopicInfo { id: id(2), ..catalog.topic(topic).unwrap().clone() };
    let other_name = TopicInfo { name: name("b"), ..catalog.topic(topic).unwrap().clone() };
    let metadata = TopicInfo { id: TopicId::METADATA, name: name("c"), ..again.clone() };
    let none = TopicInfo { id: id(3), name: name("d"), partitions: 0, ..again.clone() };
    let endless = TopicInfo { id: id(3), name: name("d"), partitions: u32::MAX, ..again.clone() };
    for record in [
        MetadataRecord::TopicCreated(again),
        MetadataRecord::TopicCreated(other_name),
        MetadataRecord::TopicCreated(metadata),
        MetadataRecord::TopicCreated(none),
        MetadataRecord::TopicCreated(endless),
        MetadataRecord::TopicDeleted { id: id(9) },
        MetadataRecord::SettingsChanged { id: id(9), settings: TopicSettings::default() },
        MetadataRecord::PartitionsAdded { id: id(9), partitions: 2 },
        MetadataRecord::PartitionsAdded { id: topic, partitions: 4 },
        MetadataRecord::SnapshotEnd,
    ] {
        assert!(catalog.apply(&record).is_err(), "{record:?}");
        assert_eq!(catalog, before);
    }
}

/// Logs every record, as the shard does.
#[derive(Default)]
struct Log {
    catalog: Catalog,
    values: Vec<Vec<u8>>,
    /// Where each whole snapshot begins.
    snapshots: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Command {
    Create { name: String, partitions: u32, write: bool },
    Delete { name: String },
    Alter { name: String, bytes: Option<u32> },
    Partitions { name: String, partitions: u32 },
    Snapshot { torn: bool },
}

impl Log {
    fn push(&mut self, record: &MetadataRecord) {
        self.values.push(bytes_of(record));
    }

    fn run(&mut self, command: &Command, number: usize) {
        let decided = match command {
            Command::Snapshot { torn } => return self.snapshot(*torn),
            Command::Create { name, partitions, write } => {
                let durability = if *write { "write" } else { "flush" };
                let settings = [("durability", durability)];
                self.catalog.decide_create(&BOUNDS, id(number as u128), name, *partitions, &settings)
            }
            Command::Delete { name } => self.catalog.decide_delete(name),
            Command::Alter { name, bytes } => {
                self.catalog.decide_alter(name, &[("retention.bytes", bytes.map(|bytes| bytes.to_string()))])
            }
            Command::Partitions { name, partitions } => self.catalog.decide_partitions(&BOUNDS, name, *partitions),
        };
        if let Ok(record) = decided {
            self.push(&record);
            self.catalog.apply(&record).expect("what was decided applies");
        }
    }

    fn snapshot(&mut self, torn: bool) {
        let records: Vec<_> = self.catalog.snapshot().collect();
        let whole = records.len() - usize::from(torn);
        if !torn {
            self.snapshots.push(self.values.len());
        }
        for record in &records[..whole] {
            self.push(record);
        }
    }

    fn replay_from(&self, first: usize) -> Result<Catalog, ReplayError> {
        let mut replay = Replay::new(Offset(first as i64));
        for (offset, value) in self.values.iter().enumerate().skip(first) {
            replay.value(Offset(offset as i64), value)?;
        }
        replay.finish()
    }
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let name = || proptest::sample::select(vec!["a", "b", "a.b", "a_b", "", "c c"]).prop_map(str::to_owned);
    let command = prop_oneof![
        4 => (name(), 0..12u32, any::<bool>()).prop_map(|(name, partitions, write)| Command::Create { name, partitions, write }),
        2 => name().prop_map(|name| Command::Delete { name }),
        2 => (name(), any::<Option<u32>>()).prop_map(|(name, bytes)| Command::Alter { name, bytes }),
        2 => (name(), 0..12u32).prop_map(|(name, partitions)| Command::Partitions { name, partitions }),
        1 => any::<bool>().prop_map(|torn| Command::Snapshot { torn }),
    ];
    proptest::collection::vec(command, 0..60)
}

proptest! {
    #[test]
    fn replay_gives_the_same_catalog(commands in commands(), shards in 1u16..5) {
        let mut log = Log::default();
        for (number, command) in commands.iter().enumerate() {
            log.run(command, number);
            let catalog = &log.catalog;
            prop_assert_eq!(catalog.topics().map(|topic| topic.partitions).sum::<u32>(), catalog.partition_count());
            prop_assert!(catalog.partition_count() <= BOUNDS.partitions);
            prop_assert_eq!(catalog.topics().count(), catalog.len());
        }
        prop_assert_eq!(log.replay_from(0), Ok(log.catalog.clone()));
        for first in &log.snapshots {
            prop_assert_eq!(log.replay_from(*first), Ok(log.catalog.clone()), "snapshot and tail equal the whole log");
        }
        let owned = (0..shards).map(|shard| log.catalog.owned_by(ShardId(shard), shards).count()).sum::<usize>();
        prop_assert_eq!(owned, log.catalog.partition_count() as usize, "every partition has one owner");
    }

    #[test]
    fn a_log_that_lost_its_snapshot_is_not_served(commands in commands(), cut in 1usize..20) {
        let mut log = Log::default();
        for (number, command) in commands.iter().enumerate() {
            log.run(command, number);
        }
        let later = log.snapshots.iter().any(|at| *at >= cut);
        if cut < log.values.len() && !later {
            let refused = log.replay_from(cut);
            prop_assert!(refused.is_err());
        }
    }
}

#[test]
fn a_snapshot_that_differs_from_the_records_before_it_is_refused() {
    let mut log = Log::default();
    log.run(&Command::Create { name: "a".into(), partitions: 1, write: false }, 0);
    for record in Catalog::default().snapshot() {
        log.push(&record);
    }
    assert_eq!(log.replay_from(0), Err(ReplayError::SnapshotDiffers { offset: Offset(2) }));
}

#[test]
fn a_snapshot_that_lacks_a_record_is_refused() {
    let mut log = Log::default();
    log.run(&Command::Create { name: "a".into(), partitions: 1, write: false }, 0);
    let change = log.values[0].clone();
    log.run(&Command::Snapshot { torn: false }, 1);
    assert_eq!(log.values.len(), 4);
    let lone = |offset| ReplayError::Apply { offset: Offset(offset), cause: catalog::ApplyError::Snapshot };
    let topic = log.values.remove(2);
    assert_eq!(log.replay_from(0), Err(lone(2)), "an end that comes too early");
    log.values[1] = topic.clone();
    assert_eq!(log.replay_from(0), Err(lone(1)), "no beginning");
    log.run(&Command::Snapshot { torn: true }, 2);
    log.values = vec![log.values[3].clone(), change, topic];
    assert_eq!(log.replay_from(0), Err(lone(2)), "a change ended that snapshot");
}

/// Records as the metadata log stores them from offset `first` on, in batches of `of` records.
fn stored(records: impl Iterator<Item = MetadataRecord>, first: i64, of: usize) -> Vec<u8> {
    let values: Vec<Vec<u8>> = records.map(|record| bytes_of(&record)).collect();
    let mut out = Vec::new();
    for (index, chunk) in values.chunks(of).enumerate() {
        let mut builder = BatchBuilder::new(1 << 20, Codec::None);
        for value in chunk {
            builder.append(None, Some(value), &[], 5).unwrap();
        }
        let at = out.len();
        builder.build_into(&mut out).unwrap();
        out[at..at + 8].copy_from_slice(&(first + (index * of) as i64).to_be_bytes());
    }
    out
}

fn bytes_of(record: &MetadataRecord) -> Vec<u8> {
    let mut value = Vec::new();
    record.encode(&mut value);
    value
}

#[test]
fn a_snapshot_goes_through_batches_and_back_and_damage_is_found() {
    let mut catalog = Catalog::default();
    for number in 0..10 {
        created(&mut catalog, number, &format!("topic-{number}"), 3);
    }
    // Two records of something older, then the snapshot that the log begins with.
    let older = [MetadataRecord::TopicDeleted { id: id(99) }, MetadataRecord::TopicDeleted { id: id(98) }];
    let mut bytes = stored(older.into_iter().chain(catalog.snapshot()), 998, 5);
    let mut replay = Replay::new(Offset(1000));
    replay.batches(&bytes).unwrap();
    assert_eq!(replay.finish(), Ok(catalog));

    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    let damaged = Replay::new(Offset(1000)).batches(&bytes).unwrap_err();
    let expected = "the metadata log cannot be read behind offset 1007: checksum mismatch";
    assert!(damaged.to_string().starts_with(expected), "{damaged}");
}

#[test]
fn a_snapshot_is_due_when_the_log_outgrows_the_last_one() {
    assert!(!replay::snapshot_due(64 << 10, 0));
    assert!(replay::snapshot_due((64 << 10) + 1, 0));
    assert!(!replay::snapshot_due(1 << 20, 1 << 20));
    assert!(replay::snapshot_due((1 << 20) + 1, 1 << 20));
}
