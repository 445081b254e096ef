//! What happened in a recording: a rig whose server never went around its journal proves nothing about that.

use crate::disk::Result;
use crate::disk::log::WriteLog;
use corelog_engine::log::journal::{self, Expected, Section};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const BLOCK: usize = 4096;

/// How often each of the things happened that a power cut is to meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Entries of journals.
    pub commits: usize,
    /// Times that a journal was gone around.
    pub wraps: u64,
    /// Groups of checkpoints.
    pub checkpoints: usize,
    /// Runs of blocks that went to a segment directly.
    pub direct: usize,
    /// Segments begun in a partition that had one.
    pub rolls: usize,
    /// Segments written to a retired segment's file.
    pub recycled: usize,
    /// Records that retention took.
    pub retained: i64,
    /// Records that were deleted by request.
    pub deleted_records: i64,
    /// Topics created.
    pub created: usize,
    /// Topics deleted.
    pub deleted: usize,
    /// Starts of a server whose predecessor was killed.
    pub recoveries: usize,
}

impl Met {
    fn parts(&self) -> [(&'static str, u64); 11] {
        [
            ("commits", self.commits as u64),
            ("journal wraps", self.wraps),
            ("checkpoints", self.checkpoints as u64),
            ("direct writes", self.direct as u64),
            ("segment rolls", self.rolls as u64),
            ("recycled segments", self.recycled as u64),
            ("records past retention", self.retained.max(0) as u64),
            ("records deleted", self.deleted_records.max(0) as u64),
            ("topics created", self.created as u64),
            ("topics deleted", self.deleted as u64),
            ("recoveries", self.recoveries as u64),
        ]
    }

    /// What did not happen.
    pub fn missing(&self) -> Vec<&'static str> {
        self.parts().iter().filter(|(_, count)| *count == 0).map(|(what, _)| *what).collect()
    }

    /// Adds another recording's.
    pub fn add(&mut self, other: &Met) {
        self.commits += other.commits;
        self.wraps += other.wraps;
        self.checkpoints += other.checkpoints;
        self.direct += other.direct;
        self.rolls += other.rolls;
        self.recycled += other.recycled;
        self.retained += other.retained;
        self.deleted_records += other.deleted_records;
        self.created += other.created;
        self.deleted += other.deleted;
        self.recoveries += other.recoveries;
    }

    /// Counts what the log of the disk shows.
    pub(super) fn look_at(&mut self, log: &WriteLog, journal_bytes: u64) -> Result<()> {
        for entry in log.entries().iter().filter(|entry| !entry.is_mark() && entry.bytes >= BLOCK as u64) {
            let data = log.data(entry)?;
            for at in (0..data.len()).step_by(BLOCK) {
                self.look_at_block(&data[at..], journal_bytes);
            }
        }
        Ok(())
    }

    fn look_at_block(&mut self, bytes: &[u8], journal_bytes: u64) {
        if bytes.starts_with(b"CLCG") {
            self.checkpoints += 1;
        }
        let Some(head) = bytes.starts_with(b"CLJE").then(|| journal::peek(bytes)).flatten() else { return };
        self.commits += 1;
        self.wraps = self.wraps.max(head.header.position.0 / journal_bytes);
        let journal::EntryHeader { nonce, sequence, position, previous, .. } = head.header;
        let whole = bytes.get(..head.length).unwrap_or_default();
        let Ok(entry) = journal::parse(whole, &Expected { nonce, sequence, position, previous }) else { return };
        let is_direct =
            |section: &Section<'_>| matches!(section, Section::Append { append, .. } if !append.is_inline());
        self.direct += entry.sections().filter(is_direct).count();
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (what, count)) in self.parts().iter().enumerate() {
            write!(f, "{}{what} {count}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Follows the segment files of a server while it works.
#[derive(Default)]
pub(super) struct Segments {
    /// Where each file was last, by inode: a retired one keeps it.
    files: BTreeMap<u64, Place>,
    /// Segments of each partition's directory.
    pub(super) rolls: usize,
    pub(super) recycled: usize,
}

#[derive(PartialEq)]
enum Place {
    Partition,
    Retired,
}

impl Segments {
    /// Looks at the data directory once. What goes while it looks is looked at next time.
    pub(super) fn look(&mut self, data: &Path) {
        for topic in entries(&data.join("topics")) {
            for partition in entries(&topic) {
                let segments: Vec<_> = entries(&partition)
                    .into_iter()
                    .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
                    .collect();
                segments.iter().for_each(|segment| self.see(segment, segments.len()));
            }
        }
        for generation in entries(data) {
            for shard in entries(&generation) {
                for retired in entries(&shard.join("recycled")) {
                    if let Ok(meta) = fs::metadata(&retired) {
                        self.files.insert(meta.ino(), Place::Retired);
                    }
                }
            }
        }
    }

    fn see(&mut self, segment: &Path, in_partition: usize) {
        let Ok(meta) = fs::metadata(segment) else { return };
        match self.files.entry(meta.ino()) {
            Entry::Occupied(mut seen) if *seen.get() == Place::Retired => {
                self.recycled += 1;
                self.rolls += usize::from(in_partition > 1);
                seen.insert(Place::Partition);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(new) => {
                self.rolls += usize::from(in_partition > 1);
                new.insert(Place::Partition);
            }
        }
    }
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).map(|found| found.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
