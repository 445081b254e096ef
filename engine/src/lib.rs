//! The log and one core's state. Knows nothing of sockets' protocols or clusters.
#![deny(unsafe_code)]

pub mod limits;
pub mod metadata;
pub mod log;
pub mod model;
pub mod reactor;
