//! Reads a topic.

use crate::{ClientError, ConsumerOptions, Fetched};
use std::time::Duration;

/// Reads the records of a topic's partitions. Works on the caller's thread, inside `poll`; reconnects by itself and goes
/// on behind the last record handed over.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it, and finds the topic.
    pub fn connect(_servers: &str, _topic: &str, _options: ConsumerOptions) -> Result<Consumer, ClientError> {
        Err(ClientError::Unreachable { servers: String::new(), why: "not connected".into() })
    }

    /// The next records of any partition, or None when none came within `wait`.
    pub fn poll(&mut self, _wait: Duration) -> Result<Option<Fetched>, ClientError> {
        Ok(None)
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Offset behind the last record handed over of this partition; None before it is known.
    pub fn position(&self, _partition: u32) -> Option<i64> {
        None
    }

    /// The partition's high watermark as far as it is known.
    pub fn high_watermark(&self, _partition: u32) -> Option<i64> {
        None
    }

    /// Whether all that is known to be there was handed over, in every partition.
    pub fn at_end(&self) -> bool {
        false
    }

    /// Goes on at another offset. Records of the partition that were not handed over are dropped.
    pub fn seek(&mut self, _partition: u32, _offset: i64) -> Result<(), ClientError> {
        Ok(())
    }
}
