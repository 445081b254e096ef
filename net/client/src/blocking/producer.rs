//! Writes to a topic.

use crate::{ClientError, Delivery, NewRecord, ProduceError, ProducerOptions, ProducerStats, SendError, Sent, Stored};

/// Writes records to a topic. `send` collects them into batches, a thread of the producer's own sends those; all methods
/// may be called from several threads.
#[derive(Debug)]
pub struct Producer {}

impl Producer {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it, and finds the topic.
    pub fn connect(servers: &str, topic: &str, options: ProducerOptions) -> Result<Producer, ClientError> {
        Producer::with_deliveries(servers, topic, options, |_| {})
    }

    /// The same with a function that is told what became of every record. It runs on the producer's thread, and the
    /// producer waits for it.
    pub fn with_deliveries(
        _servers: &str,
        _topic: &str,
        _options: ProducerOptions,
        _on_delivery: impl FnMut(&Delivery) + Send + 'static,
    ) -> Result<Producer, ClientError> {
        Err(ClientError::Unreachable { servers: String::new(), why: "not connected".into() })
    }

    /// Number of partitions of the topic.
    pub fn partitions(&self) -> u32 {
        0
    }

    /// Takes a record. Waits up to `block_max` for room.
    pub fn send(&self, _record: NewRecord<'_>) -> Result<Sent, SendError> {
        Err(SendError::Closed)
    }

    /// Takes a record if there is room, else fails with [`SendError::Full`] at once.
    pub fn try_send(&self, _record: NewRecord<'_>) -> Result<Sent, SendError> {
        Err(SendError::Closed)
    }

    /// Takes a record, sends it without linger, and waits for its acknowledgement.
    pub fn send_wait(&self, _record: NewRecord<'_>) -> Result<Stored, ProduceError> {
        Err(ProduceError::Closed)
    }

    /// Sends all that was taken until now without linger, and waits until it is known what became of it.
    /// The first failure since the last flush is the error.
    pub fn flush(&self) -> Result<(), ProduceError> {
        Ok(())
    }

    /// Sums up to now.
    pub fn stats(&self) -> ProducerStats {
        ProducerStats::default()
    }

    /// Flushes and ends. Dropping a producer instead gives up what was not acknowledged.
    pub fn close(self) -> Result<(), ProduceError> {
        self.flush()
    }
}
