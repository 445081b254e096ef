//! Segment files that are open, within a bound.

use crate::log::paths::SegmentName;
use crate::model::{Offset, PartitionId};
use slab::Slab;
use std::collections::BTreeMap;

type Key = (PartitionId, SegmentName);

/// Files by segment. In the place of one that was not used of late another one is opened, found without looking at all of
/// them: with more partitions than files may be open each piece of a checkpoint opens one.
#[derive(Debug)]
pub(super) struct Files<F> {
    by_segment: BTreeMap<Key, usize>,
    opened: Slab<Opened<F>>,
    /// Counts uses.
    clock: u64,
    /// Where the search for a file to close goes on.
    hand: usize,
}

#[derive(Debug)]
struct Opened<F> {
    key: Key,
    file: F,
    used: u64,
    /// Whether it was used since the hand came past it.
    spared: bool,
}

impl<F> Default for Files<F> {
    fn default() -> Files<F> {
        Files { by_segment: BTreeMap::new(), opened: Slab::new(), clock: 0, hand: 0 }
    }
}

impl<F: Clone> Files<F> {
    pub(super) fn get(&mut self, key: Key) -> Option<F> {
        self.clock += 1;
        let opened = &mut self.opened[*self.by_segment.get(&key)?];
        (opened.used, opened.spared) = (self.clock, true);
        Some(opened.file.clone())
    }
}

impl<F> Files<F> {
    /// Adds a file; if there are `bound` already, closes one first that was not used of late.
    pub(super) fn insert(&mut self, key: Key, file: F, bound: usize) {
        self.take(key);
        if self.opened.len() >= bound {
            self.close_one();
        }
        let slot = self.opened.insert(Opened { key, file, used: self.clock, spared: false });
        self.by_segment.insert(key, slot);
    }

    /// Forgets a file, and returns it.
    pub(super) fn take(&mut self, key: Key) -> Option<F> {
        let slot = self.by_segment.remove(&key)?;
        Some(self.opened.remove(slot).file)
    }

    /// Closes what was not used since `since`, an earlier answer of this. Answers what to give the next time.
    pub(super) fn close_idle(&mut self, since: u64) -> u64 {
        self.opened.retain(|_, opened| opened.used > since);
        let Files { by_segment, opened, .. } = self;
        by_segment.retain(|_, slot| opened.contains(*slot));
        self.clock
    }

    /// Closes all files of a partition.
    pub(super) fn forget(&mut self, id: PartitionId) {
        let first = SegmentName { base: Offset(i64::MIN), rewrite: 0 };
        let last = SegmentName { base: Offset(i64::MAX), rewrite: u32::MAX };
        let keys: Vec<Key> = self.by_segment.range((id, first)..=(id, last)).map(|(key, _)| *key).collect();
        for key in keys {
            self.take(key);
        }
    }

    pub(super) fn close_all(&mut self) {
        self.by_segment.clear();
        self.opened.clear();
    }

    /// Closes the next file that was not used since the hand came past it last: second chance, as pages are replaced.
    fn close_one(&mut self) {
        while !self.opened.is_empty() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.opened.capacity();
            let Some(opened) = self.opened.get_mut(at) else { continue };
            if !std::mem::take(&mut opened.spared) {
                let key = opened.key;
                self.take(key);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::partition;
    use std::rc::Rc;

    const BOUND: usize = 4;

    fn key(index: u32, base: i64) -> Key {
        (partition(7, index), Offset(base).into())
    }

    fn of(keys: impl IntoIterator<Item = Key>) -> Files<Rc<()>> {
        let mut files = Files::default();
        keys.into_iter().for_each(|key| files.insert(key, Rc::default(), BOUND));
        files
    }

    #[test]
    fn what_was_used_of_late_stays_open() {
        let mut files = of((0..4).map(|index| key(index, 0)));
        for new in 4..40 {
            assert!(files.get(key(0, 0)).is_some(), "it is in use all the time");
            files.insert(key(new, 0), Rc::default(), BOUND);
            assert_eq!(files.opened.len(), BOUND);
        }
        assert!(files.get(key(39, 0)).is_some());
        assert!(files.get(key(1, 0)).is_none() && files.get(key(20, 0)).is_none());
    }

    #[test]
    fn one_is_closed_where_all_were_used() {
        let mut files = of((0..4).map(|index| key(index, 0)));
        for index in 0..4 {
            files.get(key(index, 0));
        }
        files.insert(key(9, 0), Rc::default(), BOUND);
        assert!(files.opened.len() == BOUND && files.by_segment.len() == BOUND);
    }

    #[test]
    fn a_segment_has_one_file() {
        let mut files = of([key(0, 0), key(0, 0)]);
        assert!(files.opened.len() == 1 && files.take(key(0, 0)).is_some() && files.take(key(0, 0)).is_none());
    }

    #[test]
    fn all_files_of_a_partition_go() {
        let mut files = of([key(0, 0), key(1, 0), key(1, 500), key(2, 0)]);
        files.forget(partition(7, 1));
        assert!(files.get(key(0, 0)).is_some() && files.get(key(2, 0)).is_some());
        assert!(files.get(key(1, 0)).is_none() && files.get(key(1, 500)).is_none() && files.opened.len() == 2);
    }

    #[test]
    fn what_was_not_used_since_is_closed() {
        let mut files = of((0..3).map(|index| key(index, 0)));
        let since = files.close_idle(0);
        assert!(files.opened.is_empty(), "none was used since the beginning");
        files.insert(key(0, 0), Rc::default(), BOUND);
        files.insert(key(1, 0), Rc::default(), BOUND);
        files.get(key(1, 0));
        files.close_idle(since);
        assert!(files.get(key(0, 0)).is_none() && files.get(key(1, 0)).is_some());
    }
}
