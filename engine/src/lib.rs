//! The log and one core's state. Knows nothing of sockets' protocols or clusters.
#![deny(unsafe_code)]

pub mod data_dir;
pub mod error;
pub mod group;
pub mod limits;
pub mod log;
pub mod metadata;
pub mod model;
pub mod node;
pub mod planted;
pub mod producer;
pub mod reactor;
pub mod rlimits;
pub mod shard;
