//! What the operating system lets this process have, raised as far as it may go without asking, and how shards share it.

use crate::limits::{CONNECTIONS_MAX, PIPES_MAX, RECEIVE_BUFFERS, RING_ENTRIES, SEGMENT_FILES_MAX, SEGMENT_FILES_MIN};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fmt;

/// File descriptors of a shard beside those of connections and segments: journal, checkpoint, ring, directories, pipes.
const OTHER_FILES: u64 = 64;
const _: () = assert!(3 * PIPES_MAX as u64 + 16 <= OTHER_FILES, "a pipe has two ends, and a file is read into it");
/// Least connections of a shard that make sense.
const CONNECTIONS_MIN: u64 = 16;
/// Least entries of a ring that make sense.
const RING_ENTRIES_MIN: u32 = 32;
const PAGE: u64 = 4096;

/// Limits of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimits {
    /// Descriptors that may be open.
    pub files: u64,
    /// Memory that may be locked, in bytes. A process with the right to lock more may have more.
    pub locked: u64,
}

/// Too few files may be open. The operator has to allow more or run fewer shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {files} files open; with {shards} shard{} it must be at least {least}: run `ulimit -n {least}` \
     (or LimitNOFILE=) before the server, better with 65536",
    if *.shards == 1 { "" } else { "s" }
)]
pub struct TooFewFiles {
    /// Descriptors that may be open.
    pub files: u64,
    /// For how many shards.
    pub shards: u16,
    /// What would do.
    pub least: u64,
}

/// That shards do with less than they could use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Of what.
    pub name: &'static str,
    /// How much there is.
    pub found: String,
    /// What that means, and what to do.
    pub what_to_do: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.found, self.what_to_do)
    }
}

impl Rlimits {
    /// The limits in force, once they are as high as the process may set them itself. Where that fails they stay as they
    /// are.
    pub fn raised() -> Rlimits {
        let raised = |resource, unknown| {
            let Ok((soft, hard)) = getrlimit(resource) else { return unknown };
            if setrlimit(resource, hard, hard).is_ok() { hard } else { soft }
        };
        Rlimits { files: raised(Resource::RLIMIT_NOFILE, 1024), locked: raised(Resource::RLIMIT_MEMLOCK, u64::MAX) }
    }

    /// Whether so many shards can run.
    pub fn check(&self, shards: u16) -> Result<(), TooFewFiles> {
        let least = u64::from(shards) * (CONNECTIONS_MIN + SEGMENT_FILES_MIN + OTHER_FILES);
        if self.files < least { Err(TooFewFiles { files: self.files, shards, least }) } else { Ok(()) }
    }

    /// Connections of each shard: what a shard's files leave, for those must always be possible.
    pub fn connections_max(&self, shards: u16) -> u32 {
        let left = (self.files / u64::from(shards)).saturating_sub(SEGMENT_FILES_MIN + OTHER_FILES);
        left.min(u64::from(CONNECTIONS_MAX)) as u32
    }

    /// What so many shards would have more of: for the operator.
    pub fn remarks(&self, shards: u16) -> Vec<Remark> {
        let (connections, entries) = (self.connections_max(shards), self.ring_entries(shards));
        let files = (connections < CONNECTIONS_MAX).then(|| Remark {
            name: "open files",
            found: self.files.to_string(),
            what_to_do: format!(
                "a shard takes {connections} connections instead of {CONNECTIONS_MAX}: run `ulimit -n 65536` (or \
                 LimitNOFILE=) before the server"
            ),
        });
        let locked = (entries < RING_ENTRIES).then(|| Remark {
            name: "locked memory",
            found: format!("{} KiB", self.locked / 1024),
            what_to_do: format!(
                "rings of {entries} entries instead of {RING_ENTRIES}: run `ulimit -l` with more (or LimitMEMLOCK=) \
                 before the server"
            ),
        });
        files.into_iter().chain(locked).collect()
    }

    /// Segment files that each shard may keep open: what connections and the rest leave.
    pub fn segment_files_max(&self, shards: u16) -> usize {
        let left = (self.files / u64::from(shards)).saturating_sub(u64::from(CONNECTIONS_MAX) + OTHER_FILES);
        left.clamp(SEGMENT_FILES_MIN, SEGMENT_FILES_MAX) as usize
    }

    /// Entries of each shard's ring: fewer than it should have where the memory that may be locked is not enough for the
    /// rings of all. One share is left to what else the process and its user lock.
    pub fn ring_entries(&self, shards: u16) -> u32 {
        let share = self.locked / (u64::from(shards) + 1);
        let mut entries = RING_ENTRIES;
        while entries > RING_ENTRIES_MIN && ring_locked_bytes(entries) > share {
            entries /= 2;
        }
        entries
    }
}

/// Memory that the kernel locks for a ring: 64 bytes for a submission, 16 for each of four times as many completions, and
/// the ring of receive buffers.
fn ring_locked_bytes(entries: u32) -> u64 {
    let entries = u64::from(entries);
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE);
    pages(64 * entries) + pages(4 * 16 * entries + 4 * entries + 256) + pages(16 * u64::from(RECEIVE_BUFFERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(files: u64, locked: u64) -> Rlimits {
        Rlimits { files, locked }
    }

    #[test]
    fn files_are_shared_out() {
        let plenty = allowed(1 << 20, u64::MAX);
        assert_eq!((plenty.connections_max(4), plenty.segment_files_max(4)), (1024, 4096));
        let few = allowed(1024, u64::MAX);
        assert_eq!((few.connections_max(2), few.segment_files_max(2)), (384, 64));
        assert_eq!((few.check(7), few.check(8).map_err(|error| error.least)), (Ok(()), Err(1152)));
        assert_eq!(few.connections_max(7), 18);
    }

    #[test]
    fn less_than_wanted_is_remarked_on() {
        assert_eq!(allowed(1 << 20, 8 << 20).remarks(2), []);
        let remarks = allowed(1024, 64 << 10).remarks(2).iter().map(Remark::to_string).collect::<Vec<_>>();
        assert!(remarks[0].contains("384 connections instead of 1024"), "{remarks:?}");
        assert!(remarks[1].starts_with("locked memory: 64 KiB: rings of 64 entries"), "{remarks:?}");
    }

    #[test]
    fn too_few_files_are_refused_in_one_sentence() {
        let error = allowed(40, u64::MAX).check(1).unwrap_err().to_string();
        assert!(
            error.contains("40 files") && error.contains("1 shard it") && error.contains("ulimit -n 144"),
            "{error}"
        );
    }

    #[test]
    fn rings_shrink_with_the_memory_that_may_be_locked() {
        let entries = |locked, shards| allowed(1 << 20, locked).ring_entries(shards);
        assert_eq!(entries(u64::MAX, 256), RING_ENTRIES);
        assert_eq!(entries(8 << 20, 2), RING_ENTRIES);
        for shards in [1, 2, 3] {
            let few = entries(64 << 10, shards);
            assert!(u64::from(shards) * ring_locked_bytes(few) <= 64 << 10, "{shards} shards with {few} entries");
        }
        assert_eq!(entries(0, 1), RING_ENTRIES_MIN);
    }

    #[test]
    fn limits_are_raised_to_what_is_allowed() {
        let raised = Rlimits::raised();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, raised.files), (hard, hard));
    }
}
