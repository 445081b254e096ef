//! The shard's side of its journal: where it is written next, what of it is durable, and what is free.

use crate::log::frame::{Checksum, Nonce, Sequence};
use crate::log::journal::JournalPosition;
use crate::reactor::File;
use std::path::PathBuf;
use std::rc::Rc;

/// Where the journal is written next, and what of it is durable, and free.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) file: Option<Rc<File>>,
    pub(super) path: PathBuf,
    /// Size of the file; entries go round in it.
    pub(super) bytes: u64,
    pub(super) nonce: Nonce,
    /// Where the next entry goes.
    pub(super) next: JournalPosition,
    /// The next entry's number.
    pub(super) sequence: Sequence,
    /// Checksum of the last entry built.
    pub(super) previous: Checksum,
    /// The last entry that is as durable as its partitions ask, with all before it.
    pub(super) durable: Sequence,
    /// The last entry that is on stable storage with all before it. Entries claim this one, not `durable`: what was
    /// only handed to the device may be missing after a power cut without being damaged.
    pub(super) flushed: Sequence,
    /// What entries without a flush have left for the next flush.
    pub(super) debt: Debt,
    /// Bytes of those entries.
    pub(super) unflushed: u64,
    /// Entries before this position are in a durable checkpoint; their space can be used again.
    pub(super) free_from: JournalPosition,
}

impl Journal {
    /// No journal yet.
    pub(super) fn closed() -> Journal {
        Journal {
            file: None,
            path: PathBuf::new(),
            bytes: 0,
            nonce: Nonce(0),
            next: JournalPosition(0),
            sequence: Sequence(1),
            previous: Checksum(0),
            durable: Sequence(0),
            flushed: Sequence(0),
            debt: Debt::None,
            unflushed: 0,
            free_from: JournalPosition(0),
        }
    }

    /// What a flushed entry has to pay for; an entry that is not flushed adds to it.
    pub(super) fn take_debt(&mut self, flush: bool, is_direct: bool) -> Debt {
        if flush {
            return std::mem::replace(&mut self.debt, Debt::None);
        }
        self.debt = self.debt.max(if is_direct { Debt::Segments } else { Debt::Entries });
        Debt::None
    }

    pub(super) fn used(&self) -> u64 {
        self.next.0 - self.free_from.0
    }
}

/// What must be flushed besides an entry itself before the entry counts: a lost entry before it would end recovery, and
/// a write that is durable in itself covers no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Debt {
    None,
    /// Entries before it.
    Entries,
    /// Entries before it, and blocks that they wrote to segments.
    Segments,
}
