//! ListOffsets: the first, the next, or the first at a time.

use super::errors;
use super::topics::locate;
use crate::transport::Place;
use corelog_engine::error::ReadError;
use corelog_engine::model::{Offset, Timestamp};
use corelog_engine::shard::{OffsetQuery, Remote, Reply, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};

/// What a negative time asks for.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// What is here and not in a remote tier: everything.
const EARLIEST_LOCAL: i64 = -4;

pub(super) async fn list_offsets(shard: Shard, request: ListOffsetsRequest, _: i16) -> ListOffsetsResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
            partitions.push(match look_up(&shard, &topic.name, index, partition.timestamp).await {
                Ok((offset, timestamp)) => response.with_offset(offset.0).with_timestamp(timestamp.0),
                Err(error) => response.with_error_code(error.code()),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn look_up(shard: &Shard, topic: &str, partition: i32, time: i64) -> Result<(Offset, Timestamp), ErrorCode> {
    let place = locate(shard, topic, partition)?;
    let query = match time {
        LATEST => OffsetQuery::Latest,
        EARLIEST | EARLIEST_LOCAL => OffsetQuery::Earliest,
        MAX_TIMESTAMP => OffsetQuery::MaxTimestamp,
        0.. => OffsetQuery::At(Timestamp(time)),
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let found = match place {
        Place::Here(handle) => shard.list_offset(handle, query).await,
        Place::There(owner, partition) => match shard.ask(owner, Remote::ListOffset { partition, query }).await {
            Reply::Offset(found) => Ok(found),
            Reply::ReadRefused(error) => Err(error),
            _ => Err(ReadError::Busy),
        },
    };
    let found = found.map_err(|error| errors::of_read(&error))?;
    Ok(found.unwrap_or((Offset(-1), Timestamp(-1))))
}
