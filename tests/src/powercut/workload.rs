//! Clients at load: producers of small, medium and large records, a reader of the tail, and an operator who creates and
//! deletes topics and deletes records.

use super::book::What;
use super::teller::{Stream, Teller, value_at};
use crate::chance::Chance;
use crate::disk::{Result, Trouble};
use crate::interrupt;
use corelog_client::blocking::{Admin, Consumer, Producer};
use corelog_client::{ConnectOptions, ConsumerOptions, NewRecord, OutOfRange, ProducerOptions};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of records that one producer sends in a phase, at most: the log of the disk holds them twice.
const PHASE_BYTES: u64 = 24 << 20;
/// Records that a brief topic gets.
const BRIEF_RECORDS: i64 = 40;
/// Brief topics there are at once.
const BRIEF_MAX: usize = 3;
/// Names that brief topics have in turn: one that was deleted is soon another's.
const BRIEF_NAMES: u32 = 4;
/// Number of the first brief stream.
const BRIEF_FROM: u32 = 100;

/// The streams that a recording has from its beginning to its end.
pub(super) fn streams(durability: &'static str) -> Vec<Stream> {
    let stream = |number, topic: &str, partitions, bytes, settings: &[(&'static str, &'static str)]| Stream {
        number,
        topic: topic.to_owned(),
        partitions,
        bytes,
        settings: [settings, &[("durability", durability)]].concat(),
    };
    let small = [("segment.bytes", "262144"), ("retention.bytes", "1048576")];
    let large = [("segment.bytes", "4194304"), ("retention.bytes", "6291456")];
    vec![
        stream(1, "small", 4, (100, 3_000), &small),
        stream(2, "large", 2, (270_000, 1_000_000), &large),
        stream(3, "kept", 2, (3_000, 40_000), &[("segment.bytes", "2097152")]),
    ]
}

/// How long clients work, and how much each producer sends at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    pub(super) time: Duration,
    pub(super) bytes: u64,
}

/// The clients of one server.
pub(super) struct Clients<'a> {
    pub(super) bootstrap: String,
    pub(super) teller: &'a Arc<Teller>,
    pub(super) chance: Chance,
    /// Brief topics so far; the next one has this number.
    pub(super) brief: u32,
    /// Those that were not deleted.
    pub(super) alive: VecDeque<Stream>,
}

impl Clients<'_> {
    /// Creates a stream's topic.
    pub(super) fn create(&self, admin: &mut Admin, stream: &Stream) -> Result<()> {
        self.teller.tell(What::Creating, stream, stream.partitions, stream.retention_bytes());
        admin.create_topic(&stream.topic, stream.partitions, &stream.settings)?;
        self.teller.tell(What::Created, stream, 0, 0);
        Ok(())
    }

    /// An operator's connection.
    pub(super) fn admin(&self) -> Result<Admin> {
        Ok(Admin::connect(&self.bootstrap, ConnectOptions::default())?)
    }

    /// All of them at once for so long, and until each producer has sent so many bytes. When this returns, all that was
    /// sent was acknowledged.
    pub(super) fn run(&mut self, streams: &[Stream], phase: Phase) -> Result<()> {
        let until = Instant::now() + phase.time;
        let over = AtomicBool::new(false);
        let (bootstrap, teller, chance) = (self.bootstrap.clone(), self.teller, self.chance.clone());
        self.chance.draw();
        thread::scope(|scope| {
            let producers: Vec<_> = streams
                .iter()
                .map(|stream| {
                    let (bootstrap, chance) = (&bootstrap, chance.part(stream.number.into()));
                    scope.spawn(move || produce(bootstrap, teller, stream, chance, (until, phase.bytes)))
                })
                .collect();
            let reader = scope.spawn(|| follow(&bootstrap, teller, &streams[0], &over));
            let operated = self.operate(streams, until);
            let produced = producers.into_iter().try_for_each(|producer| joined(producer.join()));
            over.store(true, Ordering::Relaxed);
            joined(reader.join())?;
            produced?;
            operated
        })?;
        interrupt::check()?;
        self.teller.check()
    }

    fn operate(&mut self, streams: &[Stream], until: Instant) -> Result<()> {
        let mut admin = self.admin()?;
        while Instant::now() < until {
            match self.chance.below(4) {
                0 | 1 if self.alive.len() < BRIEF_MAX => self.create_brief(&mut admin)?,
                2 if !self.alive.is_empty() => self.delete_brief(&mut admin)?,
                _ => self.delete_records(&mut admin, &streams[streams.len() - 1])?,
            }
            thread::sleep(Duration::from_millis(10 + self.chance.below(100)));
        }
        Ok(())
    }

    fn create_brief(&mut self, admin: &mut Admin) -> Result<()> {
        let stream = Stream {
            number: BRIEF_FROM + self.brief,
            topic: format!("brief-{}", self.brief % BRIEF_NAMES),
            partitions: 1 + self.chance.below(3) as u32,
            bytes: (20, 8_000),
            settings: Vec::new(),
        };
        if self.alive.iter().any(|other| other.topic == stream.topic) {
            return self.delete_brief(admin);
        }
        self.brief += 1;
        self.create(admin, &stream)?;
        let producer = producer(&self.bootstrap, self.teller, &stream)?;
        for number in 0..BRIEF_RECORDS {
            let partition = (number % i64::from(stream.partitions)) as u32;
            let offset = number / i64::from(stream.partitions);
            send(&producer, &stream, partition, offset, stream.bytes.0 + self.chance.below(stream.bytes.1))?;
        }
        producer.close()?;
        self.alive.push_back(stream);
        Ok(())
    }

    fn delete_brief(&mut self, admin: &mut Admin) -> Result<()> {
        let Some(stream) = self.alive.pop_front() else { return Ok(()) };
        self.teller.tell(What::Deleting, &stream, 0, 0);
        admin.delete_topic(&stream.topic)?;
        self.teller.tell(What::Deleted, &stream, 0, 0);
        Ok(())
    }

    fn delete_records(&mut self, admin: &mut Admin, stream: &Stream) -> Result<()> {
        let partition = self.chance.below(stream.partitions.into()) as u32;
        // Not all of them: what is left is to be looked at.
        let before = self.teller.told(stream, partition) / 4 * 3;
        self.teller.tell(What::DeletingRecords, stream, partition, before);
        let first = admin.delete_records(&stream.topic, partition, before)?;
        self.teller.tell(What::DeletedRecords, stream, partition, first);
        Ok(())
    }
}

fn joined(outcome: thread::Result<Result<()>>) -> Result<()> {
    outcome.unwrap_or_else(|_| Err("a client's thread ended".into()))
}

/// A producer whose acknowledgements are written down. Its first record of a partition is the one behind the last told.
pub(super) fn producer(bootstrap: &str, teller: &Arc<Teller>, stream: &Stream) -> Result<Producer> {
    // Little on its way at once, so that acknowledgements are many.
    let options =
        ProducerOptions { batch_bytes: 32 << 10, inflight: 4, buffer_bytes: 4 << 20, ..ProducerOptions::default() };
    let starts: Vec<i64> = (0..stream.partitions).map(|partition| teller.told(stream, partition)).collect();
    let (telling, of) = (Arc::clone(teller), stream.clone());
    let producer = Producer::with_deliveries(bootstrap, &stream.topic, options, move |delivery| {
        telling.delivered(&of, starts.get(delivery.partition as usize).copied().unwrap_or(0), delivery);
    });
    Ok(producer?)
}

/// Sends the record that belongs at an offset.
pub(super) fn send(producer: &Producer, stream: &Stream, partition: u32, offset: i64, bytes: u64) -> Result<()> {
    let value = value_at(stream.number, partition, offset, bytes);
    Ok(producer.send(NewRecord::new(&value).partition(partition)).map(drop)?)
}

fn produce(
    bootstrap: &str,
    teller: &Arc<Teller>,
    stream: &Stream,
    mut chance: Chance,
    (until, bytes_least): (Instant, u64),
) -> Result<()> {
    let producer = producer(bootstrap, teller, stream)?;
    let mut next: Vec<i64> = (0..stream.partitions).map(|partition| teller.told(stream, partition)).collect();
    let (mut sent, (least, most)) = (0, stream.bytes);
    while (Instant::now() < until || sent < bytes_least) && sent < PHASE_BYTES {
        let partition = chance.below(stream.partitions.into()) as u32;
        let bytes = least + chance.below(most - least);
        let offset = &mut next[partition as usize];
        send(&producer, stream, partition, *offset, bytes)?;
        *offset += 1;
        sent += bytes;
        if chance.one_in(200) {
            thread::sleep(Duration::from_millis(chance.below(10)));
        }
    }
    producer.close().map_err(Trouble::from)
}

/// Reads a stream's tail: what a reader was shown must not be undone either.
fn follow(bootstrap: &str, teller: &Teller, stream: &Stream, over: &AtomicBool) -> Result<()> {
    let options = ConsumerOptions { out_of_range: OutOfRange::Beginning, ..ConsumerOptions::default() };
    let mut consumer = Consumer::connect(bootstrap, &stream.topic, options)?;
    while !over.load(Ordering::Relaxed) {
        if let Some(fetched) = consumer.poll(Duration::from_millis(50))?
            && fetched.next() > teller.told(stream, fetched.partition())
        {
            teller.tell(What::Told, stream, fetched.partition(), fetched.next());
        }
    }
    Ok(())
}
