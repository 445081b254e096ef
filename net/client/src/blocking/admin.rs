//! Topics, offsets, addresses.

use crate::{
    ClientError, ClusterInfo, ConnectOptions, FoundOffset, ListOffsets, TopicChanges, TopicDescription, TopicFacts,
    TopicInfo,
};
use std::time::Duration;

/// A connection for what is not records. One call at a time; reconnects by itself.
#[derive(Debug)]
pub struct Admin {}

fn unconnected<T>() -> Result<T, ClientError> {
    Err(ClientError::Unreachable { servers: String::new(), why: "not connected".into() })
}

impl Admin {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it.
    pub fn connect(_servers: &str, _options: ConnectOptions) -> Result<Admin, ClientError> {
        unconnected()
    }

    /// Asks for an answer and tells how long it took.
    pub fn ping(&mut self) -> Result<Duration, ClientError> {
        unconnected()
    }

    /// Who is there.
    pub fn cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        unconnected()
    }

    /// All topics, in the order of their names.
    pub fn topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        unconnected()
    }

    /// One topic and who owns its partitions.
    pub fn topic(&mut self, _topic: &str) -> Result<TopicInfo, ClientError> {
        unconnected()
    }

    /// Creates a topic; 0 partitions is the server's default number.
    pub fn create_topic(
        &mut self,
        _topic: &str,
        _partitions: u32,
        _settings: &[(&str, &str)],
    ) -> Result<TopicFacts, ClientError> {
        unconnected()
    }

    /// Deletes a topic with all its records.
    pub fn delete_topic(&mut self, _topic: &str) -> Result<TopicFacts, ClientError> {
        unconnected()
    }

    /// Changes a topic.
    pub fn alter_topic(&mut self, _topic: &str, _changes: &TopicChanges) -> Result<TopicFacts, ClientError> {
        unconnected()
    }

    /// Settings and state of a topic with all its partitions.
    pub fn describe_topic(&mut self, _topic: &str) -> Result<TopicDescription, ClientError> {
        unconnected()
    }

    /// Finds an offset; None where there is none.
    pub fn list_offsets(
        &mut self,
        _topic: &str,
        _partition: u32,
        _which: ListOffsets,
    ) -> Result<Option<FoundOffset>, ClientError> {
        unconnected()
    }

    /// Deletes the records below `before`, of which -1 is the high watermark, and returns the first offset held then.
    pub fn delete_records(&mut self, _topic: &str, _partition: u32, _before: i64) -> Result<i64, ClientError> {
        unconnected()
    }
}
