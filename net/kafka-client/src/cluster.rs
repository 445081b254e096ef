//! The brokers of a cluster, and which of them to ask what.

use crate::connection::Connection;
use crate::error::{AGAIN, KafkaError, check};
use corelog_kafka::calls::Call;
use corelog_kafka::messages::{
    FindCoordinatorRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest,
    MetadataRequestTopic, StrBytes, TopicName,
};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// As long as that is done.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// A partition of a topic.
pub type Partition = (String, i32);

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The first record.
    Beginning,
    /// Behind the last one.
    End,
    /// The first record at or behind a time, in milliseconds since 1970-01-01 UTC; the end if there is none.
    Time(i64),
}

impl Bound {
    /// Kafka's number for it.
    fn code(self) -> i64 {
        match self {
            Bound::Beginning => -2,
            Bound::End => -1,
            Bound::Time(time) => time,
        }
    }
}

/// A cluster by the address of any broker of it.
#[derive(Debug)]
pub(crate) struct Cluster {
    client_id: String,
    bootstrap: String,
    connections: BTreeMap<String, Connection>,
}

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Addresses of brokers, by their numbers.
    pub(crate) brokers: BTreeMap<i32, String>,
    /// Who leads each partition; nobody is -1.
    pub(crate) leaders: BTreeMap<Partition, i32>,
}

impl Cluster {
    /// Connects to the first address of a list, with commas between them, that answers.
    pub(crate) fn connect(bootstrap: &str, client_id: &str) -> Result<Cluster, KafkaError> {
        let mut cluster =
            Cluster { client_id: client_id.to_owned(), bootstrap: bootstrap.to_owned(), connections: BTreeMap::new() };
        let mut last = KafkaError::Invalid("no address of a broker is given".to_owned());
        for address in bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            address.clone_into(&mut cluster.bootstrap);
            match cluster.known(Some(&[])) {
                Ok(_) => return Ok(cluster),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks the broker at an address.
    pub(crate) fn ask<C: Call>(&mut self, address: &str, call: &C) -> Result<C::Response, KafkaError> {
        let connection = match self.connections.entry(address.to_owned()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(Connection::open(address)?),
        };
        let answer = connection.call(&self.client_id, call);
        if answer.is_err() {
            self.connections.remove(address);
        }
        answer
    }

    /// The brokers, and who leads the partitions of these topics, or of all. Topics that there are not are left out.
    pub(crate) fn known(&mut self, topics: Option<&[String]>) -> Result<Known, KafkaError> {
        let named = |name: &String| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false);
        let answer = self.ask(&self.bootstrap.clone(), &request)?;
        let mut known = Known::default();
        for broker in &answer.brokers {
            known.brokers.insert(broker.node_id.0, address(&broker.host, broker.port));
        }
        for topic in &answer.topics {
            let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            for partition in &topic.partitions {
                known.leaders.insert((name.clone(), partition.partition_index), partition.leader_id.0);
            }
        }
        Ok(known)
    }

    /// The address of the broker that coordinates a group.
    pub(crate) fn coordinator(&mut self, group: &str) -> Result<String, KafkaError> {
        let bootstrap = self.bootstrap.clone();
        let found = self.until_ready(|cluster| {
            let found = cluster.ask(&bootstrap, &FindCoordinatorRequest::default().with_key(text(group)))?;
            check(found.error_code, || format!("who coordinates group {group}")).map(|()| found)
        })?;
        Ok(address(&found.host, found.port))
    }

    /// Asks again while the answer is that it should be.
    pub(crate) fn until_ready<T>(
        &mut self,
        mut ask: impl FnMut(&mut Cluster) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match ask(self) {
                Err(KafkaError::Refused { code, .. }) if AGAIN.contains(&code) && Instant::now() < until => {
                    sleep(PAUSE)
                }
                outcome => return outcome,
            }
        }
    }

    /// The offsets of a place in partitions. Those that there are not are left out.
    pub(crate) fn offsets(
        &mut self,
        partitions: &[Partition],
        bound: Bound,
    ) -> Result<BTreeMap<Partition, i64>, KafkaError> {
        self.until_ready(|cluster| cluster.offsets_now(partitions, bound))
    }

    fn offsets_now(&mut self, partitions: &[Partition], bound: Bound) -> Result<BTreeMap<Partition, i64>, KafkaError> {
        let mut topics: Vec<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
        topics.dedup();
        let known = self.known(Some(&topics))?;
        let mut by_leader: BTreeMap<&String, BTreeMap<&str, Vec<i32>>> = BTreeMap::new();
        for partition in partitions {
            let Some(leader) = known.leaders.get(partition) else { continue };
            let address = known.brokers.get(leader).ok_or_else(|| KafkaError::Refused {
                what: format!("who leads partition {} of {}", partition.1, partition.0),
                code: AGAIN[0],
            })?;
            by_leader.entry(address).or_default().entry(&partition.0).or_default().push(partition.1);
        }
        let mut found = BTreeMap::new();
        for (address, topics) in by_leader {
            self.offsets_of(address, topics, bound, &mut found)?;
        }
        Ok(found)
    }

    fn offsets_of(
        &mut self,
        address: &str,
        topics: BTreeMap<&str, Vec<i32>>,
        bound: Bound,
        found: &mut BTreeMap<Partition, i64>,
    ) -> Result<(), KafkaError> {
        let partition =
            |index: &i32| ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(bound.code());
        let topic = |(name, partitions): (&str, Vec<i32>)| {
            let partitions = partitions.iter().map(partition).collect();
            ListOffsetsTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
        };
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(topics.into_iter().map(topic).collect());
        for topic in self.ask(address, &request)?.topics {
            for partition in topic.partitions {
                let (name, index) = (topic.name.to_string(), partition.partition_index);
                check(partition.error_code, || format!("offsets of partition {index} of {name}"))?;
                found.insert((name, index), partition.offset);
            }
        }
        Ok(())
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn address(host: &str, port: i32) -> String {
    // An IPv6 address needs brackets before a port.
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
