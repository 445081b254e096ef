//! The server of Kafka's protocol at one shard.

use super::state::State;
use crate::transport::{self, Common, Ports, Server};
use corelog_engine::model::ShardId;
use corelog_engine::reactor::Listener;
use std::rc::Rc;

/// Brokers are numbered so that every shard of every node has a number of its own: a node has at most so many shards.
const BROKERS_OF_A_NODE: u32 = 256;

/// What a server tells its clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address that clients reach this node by.
    pub host: String,
    /// The port of each shard of the node, where Kafka's protocol is spoken.
    pub ports: Ports,
}

/// What connections that speak it share at a shard.
pub(super) struct Own {
    pub(super) host: String,
    pub(super) ports: Ports,
}

/// Serves connections that come in at any of the listeners.
pub fn serve(common: &Rc<Common>, listeners: Vec<Listener>, options: Options) -> Server {
    let Options { host, ports } = options;
    transport::serve::<State>(common, listeners, Own { host, ports })
}

/// What clients call a shard of a node.
pub(super) fn broker(node: u32, shard: ShardId) -> i32 {
    // Nodes are numbered from 1, and far below what this could not hold.
    i32::try_from(node.saturating_mul(BROKERS_OF_A_NODE).saturating_add(shard.0.into())).unwrap_or(i32::MAX)
}
