//! A producer that numbers its batches: whatever becomes of the node, it sends again what it heard nothing of, and each of
//! its records is in the log once.
//!
//! It outlives the node, as a client's process does: what it has not heard of is kept outside the tasks that a crash ends.

use crate::invariants::Event;
use crate::keyed::is_keyed;
use crate::records;
use crate::sometimes;
use crate::world::Shared;
use corelog_batch::{Codec, number};
use corelog_engine::error::AppendError;
use corelog_engine::metadata::Durability;
use corelog_engine::model::{PartitionId, ShardId};
use corelog_engine::producer::WINDOW;
use corelog_engine::shard::{Appended, Completed, PartitionHandle, Session, Shard};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(2);
/// One round in so many ends with the connection, before anything is answered.
const LOST_ONE_IN: u64 = 6;
/// Appends after which a producer ends and another one begins, somewhere else perhaps.
const APPENDS_MAX: u64 = 200;

/// The numbered producers of a node, by the shard that they send to.
pub(crate) type Numbered = BTreeMap<ShardId, Producer>;

/// What a producer knows of itself.
#[derive(Debug)]
pub(crate) struct Producer {
    partition: PartitionId,
    id: i64,
    /// For the observer.
    name: u64,
    next: i32,
    sent: u64,
    /// Oldest first.
    unanswered: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    append: u64,
    records: u32,
    bytes: Vec<u8>,
    was_sent: bool,
}

/// How a round of sending ended.
enum Round {
    Done,
    /// The connection is lost: all is sent again at once by another.
    Lost,
    /// Something was not taken, or nobody knows: all that is unanswered is sent again.
    Again,
    /// The partition is gone, or damaged.
    Over,
}

/// Whether every producer has heard of all that it sent.
pub(crate) fn all_answered(shared: &Shared) -> bool {
    shared.numbered.borrow().values().all(|producer| producer.unanswered.is_empty())
}

/// Ends the producers of shards that a node with so many does not have: they would begin again when it has them again.
pub(crate) fn end_absent(shared: &Shared, shards: u16) {
    shared.numbered.borrow_mut().retain(|shard, _| shard.0 < shards);
}

/// Sends until its task is dropped.
pub(crate) async fn produce(shard: Shard, shared: Rc<Shared>) {
    let me = shard.id();
    loop {
        let known = shared.numbered.borrow_mut().remove(&me);
        let Some(mut producer) = known.or_else(|| begin(&shard, &shared)) else {
            shard.reactor().sleep(PAUSE).await;
            continue;
        };
        producer.make_batches(&shard, &shared);
        let is_idle = producer.unanswered.is_empty();
        let handle = shard.open(producer.partition);
        // Kept outside while this task waits: a crash may drop the task.
        shared.numbered.borrow_mut().insert(me, producer);
        let round = match handle {
            _ if is_idle => Round::Again,
            Some(handle) => send_all(&shard, &shared, handle).await,
            None => Round::Over,
        };
        match round {
            Round::Lost => {}
            Round::Done | Round::Again => shard.reactor().sleep(PAUSE).await,
            Round::Over => {
                shared.numbered.borrow_mut().remove(&me);
                shard.reactor().sleep(PAUSE).await;
            }
        }
    }
}

/// A new producer, if there is a partition that promises what it needs, and work is wanted.
fn begin(shard: &Shard, shared: &Shared) -> Option<Producer> {
    if shared.load.borrow().calm {
        return None;
    }
    let catalog = shard.catalog();
    let safe = catalog
        .owned_by(shard.id(), shard.shards())
        .filter(|(_, topic)| topic.settings.durability == Durability::Flush && !is_keyed(topic));
    let safe: Vec<PartitionId> = safe.map(|(id, _)| id).collect();
    let at = (shard.reactor().random() % safe.len().max(1) as u64) as usize;
    let (partition, name) = (*safe.get(at)?, shared.new_producer());
    let id = shard.draw_producer_id().0;
    Some(Producer { partition, id, name, next: 0, sent: 0, unanswered: VecDeque::new() })
}

impl Producer {
    /// As many as may be unanswered, or fewer.
    fn make_batches(&mut self, shard: &Shard, shared: &Shared) {
        let load = shared.load.borrow();
        let wanted = 1 + (shard.reactor().random() % WINDOW as u64) as usize;
        while self.unanswered.len() < wanted && !load.calm && self.sent < APPENDS_MAX {
            let append = shared.new_append(self.name);
            let records = 1 + (shard.reactor().random() % u64::from(load.records_max)) as u32;
            let is_large = load.large_one_in > 0 && shard.reactor().random().is_multiple_of(load.large_one_in);
            let (records, value) = if is_large { (1, load.large_bytes) } else { (records, 64) };
            let now = shard.reactor().wall_clock().0;
            let mut bytes = records::batch(append, records, value, now, Codec::None);
            if let Err(error) = number(&mut bytes, self.id, 0, self.next) {
                shared.observer.broken_by(format!("a test's batch cannot be numbered: {error}"));
            }
            self.next += records as i32;
            self.sent += 1;
            let (partition, durability) = (self.partition, Durability::Flush);
            shared.observer.tell(&Event::Appending { partition, append, records, durability });
            self.unanswered.push_back(Batch { append, records, bytes, was_sent: false });
        }
    }

    /// Notes an acknowledgement; one that overtook another's comes again.
    fn acknowledged(&mut self, append: u64, at: &Appended, shared: &Shared) {
        if self.unanswered.front().is_some_and(|batch| batch.append == append)
            && let Some(batch) = self.unanswered.pop_front()
        {
            shared.acknowledged.set(shared.acknowledged.get() + u64::from(batch.records));
            let (base, last) = (at.base.0, at.last.0);
            shared.observer.tell(&Event::Acknowledged { partition: self.partition, append, base, last });
        }
    }
}

async fn send_all(shard: &Shard, shared: &Shared, handle: PartitionHandle) -> Round {
    let me = shard.id();
    let session = Session::new(WINDOW);
    let (mut under_way, mut round) = (0, Round::Done);
    if let Some(producer) = shared.numbered.borrow_mut().get_mut(&me) {
        let first = producer.unanswered.front().map(|batch| batch.append);
        for batch in &mut producer.unanswered {
            if std::mem::replace(&mut batch.was_sent, true) {
                sometimes!("a numbered batch was sent again");
            }
            match shard.append(handle, &batch.bytes, &session, batch.append) {
                Ok(()) => under_way += 1,
                Err(error) => round = judge(&error, Some(batch.append) == first, shared, producer.partition),
            }
            if matches!(round, Round::Over) {
                break;
            }
        }
    }
    if under_way > 0 && shard.reactor().random().is_multiple_of(LOST_ONE_IN) {
        sometimes!("a numbered producer lost its connection");
        return Round::Lost;
    }
    shared.outstanding.set(shared.outstanding.get() + under_way);
    while under_way > 0 {
        session.completed().await;
        let Some(outcome) = session.pop() else { continue };
        under_way -= 1;
        shared.outstanding.set(shared.outstanding.get() - 1);
        let mut numbered = shared.numbered.borrow_mut();
        let Some(producer) = numbered.get_mut(&me) else { continue };
        match outcome {
            Completed::Appended { ticket, appended } => producer.acknowledged(ticket, &appended, shared),
            Completed::Refused { ticket, error } => {
                let is_first = producer.unanswered.front().is_some_and(|batch| batch.append == ticket);
                match judge(&error, is_first, shared, producer.partition) {
                    Round::Over => round = Round::Over,
                    again if !matches!(round, Round::Over) => round = again,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    round
}

/// What a refusal means to who sends the oldest unanswered batch, or one behind it.
fn judge(error: &AppendError, is_first: bool, shared: &Shared, partition: PartitionId) -> Round {
    match error {
        AppendError::Sequence(_) if !is_first => sometimes!("a numbered batch did not overtake one that was refused"),
        AppendError::Sequence(error) => {
            shared.observer.broken_by(format!("{partition}: the oldest unanswered batch was refused: {error}"));
        }
        AppendError::UnknownPartition | AppendError::Fenced(_) => return Round::Over,
        AppendError::OutcomeUnknown => sometimes!("the outcome of a numbered batch is not known"),
        AppendError::Busy | AppendError::StorageFull | AppendError::Reopening => {}
        error => shared.observer.broken_by(format!("{partition}: a numbered batch was refused: {error}")),
    }
    Round::Again
}
