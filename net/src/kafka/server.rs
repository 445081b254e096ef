//! The server of Kafka's protocol at one shard.

use super::state::State;
use crate::transport::{self, Common, Ports, Server};
use corelog_engine::metadata::Shown;
use corelog_engine::model::ShardId;
use corelog_engine::reactor::Listener;
use std::rc::Rc;
use std::sync::Arc;

/// Brokers are numbered so that every shard of every node has a number of its own: a node has at most so many shards.
const BROKERS_OF_A_NODE: u32 = 256;

/// What a server tells its clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address that clients reach this node by.
    pub host: String,
    /// The port of each shard of the node, where Kafka's protocol is spoken.
    pub ports: Ports,
    /// What the node was told.
    pub node: NodeSettings,
}

/// Settings of the node under Kafka's names, and what follows from some of them.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// A topic that is asked for comes into being, unless its client does not want that.
    pub creates_topics: bool,
    /// Partitions of a topic that is created without a number.
    pub partitions: u32,
    /// All of them, as they are described.
    pub shown: Arc<[Shown]>,
}

/// What connections that speak it share at a shard.
pub(super) struct Own {
    pub(super) host: String,
    pub(super) ports: Ports,
    pub(super) node: NodeSettings,
}

/// Serves connections that come in at any of the listeners.
pub fn serve(common: &Rc<Common>, listeners: Vec<Listener>, options: Options) -> Server {
    let Options { host, ports, node } = options;
    transport::serve::<State>(common, listeners, Own { host, ports, node })
}

/// What clients call a shard of a node.
pub(super) fn broker(node: u32, shard: ShardId) -> i32 {
    // Nodes are numbered from 1, and far below what this could not hold.
    i32::try_from(node.saturating_mul(BROKERS_OF_A_NODE).saturating_add(shard.0.into())).unwrap_or(i32::MAX)
}
