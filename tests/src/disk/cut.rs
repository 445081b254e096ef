//! Power cuts: what a disk holds when its power goes at some entry of its log.
//!
//! All writes before the last flush are there. Of those after it any may be there, none, or some sectors of each.

use super::log::{Entry, SECTOR, WriteLog};
use super::{Result, image};
use crate::chance::Chance;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Of this many writes that the power cut met, one is torn.
const TORN_ONE_IN: u64 = 6;

/// A power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// So many entries of the log came before it.
    pub point: usize,
    /// Chooses which unflushed writes survive.
    pub seed: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut at {} with seed {}", self.point, self.seed)
    }
}

/// What became of the writes after the last flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survivors {
    /// Writes that are there.
    pub whole: usize,
    /// Writes of which some sectors are there.
    pub torn: usize,
    /// Writes that are not there.
    pub lost: usize,
}

/// Follows a log on an image of what is stable. Cuts are had in the order of their points.
pub struct Replay<'a> {
    log: &'a WriteLog,
    stable: PathBuf,
    file: File,
    at: usize,
    /// Writes that no flush covers, as places in the log.
    pending: Vec<usize>,
    /// From this entry on flushes do nothing.
    deaf_from: usize,
}

impl<'a> Replay<'a> {
    /// Begins with `stable`, an image as it was before the log's first entry, which is written to.
    pub fn new(log: &'a WriteLog, stable: &Path) -> Result<Replay<'a>> {
        let file = File::options().read(true).write(true).open(stable)?;
        Ok(Replay { log, stable: stable.to_owned(), file, at: 0, pending: Vec::new(), deaf_from: usize::MAX })
    }

    /// A disk that says yes to flushes and does nothing, from entry `from` on: what the rig must find out about.
    pub fn deaf_from(mut self, from: usize) -> Replay<'a> {
        self.deaf_from = from;
        self
    }

    /// Goes on to `point`; `mark` is told the marks before it.
    pub fn advance(&mut self, point: usize, mut mark: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.at < point {
            let entry = self.log.entries()[self.at];
            if entry.is_mark() {
                mark(&self.log.data(&entry)?)?;
            } else {
                self.take(&entry)?;
            }
            self.at += 1;
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry) -> Result<()> {
        let hears = self.at < self.deaf_from;
        if entry.is_flush() && hears {
            for place in std::mem::take(&mut self.pending) {
                self.write(&self.file, place)?;
            }
        }
        if entry.bytes == 0 {
            return Ok(());
        }
        if entry.is_forced() && hears {
            return self.write(&self.file, self.at);
        }
        self.pending.push(self.at);
        Ok(())
    }

    fn write(&self, to: &File, place: usize) -> Result<()> {
        let entry = self.log.entries()[place];
        Ok(to.write_all_at(&self.log.data(&entry)?, entry.offset)?)
    }

    /// Writes the image that a power cut here leaves to `to`. Without `tears` writes that would be torn are there whole.
    pub fn cut(&self, seed: u64, to: &Path, tears: bool) -> Result<Survivors> {
        image::copy(&self.stable, to)?;
        let image = File::options().write(true).open(to)?;
        let mut chance = Chance(seed);
        // From a cache that wrote nothing to one that wrote nearly all: eighths.
        let kept = [0, 1, 4, 7, 8][chance.below(5) as usize];
        let mut survivors = Survivors::default();
        for &place in &self.pending {
            if chance.one_in(TORN_ONE_IN) {
                survivors.torn += 1;
                self.tear(&image, place, &mut chance)?;
                if !tears {
                    self.write(&image, place)?;
                }
            } else if chance.below(8) < kept {
                survivors.whole += 1;
                self.write(&image, place)?;
            } else {
                survivors.lost += 1;
            }
        }
        Ok(survivors)
    }

    fn tear(&self, image: &File, place: usize, chance: &mut Chance) -> Result<()> {
        let entry = self.log.entries()[place];
        let data = self.log.data(&entry)?;
        for (number, sector) in data.chunks(SECTOR as usize).enumerate() {
            if chance.one_in(2) {
                image.write_all_at(sector, entry.offset + number as u64 * SECTOR)?;
            }
        }
        Ok(())
    }
}
