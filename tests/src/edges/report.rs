//! What came of honest clients beside a crowd, and whether that is what is promised.

use super::crowd::Numbers;
use super::flood::BATCH_BYTES;
use super::guest::Kind;
use super::honest::{Answers, Sample};
use super::newcomer::Told;
use std::fmt;
use std::time::Duration;

/// How much longer others may take beside a crowd, at the 99th percentile.
const RATIO_MAX: f64 = 2.0;
/// A flood that got less than this of what it was allowed was not over it.
const PART_OF_LIMIT_MIN: f64 = 0.7;
/// Files that a server has open at work and not at rest, a new checkpoint beside the old one for example. What a crowd leaves is
/// one descriptor for each of its connections, of which it has eight at least.
const BUSY_FILES: usize = 4;

/// Who was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Alone,
    Beside,
}

/// A time, since the epoch of its run, in which one part of it was under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) part: Part,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// What is not as it is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Honest clients were not answered, or were refused.
    Answers,
    /// The server took more memory than it was given.
    Memory,
    /// Descriptors stayed open.
    Descriptors,
    /// Honest clients waited more than twice as long.
    Latency,
    /// The crowd was not what it should be: producers did not get to their limit, so that nobody knows about those over it.
    Crowd,
}

/// One kind of crowd.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub kind: Kind,
    /// What became of it.
    pub numbers: Numbers,
    /// What clients were told that came meanwhile.
    pub newcomers: Told,
    pub(super) windows: Vec<Window>,
    /// What honest clients got.
    pub answers: Answers,
    /// The most memory that the server had.
    pub peak_bytes: u64,
    /// What it was given.
    pub memory: u64,
    /// What each producer was allowed, bytes a second.
    pub produce_rate: Option<u64>,
    /// The server's open descriptors but those of segments, before the first crowd and after the last: the most there were.
    pub descriptors: (usize, usize),
}

impl Row {
    /// What did not hold.
    pub fn faults(&self) -> Vec<Fault> {
        let (before, after) = self.descriptors;
        let wrong = [
            (!self.answers.are_complete(), Fault::Answers),
            (self.peak_bytes > self.memory, Fault::Memory),
            (after > before + BUSY_FILES, Fault::Descriptors),
            (self.acknowledged().ratio() > RATIO_MAX || self.read().ratio() > RATIO_MAX, Fault::Latency),
            (self.part_of_limit().is_some_and(|part| part < PART_OF_LIMIT_MIN), Fault::Crowd),
        ];
        wrong.into_iter().filter_map(|(is_wrong, fault)| is_wrong.then_some(fault)).collect()
    }

    /// What each of a flood's producers got, bytes a second.
    pub fn flood_rate(&self) -> f64 {
        let beside = self.windows.iter().filter(|window| window.part == Part::Beside);
        let time: Duration = beside.map(|window| window.to - window.from).sum();
        let bytes = self.numbers.acknowledged as f64 * BATCH_BYTES as f64;
        bytes / time.as_secs_f64().max(f64::MIN_POSITIVE) / self.kind.connections() as f64
    }

    fn part_of_limit(&self) -> Option<f64> {
        let rate = self.produce_rate.filter(|_| self.kind == Kind::Flood)?;
        Some(self.flood_rate() / rate as f64)
    }

    fn acknowledged(&self) -> Pair {
        self.pair(&self.answers.acknowledged)
    }

    fn read(&self) -> Pair {
        self.pair(&self.answers.read)
    }

    fn pair(&self, samples: &[Sample]) -> Pair {
        let of = |part| p99(samples.iter().filter(|sample| self.part_at(sample.due) == Some(part)));
        Pair { alone: of(Part::Alone), beside: of(Part::Beside) }
    }

    fn part_at(&self, at: Duration) -> Option<Part> {
        self.windows.iter().find(|window| window.from <= at && at < window.to).map(|window| window.part)
    }

    /// The heading over rows.
    pub const HEADING: &str = "\
kind            connections   newcomers  acknowledged, p99 ms       read, p99 ms               memory MiB   descriptors
              at once/in all welcomed/all  alone beside ratio       alone beside ratio         peak/given   before/after  verdict";
}

/// The time that 99 of 100 did not exceed.
fn p99<'a>(samples: impl Iterator<Item = &'a Sample>) -> Duration {
    let mut times: Vec<_> = samples.map(|sample| sample.took).collect();
    times.sort_unstable();
    let rank = (times.len() * 99).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The same alone and beside a crowd.
struct Pair {
    alone: Duration,
    beside: Duration,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.beside.as_secs_f64() / self.alone.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "{:6.2} {:6.2} {:5.2}", ms(self.alone), ms(self.beside), self.ratio())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = format!("{}/{}", self.numbers.standing, self.numbers.made);
        let newcomers = format!("{}/{}", self.newcomers.welcomed, self.newcomers.came);
        let memory = format!("{}/{}", self.peak_bytes >> 20, self.memory >> 20);
        let descriptors = format!("{}/{}", self.descriptors.0, self.descriptors.1);
        let faults: Vec<_> = self.faults().iter().map(Fault::to_string).collect();
        let verdict = if faults.is_empty() { "held".to_owned() } else { format!("NOT HELD: {}", faults.join(", ")) };
        let (acknowledged, read) = (self.acknowledged(), self.read());
        write!(f, "{:13} {connections:>14} {newcomers:>12}  {acknowledged}       {read}", self.kind)?;
        write!(f, "     {memory:>12}   {descriptors:>12}  {verdict}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Answers => "answers",
            Fault::Memory => "memory",
            Fault::Descriptors => "descriptors",
            Fault::Latency => "p99",
            Fault::Crowd => "not at the limit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(took: impl IntoIterator<Item = u64>, due: u64) -> Vec<Sample> {
        let (due, ms) = (Duration::from_secs(due), Duration::from_millis);
        took.into_iter().map(|took| Sample { due, took: ms(took) }).collect()
    }

    fn row(beside_ms: u64) -> Row {
        let window = |part, from, to| Window { part, from: Duration::from_secs(from), to: Duration::from_secs(to) };
        let acknowledged = [samples(1..=100, 1), samples([beside_ms; 10], 3), samples([9999; 50], 5)].concat();
        Row {
            kind: Kind::Silent,
            numbers: Numbers::default(),
            newcomers: Told::default(),
            windows: vec![window(Part::Alone, 0, 2), window(Part::Beside, 2, 4)],
            answers: Answers { read: acknowledged.clone(), acknowledged, failures: Vec::new() },
            peak_bytes: 5,
            memory: 5,
            produce_rate: None,
            descriptors: (7, 7),
        }
    }

    #[test]
    fn what_holds_is_told_from_what_does_not() {
        assert_eq!(row(198).faults(), []);
        assert_eq!(row(199).faults(), [Fault::Latency]);
        assert_eq!(Row { peak_bytes: 6, ..row(1) }.faults(), [Fault::Memory]);
        assert_eq!(Row { descriptors: (7, 11), ..row(1) }.faults(), []);
        assert_eq!(Row { descriptors: (7, 12), ..row(1) }.faults(), [Fault::Descriptors]);
        let flood = |acknowledged| Row {
            kind: Kind::Flood,
            numbers: Numbers { acknowledged, ..Numbers::default() },
            produce_rate: Some(BATCH_BYTES as u64),
            ..row(1)
        };
        // Eight producers, two seconds, a batch a second each.
        assert_eq!((flood(11).faults(), flood(12).faults()), (vec![Fault::Crowd], vec![]));
        let mut unanswered = row(1);
        unanswered.answers.read.pop();
        assert_eq!(unanswered.faults(), [Fault::Answers]);
    }

    #[test]
    fn a_percentile_is_of_its_part_only() {
        let pair = row(42).acknowledged();
        assert_eq!((pair.alone.as_millis(), pair.beside.as_millis()), (99, 42));
    }
}
