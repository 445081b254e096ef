//! The native protocol's server: `docs/protocol.md` is its description, `corelog-wire` its frames.
//!
//! [`serve`] runs the connections of one shard. A request is decoded where it arrived and handed to the engine at once;
//! outcomes come back through the connection's session and are sent in the order of their commits. Nothing here waits on
//! behalf of one request: waits are entries in slots, and a connection has two tasks, whatever it asks for.

mod dialect;
mod fetch;
mod partitions;
mod produce;
mod refusal;
mod server;
mod state;
mod stats;
mod subscribe;
mod topics;

pub use server::{Options, serve};
