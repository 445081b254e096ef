//! The catalog: every topic of the node, and the decisions about commands that would change it.

use super::names::{GROUPS_TOPIC, NameError, TopicName};
use super::records::MetadataRecord;
use super::settings::{SettingError, TopicSettings};
use crate::limits::{NODE_PARTITIONS_MAX, TOPIC_PARTITIONS_MAX};
use crate::model::{PartitionId, PartitionIndex, ShardId, TopicId};
use std::collections::BTreeMap;

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its identity, new for every creation.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has; they are numbered from 0.
    pub partitions: u32,
    /// Partition `i` belongs to shard `(placement + i) % shards`, so that a change of the shard count moves partitions
    /// without a record, and topics of one partition do not all lie on shard 0.
    pub placement: u32,
    /// What is in force.
    pub settings: TopicSettings,
}

/// How much a node takes on. They bound decisions only: a log written under wider bounds is still replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most partitions of one topic.
    pub partitions_per_topic: u32,
    /// Most partitions of the node.
    pub partitions: u32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { partitions_per_topic: TOPIC_PARTITIONS_MAX, partitions: NODE_PARTITIONS_MAX }
    }
}

/// All topics. Iteration is in the order of names, on every machine and in every run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    topics: BTreeMap<TopicId, TopicInfo>,
    /// By folded name: two names that fold into one cannot both exist, so one map serves look-up and collision.
    by_folded_name: BTreeMap<String, TopicId>,
    /// Partitions of all topics together.
    partitions: u32,
    /// Topics whose batches may have to be compressed anew.
    repacked: u32,
    /// Where the next topic starts: behind the last one created.
    next_placement: u32,
}

/// Why a command about topics was refused. The caller has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A setting breaks the rules.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The topic is there already; also the answer to a create that is sent again.
    #[error("topic {name} exists already")]
    Exists {
        /// Its name.
        name: TopicName,
    },
    /// The name differs from another topic's only in `.` and `_`.
    #[error("topic name {name} collides with topic {with}: '.' and '_' count as one")]
    Collides {
        /// The name asked for.
        name: TopicName,
        /// The topic that is there.
        with: TopicName,
    },
    /// There is no such topic.
    #[error("there is no topic {name}")]
    Unknown {
        /// The name asked for.
        name: TopicName,
    },
    /// Which partition a group is written to depends on how many there are.
    #[error("topic {name} is the node's own: it keeps its partitions")]
    Internal {
        /// The topic.
        name: TopicName,
    },
    /// A partition count outside the bounds of a topic.
    #[error("a topic has from 1 to {most} partitions, not {asked}")]
    PartitionCount {
        /// What was asked for.
        asked: u32,
        /// The bound.
        most: u32,
    },
    /// The node would hold too many partitions.
    #[error("the node has {has} partitions and holds at most {most}: {asked} more are too many")]
    NodeFull {
        /// What was asked for in addition.
        asked: u32,
        /// How many there are.
        has: u32,
        /// The bound.
        most: u32,
    },
    /// Partitions can only become more.
    #[error("topic {name} has {has} partitions, and partitions can only be added: {asked} is not more")]
    NotMore {
        /// The topic.
        name: TopicName,
        /// How many it has.
        has: u32,
        /// What was asked for.
        asked: u32,
    },
}

/// A record that contradicts the catalog it is applied to: the metadata log is damaged, or a program wrote nonsense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It creates what is there.
    #[error("a record creates topic {name} ({id}), which is there already")]
    Exists {
        /// The name.
        name: TopicName,
        /// The id.
        id: TopicId,
    },
    /// It changes what is not there.
    #[error("a record changes topic {id}, which is not there")]
    Unknown {
        /// The id.
        id: TopicId,
    },
    /// It takes partitions away, or there are none, or more than can be counted.
    #[error("a record gives topic {id} {partitions} partitions, which cannot be")]
    Partitions {
        /// The topic.
        id: TopicId,
        /// The count.
        partitions: u32,
    },
    /// A part of a snapshot came where only changes can.
    #[error("a part of a snapshot stands alone")]
    Snapshot,
}

impl Catalog {
    /// The topic of this id.
    pub fn topic(&self, id: TopicId) -> Option<&TopicInfo> {
        self.topics.get(&id)
    }

    /// The topic of this very name.
    pub fn named(&self, name: &TopicName) -> Option<&TopicInfo> {
        self.of_folded(name).filter(|topic| topic.name == *name)
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicInfo> {
        self.by_folded_name.values().filter_map(|id| self.topics.get(id))
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> u32 {
        self.partitions
    }

    /// Whether there is a topic whose batches may have to be compressed anew.
    pub fn has_repacked(&self) -> bool {
        self.repacked > 0
    }

    /// Where the next topic will start.
    pub(super) fn next_placement(&self) -> u32 {
        self.next_placement
    }

    /// The shard that owns a partition, of `shards`; `None` when there is no such partition.
    pub fn owner(&self, topic: TopicId, index: PartitionIndex, shards: u16) -> Option<ShardId> {
        if topic == TopicId::METADATA {
            return (index.0 == 0).then_some(ShardId(0));
        }
        let topic = self.topics.get(&topic).filter(|topic| index.0 < topic.partitions)?;
        Some(topic.owner(index, shards))
    }

    /// What `shard` of `shards` owns, the metadata log not among it.
    pub fn owned_by(&self, shard: ShardId, shards: u16) -> impl Iterator<Item = (PartitionId, &TopicInfo)> {
        self.topics().flat_map(move |topic| topic.owned_by(shard, shards).map(move |id| (id, topic)))
    }

    /// Decides on a new topic. `id` is to be random: it must never have been in use.
    pub fn decide_create<K: AsRef<str>, V: AsRef<str>>(
        &self,
        bounds: &Bounds,
        id: TopicId,
        name: &str,
        partitions: u32,
        settings: &[(K, V)],
    ) -> Result<MetadataRecord, MetadataError> {
        assert!(id != TopicId::METADATA && !self.topics.contains_key(&id), "topic ids are random and never reused");
        let name = TopicName::parse(name)?;
        if let Some(other) = self.of_folded(&name) {
            let with = other.name.clone();
            return Err(if with == name {
                MetadataError::Exists { name }
            } else {
                MetadataError::Collides { name, with }
            });
        }
        bounds.check_topic(partitions)?;
        bounds.check_node(self.partitions, partitions)?;
        let settings = TopicSettings::parse(settings)?;
        let placement = self.next_placement;
        Ok(MetadataRecord::TopicCreated(TopicInfo { id, name, partitions, placement, settings }))
    }

    /// Decides on the end of a topic.
    pub fn decide_delete(&self, name: &str) -> Result<MetadataRecord, MetadataError> {
        Ok(MetadataRecord::TopicDeleted { id: self.existing(name)?.id })
    }

    /// Decides on a change of settings: a value to set, or `None` to go back to the default.
    pub fn decide_alter<K: AsRef<str>, V: AsRef<str>>(
        &self,
        name: &str,
        changes: &[(K, Option<V>)],
    ) -> Result<MetadataRecord, MetadataError> {
        let topic = self.existing(name)?;
        let mut settings = topic.settings;
        for (key, value) in changes {
            match value {
                Some(value) => settings.set(key.as_ref(), value.as_ref())?,
                None => settings.unset(key.as_ref())?,
            }
        }
        Ok(MetadataRecord::SettingsChanged { id: topic.id, settings })
    }

    /// Decides on more partitions: `partitions` is how many the topic is to have in all.
    pub fn decide_partitions(
        &self,
        bounds: &Bounds,
        name: &str,
        partitions: u32,
    ) -> Result<MetadataRecord, MetadataError> {
        let topic = self.existing(name)?;
        if topic.is_internal() {
            return Err(MetadataError::Internal { name: topic.name.clone() });
        }
        if partitions <= topic.partitions {
            return Err(MetadataError::NotMore { name: topic.name.clone(), has: topic.partitions, asked: partitions });
        }
        bounds.check_topic(partitions)?;
        bounds.check_node(self.partitions, partitions - topic.partitions)?;
        Ok(MetadataRecord::PartitionsAdded { id: topic.id, partitions })
    }

    /// Takes a change over. On an error nothing has changed.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::TopicCreated(topic) => {
                self.insert(topic)?;
                self.next_placement = topic.placement.wrapping_add(topic.partitions);
            }
            MetadataRecord::TopicDeleted { id } => self.remove(*id)?,
            MetadataRecord::SettingsChanged { id, settings } => self.change(*id, settings)?,
            MetadataRecord::PartitionsAdded { id, partitions } => self.grow(*id, *partitions)?,
            MetadataRecord::SnapshotBegin { .. } | MetadataRecord::SnapshotTopic(_) | MetadataRecord::SnapshotEnd => {
                return Err(ApplyError::Snapshot);
            }
        }
        Ok(())
    }

    /// An empty catalog to read a snapshot into.
    pub(super) fn with_placement(next_placement: u32) -> Catalog {
        Catalog { next_placement, ..Catalog::default() }
    }

    /// Adds a topic and leaves the next placement alone.
    pub(super) fn insert(&mut self, topic: &TopicInfo) -> Result<(), ApplyError> {
        let (id, name) = (topic.id, &topic.name);
        if id == TopicId::METADATA || self.topics.contains_key(&id) || self.of_folded(name).is_some() {
            return Err(ApplyError::Exists { name: name.clone(), id });
        }
        self.count(id, topic.partitions, topic.partitions)?;
        self.by_folded_name.insert(name.folded(), id);
        self.repacked += topic.settings.count_repacked();
        self.topics.insert(id, topic.clone());
        Ok(())
    }

    fn remove(&mut self, id: TopicId) -> Result<(), ApplyError> {
        let topic = self.topics.remove(&id).ok_or(ApplyError::Unknown { id })?;
        self.by_folded_name.remove(&topic.name.folded());
        self.partitions -= topic.partitions;
        self.repacked -= topic.settings.count_repacked();
        Ok(())
    }

    fn change(&mut self, id: TopicId, settings: &TopicSettings) -> Result<(), ApplyError> {
        let topic = self.changed(id)?;
        let before = std::mem::replace(&mut topic.settings, *settings);
        self.repacked = self.repacked - before.count_repacked() + settings.count_repacked();
        Ok(())
    }

    fn grow(&mut self, id: TopicId, partitions: u32) -> Result<(), ApplyError> {
        let has = self.changed(id)?.partitions;
        let more = partitions.checked_sub(has).ok_or(ApplyError::Partitions { id, partitions })?;
        self.count(id, partitions, more)?;
        self.changed(id)?.partitions = partitions;
        Ok(())
    }

    /// Counts `more` partitions of a topic that then has `of_topic`. What a record says is not trusted to be sensible.
    fn count(&mut self, id: TopicId, of_topic: u32, more: u32) -> Result<(), ApplyError> {
        let error = ApplyError::Partitions { id, partitions: of_topic };
        let all = self.partitions.checked_add(more).filter(|_| more > 0).ok_or(error)?;
        self.partitions = all;
        Ok(())
    }

    fn changed(&mut self, id: TopicId) -> Result<&mut TopicInfo, ApplyError> {
        self.topics.get_mut(&id).ok_or(ApplyError::Unknown { id })
    }

    fn existing(&self, name: &str) -> Result<&TopicInfo, MetadataError> {
        let name = TopicName::parse(name)?;
        self.named(&name).ok_or(MetadataError::Unknown { name })
    }

    fn of_folded(&self, name: &TopicName) -> Option<&TopicInfo> {
        self.by_folded_name.get(&name.folded()).and_then(|id| self.topics.get(id))
    }
}

impl TopicInfo {
    /// The node writes it for itself: clients may not.
    pub fn is_internal(&self) -> bool {
        self.name.as_str() == GROUPS_TOPIC
    }

    /// The shard that owns partition `index`, of `shards`.
    pub fn owner(&self, index: PartitionIndex, shards: u16) -> ShardId {
        let slot = (u64::from(self.placement) + u64::from(index.0)) % u64::from(shards);
        ShardId(slot as u16) // less than the shard count, which is a u16
    }

    /// Its partitions.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> {
        let topic = self.id;
        (0..self.partitions).map(move |index| PartitionId { topic, index: PartitionIndex(index) })
    }

    /// Those of its partitions that `shard` of `shards` owns.
    pub fn owned_by(&self, shard: ShardId, shards: u16) -> impl Iterator<Item = PartitionId> {
        self.partition_ids().filter(move |id| self.owner(id.index, shards) == shard)
    }
}

impl Bounds {
    fn check_topic(&self, asked: u32) -> Result<(), MetadataError> {
        let most = self.partitions_per_topic;
        if (1..=most).contains(&asked) { Ok(()) } else { Err(MetadataError::PartitionCount { asked, most }) }
    }

    fn check_node(&self, has: u32, asked: u32) -> Result<(), MetadataError> {
        let most = self.partitions;
        let fits = has.checked_add(asked).is_some_and(|all| all <= most);
        if fits { Ok(()) } else { Err(MetadataError::NodeFull { asked, has, most }) }
    }
}
