//! Memory of the shard's own: journal entries, checkpoints and recovery. Nothing that clients make the shard hold can take
//! it, so that what is acknowledged becomes durable however much of the pool they have.

use super::ShardConfig;
use crate::error::ShardError;
use crate::reactor::{Buffer, Pool, Reactor};
use std::time::Duration;

/// Recovery reads and writes pieces of 1 MiB.
const LEAST_BYTES: usize = 2 << 20;
/// A pause before another try. What is lent is written and given back within a write.
const PAUSE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct OwnMemory {
    reactor: Reactor,
    pool: Pool,
}

impl ShardConfig {
    /// Memory that a shard sets aside for itself: entries in flight, the one being gathered, and a checkpoint.
    pub fn own_bytes(&self) -> usize {
        let entries = (self.commits_in_flight + 2) * self.entry_bytes_max.next_power_of_two();
        entries.max(LEAST_BYTES).next_power_of_two()
    }
}

impl OwnMemory {
    pub(super) fn set_aside(reactor: &Reactor, config: &ShardConfig) -> Result<OwnMemory, ShardError> {
        let pool = reactor.pool().set_aside(config.own_bytes());
        let pool = pool.ok_or(ShardError::Memory("no room for journal entries and checkpoints"))?;
        Ok(OwnMemory { reactor: reactor.clone(), pool })
    }

    /// A buffer, if there is one now.
    pub(super) fn buffer(&self, len: usize) -> Option<Buffer> {
        self.pool.buffer(len)
    }

    /// A buffer, as soon as there is one. Whoever asks holds no other meanwhile, so that it comes.
    pub(super) async fn wait_buffer(&self, len: usize) -> Buffer {
        assert!(len <= LEAST_BYTES, "what is waited for can come");
        loop {
            if let Some(buffer) = self.buffer(len) {
                return buffer;
            }
            self.reactor.sleep(PAUSE).await;
        }
    }
}
