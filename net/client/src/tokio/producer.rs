//! Writes to a topic.

use super::sockets::Sockets;
use crate::accumulator::Accumulator;
use crate::deliver::{self, Deliverer, Shared as _};
use crate::front::Front;
use crate::producer::ProducerCore;
use crate::start::{self, unreachable};
use crate::{ClientError, Delivery, NewRecord, ProduceError, ProducerOptions, ProducerStats, SendError, Sent, Stored};
use ::tokio::sync::Notify;
use ::tokio::time::timeout_at;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Writes records to a topic. `send` collects them into batches, a task of the producer's own sends those; all methods may
/// be called from several tasks. Promises what the [blocking one](crate::blocking::Producer) promises.
///
/// ```no_run
/// use corelog_client::tokio::Producer;
/// use corelog_client::{NewRecord, ProducerOptions};
///
/// # async fn write() -> Result<(), Box<dyn std::error::Error>> {
/// let producer = Producer::connect("127.0.0.1:7092", "clicks", ProducerOptions::default()).await?;
/// producer.send(NewRecord::new(b"one")).await?;
/// let stored = producer.send_wait(NewRecord::new(b"two")).await?;
/// println!("two is at {}/{}", stored.partition, stored.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    options: ProducerOptions,
}

#[derive(Debug)]
struct Shared {
    front: Mutex<Front>,
    /// Something was settled: there is room, and answers for those who wait.
    settled: Notify,
    /// The producer's task has something to look at.
    wake: Notify,
}

impl Producer {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it, and finds the topic.
    ///
    /// # Errors
    /// `Unreachable` after the connect timeout, `Refused` where the topic does not exist.
    pub async fn connect(servers: &str, topic: &str, options: ProducerOptions) -> Result<Producer, ClientError> {
        Producer::with_deliveries(servers, topic, options, |_| {}).await
    }

    /// The same with a function that is told what became of every record. It runs on the producer's task, which waits for
    /// it, so it must not block.
    ///
    /// # Errors
    /// As [`Producer::connect`].
    pub async fn with_deliveries(
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
                None => sockets.turn(&mut core, Some(until)).await,
            }
        };
        let accumulator = Accumulator::new(&options, partitions, seed as u32, Instant::now());
        let front = Mutex::new(Front::new(accumulator));
        let shared = Arc::new(Shared { front, settled: Notify::new(), wake: Notify::new() });
        ::tokio::spawn(run(Deliverer::new(Arc::clone(&shared), core, on_delivery), sockets));
        Ok(Producer { shared, options })
    }

    /// Number of partitions of the topic, as far as is known.
    pub fn partitions(&self) -> u32 {
        self.shared.lock().accumulator.partitions()
    }

    /// Takes a record. Waits up to `block_max` for room.
    ///
    /// # Errors
    /// Nothing of the record was taken.
    pub async fn send(&self, record: NewRecord<'_>) -> Result<Sent, SendError> {
        self.append(&record, Front::append).await
    }

    /// Takes a record if there is room, else fails with [`SendError::Full`] at once.
    ///
    /// # Errors
    /// Nothing of the record was taken.
    pub fn try_send(&self, record: NewRecord<'_>) -> Result<Sent, SendError> {
        self.shared.append(&record, Front::append)
    }

    /// Takes a record, sends it without linger, and waits for its acknowledgement. When the future is dropped the record is
    /// sent nevertheless.
    ///
    /// # Errors
    /// `NotSent` where it was not taken, else what became of it.
    pub async fn send_wait(&self, record: NewRecord<'_>) -> Result<Stored, ProduceError> {
        let sent = self.append(&record, Front::append_waiting).await?;
        let waiting = Waiting { shared: &self.shared, sent };
        self.shared.until(|front| front.outcome(waiting.sent)).await
    }

    /// Sends all that was taken until now without linger, and waits until it is known what became of it.
    ///
    /// # Errors
    /// The first failure since the last flush. Where failures of single records matter, see
    /// [`Producer::with_deliveries`].
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let until = self.shared.lock().accumulator.ripen_all();
        self.shared.wake.notify_one();
        let settled = |front: &mut Front| (front.accumulator.is_settled(&until) || front.ended).then_some(());
        self.shared.until(settled).await;
        self.shared.lock().accumulator.failure().map_or(Ok(()), Err)
    }

    /// Sums up to now.
    pub fn stats(&self) -> ProducerStats {
        self.shared.lock().accumulator.stats()
    }

    /// Flushes and ends. Dropping a producer instead gives up what was not acknowledged.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<(), ProduceError> {
        self.flush().await
    }

    /// Ends without waiting for the server, and returns the final sums: every record is acknowledged, failed or unknown.
    pub async fn abandon(self) -> ProducerStats {
        self.end();
        self.shared.until(|front| front.ended.then(|| front.accumulator.stats())).await
    }

    fn end(&self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
    }

    async fn append(
        &self,
        record: &NewRecord<'_>,
        append: impl Fn(&mut Front, &NewRecord<'_>) -> Result<Sent, SendError>,
    ) -> Result<Sent, SendError> {
        match self.shared.append(record, &append) {
            Err(SendError::Full) => {}
            taken => return taken,
        }
        let room = self.shared.until(|front| match append(front, record) {
            Err(SendError::Full) => None,
            taken => Some((taken, front.take_wake())),
        });
        let until = Instant::now() + self.options.block_max;
        let (taken, wake) = timeout_at(until.into(), room).await.map_err(|_| SendError::Full)?;
        if wake {
            self.shared.wake.notify_one();
        }
        taken
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Someone waits for a record's outcome, perhaps not to the end.
struct Waiting<'a> {
    shared: &'a Shared,
    sent: Sent,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().forget(self.sent);
    }
}

impl deliver::Shared for Shared {
    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_settled(&self) {
        self.settled.notify_waiters();
    }
}

impl Shared {
    fn append(
        &self,
        record: &NewRecord<'_>,
        append: impl Fn(&mut Front, &NewRecord<'_>) -> Result<Sent, SendError>,
    ) -> Result<Sent, SendError> {
        let (taken, wake) = {
            let mut front = self.lock();
            (append(&mut front, record), front.take_wake())
        };
        if wake {
            self.wake.notify_one();
        }
        taken
    }

    /// Waits until `is_done` says something; it is asked now and whenever something was settled.
    async fn until<T>(&self, mut is_done: impl FnMut(&mut Front) -> Option<T>) -> T {
        loop {
            let mut settled = pin!(self.settled.notified());
            // Before it looks, so that what is settled in between is not missed.
            settled.as_mut().enable();
            let done = is_done(&mut self.lock());
            if let Some(done) = done {
                return done;
            }
            settled.await;
        }
    }
}

/// The producer's task.
async fn run(mut deliverer: Deliverer<Shared, impl FnMut(&Delivery)>, mut sockets: Sockets) {
    while deliverer.take_in(Instant::now()) {
        deliverer.report();
        let until = deliverer.park();
        let shared = Arc::clone(&deliverer.shared);
        let turn = sockets.turn(&mut deliverer.core, until);
        either(turn, shared.wake.notified()).await;
        deliverer.report();
    }
    deliverer.give_up();
}

/// Until the first of the two is done; the first is always looked at.
async fn either(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    std::future::poll_fn(|cx| {
        let done = first.as_mut().poll(cx).is_ready() | second.as_mut().poll(cx).is_ready();
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
