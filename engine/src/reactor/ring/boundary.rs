//! Ends the process at a boundary between two operations that change the disk: right before one is handed over, with all
//! before it submitted, or when it is done and before anybody is told. Only with the feature `planted`, which no product
//! build has; without it both calls are empty.
//!
//! Each entry for the kernel counts: a write that is made durable by a flush of its own is two. Closing is left out: it
//! gives back the blocks of a file whose name is gone, which the end of the process does as well.

use super::RingDriver;
use crate::reactor::ops::{Op, OpId};

#[cfg(feature = "planted")]
pub use planted::{Boundary, Side, end_at, handed_over};

#[cfg(feature = "planted")]
mod planted {
    use crate::reactor::file::Open;
    use crate::reactor::ops::{Op, OpId};
    use nix::sys::signal::{Signal, raise};
    use std::cell::Cell;
    use std::str::FromStr;
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// On which side of an operation the process ends.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Side {
        /// Before it is handed over.
        Before,
        /// When it is done, before anybody is told.
        After,
    }

    /// One side of one operation. Written as `17:before`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Boundary {
        /// Which operation of the process, from 1.
        pub number: u64,
        /// Which side of it.
        pub side: Side,
    }

    impl FromStr for Boundary {
        type Err = String;

        fn from_str(text: &str) -> Result<Boundary, String> {
            let (number, side) = match text.split_once(':') {
                Some((number, "before")) => (number, Side::Before),
                Some((number, "after")) => (number, Side::After),
                _ => return Err("a boundary is like 17:before or 17:after".into()),
            };
            Ok(Boundary { number: number.parse().map_err(|error| format!("{number}: {error}"))?, side })
        }
    }

    impl std::fmt::Display for Boundary {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}:{}", self.number, if self.side == Side::Before { "before" } else { "after" })
        }
    }

    static CHOSEN: OnceLock<Boundary> = OnceLock::new();
    static HANDED_OVER: Mutex<Vec<&str>> = Mutex::new(Vec::new());

    thread_local! {
        /// The operation of this thread's ring at whose completion the process ends.
        static AWAITED: Cell<Option<OpId>> = const { Cell::new(None) };
    }

    /// Has this process end there. The first call counts.
    pub fn end_at(boundary: Boundary) {
        let _ = CHOSEN.set(boundary);
    }

    /// The operations that change the disk that this process has handed over, in that order: what each one does.
    pub fn handed_over() -> Vec<&'static str> {
        HANDED_OVER.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts an operation. Whether the process is to end before it.
    pub(super) fn ends_before(id: OpId, op: &Op) -> bool {
        let Some(what) = change(op) else { return false };
        let number = {
            let mut handed_over = HANDED_OVER.lock().unwrap_or_else(PoisonError::into_inner);
            handed_over.push(what);
            handed_over.len() as u64
        };
        let here = CHOSEN.get().filter(|chosen| chosen.number == number);
        if here.is_some_and(|chosen| chosen.side == Side::After) {
            AWAITED.set(Some(id));
        }
        here.is_some_and(|chosen| chosen.side == Side::Before)
    }

    pub(super) fn ends_after(id: OpId) -> bool {
        AWAITED.get() == Some(id)
    }

    /// The kernel takes the process down before the call returns.
    pub(super) fn end() {
        let _ = raise(Signal::SIGKILL);
    }

    /// What an operation does to the disk, if it does anything to it.
    fn change(op: &Op) -> Option<&'static str> {
        Some(match op {
            Op::Open { how: Open::Create | Open::CreateNew, .. } => "create a file",
            Op::CreateDir { .. } => "create a directory",
            Op::Rename { .. } => "rename",
            Op::RemoveFile { .. } => "remove a file",
            Op::RemoveDir { .. } => "remove a directory",
            Op::SyncDir { .. } => "sync a directory",
            Op::SyncFs { .. } => "sync the file system",
            Op::LockFile { .. } => "lock",
            Op::Write { .. } => "write",
            Op::SyncData { .. } => "sync a file",
            Op::Allocate { .. } => "allocate",
            Op::Truncate { .. } => "truncate",
            Op::Open { .. }
            | Op::ListDir { .. }
            | Op::FreeSpace { .. }
            | Op::Read { .. }
            | Op::Length { .. }
            | Op::Allocated { .. }
            | Op::Listen { .. }
            | Op::Connect { .. }
            | Op::Send { .. }
            | Op::Pipe
            | Op::Splice { .. } => return None,
        })
    }
}

impl RingDriver {
    /// Called right before an operation is handed to the kernel, or to the helper.
    #[cfg(feature = "planted")]
    pub(super) fn before_handing_over(&mut self, id: OpId, op: &Op) {
        if planted::ends_before(id, op) {
            self.queue.submit_first(&crate::reactor::Counters::default());
            planted::end();
        }
    }

    /// Called when an operation's completion is seen.
    #[cfg(feature = "planted")]
    pub(super) fn after_completion(&self, id: OpId) {
        if planted::ends_after(id) {
            planted::end();
        }
    }

    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    pub(super) fn before_handing_over(&mut self, _: OpId, _: &Op) {}

    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    pub(super) fn after_completion(&self, _: OpId) {}
}
