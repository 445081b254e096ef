//! Every message comes back as it went in, and every prefix of it is refused.

use corelog_wire::*;
use proptest::prelude::*;
use std::fmt::Debug;
use uuid::Uuid;

fn comes_back<'a, T: Wire<'a> + PartialEq + Debug>(value: &T, bytes: &'a mut Vec<u8>) -> Result<(), TestCaseError> {
    value.put(bytes);
    let bytes: &'a [u8] = bytes;
    prop_assert_eq!(bytes.len(), value.size());
    prop_assert_eq!(&T::decode(bytes), &Ok(T::take(&mut Reader::new(bytes)).unwrap()));
    prop_assert_eq!(&T::decode(bytes).unwrap(), value);
    for cut in 0..bytes.len() {
        prop_assert!(T::decode(&bytes[..cut]).is_err(), "cut at {} of {}", cut, bytes.len());
    }
    Ok(())
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn text(value: &str) -> Text<'_> {
    Text::new(value).unwrap()
}

prop_compose! {
    fn words()(words in prop::collection::vec("\\PC{0,12}", 0..6)) -> Vec<String> { words }
}

proptest! {
    #[test]
    fn headers(length: u32, correlation: u32, operation: u8, flags: u8, status: u16, handle: u32) {
        let header = Header { length, correlation, operation, flags, status, handle };
        prop_assert_eq!(Header::parse(&header.to_bytes()), header);
    }

    #[test]
    fn hello(version_min: u16, version_max: u16, features: u64, software in "\\PC{0,40}", client_id in "\\PC{0,40}") {
        let hello = Hello {
            magic: Magic, version_min, version_max, features, software: text(&software), client_id: text(&client_id),
        };
        comes_back(&hello, &mut Vec::new())?;
    }

    #[test]
    fn welcome(numbers: [u32; 7], small: [u16; 3], features: u64, cluster_id in uuid(), software in "\\PC{0,40}") {
        let welcome = Welcome {
            magic: Magic, version: small[0], shard: small[1], features,
            body_bytes_max: numbers[0], requests_max: numbers[1], request_bytes_max: numbers[2],
            handles_max: numbers[3], subscriptions_max: numbers[4], idle_timeout_ms: numbers[5],
            cluster_id, node: numbers[6], shards: small[2], software: text(&software),
        };
        comes_back(&welcome, &mut Vec::new())?;
    }

    #[test]
    fn stats(
        shard: u16, counts in prop::collection::vec(("\\PC{0,12}", any::<(bool, u64)>()), 0..5),
        stages in prop::collection::vec(
            ("\\PC{0,12}", any::<u64>(), prop::collection::vec(any::<(u64, u64)>(), 0..5)), 0..5),
    ) {
        comes_back(&StatsRequest { shard }, &mut Vec::new())?;
        let counts: Vec<_> =
            counts.iter().map(|(name, (total, value))| Count { name: text(name), total: *total, value: *value }).collect();
        let buckets: Vec<Vec<Bucket>> = stages.iter()
            .map(|stage| stage.2.iter().map(|&(up_to_ns, count)| Bucket { up_to_ns, count }).collect()).collect();
        let stages: Vec<_> = stages.iter().zip(&buckets)
            .map(|((name, sum_ns, _), buckets)| StageTimes { name: text(name), sum_ns: *sum_ns, buckets: List::of(buckets) })
            .collect();
        let stats = ShardStats { shard, counts: List::of(&counts), stages: List::of(&stages) };
        comes_back(&stats, &mut Vec::new())?;
    }

    #[test]
    fn metadata_requests(kind in 0u8..3, names in words()) {
        let names: Vec<Text<'_>> = names.iter().map(|name| text(name)).collect();
        let topics = match kind {
            0 => Selection::None,
            1 => Selection::After(names.first().copied().unwrap_or_default()),
            _ => Selection::Named(List::of(&names)),
        };
        comes_back(&MetadataRequest { topics }, &mut Vec::new())?;
    }

    #[test]
    fn metadata(
        cluster_id in uuid(), node: u32, more: bool, hosts in words(),
        topics in prop::collection::vec((any::<u16>(), uuid(), "\\PC{0,12}",
            prop::collection::vec(any::<(u32, u16, i32)>(), 0..5)), 0..5),
    ) {
        let endpoints: Vec<_> = hosts.iter().enumerate()
            .map(|(shard, host)| Endpoint { node, shard: shard as u16, port: 7092, host: text(host) }).collect();
        let owners: Vec<Vec<Owner>> = topics.iter()
            .map(|topic| topic.3.iter().map(|&(node, shard, leader_epoch)| Owner { node, shard, leader_epoch }).collect())
            .collect();
        let topics: Vec<_> = topics.iter().zip(&owners)
            .map(|((status, id, name, _), owners)| TopicEntry {
                status: *status, id: *id, name: text(name), owners: List::of(owners),
            }).collect();
        let metadata = Metadata {
            cluster_id, node, endpoints: List::of(&endpoints), topics: List::of(&topics), more,
        };
        comes_back(&metadata, &mut Vec::new())?;
    }

    #[test]
    fn topics(name in "\\PC{0,30}", id in uuid(), by_id: bool, partitions: u32, first_partition: u32, keys in words()) {
        let topic = if by_id { Topic::Id(id) } else { Topic::Name(text(&name)) };
        let settings: Vec<_> = keys.iter().map(|key| Setting { key: text(key), value: text(&name) }).collect();
        let reset: Vec<_> = keys.iter().map(|key| text(key)).collect();
        let set = List::of(&settings);
        comes_back(&CreateTopic { name: text(&name), partitions, settings: set }, &mut Vec::new())?;
        comes_back(&TopicFacts { id, partitions }, &mut Vec::new())?;
        comes_back(&DeleteTopic { topic }, &mut Vec::new())?;
        comes_back(&AlterTopic { topic, partitions, set, reset: List::of(&reset) }, &mut Vec::new())?;
        comes_back(&DescribeTopic { topic, first_partition, partitions_max: partitions }, &mut Vec::new())?;
        comes_back(&Open { topic, partition: partitions }, &mut Vec::new())?;
    }

    #[test]
    fn topic_state(
        id in uuid(), name in "\\PC{0,30}", keys in words(),
        states in prop::collection::vec((any::<[u32; 3]>(), any::<[u16; 2]>(), any::<[i64; 3]>(), any::<[u64; 2]>()), 0..5),
    ) {
        let settings: Vec<_> = keys.iter()
            .map(|key| SettingInForce { key: text(key), value: text(&name), set: key.len() > 3 }).collect();
        let partitions: Vec<_> = states.iter().map(|(words, halves, offsets, bytes)| PartitionState {
            partition: words[0], node: words[1], shard: halves[0], status: halves[1], leader_epoch: -1,
            first: offsets[0], next: offsets[1], high_watermark: offsets[2], bytes: bytes[0], segments: words[2],
            crossings: bytes[1], fenced: text(&name),
        }).collect();
        let state = TopicState {
            id, name: text(&name), partition_count: 9, settings: List::of(&settings), partitions: List::of(&partitions),
        };
        comes_back(&state, &mut Vec::new())?;
    }

    #[test]
    fn partitions_and_records(topic_id in uuid(), offsets: [i64; 3], words: [u32; 3], shard: u16, leader_epoch: i32) {
        let [first, next, high_watermark] = offsets;
        let opened = Opened {
            topic_id, node: words[0], shard, leader_epoch, first, next, high_watermark, message_bytes_max: words[1],
        };
        comes_back(&opened, &mut Vec::new())?;
        for query in [
            ListOffsets::Earliest, ListOffsets::Latest, ListOffsets::MaxTimestamp, ListOffsets::At(first),
        ] {
            comes_back(&query, &mut Vec::new())?;
        }
        comes_back(&ListedOffset { offset: first, timestamp: next }, &mut Vec::new())?;
        comes_back(&DeleteRecords { before: first }, &mut Vec::new())?;
        comes_back(&DeletedRecords { first }, &mut Vec::new())?;
        comes_back(&Produced { base: first, last: next, log_append_time: high_watermark }, &mut Vec::new())?;
        let fetch = Fetch { offset: first, bytes_max: words[0], bytes_min: words[1], wait_ms: words[2] };
        comes_back(&fetch, &mut Vec::new())?;
        let records = Records { high_watermark, first, next };
        comes_back(&records, &mut Vec::new())?;
        prop_assert_eq!(records.size(), RECORDS_BYTES);
        comes_back(&Subscribe { offset: first, credit: words[0], bytes_max: words[1] }, &mut Vec::new())?;
        comes_back(&Subscribed { first, high_watermark }, &mut Vec::new())?;
        comes_back(&Credit { bytes: words[0] }, &mut Vec::new())?;
    }

    #[test]
    fn failures(message in "\\PC{0,60}", offsets: [i64; 2], sizes: [u64; 2], ms: u32, versions: [u16; 2], kind in 5u8..) {
        for detail in [
            Detail::None,
            Detail::Range { first: offsets[0], next: offsets[1] },
            Detail::Limit { actual: sizes[0], max: sizes[1] },
            Detail::RetryAfter { ms },
            Detail::Versions { min: versions[0], max: versions[1] },
            Detail::Unknown { kind },
        ] {
            comes_back(&Failure { detail, message: text(&message) }, &mut Vec::new())?;
        }
    }
}
