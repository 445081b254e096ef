//! The native protocol: frames and messages, bytes in and bytes out. `docs/protocol.md` describes it byte by byte.
//!
//! Pure: no sockets, no clock, no state. Decoding borrows from the frame and never allocates.
#![forbid(unsafe_code)]

mod any;
mod codec;
mod error;
mod header;
mod hello;
mod metadata;
mod partition;
mod record;
mod stats;
mod status;
mod topic;

pub use any::{FrameError, Message, Request, Response, decode_any};
pub use codec::{DecodeError, Fixed, List, Reader, Sink, TEXT_BYTES_MAX, Text, Wire};
pub use error::{Detail, Failure};
pub use header::{
    FLAG_RESPONSE, FLAG_SILENT, Frame, FrameTooLarge, HEADER_BYTES, HELLO_BODY_BYTES_MAX, Header, Operation,
};
pub use hello::{FEATURES, Hello, MAGIC, Magic, VERSION_MAX, VERSION_MIN, Welcome};
pub use metadata::{Endpoint, Metadata, MetadataRequest, Owner, Selection, TopicEntry};
pub use partition::{DeleteRecords, DeletedRecords, ListOffsets, ListedOffset, Open, Opened};
pub use record::{Batches, Credit, Fetch, Produced, RECORDS_BYTES, Records, Subscribe, Subscribed};
pub use stats::{Bucket, Count, ShardStats, StageTimes, StatsRequest};
pub use status::{Actor, Retry, Status};
pub use topic::{
    AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, PartitionState, Setting, SettingInForce, Topic, TopicFacts,
    TopicState,
};
