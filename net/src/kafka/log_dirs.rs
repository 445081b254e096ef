//! DescribeLogDirs: what the partitions of this broker take of the disk.

use corelog_engine::metadata::TopicInfo;
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic, StrBytes, TopicName,
};

pub(super) async fn describe_log_dirs(
    shard: Shard,
    request: DescribeLogDirsRequest,
    version: i16,
) -> DescribeLogDirsResponse {
    let is_wanted = |topic: &TopicInfo, index: i32| {
        let wanted = |wanted: &DescribableLogDirTopic| {
            wanted.topic.as_str() == topic.name.as_str()
                && (wanted.partitions.is_empty() || wanted.partitions.contains(&index))
        };
        request.topics.as_ref().is_none_or(|topics| topics.iter().any(wanted))
    };
    let topics: Vec<TopicInfo> = shard.catalog().topics().cloned().collect();
    let described = topics.iter().map(|topic| {
        let own = topic.owned_by(shard.id(), shard.shards()).filter(|id| is_wanted(topic, id.index.0 as i32));
        let sizes = own.filter_map(|id| {
            let status = shard.open(id).and_then(|handle| shard.describe(handle))?;
            Some(
                DescribeLogDirsPartition::default()
                    .with_partition_index(id.index.0 as i32)
                    .with_partition_size(i64::try_from(status.bytes).unwrap_or(i64::MAX)),
            )
        });
        DescribeLogDirsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.name.to_string())))
            .with_partitions(sizes.collect())
    });
    let described = described.filter(|topic| !topic.partitions.is_empty()).collect();
    // Tools compare it from machine to machine: where the server was started says nothing there.
    let data_dir = std::path::absolute(shard.data_dir()).unwrap_or_else(|_| shard.data_dir().to_owned());
    let result = DescribeLogDirsResult::default()
        .with_error_code(ErrorCode::None.code())
        .with_log_dir(StrBytes::from_string(data_dir.display().to_string()))
        .with_topics(described);
    let space = shard.reactor().free_space(shard.data_dir()).await;
    let result = match space {
        Ok(space) if version >= 4 => result
            .with_total_bytes(i64::try_from(space.total).unwrap_or(i64::MAX))
            .with_usable_bytes(i64::try_from(space.free).unwrap_or(i64::MAX)),
        _ => result,
    };
    DescribeLogDirsResponse::default().with_results(vec![result])
}
