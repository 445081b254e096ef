//! Consumer groups: who is in one, what each reads, and how far they have come.
//!
//! Pure: no I/O, no clock. The shard that coordinates a group tells it what came and what time it is, and does what comes of
//! that: answers, and records for the log of groups.

mod bytes;
pub mod classic;
pub mod consumer;
pub mod records;

/// Why a group refuses something. Names and meanings are those of Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No group can have this name.
    #[error("a group needs a name")]
    InvalidId,
    /// There is no such group.
    #[error("there is no such group")]
    NotFound,
    /// The group has members, so that it cannot be deleted, or its offsets be set from outside.
    #[error("the group has members")]
    NotEmpty,
    /// The group reads the topic.
    #[error("the group reads the topic")]
    Subscribed,
    /// No such member: it is to join again, as a new one.
    #[error("the group has no such member")]
    UnknownMember,
    /// Join again with the id that is told.
    #[error("join again with the member id that was given out")]
    MemberIdRequired,
    /// Another member has taken this instance's place.
    #[error("another member has taken the instance's place")]
    FencedInstance,
    /// The member speaks of a generation that is over.
    #[error("the generation is over")]
    IllegalGeneration,
    /// The members have no protocol in common with this one.
    #[error("the group's members do not have this protocol in common")]
    InconsistentProtocol,
    /// The members are joining: join again.
    #[error("the group rebalances: join again")]
    Rebalancing,
    /// A session's time outside what is allowed.
    #[error("the session's time is outside what is allowed")]
    InvalidSession,
    /// The group has as many members as it may.
    #[error("the group has as many members as it may")]
    Full,
    /// What is to be kept with an offset is too long.
    #[error("the text kept with an offset is too long")]
    MetadataTooLarge,
    /// There is no such partition.
    #[error("there is no such topic or partition")]
    UnknownPartition,
    /// Another shard coordinates the group, or none yet.
    #[error("another shard coordinates the group")]
    NotCoordinator,
    /// A request that makes no sense.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The member speaks of an epoch that is not its own: it is to give up what it reads, and to join again.
    #[error("the member's epoch is not its own; it is to join again")]
    FencedMember,
    /// The epoch of a commit is not its member's.
    #[error("the epoch is not the member's")]
    StaleMember,
    /// Another member has the instance's name, and has not left.
    #[error("another member has the instance's name")]
    UnreleasedInstance,
    /// Partitions cannot be assigned so.
    #[error("there is no such assignor: they are range and uniform")]
    UnsupportedAssignor,
    /// A pattern of topics that is none, or too large.
    #[error("the pattern of topics is no regular expression, or too large")]
    InvalidPattern,
    /// The shard cannot say now: try again.
    #[error("the coordinator cannot do it now; try again")]
    Unavailable,
}
