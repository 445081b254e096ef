//! The server of the native protocol at one shard.

use super::state::State;
use crate::transport::{self, Common, Ports, Server};
use corelog_engine::reactor::Listener;
use std::cell::Cell;
use std::rc::Rc;

/// What a server tells its clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address that clients reach this node by; empty lets them use the one they know.
    pub host: String,
    /// Ports of the node's shards.
    pub ports: Ports,
}

/// What connections that speak it share at a shard.
pub(super) struct Own {
    pub(super) host: String,
    pub(super) ports: Ports,
    /// Open partitions of all connections.
    pub(super) handles: Cell<usize>,
}

/// Serves connections that come in at any of the listeners.
pub fn serve(common: &Rc<Common>, listeners: Vec<Listener>, options: Options) -> Server {
    let Options { host, ports } = options;
    transport::serve::<State>(common, listeners, Own { host, ports, handles: Cell::new(0) })
}
