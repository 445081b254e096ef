//! Readers of a topic: each follows some partitions of one shard over a connection of its own.

use super::monotonic;
use crate::error::{BenchError, Doing, Result};
use crate::report::latency::histogram;
use crate::server::connection::Connection;
use crate::server::topic::TopicName;
use corelog_batch::batches;
use corelog_wire::{Batches, Credit, Operation, Status, Subscribe, Subscribed};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

/// Most bytes in one push.
const PUSH_BYTES: u32 = 1 << 20;
/// Bytes that may be on their way: enough that the server never waits for the reader's credit to arrive.
const CREDIT_BYTES: u32 = 8 << 20;

/// Subscriptions to some partitions.
pub(crate) struct Reader {
    connection: Connection,
    /// By its handle: the offset after the last record that came, the high watermark at the beginning, and the bytes that
    /// came since credit was last given.
    subscriptions: BTreeMap<u32, Progress>,
}

struct Progress {
    next: i64,
    end: i64,
    uncredited: u32,
}

/// From where to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    End,
}

impl Reader {
    /// Subscribes to partitions of one shard.
    pub(crate) fn start(shard: SocketAddr, topic: &TopicName, partitions: &[u32], from: From) -> Result<Reader> {
        let mut reader = Reader { connection: Connection::open(shard)?, subscriptions: BTreeMap::new() };
        for partition in partitions {
            let (handle, opened) = reader.connection.open_partition(&topic.name, *partition)?;
            let offset = if from == From::End { opened.high_watermark } else { opened.first };
            let subscribe = Subscribe { offset, credit: CREDIT_BYTES, bytes_max: PUSH_BYTES };
            // Pushes of the partitions before may come between: only a topic that nobody writes has none.
            reader.connection.send(Operation::Subscribe, handle, &subscribe, &[])?;
            reader.expect_subscribed(offset)?;
        }
        Ok(reader)
    }

    fn expect_subscribed(&mut self, offset: i64) -> Result<()> {
        loop {
            let header = self.connection.receive()?;
            if header.operation == Operation::Push as u8 {
                self.take_push(header.status, header.handle, |_| ())?;
                continue;
            }
            if header.status != Status::Ok as u16 {
                return Err(self.connection.refused("subscribe", header.status));
            }
            let end = self.connection.decode::<Subscribed>(Operation::Subscribe)?.high_watermark;
            self.subscriptions.insert(header.handle, Progress { next: offset, end, uncredited: 0 });
            return Ok(());
        }
    }

    /// Waits for the next push, whose batches it gives to `each`: their bytes.
    pub(crate) fn receive(&mut self, each: impl FnMut(&[u8])) -> Result<usize> {
        let header = self.connection.receive()?;
        self.take_push(header.status, header.handle, each)
    }

    fn take_push(&mut self, status: u16, subscription: u32, mut each: impl FnMut(&[u8])) -> Result<usize> {
        if status != Status::Ok as u16 {
            return Err(self.connection.refused("push", status));
        }
        let garbled = |why| BenchError::Garbled { what: "push".into(), why: format!("{why}") };
        let pushed = Batches::decode(self.connection.body()).map_err(garbled)?;
        each(pushed.bytes);
        let (bytes, next) = (pushed.bytes.len(), pushed.records.next);
        let Some(progress) = self.subscriptions.get_mut(&subscription) else { return Ok(bytes) };
        progress.next = next;
        progress.uncredited += bytes as u32;
        if progress.uncredited >= CREDIT_BYTES / 4 {
            let credit = Credit { bytes: std::mem::take(&mut progress.uncredited) };
            self.connection.send(Operation::Credit, subscription, &credit, &[])?;
        }
        Ok(bytes)
    }

    /// Whether everything was read that was there at the beginning.
    pub(crate) fn is_at_end(&self) -> bool {
        self.subscriptions.values().all(|progress| progress.next >= progress.end)
    }

    /// The stream, to end a wait for the next push from another thread.
    pub(crate) fn stream(&self) -> Result<TcpStream> {
        self.connection.stream().try_clone().doing("sharing a reader's connection")
    }
}

/// What several readers see of stamped batches while it counts.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Batches that say to be from before this are not counted, nor those from after `to`: nanoseconds of CLOCK_MONOTONIC.
    from: AtomicU64,
    to: AtomicU64,
    over: AtomicBool,
}

/// What one reader got in the time that counts.
pub(crate) struct Seen {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// From the time that a batch says to be from, to its push.
    pub(crate) latency: Histogram<u64>,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch { from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX), over: AtomicBool::new(false) }
    }

    pub(crate) fn begin(&self) -> Result<()> {
        self.from.store(monotonic()?, Ordering::Release);
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<()> {
        self.to.store(monotonic()?, Ordering::Release);
        Ok(())
    }

    /// Nothing more is waited for.
    pub(crate) fn close(&self, streams: &[TcpStream]) {
        self.over.store(true, Ordering::Release);
        for stream in streams {
            // One that ended by itself is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn counts(&self, intended: u64) -> bool {
        intended >= self.from.load(Ordering::Acquire) && intended <= self.to.load(Ordering::Acquire)
    }

    /// Has a reader follow in a thread of its own until it is closed.
    pub(crate) fn follow<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        mut reader: Reader,
    ) -> ScopedJoinHandle<'scope, Result<Seen>> {
        scope.spawn(move || {
            let mut seen = Seen { records: 0, bytes: 0, latency: histogram() };
            loop {
                match reader.receive(|bytes| self.note(bytes, &mut seen)) {
                    Ok(_) => {}
                    Err(_) if self.over.load(Ordering::Acquire) => return Ok(seen),
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn note(&self, bytes: &[u8], seen: &mut Seen) {
        let now = monotonic().unwrap_or(0);
        for batch in batches(bytes).flatten() {
            let intended = batch.base_timestamp().unsigned_abs();
            if self.counts(intended) {
                let records = u64::from(batch.record_count().unsigned_abs());
                seen.latency.saturating_record_n(now.saturating_sub(intended), records);
                seen.records += records;
                seen.bytes += batch.bytes().len() as u64;
            }
        }
    }
}
