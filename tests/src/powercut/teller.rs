//! Who writes down what clients are told, the moment they are told.

use super::book::{Mark, What};
use crate::disk::{Marks, Result};
use crate::records::{RecordId, fill};
use corelog_client::Delivery;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A topic that a recording writes to.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// No two topics of a recording have one, also if they have one name.
    pub(super) number: u32,
    pub(super) topic: String,
    pub(super) partitions: u32,
    /// Bytes of a value: from, to.
    pub(super) bytes: (u64, u64),
    pub(super) settings: Vec<(&'static str, &'static str)>,
}

impl Stream {
    /// The topic's `retention.bytes`, or -1.
    pub(super) fn retention_bytes(&self) -> i64 {
        let set = self.settings.iter().find(|(key, _)| *key == "retention.bytes");
        set.and_then(|(_, value)| value.parse().ok()).unwrap_or(-1)
    }
}

/// Which record stands at an offset of a stream's partition.
pub(super) fn record_at(stream: u32, partition: u32, offset: i64) -> RecordId {
    RecordId { append: u64::from(stream) << 32 | u64::from(partition), index: offset as u32 }
}

/// The value for an offset.
pub(super) fn value_at(stream: u32, partition: u32, offset: i64, bytes: u64) -> Vec<u8> {
    let mut value = vec![0; bytes.max(16) as usize];
    fill(&mut value, record_at(stream, partition, offset));
    value
}

/// Writes marks; the producers of all streams share it.
pub(super) struct Teller {
    marks: Marks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Offset behind the last acknowledged record of each stream's partition.
    told: BTreeMap<(u32, u32), i64>,
    trouble: Option<String>,
}

impl Teller {
    pub(super) fn new(marks: Marks) -> Teller {
        Teller { marks, state: Mutex::default() }
    }

    /// A mark about a stream.
    pub(super) fn tell(&self, what: What, stream: &Stream, partition: u32, value: i64) {
        self.write(&Mark::new(what, stream.number, &stream.topic, partition, value));
    }

    /// Writes a mark. A failure is kept for [`Teller::check`], as producers' threads have nobody to tell it to.
    pub(super) fn write(&self, mark: &Mark) {
        match self.marks.write(&mark.encode()) {
            Ok(()) if mark.what == What::Told => {
                let mut state = self.state();
                let told = state.told.entry((mark.stream, mark.partition)).or_default();
                *told = mark.value.max(*told);
            }
            Ok(()) => {}
            Err(error) => self.complain(format!("a mark could not be written: {error}")),
        }
    }

    /// A producer's delivery, of one whose first record of the partition goes to `start`.
    pub(super) fn delivered(&self, stream: &Stream, start: i64, delivery: &Delivery) {
        let due = start + delivery.first as i64;
        match &delivery.outcome {
            Ok(base) if *base == due => {
                self.tell(What::Told, stream, delivery.partition, due + i64::from(delivery.count));
            }
            outcome => self.complain(format!("{} record {due} came to {outcome:?}", stream.topic)),
        }
    }

    /// Offset behind the last record that anybody was told of.
    pub(super) fn told(&self, stream: &Stream, partition: u32) -> i64 {
        self.state().told.get(&(stream.number, partition)).copied().unwrap_or(0)
    }

    /// Something went wrong that makes the recording useless.
    pub(super) fn complain(&self, trouble: String) {
        self.state().trouble.get_or_insert(trouble);
    }

    /// # Errors
    /// The first thing that went wrong.
    pub(super) fn check(&self) -> Result<()> {
        match &self.state().trouble {
            Some(trouble) => Err(trouble.clone().into()),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
