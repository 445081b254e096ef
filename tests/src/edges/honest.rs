//! Clients that do all as they should: a producer that sends when a record is due, whatever became of those before, and a
//! consumer that follows it.

use super::{HONEST, PARTITIONS};
use crate::disk::Result;
use crate::process::PATIENCE;
use corelog_client::blocking::{Consumer, Producer};
use corelog_client::{ConsumerOptions, Delivery, Fetched, NewRecord, ProducerOptions, Start};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Records a second: far below what any machine can do, so that waiting is somebody else's doing.
const RATE: u32 = 200;
const RECORD_BYTES: usize = 256;
const POLL_TIME: Duration = Duration::from_millis(100);

/// When something was due, since the epoch of its run, and how long after that it was done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) due: Duration,
    pub(super) took: Duration,
}

/// What honest clients got.
#[derive(Debug)]
pub struct Answers {
    /// From when a record was due to its acknowledgement.
    pub(super) acknowledged: Vec<Sample>,
    /// From when it was due until the consumer had it.
    pub(super) read: Vec<Sample>,
    /// What records that were not acknowledged failed with.
    pub failures: Vec<String>,
}

impl Answers {
    /// Whether every record was acknowledged, and read.
    pub fn are_complete(&self) -> bool {
        self.failures.is_empty() && !self.read.is_empty() && self.read.len() == self.acknowledged.len()
    }
}

/// They work until they are told to end.
pub(super) struct Honest {
    over: Arc<AtomicBool>,
    producing: JoinHandle<Result<Book>>,
    consuming: JoinHandle<Result<Vec<Sample>>>,
    /// Records that the consumer has to have seen at the end; unknown before.
    expected: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Book {
    /// When the records on their way were due, by partition.
    under_way: [VecDeque<Duration>; PARTITIONS as usize],
    acknowledged: Vec<Sample>,
    failures: Vec<String>,
}

impl Honest {
    pub(super) fn start(bootstrap: &str, epoch: Instant) -> Result<Honest> {
        let over = Arc::new(AtomicBool::new(false));
        let expected = Arc::new(AtomicU64::new(u64::MAX));
        // Nobody has written to the topic. Where it ends is asked for with the first poll, which may come after a record.
        let options = ConsumerOptions { start: Start::Beginning, ..ConsumerOptions::default() };
        let consumer = Consumer::connect(bootstrap, HONEST, options)?;
        let book: Arc<Mutex<Book>> = Arc::default();
        let settled = book.clone();
        let settle = move |delivery: &Delivery| lock(&settled).settle(delivery, epoch.elapsed());
        let producer = Producer::with_deliveries(bootstrap, HONEST, ProducerOptions::default(), settle)?;
        let (ending, awaited) = (over.clone(), expected.clone());
        let producing = thread::spawn(move || produce(producer, &book, &ending, epoch));
        let consuming = thread::spawn(move || consume(consumer, &awaited, epoch));
        Ok(Honest { over, producing, consuming, expected })
    }

    /// Sends no more, and waits until what was sent is acknowledged and read.
    pub(super) fn end(self) -> Result<Answers> {
        self.over.store(true, Ordering::Relaxed);
        let book = self.producing.join().map_err(|_| "the honest producer panicked")?;
        let expected = book.as_ref().map_or(0, |book| book.acknowledged.len() as u64);
        self.expected.store(expected, Ordering::Relaxed);
        let read = self.consuming.join().map_err(|_| "the honest consumer panicked")?;
        let Book { acknowledged, failures, .. } = book?;
        Ok(Answers { acknowledged, read: read?, failures })
    }
}

impl Book {
    fn settle(&mut self, delivery: &Delivery, now: Duration) {
        for _ in 0..delivery.count {
            let Some(due) = self.under_way[delivery.partition as usize].pop_front() else { return };
            match &delivery.outcome {
                Ok(_) => self.acknowledged.push(Sample { due, took: now.saturating_sub(due) }),
                Err(error) => self.failures.push(error.to_string()),
            }
        }
    }
}

fn produce(producer: Producer, book: &Mutex<Book>, over: &AtomicBool, epoch: Instant) -> Result<Book> {
    let (mut value, begun) = ([0; RECORD_BYTES], epoch.elapsed());
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs(1) * number / RATE;
        thread::sleep(due.saturating_sub(epoch.elapsed()));
        value[..8].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
        let partition = number % PARTITIONS;
        lock(book).under_way[partition as usize].push_back(due);
        producer.send(NewRecord::new(&value).partition(partition))?;
        number += 1;
    }
    // What failed is in the book.
    let _ = producer.close();
    Ok(std::mem::take(&mut lock(book)))
}

fn consume(mut consumer: Consumer, expected: &AtomicU64, epoch: Instant) -> Result<Vec<Sample>> {
    let mut read = Vec::new();
    let mut heard = Instant::now();
    while (read.len() as u64) < expected.load(Ordering::Relaxed) && heard.elapsed() < PATIENCE {
        if let Some(fetched) = consumer.poll(POLL_TIME)? {
            heard = Instant::now();
            note(&fetched, epoch.elapsed(), &mut read)?;
        }
    }
    Ok(read)
}

fn note(fetched: &Fetched, now: Duration, read: &mut Vec<Sample>) -> Result<()> {
    for record in fetched.records() {
        let due =
            *record?.value.unwrap_or_default().first_chunk().ok_or("a record of the honest topic is not whole")?;
        let due = Duration::from_nanos(u64::from_le_bytes(due));
        read.push(Sample { due, took: now.saturating_sub(due) });
    }
    Ok(())
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
