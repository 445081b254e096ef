//! The benchmarks, one a file.

pub(crate) mod all;
pub(crate) mod bars;
pub(crate) mod checkpoint;
pub(crate) mod consume;
pub(crate) mod e2e;
pub(crate) mod partitions;
pub(crate) mod produce;
pub(crate) mod reactors;
pub(crate) mod recovery;
mod shard;
pub(crate) mod zerocopy;
