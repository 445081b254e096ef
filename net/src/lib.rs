//! Wire formats and connections: lowers dialects to the requests of the engine. Nothing below knows a dialect.
#![forbid(unsafe_code)]

pub mod admin;
pub mod kafka;
pub mod limits;
pub mod native;
pub mod transport;
