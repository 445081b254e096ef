//! What a dialect is to the connections that speak it.

use super::connection::Connection;
use super::flow::Flow;
use super::inbox::Framing;
use super::server::Shared;
use crate::limits::Limits;
use corelog_batch::Codec;
use corelog_engine::error::AppendError;
use corelog_engine::metadata::TopicSettings;
use std::rc::Rc;

/// The first bytes of a frame, [`Framing::HEADER_BYTES`] of them and zeros.
pub(crate) type Head = [u8; 16];

/// Why a connection is ended that did nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// It did not say in time who it is.
    Unknown,
    /// Nothing came for too long.
    Idle,
    /// A frame was begun and not finished in time.
    Unfinished,
    /// The server stops.
    Stopping,
}

/// How the batches of a section are to be compressed, because its topic says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compression {
    pub(crate) codec: Codec,
    /// Bytes that each may take.
    pub(crate) batch_bytes_max: usize,
}

impl Compression {
    pub(crate) fn of(settings: &TopicSettings) -> Option<Compression> {
        let batch_bytes_max = settings.batch_bytes_max() as usize;
        settings.compression.map(|codec| Compression { codec, batch_bytes_max })
    }
}

/// What a look inside a section of a frame brought, where it does not stay as it came.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Which of [`Dialect::sections`].
    pub(crate) section: usize,
    /// Its batches, compressed as their topic asks; or why they cannot be appended.
    pub(crate) found: Result<Vec<u8>, AppendError>,
}

/// What one connection knows: what was asked for and is not answered, in the words of its protocol. Nothing here waits.
pub(crate) trait Dialect: Framing + Sized + 'static {
    /// What all connections of a shard share, beside what those of all dialects do.
    type Shared: 'static;

    /// What it is called where people read it.
    const NAME: &str;

    fn new(shared: &Rc<Shared<Self>>) -> Self;

    fn flow(&self) -> &Flow;

    fn flow_mut(&mut self) -> &mut Flow;

    /// Bytes that the next frame may have.
    fn frame_bytes_max(&self, limits: &Limits) -> usize;

    /// Whether the frame that begins so has records to append.
    fn is_produce(first: &[u8]) -> bool;

    /// The record batches that a produce has, a section for each partition.
    fn sections(frame: &[u8]) -> impl Iterator<Item = &[u8]>;

    /// For each of the sections how its topic says that batches are to be compressed. Asked only where some topic does.
    fn compressions(&mut self, connection: &Connection<Self>, frame: &[u8]) -> Vec<Option<Compression>>;

    /// Whether the frame may begin now. If not, the connection is not read from until there is room.
    fn admits(&mut self, connection: &Connection<Self>, frame: &[u8]) -> bool;

    /// Whether a produce has somewhere to go, so that a look inside its batches is worth it.
    fn may_produce(&mut self, frame: &[u8]) -> bool;

    /// Begins what a frame asks for, with what was found of its sections.
    fn take(&mut self, connection: &Rc<Connection<Self>>, frame: &[u8], looked: &[Looked]);

    /// A frame came that there was no memory for.
    fn skipped(&mut self, connection: &Connection<Self>, head: &Head);

    /// What came is no frame, or a larger one than is allowed. The connection ends.
    fn too_large(&mut self, connection: &Connection<Self>, head: &Head);

    /// The connection is to end in order.
    fn say_goodbye(&mut self, connection: &Connection<Self>, why: Goodbye);

    /// What the sending task does between sends: takes outcomes, ends waits, lets readers go on.
    fn work(&mut self, connection: &Rc<Connection<Self>>);

    /// Whether readers can go on.
    fn has_readers(&self) -> bool;

    /// Takes no more requests; waits end.
    fn drain(&mut self, connection: &Connection<Self>);

    /// Gives back what others hold for this connection.
    fn close(&mut self, connection: &Connection<Self>);

    /// Gives back memory of readers that pause; of a client that takes nothing, what was read ahead for it.
    fn tidy(&mut self, is_stalled: bool);
}
