//! Topics: what is served, who leads what, create and delete, offsets by time.

use crate::harness::*;
use crate::wire::*;
use corelog_kafka::api::Api;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
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
            let some = MetadataRequest::default().with_topics(Some(vec![topic("a"), topic("none"), topic("not/one")]));
            let response = kafka.call(version, &some).await;
            let errors: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [0, 3, 17], "{version}");
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
