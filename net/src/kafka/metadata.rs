//! Metadata and DescribeCluster: brokers, and who leads which partition. Every shard is a broker.

use super::dialect::Shared;
use super::errors;
use super::server::broker;
use super::topics::find;
use corelog_engine::metadata::{GROUPS_TOPIC, MetadataError, TopicInfo};
use corelog_engine::model::{PartitionIndex, ShardId};
use corelog_engine::shard::{Command, CommandError, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use corelog_kafka::messages::{
    BrokerId, DescribeClusterBroker, DescribeClusterResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, StrBytes, TopicName,
};
use std::rc::Rc;

/// Topics that one request may have made. The client asks again for the others.
const CREATED_AT_ONCE_MAX: usize = 100;
/// Changes the catalog.
const CONTROLLER: ShardId = ShardId(0);

pub(super) async fn metadata(shared: Rc<Shared>, request: MetadataRequest, version: i16) -> MetadataResponse {
    let (shard, own) = (&shared.shard, &shared.own);
    let node = shard.node();
    let host = StrBytes::from_string(own.host.clone());
    let brokers = own.ports.listening().map(|(shard, port)| {
        let broker = BrokerId(broker(node.node_id, shard));
        MetadataResponseBroker::default().with_node_id(broker).with_host(host.clone()).with_port(port.into())
    });
    // Before there could be null, no topics meant all.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let topics = match asked {
        None => shard.catalog().topics().map(|topic| described(shard, topic)).collect(),
        Some(topics) => {
            let creates = own.node.creates_topics && request.allow_auto_topic_creation;
            all_asked_for(&shared, topics, creates).await
        }
    };
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(node.cluster_id.to_string())))
        .with_controller_id(BrokerId(broker(node.node_id, CONTROLLER)))
        .with_topics(topics)
}

pub(super) fn describe_cluster(shared: &Shared) -> DescribeClusterResponse {
    let (node, own) = (shared.shard.node(), &shared.own);
    let host = StrBytes::from_string(own.host.clone());
    let brokers = own.ports.listening().map(|(shard, port)| {
        let broker = BrokerId(broker(node.node_id, shard));
        DescribeClusterBroker::default().with_broker_id(broker).with_host(host.clone()).with_port(port.into())
    });
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(node.cluster_id.to_string()))
        .with_controller_id(BrokerId(broker(node.node_id, CONTROLLER)))
        .with_brokers(brokers.collect())
}

/// The topics of a request, of which those that there are not are made if that is wanted.
async fn all_asked_for(
    shared: &Shared,
    topics: Vec<MetadataRequestTopic>,
    creates: bool,
) -> Vec<MetadataResponseTopic> {
    let (mut found, mut may_create) = (Vec::new(), if creates { CREATED_AT_ONCE_MAX } else { 0 });
    for MetadataRequestTopic { name, topic_id, .. } in topics {
        let mut answer = asked_for(&shared.shard, name.clone(), topic_id);
        let is_missing = answer.error_code == ErrorCode::UnknownTopicOrPartition.code();
        if let Some(name) = name.filter(|name| creates && is_missing && name.as_str() != GROUPS_TOPIC) {
            let made = if may_create > 0 { create(shared, &name).await } else { Err(ErrorCode::LeaderNotAvailable) };
            may_create = may_create.saturating_sub(1);
            answer = match made {
                Ok(()) => asked_for(&shared.shard, Some(name), topic_id),
                Err(error) => answer.with_error_code(error.code()),
            };
        }
        found.push(answer);
    }
    found
}

async fn create(shared: &Shared, name: &str) -> Result<(), ErrorCode> {
    let command =
        Command::CreateTopic { name: name.to_owned(), partitions: shared.own.node.partitions, settings: Vec::new() };
    match shared.shard.command(command).await {
        // Somebody else was faster.
        Ok(()) | Err(CommandError::Refused(MetadataError::Exists { .. })) => Ok(()),
        Err(CommandError::Refused(error)) => Err(errors::of_metadata(&error)),
        Err(CommandError::Log(_) | CommandError::Busy) => Err(ErrorCode::LeaderNotAvailable),
    }
}

fn asked_for(shard: &Shard, name: Option<TopicName>, id: uuid::Uuid) -> MetadataResponseTopic {
    let topic = match &name {
        Some(name) => Topic::Name(name),
        None => Topic::Id(id),
    };
    match find(shard, &topic) {
        Ok(topic) => described(shard, &topic),
        Err(error) => MetadataResponseTopic::default().with_error_code(error.code()).with_name(name).with_topic_id(id),
    }
}

fn described(shard: &Shard, topic: &TopicInfo) -> MetadataResponseTopic {
    let partition = |index: u32| {
        let leader = BrokerId(broker(shard.node().node_id, topic.owner(PartitionIndex(index), shard.shards())));
        // The leader's epoch is known to the leader alone: -1 says that it is not known here.
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(leader)
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
    };
    MetadataResponseTopic::default()
        .with_error_code(ErrorCode::None.code())
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.is_internal())
        .with_partitions((0..topic.partitions).map(partition).collect())
}
