//! Groups whose coordinator assigns (KIP-848).

use crate::groups::{coordinator, group};
use crate::harness::*;
use crate::wire::*;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::*;

const FENCED: i16 = 110;
const UNKNOWN_MEMBER: i16 = 25;

fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("readers"))
        .with_member_id(string(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

fn join(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    beat(member, 0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(topics.iter().map(|topic| name(topic)).collect()))
        .with_topic_partitions(Some(Vec::new()))
}

fn told(response: &ConsumerGroupHeartbeatResponse) -> Vec<i32> {
    let told = response.assignment.iter().flat_map(|assignment| &assignment.topic_partitions);
    told.flat_map(|topic| topic.partitions.clone()).collect()
}

#[test]
fn members_are_assigned_by_the_coordinator() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.create("t", 3, &[]).await, 0);
        let mut kafka = coordinator(&client, "readers").await;
        // An id is given out where none came, as with version 0.
        let first = kafka.call(0, &join("", &["t"])).await;
        assert_eq!((first.error_code, first.member_epoch, told(&first)), (0, 1, vec![0, 1, 2]));
        let topic = first.assignment.as_ref().unwrap().topic_partitions[0].topic_id;
        let one = first.member_id.unwrap().to_string();
        let second = kafka.call(1, &join("two", &["t"])).await;
        assert_eq!((second.error_code, second.member_epoch, told(&second)), (0, 2, vec![]));
        assert!(second.assignment.is_some() && second.heartbeat_interval_ms < 5000);
        let owns = |partitions: &[i32]| {
            Some(vec![TopicPartitions::default().with_topic_id(topic).with_partitions(partitions.to_vec())])
        };
        let less = kafka.call(1, &beat(&one, 1).with_topic_partitions(owns(&[0, 1, 2]))).await;
        let kept = told(&less);
        assert_eq!((less.member_epoch, kept.len()), (1, 2));
        let given_back = kafka.call(1, &beat(&one, 1).with_topic_partitions(owns(&kept))).await;
        assert_eq!((given_back.member_epoch, given_back.heartbeat_interval_ms), (2, 5000));
        let rest = kafka.call(1, &beat("two", 2)).await;
        assert_eq!(told(&rest).len(), 1);
        let described = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group("readers"), group("none")]);
        for version in [0, 1] {
            let described = kafka.call(version, &described).await;
            let [found, none] = &described.groups[..] else { panic!("{described:?}") };
            assert_eq!((&*found.group_state, found.group_epoch, found.assignment_epoch), ("Stable", 2, 2));
            assert_eq!((&*found.assignor_name, found.members.len()), ("uniform", 2));
            let of = &found.members[0].assignment.topic_partitions[0];
            assert_eq!((&**of.topic_name, of.topic_id), ("t", topic));
            assert_eq!(
                (none.error_code, found.members[0].assignment == found.members[0].target_assignment),
                (69, true)
            );
        }
        let listed = kafka.call(5, &ListGroupsRequest::default().with_types_filter(vec![string("Consumer")])).await;
        assert_eq!((listed.groups.len(), &*listed.groups[0].group_type), (1, "consumer"));
        let listed = kafka.call(5, &ListGroupsRequest::default().with_types_filter(vec![string("classic")])).await;
        assert_eq!(listed.groups, []);
        let fenced = kafka.call(1, &beat(&one, 1).with_topic_partitions(owns(&[2]))).await;
        assert_eq!((fenced.error_code, fenced.assignment), (FENCED, None));
        let gone = kafka.call(1, &beat("two", -1)).await;
        assert_eq!((gone.error_code, gone.member_epoch), (0, -1));
        assert_eq!(kafka.call(1, &beat("two", 2)).await.error_code, UNKNOWN_MEMBER);
        let all = kafka.call(1, &beat(&one, 2)).await;
        assert_eq!((all.member_epoch, told(&all).len()), (3, 3));
    });
}

#[test]
fn a_member_that_is_not_heard_of_is_out() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        let mut kafka = coordinator(&client, "readers").await;
        kafka.call(1, &join("one", &["t"])).await;
        client.sleep(std::time::Duration::from_secs(46)).await;
        assert_eq!(kafka.call(1, &beat("one", 1)).await.error_code, UNKNOWN_MEMBER);
        let again = kafka.call(1, &join("one", &["t"])).await;
        assert_eq!((again.error_code, again.member_epoch, told(&again)), (0, 3, vec![0, 1]));
    });
}

#[test]
fn what_cannot_be_kept_is_refused_and_nothing_is_left_of_it() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let mut kafka = coordinator(&client, "readers").await;
        let long = "x".repeat(40_000);
        for request in [
            join(&long, &["t"]),
            join("one", &["t"]).with_instance_id(Some(string(&long))),
            join("one", &[&long]),
            join("one", &vec!["t"; 10_001]),
            join("one", &vec![&"x".repeat(249)[..]; 5000]),
        ] {
            assert_eq!(kafka.call(0, &request).await.error_code, 42);
        }
        let pattern = join("one", &[]).with_subscribed_topic_regex(Some(string("(")));
        assert_eq!(kafka.call(1, &pattern).await.error_code, 128);
        assert_eq!(kafka.call(4, &ListGroupsRequest::default()).await.groups, []);
        assert_eq!(kafka.call(0, &join("one", &["t"])).await.error_code, 0);
        // A member that is there is held to it too.
        let more = beat("one", 1).with_subscribed_topic_names(Some(vec![name(&long)]));
        assert_eq!(kafka.call(0, &more).await.error_code, 42);
    });
}
