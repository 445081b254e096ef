//! The coordinator of consumer groups: each shard coordinates those whose partition of the internal topic lives on it, keeps
//! what they are in memory, and writes every change to that partition before it counts.
//!
//! The log of a partition is read once, when the first group of it is asked for. It is kept short as the metadata log is: now
//! and then all that is known is written anew, and what came before is deleted.

use super::event::Event;
use super::session::{Completed, Session};
use super::{Command, CommandError, Cursor, PartitionHandle, Read, Shard};
use crate::error::AppendError;
use crate::group::GroupError;
use crate::group::classic::{Answer, Group, GroupStatus, Join, Joined, Said, Synced, Waiter};
use crate::group::records::{
    self, Committed, Key, METADATA_BYTES_MAX, Place, decode_group, encode_group, partition_of,
};
use crate::limits::GROUPS_BYTES;
use crate::metadata::{Catalog, GROUPS_TOPIC, MetadataError, TopicInfo, TopicName, snapshot_due};
use crate::model::{Offset, PartitionId, PartitionIndex, ShardId, Timestamp};
use crate::reactor::{Instant, Outgoing};
use corelog_batch::{BatchBuilder, Codec, batches};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How often it is looked whether a member is out or a wait is over.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked for offsets that nobody wants any more.
const SWEEP: Duration = Duration::from_secs(60);
/// Members of a group.
const MEMBERS_MAX: usize = 10_000;
/// Groups of a partition of the topic.
const GROUPS_MAX: usize = 10_000;
/// Records of one write go in batches of so many bytes.
const BATCH_BYTES: usize = 512 << 10;
/// A group's record may be larger than a batch is to be: it has what all members say.
const RECORD_BYTES_MAX: usize = 15 << 20;

/// How groups are coordinated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long the first member of a group waits for others.
    pub initial_rebalance_delay: Duration,
    /// Least time after which a member that is not heard of is out.
    pub session_min: Duration,
    /// The longest.
    pub session_max: Duration,
    /// How long offsets are kept after their group became empty.
    pub offsets_retention: Duration,
    /// What all groups of a shard may take of memory, in bytes.
    pub bytes_max: usize,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            initial_rebalance_delay: Duration::from_secs(3),
            session_min: Duration::from_secs(6),
            session_max: Duration::from_secs(1800),
            offsets_retention: Duration::from_secs(7 * 86_400),
            bytes_max: GROUPS_BYTES,
        }
    }
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

#[derive(Default)]
struct Slot {
    answer: RefCell<Option<Answer>>,
    arrived: Event,
}

/// The groups of one partition.
struct Book {
    id: PartitionId,
    handle: PartitionHandle,
    groups: RefCell<BTreeMap<String, Entry>>,
    loading: Cell<Loading>,
    /// It was read, writes came to an end, or a snapshot did.
    changed: Event,
    /// Writes under way.
    writing: Cell<usize>,
    /// Nothing else is written while all is written anew.
    is_rewriting: Cell<bool>,
    bytes_since: Cell<u64>,
    bytes_of_last: Cell<u64>,
    /// When it is looked for what is over.
    sweep_at: Cell<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    No,
    UnderWay,
    Done,
}

/// One group.
#[derive(Default)]
struct Entry {
    group: Group,
    /// As it was last written down.
    written: Option<Vec<u8>>,
    offsets: BTreeMap<Place, Committed>,
    /// When it last had members, in milliseconds.
    had_members: i64,
    /// What the offsets take, about, and what of it all is counted.
    offset_bytes: usize,
    counted: usize,
}

type RecordBytes = (Vec<u8>, Option<Vec<u8>>);

impl Entry {
    fn is_nothing(&self) -> bool {
        self.group.is_idle() && self.offsets.is_empty() && self.written.is_none()
    }

    fn bytes(&self) -> usize {
        self.group.bytes() + self.written.as_ref().map_or(0, Vec::len) + self.offset_bytes
    }

    fn commit(&mut self, place: Place, committed: Committed) {
        self.offset_bytes += committed.bytes(&place);
        let before = self.offsets.get(&place).map_or(0, |before| before.bytes(&place));
        self.offset_bytes -= before;
        self.offsets.insert(place, committed);
    }

    fn forget(&mut self, place: &Place) {
        if let Some(committed) = self.offsets.remove(place) {
            self.offset_bytes -= committed.bytes(place);
        }
    }

    fn records(&self, name: &str) -> Vec<RecordBytes> {
        let group = self.written.iter().map(|value| (Key::Group(name.to_owned()).encode(), Some(value.clone())));
        let offset = |(place, committed): (&Place, &Committed)| {
            (Key::Offset(name.to_owned(), place.clone()).encode(), Some(committed.encode()))
        };
        group.chain(self.offsets.iter().map(offset)).collect()
    }
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
            partitions: records::PARTITIONS,
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
        if group.is_empty() {
            return Err(refused(GroupError::InvalidId));
        }
        let settings = self.0.config.groups;
        if join.session < settings.session_min || join.session > settings.session_max {
            return Err(refused(GroupError::InvalidSession));
        }
        let book = self.book(group).await.map_err(refused)?;
        self.check_room(join.bytes()).map_err(refused)?;
        let (waiter, slot) = self.open_slot();
        let now = self.reactor().now();
        let fresh = format!("{}-{}", join.client_id, self.random_uuid());
        book.change(group, |entry| {
            let is_new = !entry.group.members().contains_key(&join.member);
            if is_new && entry.group.members().len() >= MEMBERS_MAX {
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
        self.check_room(assignments.iter().map(|(_, assignment)| assignment.len()).sum())?;
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
        let book = self.book(group).await?;
        let now = self.reactor().now();
        let may = book.change(group, |entry| entry.group.may_commit(now, said));
        self.settle(&book, group);
        may.unwrap_or(Err(GroupError::Full))?;
        let outcomes: Vec<_> = offsets.iter().map(|(place, committed)| self.check_commit(place, committed)).collect();
        let good = outcomes.iter().zip(offsets).filter(|(outcome, _)| outcome.is_ok()).map(|(_, offset)| offset);
        let good: Vec<(Place, Committed)> = good.collect();
        let bytes = good.iter().map(|(place, committed)| committed.bytes(place)).sum();
        self.check_room(bytes).map_err(|_| GroupError::Unavailable)?;
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
        if committed.metadata.len() > METADATA_BYTES_MAX {
            return Err(GroupError::MetadataTooLarge);
        }
        let catalog = self.catalog();
        let topic = TopicName::parse(&place.topic).ok().and_then(|name| catalog.named(&name).cloned());
        let is_there = topic.is_some_and(|topic| place.partition < topic.partitions);
        if is_there { Ok(()) } else { Err(GroupError::UnknownPartition) }
    }

    /// How far a group has come.
    ///
    /// # Errors
    /// It is not known here.
    pub async fn committed_offsets(&self, group: &str) -> Result<BTreeMap<Place, Committed>, GroupError> {
        let book = self.book(group).await?;
        Ok(book.known(group, |entry| entry.offsets.clone()).unwrap_or_default())
    }

    /// A group as it is.
    ///
    /// # Errors
    /// There is none, or it is not known here.
    pub async fn describe_group(&self, group: &str) -> Result<GroupStatus, GroupError> {
        let book = self.book(group).await?;
        let status = book.known(group, |entry| (!entry.is_nothing()).then(|| entry.group.status()));
        status.flatten().ok_or(GroupError::NotFound)
    }

    /// The groups that this shard coordinates: name, what each is for, and where it stands.
    ///
    /// # Errors
    /// Some are not known now.
    pub async fn list_groups(&self) -> Result<Vec<(String, String, &'static str)>, GroupError> {
        let mut found = Vec::new();
        for partition in self.own_books() {
            let book = self.book_of(partition).await?;
            for (name, entry) in book.groups.borrow().iter().filter(|(_, entry)| !entry.is_nothing()) {
                let protocol_type = entry.group.protocol_type().unwrap_or_default().to_owned();
                found.push((name.clone(), protocol_type, entry.group.state().name()));
            }
        }
        Ok(found)
    }

    /// Forgets a group and its offsets.
    ///
    /// # Errors
    /// It has members, or there is none.
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        let book = self.book(group).await?;
        let records = book.known(group, |entry| match entry.group.is_idle() {
            true if entry.is_nothing() => Err(GroupError::NotFound),
            true => Ok(entry.records(group)),
            false => Err(GroupError::NotEmpty),
        });
        let records = records.ok_or(GroupError::NotFound)??;
        let gone: Vec<RecordBytes> = records.into_iter().map(|(key, _)| (key, None)).collect();
        self.write(&book, &gone).await.map_err(|_| GroupError::Unavailable)?;
        self.forget_group(&book, group);
        book.end_write();
        Ok(())
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
        let outcomes = book
            .known(group, |entry| places.iter().map(|place| entry.group.may_forget(&place.topic)).collect::<Vec<_>>());
        let outcomes = outcomes.ok_or(GroupError::NotFound)?;
        let good = || outcomes.iter().zip(places).filter(|(outcome, _)| outcome.is_ok()).map(|(_, place)| place);
        let gone: Vec<RecordBytes> =
            good().map(|place| (Key::Offset(group.to_owned(), place.clone()).encode(), None)).collect();
        self.write(&book, &gone).await.map_err(|_| GroupError::Unavailable)?;
        book.known(group, |entry| good().for_each(|place| entry.forget(place)));
        self.count_group(&book, group);
        book.end_write();
        Ok(outcomes)
    }

    /// Sends all members that wait away, to find their coordinator again: the shard stops.
    pub fn close_groups(&self) {
        let coordinator = &self.0.coordinator;
        coordinator.is_closed.set(true);
        let books: Vec<Rc<Book>> = coordinator.books.borrow().values().cloned().collect();
        for book in books {
            let mut answers = Vec::new();
            for entry in book.groups.borrow_mut().values_mut() {
                entry.group.close();
                answers.extend(entry.group.take_answers());
            }
            self.deliver(answers);
        }
    }

    fn random_uuid(&self) -> uuid::Uuid {
        let random = u128::from(self.reactor().random()) << 64 | u128::from(self.reactor().random());
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }
}

// What they take -------------------------------------------------------------------------------------------------------

impl Shard {
    /// Whether groups may take so much more.
    fn check_room(&self, bytes: usize) -> Result<(), GroupError> {
        let is_room = self.0.coordinator.bytes.get() + bytes <= self.0.config.groups.bytes_max;
        if is_room { Ok(()) } else { Err(GroupError::Full) }
    }

    /// Counts what a group takes now.
    fn count_group(&self, book: &Book, name: &str) {
        let bytes = &self.0.coordinator.bytes;
        book.known(name, |entry| {
            let now = name.len() + size_of::<Entry>() + entry.bytes();
            bytes.set(bytes.get() + now - entry.counted);
            entry.counted = now;
        });
    }

    fn forget_group(&self, book: &Book, name: &str) {
        if let Some(entry) = book.groups.borrow_mut().remove(name) {
            let bytes = &self.0.coordinator.bytes;
            bytes.set(bytes.get() - entry.counted);
        }
    }
}

// Waiting for answers --------------------------------------------------------------------------------------------------

impl Shard {
    fn open_slot(&self) -> (Waiter, Rc<Slot>) {
        let slot = Rc::new(Slot::default());
        let waiter = self.0.coordinator.waiting.borrow_mut().insert(slot.clone());
        (waiter as Waiter, slot)
    }

    fn close_slot(&self, waiter: Waiter) {
        self.0.coordinator.waiting.borrow_mut().try_remove(waiter as usize);
    }

    async fn decided(&self, waiter: Waiter, slot: &Slot) -> Answer {
        loop {
            let arrived = slot.arrived.wait();
            if let Some(answer) = slot.answer.take() {
                self.close_slot(waiter);
                return answer;
            }
            arrived.await;
        }
    }

    fn deliver(&self, answers: Vec<Answer>) {
        let waiting = self.0.coordinator.waiting.borrow();
        for answer in answers {
            let (Answer::Join(waiter, _) | Answer::Sync(waiter, _)) = answer;
            if let Some(slot) = waiting.get(waiter as usize) {
                *slot.answer.borrow_mut() = Some(answer);
                slot.arrived.notify();
            }
        }
    }

    /// Does what came of a change of a group: tells who waits, and writes it down.
    fn settle(&self, book: &Rc<Book>, name: &str) {
        let now = self.reactor().wall_clock();
        let done = book.known(name, |entry| {
            let change = entry.group.take_change();
            (entry.group.take_answers(), change.map(|generation| (generation, encode_group(&entry.group, now))))
        });
        let Some((answers, change)) = done else { return };
        self.deliver(answers);
        self.count_group(book, name);
        let Some((generation, value)) = change else { return };
        let (shard, book, name) = (self.clone(), book.clone(), name.to_owned());
        let write = async move {
            let record = (Key::Group(name.clone()).encode(), Some(value));
            let outcome = shard.write(&book, std::slice::from_ref(&record)).await;
            let now = shard.reactor().now();
            book.known(&name, |entry| {
                if outcome.is_ok() {
                    entry.written = record.1;
                }
                entry.group.written(now, generation, outcome.is_ok());
            });
            if outcome.is_ok() {
                book.end_write();
            }
            shard.settle(&book, &name);
            shard.rewrite_if_due(&book).await;
        };
        self.reactor().spawn(write).detach();
    }

    fn begin_ticks(&self) {
        if self.0.coordinator.ticks.replace(true) {
            return;
        }
        let shard = self.clone();
        let ticks = async move {
            while !shard.0.stop_wanted.get() && !shard.0.coordinator.is_closed.get() {
                shard.reactor().sleep(TICK).await;
                let books: Vec<Rc<Book>> = shard.0.coordinator.books.borrow().values().cloned().collect();
                for book in books {
                    shard.tick_book(&book).await;
                }
            }
        };
        self.reactor().spawn(ticks).detach();
    }

    async fn tick_book(&self, book: &Rc<Book>) {
        let (now, clock) = (self.reactor().now(), self.reactor().wall_clock());
        let (mut active, mut nothing) = (Vec::new(), Vec::new());
        for (name, entry) in book.groups.borrow_mut().iter_mut() {
            if !entry.group.is_idle() {
                entry.group.tick(now);
                entry.had_members = clock.0;
                active.push(name.clone());
            } else if entry.is_nothing() {
                nothing.push(name.clone());
            }
        }
        active.iter().for_each(|name| self.settle(book, name));
        // Left by those who never joined, or were refused.
        nothing.iter().for_each(|name| self.forget_group(book, name));
        if now >= book.sweep_at.get() {
            book.sweep_at.set(now.plus(SWEEP));
            self.sweep(book, clock).await;
        }
    }

    /// Forgets offsets that nobody came for in their time, and groups of which nothing is left.
    async fn sweep(&self, book: &Rc<Book>, now: Timestamp) {
        let retention = i64::try_from(self.0.config.groups.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let is_over = |since: i64| now.0.saturating_sub(since) > retention;
        let mut gone: Vec<(String, Vec<Place>, bool)> = Vec::new();
        for (name, entry) in book.groups.borrow().iter().filter(|(_, entry)| entry.group.is_idle()) {
            let over = |committed: &Committed| is_over(committed.at.0.max(entry.had_members));
            let places: Vec<Place> =
                entry.offsets.iter().filter(|(_, committed)| over(committed)).map(|(place, _)| place.clone()).collect();
            let is_nothing = places.len() == entry.offsets.len() && is_over(entry.had_members);
            if !places.is_empty() || is_nothing {
                gone.push((name.clone(), places, is_nothing));
            }
        }
        for (name, places, is_nothing) in gone {
            let offset = |place: &Place| (Key::Offset(name.clone(), place.clone()).encode(), None);
            let group = is_nothing.then(|| (Key::Group(name.clone()).encode(), None));
            let records: Vec<RecordBytes> = places.iter().map(offset).chain(group).collect();
            if self.write(book, &records).await.is_err() {
                return;
            }
            book.known(&name, |entry| places.iter().for_each(|place| entry.forget(place)));
            self.count_group(book, &name);
            let is_empty = book.known(&name, |entry| entry.group.is_idle() && entry.offsets.is_empty());
            if is_nothing && is_empty == Some(true) {
                self.forget_group(book, &name);
            }
            book.end_write();
        }
    }
}

// The log --------------------------------------------------------------------------------------------------------------

impl Book {
    /// Changes a group that there is.
    fn known<T>(&self, name: &str, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.groups.borrow_mut().get_mut(name).map(change)
    }

    /// Changes a group, or makes it. None if there are as many as there may be.
    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut groups = self.groups.borrow_mut();
        if !groups.contains_key(name) && groups.len() >= GROUPS_MAX {
            return None;
        }
        Some(change(groups.entry(name.to_owned()).or_default()))
    }

    /// What was written is in memory too.
    fn end_write(&self) {
        self.writing.set(self.writing.get() - 1);
        self.changed.notify();
    }

    fn take(&self, key: &[u8], value: Option<&[u8]>, now: Instant) -> Result<(), records::RecordError> {
        match (Key::decode(key)?, value) {
            (Key::Offset(group, place), Some(value)) => {
                let committed = Committed::decode(value)?;
                self.groups.borrow_mut().entry(group).or_default().commit(place, committed);
            }
            (Key::Offset(group, place), None) => {
                self.known(&group, |entry| entry.forget(&place));
            }
            (Key::Group(name), Some(value)) => {
                let (group, at) = decode_group(value, now)?;
                let mut groups = self.groups.borrow_mut();
                let entry = groups.entry(name).or_default();
                (entry.group, entry.written, entry.had_members) = (group, Some(value.to_vec()), at.0);
            }
            (Key::Group(name), None) => {
                self.known(&name, |entry| (entry.group, entry.written) = (Group::default(), None));
            }
        }
        Ok(())
    }
}

impl Shard {
    /// The book that a group is in, read.
    async fn book(&self, group: &str) -> Result<Rc<Book>, GroupError> {
        let partitions = groups_topic(&self.catalog()).map(|topic| topic.partitions);
        self.book_of(partition_of(group, partitions.ok_or(GroupError::NotCoordinator)?)).await
    }

    /// Numbers of the partitions that are this shard's.
    fn own_books(&self) -> Vec<u32> {
        let catalog = self.catalog();
        let own = groups_topic(&catalog).into_iter().flat_map(|topic| topic.owned_by(self.id(), self.shards()));
        own.map(|id| id.index.0).collect()
    }

    async fn book_of(&self, partition: u32) -> Result<Rc<Book>, GroupError> {
        if self.0.coordinator.is_closed.get() {
            return Err(GroupError::NotCoordinator);
        }
        let book = self.open_book(partition).ok_or(GroupError::NotCoordinator)?;
        loop {
            let changed = book.changed.wait();
            match book.loading.get() {
                Loading::Done => return Ok(book),
                Loading::UnderWay => changed.await,
                Loading::No => {
                    book.loading.set(Loading::UnderWay);
                    let read = self.load(&book).await;
                    book.loading.set(if read.is_ok() { Loading::Done } else { Loading::No });
                    book.changed.notify();
                    if let Err(why) = read {
                        eprintln!("corelog: the groups of partition {} cannot be read: {why}", book.id);
                        return Err(GroupError::Unavailable);
                    }
                }
            }
        }
    }

    fn open_book(&self, partition: u32) -> Option<Rc<Book>> {
        let id = {
            let catalog = self.catalog();
            let topic = groups_topic(&catalog)?;
            PartitionId { topic: topic.id, index: PartitionIndex(partition) }
        };
        let handle = self.open(id)?;
        let mut books = self.0.coordinator.books.borrow_mut();
        // A topic that was made again begins with nothing.
        if books.get(&partition).is_none_or(|book| book.handle != handle) {
            let book = Book {
                id,
                handle,
                groups: RefCell::default(),
                loading: Cell::new(Loading::No),
                changed: Event::default(),
                writing: Cell::new(0),
                is_rewriting: Cell::new(false),
                bytes_since: Cell::new(0),
                bytes_of_last: Cell::new(0),
                sweep_at: Cell::new(self.reactor().now()),
            };
            books.insert(partition, Rc::new(book));
            self.begin_ticks();
        }
        books.get(&partition).cloned()
    }

    async fn load(&self, book: &Book) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let mut from = self.first_offset(book.handle).ok_or("it is gone")?;
        let (mut cursor, mut out, mut scratch) = (Cursor::default(), Outgoing::new(), Vec::new());
        let now = self.reactor().now();
        let names: Vec<String> = book.groups.borrow().keys().cloned().collect();
        names.iter().for_each(|name| self.forget_group(book, name));
        loop {
            out.clear();
            let read = self.read_disk(book.handle, from, BATCH_BYTES, &mut cursor, &mut out).await;
            let Read::Data { next, bytes, .. } = read.map_err(|error| told(&error))? else { break };
            book.bytes_since.set(book.bytes_since.get() + bytes as u64);
            let stored = out.to_vec();
            for batch in batches(&stored) {
                let batch = batch.map_err(|error| told(&error))?;
                for record in batch.records(&mut scratch, RECORD_BYTES_MAX).map_err(|error| told(&error))? {
                    let record = record.map_err(|error| told(&error))?;
                    if record.offset >= from.0 {
                        let key = record.key.unwrap_or_default();
                        book.take(key, record.value, now).map_err(|error| told(&error))?;
                    }
                }
            }
            from = next;
        }
        book.groups.borrow_mut().retain(|_, entry| !entry.is_nothing());
        let names: Vec<String> = book.groups.borrow().keys().cloned().collect();
        names.iter().for_each(|name| self.count_group(book, name));
        Ok(())
    }

    /// Writes records; done when they are durable. After a success, [`Book::end_write`] says that they are in memory too.
    async fn write(&self, book: &Book, records: &[RecordBytes]) -> Result<(), AppendError> {
        loop {
            let changed = book.changed.wait();
            if !book.is_rewriting.get() {
                break;
            }
            changed.await;
        }
        book.writing.set(book.writing.get() + 1);
        let outcome = self.append_records(book, records).await;
        if outcome.is_err() {
            book.end_write();
        }
        outcome.map(drop)
    }

    /// Appends records; the offset of the first, if there are any.
    async fn append_records(&self, book: &Book, records: &[RecordBytes]) -> Result<Option<Offset>, AppendError> {
        let (session, now) = (Session::new(1), self.reactor().wall_clock());
        let mut rest = records.iter().peekable();
        let mut base = None;
        while let Some((key, value)) = rest.peek() {
            let alone = key.len() + value.as_ref().map_or(0, Vec::len);
            let mut builder = BatchBuilder::new(BATCH_BYTES.max(alone + 1024), Codec::None);
            while let Some((key, value)) = rest.peek() {
                if builder.append(Some(key), value.as_deref(), &[], now.0).is_err() {
                    break;
                }
                rest.next();
            }
            let bytes = builder.build()?;
            book.bytes_since.set(book.bytes_since.get() + bytes.len() as u64);
            self.append_own(book.handle, &bytes, &session, 0)?;
            base = base.or(Some(outcome(&session).await?));
        }
        Ok(base)
    }

    /// Writes all that is known anew, and deletes what came before, where that is worth it.
    async fn rewrite_if_due(&self, book: &Rc<Book>) {
        if book.is_rewriting.get() || !snapshot_due(book.bytes_since.get(), book.bytes_of_last.get()) {
            return;
        }
        book.is_rewriting.set(true);
        loop {
            // What is written and not yet in memory would be missing.
            let changed = book.changed.wait();
            if book.writing.get() == 0 {
                break;
            }
            changed.await;
        }
        let records: Vec<RecordBytes> =
            book.groups.borrow().iter().flat_map(|(name, entry)| entry.records(name)).collect();
        let before = book.bytes_since.get();
        // If it cannot be written now, the log stays as long as it is; a later change tries again.
        if let Ok(Some(base)) = self.append_records(book, &records).await {
            book.bytes_of_last.set(book.bytes_since.replace(0) - before);
            let _ = self.delete_records(book.handle, base).await;
        }
        book.is_rewriting.set(false);
        book.changed.notify();
    }
}

async fn outcome(session: &Session) -> Result<Offset, AppendError> {
    loop {
        session.completed().await;
        match session.pop() {
            Some(Completed::Appended { base, .. }) => return Ok(base),
            Some(Completed::Refused { error, .. }) => return Err(error),
            _ => {}
        }
    }
}
