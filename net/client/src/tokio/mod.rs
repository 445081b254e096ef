//! The client for asynchronous programs on tokio. What it promises is what [`blocking`](crate::blocking) promises.

mod admin;
mod consumer;
mod producer;
mod sockets;

pub use admin::Admin;
pub use consumer::Consumer;
pub use producer::Producer;
