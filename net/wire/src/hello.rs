//! The first exchange: what both sides speak. Its layout is the same in every version; later versions may add fields
//! behind those here, so what follows them is ignored.

use crate::codec::{DecodeError, Reader, Sink, Text, Wire, message};
use uuid::Uuid;

/// First bytes of the first body.
pub const MAGIC: [u8; 4] = *b"CLOG";

/// Lowest version this crate speaks.
pub const VERSION_MIN: u16 = 1;

/// Highest version this crate speaks.
pub const VERSION_MAX: u16 = 1;

/// Feature bits this crate knows. None is defined yet; the bits of both sides are combined with AND, so that a new
/// feature can be added without a new version.
pub const FEATURES: u64 = 0;

/// The magic as a field: decoding anything else fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Magic;

impl<'a> Wire<'a> for Magic {
    const MIN: usize = 4;
    fn put(&self, out: &mut impl Sink) {
        out.put(&MAGIC);
    }
    fn take(from: &mut Reader<'a>) -> Result<Magic, DecodeError> {
        let mut found = [0; 4];
        found.copy_from_slice(from.take("magic", 4)?);
        if found == MAGIC { Ok(Magic) } else { Err(DecodeError::Magic(found)) }
    }
}

message! {
    /// Opens a connection.
    pub struct Hello<'a> {
        /// "CLOG".
        pub magic: Magic,
        /// Lowest version the client speaks.
        pub version_min: u16,
        /// Highest version the client speaks.
        pub version_max: u16,
        /// Features the client knows.
        pub features: u64,
        /// Name and version of the client's program or library, for logs and counters.
        pub software: Text<'a>,
        /// What the user calls this client; may be empty.
        pub client_id: Text<'a>,
    }
}

message! {
    /// Accepts a connection and says what holds on it.
    pub struct Welcome<'a> {
        /// "CLOG".
        pub magic: Magic,
        /// The version agreed on: the highest both speak.
        pub version: u16,
        /// The shard this connection is served by.
        pub shard: u16,
        /// The features both know.
        pub features: u64,
        /// Longest body the server takes, bytes.
        pub body_bytes_max: u32,
        /// Requests that may be unanswered at once; past it the server stops reading.
        pub requests_max: u32,
        /// Bytes of unanswered produce bodies at once; past it the server stops reading.
        pub request_bytes_max: u32,
        /// Partitions that may be open at once.
        pub handles_max: u32,
        /// Subscriptions at once.
        pub subscriptions_max: u32,
        /// The server ends a connection that is silent for so long with nothing awaited, milliseconds.
        pub idle_timeout_ms: u32,
        /// The cluster.
        pub cluster_id: Uuid,
        /// The node.
        pub node: u32,
        /// Shards of the node.
        pub shards: u16,
        /// Name and version of the server's program.
        pub software: Text<'a>,
    }
}

impl Hello<'_> {
    /// The highest version in both ranges.
    pub fn version(&self) -> Option<u16> {
        let version = self.version_max.min(VERSION_MAX);
        (version >= self.version_min.max(VERSION_MIN)).then_some(version)
    }
}

/// Decodes a hello or a welcome: fields of later versions may follow.
pub(crate) fn decode_lenient<'a, T: Wire<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    T::take(&mut Reader::new(body))
}
