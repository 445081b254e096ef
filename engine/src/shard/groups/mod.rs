//! The coordinator of consumer groups: each shard coordinates those whose partition of the internal topic lives on it, keeps
//! what they are in memory, and writes every change to that partition before it counts.
//!
//! The log of a partition is read once, when the first group of it is asked for. It is kept short as the metadata log is: now
//! and then all that is known is written anew, and what came before is deleted.

mod book;
mod consumer;
mod settle;

use super::{Command, CommandError, Shard};
use crate::group::GroupError;
use crate::group::classic::{Answer, GroupStatus, Join, Joined, Member, Said, Synced};
use crate::group::consumer::Times;
use crate::group::records::{self, Committed, Key, METADATA_BYTES_MAX, Place, partition_of};
use crate::limits::GROUPS_BYTES;
use crate::metadata::{Catalog, GROUPS_TOPIC, MetadataError, TopicInfo, TopicName};
use crate::model::{PartitionIndex, ShardId};
use book::{Book, Entry, RecordBytes};
use settle::Slot;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Members of a group, at most.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Bytes of the text that is kept with an offset, at most.
pub const GROUP_METADATA_BYTES_MAX: usize = METADATA_BYTES_MAX;

/// How groups are coordinated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first member of a group waits for others.
    pub initial_rebalance_delay: Duration,
    /// Least time after which a member that is not heard of is out.
    pub session_min: Duration,
    /// The longest.
    pub session_max: Duration,
    /// Times of members of the consumer protocol.
    pub consumer: Times,
    /// How long offsets are kept after their group became empty.
    pub offsets_retention: Duration,
    /// Members of a group, from 1 to [`GROUP_MEMBERS_MAX`].
    pub members_max: usize,
    /// Partitions of the topic that groups are written to, when it is made.
    pub partitions: u32,
    /// Bytes of the text that may be kept with an offset, at most [`GROUP_METADATA_BYTES_MAX`].
    pub metadata_bytes_max: usize,
    /// What all groups of a shard may take of memory, in bytes.
    pub bytes_max: usize,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay: Duration::from_secs(3),
            session_min: Duration::from_secs(6),
            session_max: Duration::from_secs(1800),
            consumer: Times { session: Duration::from_secs(45), heartbeat: Duration::from_secs(5) },
            offsets_retention: Duration::from_secs(7 * 86_400),
            members_max: GROUP_MEMBERS_MAX,
            partitions: records::PARTITIONS,
            metadata_bytes_max: METADATA_BYTES_MAX,
            bytes_max: GROUPS_BYTES,
        }
    }
}

/// A group as a list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for; nothing if it only keeps offsets.
    pub protocol_type: String,
    /// Where it stands, in Kafka's words.
    pub state: &'static str,
    /// Whether its members speak the consumer protocol of KIP-848.
    pub is_consumer: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Coordinator {
    books: RefCell<BTreeMap<u32, Rc<Book>>>,
    waiting: RefCell<Slab<Rc<Slot>>>,
    /// What all groups take, about.
    bytes: Cell<usize>,
    is_closed: Cell<bool>,
    ticks: Cell<bool>,
}

/// Texts of records have their lengths in 16 bits; ids are made of clients' with something behind.
const TEXT_BYTES_MAX: usize = i16::MAX as usize - 64;
/// What one request may say that is kept.
const TEXTS_BYTES_MAX: usize = 1 << 20;

/// Whether a group's name, which comes first, and what is kept of a member can be written down.
fn check_texts<'a>(mut texts: impl Iterator<Item = &'a str>) -> Result<(), GroupError> {
    let group = texts.next().unwrap_or_default();
    if group.is_empty() {
        return Err(GroupError::InvalidId);
    }
    let mut all = group.len();
    let is_long = |text: &str| text.len() > TEXT_BYTES_MAX;
    let has_long = is_long(group) || texts.inspect(|text| all += text.len()).any(is_long);
    if has_long || all > TEXTS_BYTES_MAX {
        return Err(GroupError::InvalidRequest("a name has at most 32,703 bytes, and all of a member together 1 MiB"));
    }
    Ok(())
}

/// The topic that groups are written to, if there is one.
fn groups_topic(catalog: &Catalog) -> Option<&TopicInfo> {
    catalog.named(&TopicName::parse(GROUPS_TOPIC).ok()?)
}

impl Shard {
    /// Which shard coordinates a group. None if there is no topic for groups yet; see [`Shard::make_groups`].
    pub fn coordinator_of(&self, group: &str) -> Option<ShardId> {
        let catalog = self.catalog();
        let topic = groups_topic(&catalog)?;
        let partition = PartitionIndex(partition_of(group, topic.partitions));
        Some(topic.owner(partition, self.shards()))
    }

    /// Makes the topic that groups are written to, unless there is one.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn make_groups(&self) -> Result<(), CommandError> {
        let settings = [("retention.ms", "-1"), ("segment.bytes", "16777216"), ("max.message.bytes", "16777216")];
        let command = Command::CreateTopic {
            name: GROUPS_TOPIC.to_owned(),
            partitions: self.0.config.groups.partitions,
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        match self.command(command).await {
            Err(CommandError::Refused(MetadataError::Exists { .. })) => Ok(()),
            outcome => outcome,
        }
    }

    /// Takes a member into a group; done when the group's next generation begins.
    ///
    /// # Errors
    /// Why not, and the id that the member is to use.
    pub async fn join_group(&self, group: &str, join: Join) -> Result<Joined, (GroupError, String)> {
        let refused = |error| (error, join.member.clone());
        check_texts([group].into_iter().chain(join.texts())).map_err(refused)?;
        let settings = self.0.config.groups;
        if join.session < settings.session_min || join.session > settings.session_max {
            return Err(refused(GroupError::InvalidSession));
        }
        let book = self.book(group).await.map_err(refused)?;
        self.leave_consumer_protocol(&book, group).await.map_err(refused)?;
        let has = book.known(group, |entry| entry.group.members().get(&join.member).map_or(0, Member::bytes));
        self.check_room(join.bytes().saturating_sub(has.unwrap_or(0))).map_err(refused)?;
        let (waiter, slot) = self.open_slot();
        let now = self.reactor().now();
        let fresh = format!("{}-{}", join.client_id, self.random_uuid());
        book.change(group, |entry| {
            // Another member may have come by the other protocol meanwhile.
            if entry.consumer.is_some() {
                return Err(refused(GroupError::InconsistentProtocol));
            }
            let is_new = !entry.group.members().contains_key(&join.member);
            if is_new && entry.group.members().len() >= settings.members_max {
                return Err(refused(GroupError::Full));
            }
            entry.group.join(now, &join, fresh, settings.initial_rebalance_delay, waiter);
            Ok(())
        })
        .unwrap_or_else(|| Err(refused(GroupError::Full)))
        .inspect_err(|_| self.close_slot(waiter))?;
        self.settle(&book, group);
        match self.decided(waiter, &slot).await {
            Answer::Join(_, outcome) => outcome,
            Answer::Sync(..) => Err(refused(GroupError::Unavailable)),
        }
    }

    /// Tells a member what it is to read, once the leader has said so and that is durable.
    ///
    /// # Errors
    /// Why not.
    pub async fn sync_group(
        &self,
        group: &str,
        said: &Said<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Vec<u8>)>,
    ) -> Result<Synced, GroupError> {
        let book = self.book(group).await?;
        let bytes = assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        self.check_room(bytes).map_err(|_| GroupError::Unavailable)?;
        let (waiter, slot) = self.open_slot();
        let now = self.reactor().now();
        let known = book.known(group, |entry| entry.group.sync(now, said, protocol, assignments, waiter));
        if known.is_none() {
            self.close_slot(waiter);
            return Err(GroupError::UnknownMember);
        }
        self.settle(&book, group);
        match self.decided(waiter, &slot).await {
            Answer::Sync(_, outcome) => outcome,
            Answer::Join(..) => Err(GroupError::Unavailable),
        }
    }

    /// Notes that a member is alive.
    ///
    /// # Errors
    /// What the member is to do instead.
    pub async fn heartbeat(&self, group: &str, said: &Said<'_>) -> Result<(), GroupError> {
        let book = self.book(group).await?;
        let now = self.reactor().now();
        book.known(group, |entry| entry.group.heartbeat(now, said)).unwrap_or(Err(GroupError::UnknownMember))
    }

    /// Takes a member out of a group.
    ///
    /// # Errors
    /// It was not in it.
    pub async fn leave_group(&self, group: &str, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        let book = self.book(group).await?;
        let now = self.reactor().now();
        let left = book.known(group, |entry| entry.group.leave(now, member, instance));
        self.settle(&book, group);
        left.unwrap_or(Err(GroupError::UnknownMember))
    }

    /// Keeps how far a group has come; done when that is durable. One outcome for each.
    ///
    /// # Errors
    /// Who asks may not commit, or nothing can be written now.
    pub async fn commit_offsets(
        &self,
        group: &str,
        said: &Said<'_>,
        offsets: Vec<(Place, Committed)>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_texts([group].into_iter())?;
        let book = self.book(group).await?;
        let now = self.reactor().now();
        let may = book.change(group, |entry| entry.may_commit(now, said));
        self.settle(&book, group);
        may.unwrap_or(Err(GroupError::Full))?;
        let outcomes: Vec<_> = offsets.iter().map(|(place, committed)| self.check_commit(place, committed)).collect();
        let good = outcomes.iter().zip(offsets).filter(|(outcome, _)| outcome.is_ok()).map(|(_, offset)| offset);
        let good: Vec<(Place, Committed)> = good.collect();
        let more = book.known(group, |entry| entry.more(&good)).unwrap_or(0);
        self.check_room(more).map_err(|_| GroupError::Unavailable)?;
        let record = |(place, committed): &(Place, Committed)| {
            (Key::Offset(group.to_owned(), place.clone()).encode(), Some(committed.encode()))
        };
        let written: Vec<RecordBytes> = good.iter().map(record).collect();
        self.write(&book, &written).await.map_err(|_| GroupError::Unavailable)?;
        book.change(group, |entry| good.into_iter().for_each(|(place, committed)| entry.commit(place, committed)));
        self.count_group(&book, group);
        book.end_write();
        self.rewrite_if_due(&book).await;
        Ok(outcomes)
    }

    fn check_commit(&self, place: &Place, committed: &Committed) -> Result<(), GroupError> {
        if committed.metadata.len() > self.0.config.groups.metadata_bytes_max {
            return Err(GroupError::MetadataTooLarge);
        }
        let catalog = self.catalog();
        let topic = TopicName::parse(&place.topic).ok().and_then(|name| catalog.named(&name).cloned());
        let is_there = topic.is_some_and(|topic| place.partition < topic.partitions);
        if is_there { Ok(()) } else { Err(GroupError::UnknownPartition) }
    }

    /// How far a group has come. A member of the consumer protocol that asks says who it is.
    ///
    /// # Errors
    /// It is not known here, or who asks is no member, or of another epoch.
    pub async fn committed_offsets(
        &self,
        group: &str,
        said: Option<&Said<'_>>,
    ) -> Result<BTreeMap<Place, Committed>, GroupError> {
        let book = self.book(group).await?;
        let may = |entry: &Entry| match (&entry.consumer, said) {
            (Some(consumer), Some(said)) => consumer.may_commit(said),
            _ => Ok(()),
        };
        book.known(group, |entry| may(entry)).unwrap_or(Ok(()))?;
        Ok(book.known(group, |entry| entry.offsets.clone()).unwrap_or_default())
    }

    /// A group as it is.
    ///
    /// # Errors
    /// There is none, or it is not known here.
    pub async fn describe_group(&self, group: &str) -> Result<GroupStatus, GroupError> {
        let book = self.book(group).await?;
        let is_classic = |entry: &Entry| !entry.is_nothing() && entry.consumer.is_none();
        let status = book.known(group, |entry| is_classic(entry).then(|| entry.group.status()));
        status.flatten().ok_or(GroupError::NotFound)
    }

    /// The groups that this shard coordinates.
    ///
    /// # Errors
    /// Some are not known now.
    pub async fn list_groups(&self) -> Result<Vec<Listed>, GroupError> {
        let mut found = Vec::new();
        for partition in self.own_books() {
            let book = self.book_of(partition).await?;
            let groups = book.groups.borrow();
            let there = groups.iter().filter(|(_, entry)| !entry.is_nothing());
            found.extend(there.map(|(name, entry)| entry.listed(name)));
        }
        Ok(found)
    }

    /// Forgets a group and its offsets.
    ///
    /// # Errors
    /// It has members, or there is none.
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        let book = self.book(group).await?;
        let places = book.known(group, |entry| match entry.is_idle() {
            true if entry.is_nothing() => Err(GroupError::NotFound),
            true => Ok(entry.offsets.keys().cloned().collect::<Vec<_>>()),
            false => Err(GroupError::NotEmpty),
        });
        let places = places.ok_or(GroupError::NotFound)??;
        self.forget(&book, group, &places, true).await.map_err(|_| GroupError::Unavailable)
    }

    /// Forgets how far a group has come in some partitions. One outcome for each.
    ///
    /// # Errors
    /// There is no such group, or nothing can be written now.
    pub async fn delete_offsets(
        &self,
        group: &str,
        places: &[Place],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let book = self.book(group).await?;
        let outcomes =
            book.known(group, |entry| places.iter().map(|place| entry.may_forget(&place.topic)).collect::<Vec<_>>());
        let outcomes = outcomes.ok_or(GroupError::NotFound)?;
        let good = outcomes.iter().zip(places).filter(|(outcome, _)| outcome.is_ok()).map(|(_, place)| place.clone());
        let good: Vec<Place> = good.collect();
        self.forget(&book, group, &good, false).await.map_err(|_| GroupError::Unavailable)?;
        Ok(outcomes)
    }

    /// Sends all members that wait away, to find their coordinator again: the shard stops.
    pub fn close_groups(&self) {
        let coordinator = &self.0.coordinator;
        coordinator.is_closed.set(true);
        let books: Vec<Rc<Book>> = coordinator.books.borrow().values().cloned().collect();
        books.iter().for_each(|book| self.close_book(book));
    }

    fn random_uuid(&self) -> uuid::Uuid {
        let random = u128::from(self.reactor().random()) << 64 | u128::from(self.reactor().random());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }
}
