//! The client for programs with threads.

mod admin;
mod consumer;
mod producer;
mod sockets;

pub use admin::Admin;
pub use consumer::Consumer;
pub use producer::Producer;
