//! What a partition knows of producers that number their batches, so that a batch that is sent again is recognised.
//!
//! A producer has an id, and an epoch under which it numbers the records that it sends to a partition, from 0. Of each the
//! newest batches are kept: one of these that comes again is acknowledged with the offsets that it has, one that
//! continues them is appended, any other is refused. Semantics and the number of batches are those of Kafka (KIP-98,
//! KIP-360), whose clients have at most so many unanswered.
//!
//! Pure: no time, no I/O. The shard says what was appended, the journal and the checkpoints carry it over a crash.

use crate::model::{Offset, ProducerEpoch, ProducerId, ProducerSequence, Timestamp};
use corelog_batch::BatchView;
use std::collections::BTreeMap;

/// Batches of a producer that are recognised when they come again.
pub const WINDOW: usize = 5;

/// How a batch is numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// By whom.
    pub producer: ProducerId,
    /// Under which of its epochs.
    pub epoch: ProducerEpoch,
    /// The number of its first record.
    pub first: ProducerSequence,
    /// How many records it has, at least one.
    pub records: u32,
}

impl Numbered {
    /// How a valid batch is; None if it has no producer id.
    pub fn of(batch: &BatchView<'_>) -> Option<Numbered> {
        (batch.producer_id() >= 0).then(|| Numbered {
            producer: ProducerId(batch.producer_id()),
            epoch: ProducerEpoch(batch.producer_epoch()),
            first: ProducerSequence(batch.base_sequence()),
            records: batch.record_count().unsigned_abs(),
        })
    }

    /// The same once its records have offsets.
    pub fn appended(self, base: Offset, at: Timestamp) -> Produced {
        let Numbered { producer, epoch, first, records } = self;
        Produced { producer, epoch, first, base, last: Offset(base.0 + i64::from(records) - 1), at }
    }
}

/// A batch of a producer that is in the log. What journal entries say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Whose.
    pub producer: ProducerId,
    /// Under which epoch.
    pub epoch: ProducerEpoch,
    /// The number of its first record.
    pub first: ProducerSequence,
    /// The offset of its first record.
    pub base: Offset,
    /// The offset of its last record.
    pub last: Offset,
    /// When it was appended, by this node's clock.
    pub at: Timestamp,
}

/// The newest batches of one producer in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The newest epoch.
    pub epoch: ProducerEpoch,
    /// When the newest batch was appended, or refused if there is none.
    pub at: Timestamp,
    length: u8,
    /// Oldest first.
    batches: [Kept; WINDOW],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    first: ProducerSequence,
    /// Records behind the first.
    more: u32,
    base: Offset,
}

const NOTHING: Kept = Kept { first: ProducerSequence(0), more: 0, base: Offset(0) };

impl Kept {
    fn last(&self) -> Offset {
        self.base.plus(self.more)
    }

    fn last_sequence(&self) -> ProducerSequence {
        self.first.plus(self.more)
    }
}

/// What is to be done with a numbered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: append it.
    Append,
    /// It was appended before.
    Duplicate {
        /// The offset of its first record.
        base: Offset,
        /// The offset of its last record.
        last: Offset,
    },
}

/// Why a numbered batch is not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// Batches before it are missing, or it is older than those that are remembered.
    #[error("producer {producer} sent sequence {found} where {expected} comes next")]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The number that would continue what the log has.
        expected: ProducerSequence,
        /// The number that came.
        found: ProducerSequence,
    },
    /// The producer has begun another epoch since.
    #[error("producer {producer} sent epoch {found} after epoch {known}")]
    OldEpoch {
        /// The producer.
        producer: ProducerId,
        /// The newest epoch.
        known: ProducerEpoch,
        /// The one that came.
        found: ProducerEpoch,
    },
}

/// Judges a batch by what is known of its producer.
///
/// # Errors
/// It must not be appended.
pub fn judge(known: Option<&Window>, batch: &Numbered) -> Result<Verdict, SequenceError> {
    // Of a producer that is not known, any number is taken: what was known of it may have been forgotten with time.
    let Some(window) = known else { return Ok(Verdict::Append) };
    if batch.epoch < window.epoch {
        let (producer, known, found) = (batch.producer, window.epoch, batch.epoch);
        return Err(SequenceError::OldEpoch { producer, known, found });
    }
    let mut expected = ProducerSequence(0);
    if batch.epoch == window.epoch {
        if let Some(kept) = window.find(batch) {
            return Ok(Verdict::Duplicate { base: kept.base, last: kept.last() });
        }
        expected = window.next();
    }
    if batch.first == expected {
        return Ok(Verdict::Append);
    }
    Err(SequenceError::OutOfOrder { producer: batch.producer, expected, found: batch.first })
}

impl Window {
    /// Of a producer of which nothing was appended under this epoch: its first number is the next.
    pub fn new(epoch: ProducerEpoch, at: Timestamp) -> Window {
        Window { epoch, at, length: 0, batches: [NOTHING; WINDOW] }
    }

    /// With one batch.
    pub fn of(batch: &Produced) -> Window {
        let mut window = Window::new(batch.epoch, batch.at);
        window.note(batch);
        window
    }

    /// Adds a batch that was appended. One that is not behind those it has is known already.
    pub fn note(&mut self, batch: &Produced) {
        let is_known = self.kept().last().is_some_and(|newest| batch.base <= newest.last());
        if is_known || batch.epoch < self.epoch {
            return;
        }
        if batch.epoch > self.epoch {
            *self = Window::new(batch.epoch, batch.at);
        }
        if self.kept().len() == WINDOW {
            self.batches.rotate_left(1);
            self.length -= 1;
        }
        let more = (batch.last.0 - batch.base.0) as u32;
        self.batches[usize::from(self.length)] = Kept { first: batch.first, more, base: batch.base };
        self.length += 1;
        self.at = batch.at;
    }

    /// Forgets batches that end at this offset or behind it. False if none is left.
    pub fn truncate(&mut self, to: Offset) -> bool {
        self.length = self.kept().iter().take_while(|kept| kept.last() < to).count() as u8;
        self.batches[usize::from(self.length)..].fill(NOTHING);
        self.length > 0
    }

    /// Its batches, oldest first.
    pub fn batches(&self, producer: ProducerId) -> impl Iterator<Item = Produced> + '_ {
        let (epoch, at) = (self.epoch, self.at);
        let produced = move |kept: &Kept| {
            let Kept { first, base, .. } = *kept;
            Produced { producer, epoch, first, base, last: kept.last(), at }
        };
        self.kept().iter().map(produced)
    }

    /// Nothing was appended under its epoch.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number that comes next.
    pub fn next(&self) -> ProducerSequence {
        self.kept().last().map_or(ProducerSequence(0), |newest| newest.last_sequence().plus(1))
    }

    fn kept(&self) -> &[Kept] {
        &self.batches[..usize::from(self.length)]
    }

    fn find(&self, batch: &Numbered) -> Option<&Kept> {
        let last = batch.first.plus(batch.records - 1);
        self.kept().iter().find(|kept| kept.first == batch.first && kept.last_sequence() == last)
    }
}

/// Notes a batch that was appended, whatever is known of its producer.
pub fn note(windows: &mut BTreeMap<ProducerId, Window>, batch: &Produced) {
    let known = windows.entry(batch.producer);
    known.and_modify(|window| window.note(batch)).or_insert_with(|| Window::of(batch));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRODUCER: ProducerId = ProducerId(7);
    const NOW: Timestamp = Timestamp(1000);

    fn numbered(epoch: i16, first: i32, records: u32) -> Numbered {
        Numbered { producer: PRODUCER, epoch: ProducerEpoch(epoch), first: ProducerSequence(first), records }
    }

    /// Appends what is to be appended; the offset that the batch has.
    fn send(window: &mut Option<Window>, next: &mut Offset, batch: Numbered) -> Result<Offset, SequenceError> {
        match judge(window.as_ref(), &batch)? {
            Verdict::Duplicate { base, last } => {
                assert_eq!(last.0 - base.0, i64::from(batch.records) - 1);
                Ok(base)
            }
            Verdict::Append => {
                let produced = batch.appended(*next, NOW);
                window.get_or_insert(Window::new(batch.epoch, NOW)).note(&produced);
                *next = Offset(produced.last.0 + 1);
                Ok(produced.base)
            }
        }
    }

    #[test]
    fn the_newest_batches_are_recognised_and_older_ones_refused() {
        let (mut window, mut next) = (None, Offset(100));
        for n in 0..7 {
            assert_eq!(send(&mut window, &mut next, numbered(0, n * 10, 10)), Ok(Offset(100 + i64::from(n) * 10)));
        }
        for n in 2..7 {
            assert_eq!(send(&mut window, &mut next, numbered(0, n * 10, 10)), Ok(Offset(100 + i64::from(n) * 10)));
        }
        for n in 0..2 {
            let error = send(&mut window, &mut next, numbered(0, n * 10, 10)).expect_err("it is no longer known");
            assert_eq!(error.to_string(), format!("producer 7 sent sequence {} where 70 comes next", n * 10));
        }
        assert!(send(&mut window, &mut next, numbered(0, 60, 9)).is_err(), "not the batch that was sent");
        assert!(send(&mut window, &mut next, numbered(0, 80, 1)).is_err(), "one is missing");
        assert_eq!(next, Offset(170));
    }

    #[test]
    fn numbers_go_on_with_zero_behind_the_last_one() {
        let (mut window, mut next) = (None, Offset(0));
        assert_eq!(send(&mut window, &mut next, numbered(0, i32::MAX - 1, 1)), Ok(Offset(0)));
        assert_eq!(send(&mut window, &mut next, numbered(0, i32::MAX, 3)), Ok(Offset(1)), "MAX, 0 and 1");
        assert_eq!(send(&mut window, &mut next, numbered(0, 2, 1)), Ok(Offset(4)));
        assert_eq!(send(&mut window, &mut next, numbered(0, i32::MAX, 3)), Ok(Offset(1)), "again");
    }

    #[test]
    fn an_epoch_begins_with_zero_and_ends_the_one_before() {
        let (mut window, mut next) = (None, Offset(0));
        send(&mut window, &mut next, numbered(3, 40, 1)).expect("nothing is known of it");
        assert!(send(&mut window, &mut next, numbered(4, 41, 1)).is_err(), "another epoch begins with 0");
        assert_eq!(send(&mut window, &mut next, numbered(4, 0, 1)), Ok(Offset(1)));
        let error = send(&mut window, &mut next, numbered(3, 40, 1)).expect_err("the epoch is over");
        assert_eq!(error.to_string(), "producer 7 sent epoch 3 after epoch 4");
    }

    #[test]
    fn who_was_refused_its_first_batch_begins_with_it() {
        let window = Window::new(ProducerEpoch(0), NOW);
        assert!(judge(Some(&window), &numbered(0, 1, 1)).is_err(), "it would overtake the first");
        assert_eq!(judge(Some(&window), &numbered(0, 0, 1)), Ok(Verdict::Append));
    }

    proptest! {
        /// A producer with up to five batches unanswered that sends all of them again, in order, after any loss of answers.
        #[test]
        fn what_is_sent_again_is_in_the_log_once(
            begin in prop_oneof![Just(0), (i32::MAX - 50)..=i32::MAX],
            rounds in prop::collection::vec((prop::collection::vec(1u32..20, 1..=WINDOW), 0..=WINDOW, 1usize..4), 1..30),
        ) {
            let (mut window, mut next) = (None, Offset(0));
            let (mut sequence, mut sent) = (ProducerSequence(begin), Offset(0));
            for (sizes, arrived, tries) in rounds {
                let mut batches = Vec::new();
                for size in sizes {
                    batches.push((numbered(0, sequence.0, size), sent));
                    sequence = sequence.plus(size);
                    sent = sent.plus(size);
                }
                let first = arrived.min(batches.len());
                for (batch, _) in &batches[..first] {
                    send(&mut window, &mut next, *batch).unwrap();
                }
                for _ in 0..tries {
                    for (batch, offset) in &batches {
                        prop_assert_eq!(send(&mut window, &mut next, *batch), Ok(*offset));
                    }
                }
                prop_assert_eq!(next, sent);
            }
        }

        /// However the batches are split between what a checkpoint says and what the journal says behind it, and overlap.
        #[test]
        fn windows_join_to_what_they_would_be_whole(sizes in prop::collection::vec((1u32..5, any::<bool>()), 1..40), to: prop::sample::Index, from: prop::sample::Index) {
            let (mut whole, mut all) = (Window::new(ProducerEpoch(0), NOW), Vec::new());
            let (mut offset, mut sequence, mut epoch) = (Offset(0), ProducerSequence(0), 0);
            for (size, bumps) in sizes {
                if bumps {
                    (epoch, sequence) = (epoch + 1, ProducerSequence(0));
                }
                let produced = numbered(epoch, sequence.0, size).appended(offset, NOW);
                (offset, sequence) = (offset.plus(size), sequence.plus(size));
                whole.note(&produced);
                all.push(produced);
            }
            let to = to.index(all.len() + 1);
            let from = from.index(to + 1);
            let mut joined = Window::new(ProducerEpoch(0), NOW);
            all[..to].iter().chain(&all[from..]).for_each(|produced| joined.note(produced));
            prop_assert_eq!(joined.kept(), whole.kept());
            prop_assert_eq!(joined.epoch, whole.epoch);
        }
    }
}
