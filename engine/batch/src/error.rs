//! Why bytes are not a batch that may be stored. Whoever made the bytes must act: none of these goes away by itself.

/// What is wrong with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the header does.
    #[error("{have} bytes are too few for a batch, whose header alone takes 61")]
    TooShort {
        /// Bytes given.
        have: usize,
    },
    /// The declared length is below the header's, above what is possible, or above the bytes that are there.
    #[error("the batch declares {declared} bytes after its length field, {have} are there")]
    LengthLies {
        /// The length field.
        declared: i32,
        /// Bytes after the length field.
        have: usize,
    },
    /// The batch is larger than the caller allows.
    #[error("the batch takes {size} bytes, more than the {max} allowed")]
    TooLarge {
        /// The batch's size with its header.
        size: usize,
        /// The limit in force.
        max: usize,
    },
    /// Another message format. Only magic 2 is stored.
    #[error("magic {found} is not supported, only record batches with magic 2 are")]
    WrongMagic {
        /// The magic byte.
        found: i8,
    },
    /// The bytes are not those the producer summed.
    #[error("checksum mismatch: the batch says {declared:#010x}, its bytes give {computed:#010x}")]
    CrcMismatch {
        /// CRC-32C in the header.
        declared: u32,
        /// CRC-32C of the bytes from the attributes on.
        computed: u32,
    },
    /// The low three attribute bits name no codec.
    #[error("unknown compression codec {code}")]
    UnknownCodec {
        /// The three bits.
        code: u8,
    },
    /// The batch is compressed and this build has no codecs.
    #[error("the batch is compressed with {codec}, which this build cannot read")]
    CodecNotBuilt {
        /// The codec's name.
        codec: &'static str,
    },
    /// An attribute bit is set that a producer may not set: log append time, delete horizon, or one with no meaning.
    #[error("attribute bits {bits:#06x} may not be set by a producer")]
    ForbiddenAttributes {
        /// The offending bits.
        bits: u16,
    },
    /// Control batches are written by servers only.
    #[error("a control batch was sent by a client")]
    ControlBatch,
    /// Transactions do not exist here yet.
    #[error("the batch is part of a transaction, and transactions are not supported")]
    Transactional,
    /// A producer id, epoch or sequence that no producer has.
    #[error("producer id {producer_id} with epoch {epoch} and sequence {sequence} cannot be")]
    ProducerId {
        /// The id.
        producer_id: i64,
        /// The producer's epoch.
        epoch: i16,
        /// The number of the first record.
        sequence: i32,
    },
    /// Batches with a producer id are judged one by one: a request has one for a partition.
    #[error("a batch with a producer id is to come alone")]
    NotAlone,
    /// A record without a key, for a topic in which only keyed ones mean something.
    #[error("record {index} has no key, and of this topic's records the last one of each key stays")]
    NoKey {
        /// The record's place, from 0.
        index: u32,
    },
    /// A batch without records has nothing to acknowledge.
    #[error("the batch is empty")]
    Empty,
    /// The record count is negative.
    #[error("the record count is {count}")]
    NegativeCount {
        /// The count.
        count: i32,
    },
    /// The two ways to tell the number of records disagree.
    #[error("the record count is {count} but the last offset delta is {last_offset_delta}")]
    CountLies {
        /// The count.
        count: i32,
        /// The delta of the last record, which should be the count less one.
        last_offset_delta: i32,
    },
    /// A record's offset delta is not its place in the batch.
    #[error("record {index} has offset delta {delta}")]
    OffsetDelta {
        /// The record's place, from 0.
        index: u32,
        /// Its offset delta.
        delta: i32,
    },
    /// A record's own length, or one inside it, does not fit what is there.
    #[error("a length in record {index} lies")]
    RecordLies {
        /// The record's place, from 0.
        index: u32,
    },
    /// Bytes are left over behind the last record or behind the batch.
    #[error("{bytes} bytes are left behind the last record")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A timestamp below -1. Only -1 (none) may be negative.
    #[error("timestamp {timestamp} is negative and not -1")]
    NegativeTimestamp {
        /// The timestamp, milliseconds since 1970-01-01 UTC.
        timestamp: i64,
    },
    /// A record is later than the header's maximum, so that a search by time would miss it.
    #[error("the header's max timestamp is {declared} but a record has {found}")]
    MaxTimestampLies {
        /// The header's.
        declared: i64,
        /// The record's.
        found: i64,
    },
    /// A record's time is too far from the server's for its topic.
    #[error("timestamp {found} is not from {least} to {most}, as the topic asks")]
    TimestampRange {
        /// The record's, milliseconds since 1970-01-01 UTC.
        found: i64,
        /// The earliest that would be taken.
        least: i64,
        /// The latest.
        most: i64,
    },
    /// The compressed records do not decompress, or it would take a larger window or block than is allowed.
    #[error("the {codec} data does not decompress, or only with more memory than is allowed for it")]
    Compression {
        /// The codec's name.
        codec: &'static str,
    },
    /// In the codec that its topic asks for, the batch takes more than is allowed.
    #[error("compressed anew ({codec}) the batch takes more than the {max} bytes allowed")]
    TooLargeRepacked {
        /// The codec's name.
        codec: &'static str,
        /// The bound.
        max: usize,
    },
    /// An LZ4 frame whose blocks depend on one another: Kafka's own client cannot read past it.
    #[error("the blocks of the lz4 frame depend on one another: Kafka's readers take independent ones only")]
    Lz4Linked,
    /// The compressed records take more bytes than they unpack to.
    #[error("the {codec} data are padded: they take more than twice the bytes that they unpack to")]
    Padded {
        /// The codec's name.
        codec: &'static str,
    },
    /// The compressed records grow beyond the caller's bound.
    #[error("the records take more than {max} bytes once decompressed")]
    Bomb {
        /// The bound.
        max: usize,
    },
}
