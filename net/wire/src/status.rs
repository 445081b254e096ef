//! The one table of statuses. `docs/protocol.md` repeats it, and a test compares the two.

/// Whether and how the sender may repeat what got a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Repeating it unchanged gets the same answer.
    No,
    /// Nothing was done; repeat it after a pause.
    Yes,
    /// It may have been done; repeating it may do it twice.
    MayRepeat,
}

/// Who has to do something about a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Nobody: it passes by itself, or nothing is wrong.
    Nobody,
    /// The client's program breaks the protocol.
    Client,
    /// Whoever made the request: it asks for what cannot be.
    Caller,
    /// The operator of the server.
    Operator,
}

impl Retry {
    /// Its word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Retry::No => "no",
            Retry::Yes => "yes",
            Retry::MayRepeat => "may repeat",
        }
    }
}

impl Actor {
    /// Its word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Actor::Nobody => "nobody",
            Actor::Client => "client",
            Actor::Caller => "caller",
            Actor::Operator => "operator",
        }
    }
}

macro_rules! statuses {
    ($($name:ident = $code:literal $text:literal, $retry:ident, $actor:ident, $meaning:literal;)*) => {
        /// How a request ended. The hundreds are groups: 1 the protocol was broken, 2 the request cannot be met, 3 try
        /// again, 4 outcome unknown, 5 the server's trouble. A client that does not know a code goes by its group.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Status { $(#[doc = $meaning] $name = $code,)* }

        impl Status {
            /// All of them, in the order of their codes.
            pub const ALL: &[Status] = &[$(Status::$name,)*];

            /// The status with this code.
            pub fn from_code(code: u16) -> Option<Status> {
                match code {
                    $($code => Some(Status::$name),)*
                    _ => None,
                }
            }

            /// Its name in docs/protocol.md, logs and counters.
            pub fn name(self) -> &'static str {
                match self { $(Status::$name => $text,)* }
            }

            /// Whether the sender may repeat the request.
            pub fn retry(self) -> Retry {
                match self { $(Status::$name => Retry::$retry,)* }
            }

            /// Who must act.
            pub fn actor(self) -> Actor {
                match self { $(Status::$name => Actor::$actor,)* }
            }

            /// What it means, one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Status::$name => $meaning,)* }
            }
        }
    };
}

statuses! {
    Ok = 0 "ok", No, Nobody, "Done.";

    Malformed = 100 "malformed", No, Client, "The body is not a message of its operation; the connection ends.";
    FrameTooLarge = 101 "frame_too_large", No, Client, "The length is over the limit of this connection, which it carries; the connection ends.";
    UnknownOperation = 102 "unknown_operation", No, Client, "No operation of the version agreed on has this code.";
    UnexpectedOperation = 103 "unexpected_operation", No, Client, "The operation exists but not here: a second hello, a response or a push from a client; the connection ends.";
    UnsupportedVersion = 104 "unsupported_version", No, Caller, "Client and server share no version; the server's range is carried; the connection ends.";
    HelloRequired = 105 "hello_required", No, Client, "The first frame is no hello; the connection ends.";
    HelloTimeout = 106 "hello_timeout", Yes, Client, "No hello came in time; the connection ends.";
    IdleTimeout = 107 "idle_timeout", Yes, Client, "Nothing came from the client for too long, or a frame was not finished in time: send pings; the connection ends.";

    InvalidRequest = 200 "invalid_request", No, Caller, "A value in the request is outside what it may be; the message says which.";
    UnknownHandle = 201 "unknown_handle", No, Client, "The handle was never given out on this connection, was closed, or its partition is gone: open it again.";
    UnknownSubscription = 202 "unknown_subscription", No, Client, "The subscription does not exist on this connection, or has ended.";
    TooManyHandles = 203 "too_many_handles", No, Caller, "The connection has as many open partitions as it may; the limit is carried.";
    TooManySubscriptions = 204 "too_many_subscriptions", No, Caller, "The connection has as many subscriptions as it may; the limit is carried.";
    UnknownTopic = 210 "unknown_topic", No, Caller, "There is no such topic.";
    UnknownPartition = 211 "unknown_partition", No, Caller, "The topic has no such partition.";
    TopicExists = 212 "topic_exists", No, Caller, "A topic of this name exists already.";
    InvalidTopicName = 213 "invalid_topic_name", No, Caller, "The name breaks the rules: 1 to 249 of letters, digits, '.', '_' and '-', and neither '.' nor '..'.";
    InvalidConfig = 214 "invalid_config", No, Caller, "No setting has this name, or it cannot take this value.";
    InvalidPartitions = 215 "invalid_partitions", No, Caller, "The number of partitions is none, too large, or smaller than it was.";
    OffsetOutOfRange = 220 "offset_out_of_range", No, Caller, "The partition does not hold the offset; the range it holds is carried.";
    CorruptBatch = 230 "corrupt_batch", No, Client, "A batch does not match its checksum; nothing of the request was appended.";
    InvalidBatch = 231 "invalid_batch", No, Client, "A batch breaks the format or is of a kind a client may not write; nothing of the request was appended.";
    BatchTooLarge = 232 "batch_too_large", No, Caller, "A batch is over the topic's limit, which is carried; nothing of the request was appended.";
    OutOfOrderSequence = 233 "out_of_order_sequence", No, Client, "The batch's number does not continue what its producer sent, and is none of its newest; nothing was appended.";
    OldProducerEpoch = 234 "old_producer_epoch", No, Caller, "The batch's producer has begun another epoch since; nothing was appended.";

    Busy = 300 "busy", Yes, Nobody, "A bound of the server is reached; nothing was done.";
    StorageFull = 301 "storage_full", Yes, Operator, "The disk is full up to its reserve; reads and deletes go on; nothing was appended.";
    Reopening = 302 "reopening", Yes, Nobody, "The shard reads its journal after a failure or a start; nothing was done.";
    TimedOut = 303 "timed_out", Yes, Nobody, "It was not begun within its time; nothing was done.";
    ShuttingDown = 304 "shutting_down", Yes, Nobody, "The server stops; nothing was done.";

    OutcomeUnknown = 400 "outcome_unknown", MayRepeat, Nobody, "The shard stopped while the records were on their way: they may or may not be there.";

    Fenced = 500 "fenced", No, Operator, "The partition is damaged: it takes no records until it is repaired, and reads at or near the damage fail; the message says where.";
    StorageError = 501 "storage_error", Yes, Operator, "The disk failed a read.";
    Internal = 502 "internal", No, Operator, "The server met something it did not foresee; its log says more.";
}
