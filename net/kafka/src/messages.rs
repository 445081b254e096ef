//! Requests and responses beside the hot path, as `kafka-protocol`'s message types.
//!
//! Their decoders make room for as many elements as an array declares. So a request is walked through by its shape first:
//! what declares more than it has does not get to them.

use crate::api::Api;
use crate::codec::Malformed;
use crate::header::{self, Request};
use crate::shape::{Field, walk};
use kafka_protocol::protocol::Decodable;

pub use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
pub use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
pub use kafka_protocol::messages::create_topics_request::CreatableTopic;
pub use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
pub use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
pub use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
pub use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
pub use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
pub use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
pub use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
pub use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
pub use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
pub use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
pub use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
pub use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
pub use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
pub use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
pub use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, BrokerId, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProducerId, TopicName,
};
pub use kafka_protocol::messages::{
    alter_configs_response::AlterConfigsResourceResponse as AlteredConfigs,
    incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementallyAlteredConfigs,
};
pub use kafka_protocol::protocol::{Encodable, StrBytes};

pub use bytes::Bytes;
pub use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as DescribedConsumerGroup, Member as ConsumerGroupMember,
    TopicPartitions as DescribedPartitions,
};
pub use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions;
pub use kafka_protocol::messages::consumer_group_heartbeat_response::{
    Assignment as ToldAssignment, TopicPartitions as ToldPartitions,
};
pub use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
pub use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
pub use kafka_protocol::messages::find_coordinator_response::Coordinator;
pub use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
pub use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
pub use kafka_protocol::messages::leave_group_response::MemberResponse;
pub use kafka_protocol::messages::list_groups_response::ListedGroup;
pub use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
pub use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
pub use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
pub use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
pub use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};

/// A request that is taken so.
pub trait Message: Decodable {
    /// Which it is.
    const API: Api;
    #[doc(hidden)]
    const SHAPE: Shape;
}

/// The fields of a request.
#[derive(Debug, Clone, Copy)]
pub struct Shape(&'static [Field]);

impl Message for MetadataRequest {
    const API: Api = Api::Metadata;
    const SHAPE: Shape = Shape(&[
        Field::array(&[Field::UUID.from(10), Field::TEXT]),
        Field::BOOL.from(4),
        Field::BOOL.from(8).to(10),
        Field::BOOL.from(8),
    ]);
}

impl Message for ListOffsetsRequest {
    const API: Api = Api::ListOffsets;
    const SHAPE: Shape = Shape(&[
        Field::I32,
        Field::I8.from(2),
        Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I32.from(4), Field::I64])]),
    ]);
}

impl Message for CreateTopicsRequest {
    const API: Api = Api::CreateTopics;
    const SHAPE: Shape = Shape(&[
        Field::array(&[
            Field::TEXT,
            Field::I32,
            Field::I16,
            Field::array(&[Field::I32, Field::values(&Field::I32)]),
            Field::array(&[Field::TEXT, Field::TEXT]),
        ]),
        Field::I32,
        Field::BOOL,
    ]);
}

impl Message for DeleteTopicsRequest {
    const API: Api = Api::DeleteTopics;
    const SHAPE: Shape =
        Shape(&[Field::array(&[Field::TEXT, Field::UUID]).from(6), Field::values(&Field::TEXT).to(5), Field::I32]);
}

impl Message for DeleteRecordsRequest {
    const API: Api = Api::DeleteRecords;
    const SHAPE: Shape = Shape(&[Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I64])]), Field::I32]);
}

impl Message for OffsetForLeaderEpochRequest {
    const API: Api = Api::OffsetForLeaderEpoch;
    const SHAPE: Shape =
        Shape(&[Field::I32.from(3), Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I32, Field::I32])])]);
}

impl Message for DescribeConfigsRequest {
    const API: Api = Api::DescribeConfigs;
    const SHAPE: Shape = Shape(&[
        Field::array(&[Field::I8, Field::TEXT, Field::values(&Field::TEXT)]),
        Field::BOOL,
        Field::BOOL.from(3),
    ]);
}

impl Message for AlterConfigsRequest {
    const API: Api = Api::AlterConfigs;
    const SHAPE: Shape =
        Shape(&[Field::array(&[Field::I8, Field::TEXT, Field::array(&[Field::TEXT, Field::TEXT])]), Field::BOOL]);
}

impl Message for DescribeLogDirsRequest {
    const API: Api = Api::DescribeLogDirs;
    const SHAPE: Shape = Shape(&[Field::array(&[Field::TEXT, Field::values(&Field::I32)])]);
}

impl Message for CreatePartitionsRequest {
    const API: Api = Api::CreatePartitions;
    const SHAPE: Shape = Shape(&[
        Field::array(&[Field::TEXT, Field::I32, Field::array(&[Field::values(&Field::I32)])]),
        Field::I32,
        Field::BOOL,
    ]);
}

impl Message for IncrementalAlterConfigsRequest {
    const API: Api = Api::IncrementalAlterConfigs;
    const SHAPE: Shape = Shape(&[
        Field::array(&[Field::I8, Field::TEXT, Field::array(&[Field::TEXT, Field::I8, Field::TEXT])]),
        Field::BOOL,
    ]);
}

impl Message for InitProducerIdRequest {
    const API: Api = Api::InitProducerId;
    const SHAPE: Shape = Shape(&[Field::TEXT, Field::I32, Field::I64.from(3), Field::I16.from(3)]);
}

impl Message for DescribeProducersRequest {
    const API: Api = Api::DescribeProducers;
    const SHAPE: Shape = Shape(&[Field::array(&[Field::TEXT, Field::values(&Field::I32)])]);
}

impl Message for DescribeClusterRequest {
    const API: Api = Api::DescribeCluster;
    const SHAPE: Shape = Shape(&[Field::BOOL, Field::I8.from(1)]);
}

impl Message for FindCoordinatorRequest {
    const API: Api = Api::FindCoordinator;
    const SHAPE: Shape = Shape(&[Field::TEXT.to(3), Field::I8.from(1), Field::values(&Field::TEXT).from(4)]);
}

impl Message for JoinGroupRequest {
    const API: Api = Api::JoinGroup;
    const SHAPE: Shape = Shape(&[
        Field::TEXT,
        Field::I32,
        Field::I32.from(1),
        Field::TEXT,
        Field::TEXT.from(5),
        Field::TEXT,
        Field::array(&[Field::TEXT, Field::BYTES]),
        Field::TEXT.from(8),
    ]);
}

impl Message for SyncGroupRequest {
    const API: Api = Api::SyncGroup;
    const SHAPE: Shape = Shape(&[
        Field::TEXT,
        Field::I32,
        Field::TEXT,
        Field::TEXT.from(3),
        Field::TEXT.from(5),
        Field::TEXT.from(5),
        Field::array(&[Field::TEXT, Field::BYTES]),
    ]);
}

impl Message for HeartbeatRequest {
    const API: Api = Api::Heartbeat;
    const SHAPE: Shape = Shape(&[Field::TEXT, Field::I32, Field::TEXT, Field::TEXT.from(3)]);
}

impl Message for LeaveGroupRequest {
    const API: Api = Api::LeaveGroup;
    const SHAPE: Shape = Shape(&[
        Field::TEXT,
        Field::TEXT.to(2),
        Field::array(&[Field::TEXT, Field::TEXT, Field::TEXT.from(5)]).from(3),
    ]);
}

impl Message for DescribeGroupsRequest {
    const API: Api = Api::DescribeGroups;
    const SHAPE: Shape = Shape(&[Field::values(&Field::TEXT), Field::BOOL.from(3)]);
}

impl Message for ListGroupsRequest {
    const API: Api = Api::ListGroups;
    const SHAPE: Shape = Shape(&[Field::values(&Field::TEXT).from(4), Field::values(&Field::TEXT).from(5)]);
}

impl Message for ConsumerGroupHeartbeatRequest {
    const API: Api = Api::ConsumerGroupHeartbeat;
    const SHAPE: Shape = Shape(&[
        Field::TEXT,
        Field::TEXT,
        Field::I32,
        Field::TEXT,
        Field::TEXT,
        Field::I32,
        Field::values(&Field::TEXT),
        Field::TEXT.from(1),
        Field::TEXT,
        Field::array(&[Field::UUID, Field::values(&Field::I32)]),
    ]);
}

impl Message for ConsumerGroupDescribeRequest {
    const API: Api = Api::ConsumerGroupDescribe;
    const SHAPE: Shape = Shape(&[Field::values(&Field::TEXT), Field::BOOL]);
}

impl Message for DeleteGroupsRequest {
    const API: Api = Api::DeleteGroups;
    const SHAPE: Shape = Shape(&[Field::values(&Field::TEXT)]);
}

impl Message for OffsetCommitRequest {
    const API: Api = Api::OffsetCommit;
    const SHAPE: Shape = Shape(&[
        Field::TEXT,
        Field::I32,
        Field::TEXT,
        Field::TEXT.from(7),
        Field::I64.to(4),
        Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I64, Field::I32.from(6), Field::TEXT])]),
    ]);
}

impl Message for OffsetFetchRequest {
    const API: Api = Api::OffsetFetch;
    const SHAPE: Shape = Shape(&[
        Field::TEXT.to(7),
        Field::array(&[Field::TEXT, Field::values(&Field::I32)]).to(7),
        Field::array(&[
            Field::TEXT,
            Field::TEXT.from(9),
            Field::I32.from(9),
            Field::array(&[Field::TEXT, Field::values(&Field::I32)]),
        ])
        .from(8),
        Field::BOOL.from(7),
    ]);
}

impl Message for OffsetDeleteRequest {
    const API: Api = Api::OffsetDelete;
    const SHAPE: Shape = Shape(&[Field::TEXT, Field::array(&[Field::TEXT, Field::array(&[Field::I32])])]);
}

/// The request in a frame. Bytes behind its last field mean nothing, as to Kafka's brokers: librdkafka 2.12 sends three too many
/// when it asks for all topics.
///
/// # Errors
/// If it declares what it does not have.
pub fn parse<M: Message>(request: &Request<'_>) -> Result<M, Malformed> {
    walk(M::SHAPE.0, request.version, request.reader())?;
    let mut rest = request.body;
    let message = M::decode(&mut rest, request.version).map_err(|_| Malformed::Refused)?;
    Ok(message)
}

/// The whole frame of a response; `None` if it does not fit the version, which is the server's mistake.
pub fn respond(api: Api, version: i16, correlation: i32, response: &impl Encodable) -> Option<Vec<u8>> {
    let size = response.compute_size(version).ok()?;
    let mut frame = Vec::with_capacity(header::response_bytes(api, version) + size);
    header::put_response(api, version, correlation, size, &mut frame);
    let begun = frame.len();
    response.encode(&mut frame, version).ok()?;
    (frame.len() - begun == size).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cut_short, framed};
    use kafka_protocol::messages;
    use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
    use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;
    use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
    use kafka_protocol::messages::describe_producers_request::TopicRequest;
    use kafka_protocol::messages::incremental_alter_configs_request as incremental;
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    use proptest::prelude::*;
    use std::fmt::Debug;
    use uuid::Uuid;

    fn name(text: &str) -> TopicName {
        TopicName(StrBytes::from_string(text.to_owned()))
    }

    fn metadata(version: i16) -> MetadataRequest {
        let topic = MetadataRequestTopic::default().with_name(Some(name("clicks")));
        let topic = if version >= 10 { topic.with_topic_id(Uuid::from_u128(5)) } else { topic };
        let message = MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic]));
        if version >= 8 { message.with_include_topic_authorized_operations(true) } else { message }
    }

    fn list_offsets(_: i16) -> ListOffsetsRequest {
        let partition = ListOffsetsPartition::default().with_partition_index(3).with_timestamp(-2);
        let topic =
            ListOffsetsTopic::default().with_name(name("clicks")).with_partitions(vec![partition.clone(), partition]);
        ListOffsetsRequest::default().with_topics(vec![topic])
    }

    fn create_topics(_: i16) -> CreateTopicsRequest {
        let broker_ids = vec![BrokerId(1), BrokerId(2)];
        let assignment = CreatableReplicaAssignment::default().with_partition_index(3).with_broker_ids(broker_ids);
        let config = CreatableTopicConfig::default().with_name(StrBytes::from_static_str("retention.ms"));
        let topic = CreatableTopic::default().with_name(name("clicks")).with_assignments(vec![assignment]);
        let topic =
            topic.with_configs(vec![config.with_value(Some(StrBytes::from_static_str("1"))), Default::default()]);
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5)
    }

    fn delete_topics(version: i16) -> DeleteTopicsRequest {
        let message = DeleteTopicsRequest::default().with_timeout_ms(5);
        match version {
            ..=5 => message.with_topic_names(vec![name("a"), name("b")]),
            _ => message.with_topics(vec![DeleteTopicState::default().with_topic_id(Uuid::from_u128(5))]),
        }
    }

    fn delete_records(_: i16) -> DeleteRecordsRequest {
        let partition = DeleteRecordsPartition::default().with_partition_index(3).with_offset(-1);
        let topic =
            DeleteRecordsTopic::default().with_name(name("clicks")).with_partitions(vec![partition.clone(), partition]);
        DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(9)
    }

    fn leader_epoch(version: i16) -> OffsetForLeaderEpochRequest {
        let partition = OffsetForLeaderPartition::default().with_partition(3).with_leader_epoch(2);
        let topic = OffsetForLeaderTopic::default().with_topic(name("clicks")).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
    }

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn describe_configs(version: i16) -> DescribeConfigsRequest {
        let some = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("clicks"));
        let some = some.with_configuration_keys(Some(vec![text("retention.ms"), text("x")]));
        let all = some.clone().with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![some, all]).with_include_synonyms(true);
        if version >= 3 { request.with_include_documentation(true) } else { request }
    }

    fn alter_configs(_: i16) -> AlterConfigsRequest {
        let config = AlterableConfig::default().with_name(text("retention.ms"));
        let configs = vec![config.clone().with_value(Some(text("1"))), config];
        let resource = AlterConfigsResource::default().with_resource_type(2).with_configs(configs);
        AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true)
    }

    fn alter_some(_: i16) -> IncrementalAlterConfigsRequest {
        let config = incremental::AlterableConfig::default().with_name(text("retention.ms")).with_config_operation(1);
        let resource = incremental::AlterConfigsResource::default().with_resource_type(2).with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    }

    fn log_dirs(_: i16) -> DescribeLogDirsRequest {
        let topic = DescribableLogDirTopic::default().with_topic(name("clicks")).with_partitions(vec![1, 2]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    }

    fn more_partitions(_: i16) -> CreatePartitionsRequest {
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
        let topic = CreatePartitionsTopic::default().with_name(name("clicks")).with_count(5);
        let placed = topic.clone().with_assignments(Some(vec![assignment]));
        CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None), placed])
    }

    fn cluster(version: i16) -> DescribeClusterRequest {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        if version >= 1 { request.with_endpoint_type(1) } else { request }
    }

    fn init_producer(version: i16) -> InitProducerIdRequest {
        let request = InitProducerIdRequest::default().with_transaction_timeout_ms(5);
        let request = request.with_transactional_id(Some(messages::TransactionalId(text("t"))));
        if version >= 3 { request.with_producer_id(ProducerId(9)).with_producer_epoch(2) } else { request }
    }

    fn producers(_: i16) -> DescribeProducersRequest {
        let topic = TopicRequest::default().with_name(name("clicks")).with_partition_indexes(vec![0, 3]);
        DescribeProducersRequest::default().with_topics(vec![topic])
    }

    fn group() -> GroupId {
        GroupId(text("readers"))
    }

    fn find_coordinator(version: i16) -> FindCoordinatorRequest {
        let request = FindCoordinatorRequest::default();
        match version {
            ..=3 => request.with_key(text("readers")),
            _ => request.with_coordinator_keys(vec![text("a"), text("b")]),
        }
    }

    fn join_group(version: i16) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(vec![1, 2].into());
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(5)
            .with_member_id(text("m"))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol.clone(), protocol]);
        let request = if version >= 1 { request.with_rebalance_timeout_ms(6) } else { request };
        let request = if version >= 5 { request.with_group_instance_id(Some(text("i"))) } else { request };
        if version >= 8 { request.with_reason(Some(text("why"))) } else { request }
    }

    fn sync_group(version: i16) -> SyncGroupRequest {
        let assignment = messages::sync_group_request::SyncGroupRequestAssignment::default();
        let assignment = assignment.with_member_id(text("m")).with_assignment(vec![3].into());
        let request = SyncGroupRequest::default().with_group_id(group()).with_generation_id(4);
        let request = request.with_member_id(text("m")).with_assignments(vec![assignment]);
        let request = if version >= 3 { request.with_group_instance_id(Some(text("i"))) } else { request };
        match version >= 5 {
            true => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
            false => request,
        }
    }

    fn heartbeat(version: i16) -> HeartbeatRequest {
        let request = HeartbeatRequest::default().with_group_id(group()).with_generation_id(4);
        if version >= 3 { request.with_group_instance_id(Some(text("i"))) } else { request }
    }

    fn leave_group(version: i16) -> LeaveGroupRequest {
        let request = LeaveGroupRequest::default().with_group_id(group());
        let member = messages::leave_group_request::MemberIdentity::default().with_member_id(text("m"));
        match version {
            ..=2 => request.with_member_id(text("m")),
            5.. => request.with_members(vec![member.clone().with_reason(Some(text("why"))), member]),
            _ => request.with_members(vec![member]),
        }
    }

    fn describe_groups(version: i16) -> DescribeGroupsRequest {
        let request = DescribeGroupsRequest::default().with_groups(vec![group(), group()]);
        if version >= 3 { request.with_include_authorized_operations(true) } else { request }
    }

    fn list_groups(version: i16) -> ListGroupsRequest {
        let request = ListGroupsRequest::default();
        let request = if version >= 4 { request.with_states_filter(vec![text("Stable")]) } else { request };
        if version >= 5 { request.with_types_filter(vec![text("consumer")]) } else { request }
    }

    fn consumer_heartbeat(version: i16) -> ConsumerGroupHeartbeatRequest {
        let owned = OwnedPartitions::default().with_topic_id(uuid::Uuid::from_u128(7)).with_partitions(vec![1, 2]);
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text("one"))
            .with_member_epoch(5)
            .with_instance_id(Some(text("first")))
            .with_rebalance_timeout_ms(300_000)
            .with_subscribed_topic_names(Some(vec![name("clicks"), name("views")]))
            .with_server_assignor(Some(text("range")))
            .with_topic_partitions(Some(vec![owned]));
        if version >= 1 { request.with_subscribed_topic_regex(Some(text("c.*"))) } else { request }
    }

    fn describe_consumers(_: i16) -> ConsumerGroupDescribeRequest {
        ConsumerGroupDescribeRequest::default()
            .with_group_ids(vec![group(), group()])
            .with_include_authorized_operations(true)
    }

    fn delete_groups(_: i16) -> DeleteGroupsRequest {
        DeleteGroupsRequest::default().with_groups_names(vec![group()])
    }

    fn offset_commit(version: i16) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default().with_partition_index(3).with_committed_offset(9);
        let partition = partition.with_committed_metadata(Some(text("half")));
        let partition = if version >= 6 { partition.with_committed_leader_epoch(2) } else { partition };
        let topic = messages::offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name("clicks"))
            .with_partitions(vec![partition.clone(), partition]);
        let request = OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic]);
        let request = if version <= 4 { request.with_retention_time_ms(7) } else { request };
        if version >= 7 { request.with_group_instance_id(Some(text("i"))) } else { request }
    }

    fn offset_fetch(version: i16) -> OffsetFetchRequest {
        use messages::offset_fetch_request::*;
        let request = OffsetFetchRequest::default();
        let request = if version >= 7 { request.with_require_stable(true) } else { request };
        if version < 8 {
            let topic = OffsetFetchRequestTopic::default().with_name(name("clicks")).with_partition_indexes(vec![1, 2]);
            return request.with_group_id(group()).with_topics(Some(vec![topic]));
        }
        let topic = OffsetFetchRequestTopics::default().with_name(name("clicks")).with_partition_indexes(vec![1, 2]);
        let one = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
        let one = if version >= 9 { one.with_member_id(Some(text("m"))).with_member_epoch(5) } else { one };
        request.with_groups(vec![one])
    }

    fn offset_delete(_: i16) -> OffsetDeleteRequest {
        let partition = messages::offset_delete_request::OffsetDeleteRequestPartition::default();
        let topic = messages::offset_delete_request::OffsetDeleteRequestTopic::default().with_name(name("clicks"));
        let topic = topic.with_partitions(vec![partition.with_partition_index(3)]);
        OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic])
    }

    /// What others write in any version is read, cut anywhere it is refused, and whatever a byte is changed to, nothing panics.
    fn holds<M: Message + Encodable + PartialEq + Debug>(of: impl Fn(i16) -> M) {
        let versions = M::API.versions();
        for version in versions.min..=versions.max {
            let message = of(version);
            let frame = framed(M::API, version, &message);
            let request = Request::parse(M::API, &frame).unwrap();
            assert_eq!(parse::<M>(&request), Ok(message), "{} {version}", M::API.name());
            let behind = walk(M::SHAPE.0, version, request.reader()).unwrap();
            assert_eq!(behind.end(), Ok(()), "its shape has all fields of {} {version}", M::API.name());
            let header = frame.len() - request.body.len();
            for cut in header..frame.len() {
                let cut = Request::parse(M::API, &frame[..cut]).unwrap();
                assert!(parse::<M>(&cut).is_err(), "{} {version}", M::API.name());
            }
            for at in header..frame.len() {
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut frame = frame.clone();
                    frame[at] = byte;
                    let _ = Request::parse(M::API, &frame).and_then(|request| parse::<M>(&request));
                }
            }
        }
    }

    #[test]
    fn what_lies_behind_the_last_field_is_not_looked_at() {
        // As librdkafka 2.12 asks for all topics.
        let frame = b"\0\0\0\x19\0\x03\0\x0c\0\0\0\x03\0\x07rdkafka\0\0\0\0\0\x01\0\0";
        let request = Request::parse(Api::Metadata, frame).unwrap();
        let message = parse::<MetadataRequest>(&request).unwrap();
        assert!(message.topics.is_none() && !message.allow_auto_topic_creation);
    }

    #[test]
    fn requests_of_others_are_understood() {
        holds(metadata);
        holds(list_offsets);
        holds(create_topics);
        holds(delete_topics);
        holds(delete_records);
        holds(leader_epoch);
        holds(describe_configs);
        holds(alter_configs);
        holds(alter_some);
        holds(log_dirs);
        holds(more_partitions);
        holds(cluster);
        holds(init_producer);
        holds(producers);
        holds(find_coordinator);
        holds(join_group);
        holds(sync_group);
        holds(heartbeat);
        holds(leave_group);
        holds(describe_groups);
        holds(list_groups);
        holds(consumer_heartbeat);
        holds(|_| ConsumerGroupHeartbeatRequest::default());
        holds(describe_consumers);
        holds(delete_groups);
        holds(offset_commit);
        holds(offset_fetch);
        holds(offset_delete);
    }

    #[test]
    fn an_array_of_all_topics_is_told_from_one_of_none() {
        for version in 1..=12 {
            for (topics, all) in [(None, true), (Some(Vec::new()), false)] {
                let frame = framed(Api::Metadata, version, &MetadataRequest::default().with_topics(topics));
                let request = Request::parse(Api::Metadata, &frame).unwrap();
                assert_eq!(parse::<MetadataRequest>(&request).unwrap().topics.is_none(), all);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(version in 0i16..=12, cut: prop::sample::Index, byte: u8) {
            let mut frame = framed(Api::Metadata, version, &metadata(version));
            cut_short(&mut frame, cut, byte);
            let _ = Request::parse(Api::Metadata, &frame).and_then(|request| parse::<MetadataRequest>(&request));
        }
    }
}
