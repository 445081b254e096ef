//! The errors that responses carry.

macro_rules! error_codes {
    ($($(#[$about:meta])* $name:ident = $code:literal,)*) => {
        /// What a response says became of a request, or of a part of it. Clients know each by its number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode { $($(#[$about])* $name = $code,)* }

        impl ErrorCode {
            /// All that are used here.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];
        }
    };
}

error_codes! {
    /// It was done.
    None = 0,
    /// The offset is not in the log.
    OffsetOutOfRange = 1,
    /// The checksum of a batch is wrong, or it is no batch.
    CorruptMessage = 2,
    /// There is no such topic or partition.
    UnknownTopicOrPartition = 3,
    /// The partition lives elsewhere: fetch metadata.
    NotLeaderOrFollower = 6,
    /// What became of it is not known.
    RequestTimedOut = 7,
    /// The topic is being made: ask again.
    LeaderNotAvailable = 5,
    /// A batch is over the topic's `max.message.bytes`.
    MessageTooLarge = 10,
    /// The text that is to be kept with an offset is too long.
    OffsetMetadataTooLarge = 12,
    /// The coordinator cannot do it now: try again.
    CoordinatorNotAvailable = 15,
    /// Another broker coordinates the group: find it.
    NotCoordinator = 16,
    /// The topic's name breaks the rules.
    InvalidTopic = 17,
    /// The records were not appended, and may be sent again: a bound was reached, or the disk is full.
    NotEnoughReplicas = 19,
    /// An `acks` that there is not.
    InvalidRequiredAcks = 21,
    /// The generation is over.
    IllegalGeneration = 22,
    /// The members have no such protocol in common.
    InconsistentGroupProtocol = 23,
    /// A group needs a name.
    InvalidGroupId = 24,
    /// The group has no such member: join as a new one.
    UnknownMemberId = 25,
    /// A session's time is outside what is allowed.
    InvalidSessionTimeout = 26,
    /// The group's members are joining: join again.
    RebalanceInProgress = 27,
    /// A record's time is too far from the server's.
    InvalidTimestamp = 32,
    /// The version is not served.
    UnsupportedVersion = 35,
    /// There is a topic of this name.
    TopicAlreadyExists = 36,
    /// No topic can have so many partitions.
    InvalidPartitions = 37,
    /// There are no other nodes to have replicas.
    InvalidReplicationFactor = 38,
    /// Replicas cannot be placed so.
    InvalidReplicaAssignment = 39,
    /// A setting breaks the rules.
    InvalidConfig = 40,
    /// The controller cannot take it now: try again.
    NotController = 41,
    /// The request does not make sense.
    InvalidRequest = 42,
    /// Message sets of old versions are not taken.
    UnsupportedForMessageFormat = 43,
    /// Batches before this one of the same producer are missing, or it is too old to be recognised.
    OutOfOrderSequenceNumber = 45,
    /// The producer has begun another epoch since.
    InvalidProducerEpoch = 47,
    /// There are no transactions.
    TransactionalIdAuthorizationFailed = 53,
    /// The disk failed, or a partition is damaged.
    KafkaStorageError = 56,
    /// The group has members.
    NonEmptyGroup = 68,
    /// There is no such group.
    GroupIdNotFound = 69,
    /// The session is not known here: none is.
    FetchSessionIdNotFound = 70,
    /// It cannot be read now: try again.
    OffsetNotAvailable = 78,
    /// Join again with the member id that is told.
    MemberIdRequired = 79,
    /// The group has as many members as it may.
    GroupMaxSizeReached = 81,
    /// Another member has taken the instance's place.
    FencedInstanceId = 82,
    /// The group reads the topic.
    GroupSubscribedToTopic = 86,
    /// A batch does not hold what its header says.
    InvalidRecord = 87,
    /// There is no topic with this id.
    UnknownTopicId = 100,
    /// The member's epoch is not its own: give up what is read, and join again.
    FencedMemberEpoch = 110,
    /// Another member has the instance's name, and has not left.
    UnreleasedInstanceId = 111,
    /// There is no such assignor.
    UnsupportedAssignor = 112,
    /// The epoch of a commit is not its member's.
    StaleMemberEpoch = 113,
    /// The pattern of topics is no regular expression, or too large.
    InvalidRegularExpression = 128,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }
}
