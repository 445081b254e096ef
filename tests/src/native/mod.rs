//! Clients that speak the native protocol over the simulated network, on a node of their own: producers and consumers over
//! the client library's connection, against the server that is shipped.
//!
//! They outlive the server's crashes, and so remember what it may have forgotten. What they are told and what they read
//! goes to the same observer as with the clients in the shards.

mod consumer;
mod link;
mod producer;

use crate::sometimes;
use crate::world::{BOOTSTRAP_PORT, SHARD_PORT, Shared};
use corelog_client::{Operation, Refusal, Status};
use corelog_engine::model::{PartitionId, PartitionIndex, TopicId};
use corelog_engine::reactor::Reactor;
use corelog_wire::{Metadata, MetadataRequest, Open, Opened, Response, Selection, Text, Topic};
use link::{Came, Link};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Names of the topics that such clients use begin so: topics of weaker durabilities would let what was acknowledged
/// before a crash, and heard of after it, be gone.
const TOPICS: [&str; 2] = ["flushed", "passing"];
/// Shards that there can be.
const SHARDS_MAX: u64 = 4;

/// What the harness sees of them.
#[derive(Debug, Default)]
pub struct Natives {
    /// There are such clients.
    pub are_served: Cell<bool>,
    /// Produces that are neither answered nor given up.
    pub under_way: Cell<u64>,
    /// Of each subscription that waits for pushes, by its number: what, and where it is.
    pub following: RefCell<BTreeMap<u64, (PartitionId, i64)>>,
    /// Connections that are open.
    pub connections: Cell<u64>,
    /// Something is going on that may make answers late.
    pub troubled: Cell<bool>,
    /// Counts what may make answers late: crashes, links that are cut, faults of the disk.
    pub disturbances: Cell<u64>,
}

impl Natives {
    /// From now on, or until now, something is going on that may make answers late.
    pub fn disturb(&self, troubled: bool) {
        self.troubled.set(troubled);
        self.disturbances.set(self.disturbances.get() + 1);
    }
}

/// One client.
#[derive(Clone)]
struct Client {
    reactor: Reactor,
    shared: Rc<Shared>,
    server: IpAddr,
}

/// Runs clients until the node ends: the root of its only reactor.
pub async fn run(reactor: Reactor, shared: Rc<Shared>, server: IpAddr, producers: usize, consumers: usize) {
    let client = Client { reactor: reactor.clone(), shared, server };
    let mut tasks: Vec<_> = (0..producers).map(|_| reactor.spawn(client.clone().produce())).collect();
    tasks.extend((0..consumers).map(|_| reactor.spawn(client.clone().consume())));
    pending::<()>().await;
}

impl Client {
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.reactor.random() % bound }
    }

    async fn pause(&self, micros_max: u64) {
        self.reactor.sleep(Duration::from_micros(1 + self.below(micros_max))).await;
    }

    fn natives(&self) -> &Natives {
        &self.shared.natives
    }

    fn broken_by(&self, why: String) {
        self.shared.observer.broken_by(why);
    }

    /// A connection that was welcomed, to any port of the node; nothing if the node is not there.
    async fn connect(&self) -> Option<Link> {
        let port = match self.below(2) {
            0 => BOOTSTRAP_PORT,
            _ => SHARD_PORT + self.below(SHARDS_MAX) as u16,
        };
        let stream = self.reactor.connect(SocketAddr::new(self.server, port)).await.ok()?;
        let link = Link::new(&self.reactor, stream, &self.shared);
        let welcomed = link.next(|came| matches!(came, Came::Welcomed)).await.ok()?;
        if !welcomed {
            self.broken_by("the first answer is no welcome".into());
        }
        welcomed.then_some(link)
    }

    /// Asks who there is, and opens one of the partitions.
    async fn open_some(&self, link: &Link) -> Option<(u32, PartitionId, Range)> {
        link.ask(Operation::Metadata, 0, &MetadataRequest { topics: Selection::After(Text::default()) }, Ask::Call);
        let topics = self.answer(link, |_, response| match response {
            Response::Metadata(metadata) => Some(topics_of(metadata)),
            _ => None,
        });
        let topics = topics.await?;
        let all: Vec<(&String, u32)> =
            topics.iter().flat_map(|(name, count)| (0..*count).map(move |index| (name, index))).collect();
        let (name, partition) = all.get(self.below(all.len() as u64) as usize)?;
        let open = Open { topic: Topic::Name(Text::truncated(name)), partition: *partition };
        link.ask(Operation::Open, 0, &open, Ask::Call);
        let opened = self.answer(link, |handle, response| match response {
            Response::Open(opened) => Some((handle, *opened)),
            _ => None,
        });
        let (handle, opened): (u32, Opened) = opened.await?;
        sometimes!("a native client opened a partition of another shard", link.shard() != Some(opened.shard));
        let topic = TopicId(opened.topic_id);
        let range = Range { first: opened.first, high_watermark: opened.high_watermark };
        Some((handle, PartitionId { topic, index: PartitionIndex(*partition) }, range))
    }

    /// The answer to the only request under way, if it is not a refusal.
    async fn answer<R>(&self, link: &Link, take: impl Fn(u32, &Response<'_>) -> Option<R>) -> Option<R> {
        let came = link.next(|came| match came {
            Came::Answered(_, handle, Ok(response)) => Some(Ok(take(handle, &response))),
            Came::Answered(_, _, Err(refusal)) => Some(Err(refusal)),
            _ => None,
        });
        match came.await.ok()? {
            Some(Ok(Some(answer))) => Some(answer),
            Some(Err(refusal)) => {
                self.note_refusal(&refusal);
                None
            }
            _ => {
                self.broken_by("another answer than was asked for".into());
                None
            }
        }
    }

    /// Counts a refusal, or says that it must not be. True if nothing was done.
    fn note_refusal(&self, refusal: &Refusal) -> bool {
        let load = self.shared.load.borrow();
        match refusal.status() {
            Some(Status::OutcomeUnknown) => {
                sometimes!("a native client was told that an outcome is not known");
                return false;
            }
            Some(Status::Busy | Status::TimedOut) => sometimes!("a native client met a bound"),
            Some(Status::StorageFull) => sometimes!("a native client met a full disk"),
            Some(Status::Reopening) => sometimes!("a native client met a shard that recovers"),
            Some(Status::ShuttingDown) => sometimes!("a native client met a node that stops"),
            Some(Status::UnknownTopic | Status::UnknownPartition | Status::UnknownHandle) => {
                sometimes!("a native client met a partition that is gone");
            }
            Some(Status::OffsetOutOfRange) => sometimes!("a native client fell out of the log"),
            Some(Status::StorageError) if load.disk_errors => sometimes!("a native client met a failed read"),
            Some(Status::Fenced) if load.damage => sometimes!("a native client met damage"),
            _ => self.broken_by(format!("a native client was refused: {refusal}")),
        }
        true
    }
}

/// What a request of a consumer, or one that is alone on its connection, was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Call,
    Fetch,
    Subscribe,
    /// The append of a produce, and its partition's place in the producer's list.
    Produce(u64, usize),
}

/// What a partition held when it was opened.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: i64,
    high_watermark: i64,
}

fn topics_of(metadata: &Metadata<'_>) -> Vec<(String, u32)> {
    let known = metadata.topics.iter().filter(|topic| topic.status == 0);
    let named = known.map(|topic| (topic.name.as_str().to_owned(), topic.owners.len() as u32));
    named.filter(|(name, _)| TOPICS.iter().any(|topic| name.starts_with(topic))).collect()
}
