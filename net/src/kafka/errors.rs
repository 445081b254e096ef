//! What the engine refuses, as Kafka's errors: the one table.
//!
//! What a client may send again without a second copy in the log is `NOT_ENOUGH_REPLICAS`, by which every client knows that
//! nothing was appended. What may be in the log already is `REQUEST_TIMED_OUT`. `UNKNOWN_SERVER_ERROR` is never used: clients
//! send again what it answers.

use corelog_batch::BatchError;
use corelog_engine::error::{AppendError, ReadError};
use corelog_engine::metadata::MetadataError;
use corelog_engine::shard::CommandError;
use corelog_kafka::ErrorCode;

pub(super) fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Invalid(batch) => of_batch(batch),
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Busy | AppendError::StorageFull | AppendError::Reopening => ErrorCode::NotEnoughReplicas,
        AppendError::Fenced(_) => ErrorCode::KafkaStorageError,
        AppendError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        AppendError::OutcomeUnknown => ErrorCode::RequestTimedOut,
    }
}

pub(super) fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::CrcMismatch { .. } | BatchError::TooShort { .. } | BatchError::LengthLies { .. } => {
            ErrorCode::CorruptMessage
        }
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::WrongMagic { .. } => ErrorCode::UnsupportedForMessageFormat,
        _ => ErrorCode::InvalidRecord,
    }
}

pub(super) fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ReadError::Fenced(_) | ReadError::Io(_) => ErrorCode::KafkaStorageError,
        ReadError::Busy | ReadError::Reopening => ErrorCode::OffsetNotAvailable,
    }
}

pub(super) fn of_metadata(error: &MetadataError) -> ErrorCode {
    match error {
        MetadataError::Name(_) | MetadataError::Collides { .. } => ErrorCode::InvalidTopic,
        MetadataError::Setting(_) => ErrorCode::InvalidConfig,
        MetadataError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        MetadataError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
        MetadataError::PartitionCount { .. } | MetadataError::NodeFull { .. } | MetadataError::NotMore { .. } => {
            ErrorCode::InvalidPartitions
        }
    }
}

pub(super) fn of_command(error: &CommandError) -> ErrorCode {
    match error {
        CommandError::Refused(error) => of_metadata(error),
        CommandError::Log(AppendError::OutcomeUnknown) => ErrorCode::RequestTimedOut,
        CommandError::Log(AppendError::Fenced(_)) => ErrorCode::KafkaStorageError,
        CommandError::Log(_) | CommandError::Busy => ErrorCode::NotController,
    }
}
