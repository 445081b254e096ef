//! The groups of one partition of the topic of groups: in memory, and written down.

use super::super::event::Event;
use super::super::session::Session;
use super::super::{Cursor, PartitionHandle, Read, Shard};
use super::{Listed, groups_topic};
use crate::error::AppendError;
use crate::group::GroupError;
use crate::group::classic::{Group, Said};
use crate::group::consumer;
use crate::group::records::{self, Committed, Key, Place, decode_group, partition_of};
use crate::metadata::snapshot_due;
use crate::model::{Offset, PartitionId, PartitionIndex};
use crate::reactor::{Instant, Outgoing};
use corelog_batch::{BatchBuilder, Codec, batches};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Offsets that are forgotten in one write: it is one batch, so that nothing comes between them.
const FORGOTTEN_MAX: usize = 256;
/// Groups of a partition of the topic.
const GROUPS_MAX: usize = 10_000;
/// Records of one write go in batches of so many bytes.
const BATCH_BYTES: usize = 512 << 10;
/// A group's record may be larger than a batch is to be: it has what all members say.
const RECORD_BYTES_MAX: usize = 15 << 20;

/// The groups of one partition.
pub(super) struct Book {
    pub(super) id: PartitionId,
    pub(super) handle: PartitionHandle,
    pub(super) groups: RefCell<BTreeMap<String, Entry>>,
    pub(super) loading: Cell<Loading>,
    /// It was read, writes came to an end, or a snapshot did.
    pub(super) changed: Event,
    /// Writes under way.
    pub(super) writing: Cell<usize>,
    /// Nothing else is written while all is written anew.
    pub(super) is_rewriting: Cell<bool>,
    pub(super) bytes_since: Cell<u64>,
    pub(super) bytes_of_last: Cell<u64>,
    /// When it is looked for what is over.
    pub(super) sweep_at: Cell<Instant>,
    /// How often topics had changed when it was looked last.
    pub(super) catalog_changes: Cell<u64>,
    /// How often what is in memory was dropped, because it was ahead of the log.
    pub(super) dropped: Cell<u64>,
    /// Writes of groups of the consumer protocol that began, and how many of those, from the first on, are durable.
    pub(super) begun: Cell<u64>,
    pub(super) durable: Cell<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loading {
    No,
    UnderWay,
    Done,
}

/// One group.
#[derive(Default)]
pub(super) struct Entry {
    /// Its members by the classic protocol.
    pub(super) group: Group,
    /// Or by the consumer protocol.
    pub(super) consumer: Option<Box<consumer::Group>>,
    /// As it was last written down.
    pub(super) written: Option<Vec<u8>>,
    pub(super) offsets: BTreeMap<Place, Committed>,
    /// When it last had members, in milliseconds.
    pub(super) had_members: i64,
    /// What the offsets take, about, and what of it all is counted.
    pub(super) offset_bytes: usize,
    pub(super) counted: usize,
}

pub(super) type RecordBytes = (Vec<u8>, Option<Vec<u8>>);

impl Entry {
    pub(super) fn is_nothing(&self) -> bool {
        self.is_idle() && self.offsets.is_empty() && self.written.is_none() && self.consumer.is_none()
    }

    /// Whether nobody is in it, or on the way.
    pub(super) fn is_idle(&self) -> bool {
        self.group.is_idle() && self.consumer.as_ref().is_none_or(|consumer| consumer.is_idle())
    }

    pub(super) fn listed(&self, name: &str) -> Listed {
        let protocol_type = match &self.consumer {
            Some(_) => "consumer".to_owned(),
            None => self.group.protocol_type().unwrap_or_default().to_owned(),
        };
        let state = self.consumer.as_ref().map_or_else(|| self.group.state().name(), |consumer| consumer.state());
        Listed { name: name.to_owned(), protocol_type, state, is_consumer: self.consumer.is_some() }
    }

    pub(super) fn may_commit(&mut self, now: Instant, said: &Said<'_>) -> Result<(), GroupError> {
        match self.consumer.as_ref().filter(|consumer| !consumer.is_idle()) {
            Some(consumer) => consumer.may_commit(said),
            None => self.group.may_commit(now, said),
        }
    }

    pub(super) fn may_forget(&self, topic: &str) -> Result<(), GroupError> {
        match &self.consumer {
            Some(consumer) => consumer.may_forget(topic),
            None => self.group.may_forget(topic),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let consumer = self.consumer.as_ref().map_or(0, |consumer| consumer.bytes());
        consumer + self.group.bytes() + self.written.as_ref().map_or(0, Vec::len) + self.offset_bytes
    }

    pub(super) fn commit(&mut self, place: Place, committed: Committed) {
        self.offset_bytes += committed.bytes(&place);
        let before = self.offsets.get(&place).map_or(0, |before| before.bytes(&place));
        self.offset_bytes -= before;
        self.offsets.insert(place, committed);
    }

    /// How many bytes more it takes when it is told so.
    pub(super) fn more(&self, offsets: &[(Place, Committed)]) -> usize {
        let before = |place: &Place| self.offsets.get(place).map_or(0, |before| before.bytes(place));
        let more = |(place, committed): &(Place, Committed)| committed.bytes(place).saturating_sub(before(place));
        offsets.iter().map(more).sum()
    }

    pub(super) fn forget(&mut self, place: &Place) {
        if let Some(committed) = self.offsets.remove(place) {
            self.offset_bytes -= committed.bytes(place);
        }
    }

    /// Of a group without members: places of which nothing was heard since `before`, in milliseconds, and whether nothing else is
    /// left. None if nothing is over.
    pub(super) fn over(&self, before: i64) -> Option<(Vec<Place>, bool)> {
        if !self.is_idle() {
            return None;
        }
        let is_over = |committed: &Committed| committed.at.0.max(self.had_members) < before;
        let over = self.offsets.iter().filter(|(_, committed)| is_over(committed)).map(|(place, _)| place.clone());
        let places: Vec<Place> = over.take(FORGOTTEN_MAX).collect();
        let is_all = places.len() == self.offsets.len() && self.had_members < before;
        (is_all || !places.is_empty()).then_some((places, is_all))
    }

    pub(super) fn records(&self, name: &str) -> Vec<RecordBytes> {
        let group = self.written.iter().map(|value| (Key::Group(name.to_owned()).encode(), Some(value.clone())));
        let offset = |(place, committed): (&Place, &Committed)| {
            (Key::Offset(name.to_owned(), place.clone()).encode(), Some(committed.encode()))
        };
        let consumer = self.consumer.iter().flat_map(|consumer| consumer.records(name));
        group.chain(consumer).chain(self.offsets.iter().map(offset)).collect()
    }
}

impl Book {
    pub(super) fn is_read(&self) -> bool {
        self.loading.get() == Loading::Done
    }

    /// Changes a group that there is.
    pub(super) fn known<T>(&self, name: &str, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.groups.borrow_mut().get_mut(name).map(change)
    }

    /// Changes a group, or makes it. None if there are as many as there may be.
    pub(super) fn change<T>(&self, name: &str, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut groups = self.groups.borrow_mut();
        if !groups.contains_key(name) && groups.len() >= GROUPS_MAX {
            return None;
        }
        Some(change(groups.entry(name.to_owned()).or_default()))
    }

    /// Done when nothing is being written.
    pub(super) async fn written(&self) {
        loop {
            let changed = self.changed.wait();
            if self.writing.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Done when records may be written.
    pub(super) async fn may_write(&self) {
        loop {
            let changed = self.changed.wait();
            if !self.is_rewriting.get() {
                return;
            }
            changed.await;
        }
    }

    /// What was written is in memory too.
    pub(super) fn end_write(&self) {
        self.writing.set(self.writing.get() - 1);
        self.changed.notify();
    }

    pub(super) fn take(&self, key: &[u8], value: Option<&[u8]>, now: Instant) -> Result<(), records::RecordError> {
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
            (Key::Consumer(name, key), value) => {
                let mut groups = self.groups.borrow_mut();
                let consumer = groups.entry(name).or_default().consumer.get_or_insert_default();
                consumer.take(key, value, now)?;
            }
        }
        Ok(())
    }
}

impl Shard {
    /// The book that a group is in, read.
    pub(super) async fn book(&self, group: &str) -> Result<Rc<Book>, GroupError> {
        let partitions = groups_topic(&self.catalog()).map(|topic| topic.partitions);
        self.book_of(partition_of(group, partitions.ok_or(GroupError::NotCoordinator)?)).await
    }

    /// Numbers of the partitions that are this shard's.
    pub(super) fn own_books(&self) -> Vec<u32> {
        let catalog = self.catalog();
        let own = groups_topic(&catalog).into_iter().flat_map(|topic| topic.owned_by(self.id(), self.shards()));
        own.map(|id| id.index.0).collect()
    }

    pub(super) async fn book_of(&self, partition: u32) -> Result<Rc<Book>, GroupError> {
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
                    // What is written and not yet to be read would be missing.
                    book.may_write().await;
                    book.written().await;
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

    pub(super) fn open_book(&self, partition: u32) -> Option<Rc<Book>> {
        let id = {
            let catalog = self.catalog();
            let topic = groups_topic(&catalog)?;
            PartitionId { topic: topic.id, index: PartitionIndex(partition) }
        };
        let handle = self.open(id)?;
        let mut books = self.0.coordinator.books.borrow_mut();
        // A topic that was made again begins with nothing.
        if books.get(&partition).is_none_or(|book| book.handle != handle) {
            if let Some(before) = books.remove(&partition) {
                self.close_book(&before);
            }
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
                catalog_changes: Cell::default(),
                dropped: Cell::default(),
                begun: Cell::default(),
                durable: Cell::default(),
            };
            books.insert(partition, Rc::new(book));
            self.begin_ticks();
        }
        books.get(&partition).cloned()
    }

    pub(super) async fn load(&self, book: &Book) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let mut from = self.first_offset(book.handle).ok_or("it is gone")?;
        let (mut cursor, mut out, mut scratch) = (Cursor::default(), Outgoing::new(), Vec::new());
        let now = self.reactor().now();
        // What an earlier try has read.
        self.close_book(book);
        book.bytes_since.set(0);
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
        let times = self.0.config.groups.consumer;
        for entry in book.groups.borrow_mut().values_mut() {
            entry.consumer = entry.consumer.take().filter(|consumer| !consumer.is_nothing());
            if let Some(consumer) = &mut entry.consumer {
                consumer.loaded(now, &times, &self.catalog());
                entry.had_members = self.reactor().wall_clock().0;
            }
        }
        book.groups.borrow_mut().retain(|_, entry| !entry.is_nothing());
        let names: Vec<String> = book.groups.borrow().keys().cloned().collect();
        names.iter().for_each(|name| self.count_group(book, name));
        Ok(())
    }

    /// Writes records; done when they are durable. After a success, [`Book::end_write`] says that they are in memory too.
    pub(super) async fn write(&self, book: &Book, records: &[RecordBytes]) -> Result<(), AppendError> {
        book.may_write().await;
        book.writing.set(book.writing.get() + 1);
        let outcome = self.append_records(book, records).await;
        if outcome.is_err() {
            book.end_write();
        }
        outcome.map(drop)
    }

    /// Appends records, all of them before anything is awaited, so that what others append comes behind; the offset of the first,
    /// if there are any.
    pub(super) async fn append_records(
        &self,
        book: &Book,
        records: &[RecordBytes],
    ) -> Result<Option<Offset>, AppendError> {
        let session = Session::new(1);
        let (begun, appended) = self.begin_append(book, records, &session);
        let mut base = None;
        for _ in 0..begun {
            base = base.or(Some(session.append_outcome().await?));
        }
        appended.map(|()| base)
    }

    /// Appends records in batches; how many of them.
    fn begin_append(
        &self,
        book: &Book,
        records: &[RecordBytes],
        session: &Session,
    ) -> (usize, Result<(), AppendError>) {
        let now = self.reactor().wall_clock();
        let mut rest = records.iter().peekable();
        let mut begun = 0;
        while let Some((key, value)) = rest.peek() {
            let alone = key.len() + value.as_ref().map_or(0, Vec::len);
            let mut builder = BatchBuilder::new(BATCH_BYTES.max(alone + 1024), Codec::None);
            while let Some((key, value)) = rest.peek() {
                if builder.append(Some(key), value.as_deref(), &[], now.0).is_err() {
                    break;
                }
                rest.next();
            }
            let appended = builder.build().map_err(AppendError::from).and_then(|bytes| {
                book.bytes_since.set(book.bytes_since.get() + bytes.len() as u64);
                self.append_own(book.handle, &bytes, session, 0)
            });
            if appended.is_err() {
                return (begun, appended);
            }
            begun += 1;
        }
        (begun, Ok(()))
    }

    /// Writes that nothing is known of these places any more, and of the group if that is all; then forgets them.
    pub(super) async fn forget(
        &self,
        book: &Book,
        name: &str,
        places: &[Place],
        is_all: bool,
    ) -> Result<(), AppendError> {
        let offset = |place: &Place| (Key::Offset(name.to_owned(), place.clone()).encode(), None);
        let group = is_all.then(|| (Key::Group(name.to_owned()).encode(), None));
        let farewell = |entry: &mut Entry| entry.consumer.as_mut().filter(|_| is_all).map(|one| one.farewell(name));
        let consumer = book.known(name, farewell).flatten().unwrap_or_default();
        let records: Vec<RecordBytes> = places.iter().map(offset).chain(group).chain(consumer).collect();
        if let Err(error) = self.write(book, &records).await {
            // What is no longer noted as changed may be among it.
            self.read_anew(book);
            return Err(error);
        }
        let is_nothing = book.known(name, |entry| {
            places.iter().for_each(|place| entry.forget(place));
            // Somebody may have joined meanwhile: what the group is then will be written again.
            if is_all && entry.is_idle() {
                (entry.group, entry.written, entry.consumer) = (Group::default(), None, None);
            }
            entry.is_nothing()
        });
        self.count_group(book, name);
        if is_nothing == Some(true) {
            self.forget_group(book, name);
        }
        book.end_write();
        Ok(())
    }

    /// Sends all who wait for its groups away, and forgets them.
    pub(super) fn close_book(&self, book: &Book) {
        let mut answers = Vec::new();
        for (_, mut entry) in std::mem::take(&mut *book.groups.borrow_mut()) {
            entry.group.close();
            answers.extend(entry.group.take_answers());
            self.0.coordinator.bytes.set(self.0.coordinator.bytes.get() - entry.counted);
        }
        self.deliver(answers);
    }

    /// Writes all that is known anew, and deletes what came before, where that is worth it.
    pub(super) async fn rewrite_if_due(&self, book: &Rc<Book>) {
        if !book.is_read() || book.is_rewriting.get() || !snapshot_due(book.bytes_since.get(), book.bytes_of_last.get())
        {
            return;
        }
        book.is_rewriting.set(true);
        // What is written and not yet in memory would be missing.
        let dropped = book.dropped.get();
        book.written().await;
        if book.dropped.get() != dropped || !book.is_read() {
            // Memory is not all that the log has.
            book.is_rewriting.set(false);
            book.changed.notify();
            return;
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

impl Shard {
    /// Whether groups may take so much more; what takes no more than before always may.
    pub(super) fn check_room(&self, more: usize) -> Result<(), GroupError> {
        let is_room = self.0.coordinator.bytes.get() + more <= self.0.config.groups.bytes_max;
        if more == 0 || is_room { Ok(()) } else { Err(GroupError::Full) }
    }

    /// Counts what a group takes now.
    pub(super) fn count_group(&self, book: &Book, name: &str) {
        let bytes = &self.0.coordinator.bytes;
        book.known(name, |entry| {
            let now = name.len() + size_of::<Entry>() + entry.bytes();
            bytes.set(bytes.get() + now - entry.counted);
            entry.counted = now;
        });
    }

    pub(super) fn forget_group(&self, book: &Book, name: &str) {
        if let Some(entry) = book.groups.borrow_mut().remove(name) {
            let bytes = &self.0.coordinator.bytes;
            bytes.set(bytes.get() - entry.counted);
        }
    }
}
