//! From responses to what is sent: small parts are encoded one behind the other into a buffer, records are passed on as the
//! slices they are stored in.

use corelog_engine::reactor::{AppendBuffer, Instant, Outgoing, Pool};
use std::cell::Cell;
use std::rc::Rc;

/// Capacity of the buffer for small parts; a part of its own that is larger gets a larger one.
const PARTS_BYTES: usize = 8192;
/// Room that the buffer for small parts has after [`Outbox::is_ready`]: enough for any response but descriptions.
const READY_BYTES: usize = 1024;

/// There is no memory to encode a response into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// The responses of a connection that its client has not taken.
#[derive(Debug)]
pub(crate) struct Outbox {
    pool: Pool,
    parts: Option<AppendBuffer>,
    /// From here on the parts are not in `pending` yet.
    open: usize,
    pending: Outgoing,
    /// Since when the first acknowledgement of an append waits to be sent, and how many do.
    acknowledged: Option<(Instant, u64)>,
    /// Bytes queued or being sent.
    bytes: usize,
    /// The same of all connections of the shard.
    shard_bytes: Rc<Cell<usize>>,
}

impl Outbox {
    pub(crate) fn new(pool: &Pool, shard_bytes: &Rc<Cell<usize>>) -> Outbox {
        let (pool, shard_bytes) = (pool.clone(), shard_bytes.clone());
        Outbox { pool, parts: None, open: 0, pending: Outgoing::new(), acknowledged: None, bytes: 0, shard_bytes }
    }

    /// Bytes that the client has not taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for a small response; false if there is no memory for it now.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.make_room(READY_BYTES).is_ok()
    }

    /// Queues `size` bytes, which `write` appends.
    ///
    /// # Panics
    /// If it appends another number of bytes.
    pub(crate) fn put(&mut self, size: usize, write: impl FnOnce(&mut AppendBuffer)) -> Result<(), NoMemory> {
        self.make_room(size)?;
        if let Some(parts) = &mut self.parts {
            let before = parts.filled();
            write(parts);
            assert_eq!(parts.filled() - before, size, "a response is as long as was said");
        }
        self.count(size);
        Ok(())
    }

    /// Queues slices without copying them, and empties their list.
    pub(crate) fn pass_on(&mut self, slices: &mut Outgoing) {
        self.close_part();
        self.count(slices.len());
        self.pending.append(slices);
    }

    /// Queues bytes that lie in no buffer of the pool.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut buffer = self.pool.buffer(bytes.len()).ok_or(NoMemory)?;
        buffer.copy_from_slice(bytes);
        self.close_part();
        self.pending.push(buffer.freeze());
        self.count(bytes.len());
        Ok(())
    }

    /// Exchanges what is queued for an empty list; false if nothing is queued.
    pub(crate) fn take(&mut self, spare: &mut Outgoing) -> bool {
        assert!(spare.is_empty(), "what was taken is sent before more is taken");
        self.close_part();
        std::mem::swap(&mut self.pending, spare);
        !spare.is_empty()
    }

    /// What was queued last acknowledges an append.
    pub(crate) fn note_acknowledged(&mut self, now: Instant) {
        let (since, appends) = self.acknowledged.unwrap_or((now, 0));
        self.acknowledged = Some((since, appends + 1));
    }

    /// The acknowledgements in what was taken last: since when the first waited, and how many.
    pub(crate) fn take_acknowledged(&mut self) -> Option<(Instant, u64)> {
        self.acknowledged.take()
    }

    /// The client, or the kernel for it, took so many bytes.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.shard_bytes.set(self.shard_bytes.get() - bytes);
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.shard_bytes.set(self.shard_bytes.get() + bytes);
    }

    fn make_room(&mut self, size: usize) -> Result<(), NoMemory> {
        if self.parts.as_ref().is_some_and(|parts| parts.room() >= size) {
            return Ok(());
        }
        let fresh = self.pool.append_buffer(size.max(PARTS_BYTES)).ok_or(NoMemory)?;
        self.close_part();
        self.parts = Some(fresh);
        self.open = 0;
        Ok(())
    }

    fn close_part(&mut self) {
        if let Some(parts) = &self.parts {
            self.pending.push(parts.slice(self.open..parts.filled()));
            self.open = parts.filled();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.sent(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::reactor::Slice;

    fn outbox(bytes: usize) -> (Outbox, Rc<Cell<usize>>) {
        let shard_bytes = Rc::default();
        (Outbox::new(&Pool::heap(bytes), &shard_bytes), shard_bytes)
    }

    fn put(outbox: &mut Outbox, bytes: &[u8]) -> Result<(), NoMemory> {
        outbox.put(bytes.len(), |out| out.append(bytes))
    }

    fn taken(outbox: &mut Outbox) -> (usize, Vec<u8>) {
        let mut out = Outgoing::new();
        outbox.take(&mut out);
        (out.pieces().len(), out.pieces().iter().flat_map(|piece| piece.to_vec()).collect())
    }

    #[test]
    fn small_responses_are_one_piece_and_records_lie_between() {
        let (mut outbox, shard_bytes) = outbox(1 << 16);
        put(&mut outbox, &[1; 20]).unwrap();
        put(&mut outbox, &[2; 16]).unwrap();
        let mut records = Outgoing::new();
        records.push(Slice::from_static(b"records"));
        outbox.pass_on(&mut records);
        put(&mut outbox, &[3; 16]).unwrap();
        assert!(records.is_empty());
        assert_eq!((outbox.bytes(), shard_bytes.get()), (20 + 16 + 7 + 16, 59));
        let (pieces, bytes) = taken(&mut outbox);
        assert_eq!((pieces, bytes.len()), (3, 59));
        assert_eq!(bytes[36..43], *b"records");
        assert_eq!(outbox.bytes(), 59);
        outbox.sent(59);
        assert_eq!((outbox.bytes(), shard_bytes.get()), (0, 0));
    }

    #[test]
    fn parts_go_on_in_another_buffer_in_order() {
        let (mut outbox, _) = outbox(1 << 20);
        let mut expected = Vec::new();
        for length in [1, 3000, 4000, 4000, 2, 4000] {
            let part = vec![length as u8; length];
            put(&mut outbox, &part).unwrap();
            expected.extend(part);
        }
        assert_eq!(taken(&mut outbox).1, expected);
    }

    #[test]
    fn without_memory_nothing_is_queued() {
        let (mut outbox, _) = outbox(4096);
        assert!(!outbox.is_ready());
        assert_eq!(put(&mut outbox, &[1]), Err(NoMemory));
        assert_eq!(outbox.copy(&[1; 5000]), Err(NoMemory));
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(outbox.copy(&[1; 4096]), Ok(()));
    }

    #[test]
    fn a_connection_that_ends_gives_its_share_back() {
        let (mut outbox, shard_bytes) = outbox(1 << 16);
        put(&mut outbox, &[3; 16]).unwrap();
        drop(outbox);
        assert_eq!(shard_bytes.get(), 0);
    }
}
