//! A benchmark's own topic, and the connections that a load has to its partitions.

use super::connection::Connection;
use crate::error::{BenchError, Result};
use crate::load::Lane;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Where a topic is found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicName {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// The server's bootstrap address.
    pub(crate) address: SocketAddr,
}

/// A topic that is deleted when its run is over.
pub(crate) struct Topic(pub(crate) TopicName);

impl TopicName {
    /// The address of the shard that owns a partition.
    pub(crate) fn owner(&self, partition: u32) -> Result<SocketAddr> {
        let owners = Connection::open(self.address)?.owners(&self.name)?;
        let missing = || BenchError::Server(format!("the topic has no partition {partition}"));
        owners.get(partition as usize).copied().ok_or_else(missing)
    }

    /// Of `connections` connections to the shards that own the topic's partitions, which are spread over them, those of
    /// these numbers.
    pub(crate) fn lanes(&self, connections: usize, numbers: impl Iterator<Item = usize>) -> Result<Vec<Lane>> {
        let owners = Connection::open(self.address)?.owners(&self.name)?;
        // In a fixed order: several processes each make a part of the same connections.
        let mut by_shard: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
        for (partition, owner) in (0..self.partitions).zip(owners) {
            by_shard.entry(owner).or_default().push(partition);
        }
        if by_shard.len() > connections {
            return Err(BenchError::Usage("there are fewer producers than shards with partitions".into()));
        }
        let shards: Vec<(SocketAddr, Vec<u32>)> = by_shard.into_iter().collect();
        let lane = |number: usize| {
            let (address, partitions) = &shards[number % shards.len()];
            let of_this_shard = connections.div_ceil(shards.len());
            self.lane(*address, &share(partitions, number / shards.len(), of_this_shard))
        };
        numbers.map(lane).collect()
    }

    fn lane(&self, address: SocketAddr, partitions: &[u32]) -> Result<Lane> {
        let mut connection = Connection::open(address)?;
        let open = |partition: &u32| connection.open_partition(&self.name, *partition).map(|(handle, _)| handle);
        let handles = partitions.iter().map(open).collect::<Result<_>>()?;
        Ok(Lane { stream: connection.into_stream(), handles })
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // Where the server is gone, its directory goes too.
        let Topic(TopicName { name, address, .. }) = self;
        let _ = Connection::open(*address).and_then(|mut connection| connection.delete_topic(name));
    }
}

/// Which of a shard's partitions its `number`th of `count` connections serves: its share, or one, shared with others.
fn share(partitions: &[u32], number: usize, count: usize) -> Vec<u32> {
    if partitions.len() <= count {
        return vec![partitions[number % partitions.len()]];
    }
    partitions.iter().copied().skip(number).step_by(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_out_whole_and_once_where_there_are_enough() {
        let partitions: Vec<u32> = (0..10).collect();
        let mut given: Vec<u32> = (0..3).flat_map(|number| share(&partitions, number, 3)).collect();
        given.sort_unstable();
        assert_eq!(given, partitions);
        assert_eq!(share(&[4, 5], 3, 8), vec![5], "more connections than partitions: they share");
    }
}
