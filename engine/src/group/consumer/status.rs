//! A group of the consumer protocol as others see it.

use super::member::{Member, State};
use super::{ENTRY_BYTES, Group, PATTERN_BYTES_MAX, Partitions, count};
use std::collections::BTreeSet;

/// A group as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it stands, in Kafka's words.
    pub state: &'static str,
    /// How often it has changed.
    pub epoch: i32,
    /// Of which change its assignment is.
    pub assignment_epoch: i32,
    /// How partitions are assigned.
    pub assignor: &'static str,
    /// Its members.
    pub members: Vec<MemberStatus>,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member: String,
    /// The name under which it comes back.
    pub instance: Option<String>,
    /// Where its reads are dearest.
    pub rack: Option<String>,
    /// The epoch that it is at.
    pub epoch: i32,
    /// What its client calls itself.
    pub client_id: String,
    /// Where that is.
    pub client_host: String,
    /// Topics that it wants.
    pub names: Vec<String>,
    /// And those that match this.
    pub pattern: Option<String>,
    /// What it may read.
    pub assigned: Partitions,
    /// What it is to read in the end.
    pub target: Partitions,
}

/// What a group is, for who describes it.
impl Group {
    /// Whether nobody is in it.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty()
    }

    /// How many are in it.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// About what a member takes of memory, in bytes.
    pub fn bytes_of(&self, member: &str) -> usize {
        self.members.get(member).map_or(0, Member::bytes)
    }

    /// Whether this one is.
    pub fn contains(&self, member: &str) -> bool {
        self.members.contains_key(member)
    }

    /// About what it takes of memory, in bytes.
    pub fn bytes(&self) -> usize {
        let members: usize = self.members.iter().map(|(id, member)| id.len() + member.bytes()).sum();
        let targets: usize = self.targets.values().map(|target| ENTRY_BYTES + count(target) * 16).sum();
        let patterns: BTreeSet<&str> = self.members.values().filter_map(Member::pattern_text).collect();
        let patterns = patterns.len() * 2 * PATTERN_BYTES_MAX;
        size_of::<Group>() + members + patterns + targets + self.taken.len() * 32 + self.topics.len() * 2 * ENTRY_BYTES
    }

    /// Where it stands, in Kafka's words.
    pub fn state(&self) -> &'static str {
        let is_there = |member: &Member| member.state == State::Stable && member.epoch == self.assignment_epoch;
        if self.members.is_empty() {
            "Empty"
        } else if self.assignment_epoch != self.epoch {
            "Assigning"
        } else if self.members.values().all(is_there) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// The group as others see it.
    pub fn status(&self) -> Status {
        let of = |(id, member): (&String, &Member)| MemberStatus {
            member: id.clone(),
            instance: member.instance.clone(),
            rack: member.rack.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            names: member.names.iter().cloned().collect(),
            pattern: member.pattern_text().map(str::to_owned),
            assigned: member.assigned.clone(),
            target: self.targets.get(id).cloned().unwrap_or_default(),
        };
        Status {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor().name(),
            members: self.members.iter().map(of).collect(),
        }
    }
}
