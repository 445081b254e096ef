//! Damage: every bit of a small data directory is flipped, one at a time, every file cut at every block, and taken away.
//! The engine starts on it on the simulated disk and everything is read; the same files are verified on a real one.
//!
//! Never a panic, never a wrong record, never silence: see [`Verdict`].

mod judge;
mod meaning;
mod node;
mod site;

pub use judge::Verdict;
pub use site::{Expected, Site};

use crate::interrupt;
use crate::process::scratch;
use corelog_engine::log::dump::{Finding, Summary, verify};
use corelog_engine::reactor::sim::Random;
use judge::{Judgement, look_twice};
use meaning::Meaning;
use node::Node;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a disk writes as one: where one holds a byte that is not zero, all its bits are flipped, else some.
const SECTOR: usize = 512;
/// Of the bits of sectors of zeros, one in so many is flipped.
const ZEROS_ONE_IN: usize = 2048;
const BLOCK: usize = 4096;

/// One thing that a disk does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A bit turns over: the byte's position, the bit's number in it.
    Flipped(usize, u8),
    /// The file ends here.
    Cut(usize),
    /// The file is gone.
    Removed,
}

/// Damage to one file, by its path below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Which file.
    pub path: PathBuf,
    /// What became of it.
    pub how: How,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.how {
            How::Flipped(position, bit) => write!(f, "{path}:flip:{position}:{bit}"),
            How::Cut(length) => write!(f, "{path}:cut:{length}"),
            How::Removed => write!(f, "{path}:removed"),
        }
    }
}

impl std::str::FromStr for Damage {
    type Err = String;

    fn from_str(text: &str) -> Result<Damage, String> {
        let wrong = || format!("{text} is not like node:flip:17:3, node:cut:4096 or node:removed");
        let parts: Vec<&str> = text.split(':').collect();
        let number = |text: &str| text.parse().map_err(|_| wrong());
        let (path, how) = match parts[..] {
            [path, "flip", position, bit] => {
                let bit = bit.parse().ok().filter(|bit| *bit < 8).ok_or_else(wrong)?;
                (path, How::Flipped(number(position)?, bit))
            }
            [path, "cut", length] => (path, How::Cut(number(length)?)),
            [path, "removed"] => (path, How::Removed),
            _ => return Err(wrong()),
        };
        Ok(Damage { path: path.into(), how })
    }
}

impl Damage {
    /// Whether there is something at that place.
    fn check(&self, site: &Site) -> Result<(), String> {
        let names = || site.files.keys().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let Some(bytes) = site.files.get(&self.path) else {
            return Err(format!("there is no {} here, but {}", self.path.display(), names()));
        };
        match self.how {
            How::Flipped(at, _) | How::Cut(at) if at >= bytes.len() => {
                Err(format!("{} has {} bytes, and {at} is not one of them", self.path.display(), bytes.len()))
            }
            _ => Ok(()),
        }
    }

    /// The file as it is then; nothing if it is gone.
    pub fn apply(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        match self.how {
            How::Flipped(position, bit) => bytes[position] ^= 1 << bit,
            How::Cut(length) => bytes.truncate(length),
            How::Removed => return None,
        }
        Some(bytes)
    }
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides the order.
    pub seed: u64,
    /// Only this damage.
    pub only: Option<Damage>,
    /// None is begun after this time.
    pub time: Option<Duration>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// How much damage there is to be done.
    pub all: usize,
    /// How much was done, by how it ended.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// Where bytes are that mean nothing: flips there were harmless. By file.
    pub harmless: BTreeMap<PathBuf, Vec<Range<usize>>>,
    /// What did not end well.
    pub failures: Vec<(Damage, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, ranges) in &self.harmless {
            let shown: Vec<String> = ranges.iter().map(|range| format!("{}..{}", range.start, range.end)).collect();
            writeln!(f, "harmless: {} {}", path.display(), shown.join(" "))?;
        }
        for (verdict, count) in &self.verdicts {
            writeln!(f, "{count:>9} {verdict:?}")?;
        }
        let done: usize = self.verdicts.values().sum::<usize>() + self.failures.len();
        write!(f, "{done} of {} damages, {} failed", self.all, self.failures.len())
    }
}

/// Damages the directory in all ways, on all cores, in an order that the seed decides, and tells of its progress.
///
/// # Errors
/// When the only damage that is asked for cannot be done.
pub fn run(options: &Options) -> Result<Report, String> {
    let site = Site::make();
    if let Some(only) = &options.only {
        only.check(&site)?;
    }
    let all = options.only.clone().map_or_else(|| damages(&site, options.seed), |only| vec![only]);
    let report = Mutex::new(Report { all: all.len(), ..Report::default() });
    let (queue, began) = (Mutex::new(all.into_iter()), Instant::now());
    let work = || {
        let bench = Bench::new();
        while options.time.is_none_or(|time| began.elapsed() < time) && !interrupt::is_asked() {
            let Some(damage) = queue.lock().expect("the queue").next() else { return };
            let verdict = bench.try_out(&damage);
            report.lock().expect("the report").take(damage, verdict, began);
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores).for_each(|_| drop(scope.spawn(work)));
    });
    Ok(report.into_inner().expect("the report"))
}

/// Everything that is done to the files: first what is cut or taken away, then bits, in an order that the seed decides.
pub fn damages(site: &Site, seed: u64) -> Vec<Damage> {
    let mut all = every_damage(site);
    let mut random = Random::new(seed);
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
    all.sort_by_key(|damage| matches!(damage.how, How::Flipped(..)));
    all
}

fn every_damage(site: &Site) -> Vec<Damage> {
    let mut all = Vec::new();
    for (path, bytes) in &site.files {
        let damage = |how| Damage { path: path.clone(), how };
        for (at, sector) in (0..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
            let step = if sector.iter().all(|byte| *byte == 0) { ZEROS_ONE_IN } else { 1 };
            let bits = (0..sector.len() * 8).step_by(step);
            all.extend(bits.map(|bit| damage(How::Flipped(at + bit / 8, (bit % 8) as u8))));
        }
        all.extend((0..bytes.len()).step_by(BLOCK).map(|length| damage(How::Cut(length))));
        all.push(damage(How::Removed));
    }
    all
}

/// Where damage is tried out: the files once more, on a real disk.
struct Bench {
    site: Site,
    directory: TempDir,
    /// What the verification says of the whole files.
    usual: Vec<Finding>,
    meaning: Meaning,
}

impl Bench {
    fn new() -> Bench {
        let (site, directory) = (Site::make(), scratch());
        site.write(directory.path());
        let (usual, summary) = findings(directory.path()).expect("whole files can be verified");
        assert!(summary.is_sound(), "whole files are sound: {usual:?}");
        let meaning = Meaning::of(directory.path());
        Bench { site, directory, usual, meaning }
    }

    fn try_out(&self, damage: &Damage) -> Result<Verdict, String> {
        let Damage { path, .. } = damage;
        let whole = self.site.files.get(path).ok_or("there is no such file")?;
        let damaged = damage.apply(whole);
        let findings = self.verify(damage, whole).map_err(|error| error.to_string())?;
        let mut files = self.site.files.clone();
        match &damaged {
            Some(bytes) => files.insert(path.clone(), bytes.clone()),
            None => files.remove(path),
        };
        let node = Node::new(2, &files);
        let looks = look_twice(&self.site, &node)?;
        let judgement = Judgement { site: &self.site, path, findings, root: self.directory.path() };
        match (judgement.judge(&looks)?, damage.how) {
            (Verdict::Harmless, How::Flipped(position, _)) if self.meaning.has(path, position) => {
                Err("nobody notices, and the byte means something".into())
            }
            (verdict, _) => Ok(verdict),
        }
    }

    /// What the verification says of the damage, or why it cannot look.
    fn verify(&self, damage: &Damage, whole: &[u8]) -> io::Result<Result<Vec<Finding>, String>> {
        let real = self.directory.path().join(&damage.path);
        match damage.how {
            How::Flipped(position, bit) => write_byte(&real, position, whole[position] ^ 1 << bit)?,
            How::Cut(length) => fs::write(&real, &whole[..length])?,
            How::Removed => fs::remove_file(&real)?,
        }
        let found = findings(self.directory.path());
        match damage.how {
            How::Flipped(position, _) => write_byte(&real, position, whole[position])?,
            How::Cut(_) | How::Removed => fs::write(&real, whole)?,
        }
        let is_new = |finding: &Finding| {
            !self.usual.iter().any(|usual| (&usual.path, &usual.what) == (&finding.path, &finding.what))
        };
        Ok(found.map(|(found, _)| found.into_iter().filter(is_new).collect()))
    }
}

fn write_byte(path: &Path, position: usize, byte: u8) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.write_all_at(&[byte], position as u64)
}

/// All findings, and the summary.
///
/// # Errors
/// Why the directory cannot be verified at all.
fn findings(root: &Path) -> Result<(Vec<Finding>, Summary), String> {
    let mut found = Vec::new();
    let summary = verify(root, &mut |finding| {
        found.push(finding);
        Ok(())
    });
    summary.map(|summary| (found, summary)).map_err(|error| error.to_string())
}

impl Report {
    fn take(&mut self, damage: Damage, verdict: Result<Verdict, String>, began: Instant) {
        match verdict {
            Ok(verdict) => {
                *self.verdicts.entry(verdict).or_default() += 1;
                if let (Verdict::Harmless, How::Flipped(position, _)) = (verdict, damage.how) {
                    add(self.harmless.entry(damage.path).or_default(), position);
                }
            }
            Err(why) => {
                println!("{damage}: {why}");
                self.failures.push((damage, why));
            }
        }
        let done: usize = self.verdicts.values().sum::<usize>() + self.failures.len();
        if done.is_multiple_of(10_000) {
            println!("{done} of {} in {:.0?}, {} failed", self.all, began.elapsed(), self.failures.len());
        }
    }
}

/// Adds a byte to ranges that are in order; those in one sector become one.
fn add(ranges: &mut Vec<Range<usize>>, position: usize) {
    let near = |range: &Range<usize>| {
        range.start / SECTOR <= position / SECTOR + 1 && position / SECTOR <= range.end / SECTOR + 1
    };
    let mut joined = position..position + 1;
    ranges.retain(|range| {
        let is_near = near(range);
        if is_near {
            joined = joined.start.min(range.start)..joined.end.max(range.end);
        }
        !is_near
    });
    ranges.push(joined);
    ranges.sort_by_key(|range| range.start);
}
