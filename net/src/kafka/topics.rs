//! Partitions by the names that requests call them by, remembered: a connection asks for the same ones again and again.

use super::dialect::Connection;
use super::errors;
use crate::transport::{Compression, Place};
use corelog_engine::metadata::{TopicInfo, TopicName};
use corelog_engine::model::{PartitionId, PartitionIndex, TopicId};
use corelog_engine::shard::{PartitionStatus, Remote, Reply, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use std::collections::HashMap;

/// Partitions that a connection remembers; past this it forgets all and begins anew.
const PLACES_MAX: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Topics {
    known: HashMap<Box<str>, Known, ahash::RandomState>,
    /// Of all topics together.
    places: usize,
}

/// A topic under its name. If it is deleted, its partitions are refused, and it is looked up anew.
#[derive(Debug)]
struct Known {
    id: TopicId,
    places: Vec<Option<Place>>,
}

impl Topics {
    /// Where a partition lives.
    pub(super) fn place(&mut self, connection: &Connection, name: &str, partition: i32) -> Result<Place, ErrorCode> {
        let index = usize::try_from(partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        if let Some(place) = self.known.get(name).and_then(|known| *known.places.get(index)?) {
            return Ok(place);
        }
        let shard = connection.shard();
        let topic = find(shard, &Topic::Name(name))?;
        let place = resolve(shard, topic.id, partition)?;
        self.remember(name, &topic, index, place);
        Ok(place)
    }

    fn remember(&mut self, name: &str, topic: &TopicInfo, index: usize, place: Place) {
        let partitions = topic.partitions as usize;
        let is_same = |known: &Known| known.id == topic.id && known.places.len() == partitions;
        if !self.known.get(name).is_some_and(is_same) {
            self.forget(name);
            if self.places + partitions > PLACES_MAX {
                self.known.clear();
                self.places = 0;
            }
            if partitions > PLACES_MAX {
                return;
            }
            self.places += partitions;
            self.known.insert(name.into(), Known { id: topic.id, places: vec![None; partitions] });
        }
        if let Some(place_of) = self.known.get_mut(name).and_then(|known| known.places.get_mut(index)) {
            *place_of = Some(place);
        }
    }

    /// A partition of it is gone.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(known) = self.known.remove(name) {
            self.places -= known.places.len();
        }
    }
}

/// The topic that a request means.
pub(super) fn find(shard: &Shard, topic: &Topic<'_>) -> Result<TopicInfo, ErrorCode> {
    let catalog = shard.catalog();
    match topic {
        Topic::Name(name) => {
            let name = TopicName::parse(name).map_err(|_| ErrorCode::InvalidTopic)?;
            catalog.named(&name).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        Topic::Id(id) => catalog.topic(TopicId(*id)).cloned().ok_or(ErrorCode::UnknownTopicId),
    }
}

/// How a topic asks for its batches to be compressed.
pub(super) fn compression(shard: &Shard, topic: &str) -> Option<Compression> {
    let name = TopicName::parse(topic).ok()?;
    shard.catalog().named(&name).and_then(|topic| Compression::of(&topic.settings))
}

/// Where a partition of it lives.
pub(super) fn resolve(shard: &Shard, topic: TopicId, partition: i32) -> Result<Place, ErrorCode> {
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let index = PartitionIndex(u32::try_from(partition).map_err(|_| unknown)?);
    let owner = shard.owner(topic, index).ok_or(unknown)?;
    let id = PartitionId { topic, index };
    match owner == shard.id() {
        // It may be on its way here: metadata says so already.
        true => shard.open(id).map(Place::Here).ok_or(ErrorCode::NotLeaderOrFollower),
        false => Ok(Place::There(owner, id)),
    }
}

/// The same of a topic by its name.
pub(super) fn locate(shard: &Shard, topic: &str, partition: i32) -> Result<Place, ErrorCode> {
    resolve(shard, find(shard, &Topic::Name(topic))?.id, partition)
}

/// State of a partition, wherever it lives.
pub(super) async fn status_of(shard: &Shard, place: Place) -> Result<PartitionStatus, ErrorCode> {
    match place {
        Place::Here(handle) => shard.describe(handle).ok_or(ErrorCode::UnknownTopicOrPartition),
        Place::There(owner, partition) => match shard.ask(owner, Remote::Describe { partition }).await {
            Reply::Status(status) => Ok(status),
            Reply::ReadRefused(error) => Err(errors::of_read(&error)),
            _ => Err(ErrorCode::OffsetNotAvailable),
        },
    }
}
