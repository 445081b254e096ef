//! Consumer groups: which there are, who is in them, and how far they have come.

use crate::cluster::{Bound, Cluster, Partition, text};
use crate::error::{KafkaError, check};
use corelog_kafka::codec::{Malformed, Reader};
use corelog_kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupMember, DeleteGroupsRequest, DescribeGroupsRequest,
    DescribedGroupMember, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetCommitRequestPartition,
    OffsetCommitRequestTopic, OffsetFetchRequest, TopicName,
};
use std::collections::{BTreeMap, BTreeSet};

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// As its coordinator calls it: Stable, Empty and so on.
    pub state: String,
    /// What its members are; `consumer` for those that read topics.
    pub protocol_type: String,
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// As its coordinator calls it.
    pub state: String,
    /// How partitions are assigned.
    pub assignor: String,
    /// The address of its coordinator.
    pub coordinator: String,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What the coordinator calls it.
    pub id: String,
    /// What a static member calls itself.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub host: String,
    /// What it reads.
    pub partitions: Vec<Partition>,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next record that it will read.
    pub offset: i64,
    /// What the member kept with it.
    pub metadata: String,
}

/// The groups of a cluster.
#[derive(Debug)]
pub struct Groups {
    cluster: Cluster,
}

impl Groups {
    /// Connects to a cluster by the addresses of some of its brokers, with commas between them.
    ///
    /// # Errors
    /// None of them answers.
    pub fn connect(bootstrap: &str, client_id: &str) -> Result<Groups, KafkaError> {
        Ok(Groups { cluster: Cluster::connect(bootstrap, client_id)? })
    }

    /// All groups, by their names.
    ///
    /// # Errors
    /// A broker does not answer, or refuses.
    pub fn list(&mut self) -> Result<Vec<Listed>, KafkaError> {
        let brokers = self.cluster.known(Some(&[]))?.brokers;
        let mut all = BTreeSet::new();
        for address in brokers.values() {
            let answer = self.cluster.until_ready(|cluster| {
                let answer = cluster.ask(address, &ListGroupsRequest::default())?;
                check(answer.error_code, || format!("the groups of {address}")).map(|()| answer)
            })?;
            all.extend(answer.groups.into_iter().map(|group| Listed {
                group: group.group_id.to_string(),
                state: group.group_state.to_string(),
                protocol_type: group.protocol_type.to_string(),
            }));
        }
        Ok(all.into_iter().collect())
    }

    /// A group and its members. One that nobody knows is `Dead`.
    ///
    /// # Errors
    /// Its coordinator does not answer, or refuses.
    pub fn describe(&mut self, group: &str) -> Result<Description, KafkaError> {
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(group)?;
            let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
            let mut groups = cluster.ask(&coordinator, &request)?.groups;
            let Some(found) = groups.pop() else { return Err(no_answer(group)) };
            check(found.error_code, || format!("group {group}"))?;
            if &*found.group_state == DEAD {
                return describe_assigned(cluster, coordinator, group);
            }
            let member = |member: &DescribedGroupMember| Member {
                id: member.member_id.to_string(),
                instance: member.group_instance_id.as_ref().map(|instance| instance.to_string()),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                partitions: assigned(&member.member_assignment).unwrap_or_default(),
            };
            Ok(Description {
                state: found.group_state.to_string(),
                assignor: found.protocol_data.to_string(),
                coordinator,
                members: found.members.iter().map(member).collect(),
            })
        })
    }

    /// How far a group has come in each partition that it has committed.
    ///
    /// # Errors
    /// Its coordinator does not answer, or refuses.
    pub fn committed(&mut self, group: &str) -> Result<BTreeMap<Partition, Committed>, KafkaError> {
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(group)?;
            let request = OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(None);
            let answer = cluster.ask(&coordinator, &request)?;
            check(answer.error_code, || format!("the offsets of group {group}"))?;
            let mut found = BTreeMap::new();
            for topic in answer.topics {
                for partition in topic.partitions {
                    check(partition.error_code, || format!("the offsets of group {group}"))?;
                    let metadata = partition.metadata.map(|metadata| metadata.to_string()).unwrap_or_default();
                    let place = (topic.name.to_string(), partition.partition_index);
                    found.insert(place, Committed { offset: partition.committed_offset, metadata });
                }
            }
            Ok(found)
        })
    }

    /// Sets how far a group without members has come.
    ///
    /// # Errors
    /// The group has members, there is no such partition, or its coordinator does not answer.
    pub fn commit(&mut self, group: &str, offsets: &BTreeMap<Partition, i64>) -> Result<(), KafkaError> {
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(group)?;
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(by_topic(offsets));
            for topic in cluster.ask(&coordinator, &request)?.topics {
                for partition in topic.partitions {
                    let (name, index) = (topic.name.as_str(), partition.partition_index);
                    check(partition.error_code, || format!("offset of group {group} in partition {index} of {name}"))?;
                }
            }
            Ok(())
        })
    }

    /// Deletes a group without members, and its offsets.
    ///
    /// # Errors
    /// It has members, there is no such group, or its coordinator does not answer.
    pub fn delete(&mut self, group: &str) -> Result<(), KafkaError> {
        self.cluster.until_ready(|cluster| {
            let coordinator = cluster.coordinator(group)?;
            let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
            let results = cluster.ask(&coordinator, &request)?.results;
            let result = results.first().ok_or_else(|| no_answer(group))?;
            check(result.error_code, || format!("group {group}"))
        })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// There is no such topic.
    pub fn partitions(&mut self, topic: &str) -> Result<Vec<Partition>, KafkaError> {
        let found: Vec<_> = self.cluster.known(Some(&[topic.to_owned()]))?.leaders.into_keys().collect();
        if found.is_empty() { Err(KafkaError::Invalid(format!("there is no topic {topic}"))) } else { Ok(found) }
    }

    /// The offsets of a place in partitions; of a time that is behind all records, the end. Partitions that there are not are left
    /// out.
    ///
    /// # Errors
    /// A leader does not answer, or refuses.
    pub fn offsets(&mut self, partitions: &[Partition], bound: Bound) -> Result<BTreeMap<Partition, i64>, KafkaError> {
        let mut found = self.cluster.offsets(partitions, bound)?;
        let behind: Vec<Partition> =
            found.iter().filter(|(_, offset)| **offset < 0).map(|(partition, _)| partition.clone()).collect();
        if !behind.is_empty() {
            found.extend(self.cluster.offsets(&behind, Bound::End)?);
        }
        Ok(found)
    }
}

fn no_answer(group: &str) -> KafkaError {
    KafkaError::Invalid(format!("the coordinator says nothing of group {group}"))
}

fn by_topic(offsets: &BTreeMap<Partition, i64>) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for ((topic, index), offset) in offsets {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")));
        match topics.last_mut().filter(|last| last.name.as_str() == topic) {
            Some(last) => last.partitions.push(partition),
            None => {
                let name = TopicName(text(topic));
                topics.push(OffsetCommitRequestTopic::default().with_name(name).with_partitions(vec![partition]));
            }
        }
    }
    topics
}

/// What a coordinator calls a group that it does not know, or not of this kind.
const DEAD: &str = "Dead";
/// The error of a group that there is not.
const NOT_FOUND: i16 = 69;

/// A group whose coordinator assigns, and its members; `Dead` if there is none.
fn describe_assigned(cluster: &mut Cluster, coordinator: String, group: &str) -> Result<Description, KafkaError> {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
    let dead =
        |coordinator| Description { state: DEAD.to_owned(), assignor: String::new(), coordinator, members: Vec::new() };
    let mut groups = match cluster.ask(&coordinator, &request) {
        Ok(answer) => answer.groups,
        // A broker from before there were such groups.
        Err(KafkaError::Lost { .. }) => return Ok(dead(coordinator)),
        Err(error) => return Err(error),
    };
    let Some(found) = groups.pop() else { return Err(no_answer(group)) };
    if found.error_code == NOT_FOUND {
        return Ok(dead(coordinator));
    }
    check(found.error_code, || format!("group {group}"))?;
    let member = |member: &ConsumerGroupMember| {
        let assigned = member.assignment.topic_partitions.iter();
        let each = assigned.flat_map(|topic| topic.partitions.iter().map(|one| (topic.topic_name.to_string(), *one)));
        let mut partitions: Vec<Partition> = each.collect();
        partitions.sort();
        Member {
            id: member.member_id.to_string(),
            instance: member.instance_id.as_ref().map(|instance| instance.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions,
        }
    };
    Ok(Description {
        state: found.group_state.to_string(),
        assignor: found.assignor_name.to_string(),
        coordinator,
        members: found.members.iter().map(member).collect(),
    })
}

/// What a member that reads topics was assigned: a version, then partitions by topics, as Kafka's consumers tell one another.
fn assigned(assignment: &[u8]) -> Result<Vec<Partition>, Malformed> {
    let mut reader = Reader::new(assignment, false);
    let mut partitions = Vec::new();
    reader.i16()?;
    for _ in 0..reader.count()?.unwrap_or(0) {
        let topic = reader.text()?;
        for _ in 0..reader.count()?.unwrap_or(0) {
            partitions.push((topic.to_owned(), reader.i32()?));
        }
    }
    partitions.sort();
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_reads_is_told_in_kafkas_bytes() {
        let bytes = [0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 3, 255, 255, 255, 255];
        assert_eq!(assigned(&bytes), Ok(vec![("t".to_owned(), 3), ("t".to_owned(), 7)]));
        assert!(assigned(&bytes[..18]).is_err());
        assert!(assigned(&[0, 1, 127, 255, 255, 255]).is_err());
    }

    #[test]
    fn offsets_are_told_topic_by_topic() {
        let offsets: BTreeMap<Partition, i64> =
            [(("a".to_owned(), 0), 1), (("a".to_owned(), 1), 2), (("b".to_owned(), 0), 3)].into();
        let topics = by_topic(&offsets);
        let told: Vec<_> = topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.len())).collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
    }
}
