//! Kafka's wire protocol: bytes in, values out, and back. Nothing here knows a socket or a log.
//!
//! Requests and responses are those of the [protocol guide](https://kafka.apache.org/protocol). The hot path ([`produce`],
//! [`fetch`], [`api_versions`]) is parsed in place and copies no records. Everything else is `kafka-protocol`'s message types,
//! let in by [`messages`], which holds every declared length against the bytes left first.
#![forbid(unsafe_code)]

pub mod api;
pub mod api_versions;
#[cfg(any(feature = "client", test))]
pub mod calls;
pub mod codec;
mod error;
pub mod fetch;
pub mod header;
pub mod messages;
pub mod produce;
mod shape;
#[cfg(test)]
mod testing;

pub use error::ErrorCode;
