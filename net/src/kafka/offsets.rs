//! OffsetCommit, OffsetFetch and OffsetDelete: how far groups have come.

use super::errors;
use corelog_engine::group::GroupError;
use corelog_engine::group::classic::Said;
use corelog_engine::group::records::{Committed, Place};
use corelog_engine::model::{Offset, Timestamp};
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic, OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic, OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    StrBytes, TopicName,
};
use std::collections::BTreeMap;

/// What is said where no offset is known.
const UNKNOWN: i64 = -1;
/// The first version of OffsetFetch that asks for several groups.
const FIRST_OF_SEVERAL: i16 = 8;
/// The first version of OffsetFetch whose error stands for all.
const FIRST_WITH_ERROR: i16 = 2;
/// The first versions with leader epochs.
const FIRST_FETCH_WITH_EPOCHS: i16 = 5;

pub(super) async fn offset_commit(shard: Shard, request: OffsetCommitRequest, _: i16) -> OffsetCommitResponse {
    let said = Said {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let now = shard.reactor().wall_clock();
    let all = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.name, partition)));
    let offsets: Vec<(Place, Committed)> = all.map(|(topic, partition)| committed(topic, partition, now)).collect();
    let outcomes = shard.commit_offsets(&request.group_id, &said, offsets).await;
    let mut at = 0;
    let mut next = || {
        at += 1;
        match &outcomes {
            Ok(outcomes) => outcomes[at - 1].map_or_else(errors::of_group, |()| ErrorCode::None).code(),
            Err(error) => errors::of_group(*error).code(),
        }
    };
    let topics = request.topics.iter().map(|topic| {
        let partition = |partition: &OffsetCommitRequestPartition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(next())
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn committed(topic: &TopicName, partition: &OffsetCommitRequestPartition, at: Timestamp) -> (Place, Committed) {
    let committed = Committed {
        offset: Offset(partition.committed_offset),
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
        at,
    };
    (place(topic, partition.partition_index), committed)
}

/// One that cannot be is looked up in vain.
fn place(topic: &str, partition: i32) -> Place {
    Place { topic: topic.to_owned(), partition: u32::try_from(partition).unwrap_or(u32::MAX) }
}

type Known = Result<BTreeMap<Place, Committed>, GroupError>;

pub(super) async fn offset_fetch(shard: Shard, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version < FIRST_OF_SEVERAL {
        let known = shard.committed_offsets(&request.group_id, None).await;
        let topics = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>());
        let error = known.as_ref().err().map_or(ErrorCode::None, |error| errors::of_group(*error)).code();
        let found = found(&known, topics).into_iter().map(|(name, offsets)| {
            let partition = |(index, committed): (i32, Option<Committed>)| {
                let response = OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.as_ref().map_or(UNKNOWN, |committed| committed.offset.0))
                    .with_metadata(Some(metadata(committed.as_ref())))
                    .with_error_code(error);
                let epoch = committed.map_or(-1, |committed| committed.leader_epoch);
                if version >= FIRST_FETCH_WITH_EPOCHS { response.with_committed_leader_epoch(epoch) } else { response }
            };
            let partitions = offsets.into_iter().map(partition).collect();
            OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
        });
        let response = OffsetFetchResponse::default().with_topics(found.collect());
        return if version >= FIRST_WITH_ERROR { response.with_error_code(error) } else { response };
    }
    let mut groups = Vec::new();
    for group in request.groups {
        // Who is no member of the consumer protocol says neither.
        let member = group.member_id.as_deref().filter(|_| group.member_epoch >= 0);
        let said = member.map(|member| Said { member, instance: None, generation: group.member_epoch });
        let known = shard.committed_offsets(&group.group_id, said.as_ref()).await;
        let topics = group
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect::<Vec<_>>());
        let error = known.as_ref().err().map_or(ErrorCode::None, |error| errors::of_group(*error)).code();
        let found = found(&known, topics).into_iter().map(|(name, offsets)| {
            let partition = |(index, committed): (i32, Option<Committed>)| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_committed_offset(committed.as_ref().map_or(UNKNOWN, |committed| committed.offset.0))
                    .with_metadata(Some(metadata(committed.as_ref())))
                    .with_committed_leader_epoch(committed.map_or(-1, |committed| committed.leader_epoch))
            };
            let partitions = offsets.into_iter().map(partition).collect();
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
        });
        let topics = if error == 0 { found.collect() } else { Vec::new() };
        let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
        groups.push(response.with_topics(topics).with_error_code(error));
    }
    OffsetFetchResponse::default().with_groups(groups)
}

fn metadata(committed: Option<&Committed>) -> StrBytes {
    StrBytes::from_string(committed.map(|committed| committed.metadata.clone()).unwrap_or_default())
}

type OfTopic = (TopicName, Vec<(i32, Option<Committed>)>);

/// What was asked for, or all that is known.
fn found(known: &Known, asked: Option<Vec<(TopicName, Vec<i32>)>>) -> Vec<OfTopic> {
    let nothing = BTreeMap::new();
    let known = known.as_ref().unwrap_or(&nothing);
    let Some(asked) = asked else {
        let mut all: BTreeMap<&str, Vec<(i32, Option<Committed>)>> = BTreeMap::new();
        for (place, committed) in known {
            all.entry(&place.topic).or_default().push((place.partition as i32, Some(committed.clone())));
        }
        let named = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
        return all.into_iter().map(|(topic, offsets)| (named(topic), offsets)).collect();
    };
    let of = |(topic, indexes): (TopicName, Vec<i32>)| {
        let offset = |index: i32| (index, known.get(&place(&topic, index)).cloned());
        let offsets = indexes.into_iter().map(offset).collect();
        (topic, offsets)
    };
    asked.into_iter().map(of).collect()
}

pub(super) async fn offset_delete(shard: Shard, request: OffsetDeleteRequest, _: i16) -> OffsetDeleteResponse {
    let all = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.name, partition)));
    let places: Vec<Place> = all.map(|(topic, partition)| place(topic, partition.partition_index)).collect();
    let outcomes = match shard.delete_offsets(&request.group_id, &places).await {
        Ok(outcomes) => outcomes,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(errors::of_group(error).code()),
    };
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(outcomes.by_ref()).map(|(partition, outcome)| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(outcome.map_or_else(errors::of_group, |()| ErrorCode::None).code())
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
