//! Consumers: fetches that wait, and subscriptions that are pushed to.

use super::link::{Came, Link, Over};
use super::{Ask, Client};
use crate::invariants::Event;
use crate::records;
use crate::sometimes;
use corelog_client::{Operation, Refusal};
use corelog_engine::model::PartitionId;
use corelog_wire::{Batches, Credit, Fetch, Records, Response, Subscribe};
use std::time::Duration;

/// Fetches, or pushes, of one connection.
const READS_MAX: u64 = 60;
const BYTES_MAX: u64 = 128 << 10;

/// Whole batches as they came.
type Pulled = Result<(Records, Vec<u8>), Refusal>;

/// What a reader on a connection follows.
struct Following<'a> {
    client: &'a Client,
    link: &'a Link,
    handle: u32,
    partition: PartitionId,
    next: i64,
}

impl Client {
    pub(super) async fn consume(self) {
        let number = self.shared.new_producer();
        loop {
            self.pause(2000).await;
            let Some(link) = self.connect().await else { continue };
            let Some((handle, partition, range)) = self.open_some(&link).await else { continue };
            let span = (range.high_watermark - range.first).max(0) as u64;
            let next = range.first + self.below(span + 1) as i64;
            let mut following = Following { client: &self, link: &link, handle, partition, next };
            // How it ended does not matter: whatever it was, another connection begins anew.
            let _ = match self.below(2) {
                0 => following.fetch().await,
                _ => following.subscribe(number).await,
            };
            self.natives().following.borrow_mut().remove(&number);
        }
    }
}

impl Following<'_> {
    async fn fetch(&mut self) -> Result<(), Over> {
        for _ in 0..self.client.below(READS_MAX) {
            let wait_ms = self.client.below(20) as u32;
            let bytes_max = 1 + self.client.below(BYTES_MAX) as u32;
            let fetch = Fetch { offset: self.next, bytes_max, bytes_min: self.client.below(3) as u32 * 1000, wait_ms };
            let wait = Duration::from_millis(wait_ms.into());
            self.link.request(Operation::Fetch, self.handle, &fetch, &[], wait, Ask::Fetch);
            let came = self.link.next(|came| match came {
                Came::Answered(Ask::Fetch, _, Ok(Response::Fetch(batches))) => Some(Ok(owned(batches))),
                Came::Answered(Ask::Fetch, _, Err(refusal)) => Some(Err(refusal)),
                _ => None,
            });
            if !self.take(came.await?) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self, number: u64) -> Result<(), Over> {
        let (credit, bytes_max) = (1 + self.client.below(BYTES_MAX) as u32, 1 + self.client.below(BYTES_MAX) as u32);
        let subscribe = Subscribe { offset: self.next, credit, bytes_max };
        self.link.ask(Operation::Subscribe, self.handle, &subscribe, Ask::Subscribe);
        let came = self.link.next(|came| match came {
            Came::Answered(Ask::Subscribe, subscription, Ok(Response::Subscribe(_))) => Some(Ok(subscription)),
            Came::Answered(Ask::Subscribe, _, Err(refusal)) => Some(Err(refusal)),
            _ => None,
        });
        let subscription = match came.await? {
            Some(Ok(subscription)) => subscription,
            Some(Err(refusal)) => {
                self.client.note_refusal(&refusal);
                return Ok(());
            }
            None => {
                self.client.broken_by("an answer to a subscribe is none".into());
                return Ok(());
            }
        };
        let mut pushes = 1 + self.client.below(READS_MAX);
        // Towards the end of a run a subscription stays, to see that nothing is kept from it.
        while pushes > 0 || self.client.shared.load.borrow().calm {
            pushes = pushes.saturating_sub(1);
            self.client.natives().following.borrow_mut().insert(number, (self.partition, self.next));
            let came = self.link.next(|came| match came {
                Came::Pushed(outcome) => Some(outcome.map(owned)),
                _ => None,
            });
            let came = came.await?;
            let bytes = came.as_ref().map_or(0, |came| came.as_ref().map_or(0, |(_, bytes)| bytes.len()));
            if !self.take(came) {
                return Ok(());
            }
            sometimes!("records were pushed to a native client");
            self.link.tell(Operation::Credit, subscription, &Credit { bytes: bytes as u32 });
        }
        Ok(())
    }

    /// Tells what was read; false if there is no going on.
    fn take(&mut self, came: Option<Pulled>) -> bool {
        match came {
            Some(Ok((told, bytes))) => self.tell(told, &bytes),
            Some(Err(refusal)) => {
                self.client.note_refusal(&refusal);
                false
            }
            None => {
                self.client.broken_by("an answer to a reader is none".into());
                false
            }
        }
    }

    fn tell(&mut self, told: Records, bytes: &[u8]) -> bool {
        let (shared, partition, from) = (&self.client.shared, self.partition, self.next);
        let batches = match records::read(bytes) {
            Ok(batches) => batches,
            Err(why) => {
                self.client.broken_by(format!("a native client read {partition} from {from}: {why}"));
                return false;
            }
        };
        let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
        shared.records_read.set(shared.records_read.get() + count as u64);
        let high_watermark = told.high_watermark;
        shared.observer.tell(&Event::Read { partition, from, high_watermark, batches: &batches });
        let next = batches.last().map_or(from, |batch| batch.next);
        if told.next != next {
            self.client.broken_by(format!("a reader of {partition} is to go on at {}, not {next}", told.next));
        }
        self.next = next;
        true
    }
}

fn owned(batches: Batches<'_>) -> (Records, Vec<u8>) {
    (batches.records, batches.bytes.to_vec())
}
