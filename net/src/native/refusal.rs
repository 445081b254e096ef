//! What the engine refuses, in the protocol's words: the one place where errors become statuses.

use corelog_batch::BatchError;
use corelog_engine::error::{AppendError, ReadError};
use corelog_engine::metadata::{MetadataError, NameError};
use corelog_engine::producer::SequenceError;
use corelog_engine::shard::CommandError;
use corelog_wire::{DecodeError, Detail, Failure, FrameError, Status, Text};
use std::borrow::Cow;

/// Bytes of a message to people; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 512;
/// A pause worth making before another try when a bound was reached.
const RETRY_AFTER: Detail = Detail::RetryAfter { ms: 20 };

/// A status with what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    detail: Detail,
    message: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(status: Status, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, detail: Detail::None, message: message.into() }
    }

    pub(super) fn with(self, detail: Detail) -> Refusal {
        Refusal { detail, ..self }
    }

    pub(super) fn busy(message: &'static str) -> Refusal {
        Refusal::new(Status::Busy, message).with(RETRY_AFTER)
    }

    pub(super) fn limit(status: Status, message: &'static str, actual: usize, max: usize) -> Refusal {
        Refusal::new(status, message).with(Detail::Limit { actual: actual as u64, max: max as u64 })
    }

    pub(super) fn unknown_handle() -> Refusal {
        Refusal::new(Status::UnknownHandle, "no partition is open under this handle; open it again")
    }

    /// The body of the response.
    pub(super) fn body(&self) -> Failure<'_> {
        let end = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        Failure { detail: self.detail, message: Text::truncated(&self.message[..end]) }
    }

    fn told(status: Status, error: &impl ToString) -> Refusal {
        Refusal::new(status, error.to_string())
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        match &error {
            AppendError::Invalid(batch @ BatchError::CrcMismatch { .. }) => Refusal::told(Status::CorruptBatch, batch),
            AppendError::Invalid(BatchError::TooLarge { size, max }) | AppendError::TooLarge { size, max } => {
                let what = "a batch is over the lesser of the topic's max.message.bytes and segment.bytes";
                Refusal::limit(Status::BatchTooLarge, what, *size, *max)
            }
            AppendError::Invalid(batch @ BatchError::TooLargeRepacked { .. }) => {
                Refusal::told(Status::BatchTooLarge, batch)
            }
            AppendError::Invalid(batch) => Refusal::told(Status::InvalidBatch, batch),
            AppendError::Busy => Refusal::busy("the shard is at one of its bounds"),
            AppendError::StorageFull => Refusal::new(Status::StorageFull, "the disk is full up to its reserve"),
            AppendError::Reopening => {
                Refusal::new(Status::Reopening, "the shard reads its log again").with(RETRY_AFTER)
            }
            AppendError::Fenced(_) => Refusal::told(Status::Fenced, &error),
            AppendError::UnknownPartition => Refusal::unknown_handle(),
            AppendError::Internal => Refusal::told(Status::InvalidRequest, &error),
            AppendError::Sequence(SequenceError::OutOfOrder { .. }) => {
                Refusal::told(Status::OutOfOrderSequence, &error)
            }
            AppendError::Sequence(SequenceError::OldEpoch { .. }) => Refusal::told(Status::OldProducerEpoch, &error),
            AppendError::Producers => Refusal::busy("the shard remembers as many producers as it may"),
            AppendError::OutcomeUnknown => Refusal::told(Status::OutcomeUnknown, &error),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        match &error {
            ReadError::OutOfRange { first, next } => {
                Refusal::told(Status::OffsetOutOfRange, &error).with(Detail::Range { first: first.0, next: next.0 })
            }
            ReadError::UnknownPartition => Refusal::unknown_handle(),
            ReadError::Fenced(_) => Refusal::told(Status::Fenced, &error),
            ReadError::Busy => Refusal::busy("the shard is at one of its bounds for reads"),
            ReadError::Reopening => Refusal::new(Status::Reopening, "the shard reads its log again").with(RETRY_AFTER),
            ReadError::Io(_) => Refusal::told(Status::StorageError, &error),
        }
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Refusal {
        let status = match &error {
            MetadataError::Name(_) | MetadataError::Collides { .. } => Status::InvalidTopicName,
            MetadataError::Internal { .. } => Status::InvalidRequest,
            MetadataError::Setting(_) => Status::InvalidConfig,
            MetadataError::Exists { .. } => Status::TopicExists,
            MetadataError::Unknown { .. } => Status::UnknownTopic,
            MetadataError::PartitionCount { .. } | MetadataError::NodeFull { .. } | MetadataError::NotMore { .. } => {
                Status::InvalidPartitions
            }
        };
        Refusal::told(status, &error)
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Refusal {
        Refusal::told(Status::InvalidTopicName, &error)
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Refusal {
        match error {
            CommandError::Refused(error) => error.into(),
            // Which log it is: no partition of the caller's topics.
            CommandError::Log(AppendError::Fenced(_)) => Refusal::told(Status::Fenced, &error),
            CommandError::Log(error) => error.into(),
            CommandError::Busy => Refusal::busy("the controller is at one of its bounds"),
        }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Refusal {
        match &error {
            FrameError::TooLarge(frame) => Refusal::limit(
                Status::FrameTooLarge,
                "the frame's length is over the limit",
                frame.header.length as usize,
                frame.max as usize,
            ),
            FrameError::UnknownOperation(_) => Refusal::told(Status::UnknownOperation, &error),
            FrameError::Unexpected { .. } => Refusal::told(Status::UnexpectedOperation, &error),
            FrameError::Body { error: DecodeError::Magic(_), .. } | FrameError::Body { .. } => {
                Refusal::told(Status::Malformed, &error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::model::Offset;
    use corelog_wire::Retry;

    #[test]
    fn what_the_engine_calls_retriable_is_retriable_on_the_wire() {
        for (error, retry) in [
            (AppendError::Busy, Retry::Yes),
            (AppendError::StorageFull, Retry::Yes),
            (AppendError::Reopening, Retry::Yes),
            (AppendError::OutcomeUnknown, Retry::MayRepeat),
            (AppendError::Invalid(BatchError::Empty), Retry::No),
            (AppendError::TooLarge { size: 2, max: 1 }, Retry::No),
            (AppendError::Fenced("why".into()), Retry::No),
        ] {
            assert_eq!(Refusal::from(error.clone()).status.retry(), retry, "{error}");
        }
    }

    #[test]
    fn numbers_go_along() {
        let out_of_range = Refusal::from(ReadError::OutOfRange { first: Offset(3), next: Offset(9) });
        assert_eq!(out_of_range.body().detail, Detail::Range { first: 3, next: 9 });
        let too_large = Refusal::from(AppendError::Invalid(BatchError::TooLarge { size: 7, max: 5 }));
        assert_eq!(too_large.body().detail, Detail::Limit { actual: 7, max: 5 });
        assert_eq!(Refusal::busy("full").body().detail, Detail::RetryAfter { ms: 20 });
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let refusal = Refusal::new(Status::Internal, "ä".repeat(1000));
        assert_eq!(refusal.body().message.as_str().len(), MESSAGE_BYTES_MAX);
    }
}
