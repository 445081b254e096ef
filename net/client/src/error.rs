//! What can go wrong, by what was asked for.

use corelog_wire::{Detail, Failure, FrameError, Operation, Retry, Status};
use std::fmt;
use std::time::Duration;

/// A server's "no": the status, its numbers and its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub operation: Operation,
    /// The status on the wire; [`Refusal::status`] where this crate knows it.
    pub code: u16,
    /// Numbers that go with it.
    pub detail: Detail,
    /// The server's sentence; may be empty.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(operation: Operation, code: u16, failure: &Failure<'_>) -> Refusal {
        Refusal { operation, code, detail: failure.detail, message: failure.message.as_str().to_owned() }
    }

    /// The status, or None where a newer server sent one that this crate does not know.
    pub fn status(&self) -> Option<Status> {
        Status::from_code(self.code)
    }

    /// Whether the request may be repeated. Unknown statuses go by their group.
    pub fn retry(&self) -> Retry {
        match (self.status(), self.code / 100) {
            (Some(status), _) => status.retry(),
            (None, 3) => Retry::Yes,
            (None, 4) => Retry::MayRepeat,
            (None, _) => Retry::No,
        }
    }

    /// The offsets that the partition holds, first and next, where the refusal carries them.
    pub fn range(&self) -> Option<(i64, i64)> {
        match self.detail {
            Detail::Range { first, next } => Some((first, next)),
            _ => None,
        }
    }

    /// How long the server asks to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.detail {
            Detail::RetryAfter { ms } => Some(Duration::from_millis(ms.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.status().map_or("unknown status", Status::name);
        match self.operation {
            Operation::Goodbye => write!(f, "the server ended the connection: {name} ({})", self.code)?,
            operation => write!(f, "{} was refused: {name} ({})", operation.name(), self.code)?,
        }
        let meaning = self.status().map_or("", Status::meaning);
        let why = if self.message.is_empty() { meaning } else { self.message.as_str() };
        if !why.is_empty() {
            write!(f, ": {}", why.trim_end_matches('.'))?;
        }
        match self.detail {
            Detail::Range { first, next } => write!(f, " (it holds {first} to {next}, the latter not yet)"),
            Detail::Limit { actual, max } => write!(f, " ({actual}, where {max} is the most)"),
            Detail::Versions { min, max } => write!(f, " (the server speaks {min} to {max})"),
            Detail::RetryAfter { .. } | Detail::None | Detail::Unknown { .. } => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The operating system says so.
    #[error("{0}")]
    Io(String),
    /// The server closed it without a word.
    #[error("the server closed the connection")]
    Closed,
    /// The server said why before it closed.
    #[error(transparent)]
    Goodbye(Refusal),
    /// No answer within the request timeout.
    #[error("no answer to {} in time", .0.name())]
    TimedOut(Operation),
    /// No connection within the connect timeout.
    #[error("no connection in time")]
    ConnectTimedOut,
    /// What came is not the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Ended {
        Ended::Protocol(error.to_string())
    }
}

/// Why a call failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No server could be reached in time. The operator must act, or the address is wrong.
    #[error("cannot reach {servers}: {why}")]
    Unreachable {
        /// The addresses tried.
        servers: String,
        /// What the last attempt ended with.
        why: String,
    },
    /// The server said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended while the call was under way. What it asked for may or may not have been done.
    #[error("the connection to {server} was lost and it is unknown whether {operation} was done: {why}", operation = .operation.name())]
    OutcomeUnknown {
        /// The server's address.
        server: String,
        /// What was asked for.
        operation: Operation,
        /// How it was lost.
        why: Ended,
    },
    /// The server was reached but did not do it in time. It was not done.
    #[error("{} was not done in time: {why}", .operation.name())]
    TimedOut {
        /// What was asked for.
        operation: Operation,
        /// What the last attempt ended with.
        why: String,
    },
    /// The caller's argument cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Bytes from the server are not what they should be.
    #[error("partition {partition} holds a batch at offset {offset} that cannot be read: {error}")]
    Corrupt {
        /// The partition.
        partition: u32,
        /// Offset of the batch. [`seek`](crate::blocking::Consumer::seek) behind it to go on.
        offset: i64,
        /// What is wrong.
        error: corelog_batch::BatchError,
    },
}

/// Why a record was not taken by `send`. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// `buffer_bytes` are full and stayed so for `block_max`: the server is slower than the producer.
    #[error("the producer's buffer is full")]
    Full,
    /// The record cannot fit a batch of `batch_bytes_max`.
    #[error("a record that takes a batch of {size} bytes does not fit the {max} allowed")]
    TooLarge {
        /// Size of a batch with only this record, before compression.
        size: usize,
        /// The producer's bound.
        max: usize,
    },
    /// The topic has no such partition.
    #[error("partition {partition} does not exist: the topic has {partitions}")]
    UnknownPartition {
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A timestamp below -1.
    #[error("timestamp {0} is negative and not -1")]
    NegativeTimestamp(i64),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

/// Why records that `send` took were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The server said no. The records were not written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended, or the shard stopped, while the records were on their way: they may or may not be there.
    #[error("it is unknown whether the records were written: {0}")]
    OutcomeUnknown(String),
    /// A later batch of the partition was acknowledged while this one was refused, so that sending it again would change
    /// the order. The records were not written.
    #[error("the records were refused ({0}) and cannot be sent again without changing the order")]
    Overtaken(Refusal),
    /// `delivery_timeout` passed. The records were not written.
    #[error("the records were not written in time: {0}")]
    TimedOut(String),
    /// `send` did not take the record.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// The producer was closed before they could be sent. The records were not written.
    #[error("the producer was closed before the records were sent")]
    Closed,
}

impl ProduceError {
    /// Whether the records may be there nevertheless.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, ProduceError::OutcomeUnknown(_))
    }
}
