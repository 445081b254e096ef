//! Topics, metadata and handles.

use crate::harness::*;
use corelog_net::limits::Limits;
use corelog_wire::*;

#[test]
fn names_and_settings_are_checked_and_the_error_helps() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert_eq!(wire.create(name, 1, &[]).await.status(), Status::InvalidTopicName, "{name:?}");
            assert_eq!(wire.try_open(name, 0).await.status(), Status::InvalidTopicName, "{name:?}");
        }
        let typo = wire.create("t", 1, &[("retention.sm", "5")]).await;
        assert_eq!(typo.status(), Status::InvalidConfig);
        assert!(typo.failure().message.as_str().contains("did you mean \"retention.ms\""));
        assert_eq!(wire.create("t", 1, &[("retention.ms", "soon")]).await.status(), Status::InvalidConfig);
        assert_eq!(wire.create("t", 10_001, &[]).await.status(), Status::InvalidPartitions);
        assert!(
            matches!(wire.create("t", 0, &[]).await.response(), Response::CreateTopic(facts) if facts.partitions == 1)
        );
        assert_eq!(wire.create("t", 1, &[]).await.status(), Status::TopicExists);
    });
}

#[test]
fn unknown_topics_partitions_and_handles_are_told_apart() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 2).await;
        assert_eq!(wire.try_open("nowhere", 0).await.status(), Status::UnknownTopic);
        assert_eq!(wire.try_open("t", 2).await.status(), Status::UnknownPartition);
        let by_id = Open { topic: Topic::Id(uuid::Uuid::from_u128(9)), partition: 0 };
        assert_eq!(wire.call(Operation::Open, 0, &by_id).await.status(), Status::UnknownTopic);
        for handle in [0, 1, handles[0] + 7, u32::MAX] {
            assert_eq!(wire.produce(handle, &batch(&["x"])).await.status(), Status::UnknownHandle);
            assert_eq!(wire.fetch(handle, 0, 0).await.status(), Status::UnknownHandle);
            assert_eq!(wire.call(Operation::Close, handle, &()).await.status(), Status::UnknownHandle);
            assert_eq!(wire.call(Operation::Unsubscribe, handle, &()).await.status(), Status::UnknownSubscription);
        }
    });
}

#[test]
fn a_closed_handle_stays_closed_when_its_place_is_used_again() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 2).await;
        assert_eq!(wire.call(Operation::Close, handles[0], &()).await.response(), Response::Close);
        let again = wire.open("t", 1).await;
        assert_ne!(again, handles[0]);
        assert_eq!(wire.produce(handles[0], &batch(&["x"])).await.status(), Status::UnknownHandle);
        assert_eq!(wire.put(again, &["x"]).await, 0);
    });
}

#[test]
fn a_handle_of_a_deleted_topic_is_not_the_new_ones() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        wire.put(handles[0], &["old"]).await;
        let deleted = wire.call(Operation::DeleteTopic, 0, &DeleteTopic { topic: Topic::Name(text("t")) }).await;
        assert!(matches!(deleted.response(), Response::DeleteTopic(_)));
        wire.create("t", 1, &[]).await;
        assert_eq!(wire.produce(handles[0], &batch(&["x"])).await.status(), Status::UnknownHandle);
        let fresh = wire.open("t", 0).await;
        assert_eq!(wire.put(fresh, &["new"]).await, 0);
        assert_eq!(records(wire.fetch(fresh, 0, 0).await.batches().bytes), [(0, b"new".to_vec())]);
    });
}

#[test]
fn handles_are_bounded() {
    let limits = Limits { handles_max: 3, ..Limits::default() };
    run(Setup { limits, ..Setup::default() }, |client| async move {
        let (mut wire, handles) = client.with_topic("t", 3).await;
        let refused = wire.try_open("t", 0).await;
        assert_eq!(refused.status(), Status::TooManyHandles);
        assert_eq!(refused.failure().detail, Detail::Limit { actual: 4, max: 3 });
        wire.call(Operation::Close, handles[1], &()).await;
        wire.open("t", 0).await;
    });
    let limits = Limits { shard_handles_max: 4, ..Limits::default() };
    run(Setup { limits, ..Setup::default() }, |client| async move {
        let (wire, _) = client.with_topic("t", 3).await;
        let mut other = client.connect().await;
        other.open("t", 0).await;
        assert_eq!(other.try_open("t", 1).await.status(), Status::Busy);
        // A connection that ends gives its handles back.
        drop(wire);
        client.sleep(std::time::Duration::from_secs(1)).await;
        other.open("t", 1).await;
    });
}

#[test]
fn a_topic_is_described_as_it_is() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        wire.create("t", 3, &[("retention.ms", "1000000")]).await;
        let handle = wire.open("t", 1).await;
        wire.put(handle, &["0", "1"]).await;
        let describe = DescribeTopic { topic: Topic::Name(text("t")), first_partition: 1, partitions_max: 9 };
        let answer = wire.call(Operation::DescribeTopic, 0, &describe).await;
        let Response::DescribeTopic(state) = answer.response() else { panic!("{answer:?}") };
        assert_eq!((state.partition_count, state.partitions.len()), (3, 2));
        let partition = state.partitions.iter().next().unwrap();
        assert_eq!((partition.partition, partition.next, partition.high_watermark), (1, 2, 2));
        assert_eq!(partition.bytes, batch(&["0", "1"]).len() as u64);
        let set: Vec<_> = state.settings.iter().filter(|setting| setting.set).collect();
        assert_eq!((set.len(), set[0].key.as_str(), set[0].value.as_str()), (1, "retention.ms", "1000000"));
        assert!(state.settings.len() > 5);
    });
}

#[test]
fn a_topic_is_altered_in_part_or_not_at_all() {
    run_default(|client| async move {
        let (mut wire, _) = client.with_topic("t", 2).await;
        let topic = Topic::Name(text("t"));
        let set = [Setting { key: text("retention.ms"), value: text("5000") }];
        let both = AlterTopic { topic, partitions: 4, set: List::of(&set), reset: List::default() };
        assert_eq!(wire.call(Operation::AlterTopic, 0, &both).await.status(), Status::InvalidRequest);
        let more = AlterTopic { set: List::default(), ..both };
        let altered = wire.call(Operation::AlterTopic, 0, &more).await;
        assert!(matches!(altered.response(), Response::AlterTopic(facts) if facts.partitions == 4));
        let fewer = AlterTopic { partitions: 3, ..more };
        assert_eq!(wire.call(Operation::AlterTopic, 0, &fewer).await.status(), Status::InvalidPartitions);
        let settings = AlterTopic { partitions: 0, ..both };
        assert!(matches!(wire.call(Operation::AlterTopic, 0, &settings).await.response(), Response::AlterTopic(_)));
        let reset = [text("retention.ms"), text("no.such.key")];
        let wrong = AlterTopic { set: List::default(), reset: List::of(&reset), ..settings };
        assert_eq!(wire.call(Operation::AlterTopic, 0, &wrong).await.status(), Status::InvalidConfig);
        wire.open("t", 3).await;
    });
}

#[test]
fn metadata_tells_everything_a_page_at_a_time() {
    let limits = Limits { metadata_bytes_max: 200, ..Limits::default() };
    run(Setup { limits, shards: 2, ..Setup::default() }, |client| async move {
        let mut wire = client.connect().await;
        let names: Vec<String> = (0..20).map(|number| format!("topic.{number:02}")).collect();
        for name in &names {
            wire.create(name, 3, &[]).await;
        }
        let (mut found, mut pages) = (Vec::<String>::new(), 0);
        loop {
            let after = found.last().cloned().unwrap_or_default();
            let request = MetadataRequest { topics: Selection::After(text(&after)) };
            let answer = wire.call(Operation::Metadata, 0, &request).await;
            let Response::Metadata(metadata) = answer.response() else { panic!("{answer:?}") };
            assert_eq!(metadata.endpoints.len(), 2);
            for topic in metadata.topics.iter() {
                let shards: Vec<u16> = topic.owners.iter().map(|owner| owner.shard).collect();
                assert!(shards.len() == 3 && shards[0] == shards[2] && shards[0] != shards[1], "{shards:?}");
                found.push(topic.name.to_string());
            }
            pages += 1;
            if !metadata.more {
                break;
            }
        }
        assert_eq!(found, names);
        assert!(pages > 5);

        let asked = [text("topic.03"), text("nowhere"), text("a b")];
        let request = MetadataRequest { topics: Selection::Named(List::of(&asked)) };
        let answer = wire.call(Operation::Metadata, 0, &request).await;
        let Response::Metadata(metadata) = answer.response() else { panic!("{answer:?}") };
        let statuses: Vec<u16> = metadata.topics.iter().map(|topic| topic.status).collect();
        assert_eq!(statuses, [0, Status::UnknownTopic as u16, Status::InvalidTopicName as u16]);
    });
}
