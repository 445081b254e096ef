//! What every client begins with.

use crate::cluster::{Address, Cluster};
use crate::error::ClientError;
use crate::options::ConnectOptions;
use crate::routes::Routes;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

/// The servers that the user named, unconnected, and a random number.
pub(crate) fn cluster(servers: &str, options: &ConnectOptions) -> Result<(Cluster, u64), ClientError> {
    let wrong = |server: &str| ClientError::Invalid(format!("{server:?} is not host:port"));
    let named = servers.split(',').map(|server| Address::parse(server).ok_or_else(|| wrong(server)));
    let seed = std::hash::RandomState::new().build_hasher().finish();
    Ok((Cluster::new(named.collect::<Result<_, _>>()?, options, seed, Instant::now()), seed))
}

/// The same, and a topic whose partitions are not known yet.
pub(crate) fn topic(
    servers: &str,
    topic: &str,
    options: &ConnectOptions,
) -> Result<(Cluster, Routes, u64), ClientError> {
    let (cluster, seed) = cluster(servers, options)?;
    Ok((cluster, Routes::new(topic, options.backoff, Instant::now()), seed))
}

pub(crate) fn unreachable(servers: &str, why: &str) -> ClientError {
    ClientError::Unreachable { servers: servers.to_owned(), why: why.to_owned() }
}
