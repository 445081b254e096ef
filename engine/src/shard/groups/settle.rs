//! What comes of changes of groups, and of time: who waits is answered, what changed is written down, what is over goes.

use super::super::Shard;
use super::super::event::Event;
use super::book::Book;
use crate::group::classic::{Answer, Waiter};
use crate::group::records::{Key, encode_group};
use crate::model::Timestamp;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How often it is looked whether a member is out or a wait is over.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked for offsets that nobody wants any more.
const SWEEP: Duration = Duration::from_secs(60);

/// Where an answer arrives.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) answer: RefCell<Option<Answer>>,
    pub(super) arrived: Event,
}

impl Shard {
    pub(super) fn open_slot(&self) -> (Waiter, Rc<Slot>) {
        let slot = Rc::new(Slot::default());
        let waiter = self.0.coordinator.waiting.borrow_mut().insert(slot.clone());
        (waiter as Waiter, slot)
    }

    pub(super) fn close_slot(&self, waiter: Waiter) {
        self.0.coordinator.waiting.borrow_mut().try_remove(waiter as usize);
    }

    pub(super) async fn decided(&self, waiter: Waiter, slot: &Slot) -> Answer {
        loop {
            let arrived = slot.arrived.wait();
            if let Some(answer) = slot.answer.take() {
                self.close_slot(waiter);
                return answer;
            }
            arrived.await;
        }
    }

    pub(super) fn deliver(&self, answers: Vec<Answer>) {
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
    pub(super) fn settle(&self, book: &Rc<Book>, name: &str) {
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

    pub(super) fn begin_ticks(&self) {
        if self.0.coordinator.ticks.replace(true) {
            return;
        }
        let shard = self.clone();
        let ticks = async move {
            while !shard.0.stop_wanted.get() && !shard.0.coordinator.is_closed.get() {
                shard.reactor().sleep(TICK).await;
                let books: Vec<Rc<Book>> = shard.0.coordinator.books.borrow().values().cloned().collect();
                // Of one that is being read it is not known yet what is over: a later record may say otherwise.
                for book in books.iter().filter(|book| book.is_read()) {
                    shard.tick_book(book).await;
                }
            }
        };
        self.reactor().spawn(ticks).detach();
    }

    pub(super) async fn tick_book(&self, book: &Rc<Book>) {
        let (now, clock) = (self.reactor().now(), self.reactor().wall_clock());
        let (mut changed, mut nothing) = (Vec::new(), Vec::new());
        let topics_changed = book.catalog_changes.replace(self.0.catalog_changes.get()) != self.0.catalog_changes.get();
        for (name, entry) in book.groups.borrow_mut().iter_mut() {
            if let Some(consumer) = entry.consumer.as_mut().filter(|consumer| !consumer.is_idle()) {
                consumer.tick(now);
                if topics_changed {
                    consumer.topics_changed(now, &self.catalog());
                }
                entry.had_members = clock.0;
                if consumer.has_changes() {
                    let (shard, book, name) = (self.clone(), book.clone(), name.clone());
                    // If it cannot be written now, that is read anew which was.
                    let write = async move { shard.write_consumer(&book, &name).await.unwrap_or_default() };
                    self.reactor().spawn(write).detach();
                }
            } else if !entry.group.is_idle() {
                entry.group.tick(now);
                entry.had_members = clock.0;
                if entry.group.has_news() {
                    changed.push(name.clone());
                }
            } else if entry.is_nothing() {
                nothing.push(name.clone());
            }
        }
        changed.iter().for_each(|name| self.settle(book, name));
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
        let names: Vec<String> = book.groups.borrow().keys().cloned().collect();
        for name in names {
            // From here to the append nothing is awaited: what is committed meanwhile would be taken back.
            if book.is_rewriting.get() {
                return;
            }
            let over = book.known(&name, |entry| entry.over(now.0.saturating_sub(retention))).flatten();
            let Some((places, is_all)) = over else { continue };
            if self.forget(book, &name, &places, is_all).await.is_err() {
                return;
            }
        }
    }
}
