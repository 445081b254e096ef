//! Groups of consumers: members that share partitions, and how far they have come.

use crate::harness::*;
use crate::wire::*;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

const UNKNOWN_MEMBER: i16 = 25;
const REBALANCING: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

pub fn group(name: &str) -> GroupId {
    GroupId(string(name))
}

async fn find(kafka: &mut Kafka, version: i16, name: &str) -> (i32, i32) {
    let request = FindCoordinatorRequest::default();
    let request = match version {
        ..=3 => request.with_key(string(name)),
        _ => request.with_coordinator_keys(vec![string(name)]),
    };
    let response = kafka.call(version, &request).await;
    match version {
        ..=3 => {
            assert_eq!(response.error_code, 0);
            (response.node_id.0, response.port)
        }
        _ => {
            let found = &response.coordinators[0];
            assert_eq!((found.error_code, &*found.key), (0, name));
            (found.node_id.0, found.port)
        }
    }
}

/// A connection to the coordinator of a group.
pub async fn coordinator(client: &Client, name: &str) -> Kafka {
    let port = find(&mut Kafka::connect(client).await, 4, name).await.1;
    Kafka::connect_to(client, port as u16).await
}

fn join(version: i16, member: &str, says: &'static [u8]) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(string("range")).with_metadata(says.into());
    let request = JoinGroupRequest::default()
        .with_group_id(group("readers"))
        .with_session_timeout_ms(10_000)
        .with_member_id(string(member))
        .with_protocol_type(string("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 { request.with_rebalance_timeout_ms(30_000) } else { request }
}

fn sync(member: &str, generation: i32, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
    let assignment = |(member, reads): &(&str, &'static [u8])| {
        SyncGroupRequestAssignment::default().with_member_id(string(member)).with_assignment((*reads).into())
    };
    SyncGroupRequest::default()
        .with_group_id(group("readers"))
        .with_member_id(string(member))
        .with_generation_id(generation)
        .with_assignments(assignments.iter().map(assignment).collect())
}

async fn beat(kafka: &mut Kafka, version: i16, member: &str, generation: i32) -> i16 {
    let request = HeartbeatRequest::default().with_group_id(group("readers"));
    kafka.call(version, &request.with_member_id(string(member)).with_generation_id(generation)).await.error_code
}

async fn commit(kafka: &mut Kafka, version: i16, member: (&str, i32), partition: i32, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(string("half")));
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group("readers"))
        .with_member_id(string(member.0))
        .with_generation_id_or_member_epoch(member.1)
        .with_topics(vec![topic]);
    kafka.call(version, &request).await.topics[0].partitions[0].error_code
}

/// What is committed in the partitions 0 and 1.
async fn committed(kafka: &mut Kafka, version: i16) -> Vec<(i64, String)> {
    let partitions = vec![0, 1];
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(partitions);
        let request = OffsetFetchRequest::default().with_group_id(group("readers")).with_topics(Some(vec![topic]));
        let response = kafka.call(version, &request).await;
        let found = response.topics[0].partitions.iter();
        return found.map(|of| (of.committed_offset, of.metadata.as_deref().unwrap_or("-").to_owned())).collect();
    }
    let topic = OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(partitions);
    let of = OffsetFetchRequestGroup::default().with_group_id(group("readers")).with_topics(Some(vec![topic]));
    let response = kafka.call(version, &OffsetFetchRequest::default().with_groups(vec![of])).await;
    assert_eq!(response.groups[0].error_code, 0);
    let found = response.groups[0].topics[0].partitions.iter();
    found.map(|of| (of.committed_offset, of.metadata.as_deref().unwrap_or("-").to_owned())).collect()
}

#[test]
fn every_version_finds_the_coordinator_and_only_that_one_serves() {
    run(Setup { shards: 3, ..Setup::default() }, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let found = find(&mut kafka, 4, "readers").await;
        for version in 0..=4 {
            assert_eq!(find(&mut kafka, version, "readers").await, found);
        }
        let mut refused = 0;
        for shard in 0..3 {
            let port = i32::from(KAFKA_PORT) + 1 + shard;
            let mut kafka = Kafka::connect_to(&client, port as u16).await;
            let error = beat(&mut kafka, 4, "nobody", 1).await;
            let expected = if port == found.1 { UNKNOWN_MEMBER } else { 16 };
            assert_eq!(error, expected);
            refused += i32::from(error == 16);
        }
        assert_eq!(refused, 2);
        let transactional = FindCoordinatorRequest::default().with_key(string("orders")).with_key_type(1);
        assert_eq!(kafka.call(3, &transactional).await.error_code, 53);
    });
}

#[test]
fn two_members_share_and_the_one_that_stays_gets_all() {
    run_default(|client| async move {
        let (mut one, mut two) = (coordinator(&client, "readers").await, coordinator(&client, "readers").await);
        let first = one.call(9, &join(9, "", b"one")).await;
        assert_eq!(first.error_code, MEMBER_ID_REQUIRED);
        let id = first.member_id.to_string();
        let asked = one.ask(9, &join(9, &id, b"one")).await;
        client.sleep(std::time::Duration::from_millis(100)).await;
        // An old client, that is taken in at once.
        let other = two.ask(2, &join(2, "", b"two")).await;
        let leader = one.answer::<JoinGroupRequest>(9, asked).await;
        let follower = two.answer::<JoinGroupRequest>(2, other).await;
        assert_eq!((leader.error_code, leader.generation_id, &*leader.leader), (0, 1, &*id));
        assert_eq!(leader.protocol_type.as_deref(), Some("consumer"));
        assert_eq!((leader.members.len(), follower.members.len(), follower.generation_id), (2, 0, 1));
        let other_id = follower.member_id.to_string();
        let said: Vec<_> =
            leader.members.iter().map(|member| (member.member_id.to_string(), &member.metadata[..])).collect();
        assert!(said.contains(&(id.clone(), b"one")) && said.contains(&(other_id.clone(), b"two")));

        let waiting = two.ask(1, &sync(&other_id, 1, &[])).await;
        let assigned = one.call(5, &sync(&id, 1, &[(&id, b"p0"), (&other_id, b"p1")])).await;
        assert_eq!((assigned.error_code, &assigned.assignment[..]), (0, &b"p0"[..]));
        assert_eq!(assigned.protocol_name.as_deref(), Some("range"));
        assert_eq!(&two.answer::<SyncGroupRequest>(1, waiting).await.assignment[..], b"p1");
        for version in 0..=4 {
            assert_eq!(beat(&mut one, version, &id, 1).await, 0);
        }

        let member = MemberIdentity::default().with_member_id(string(&other_id));
        let left = LeaveGroupRequest::default().with_group_id(group("readers")).with_members(vec![member]);
        assert_eq!(two.call(5, &left).await.members[0].error_code, 0);
        assert_eq!(beat(&mut one, 4, &id, 1).await, REBALANCING);
        let alone = one.call(9, &join(9, &id, b"one")).await;
        assert_eq!((alone.error_code, alone.generation_id, alone.members.len()), (0, 2, 1));
        assert_eq!(&one.call(5, &sync(&id, 2, &[(&id, b"all")])).await.assignment[..], b"all");
        assert_eq!(beat(&mut two, 4, &other_id, 2).await, UNKNOWN_MEMBER);
    });
}

#[test]
fn a_member_that_falls_silent_makes_room() {
    run_default(|client| async move {
        let mut kafka = coordinator(&client, "readers").await;
        let joined = kafka.call(2, &join(2, "", b"one")).await;
        let id = joined.member_id.to_string();
        kafka.call(2, &sync(&id, 1, &[(&id, b"all")])).await;
        client.sleep(std::time::Duration::from_secs(9)).await;
        assert_eq!(beat(&mut kafka, 4, &id, 1).await, 0);
        client.sleep(std::time::Duration::from_secs(11)).await;
        let mut kafka = coordinator(&client, "readers").await;
        assert_eq!(beat(&mut kafka, 4, &id, 1).await, UNKNOWN_MEMBER);
    });
}

#[test]
fn every_version_commits_and_fetches() {
    run_default(|client| async move {
        let mut kafka = coordinator(&client, "readers").await;
        kafka.create("t", 2, &[]).await;
        for version in 1..=9 {
            let nothing =
                if version == 1 { committed(&mut kafka, 1).await } else { committed(&mut kafka, version).await };
            assert_eq!(nothing[1], (-1, String::new()), "{version}");
        }
        for version in 2..=9 {
            assert_eq!(commit(&mut kafka, version, ("", -1), 0, i64::from(version)).await, 0);
            for fetch in 1..=9 {
                assert_eq!(committed(&mut kafka, fetch).await[0], (i64::from(version), "half".to_owned()));
            }
        }
        assert_eq!(commit(&mut kafka, 9, ("", -1), 7, 1).await, 3, "no such partition");
        assert_eq!(commit(&mut kafka, 9, ("somebody", 4), 0, 1).await, UNKNOWN_MEMBER);
        let all = OffsetFetchRequest::default().with_group_id(group("readers")).with_topics(None);
        let response = kafka.call(7, &all).await;
        assert_eq!(response.topics.len(), 1);
        assert_eq!(response.topics[0].partitions[0].committed_offset, 9);
    });
}

#[test]
fn groups_are_listed_described_and_deleted() {
    run_default(|client| async move {
        let mut kafka = coordinator(&client, "readers").await;
        kafka.create("t", 2, &[]).await;
        let joined = kafka.call(2, &join(2, "", b"\0\0\0\0\0\x01\0\x01t\0\0\0\0")).await;
        let id = joined.member_id.to_string();
        kafka.call(2, &sync(&id, 1, &[(&id, b"all")])).await;
        assert_eq!(commit(&mut kafka, 9, (&id, 1), 0, 5).await, 0);
        for version in 0..=4 {
            let listed = kafka.call(version, &ListGroupsRequest::default()).await;
            assert_eq!((&*listed.groups[0].group_id.0, &*listed.groups[0].protocol_type), ("readers", "consumer"));
        }
        let stable = ListGroupsRequest::default().with_states_filter(vec![string("Empty")]);
        assert!(kafka.call(4, &stable).await.groups.is_empty());
        for version in 0..=5 {
            let request = DescribeGroupsRequest::default().with_groups(vec![group("readers"), group("none")]);
            let described = kafka.call(version, &request).await.groups;
            assert_eq!((&*described[0].group_state, &*described[1].group_state), ("Stable", "Dead"));
            let member = &described[0].members[0];
            assert_eq!((&*member.member_id, &member.member_assignment[..]), (&*id, &b"all"[..]));
        }
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
        let forget = OffsetDeleteRequest::default().with_group_id(group("readers")).with_topics(vec![topic]);
        assert_eq!(kafka.call(0, &forget).await.topics[0].partitions[0].error_code, 86, "it reads the topic");
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("readers"), group("none")]);
        let errors =
            |response: DeleteGroupsResponse| response.results.iter().map(|of| of.error_code).collect::<Vec<_>>();
        assert_eq!(errors(kafka.call(2, &delete).await), [68, 69]);
        let left = LeaveGroupRequest::default().with_group_id(group("readers")).with_member_id(string(&id));
        assert_eq!(kafka.call(1, &left).await.error_code, 0);
        assert_eq!(committed(&mut kafka, 8).await[0].0, 5);
        assert_eq!(kafka.call(0, &forget).await.topics[0].partitions[0].error_code, 0);
        assert_eq!(committed(&mut kafka, 8).await[0].0, -1);
        assert_eq!(errors(kafka.call(2, &delete).await), [0, 69]);
        assert!(kafka.call(4, &ListGroupsRequest::default()).await.groups.is_empty());
    });
}
