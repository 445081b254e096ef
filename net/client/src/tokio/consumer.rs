//! Reads a topic.

use super::sockets::Sockets;
use crate::consumer::ConsumerCore;
use crate::start::{self, unreachable};
use crate::{ClientError, ConsumerOptions, Fetched};
use std::time::{Duration, Instant};

/// Reads the records of a topic's partitions. Works on the caller's task, inside `poll`; reconnects by itself and goes on
/// behind the last record that came.
///
/// ```no_run
/// use corelog_client::ConsumerOptions;
/// use corelog_client::tokio::Consumer;
/// use std::time::Duration;
///
/// # async fn tail() -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = Consumer::connect("127.0.0.1:7092", "clicks", ConsumerOptions::default()).await?;
/// loop {
///     let Some(fetched) = consumer.poll(Duration::from_secs(1)).await? else { continue };
///     for record in fetched.records() {
///         println!("{:?}", record?.value);
///     }
/// }
/// # }
/// ```
///
/// Records of one partition come in order, without gaps but those that the log has, and each once.
#[derive(Debug)]
pub struct Consumer {
    core: ConsumerCore,
    sockets: Sockets,
}

impl Consumer {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it, and finds the topic.
    ///
    /// # Errors
    /// `Unreachable` after the connect timeout, `Refused` where the topic does not exist, `Invalid` where it has fewer
    /// partitions than asked for.
    pub async fn connect(servers: &str, topic: &str, options: ConsumerOptions) -> Result<Consumer, ClientError> {
        let (cluster, routes, _) = start::topic(servers, topic, &options.connect)?;
        let until = Instant::now() + options.connect.connect_timeout;
        let mut consumer = Consumer { core: ConsumerCore::new(cluster, routes, options), sockets: Sockets::new() };
        while !consumer.core.is_ready()? {
            if Instant::now() >= until {
                return Err(unreachable(servers, &consumer.core.waiting_for()));
            }
            consumer.sockets.turn(&mut consumer.core, Some(until)).await;
        }
        Ok(consumer)
    }

    /// The next records of any partition, or None when none came within `wait`. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// `Refused` for a partition that cannot be read on, `Corrupt` for a batch that cannot be read. Other partitions go
    /// on with the next call; the one concerned waits for [`Consumer::seek`].
    pub async fn poll(&mut self, wait: Duration) -> Result<Option<Fetched>, ClientError> {
        let until = Instant::now() + wait;
        loop {
            if let Some(fetched) = self.core.take()? {
                return Ok(Some(fetched));
            }
            self.sockets.turn(&mut self.core, Some(until)).await;
            if Instant::now() >= until {
                return self.core.take();
            }
        }
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> Vec<u32> {
        self.core.partitions()
    }

    /// Offset behind the last record handed over of this partition; None before it is known where it begins.
    pub fn position(&self, partition: u32) -> Option<i64> {
        self.core.position(partition)
    }

    /// The partition's high watermark as far as it is known: readers see records below it.
    pub fn high_watermark(&self, partition: u32) -> Option<i64> {
        self.core.high_watermark(partition)
    }

    /// The partitions that cannot be read on, as an error has said; each waits for `seek`.
    pub fn halted(&self) -> Vec<u32> {
        self.core.halted()
    }

    /// Whether all that is known to be there was handed over, in every partition. False as long as that is unknown of
    /// any.
    pub fn at_end(&self) -> bool {
        self.core.at_end()
    }

    /// Goes on at another offset, with the next `poll`. Records of the partition that were not handed over are dropped.
    ///
    /// # Errors
    /// `Invalid` for a partition that is not read, or a negative offset.
    pub fn seek(&mut self, partition: u32, offset: i64) -> Result<(), ClientError> {
        self.core.seek(partition, offset, Instant::now())
    }
}
