//! What the callers of a producer and its driver share, behind the driver's lock.

use crate::accumulator::{Accumulator, Sealed};
use crate::error::{ProduceError, SendError};
use crate::machine::Machine;
use crate::producer::{ProducerCore, Settled};
use crate::report::{NewRecord, Sent, Stored};
use std::time::{Instant, SystemTime};

/// Records on their way in, and those who wait for something.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) accumulator: Accumulator,
    /// Those who wait for one record each.
    waiting: Vec<Waiting>,
    /// The driver sleeps, until this time at the latest if there is one.
    parked: Option<Option<Instant>>,
    /// No more records are taken, and the driver is to give up what it has.
    pub(crate) closing: bool,
    /// The driver has ended.
    pub(crate) ended: bool,
}

#[derive(Debug)]
struct Waiting {
    sent: Sent,
    outcome: Option<Result<i64, ProduceError>>,
}

impl Front {
    pub(crate) fn new(accumulator: Accumulator) -> Front {
        Front { accumulator, waiting: Vec::new(), parked: None, closing: false, ended: false }
    }

    /// Takes a record. See [`Front::take_wake`] for what is to be done afterwards.
    pub(crate) fn append(&mut self, record: &NewRecord<'_>) -> Result<Sent, SendError> {
        if self.closing || self.ended {
            return Err(SendError::Closed);
        }
        self.accumulator.append(record, Instant::now(), unix_ms())
    }

    /// Takes a record that its caller will wait for, and sends it without linger.
    pub(crate) fn append_waiting(&mut self, record: &NewRecord<'_>) -> Result<Sent, SendError> {
        let sent = self.append(record)?;
        self.accumulator.ripen(sent.partition);
        self.waiting.push(Waiting { sent, outcome: None });
        Ok(sent)
    }

    /// What became of a record that was appended by `append_waiting`; once.
    pub(crate) fn outcome(&mut self, sent: Sent) -> Option<Result<Stored, ProduceError>> {
        let place = self.waiting.iter().position(|waiting| waiting.sent == sent)?;
        let outcome = match self.waiting[place].outcome.take() {
            Some(outcome) => outcome,
            None if self.ended => Err(ProduceError::Closed),
            None => return None,
        };
        self.waiting.swap_remove(place);
        Some(outcome.map(|offset| Stored { partition: sent.partition, offset }))
    }

    /// Nobody asks for this record's outcome any more.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget(&mut self, sent: Sent) {
        self.waiting.retain(|waiting| waiting.sent != sent);
    }

    /// Whether the driver sleeps longer than what was appended may wait; it is taken to be awake from here on.
    pub(crate) fn take_wake(&mut self) -> bool {
        let Some(until) = self.parked else { return false };
        let wake = self.closing || self.accumulator.changed(until);
        if wake {
            self.parked = None;
        }
        wake
    }

    /// Moves what is to be sent now to the core. True when the core is to give up.
    pub(crate) fn hand_over(&mut self, core: &mut ProducerCore, now: Instant, sealed: &mut Vec<Sealed>) -> bool {
        self.parked = None;
        if let Ok(Some(partitions)) = core.partitions() {
            self.accumulator.grow(partitions, now);
        }
        self.accumulator.collect(now, |partition| core.has_room(partition), sealed);
        self.closing
    }

    /// How long the driver may sleep: until then something is due, or it is woken.
    pub(crate) fn park(&mut self, core: &mut ProducerCore, now: Instant) -> Option<Instant> {
        if self.closing || self.accumulator.has_work(now, |partition| core.has_room(partition)) {
            return Some(now);
        }
        let due = [core.deadline(now), self.accumulator.deadline()].into_iter().flatten().min();
        self.parked = Some(due);
        due
    }

    /// Takes in what became known.
    pub(crate) fn settle(&mut self, settled: &[Settled]) {
        for settled in settled {
            self.accumulator.settle(settled);
            let delivery = &settled.delivery;
            let numbers = delivery.first..delivery.first + u64::from(delivery.count);
            for waiting in &mut self.waiting {
                if waiting.sent.partition == delivery.partition && numbers.contains(&waiting.sent.number) {
                    let place = (waiting.sent.number - delivery.first) as i64;
                    waiting.outcome = Some(delivery.outcome.clone().map(|base| base + place));
                }
            }
        }
    }

    /// Ends what is still gathering: none of it was sent.
    pub(crate) fn drain(&mut self) -> Vec<Sealed> {
        let mut sealed = Vec::new();
        self.accumulator.ripen_all();
        self.accumulator.collect(Instant::now(), |_| true, &mut sealed);
        sealed
    }
}

/// Now, in milliseconds since 1970-01-01 UTC; 0 for a clock before that.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
