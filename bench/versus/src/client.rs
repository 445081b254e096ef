//! The load: producers and consumers of librdkafka, the same for every broker.

use crate::Result;
use crate::broker::Broker;
use futures_lite::future::block_on;
use hdrhistogram::Histogram;
use nix::time::ClockId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client waits for a callback at most before it looks at what is due.
const NAP: Duration = Duration::from_micros(200);

/// When records are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many unacknowledged ones at any time.
    Closed(usize),
    /// So many a second, evenly, whatever the acknowledgements do: latency counts from when one was due.
    Open(f64),
    /// As many as the client takes.
    Full,
}

/// What is produced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) record_bytes: usize,
    pub(crate) partitions: u32,
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Produced {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Nanoseconds from when a record was due to its acknowledgement.
    pub(crate) latency: Histogram<u64>,
    /// CPU time of the broker and of the clients.
    pub(crate) broker_cpu: Duration,
    pub(crate) client_cpu: Duration,
}

impl Produced {
    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    pub(crate) fn ms(&self, part: f64) -> f64 {
        self.latency.value_at_quantile(part) as f64 / 1e6
    }
}

/// What is told of deliveries.
struct Acks {
    clock: Instant,
    counted: Mutex<Counted>,
}

struct Counted {
    /// Records due from here on count, nanoseconds.
    from: u64,
    records: u64,
    outstanding: usize,
    latency: Histogram<u64>,
    failed: Option<KafkaError>,
}

impl Acks {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let (now, due) = (self.now(), due as u64);
        let mut counted = self.counted();
        counted.outstanding -= 1;
        match result {
            Ok(_) if now >= counted.from => {
                counted.records += 1;
                counted.latency.saturating_record(now - due);
            }
            Ok(_) => {}
            Err((error, _)) => counted.failed = Some(error.clone()),
        }
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1000, 600_000_000_000, 3)?)
}

/// A topic that is deleted when it is dropped.
pub(crate) struct Topic<'a> {
    pub(crate) name: String,
    broker: &'a Broker,
}

impl<'a> Topic<'a> {
    pub(crate) fn make(broker: &'a Broker, name: &str, partitions: u32) -> Result<Topic<'a>> {
        let new = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        for made in block_on(admin(broker)?.create_topics([&new], &options))? {
            made.map_err(|(name, error)| format!("topic {name}: {error}"))?;
        }
        Ok(Topic { name: name.into(), broker })
    }

    /// Leaves it where it is.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Topic<'_> {
    fn drop(&mut self) {
        let Ok(admin) = admin(self.broker) else { return };
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let _ = block_on(admin.delete_topics(&[&self.name], &options));
    }
}

fn admin(broker: &Broker) -> Result<AdminClient<DefaultClientContext>> {
    Ok(broker.config().create()?)
}

fn producer(mut config: ClientConfig, pace: Pace) -> Result<BaseProducer<Acks>> {
    // Who sends as fast as it goes has batches, with librdkafka's own linger; the others do not wait for company.
    if pace != Pace::Full {
        config.set("linger.ms", "0");
    }
    let counted = Counted { from: u64::MAX, records: 0, outstanding: 0, latency: histogram()?, failed: None };
    Ok(config.create_with_context(Acks { clock: Instant::now(), counted: Mutex::new(counted) })?)
}

/// Produces to a topic that is there.
pub(crate) fn produce(broker: &Broker, topic: &str, load: &Load) -> Result<Produced> {
    let producer = producer(broker.config(), load.pace)?;
    touch(&producer, topic, load.partitions, load.record_bytes)?;
    let acks = producer.context();
    let mut sender = Sender { producer: &producer, topic, payload: vec![0x5a; load.record_bytes], sent: 0 };
    sender.run(load, load.warm_up)?;
    let (began, broker_before, client_before) = (acks.now(), broker.cpu()?, client_cpu()?);
    {
        let mut counted = acks.counted();
        (counted.from, counted.records) = (began, 0);
        counted.latency.reset();
    }
    sender.run(load, load.measured)?;
    let (records, latency) = {
        let counted = acks.counted();
        (counted.records, counted.latency.clone())
    };
    let seconds = (acks.now() - began) as f64 / 1e9;
    let (broker_cpu, client_cpu) = (broker.cpu()? - broker_before, client_cpu()? - client_before);
    producer.purge(rdkafka::producer::PurgeConfig::default().queue());
    producer.flush(PATIENCE)?;
    Ok(Produced { records, seconds, latency, broker_cpu, client_cpu })
}

/// Has every partition take a record.
pub(crate) fn touch_all(broker: &Broker, topic: &str, partitions: u32) -> Result<()> {
    touch(&producer(broker.config(), Pace::Full)?, topic, partitions, 1024)
}

/// The same: a partition's first segment is made then, which is no load's doing.
fn touch(producer: &BaseProducer<Acks>, topic: &str, partitions: u32, record_bytes: usize) -> Result<()> {
    let payload = vec![0; record_bytes];
    for partition in 0..partitions {
        send(producer, topic, partition, &payload, 0)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Sends one; false if the client's queue is full.
fn send(producer: &BaseProducer<Acks>, topic: &str, partition: u32, payload: &[u8], due: u64) -> Result<bool> {
    let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, due as usize).payload(payload);
    producer.context().counted().outstanding += 1;
    match producer.send(record.partition(partition as i32)) {
        Ok(()) => Ok(true),
        Err((error, _)) => {
            producer.context().counted().outstanding -= 1;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Ok(false),
                _ => Err(error.into()),
            }
        }
    }
}

struct Sender<'a> {
    producer: &'a BaseProducer<Acks>,
    topic: &'a str,
    payload: Vec<u8>,
    sent: u64,
}

impl Sender<'_> {
    fn run(&mut self, load: &Load, time: Duration) -> Result<()> {
        let acks = self.producer.context().clone();
        let (began, first) = (acks.now(), self.sent);
        let end = began + time.as_nanos() as u64;
        while acks.now() < end {
            match load.pace {
                Pace::Closed(window) => while acks.counted().outstanding < window && self.send(load, acks.now())? {},
                Pace::Open(rate) => loop {
                    let due = began + ((self.sent - first) as f64 / rate * 1e9) as u64;
                    if due > acks.now() || !self.send(load, due)? {
                        break;
                    }
                },
                Pace::Full => {
                    for _ in 0..1000 {
                        if !self.send(load, acks.now())? {
                            break;
                        }
                    }
                }
            }
            let nap = if load.pace == Pace::Full { Duration::ZERO } else { NAP };
            self.producer.poll(nap);
            if let Some(error) = acks.counted().failed.take() {
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn send(&mut self, load: &Load, due: u64) -> Result<bool> {
        let partition = (self.sent % u64::from(load.partitions)) as u32;
        let sent = send(self.producer, self.topic, partition, &self.payload, due)?;
        self.sent += u64::from(sent);
        Ok(sent)
    }
}

/// CPU time of this process.
fn client_cpu() -> Result<Duration> {
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}

/// Produces at least so many bytes of 1 KiB records to partition 0, as fast as it goes.
pub(crate) fn fill(broker: &Broker, topic: &str, bytes: u64) -> Result<()> {
    let producer = producer(broker.config(), Pace::Full)?;
    let payload = vec![0x5a; 1024];
    for _ in 0..bytes / 1024 {
        while !send(&producer, topic, 0, &payload, 0)? {
            producer.poll(NAP);
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE)?;
    producer.context().counted().failed.take().map_or(Ok(()), |error| Err(error.into()))
}

/// The time until one record is acknowledged by a broker that may not be there yet.
pub(crate) fn first_ack(broker: &Broker, topic: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut config = broker.config();
    config.set("topic.metadata.refresh.fast.interval.ms", "10").set("retry.backoff.ms", "5");
    let producer = producer(config, Pace::Closed(1))?;
    send(&producer, topic, 0, &[0x5a; 1024], 0)?;
    while producer.context().counted().outstanding > 0 {
        producer.poll(Duration::from_millis(1));
        if began.elapsed() > 2 * PATIENCE {
            return Err("the first record is not acknowledged".into());
        }
    }
    match producer.context().counted().failed.take() {
        Some(error) => Err(error.into()),
        None => Ok(began.elapsed()),
    }
}

/// Reads so many records of partition 0 from its beginning. Answers the bytes of their values.
pub(crate) fn read(broker: &Broker, topic: &str, records: u64) -> Result<u64> {
    let consumer = consumer(broker, topic, Offset::Beginning)?;
    let (mut read, mut bytes, mut heard) = (0, 0, Instant::now());
    while read < records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                bytes += message?.payload_len() as u64;
                read += 1;
                heard = Instant::now();
            }
            None if heard.elapsed() > PATIENCE => return Err("the consumer hears nothing any more".into()),
            None => {}
        }
    }
    Ok(bytes)
}

fn consumer(broker: &Broker, topic: &str, from: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = broker.config().set("enable.auto.commit", "false").create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, from)?;
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Times from when a record was due to when a consumer had it, nanoseconds, at so many records of 1 KiB a second.
pub(crate) fn end_to_end(broker: &Broker, topic: &str, load: &Load) -> Result<Histogram<u64>> {
    let Pace::Open(rate) = load.pace else { return Err("end to end is an open loop".into()) };
    let clock = Instant::now();
    let producer = producer(broker.config(), load.pace)?;
    touch(&producer, topic, 1, load.record_bytes)?;
    let reading = consumer(broker, topic, Offset::Beginning)?;
    let (stop, from) = (AtomicBool::new(false), load.warm_up.as_nanos() as u64);
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<Histogram<u64>> {
            let mut latency = histogram()?;
            while !stop.load(Ordering::Relaxed) {
                let Some(message) = reading.poll(Duration::from_millis(50)) else { continue };
                let now = clock.elapsed().as_nanos() as u64;
                let message = message?;
                let due = message
                    .payload()
                    .and_then(|payload| payload.first_chunk())
                    .map_or(0, |due| u64::from_le_bytes(*due));
                if due >= from {
                    latency.saturating_record(now.saturating_sub(due));
                }
            }
            Ok(latency)
        });
        let mut payload = vec![0x5a; load.record_bytes];
        let (began, end) = (clock.elapsed(), load.warm_up + load.measured);
        let mut sent = 0_u64;
        let mut produced = Ok(());
        while clock.elapsed() < began + end && produced.is_ok() {
            let due = began + Duration::from_secs_f64(sent as f64 / rate);
            if due <= clock.elapsed() {
                payload[..8].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
                produced = send(&producer, topic, 0, &payload, 0).map(|taken| sent += u64::from(taken));
                producer.poll(Duration::ZERO);
            } else {
                producer.poll(NAP);
            }
        }
        produced = produced.and(producer.flush(PATIENCE).map_err(Into::into));
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let latency = reader.join().unwrap_or_else(|_| Err("the consumer panicked".into()))?;
        produced.map(|()| latency)
    })
}
