//! I/O in the background gives way to commits. A device that reads or writes something else takes longer over a flush, so
//! while commits come, readers that are behind and checkpoints take turns: one turn for each commit, of about its size, and
//! none begun while the commit before it is under way. Without commits everybody goes as fast as the disk does.

use super::Shard;
use super::event::Event;
use crate::limits::BACKGROUND_BYTES;
use crate::log::tail::BLOCK;
use crate::reactor::Instant;
use std::cell::Cell;
use std::time::Duration;

/// Commits come, as long as the last one was no longer ago.
const RECENT: Duration = Duration::from_secs(1);

/// The turn of those in the background.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last commit ended, and its bytes.
    last_commit: Cell<Option<(Instant, usize)>>,
    /// Bytes that may still be begun in this turn.
    left: Cell<usize>,
    /// What was begun in this turn and has not ended.
    under_way: Cell<usize>,
    /// A commit has ended since the turn began.
    is_over: Cell<bool>,
    changed: Event,
}

impl Pace {
    /// Notes that a commit of so many bytes has ended, however it did.
    pub(super) fn note_commit(&self, now: Instant, bytes: usize) {
        self.last_commit.set(Some((now, bytes)));
        self.is_over.set(true);
        self.changed.notify();
    }

    /// Bytes of a turn beside the commits that come; None if none do.
    fn turn_bytes(&self, now: Instant) -> Option<usize> {
        let (at, bytes) = self.last_commit.get()?;
        // As much as a commit: behind producers that fill the disk, a checkpoint keeps up and a reader gets his half.
        (now < at.plus(RECENT)).then(|| bytes.max(BACKGROUND_BYTES).next_multiple_of(BLOCK as usize))
    }

    /// Takes a part of this turn, or begins the next one if it may begin.
    fn take(&self, wanted: usize, turn: usize, is_committing: bool) -> Option<usize> {
        if self.left.get() == 0 && self.under_way.get() == 0 && (self.is_over.get() || !is_committing) {
            self.left.set(turn);
            self.is_over.set(false);
        }
        let bytes = wanted.min(self.left.get());
        (bytes > 0).then(|| {
            self.left.set(self.left.get() - bytes);
            self.under_way.set(self.under_way.get() + 1);
            bytes
        })
    }
}

/// Leave to read or write so much.
pub(super) struct Leave<'a> {
    pace: Option<&'a Pace>,
    /// How many bytes.
    pub(super) bytes: usize,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Some(pace) = self.pace else { return };
        pace.under_way.set(pace.under_way.get() - 1);
        if pace.under_way.get() == 0 {
            pace.changed.notify();
        }
    }
}

impl Shard {
    /// Waits until something in the background may read or write: up to `wanted` bytes, at least a block.
    pub(super) async fn leave(&self, wanted: usize) -> Leave<'_> {
        let pace = &self.0.pace;
        loop {
            let changed = pace.changed.wait();
            let Some(turn) = pace.turn_bytes(self.reactor().now()) else {
                return Leave { pace: None, bytes: wanted };
            };
            if let Some(bytes) = pace.take(wanted, turn, self.0.commits.under_way.get() > 0) {
                return Leave { pace: Some(pace), bytes };
            }
            changed.await;
        }
    }

    /// The same for who cannot wait.
    pub(super) fn leave_at_once(&self, wanted: usize) -> Leave<'_> {
        Leave { pace: None, bytes: wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: usize = 64 << 10;

    #[test]
    fn a_turn_is_shared_until_it_is_used_up() {
        let pace = Pace::default();
        assert_eq!(pace.take(40_960, TURN, false), Some(40_960));
        assert_eq!(pace.take(40_960, TURN, false), Some(TURN - 40_960), "no more than is left");
        assert_eq!(pace.take(4096, TURN, false), None, "what was begun has not ended");
        drop([Leave { pace: Some(&pace), bytes: 0 }, Leave { pace: Some(&pace), bytes: 0 }]);
        assert_eq!(pace.take(4096, TURN, false), Some(4096));
    }

    #[test]
    fn a_turn_begins_behind_the_commit_under_way() {
        let pace = Pace::default();
        assert_eq!(pace.take(4096, TURN, true), None);
        pace.note_commit(Instant::from_nanos(1), 4096);
        assert_eq!(pace.take(2 * TURN, TURN, true), Some(TURN), "the next commit may have begun");
        drop(Leave { pace: Some(&pace), bytes: 0 });
        assert_eq!(pace.take(4096, TURN, true), None, "one turn for a commit");
    }
}
