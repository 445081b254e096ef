//! Producers: many requests under way on a connection that may end at any time.

use super::link::{Came, Link, Over};
use super::{Ask, Client};
use crate::clients::Load;
use crate::invariants::Event;
use crate::records;
use crate::sometimes;
use corelog_batch::Codec;
use corelog_client::{Operation, Refusal};
use corelog_engine::metadata::Durability;
use corelog_engine::model::PartitionId;
use corelog_wire::{Produced, Response};
use std::collections::BTreeMap;
use std::time::Duration;

/// Partitions open at once.
const OPEN_MAX: u64 = 4;
/// Produces of one connection.
const PRODUCES_MAX: u64 = 300;

/// A partition that is open.
struct Open {
    handle: u32,
    partition: PartitionId,
    /// Something was refused.
    spent: bool,
}

/// One connection's work.
struct Producing<'a> {
    client: &'a Client,
    link: &'a Link,
    open: Vec<Open>,
    /// Records of each append.
    under_way: BTreeMap<u64, u32>,
}

impl Client {
    pub(super) async fn produce(self) {
        let producer = self.shared.new_producer();
        loop {
            self.pause(2000).await;
            if self.shared.load.borrow().calm {
                continue;
            }
            let Some(link) = self.connect().await else { continue };
            let mut open = Vec::new();
            for _ in 0..1 + self.below(OPEN_MAX) {
                let opened = self.open_some(&link).await;
                open.extend(opened.map(|(handle, partition, _)| Open { handle, partition, spent: false }));
            }
            let mut producing = Producing { client: &self, link: &link, open, under_way: BTreeMap::new() };
            let outcome = producing.run(producer).await;
            producing.give_up(outcome);
        }
    }
}

impl Producing<'_> {
    async fn run(&mut self, producer: u64) -> Result<(), Over> {
        let load = self.client.shared.load.borrow().clone();
        for _ in 0..self.client.below(PRODUCES_MAX) {
            while self.take_next()? {}
            let (count, value_bytes) = self.draw_batch(&load);
            while self.under_way.len() >= load.in_flight || !self.link.has_room(2 * count as usize * value_bytes + 1000)
            {
                self.link.wait().await;
                while self.take_next()? {}
            }
            if self.client.shared.load.borrow().calm || !self.produce_somewhere(producer, count, value_bytes) {
                break;
            }
            if load.pause_us_max > 0 && self.client.below(4) == 0 {
                self.client.pause(load.pause_us_max).await;
            }
        }
        // Now and then a client vanishes with requests under way.
        if self.client.below(4) == 0 && !self.client.shared.load.borrow().calm {
            sometimes!("a native client left its requests unanswered");
            return Ok(());
        }
        while !self.under_way.is_empty() {
            self.link.wait().await;
            while self.take_next()? {}
        }
        Ok(())
    }

    /// How many records, and of how many bytes.
    fn draw_batch(&self, load: &Load) -> (u32, usize) {
        if load.large_one_in > 0 && self.client.below(load.large_one_in) == 0 {
            return (1, load.large_bytes);
        }
        let count = 1 + self.client.below(u64::from(load.records_max)) as u32;
        (count, self.client.below(load.value_bytes_max as u64) as usize)
    }

    /// False if nothing is open any more.
    fn produce_somewhere(&mut self, producer: u64, records: u32, value_bytes: usize) -> bool {
        let usable: Vec<usize> = (0..self.open.len()).filter(|at| !self.open[*at].spent).collect();
        let Some(&at) = usable.get(self.client.below(usable.len() as u64) as usize) else { return false };
        let Open { handle, partition, .. } = self.open[at];
        let shared = &self.client.shared;
        let append = shared.new_append(producer);
        let codec = if self.client.below(4) == 0 { Codec::Lz4 } else { Codec::None };
        let bytes = records::batch(append, records, value_bytes, self.client.reactor.wall_clock().0, codec);
        shared.observer.tell(&Event::Appending { partition, append, records, durability: Durability::Flush });
        self.under_way.insert(append, records);
        shared.natives.under_way.set(shared.natives.under_way.get() + 1);
        let token = Ask::Produce(append, at);
        self.link.request(Operation::Produce, handle, &(), &bytes, Duration::ZERO, token);
        true
    }

    /// Takes an answer; false if none is there.
    fn take_next(&mut self) -> Result<bool, Over> {
        let came = self.link.poll(|came| match came {
            Came::Answered(Ask::Produce(append, at), _, Ok(Response::Produce(produced))) => {
                Some((append, at, Ok(produced)))
            }
            Came::Answered(Ask::Produce(append, at), _, Err(refusal)) => Some((append, at, Err(refusal))),
            _ => None,
        });
        match came? {
            Some(Some((append, at, outcome))) => self.take_outcome(append, at, outcome),
            Some(None) => self.client.broken_by("an answer to a produce is none".into()),
            None => return Ok(false),
        }
        Ok(true)
    }

    fn take_outcome(&mut self, append: u64, at: usize, outcome: Result<Produced, Refusal>) {
        let (shared, records) = (&self.client.shared, self.under_way.remove(&append).unwrap_or_default());
        shared.natives.under_way.set(shared.natives.under_way.get() - 1);
        let partition = self.open[at].partition;
        match outcome {
            Ok(produced) => {
                sometimes!("a native client's records were acknowledged");
                shared.acknowledged.set(shared.acknowledged.get() + u64::from(records));
                let (base, last) = (produced.base, produced.last);
                shared.observer.tell(&Event::Acknowledged { partition, append, base, last });
            }
            Err(refusal) => {
                if self.client.note_refusal(&refusal) {
                    shared.observer.tell(&Event::Refused { partition, append });
                }
                // Later produces by the same handle are refused too: another connection goes on.
                self.open[at].spent = true;
            }
        }
    }

    /// The connection's end: of what is unanswered nobody will hear.
    fn give_up(&self, outcome: Result<(), Over>) {
        let natives = &self.client.shared.natives;
        natives.under_way.set(natives.under_way.get() - self.under_way.len() as u64);
        if outcome.is_err() && !self.under_way.is_empty() {
            sometimes!("a native client's connection broke with requests under way");
        }
    }
}
