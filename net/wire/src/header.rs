//! The frame: a header of 16 bytes, then a body.

use crate::codec::{Fixed, Sink, Wire};
use thiserror::Error;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

/// Longest body of the first frame, the hello: with its header it fills the 16 KiB that a connection may hold before the
/// hello is accepted.
pub const HELLO_BODY_BYTES_MAX: u32 = 16 * 1024 - HEADER_BYTES as u32;

/// Set in every frame that the server sends.
pub const FLAG_RESPONSE: u8 = 1 << 0;

/// In a produce: answer only if it fails.
pub const FLAG_SILENT: u8 = 1 << 1;

/// What stands before every body, little endian: length u32, correlation u32, operation u8, flags u8, status u16,
/// handle u32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub length: u32,
    /// Chosen by the client; the response carries it back. Pushes carry that of their subscribe.
    pub correlation: u32,
    /// Which [`Operation`]; kept as it came, so that an unknown one can be answered.
    pub operation: u8,
    /// [`FLAG_RESPONSE`], [`FLAG_SILENT`].
    pub flags: u8,
    /// 0, or in a response the code of a [`Status`](crate::Status).
    pub status: u16,
    /// An open partition or a subscription, by operation; else 0.
    pub handle: u32,
}

impl Header {
    /// Reads a header. Every 16 bytes are one; what they say is checked by who knows the limits.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
        let [l0, l1, l2, l3, c0, c1, c2, c3, operation, flags, s0, s1, h0, h1, h2, h3] = *bytes;
        Header {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            correlation: u32::from_le_bytes([c0, c1, c2, c3]),
            operation,
            flags,
            status: u16::from_le_bytes([s0, s1]),
            handle: u32::from_le_bytes([h0, h1, h2, h3]),
        }
    }

    /// The 16 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.correlation.to_le_bytes());
        bytes[8] = self.operation;
        bytes[9] = self.flags;
        bytes[10..12].copy_from_slice(&self.status.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.handle.to_le_bytes());
        bytes
    }

    /// The header of a request.
    pub fn request(operation: Operation, correlation: u32, handle: u32) -> Header {
        Header { length: 0, correlation, operation: operation as u8, flags: 0, status: 0, handle }
    }

    /// The header of a successful response to this request.
    pub fn response(&self) -> Header {
        Header { length: 0, flags: FLAG_RESPONSE, status: 0, ..*self }
    }

    /// The same with another handle.
    pub fn with_handle(self, handle: u32) -> Header {
        Header { handle, ..self }
    }

    /// Whether the server sent it.
    pub fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// Header and body; `length` is filled in. `extra` counts bytes that the caller sends right behind, as part of the
    /// same body: record batches, which are not copied into `out`.
    pub fn put<'a>(&self, body: &impl Wire<'a>, extra: usize, out: &mut impl Sink) {
        let length = u32::try_from(body.size() + extra).unwrap_or(u32::MAX);
        assert!(length < u32::MAX, "a body of 4 GiB fits into no frame");
        out.put(&Header { length, ..*self }.to_bytes());
        body.put(out);
    }

    /// [`Header::put`] into a buffer on the stack, for messages of known size: `N` is 16 and the body's bytes.
    pub fn to_fixed<'a, const N: usize>(&self, body: &impl Wire<'a>, extra: usize) -> Fixed<N> {
        let mut out = Fixed::new();
        self.put(body, extra, &mut out);
        out
    }
}

/// A whole frame in somebody's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body, `header.length` bytes.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`, or `None` while it is not all there. A length over `body_bytes_max` is refused
    /// as soon as the header is known, before a byte of the body is waited for or room made for it.
    pub fn first(bytes: &'a [u8], body_bytes_max: u32) -> Result<Option<Frame<'a>>, FrameTooLarge> {
        let Some((header, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let header = Header::parse(header);
        if header.length > body_bytes_max {
            return Err(FrameTooLarge { header, max: body_bytes_max });
        }
        Ok(rest.get(..header.length as usize).map(|body| Frame { header, body }))
    }

    /// Bytes of header and body.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// A header that announces more than is allowed. Nothing behind it can be trusted to be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a body of {} bytes is over the limit of {max}", header.length)]
pub struct FrameTooLarge {
    /// The header as it came.
    pub header: Header,
    /// The limit, bytes of a body.
    pub max: u32,
}

macro_rules! operations {
    ($($(#[$about:meta])* $name:ident = $code:literal $text:literal,)*) => {
        /// What a frame asks for, or answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Operation { $($(#[$about])* $name = $code,)* }

        impl Operation {
            /// All of them, in the order of their codes.
            pub const ALL: &[Operation] = &[$(Operation::$name,)*];

            /// The operation with this code.
            pub fn from_code(code: u8) -> Option<Operation> {
                match code {
                    $($code => Some(Operation::$name),)*
                    _ => None,
                }
            }

            /// Its name in docs/protocol.md, logs and counters.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$name => $text,)* }
            }
        }
    };
}

operations! {
    /// First frame of a connection: version, features.
    Hello = 1 "hello",
    /// Answered at once; keeps an idle connection open.
    Ping = 2 "ping",
    /// Who serves which partition at which address.
    Metadata = 3 "metadata",
    /// From the server: why the connection ends.
    Goodbye = 4 "goodbye",
    /// What a shard has counted.
    Stats = 5 "stats",
    /// Creates a topic.
    CreateTopic = 16 "create_topic",
    /// Deletes a topic.
    DeleteTopic = 17 "delete_topic",
    /// Changes settings, adds partitions.
    AlterTopic = 18 "alter_topic",
    /// Settings and state of a topic.
    DescribeTopic = 19 "describe_topic",
    /// Turns topic and partition into a handle.
    Open = 32 "open",
    /// Gives a handle back.
    Close = 33 "close",
    /// Appends record batches.
    Produce = 34 "produce",
    /// Reads record batches, waiting for them if asked to.
    Fetch = 35 "fetch",
    /// Offset by end or by time.
    ListOffsets = 36 "list_offsets",
    /// Moves the first offset forward.
    DeleteRecords = 37 "delete_records",
    /// Starts pushes of a partition.
    Subscribe = 48 "subscribe",
    /// Allows more bytes to be pushed.
    Credit = 49 "credit",
    /// Ends pushes.
    Unsubscribe = 50 "unsubscribe",
    /// From the server: record batches of a subscription, or why it ended.
    Push = 51 "push",
}
