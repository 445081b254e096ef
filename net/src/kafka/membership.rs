//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: members of a group as its coordinator knows them.

use super::dialect::Connection;
use super::errors;
use super::groups::text;
use corelog_engine::group::GroupError;
use corelog_engine::group::classic::{Join, Joined, Said};
use corelog_engine::shard::Shard;
use corelog_kafka::ErrorCode;
use corelog_kafka::header::Request;
use corelog_kafka::messages::{
    Bytes, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
    LeaveGroupRequest, LeaveGroupResponse, MemberResponse, StrBytes, SyncGroupRequest, SyncGroupResponse,
};
use std::time::Duration;

/// The first version in which a new member asks for an id first.
const FIRST_WITH_IDS_FIRST: i16 = 4;
/// The first in which it says how long the others wait for it; before that it is the session's time.
const FIRST_WITH_REBALANCE_TIME: i16 = 1;
/// The first in which the protocol may be null in a response.
const FIRST_WITH_NULL_PROTOCOL: i16 = 7;
/// The first LeaveGroup of several members.
const FIRST_OF_SEVERAL: i16 = 3;
const NO_GENERATION: i32 = -1;

/// Who a connection's client is.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) client_id: String,
    pub(super) host: String,
}

impl Caller {
    pub(super) fn of(connection: &Connection, request: &Request<'_>) -> Caller {
        let client_id = request.client_id.unwrap_or_default().to_owned();
        Caller { client_id, host: format!("/{}", connection.peer().ip()) }
    }
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(super) async fn join_group(
    shard: Shard,
    caller: Caller,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let session = millis(request.session_timeout_ms);
    let has_own = version >= FIRST_WITH_REBALANCE_TIME;
    let protocol = |protocol: &corelog_kafka::messages::JoinGroupRequestProtocol| {
        (protocol.name.to_string(), protocol.metadata.to_vec())
    };
    let join = Join {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(StrBytes::to_string),
        client_id: caller.client_id,
        client_host: caller.host,
        session,
        rebalance: if has_own { millis(request.rebalance_timeout_ms) } else { session },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(protocol).collect(),
        needs_id: version >= FIRST_WITH_IDS_FIRST,
    };
    match shard.join_group(&request.group_id, join).await {
        Ok(joined) => joined_response(&joined, version),
        Err((error, member)) => {
            let protocol = (version < FIRST_WITH_NULL_PROTOCOL).then(StrBytes::default);
            JoinGroupResponse::default()
                .with_error_code(errors::of_group(error).code())
                .with_generation_id(NO_GENERATION)
                .with_protocol_name(protocol)
                .with_member_id(text(&member))
        }
    }
}

fn joined_response(joined: &Joined, version: i16) -> JoinGroupResponse {
    let member = |(id, instance, metadata): &(String, Option<String>, Vec<u8>)| {
        let member =
            JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(Bytes::copy_from_slice(metadata));
        // The first version with instances is 5.
        if version >= 5 { member.with_group_instance_id(instance.as_deref().map(text)) } else { member }
    };
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(text(joined.protocol.as_deref().unwrap_or_default())))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member))
        .with_members(joined.members.iter().map(member).collect());
    match version >= FIRST_WITH_NULL_PROTOCOL {
        true => response.with_protocol_type(joined.protocol_type.as_deref().map(text)),
        false => response,
    }
}

pub(super) async fn sync_group(shard: Shard, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
    let said = Said {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let assignments = request.assignments.iter();
    let assignments = assignments.map(|one| (one.member_id.to_string(), one.assignment.to_vec())).collect();
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    match shard.sync_group(&request.group_id, &said, protocol, assignments).await {
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment.into());
            // The first version that says them is 5.
            match version >= 5 {
                true => response
                    .with_protocol_type(synced.protocol_type.as_deref().map(text))
                    .with_protocol_name(synced.protocol.as_deref().map(text)),
                false => response,
            }
        }
        Err(error) => SyncGroupResponse::default().with_error_code(errors::of_group(error).code()),
    }
}

pub(super) async fn heartbeat(shard: Shard, request: HeartbeatRequest, _: i16) -> HeartbeatResponse {
    let said = Said {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let outcome = shard.heartbeat(&request.group_id, &said).await;
    HeartbeatResponse::default().with_error_code(code_of(outcome))
}

pub(super) async fn leave_group(shard: Shard, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    if version < FIRST_OF_SEVERAL {
        let outcome = shard.leave_group(&request.group_id, &request.member_id, None).await;
        return LeaveGroupResponse::default().with_error_code(code_of(outcome));
    }
    let mut members = Vec::new();
    for member in request.members {
        let outcome =
            shard.leave_group(&request.group_id, &member.member_id, member.group_instance_id.as_deref()).await;
        if outcome == Err(GroupError::NotCoordinator) {
            return LeaveGroupResponse::default().with_error_code(code_of(outcome));
        }
        let response = MemberResponse::default().with_member_id(member.member_id).with_error_code(code_of(outcome));
        members.push(response.with_group_instance_id(member.group_instance_id));
    }
    LeaveGroupResponse::default().with_members(members)
}

fn code_of(outcome: Result<(), GroupError>) -> i16 {
    outcome.map_or_else(errors::of_group, |()| ErrorCode::None).code()
}
