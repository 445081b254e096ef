//! Requests of Kafka's protocol as another implementation writes them: one of each kind, in its first, its first flexible and
//! its last version.

use bytes::Bytes;
use corelog_kafka::api::Api;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

/// Each with a name for its file.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for api in Api::ALL {
        let versions = api.versions();
        for version in [versions.min, versions.flexible, versions.max] {
            if let Some(frame) = request(*api, version) {
                found.push((format!("{}-{version}", api.name()), frame));
            }
        }
    }
    found
}

/// None of those versions that the other implementation does not write.
fn request(api: Api, version: i16) -> Option<Vec<u8>> {
    match api {
        Api::Produce => framed(api, version, &produce()),
        Api::Fetch => framed(api, version, &fetch(version)),
        Api::ListOffsets => framed(api, version, &list_offsets()),
        Api::Metadata => framed(api, version, &metadata()),
        Api::ApiVersions => framed(api, version, &ApiVersionsRequest::default()),
        Api::CreateTopics => framed(api, version, &create_topics()),
        Api::DeleteTopics => framed(api, version, &DeleteTopicsRequest::default()),
        Api::DeleteRecords => framed(api, version, &delete_records()),
        Api::OffsetCommit => framed(api, version, &offset_commit()),
        Api::OffsetFetch => framed(api, version, &offset_fetch(version)),
        Api::FindCoordinator => framed(api, version, &FindCoordinatorRequest::default()),
        Api::JoinGroup => framed(api, version, &join_group()),
        Api::Heartbeat => framed(api, version, &HeartbeatRequest::default()),
        Api::LeaveGroup => framed(api, version, &LeaveGroupRequest::default()),
        Api::SyncGroup => framed(api, version, &SyncGroupRequest::default()),
        Api::DescribeGroups => framed(api, version, &DescribeGroupsRequest::default()),
        Api::ListGroups => framed(api, version, &ListGroupsRequest::default()),
        Api::DeleteGroups => framed(api, version, &DeleteGroupsRequest::default()),
        Api::OffsetDelete => framed(api, version, &OffsetDeleteRequest::default()),
        Api::InitProducerId => framed(api, version, &InitProducerIdRequest::default()),
        Api::ConsumerGroupHeartbeat => framed(api, version, &consumer_heartbeat()),
        Api::ConsumerGroupDescribe => framed(api, version, &ConsumerGroupDescribeRequest::default()),
        Api::DescribeProducers => framed(api, version, &DescribeProducersRequest::default()),
        Api::OffsetForLeaderEpoch => framed(api, version, &OffsetForLeaderEpochRequest::default()),
        Api::DescribeConfigs => framed(api, version, &describe_configs()),
        Api::AlterConfigs => framed(api, version, &AlterConfigsRequest::default()),
        Api::DescribeLogDirs => framed(api, version, &DescribeLogDirsRequest::default()),
        Api::CreatePartitions => framed(api, version, &CreatePartitionsRequest::default()),
        Api::IncrementalAlterConfigs => framed(api, version, &IncrementalAlterConfigsRequest::default()),
        Api::DescribeCluster => framed(api, version, &DescribeClusterRequest::default()),
    }
}

fn framed(api: Api, version: i16, message: &impl Encodable) -> Option<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(text("someone")));
    let mut frame = vec![0; 4];
    header.encode(&mut frame, if api.is_flexible(version) { 2 } else { 1 }).ok()?;
    message.encode(&mut frame, version).ok()?;
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Some(frame)
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn clicks() -> TopicName {
    TopicName(text("clicks"))
}

fn join_group() -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"all"));
    JoinGroupRequest::default().with_group_id(GroupId(text("readers"))).with_protocols(vec![protocol])
}

fn offset_commit() -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default().with_name(clicks()).with_partitions(vec![partition]);
    OffsetCommitRequest::default().with_group_id(GroupId(text("readers"))).with_topics(vec![topic])
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(clicks()).with_partition_indexes(vec![0, 3]);
        return OffsetFetchRequest::default().with_group_id(GroupId(text("readers"))).with_topics(Some(vec![topic]));
    }
    let topic = OffsetFetchRequestTopics::default().with_name(clicks()).with_partition_indexes(vec![0, 3]);
    let group =
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text("readers"))).with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![group])
}

fn produce() -> ProduceRequest {
    let records = Some(Bytes::from_static(b"records"));
    let partition = |index| PartitionProduceData::default().with_index(index).with_records(records.clone());
    let topic = TopicProduceData::default().with_name(clicks()).with_partition_data(vec![partition(0), partition(3)]);
    ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic.clone(), topic])
}

fn fetch(version: i16) -> FetchRequest {
    let partition = |index| FetchPartition::default().with_partition(index).with_fetch_offset(9);
    let topic = FetchTopic::default().with_partitions(vec![partition(0), partition(3)]);
    let topic = match version {
        13.. => topic.with_topic_id(uuid::Uuid::from_u128(5)),
        _ => topic.with_topic(clicks()),
    };
    FetchRequest::default().with_topics(vec![topic.clone(), topic])
}

fn list_offsets() -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default().with_partition_index(3).with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(clicks()).with_partitions(vec![partition.clone(), partition]);
    ListOffsetsRequest::default().with_topics(vec![topic])
}

fn metadata() -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(clicks()));
    MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic]))
}

fn consumer_heartbeat() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_member_id("one".to_owned().into())
        .with_subscribed_topic_names(Some(vec![kafka_protocol::messages::TopicName("t".to_owned().into())]))
        .with_topic_partitions(Some(Vec::new()))
}

fn create_topics() -> CreateTopicsRequest {
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
    let topic = CreatableTopic::default().with_name(clicks()).with_configs(vec![config.clone(), config]);
    CreateTopicsRequest::default().with_topics(vec![topic])
}

fn delete_records() -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition::default().with_partition_index(3).with_offset(9);
    let topic = DeleteRecordsTopic::default().with_name(clicks()).with_partitions(vec![partition.clone(), partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic])
}

fn describe_configs() -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("clicks"));
    let resource = resource.with_configuration_keys(Some(vec![text("retention.ms")]));
    DescribeConfigsRequest::default().with_resources(vec![resource])
}
