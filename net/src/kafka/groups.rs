//! DescribeGroups, ListGroups and DeleteGroups: groups as operators see them. A broker tells of those that it coordinates.

use super::errors;
use corelog_engine::group::GroupError;
use corelog_engine::group::classic::{GroupStatus, MemberStatus};
use corelog_engine::shard::{Listed, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribedGroup, DescribedGroupMember, GroupId, ListGroupsRequest, ListGroupsResponse, ListedGroup, StrBytes,
};

/// What a group is that there is nothing of.
const DEAD: &str = "Dead";
/// Operations are not told: nobody is refused any.
pub(super) const NOT_TOLD: i32 = i32::MIN;
/// The first versions that have these.
const FIRST_WITH_INSTANCES: i16 = 4;
const FIRST_LIST_WITH_STATES: i16 = 4;
const FIRST_LIST_WITH_TYPES: i16 = 5;

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) async fn describe_groups(
    shard: Shard,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    for group in request.groups {
        let status = shard.describe_group(&group).await;
        groups.push(described(group, status, version));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described(group: GroupId, status: Result<GroupStatus, GroupError>, version: i16) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(group);
    let described = if version >= 3 { described.with_authorized_operations(NOT_TOLD) } else { described };
    let member = |member: &MemberStatus| {
        let described = DescribedGroupMember::default()
            .with_member_id(text(&member.member))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata.clone().into())
            .with_member_assignment(member.assignment.clone().into());
        match version >= FIRST_WITH_INSTANCES {
            true => described.with_group_instance_id(member.instance.as_deref().map(text)),
            false => described,
        }
    };
    match status {
        Ok(status) => described
            .with_group_state(text(status.state))
            .with_protocol_type(text(&status.protocol_type))
            .with_protocol_data(text(&status.protocol))
            .with_members(status.members.iter().map(member).collect()),
        Err(GroupError::NotFound) => described.with_group_state(text(DEAD)),
        Err(error) => described.with_error_code(errors::of_group(error).code()),
    }
}

pub(super) async fn list_groups(shard: Shard, request: ListGroupsRequest, version: i16) -> ListGroupsResponse {
    let listed = match shard.list_groups().await {
        Ok(listed) => listed,
        Err(error) => return ListGroupsResponse::default().with_error_code(errors::of_group(error).code()),
    };
    let is_one_of = |wanted: &[StrBytes], word: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    let is_wanted = |group: &Listed| {
        is_one_of(&request.states_filter, group.state) && is_one_of(&request.types_filter, type_of(group))
    };
    let groups = listed.iter().filter(|group| is_wanted(group)).map(|listed| {
        let group = ListedGroup::default()
            .with_group_id(GroupId(text(&listed.name)))
            .with_protocol_type(text(&listed.protocol_type));
        let group = if version >= FIRST_LIST_WITH_STATES { group.with_group_state(text(listed.state)) } else { group };
        if version >= FIRST_LIST_WITH_TYPES { group.with_group_type(text(type_of(listed))) } else { group }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

fn type_of(group: &Listed) -> &'static str {
    if group.is_consumer { "consumer" } else { "classic" }
}

pub(super) async fn delete_groups(shard: Shard, request: DeleteGroupsRequest, _: i16) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for group in request.groups_names {
        let outcome = shard.delete_group(&group).await;
        let error = outcome.map_or_else(errors::of_group, |()| ErrorCode::None);
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(error.code()));
    }
    DeleteGroupsResponse::default().with_results(results)
}
