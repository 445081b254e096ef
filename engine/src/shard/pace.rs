//! I/O in the background gives way to commits. A device that reads or writes something else takes longer over a flush, so
//! while commits come, readers that are behind and checkpoints take turns: one turn for each commit, of about its size, and
//! none begun while the commit before it is under way, unless that takes long. Without commits everybody goes as fast as the
//! disk does.

use super::Shard;
use super::line::{Line, Place};
use crate::limits::BACKGROUND_BYTES;
use crate::log::tail::BLOCK;
use crate::reactor::{Instant, Sleep};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Commits come, as long as the last one was no longer ago.
const RECENT: Duration = Duration::from_secs(1);
/// Where commits take longer than this, on a slow disk or a crowded core, a turn is begun beside one all the same: else readers
/// would get a few pieces a second.
const PATIENCE: Duration = Duration::from_millis(2);

/// Who reads or writes in the background. Turns go to both alternately, so that many of one do not keep the other waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Checkpoint,
    Reader,
}

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
    /// The last turn was begun by a reader.
    was_readers: Cell<bool>,
    checkpoints: Line,
    readers: Line,
}

impl Pace {
    /// Notes that a commit of so many bytes has ended, however it did.
    pub(super) fn note_commit(&self, now: Instant, bytes: usize) {
        self.last_commit.set(Some((now, bytes)));
        self.is_over.set(true);
        self.wake();
    }

    /// Has the first of those who wait look again.
    pub(super) fn wake(&self) {
        self.checkpoints.wake_first();
        self.readers.wake_first();
    }

    /// Bytes of a turn beside the commits that come; None if none do.
    pub(super) fn turn_bytes(&self, now: Instant) -> Option<usize> {
        let (at, bytes) = self.last_commit.get()?;
        // As much as a commit: behind producers that fill the disk, a checkpoint keeps up and a reader gets his half.
        (now < at.plus(RECENT)).then(|| bytes.max(BACKGROUND_BYTES).next_multiple_of(BLOCK as usize))
    }

    /// Takes a part of this turn, or begins the next one if it may begin.
    fn take(&self, rank: Rank, wanted: usize, turn: usize, is_committing: bool) -> Option<usize> {
        let may_begin = self.left.get() == 0 && self.under_way.get() == 0 && (self.is_over.get() || !is_committing);
        if may_begin && self.is_next(rank) {
            self.left.set(turn);
            self.is_over.set(false);
            self.was_readers.set(rank == Rank::Reader);
        }
        let bytes = wanted.min(self.left.get());
        (bytes > 0).then(|| {
            // Whole blocks: what is left may be had by one who writes no other.
            self.left.set(self.left.get() - bytes.next_multiple_of(BLOCK as usize));
            self.under_way.set(self.under_way.get() + 1);
            bytes
        })
    }

    /// Whether the next turn is this rank's: the other had the last one, or nobody of it waits.
    fn is_next(&self, rank: Rank) -> bool {
        match rank {
            Rank::Checkpoint => self.was_readers.get() || self.readers.is_empty(),
            Rank::Reader => !self.was_readers.get() || self.checkpoints.is_empty(),
        }
    }

    fn line(&self, rank: Rank) -> &Line {
        match rank {
            Rank::Checkpoint => &self.checkpoints,
            Rank::Reader => &self.readers,
        }
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
            pace.wake();
        }
    }
}

/// Waits for leave; see [`Shard::leave`].
pub(super) struct Waiting<'a> {
    shard: &'a Shard,
    rank: Rank,
    wanted: usize,
    place: Place,
    /// Of the first in the line: how long it waits for a commit.
    patience: Option<Pin<Box<Sleep>>>,
    /// That is over.
    is_late: bool,
}

impl<'a> Waiting<'a> {
    fn look(&self) -> Option<Leave<'a>> {
        let (shard, pace) = (self.shard, &self.shard.0.pace);
        let turn = pace.turn_bytes(shard.reactor().now());
        let Some(turn) = turn.filter(|_| self.rank == Rank::Reader || !shard.is_hurried()) else {
            return Some(Leave { pace: None, bytes: self.wanted });
        };
        if !self.line().is_first(&self.place) {
            return None;
        }
        let is_committing = shard.0.commits.under_way.get() > 0 && !self.is_late;
        let bytes = pace.take(self.rank, self.wanted, turn, is_committing)?;
        Some(Leave { pace: Some(pace), bytes })
    }

    fn line(&self) -> &'a Line {
        self.shard.0.pace.line(self.rank)
    }

    /// Lets the first of the line wait for a commit for so long only; true when that ends.
    fn becomes_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.is_late || !self.line().is_first(&self.place) {
            return false;
        }
        let reactor = self.shard.reactor();
        let patience = self.patience.get_or_insert_with(|| Box::pin(reactor.sleep(PATIENCE)));
        self.is_late = patience.as_mut().poll(context).is_ready();
        self.is_late
    }

    /// Gives up its place, and lets those behind it look.
    fn step_out(&mut self) {
        if self.line().leave(&mut self.place) {
            self.shard.0.pace.wake();
        }
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Leave<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Leave<'a>> {
        loop {
            if let Some(leave) = self.look() {
                self.step_out();
                return Poll::Ready(leave);
            }
            let line = self.line();
            line.join(&mut self.place, context.waker());
            if !self.becomes_late(context) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.step_out();
    }
}

impl Shard {
    /// Waits until something in the background may read or write: up to `wanted` bytes, at least a block. A checkpoint that
    /// commits wait for waits for nobody.
    pub(super) fn leave(&self, rank: Rank, wanted: usize) -> Waiting<'_> {
        Waiting { shard: self, rank, wanted, place: Place::default(), patience: None, is_late: false }
    }

    /// For what others wait for, and is rare.
    pub(super) fn leave_at_once(&self, wanted: usize) -> Leave<'_> {
        Leave { pace: None, bytes: wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const TURN: usize = 64 << 10;
    const NOW: Instant = Instant::from_nanos(1);

    #[test]
    fn a_turn_is_shared_until_it_is_used_up() {
        let pace = Pace::default();
        assert_eq!(pace.take(Rank::Reader, 40_960, TURN, false), Some(40_960));
        assert_eq!(pace.take(Rank::Reader, 40_960, TURN, false), Some(TURN - 40_960), "no more than is left");
        assert_eq!(pace.take(Rank::Reader, 4096, TURN, false), None, "what was begun has not ended");
        drop([Leave { pace: Some(&pace), bytes: 0 }, Leave { pace: Some(&pace), bytes: 0 }]);
        assert_eq!(pace.take(Rank::Reader, 4096, TURN, false), Some(4096));
    }

    #[test]
    fn who_wants_less_than_a_block_leaves_whole_blocks() {
        let pace = Pace::default();
        assert_eq!(pace.take(Rank::Reader, 5000, TURN, false), Some(5000));
        assert_eq!(pace.take(Rank::Checkpoint, TURN, TURN, false), Some(TURN - 8192), "a checkpoint writes no other");
    }

    #[test]
    fn a_turn_begins_behind_the_commit_under_way() {
        let pace = Pace::default();
        assert_eq!(pace.take(Rank::Reader, 4096, TURN, true), None);
        pace.note_commit(NOW, 4096);
        assert_eq!(pace.take(Rank::Reader, 2 * TURN, TURN, true), Some(TURN), "the next commit may have begun");
        drop(Leave { pace: Some(&pace), bytes: 0 });
        assert_eq!(pace.take(Rank::Reader, 4096, TURN, true), None, "one turn for a commit");
    }

    #[test]
    fn turns_go_to_readers_and_checkpoints_alternately() {
        let pace = Pace::default();
        let (mut reader, mut checkpoint) = (Place::default(), Place::default());
        pace.readers.join(&mut reader, Waker::noop());
        pace.checkpoints.join(&mut checkpoint, Waker::noop());
        let mut had = Vec::new();
        for _ in 0..4 {
            for rank in [Rank::Reader, Rank::Checkpoint] {
                if pace.take(rank, TURN, TURN, false).is_some() {
                    had.push(rank);
                    drop(Leave { pace: Some(&pace), bytes: 0 });
                    break;
                }
            }
        }
        assert_eq!(had, [Rank::Reader, Rank::Checkpoint, Rank::Reader, Rank::Checkpoint]);
        pace.readers.leave(&mut reader);
        assert_eq!(pace.take(Rank::Checkpoint, TURN, TURN, false), Some(TURN), "nobody else waits");
    }
}
