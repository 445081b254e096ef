//! Topics: what is served, who leads what, create and delete, offsets by time.

use crate::harness::*;
use crate::wire::*;
use corelog_kafka::api::Api;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::*;

#[test]
fn every_version_that_is_served_is_told_and_every_other_one_too() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        for version in 0..=3 {
            let request = ApiVersionsRequest::default();
            let request = match version {
                3 => request.with_client_software_name(string("test")).with_client_software_version(string("1")),
                _ => request,
            };
            let response = kafka.call(version, &request).await;
            assert_eq!((response.error_code, response.api_keys.len()), (0, Api::ALL.len()));
        }
        // A version of the future, with a body that nobody here knows: answered in version 0.
        let frame = framed(ApiKey::ApiVersions as i16, 9, 77, 2, |frame| frame.extend([1, 2, 3]));
        kafka.wire.send(&frame).await;
        let response = kafka.answer::<ApiVersionsRequest>(0, 77).await;
        assert_eq!((response.error_code, response.api_keys.len()), (35, Api::ALL.len()));
        assert_eq!(kafka.create("t", 1, &[]).await, 0);
    });
}

#[test]
fn a_topic_that_is_asked_for_comes_into_being() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let asked = |names: &[&str]| {
            let topics = names.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
            MetadataRequest::default().with_topics(Some(topics.collect()))
        };
        let unwanted = asked(&["a"]).with_allow_auto_topic_creation(false);
        assert_eq!(kafka.call(4, &unwanted).await.topics[0].error_code, 3);
        // Before version 4 no client could say that it does not want that.
        for (version, topic) in [(0, "a"), (3, "b"), (4, "c"), (12, "d")] {
            let response = kafka.call(version, &asked(&[topic, "not/a name", "__consumer_offsets"])).await;
            let found: Vec<_> = response.topics.iter().map(|t| (t.error_code, t.partitions.len())).collect();
            assert_eq!(found, [(0, 1), (17, 0), (3, 0)], "{version}: {response:?}");
            assert_eq!(kafka.produce(topic, 0, &batch(&["x"])).await.error_code, 0);
        }
        let many: Vec<String> = (0..130).map(|n| format!("many-{n}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let errors = |response: &MetadataResponse| response.topics.iter().map(|topic| topic.error_code).sum::<i16>();
        assert_eq!(errors(&kafka.call(9, &asked(&names)).await), 30 * 5, "the others are to be asked for again");
        assert_eq!(errors(&kafka.call(9, &asked(&names)).await), 0);
    });
}

#[test]
fn topics_come_and_go_in_every_version() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        for version in 2..=7 {
            let new = CreatableTopic::default().with_name(name("t")).with_num_partitions(3).with_replication_factor(-1);
            let request = CreateTopicsRequest::default().with_topics(vec![new]);
            let created = kafka.call(version, &request).await;
            assert_eq!(created.topics[0].error_code, 0, "{version}");
            if version >= 5 {
                assert_eq!((created.topics[0].num_partitions, created.topics[0].replication_factor), (3, 1));
                let configs = created.topics[0].configs.as_ref().unwrap();
                assert!(configs.iter().any(|config| config.name.as_str() == "retention.ms"));
            }
            assert_eq!(kafka.call(version, &request).await.topics[0].error_code, 36);
            let (_, topic) = kafka.metadata("t").await;
            assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
            let delete = DeleteTopicsRequest::default();
            let delete = match version - 1 {
                6 => delete.with_topics(vec![DeleteTopicState::default().with_topic_id(created.topics[0].topic_id)]),
                _ => delete.with_topic_names(vec![name("t")]),
            };
            let deleted = kafka.call(version - 1, &delete).await;
            assert_eq!(deleted.responses[0].error_code, 0);
            assert_eq!(deleted.responses[0].name.as_deref().map(|name| name.as_str()), Some("t"));
            let again = kafka.call(version - 1, &delete).await.responses[0].error_code;
            assert_eq!(again, if version == 7 { 100 } else { 3 });
        }
    });
}

#[test]
fn metadata_of_every_version_names_leaders() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("a", 2, &[]).await;
        kafka.create("b", 1, &[]).await;
        for version in 0..=12 {
            let topic = |topic: &str| MetadataRequestTopic::default().with_name(Some(name(topic)));
            // Before version 4 no client can say that it wants no topic to be made.
            let other = if version < 4 { topic("b") } else { topic("none") };
            let some = MetadataRequest::default().with_topics(Some(vec![topic("a"), other, topic("not/one")]));
            let some = some.with_allow_auto_topic_creation(version < 4);
            let response = kafka.call(version, &some).await;
            let errors: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [0, if version < 4 { 0 } else { 3 }, 17], "{version}");
            let ids: Vec<_> = response.brokers.iter().map(|broker| broker.node_id).collect();
            assert!(response.topics[0].partitions.iter().all(|partition| ids.contains(&partition.leader_id)));
            assert!(response.topics[0].partitions.iter().all(|partition| partition.isr_nodes.len() == 1));
            // Of old, no topics are all of them; later that is null.
            let all = MetadataRequest::default().with_topics((version == 0).then(Vec::new));
            assert_eq!(kafka.call(version, &all).await.topics.len(), 2);
            if version >= 1 {
                let none = MetadataRequest::default().with_topics(Some(Vec::new()));
                assert_eq!(kafka.call(version, &none).await.topics.len(), 0);
            }
        }
    });
}

#[test]
fn what_cannot_be_created_is_refused_with_the_reason() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let topic = |topic: &str| CreatableTopic::default().with_name(name(topic)).with_num_partitions(1);
        let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(256)]);
        let topics = vec![
            topic("a b").with_replication_factor(1),
            topic("three").with_replication_factor(3),
            topic("placed").with_replication_factor(-1).with_assignments(vec![assigned]),
            topic("zero").with_num_partitions(0).with_replication_factor(1),
            topic("less").with_num_partitions(-2).with_replication_factor(1),
            topic("twice").with_replication_factor(1),
            topic("twice").with_replication_factor(1),
            topic("fine").with_replication_factor(1),
        ];
        let request = CreateTopicsRequest::default().with_topics(topics).with_validate_only(true);
        for (request, last) in [(request.clone(), 0), (request.with_validate_only(false), 0)] {
            let response = kafka.call(7, &request).await;
            let errors: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [17, 38, 39, 37, 37, 42, 42, last]);
            let told = response.topics.iter().filter(|topic| topic.error_code != 0);
            assert!(told.clone().all(|topic| topic.error_message.as_ref().is_some_and(|why| !why.is_empty())));
        }
        assert_eq!(kafka.create("set", 1, &[("retention.sm", "5")]).await, 40);
        assert_eq!(kafka.create("set", 1, &[("retention.ms", "soon")]).await, 40);
        assert_eq!(kafka.metadata("set").await.1.error_code, 3);
        assert_eq!(kafka.metadata("fine").await.1.error_code, 0);
    });
}

#[test]
fn offsets_are_listed_by_end_and_by_time() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        assert_eq!(kafka.list_offset("t", 0, -3).await, (0, -1));
        for _ in 0..3 {
            kafka.produce("t", 0, &batch(&["a", "b"])).await;
        }
        assert_eq!(kafka.list_offset("t", 0, -2).await, (0, 0));
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 6));
        assert_eq!(kafka.list_offset("t", 0, 1).await, (0, 0));
        assert_eq!(kafka.list_offset("t", 0, i64::MAX).await, (0, -1));
        assert_eq!(kafka.list_offset("t", 0, -9).await, (42, -1));
        assert_eq!(kafka.list_offset("t", 7, -1).await, (3, -1));
        assert_eq!(kafka.list_offset("none", 0, -1).await, (3, -1));
    });
}

#[test]
fn partitions_are_added() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        let wish = |topic: &str, count| {
            CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None)
        };
        for version in 0..=3 {
            let count = 3 + i32::from(version);
            let placed = wish("t", 9).with_assignments(Some(vec![CreatePartitionsAssignment::default()]));
            let topics = vec![wish("t", count), wish("none", 3), wish("t", -1), placed];
            let request = CreatePartitionsRequest::default().with_topics(topics);
            for (request, partitions) in [(request.clone().with_validate_only(true), count - 1), (request, count)] {
                let response = kafka.call(version, &request).await;
                let errors: Vec<_> = response.results.iter().map(|result| result.error_code).collect();
                assert_eq!(errors, [0, 3, 37, 39], "{version}");
                assert_eq!(kafka.metadata("t").await.1.partitions.len(), partitions as usize);
            }
            assert_eq!(kafka.produce("t", count - 1, &batch(&["x"])).await.error_code, 0);
        }
    });
}

#[test]
fn records_are_deleted_up_to_an_offset() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        for partition in 0..2 {
            kafka.produce("t", partition, &batch(&["a", "b", "c", "d"])).await;
            for (version, (offset, expected)) in (0..).zip([(1, (0, 1)), (9, (1, -1)), (-1, (0, 4))]) {
                let wish = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
                let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![wish]);
                let response = kafka.call(version, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
                let result = &response.topics[0].partitions[0];
                assert_eq!((result.error_code, result.low_watermark), expected, "{version}");
            }
            assert_eq!(kafka.list_offset("t", partition, -2).await, (0, 4));
            assert_eq!(kafka.fetch("t", partition, 1, 0).await.error_code, 1);
        }
    });
}

#[test]
fn the_time_of_a_leader_ends_where_the_log_does() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        kafka.produce("t", 0, &batch(&["a", "b"])).await;
        for version in 2..=4 {
            for (partition, epoch, expected) in [(0, 0, (0, 0, 2)), (0, 5, (0, -1, -1)), (3, 0, (3, -1, -1))] {
                let asked = OffsetForLeaderPartition::default().with_partition(partition).with_leader_epoch(epoch);
                let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![asked]);
                let response =
                    kafka.call(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
                let end = &response.topics[0].partitions[0];
                assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected);
            }
        }
    });
}

#[test]
fn the_cluster_and_its_disk_are_described() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 4, &[]).await;
        let (metadata, _) = kafka.metadata("t").await;
        for version in 0..=1 {
            let cluster = kafka.call(version, &DescribeClusterRequest::default()).await;
            assert_eq!((cluster.error_code, cluster.brokers.len()), (0, 2));
            assert_eq!(
                (Some(cluster.cluster_id), cluster.controller_id),
                (metadata.cluster_id.clone(), metadata.controller_id)
            );
        }
        for partition in 0..4 {
            kafka.produce("t", partition, &batch(&["x"])).await;
        }
        let mut seen = Vec::new();
        for broker in &metadata.brokers {
            let mut kafka = Kafka::connect_to(&client, broker.port as u16).await;
            for version in 1..=4 {
                let all = kafka.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
                let [dir] = all.results.as_slice() else { panic!("{all:?}") };
                assert!(dir.error_code == 0 && !dir.log_dir.is_empty());
                assert!(version < 4 || dir.total_bytes > dir.usable_bytes && dir.usable_bytes > 0, "{dir:?}");
                assert!(dir.topics[0].partitions.iter().all(|partition| partition.partition_size > 0));
                if version == 4 {
                    seen.extend(dir.topics[0].partitions.iter().map(|partition| partition.partition_index));
                }
            }
            let none = DescribableLogDirTopic::default().with_topic(name("other")).with_partitions(vec![0]);
            let none = DescribeLogDirsRequest::default().with_topics(Some(vec![none]));
            assert!(kafka.call(4, &none).await.results[0].topics.is_empty());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
    });
}
