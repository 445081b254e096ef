//! Where a partition lives, and how to hear of what comes into it.

use super::connection::Connection;
use super::dialect::Dialect;
use super::slots::Key;
use corelog_engine::model::{Offset, PartitionId, ShardId};
use corelog_engine::shard::{PartitionHandle, RemoteWatch};

/// Where a partition lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this shard.
    Here(PartitionHandle),
    /// On another one: every request crosses.
    There(ShardId, PartitionId),
}

/// What tells a reader that there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    Here(PartitionHandle),
    There(ShardId, PartitionId, RemoteWatch),
}

impl Place {
    /// Has the session told, under the key's ticket, once there is a record at or after `from`. None if the partition is
    /// gone.
    pub(crate) fn watch<D: Dialect>(self, connection: &Connection<D>, from: Offset, key: Key) -> Option<Watch> {
        let (shard, session) = (connection.shard(), &connection.session);
        match self {
            Place::Here(handle) => shard.watch(handle, from, session, key.ticket()).ok().map(|()| Watch::Here(handle)),
            Place::There(owner, partition) => {
                let watch = shard.watch_remote(owner, partition, from, session, key.ticket());
                Some(Watch::There(owner, partition, watch))
            }
        }
    }
}

impl Watch {
    /// Takes it back.
    pub(crate) fn end<D: Dialect>(self, connection: &Connection<D>, key: Key) {
        match self {
            Watch::Here(handle) => drop(connection.shard().unwatch(handle, &connection.session, key.ticket())),
            Watch::There(owner, partition, watch) => connection.shard().unwatch_remote(owner, partition, watch),
        }
    }
}
