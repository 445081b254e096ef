//! Batches on their way from one shard to another: copies outside the pools, which belong to one thread each.

use crate::limits::PARCEL_BYTES;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a shard's parcels that nobody has let go of. They are dropped on other threads.
#[derive(Debug, Default)]
pub(super) struct Parcels(Arc<AtomicUsize>);

/// Whole batches, counted by the shard that sent them until this is dropped.
#[derive(Debug)]
pub struct Parcel {
    bytes: Vec<u8>,
    under_way: Arc<AtomicUsize>,
}

impl Parcels {
    /// Whether as much is under way as may be. The last parcel may go over it, so that one batch of any length can cross.
    pub(super) fn are_full(&self) -> bool {
        // Only this shard adds: a count that is out of date is too high.
        self.0.load(Ordering::Relaxed) >= PARCEL_BYTES
    }

    /// Copies the pieces, one behind the other. None if as much is under way as may be.
    pub(super) fn pack<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Parcel> {
        if self.are_full() {
            return None;
        }
        let mut bytes = Vec::new();
        pieces.into_iter().for_each(|piece| bytes.extend_from_slice(piece));
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Some(Parcel { bytes, under_way: self.0.clone() })
    }
}

impl Deref for Parcel {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.under_way.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_and_the_last_may_go_over() {
        let parcels = Parcels::default();
        let large = vec![7; PARCEL_BYTES - 1];
        let first = parcels.pack([&large[..]]).unwrap();
        let last = parcels.pack([&large[..], b"and more"]).unwrap();
        assert_eq!((last.len(), &last[large.len()..]), (large.len() + 8, &b"and more"[..]));
        assert!(parcels.are_full() && parcels.pack([&b"x"[..]]).is_none());
        std::thread::spawn(move || drop(last)).join().unwrap();
        let more = parcels.pack([&b"x"[..]]).unwrap();
        drop((first, more));
        assert_eq!(parcels.0.load(Ordering::Relaxed), 0);
    }
}
