//! OffsetForLeaderEpoch: where the records of a leader's time end, so that a reader finds out whether what it read still holds.

use super::topics::{locate, status_of};
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

/// Of an epoch of which the log has nothing.
const UNDEFINED: i32 = -1;

pub(super) async fn offset_for_leader_epoch(
    shard: Shard,
    request: OffsetForLeaderEpochRequest,
    _: i16,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let end = EpochEndOffset::default().with_partition(asked.partition);
            partitions.push(match end_of(&shard, &topic.topic, asked.partition, asked.leader_epoch).await {
                Ok((epoch, offset)) => end.with_leader_epoch(epoch).with_end_offset(offset),
                Err(error) => end.with_error_code(error.code()),
            });
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn end_of(shard: &Shard, topic: &str, partition: i32, epoch: i32) -> Result<(i32, i64), ErrorCode> {
    let place = locate(shard, topic, partition)?;
    let status = status_of(shard, place).await?;
    // On one node a partition has had one leader only.
    match status.leader_epoch.0 == epoch {
        true => Ok((epoch, status.high_watermark.0)),
        false => Ok((UNDEFINED, UNDEFINED.into())),
    }
}
