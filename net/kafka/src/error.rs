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
    /// A batch is over the topic's `max.message.bytes`.
    MessageTooLarge = 10,
    /// The topic's name breaks the rules.
    InvalidTopic = 17,
    /// The records were not appended, and may be sent again: a bound was reached, or the disk is full.
    NotEnoughReplicas = 19,
    /// An `acks` that there is not.
    InvalidRequiredAcks = 21,
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
    /// The disk failed, or a partition is damaged.
    KafkaStorageError = 56,
    /// The session is not known here: none is.
    FetchSessionIdNotFound = 70,
    /// It cannot be read now: try again.
    OffsetNotAvailable = 78,
    /// A batch does not hold what its header says.
    InvalidRecord = 87,
    /// There is no topic with this id.
    UnknownTopicId = 100,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }
}
