//! DeleteRecords: what lies before an offset is gone once the answer is there.

use super::errors;
use super::topics::{locate, status_of};
use crate::transport::Place;
use corelog_engine::error::ReadError;
use corelog_engine::model::Offset;
use corelog_engine::shard::{Remote, Reply, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

/// Asks for all that readers can see.
const ALL: i64 = -1;

pub(super) async fn delete_records(shard: Shard, request: DeleteRecordsRequest, _: i16) -> DeleteRecordsResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
            partitions.push(match delete(&shard, &topic.name, index, partition.offset).await {
                Ok(first) => result.with_low_watermark(first.0),
                Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(shard: &Shard, topic: &str, partition: i32, before: i64) -> Result<Offset, ErrorCode> {
    let place = locate(shard, topic, partition)?;
    let before = match before {
        ALL => status_of(shard, place).await?.high_watermark,
        before => Offset(before),
    };
    let deleted = match place {
        Place::Here(handle) => shard.delete_records(handle, before).await,
        Place::There(owner, partition) => match shard.ask(owner, Remote::DeleteRecords { partition, before }).await {
            Reply::Deleted { first } => Ok(first),
            Reply::ReadRefused(error) => Err(error),
            _ => Err(ReadError::Busy),
        },
    };
    deleted.map_err(|error| errors::of_read(&error))
}
