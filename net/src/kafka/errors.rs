//! What the engine refuses, as Kafka's errors: the one table.
//!
//! What a client may send again without a second copy in the log is `NOT_ENOUGH_REPLICAS`, by which every client knows that
//! nothing was appended. What may be in the log already is `REQUEST_TIMED_OUT`. `UNKNOWN_SERVER_ERROR` is never used: clients
//! send again what it answers.

use corelog_batch::BatchError;
use corelog_engine::error::{AppendError, ReadError};
use corelog_engine::group::GroupError;
use corelog_engine::metadata::MetadataError;
use corelog_engine::producer::SequenceError;
use corelog_engine::shard::CommandError;
use corelog_kafka::ErrorCode;

pub(super) fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Invalid(batch) => of_batch(batch),
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Busy | AppendError::StorageFull | AppendError::Reopening | AppendError::Producers => {
            ErrorCode::NotEnoughReplicas
        }
        AppendError::Sequence(SequenceError::OutOfOrder { .. }) => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::Sequence(SequenceError::OldEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Internal => ErrorCode::InvalidTopic,
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
        BatchError::TooLarge { .. } | BatchError::TooLargeRepacked { .. } => ErrorCode::MessageTooLarge,
        BatchError::WrongMagic { .. } => ErrorCode::UnsupportedForMessageFormat,
        BatchError::TimestampRange { .. } => ErrorCode::InvalidTimestamp,
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
        MetadataError::Name(_) | MetadataError::Collides { .. } | MetadataError::Internal { .. } => {
            ErrorCode::InvalidTopic
        }
        MetadataError::Setting(_) => ErrorCode::InvalidConfig,
        MetadataError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        MetadataError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
        MetadataError::PartitionCount { .. } | MetadataError::NodeFull { .. } | MetadataError::NotMore { .. } => {
            ErrorCode::InvalidPartitions
        }
    }
}

pub(super) fn of_group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidId => ErrorCode::InvalidGroupId,
        GroupError::NotFound => ErrorCode::GroupIdNotFound,
        GroupError::NotEmpty => ErrorCode::NonEmptyGroup,
        GroupError::Subscribed => ErrorCode::GroupSubscribedToTopic,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::Rebalancing => ErrorCode::RebalanceInProgress,
        GroupError::InvalidSession => ErrorCode::InvalidSessionTimeout,
        GroupError::Full => ErrorCode::GroupMaxSizeReached,
        GroupError::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        GroupError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        GroupError::FencedMember => ErrorCode::FencedMemberEpoch,
        GroupError::StaleMember => ErrorCode::StaleMemberEpoch,
        GroupError::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        GroupError::InvalidPattern => ErrorCode::InvalidRegularExpression,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::Unavailable => ErrorCode::CoordinatorNotAvailable,
    }
}

/// Why the topic of groups was not made. What can pass is tried again by every client.
pub(super) fn of_groups_command(error: &CommandError) -> ErrorCode {
    match error {
        CommandError::Refused(error) => of_metadata(error),
        CommandError::Log(_) | CommandError::Busy => ErrorCode::CoordinatorNotAvailable,
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
