//! ConsumerGroupHeartbeat and ConsumerGroupDescribe: groups whose coordinator assigns (KIP-848).

use super::errors;
use super::groups::{NOT_TOLD, text};
use super::membership::Caller;
use corelog_engine::group::GroupError;
use corelog_engine::group::consumer::{Heartbeat, MemberStatus, Partitions, Status};
use corelog_engine::limits::NODE_PARTITIONS_MAX;
use corelog_engine::metadata::Catalog;
use corelog_engine::model::TopicId;
use corelog_engine::shard::Shard;
use corelog_kafka::messages::{
    Assignment, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, ConsumerGroupMember, DescribedConsumerGroup, DescribedPartitions, GroupId,
    OwnedPartitions, StrBytes, ToldAssignment, ToldPartitions, TopicName,
};
use std::time::Duration;

/// Names of topics that a member may say.
const NAMES_MAX: usize = 10_000;
/// The first description that says by which protocol a member is in: all by this one.
const FIRST_WITH_TYPES: i16 = 1;
const BY_CONSUMER_PROTOCOL: i8 = 1;

pub(super) async fn consumer_group_heartbeat(
    shard: Shard,
    caller: Caller,
    request: ConsumerGroupHeartbeatRequest,
    _: i16,
) -> ConsumerGroupHeartbeatResponse {
    let epoch = request.member_epoch;
    let group = request.group_id.to_string();
    let response = ConsumerGroupHeartbeatResponse::default();
    if says_too_much(&request) {
        let why = "a member has at most 10,000 names of topics, and as many partitions as a node";
        return response
            .with_error_code(errors::of_group(GroupError::InvalidRequest(why)).code())
            .with_error_message(Some(text(why)))
            .with_member_epoch(epoch);
    }
    match shard.consumer_heartbeat(&group, &said(caller, request)).await {
        Ok(told) => response
            .with_member_id(Some(text(&told.member)))
            .with_member_epoch(told.epoch)
            .with_heartbeat_interval_ms(i32::try_from(told.heartbeat.as_millis()).unwrap_or(i32::MAX))
            .with_assignment(told.assignment.as_ref().map(assignment)),
        Err(error) => response
            .with_error_code(errors::of_group(error).code())
            .with_error_message(Some(text(&error.to_string())))
            .with_member_epoch(epoch),
    }
}

/// What it says takes several times as much memory once it is taken apart.
fn says_too_much(request: &ConsumerGroupHeartbeatRequest) -> bool {
    let names = request.subscribed_topic_names.as_ref().map_or(0, Vec::len);
    let owned = request.topic_partitions.iter().flatten();
    let owned: usize = owned.map(|topic| 1 + topic.partitions.len()).sum();
    names > NAMES_MAX || owned > 2 * NODE_PARTITIONS_MAX as usize
}

fn said(caller: Caller, request: ConsumerGroupHeartbeatRequest) -> Heartbeat {
    let owned = |topics: Vec<OwnedPartitions>| {
        let mut owned = Partitions::new();
        for topic in topics {
            // What cannot be is nobody's.
            let partitions = topic.partitions.iter().filter_map(|partition| u32::try_from(*partition).ok());
            owned.entry(TopicId(topic.topic_id)).or_default().extend(partitions);
        }
        owned
    };
    let optional = |text: Option<StrBytes>| text.map(|text| text.to_string());
    Heartbeat {
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance: optional(request.instance_id),
        rack: optional(request.rack_id),
        client_id: caller.client_id,
        client_host: caller.host,
        rebalance: u64::try_from(request.rebalance_timeout_ms).ok().map(Duration::from_millis),
        names: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        pattern: optional(request.subscribed_topic_regex),
        assignor: optional(request.server_assignor),
        owned: request.topic_partitions.map(owned),
    }
}

fn assignment(partitions: &Partitions) -> ToldAssignment {
    let told = partitions.iter().map(|(topic, of)| {
        let numbers = of.iter().map(|partition| *partition as i32).collect();
        ToldPartitions::default().with_topic_id(topic.0).with_partitions(numbers)
    });
    ToldAssignment::default().with_topic_partitions(told.collect())
}

pub(super) async fn consumer_group_describe(
    shard: Shard,
    request: ConsumerGroupDescribeRequest,
    version: i16,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::new();
    for group in request.group_ids {
        let status = shard.describe_consumer_group(&group).await;
        groups.push(described(&shard.catalog(), group, status, version));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn described(
    catalog: &Catalog,
    group: GroupId,
    status: Result<Status, GroupError>,
    version: i16,
) -> DescribedConsumerGroup {
    let described = DescribedConsumerGroup::default().with_group_id(group).with_authorized_operations(NOT_TOLD);
    match status {
        Ok(status) => described
            .with_group_state(text(status.state))
            .with_group_epoch(status.epoch)
            .with_assignment_epoch(status.assignment_epoch)
            .with_assignor_name(text(status.assignor))
            .with_members(status.members.iter().map(|one| member(catalog, one, version)).collect()),
        Err(error) => {
            described.with_error_code(errors::of_group(error).code()).with_error_message(Some(text(&error.to_string())))
        }
    }
}

fn member(catalog: &Catalog, member: &MemberStatus, version: i16) -> ConsumerGroupMember {
    let described = ConsumerGroupMember::default()
        .with_member_id(text(&member.member))
        .with_instance_id(member.instance.as_deref().map(text))
        .with_rack_id(member.rack.as_deref().map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.client_host))
        .with_subscribed_topic_names(member.names.iter().map(|name| TopicName(text(name))).collect())
        .with_subscribed_topic_regex(member.pattern.as_deref().map(text))
        .with_assignment(named(catalog, &member.assigned))
        .with_target_assignment(named(catalog, &member.target));
    if version >= FIRST_WITH_TYPES { described.with_member_type(BY_CONSUMER_PROTOCOL) } else { described }
}

/// Of a topic that was deleted there is no name.
fn named(catalog: &Catalog, partitions: &Partitions) -> Assignment {
    let told = partitions.iter().filter_map(|(id, of)| {
        let name = catalog.topic(*id)?.name.as_str();
        let numbers = of.iter().map(|partition| *partition as i32).collect();
        let told = DescribedPartitions::default().with_topic_id(id.0).with_topic_name(TopicName(text(name)));
        Some(told.with_partitions(numbers))
    });
    Assignment::default().with_topic_partitions(told.collect())
}
