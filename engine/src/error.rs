//! What the engine refuses, typed by who must act: the caller, the operator, or whoever repairs a partition.

use crate::model::Offset;
use crate::producer::SequenceError;
use corelog_batch::BatchError;
use std::sync::Arc;

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The caller's bytes are not valid batches. Nothing was written.
    #[error("invalid batch: {0}")]
    Invalid(#[from] BatchError),
    /// A batch is over the lesser of the topic's `max.message.bytes` and `segment.bytes`. Nothing was written.
    #[error(
        "a batch of {size} bytes is over the {max} of the topic (the lesser of max.message.bytes and segment.bytes)"
    )]
    TooLarge {
        /// Bytes of the batch.
        size: usize,
        /// The topic's bound.
        max: usize,
    },
    /// A bound was reached (memory of the tails, journal, waiting appends). Nothing was written; try again.
    #[error("the shard is at one of its bounds; try again")]
    Busy,
    /// The disk's reserve is reached. Nothing was written; try again when the operator has freed space.
    #[error("the disk is full to its reserve; try again when space was freed")]
    StorageFull,
    /// The shard recovers from an I/O error. Nothing was written; try again.
    #[error("the shard recovers from an I/O error; try again")]
    Reopening,
    /// The partition is damaged and takes no writes until it is repaired. Nothing was written.
    #[error("the partition is fenced: {0}")]
    Fenced(Arc<str>),
    /// No such partition here (any more). Nothing was written.
    #[error("no such partition on this shard")]
    UnknownPartition,
    /// The topic is the node's own. Nothing was written.
    #[error("the topic is the node's own: clients do not write to it")]
    Internal,
    /// The batch's number is not the one that comes next of its producer. Nothing was written.
    #[error("{0}")]
    Sequence(#[from] SequenceError),
    /// The shard remembers as many producers as it may, and all of them have been at work lately. Nothing was written; try
    /// again.
    #[error("the shard remembers as many producers as it may; try again")]
    Producers,
    /// The shard stopped while the records were under way: they may or may not be in the log.
    #[error("the shard stopped with the records under way: they may or may not be in the log")]
    OutcomeUnknown,
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset out of range: the log holds {first} to {next} (the latter not included)")]
    OutOfRange {
        /// First offset of the log.
        first: Offset,
        /// The offset after the last that can be read.
        next: Offset,
    },
    /// No such partition here (any more).
    #[error("no such partition on this shard")]
    UnknownPartition,
    /// What is at this offset is damaged.
    #[error("the partition is fenced: {0}")]
    Fenced(Arc<str>),
    /// A bound was reached (memory for reads, reads under way); try again.
    #[error("the shard is at one of its bounds for reads; try again")]
    Busy,
    /// The shard recovers from an I/O error; try again.
    #[error("the shard recovers from an I/O error; try again")]
    Reopening,
    /// The disk failed the read; try again, and look at the disk.
    #[error("reading failed: {0}")]
    Io(Arc<str>),
}

/// Why a shard did not start, or stopped: for the operator, as one sentence that names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The system refused an operation on a file.
    #[error("{what} {path}: {error}")]
    Io {
        /// What was tried, as in "reading".
        what: &'static str,
        /// The file or directory.
        path: Arc<str>,
        /// The system's words.
        error: Arc<str>,
    },
    /// A file holds what no version of this program writes there.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: Arc<str>,
        /// What is wrong, and where in it.
        why: Arc<str>,
    },
    /// The data directory cannot be used, or what it says cannot be followed.
    #[error("{0}")]
    DataDir(Arc<str>),
    /// Memory for the shard's buffers is too small.
    #[error("--memory is too small: {0}")]
    Memory(&'static str),
}

impl ShardError {
    /// An I/O error at a path.
    pub fn io(what: &'static str, path: &std::path::Path, error: &std::io::Error) -> ShardError {
        ShardError::Io { what, path: path.display().to_string().into(), error: error.to_string().into() }
    }
}
