//! What the client does in each run, and what it was told.

use super::Address;
use crate::records::{self, RecordId};
use corelog_batch::Codec;
use corelog_bench::{BenchError, Connection};
use corelog_wire::{DeleteRecords, DeletedRecords, Operation, Produced};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// The topic that stays, and its settings: a segment takes six large batches, and is long enough to be recycled. Records are
/// of one time, long ago.
const KEPT: &str = "kept";
const KEPT_PARTITIONS: u32 = 3;
const SETTINGS: [(&str, &str); 2] = [("segment.bytes", "2097152"), ("retention.ms", "-1")];
const TIMESTAMP: i64 = 1_700_000_000_000;
const LARGE_IN_SEGMENT: u32 = 6;
/// The topic that is deleted.
const PASSING: &str = "passing";

/// Bytes of the value of a batch's only record: a batch this size goes to its segment directly, and its identity alone to
/// the journal.
const LARGE: usize = 300 << 10;
/// Several of them fill the journal.
const MEDIUM: usize = 100 << 10;
/// Long enough for a checkpoint and a look of retention's to end.
const PAUSE: Duration = Duration::from_millis(120);

/// One thing that the client does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create(&'static str, u32),
    Delete(&'static str),
    /// Batches of one record, sent together: to each of the partitions so many, of so many bytes.
    Produce(&'static str, &'static [u32], u32, usize),
    DeleteRecords(&'static str, u32, i64),
    Pause,
}

/// Small batches of several partitions in one commit; segments that begin, roll and are recycled; a journal that fills up
/// and goes around, with checkpoints on the way; a topic that comes and goes.
const STORY: [Step; 17] = [
    Step::Create(KEPT, KEPT_PARTITIONS),
    Step::Produce(KEPT, &[0, 1, 2], 3, 100),
    Step::Create(PASSING, 1),
    Step::Produce(PASSING, &[0], 2, 5000),
    Step::Produce(PASSING, &[0], 1, LARGE),
    Step::Produce(KEPT, &[0], LARGE_IN_SEGMENT + 1, LARGE),
    Step::Delete(PASSING),
    Step::Produce(KEPT, &[1, 2], 4, MEDIUM),
    Step::DeleteRecords(KEPT, 0, 3 + LARGE_IN_SEGMENT as i64),
    Step::Produce(KEPT, &[1, 2, 0], 3, MEDIUM),
    Step::Pause,
    Step::Produce(KEPT, &[0], LARGE_IN_SEGMENT, LARGE),
    Step::Produce(KEPT, &[0, 1, 2], 1, 100),
    Step::Create(PASSING, 1),
    Step::Produce(PASSING, &[0], 1, 100),
    Step::DeleteRecords(KEPT, 2, 5),
    Step::Produce(KEPT, &[2, 1], 2, MEDIUM),
];

/// An append that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Append {
    pub(super) id: RecordId,
    /// It has an acknowledgement.
    pub(super) told: bool,
}

/// What is known of a partition: its appends in the order of sending, one record each, so that their places are their
/// offsets.
#[derive(Debug, Clone, Default)]
pub(super) struct Partition {
    pub(super) appends: Vec<Append>,
    /// Its first offset is one of these two: what was acknowledged, and what was asked for.
    pub(super) first: [i64; 2],
}

/// What is known of a topic.
#[derive(Debug, Clone, Default)]
pub(super) struct Topic {
    pub(super) partitions: Vec<Partition>,
    /// It is there, or it is not; nothing if it was asked to come or to go, and no answer came.
    pub(super) is_there: Option<bool>,
}

/// What a client was told in a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) topics: BTreeMap<&'static str, Topic>,
    pub(super) acknowledged: u64,
    sent: u64,
}

/// Goes through the story until its end, or until the server is gone.
///
/// # Errors
/// When the server refuses something, or says what is not so.
pub(super) fn tell(server: Address) -> Result<Told, String> {
    let mut told = Told::default();
    let Ok(mut connection) = Connection::open(server) else { return Ok(told) };
    for step in STORY {
        match told.go(&mut connection, step) {
            Ok(()) => {}
            // The server is gone.
            Err(BenchError::Io { .. }) => break,
            Err(error) => return Err(format!("{step:?}: {error}")),
        }
    }
    Ok(told)
}

impl Told {
    fn go(&mut self, connection: &mut Connection, step: Step) -> Result<(), BenchError> {
        match step {
            Step::Create(name, partitions) => {
                // A topic that was deleted and is made again is another one.
                let fresh = vec![Partition::default(); partitions as usize];
                self.topics.insert(name, Topic { partitions: fresh, is_there: None });
                connection.create_topic(name, partitions, &SETTINGS)?;
                self.topic(name).is_there = Some(true);
            }
            Step::Delete(name) => {
                self.topic(name).is_there = None;
                connection.delete_topic(name)?;
                self.topic(name).is_there = Some(false);
            }
            Step::Produce(name, partitions, count, bytes) => {
                self.produce(connection, name, partitions, count, bytes)?
            }
            Step::DeleteRecords(name, index, before) => {
                let (handle, _) = connection.open_partition(name, index)?;
                self.partition(name, index).first[1] = before;
                connection.call(Operation::DeleteRecords, handle, &DeleteRecords { before }, &[])?;
                let deleted: DeletedRecords = connection.decode(Operation::DeleteRecords)?;
                self.partition(name, index).first = [deleted.first; 2];
            }
            Step::Pause => thread::sleep(PAUSE),
        }
        Ok(())
    }

    fn produce(
        &mut self,
        connection: &mut Connection,
        name: &'static str,
        partitions: &[u32],
        count: u32,
        bytes: usize,
    ) -> Result<(), BenchError> {
        let mut handles = BTreeMap::new();
        for index in partitions {
            handles.insert(connection.open_partition(name, *index)?.0, *index);
        }
        for _ in 0..count {
            for (handle, index) in &handles {
                let batch = self.new_batch(name, *index, bytes);
                connection.send(Operation::Produce, *handle, &(), &batch)?;
            }
        }
        for _ in 0..count as usize * handles.len() {
            let answer = connection.receive()?;
            if answer.status != 0 {
                return Err(connection.refused("produce", answer.status));
            }
            let produced: Produced = connection.decode(Operation::Produce)?;
            self.acknowledge(name, handles[&answer.handle], produced.base)?;
        }
        Ok(())
    }

    /// A batch of one record that nobody else sends.
    pub(super) fn new_batch(&mut self, name: &'static str, index: u32, bytes: usize) -> Vec<u8> {
        self.sent += 1;
        let id = RecordId { append: self.sent, index: 0 };
        self.partition(name, index).appends.push(Append { id, told: false });
        records::batch(id.append, 1, bytes, TIMESTAMP, Codec::None)
    }

    /// The record of the last batch that was made.
    pub(super) fn last_sent(&self) -> RecordId {
        RecordId { append: self.sent, index: 0 }
    }

    /// Acknowledgements of a partition come in the order of sending.
    pub(super) fn acknowledge(&mut self, name: &'static str, index: u32, base: i64) -> Result<(), BenchError> {
        let next = self.partition(name, index).appends.iter().position(|append| !append.told);
        let Some(next) = next.filter(|next| *next as i64 == base) else {
            let what = format!("{name}/{index}: offset {base} is acknowledged, it is the turn of {next:?}");
            return Err(BenchError::Server(what));
        };
        self.partition(name, index).appends[next].told = true;
        self.acknowledged += 1;
        Ok(())
    }

    fn topic(&mut self, name: &'static str) -> &mut Topic {
        self.topics.entry(name).or_default()
    }

    fn partition(&mut self, name: &'static str, index: u32) -> &mut Partition {
        &mut self.topic(name).partitions[index as usize]
    }
}
