//! InitProducerId and DescribeProducers: numbers by which batches that are sent again are recognised, and who uses them.

use super::topics::locate;
use crate::transport::Place;
use corelog_engine::producer::Produced;
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse, InitProducerIdRequest, InitProducerIdResponse,
    PartitionResponse, ProducerId, ProducerState, TopicResponse,
};

/// Of a producer without transactions, and of what is not known.
const NONE: i32 = -1;

/// A producer without transactions counts its epochs itself: whoever asks, with an id or without, begins anew.
pub(super) async fn init_producer_id(shard: Shard, request: InitProducerIdRequest, _: i16) -> InitProducerIdResponse {
    let refused = InitProducerIdResponse::default().with_producer_id(ProducerId(NONE.into())).with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        // The code by which clients give up at once, and say that the broker has no transactions.
        return refused.with_error_code(ErrorCode::TransactionalIdAuthorizationFailed.code());
    }
    refused.with_producer_id(ProducerId(shard.draw_producer_id().0)).with_producer_epoch(0)
}

pub(super) async fn describe_producers(
    shard: Shard,
    request: DescribeProducersRequest,
    _: i16,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let response = PartitionResponse::default().with_partition_index(index);
            match producers_of(&shard, &topic.name, index) {
                Ok(producers) => response.with_active_producers(producers),
                Err(error) => response.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producers_of(shard: &Shard, topic: &str, index: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    let Place::Here(handle) = locate(shard, topic, index)? else { return Err(ErrorCode::NotLeaderOrFollower) };
    let newest = shard.producers(handle).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(newest.iter().map(state_of).collect())
}

fn state_of(newest: &Produced) -> ProducerState {
    let last = newest.first.plus((newest.last.0 - newest.base.0) as u32);
    ProducerState::default()
        .with_producer_id(ProducerId(newest.producer.0))
        .with_producer_epoch(newest.epoch.0.into())
        .with_last_sequence(last.0)
        .with_last_timestamp(newest.at.0)
        .with_coordinator_epoch(NONE)
        .with_current_txn_start_offset(NONE.into())
}
