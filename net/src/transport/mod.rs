//! Connections, whatever is spoken on them.
//!
//! A connection has two tasks, whatever it asks for: one receives frames and has its [`Dialect`] begin what they ask for, one
//! takes outcomes from the session and sends. What they keep apart from memory, times and order is the dialect's.

mod connection;
mod dialect;
mod flow;
mod foreign;
mod inbox;
mod log;
mod outbox;
mod place;
mod rate;
mod server;
mod slots;
mod unpacking;

pub use server::{Common, Ports, Server};

pub(crate) use connection::Connection;
pub(crate) use dialect::{Compression, Dialect, Goodbye, Head, Looked};
pub(crate) use flow::{Flow, Phase};
pub(crate) use foreign::{KAFKA, NATIVE};
pub(crate) use inbox::Framing;
pub(crate) use outbox::{NoMemory, Outbox};
pub(crate) use place::{Place, Watch};
pub(crate) use server::{Shared, serve};
pub(crate) use slots::{Key, Slot, Slots};
