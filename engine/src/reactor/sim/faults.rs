//! What can go wrong with a node's disk: by chance, or at a chosen operation.

use super::random::Random;
use std::path::Path;

/// Kinds of disk operations, as faults and counters tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOp {
    /// Reading a file.
    Read,
    /// Writing a file, with or without DSYNC.
    Write,
    /// `sync_data`, `sync_dir` and `sync_fs`.
    Flush,
    /// Everything about names and space: open, create, rename, remove, list, allocate, truncate.
    Meta,
}

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error number. A write may have landed in part; a flush lets go of what it should have covered.
    Error(i32),
    /// A write that is acknowledged and never lands.
    Lost,
    /// A write that is acknowledged and lands elsewhere in its file.
    Misdirected,
    /// It takes this many nanoseconds longer.
    Slow(u64),
}

/// Faults of one node's disk. Chances are per million operations; all are 0 at first.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Reads that fail with EIO.
    pub read_error: u32,
    /// Writes that fail with EIO, in part done.
    pub write_error: u32,
    /// Flushes that fail with EIO.
    pub flush_error: u32,
    /// Operations on names and space that fail with EIO.
    pub meta_error: u32,
    /// Writes that are acknowledged and never land.
    pub lost_write: u32,
    /// Writes that land elsewhere in their file.
    pub misdirected_write: u32,
    /// The files in which those two happen by chance; in all of them if there is none.
    pub strays_in: Option<fn(&Path) -> bool>,
    /// Operations that take up to `slow_ns_max` longer.
    pub slow: u32,
    /// See `slow`.
    pub slow_ns_max: u64,
    /// Nothing completes until this is taken back (`World::release_disk`).
    pub hung: bool,
    script: Vec<Scripted>,
}

#[derive(Debug, Clone)]
struct Scripted {
    kind: DiskOp,
    skip: u64,
    fault: Fault,
}

impl Faults {
    /// The operation of this kind that comes after `skip` others of it fares so.
    pub fn script(&mut self, kind: DiskOp, skip: u64, fault: Fault) {
        self.script.push(Scripted { kind, skip, fault });
    }

    /// What goes wrong with the operation that begins now, if anything.
    pub(super) fn draw(&mut self, kind: DiskOp, file: Option<&Path>, random: &mut Random) -> Option<Fault> {
        if let Some(fault) = self.scripted(kind) {
            return Some(fault);
        }
        let error = match kind {
            DiskOp::Read => self.read_error,
            DiskOp::Write => self.write_error,
            DiskOp::Flush => self.flush_error,
            DiskOp::Meta => self.meta_error,
        };
        if random.chance(error) {
            return Some(Fault::Error(libc::EIO));
        }
        let may_stray = self.strays_in.is_none_or(|strays_in| file.is_some_and(strays_in));
        if kind == DiskOp::Write && random.chance(self.lost_write) && may_stray {
            return Some(Fault::Lost);
        }
        if kind == DiskOp::Write && random.chance(self.misdirected_write) && may_stray {
            return Some(Fault::Misdirected);
        }
        random.chance(self.slow).then(|| Fault::Slow(random.below(self.slow_ns_max)))
    }

    fn scripted(&mut self, kind: DiskOp) -> Option<Fault> {
        let mut met = None;
        self.script.retain_mut(|entry| {
            if entry.kind != kind {
                return true;
            }
            if entry.skip == 0 && met.is_none() {
                met = Some(entry.fault);
                return false;
            }
            entry.skip = entry.skip.saturating_sub(1);
            true
        });
        met
    }
}

/// What has happened on a node so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Reads that landed.
    pub reads: u64,
    /// Writes that landed.
    pub writes: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// `sync_data`, `sync_dir` and `sync_fs` that landed.
    pub flushes: u64,
    /// Writes with DSYNC that landed.
    pub durable_writes: u64,
    /// Other disk operations that landed.
    pub metas: u64,
    /// Errors injected.
    pub errors: u64,
    /// Writes lost or misdirected.
    pub strays: u64,
    /// Operations slowed down.
    pub slowed: u64,
    /// Crashes of the node's processes.
    pub kills: u64,
    /// Losses of its power.
    pub power_cuts: u64,
}
