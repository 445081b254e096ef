//! What can be chosen, with its default.

use corelog_batch::Codec;
use std::time::Duration;

/// How connections are made and kept; part of every other options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// What the user calls this client, for the server's logs; may be empty, which is the default.
    pub client_id: String,
    /// How long a connection may take to be made and welcomed. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a request may stay unanswered (beyond the wait it asks for) before its connection is given up.
    /// Default 30 s.
    pub request_timeout: Duration,
    /// First pause before another attempt; doubles up to `backoff_max`. Default 50 ms.
    pub backoff: Duration,
    /// Longest pause between attempts. Default 1 s.
    pub backoff_max: Duration,
    /// Longest frame taken from a server, bytes of its body. Default 64 MiB.
    pub frame_bytes_max: u32,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            client_id: String::new(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            frame_bytes_max: 64 << 20,
        }
    }
}

/// What to do with records whose fate is unknown: their connection was lost, or their shard stopped, while they were on
/// their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryUnknown {
    /// Report them as [`OutcomeUnknown`](crate::ProduceError::OutcomeUnknown) and go on with what follows: no record is
    /// written twice, some that were reported so may be missing.
    #[default]
    AtMostOnce,
    /// Send them again, in order: none is missing, some may be there twice. A repetition begins at the first record
    /// whose fate is unknown, so that after `a b c` may come `b c d`, never `a c b`.
    AtLeastOnce,
    /// Number batches, so that the server recognises what it has, and send them again, in order: none is missing, none is
    /// there twice, also over kills of the server. At most 5 batches of a partition are on their way at once. What the server
    /// knows of a producer goes a day after its last batch (`producer-expiration`).
    ExactlyOnce,
}

/// How a [`Producer`](crate::blocking::Producer) works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Connections.
    pub connect: ConnectOptions,
    /// A batch is sent when it has grown to this size, bytes before compression. A larger record gets a batch of its own.
    /// Default 64 KiB.
    pub batch_bytes: usize,
    /// Largest batch, and so largest record, bytes before compression: at most the topic's `max.message.bytes`.
    /// Default 1 MiB.
    pub batch_bytes_max: usize,
    /// How long a batch may wait for more records. With zero, the default, it is sent as soon as `inflight` allows, and
    /// batches grow by themselves when the server is the slower one.
    pub linger: Duration,
    /// How batches are compressed. Default none.
    pub compression: Codec,
    /// Batches of one partition that may be on their way at once; order is kept. Default 16; at most 5 with
    /// [`RetryUnknown::ExactlyOnce`].
    pub inflight: usize,
    /// Bytes of records that may wait or be on their way, over all partitions. `send` waits when they are used up.
    /// Default 32 MiB. Encoded requests on their way to the socket take up to 1 MiB a connection beside that.
    pub buffer_bytes: usize,
    /// How long `send` waits for room. Default 60 s.
    pub block_max: Duration,
    /// How long a record may wait for its acknowledgement, retries included, while no other one of its partition is
    /// acknowledged. Default 120 s.
    pub delivery_timeout: Duration,
    /// What to do with records whose fate is unknown.
    pub retry_unknown: RetryUnknown,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            connect: ConnectOptions::default(),
            batch_bytes: 64 << 10,
            batch_bytes_max: 1 << 20,
            linger: Duration::ZERO,
            compression: Codec::None,
            inflight: 16,
            buffer_bytes: 32 << 20,
            block_max: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            retry_unknown: RetryUnknown::default(),
        }
    }
}

/// Where a consumer begins in each of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first record that is held.
    #[default]
    Beginning,
    /// With the next record to come.
    End,
    /// With this offset.
    Offset(i64),
    /// With the first record at or after this time, milliseconds since 1970-01-01 UTC; at the end if there is none.
    Timestamp(i64),
}

/// How records come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The server pushes as long as it has credit: no request per batch, lowest latency at the tail.
    #[default]
    Push,
    /// The client fetches and the server waits with its answer for records to come.
    Pull,
}

/// What to do when the next offset is not held any more, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// `poll` fails with the server's refusal, which carries the range; [`seek`](crate::blocking::Consumer::seek) goes on.
    #[default]
    Fail,
    /// Go on with the first record held.
    Beginning,
    /// Go on with the next record to come.
    End,
}

/// How a [`Consumer`](crate::blocking::Consumer) works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Connections.
    pub connect: ConnectOptions,
    /// Which partitions; None, the default, is all of them.
    pub partitions: Option<Vec<u32>>,
    /// Where to begin.
    pub start: Start,
    /// How records come.
    pub mode: Mode,
    /// What to do when an offset is not held.
    pub out_of_range: OutOfRange,
    /// Most bytes of batches in one answer or push; a larger batch comes alone. Default 1 MiB.
    pub fetch_bytes: u32,
    /// When pulling: the server waits until it has so many bytes. Default 1.
    pub fetch_bytes_min: u32,
    /// When pulling: the server waits no longer than this. Default 500 ms.
    pub fetch_wait: Duration,
    /// Bytes of batches that may be asked for or wait to be polled, over all partitions. A partition is always allowed
    /// one answer. Default 32 MiB.
    pub buffer_bytes: usize,
    /// Most bytes that one batch may take once decompressed. Default 128 MiB.
    pub decompressed_bytes_max: usize,
    /// Whether checksums are verified. Default true.
    pub check_crc: bool,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            connect: ConnectOptions::default(),
            partitions: None,
            start: Start::default(),
            mode: Mode::default(),
            out_of_range: OutOfRange::default(),
            fetch_bytes: 1 << 20,
            fetch_bytes_min: 1,
            fetch_wait: Duration::from_millis(500),
            buffer_bytes: 32 << 20,
            decompressed_bytes_max: 128 << 20,
            check_crc: true,
        }
    }
}
