//! FindCoordinator: which broker coordinates a group. The topic that groups are written to is made when it is first asked for.

use super::dialect::Shared;
use super::errors;
use super::server::broker;
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{BrokerId, Coordinator, FindCoordinatorRequest, FindCoordinatorResponse, StrBytes};
use std::rc::Rc;

const GROUP: i8 = 0;
/// The first version that asks for several.
const FIRST_OF_SEVERAL: i16 = 4;
const NOBODY: BrokerId = BrokerId(-1);

pub(super) async fn find_coordinator(
    shared: Rc<Shared>,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let keys = if version < FIRST_OF_SEVERAL { vec![request.key] } else { request.coordinator_keys };
    let mut found = Vec::new();
    for key in keys {
        found.push(found_or_not(&shared, request.key_type, key).await);
    }
    if version >= FIRST_OF_SEVERAL {
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let one = found.pop().unwrap_or_default();
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_error_message(if version >= 1 { one.error_message } else { None })
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

async fn found_or_not(shared: &Shared, key_type: i8, key: StrBytes) -> Coordinator {
    let answer = Coordinator::default().with_key(key.clone()).with_node_id(NOBODY).with_port(-1);
    match find(shared, key_type, &key).await {
        Ok((node, host, port)) => answer.with_node_id(node).with_host(StrBytes::from_string(host)).with_port(port),
        Err((error, why)) => answer.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(why))),
    }
}

async fn find(shared: &Shared, key_type: i8, group: &str) -> Result<(BrokerId, String, i32), (ErrorCode, String)> {
    if key_type != GROUP {
        // As InitProducerId says it: clients give up at once.
        let why = "there are no transactions and no share groups".to_owned();
        return Err((ErrorCode::TransactionalIdAuthorizationFailed, why));
    }
    let shard = &shared.shard;
    if shard.coordinator_of(group).is_none() {
        shard.make_groups().await.map_err(|error| (errors::of_groups_command(&error), error.to_string()))?;
    }
    let unavailable = || (ErrorCode::CoordinatorNotAvailable, "no shard coordinates the group yet".to_owned());
    let owner = shard.coordinator_of(group).ok_or_else(unavailable)?;
    let own = &shared.own;
    let port = own.ports.listening().find(|(shard, _)| *shard == owner).map(|(_, port)| port);
    Ok((BrokerId(broker(shard.node().node_id, owner)), own.host.clone(), port.ok_or_else(unavailable)?.into()))
}
