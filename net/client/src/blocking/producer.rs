//! Writes to a topic.

use super::sockets::{Sockets, Waker};
use crate::accumulator::Accumulator;
use crate::deliver::{self, Deliverer, Shared as _};
use crate::front::Front;
use crate::producer::ProducerCore;
use crate::start::{self, unreachable};
use crate::{ClientError, Delivery, NewRecord, ProduceError, ProducerOptions, ProducerStats, SendError, Sent, Stored};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Writes records to a topic. `send` collects them into batches, a thread of the producer's own sends those; all methods
/// may be called from several threads.
///
/// ```no_run
/// use corelog_client::blocking::Producer;
/// use corelog_client::{NewRecord, ProducerOptions};
///
/// let producer = Producer::connect("127.0.0.1:7092", "clicks", ProducerOptions::default())?;
/// for line in ["one", "two", "three"] {
///     producer.send(NewRecord::new(line.as_bytes()).key(b"numbers"))?;
/// }
/// producer.close()?; // all three are on stable storage
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is promised
/// - Records of one partition are written in the order in which `send` took them, whatever fails and is sent again.
/// - A record reported as delivered is written, as durably as the topic's `durability` says.
/// - A record is written once at most, unless [`RetryUnknown::AtLeastOnce`](crate::RetryUnknown) is chosen. When a
///   connection is lost it is unknown what became of the records on their way, and servers cannot tell a repetition from
///   a new record as long as producers have no ids: so those are reported as
///   [`OutcomeUnknown`](ProduceError::OutcomeUnknown), or sent again and perhaps there twice.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    options: ProducerOptions,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: Mutex<Front>,
    /// Something was settled: there is room, and answers for those who wait.
    settled: Condvar,
    waker: Waker,
}

impl Producer {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it, and finds the topic.
    ///
    /// # Errors
    /// `Unreachable` after the connect timeout, `Refused` where the topic does not exist.
    pub fn connect(servers: &str, topic: &str, options: ProducerOptions) -> Result<Producer, ClientError> {
        Producer::with_deliveries(servers, topic, options, |_| {})
    }

    /// The same with a function that is told what became of every record. It runs on the producer's thread, and the
    /// producer waits for it.
    ///
    /// # Errors
    /// As [`Producer::connect`].
    pub fn with_deliveries(
        servers: &str,
        topic: &str,
        options: ProducerOptions,
        on_delivery: impl FnMut(&Delivery) + Send + 'static,
    ) -> Result<Producer, ClientError> {
        let (cluster, routes, seed) = start::topic(servers, topic, &options.connect)?;
        let mut core = ProducerCore::new(cluster, routes, options.clone());
        let mut sockets = Sockets::new();
        let until = Instant::now() + options.connect.connect_timeout;
        let partitions = loop {
            match core.partitions()? {
                Some(partitions) => break partitions,
                None if Instant::now() >= until => return Err(unreachable(servers, &core.waiting_for())),
                None => sockets.turn(&mut core, until),
            }
        };
        let accumulator = Accumulator::new(&options, partitions, seed as u32, Instant::now());
        let front = Mutex::new(Front::new(accumulator));
        let waker = Waker::new().map_err(|error| unreachable(servers, &error.to_string()))?;
        let shared = Arc::new(Shared { front, settled: Condvar::new(), waker });
        let deliverer = Deliverer::new(Arc::clone(&shared), core, on_delivery);
        let thread = std::thread::Builder::new().name("corelog-producer".to_owned());
        let thread =
            thread.spawn(move || run(deliverer, sockets)).map_err(|error| unreachable(servers, &error.to_string()))?;
        Ok(Producer { shared, options, thread: Some(thread) })
    }

    /// Number of partitions of the topic, as far as is known.
    pub fn partitions(&self) -> u32 {
        self.shared.lock().accumulator.partitions()
    }

    /// Takes a record. Waits up to `block_max` for room.
    ///
    /// # Errors
    /// Nothing of the record was taken.
    pub fn send(&self, record: NewRecord<'_>) -> Result<Sent, SendError> {
        self.append(&record, Front::append)
    }

    /// Takes a record if there is room, else fails with [`SendError::Full`] at once.
    ///
    /// # Errors
    /// Nothing of the record was taken.
    pub fn try_send(&self, record: NewRecord<'_>) -> Result<Sent, SendError> {
        let mut front = self.shared.lock();
        let sent = front.append(&record)?;
        self.shared.unlock_and_wake(front);
        Ok(sent)
    }

    /// Takes a record, sends it without linger, and waits for its acknowledgement.
    ///
    /// # Errors
    /// `NotSent` where it was not taken, else what became of it.
    pub fn send_wait(&self, record: NewRecord<'_>) -> Result<Stored, ProduceError> {
        let sent = self.append(&record, Front::append_waiting)?;
        let mut front = self.shared.lock();
        loop {
            match front.outcome(sent) {
                Some(outcome) => return outcome,
                None => front = self.shared.wait(front),
            }
        }
    }

    /// Sends all that was taken until now without linger, and waits until it is known what became of it.
    ///
    /// # Errors
    /// The first failure since the last flush. Where failures of single records matter, see
    /// [`Producer::with_deliveries`].
    pub fn flush(&self) -> Result<(), ProduceError> {
        let mut front = self.shared.lock();
        let until = front.accumulator.ripen_all();
        if front.take_wake() {
            self.shared.waker.wake();
        }
        while !front.accumulator.is_settled(&until) && !front.ended {
            front = self.shared.wait(front);
        }
        front.accumulator.failure().map_or(Ok(()), Err)
    }

    /// Sums up to now.
    pub fn stats(&self) -> ProducerStats {
        self.shared.lock().accumulator.stats()
    }

    /// Flushes and ends. Dropping a producer instead gives up what was not acknowledged.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub fn close(self) -> Result<(), ProduceError> {
        self.flush()
    }

    /// Ends without waiting for anything, and returns the final sums: every record is acknowledged, failed or unknown.
    pub fn abandon(mut self) -> ProducerStats {
        self.end();
        self.stats()
    }

    fn end(&mut self) {
        self.shared.lock().closing = true;
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn append(
        &self,
        record: &NewRecord<'_>,
        append: impl Fn(&mut Front, &NewRecord<'_>) -> Result<Sent, SendError>,
    ) -> Result<Sent, SendError> {
        let mut front = self.shared.lock();
        let mut until = None;
        loop {
            match append(&mut front, record) {
                Err(SendError::Full) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + self.options.block_max);
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(SendError::Full);
                    }
                    let waited = self.shared.settled.wait_timeout(front, left);
                    front = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Ok(sent) => {
                    self.shared.unlock_and_wake(front);
                    return Ok(sent);
                }
                refused => return refused,
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.end();
    }
}

impl deliver::Shared for Shared {
    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_settled(&self) {
        self.settled.notify_all();
    }
}

impl Shared {
    fn wait<'a>(&self, front: MutexGuard<'a, Front>) -> MutexGuard<'a, Front> {
        self.settled.wait(front).unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock_and_wake(&self, mut front: MutexGuard<'_, Front>) {
        let wake = front.take_wake();
        drop(front);
        if wake {
            self.waker.wake();
        }
    }
}

/// The producer's thread.
fn run(mut deliverer: Deliverer<Shared, impl FnMut(&Delivery)>, mut sockets: Sockets) {
    loop {
        let now = Instant::now();
        if !deliverer.take_in(now) {
            return deliverer.give_up();
        }
        sockets.send(&mut deliverer.core, now);
        deliverer.report();
        let until = deliverer.park();
        sockets.wait(&mut deliverer.core, Some(&deliverer.shared.waker), until);
    }
}
