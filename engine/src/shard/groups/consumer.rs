//! Groups of the consumer protocol: heartbeats change them, and what changed is durable before anybody is told.

use super::super::Shard;
use super::book::{Book, Loading};
use super::check_texts;
use crate::group::GroupError;
use crate::group::classic::Group as Classic;
use crate::group::consumer::{Heartbeat, Status, Told};
use crate::group::records::Key;
use std::rc::Rc;

impl Shard {
    /// Takes what a member of a group of the consumer protocol says, and tells it what it may read.
    ///
    /// # Errors
    /// What the member is to do instead.
    pub async fn consumer_heartbeat(&self, group: &str, said: &Heartbeat) -> Result<Told, GroupError> {
        check_texts([group].into_iter().chain(said.texts()))?;
        let book = self.book(group).await?;
        let dropped = book.dropped.get();
        let settings = self.0.config.groups;
        let has = book.known(group, |entry| entry.consumer.as_ref().map_or(0, |one| one.bytes_of(&said.member)));
        self.check_room(said.bytes().saturating_sub(has.unwrap_or(0)))?;
        let fresh = self.random_uuid().to_string();
        let told = book.change(group, |entry| {
            if !entry.group.is_idle() {
                return Err(GroupError::NotFound);
            }
            let consumer = entry.consumer.get_or_insert_default();
            if consumer.size() >= settings.members_max && !consumer.contains(&said.member) {
                return Err(GroupError::Full);
            }
            let told = consumer.heartbeat(self.reactor().now(), &settings.consumer, said, fresh, &self.catalog());
            if consumer.is_nothing() {
                entry.consumer = None;
            }
            told
        });
        let written = self.write_consumer(&book, group).await;
        let told = told.unwrap_or(Err(GroupError::Full))?;
        written?;
        if book.dropped.get() == dropped { Ok(told) } else { Err(GroupError::Unavailable) }
    }

    /// A group of the consumer protocol as it is.
    ///
    /// # Errors
    /// There is none, or it is not known here.
    pub async fn describe_consumer_group(&self, group: &str) -> Result<Status, GroupError> {
        let book = self.book(group).await?;
        let status = book.known(group, |entry| entry.consumer.as_ref().map(|consumer| consumer.status()));
        status.flatten().ok_or(GroupError::NotFound)
    }

    /// Writes what changed of a group, and waits for what was about to be written. Where that cannot be, memory is ahead of the
    /// log: it is dropped, and read anew.
    pub(super) async fn write_consumer(&self, book: &Rc<Book>, name: &str) -> Result<(), GroupError> {
        book.may_write().await;
        let changes = book.known(name, |entry| {
            let mut changes = entry.consumer.as_mut().map(|consumer| consumer.take_changes(name)).unwrap_or_default();
            if !changes.is_empty() && entry.written.take().is_some() {
                // Nobody is in it: a group is of one protocol.
                entry.group = Classic::default();
                changes.push((Key::Group(name.to_owned()).encode(), None));
            }
            changes
        });
        let Some(changes) = changes.filter(|changes| !changes.is_empty()) else {
            return self.wait_for_others(book).await;
        };
        let number = book.begun.get() + 1;
        book.begun.set(number);
        // Nothing is awaited between this and the append: records of later changes come behind these.
        let outcome = self.write(book, &changes).await;
        self.count_group(book, name);
        match outcome {
            Ok(()) => {
                book.durable.set(book.durable.get().max(number));
                book.end_write();
                self.rewrite_if_due(book).await;
                Ok(())
            }
            Err(_) => {
                self.read_anew(book);
                Err(GroupError::Unavailable)
            }
        }
    }

    /// What a member is told may follow from changes that others are writing.
    async fn wait_for_others(&self, book: &Book) -> Result<(), GroupError> {
        let (wanted, dropped) = (book.begun.get(), book.dropped.get());
        loop {
            let changed = book.changed.wait();
            if book.dropped.get() != dropped {
                return Err(GroupError::Unavailable);
            }
            if book.durable.get() >= wanted {
                return Ok(());
            }
            changed.await;
        }
    }

    pub(super) fn read_anew(&self, book: &Book) {
        if book.is_read() {
            book.loading.set(Loading::No);
            self.close_book(book);
        }
        book.dropped.set(book.dropped.get() + 1);
        book.durable.set(book.begun.get());
        book.changed.notify();
    }

    /// Who joins by the classic protocol finds a group of the consumer protocol only when that has no members, and ends it.
    pub(super) async fn leave_consumer_protocol(&self, book: &Rc<Book>, name: &str) -> Result<(), GroupError> {
        let is_idle = book.known(name, |entry| entry.consumer.as_ref().map(|consumer| consumer.is_idle())).flatten();
        match is_idle {
            None => return Ok(()),
            Some(false) => return Err(GroupError::InconsistentProtocol),
            Some(true) => {}
        }
        let farewell = book.known(name, |entry| entry.consumer.take().map(|mut consumer| consumer.farewell(name)));
        match self.write(book, &farewell.flatten().unwrap_or_default()).await {
            Ok(()) => {
                book.end_write();
                Ok(())
            }
            Err(_) => {
                self.read_anew(book);
                Err(GroupError::Unavailable)
            }
        }
    }
}
