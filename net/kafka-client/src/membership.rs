//! A member of a consumer group whose coordinator assigns (KIP-848).

use crate::cluster::{Cluster, text};
use crate::error::{KafkaError, check};
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, OffsetCommitRequest,
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OwnedPartitions, TopicName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// The epochs with which a member comes and goes.
const JOIN: i32 = 0;
const LEAVE: i32 = -1;
/// How long it may take to give partitions back. It does so at once, unless nobody takes its output.
const REBALANCE_MS: i32 = 60_000;

/// A member that reads one topic. It is to be heard of as often as it is told, or it is out.
#[derive(Debug)]
pub struct Membership {
    cluster: Cluster,
    group: String,
    topic: (String, Uuid),
    member: String,
    epoch: i32,
    heartbeat: Duration,
}

/// What came of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// Nothing is new.
    Same,
    /// These partitions may be read, and no others.
    Assigned(BTreeSet<u32>),
    /// The member was out: it reads nothing, commits nothing, and joins anew with its next heartbeat.
    Out,
}

impl Membership {
    /// A member that has yet to join, with its first heartbeat.
    ///
    /// # Errors
    /// No broker answers.
    pub fn new(bootstrap: &str, client_id: &str, group: &str, topic: (&str, Uuid)) -> Result<Membership, KafkaError> {
        Ok(Membership {
            cluster: Cluster::connect(bootstrap, client_id)?,
            group: group.to_owned(),
            topic: (topic.0.to_owned(), topic.1),
            member: Uuid::new_v4().to_string(),
            epoch: JOIN,
            heartbeat: Duration::ZERO,
        })
    }

    /// Whether it has joined, and nothing of its group is under way that it was told of.
    pub fn is_settled(&self) -> bool {
        self.epoch != JOIN && self.heartbeat >= Duration::from_secs(1)
    }

    /// When it is to be heard of after its last heartbeat.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Says that it is there, and which partitions it reads.
    ///
    /// # Errors
    /// The coordinator does not answer, or refuses it for good.
    pub fn beat(&mut self, owned: &BTreeSet<u32>) -> Result<Beat, KafkaError> {
        let mut request = self.says(self.epoch).with_topic_partitions(Some(self.partitions(owned)));
        if self.epoch == JOIN {
            request = request
                .with_rebalance_timeout_ms(REBALANCE_MS)
                .with_subscribed_topic_names(Some(vec![TopicName(text(&self.topic.0))]))
                .with_topic_partitions(Some(Vec::new()));
        }
        let told = self.ask(&request)?;
        if [ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch].map(ErrorCode::code).contains(&told.error_code) {
            (self.epoch, self.heartbeat) = (JOIN, Duration::ZERO);
            return Ok(Beat::Out);
        }
        check(told.error_code, || {
            let why = told.error_message.as_ref().map_or("", |why| why.as_str());
            format!("group {} does not take this member ({why})", self.group)
        })?;
        self.epoch = told.member_epoch;
        self.heartbeat = Duration::from_millis(u64::try_from(told.heartbeat_interval_ms).unwrap_or(0));
        let Some(assignment) = told.assignment else { return Ok(Beat::Same) };
        let own = assignment.topic_partitions.iter().filter(|topic| topic.topic_id == self.topic.1);
        let numbers = own.flat_map(|topic| topic.partitions.iter().filter_map(|one| u32::try_from(*one).ok()));
        Ok(Beat::Assigned(numbers.collect()))
    }

    /// Keeps how far it has come in partitions that it reads; done when that is durable.
    ///
    /// # Errors
    /// The coordinator does not answer, or refuses: then others may read these records again.
    pub fn commit(&mut self, offsets: &BTreeMap<u32, i64>) -> Result<(), KafkaError> {
        let partition = |(partition, offset): (&u32, &i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition as i32)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text("")))
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(&self.topic.0)))
            .with_partitions(offsets.iter().map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(text(&self.member))
            .with_topics(vec![topic]);
        let group = self.group.clone();
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(&group)?;
            let answer = cluster.ask(&coordinator, &request)?;
            let all = answer.topics.iter().flat_map(|topic| &topic.partitions);
            all.into_iter().try_for_each(|one| {
                check(one.error_code, || format!("the offset of group {group} in partition {}", one.partition_index))
            })
        })
    }

    /// Goes: others get its partitions at once.
    ///
    /// # Errors
    /// The coordinator does not answer.
    pub fn leave(mut self) -> Result<(), KafkaError> {
        if self.epoch != JOIN {
            self.ask(&self.says(LEAVE))?;
        }
        Ok(())
    }

    fn says(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.member))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None)
    }

    fn partitions(&self, owned: &BTreeSet<u32>) -> Vec<OwnedPartitions> {
        let numbers = owned.iter().map(|partition| *partition as i32).collect();
        vec![OwnedPartitions::default().with_topic_id(self.topic.1).with_partitions(numbers)]
    }

    /// Asks the coordinator, whoever that is now.
    fn ask(&mut self, request: &ConsumerGroupHeartbeatRequest) -> Result<ConsumerGroupHeartbeatResponse, KafkaError> {
        let group = self.group.clone();
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(&group)?;
            let told = cluster.ask(&coordinator, request)?;
            let is_to_ask_again = [ErrorCode::NotCoordinator, ErrorCode::CoordinatorNotAvailable];
            if is_to_ask_again.map(ErrorCode::code).contains(&told.error_code) {
                check(told.error_code, || format!("the coordinator of group {group}"))?;
            }
            Ok(told)
        })
    }
}
