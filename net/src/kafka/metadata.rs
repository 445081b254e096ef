//! Metadata and DescribeCluster: brokers, and who leads which partition. Every shard is a broker.

use super::dialect::Connection;
use super::server::broker;
use super::state::State;
use super::topics::find;
use corelog_engine::metadata::TopicInfo;
use corelog_engine::model::{PartitionIndex, ShardId};
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use corelog_kafka::messages::{
    BrokerId, DescribeClusterBroker, DescribeClusterResponse, MetadataRequest, MetadataResponse,
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, StrBytes, TopicName,
};

/// Changes the catalog.
const CONTROLLER: ShardId = ShardId(0);

impl State {
    pub(super) fn metadata(
        &mut self,
        connection: &Connection,
        request: MetadataRequest,
        version: i16,
    ) -> MetadataResponse {
        let (shard, own) = (connection.shard(), &connection.shared.own);
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
            Some(topics) => topics.into_iter().map(|topic| asked_for(shard, topic.name, topic.topic_id)).collect(),
        };
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from_string(node.cluster_id.to_string())))
            .with_controller_id(BrokerId(broker(node.node_id, CONTROLLER)))
            .with_topics(topics)
    }

    pub(super) fn describe_cluster(&self, connection: &Connection) -> DescribeClusterResponse {
        let (node, own) = (connection.shard().node(), &connection.shared.own);
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
