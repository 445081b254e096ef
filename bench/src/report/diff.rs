//! `bench diff`: what changed from one report to another beyond the noise of their runs.
//!
//! The test is Mann and Whitney's U, exact up to 50 runs of each (H. B. Mann, D. R. Whitney: On a Test of Whether one of Two
//! Random Variables is Stochastically Larger than the Other, 1947): of all ways in which the runs of both could have been
//! ordered were there no difference, how many are at least as lopsided? It asks nothing of how the noise is distributed. A
//! figure has changed where that is below `alpha`, and its median moved by at least the threshold: a difference too small
//! to matter is none, however sure.

use super::table::amount;
use super::{Better, Figure, Measured, Report, median};
use crate::error::{BenchError, Doing, Result};
use crate::machine::limits;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Arguments of `bench diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  corelog bench produce --json > before.json
  corelog bench produce --json > after.json
  corelog bench diff before.json after.json

Exit status: 0 nothing got worse, 1 nothing could be compared, 3 something got worse. Compare reports of one machine only.")]
pub struct DiffArgs {
    /// The report to compare with, as --json wrote it
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// The report that is compared
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// How likely a difference may be to come about by chance and still count
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    alpha: f64,
    /// The least change of a median that counts, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    threshold: f64,
}

/// How a figure compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Beyond noise, the wrong way.
    Worse,
    /// Beyond noise, the right way.
    Better,
    /// Beyond noise, where no way is better.
    Changed,
    /// Within noise, or too little to count.
    Same,
    /// So few runs that no order of them could tell.
    TooFewRuns,
}

/// A figure in both reports.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Compared {
    /// Case, subject and load.
    pub what: String,
    /// The figure.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// Medians of the runs.
    pub before: f64,
    /// Of the other report.
    pub after: f64,
    /// Change of the median, percent.
    pub change: f64,
    /// How likely so lopsided an order is without a difference.
    pub p: f64,
    /// How it compares.
    pub verdict: Verdict,
}

/// Two reports, compared.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Diff {
    /// Every figure that both have.
    pub figures: Vec<Compared>,
    /// What only one of them has.
    pub unmatched: Vec<String>,
    /// What to keep in mind.
    pub notes: Vec<String>,
    alpha: f64,
    threshold: f64,
}

impl Diff {
    /// Whether anything got worse.
    pub(crate) fn is_worse(&self) -> bool {
        self.count(Verdict::Worse) > 0
    }

    /// Whether anything could be told.
    ///
    /// # Errors
    /// When no figure is in both reports, or none has runs enough.
    pub(crate) fn check(&self) -> Result<()> {
        if self.figures.is_empty() {
            return Err(BenchError::Report("the reports have no figure in common: there is nothing to compare".into()));
        }
        if self.count(Verdict::TooFewRuns) == self.figures.len() {
            return Err(BenchError::Report(self.too_few()));
        }
        Ok(())
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.figures.iter().filter(|figure| figure.verdict == verdict).count()
    }

    fn too_few(&self) -> String {
        let enough = enough_runs(self.alpha).map_or("more".to_owned(), |runs| format!("{runs} of each"));
        format!("so few runs cannot show a change at p < {}: it takes {enough} (--repeats)", self.alpha)
    }
}

/// Runs `bench diff`.
pub(crate) fn run(args: &DiffArgs) -> Result<Diff> {
    let is_allowed = args.alpha > 0.0 && args.alpha < 1.0 && args.threshold >= 0.0;
    if !is_allowed {
        return Err(BenchError::Usage("alpha is between 0 and 1, threshold at least 0 percent".into()));
    }
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    Ok(compare(&before, &after, args.alpha, args.threshold))
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).doing(&format!("reading {}", path.display()))?;
    let name = path.display();
    if text.trim_start().starts_with('[') {
        let why =
            "a list, as `bench bars --json` prints: it is told whether each bar is met, and nothing else is compared";
        return Err(BenchError::Usage(format!("{name} is {why}")));
    }
    let wrong = |error| BenchError::Usage(format!("{name} is no report of `bench --json`: {error}"));
    let mut report: Report = serde_json::from_str(&text).map_err(wrong)?;
    take_limits(&mut report);
    Ok(report)
}

/// The figures of `bench limits` are the report's limits. Elsewhere those say what a run was measured beside, and are not
/// compared.
fn take_limits(report: &mut Report) {
    let own = |measured: &&mut Measured| measured.case == limits::CASE && measured.figures.is_empty();
    if let Some(measured) = report.results.iter_mut().find(own) {
        measured.figures.clone_from(&report.limits);
    }
}

fn compare(before: &Report, after: &Report, alpha: f64, threshold: f64) -> Diff {
    let mut diff = Diff { figures: vec![], unmatched: vec![], notes: vec![], alpha, threshold };
    for old in &before.results {
        match counterpart(old, &before.results, &after.results) {
            Some(new) => compare_results(&mut diff, old, new),
            None => diff.unmatched.push(format!("only before: {}", what(old))),
        }
    }
    let is_new = |new: &&Measured| counterpart(new, &after.results, &before.results).is_none();
    diff.unmatched.extend(after.results.iter().filter(is_new).map(|new| format!("only after: {}", what(new))));
    diff.notes.extend(moved_limits(before, after, threshold));
    if before.machine != after.machine {
        diff.notes.push("the reports are not of the same machine as it was: its facts differ".into());
    }
    diff
}

/// Limits of the machine that moved meanwhile: what a figure lost with them corelog did not lose.
fn moved_limits(before: &Report, after: &Report, threshold: f64) -> Vec<String> {
    let moved = |old: &Figure| {
        let new = after.limits.iter().find(|new| new.name == old.name)?;
        let change = (new.value / old.value - 1.0) * 100.0;
        let (from, to) = (amount(old.value, &old.unit), amount(new.value, &old.unit));
        (change.abs() >= threshold).then(|| format!("{} {from} -> {to} ({change:+.0} %)", old.name))
    };
    let moved: Vec<String> = before.limits.iter().filter_map(moved).collect();
    if moved.is_empty() {
        return Vec::new();
    }
    vec![format!("limits of the machine moved, and figures with them: {}", moved.join(", "))]
}

/// The result of the other report that is of the same thing: of the same case, subject and load or, where a load was made
/// from what the machine gave ("half of saturation"), the only one of its case and subject in both.
fn counterpart<'a>(of: &Measured, among: &[Measured], others: &'a [Measured]) -> Option<&'a Measured> {
    let is_alike = |one: &&Measured| (&one.case, &one.subject) == (&of.case, &of.subject);
    let exact = others.iter().filter(is_alike).find(|other| other.load == of.load);
    exact.or_else(|| {
        let is_only = among.iter().filter(is_alike).count() == 1 && others.iter().filter(is_alike).count() == 1;
        others.iter().find(is_alike).filter(|_| is_only)
    })
}

fn what(measured: &Measured) -> String {
    format!("{}, {}: {}", measured.case, measured.subject, measured.load)
}

fn compare_results(diff: &mut Diff, old: &Measured, new: &Measured) {
    for before in &old.figures {
        if let Some(after) = new.get(&before.name) {
            diff.figures.push(compared(what(old), before, after, diff.alpha, diff.threshold));
        }
    }
    if old.load != new.load {
        diff.notes.push(format!("the loads are not the same: {}; {}", what(old), new.load));
    }
    for measured in [old, new].iter().filter(|measured| measured.load_bound) {
        diff.notes.push(format!("the load generator set the pace: {}", what(measured)));
    }
}

fn compared(what: String, old: &Figure, new: &Figure, alpha: f64, threshold: f64) -> Compared {
    let (before, after) = (median(&old.runs), median(&new.runs));
    let change = (after / before - 1.0) * 100.0;
    let (p, least) = (mann_whitney(&old.runs, &new.runs), least_p(old.runs.len(), new.runs.len()));
    let is_change = p < alpha && (change.abs() >= threshold || !change.is_finite());
    let is_good = match old.better {
        Better::Higher => Some(after > before),
        Better::Lower => Some(after < before),
        Better::Neither => None,
    };
    let verdict = match (is_change, is_good) {
        _ if least >= alpha => Verdict::TooFewRuns,
        (false, _) => Verdict::Same,
        (true, Some(true)) => Verdict::Better,
        (true, Some(false)) => Verdict::Worse,
        (true, None) => Verdict::Changed,
    };
    let (figure, unit) = (old.name.clone(), old.unit.clone());
    Compared { what, figure, unit, before, after, change, p, verdict }
}

/// The probability, two-sided, of an order at least as lopsided as that of these numbers. Equal ones count half.
fn mann_whitney(one: &[f64], other: &[f64]) -> f64 {
    // Twice the number of pairs in which the first is greater, so that halves are whole.
    let pair = |(a, b): (&f64, &f64)| 2 * usize::from(a > b) + usize::from(a == b);
    let twice_u: usize = one.iter().flat_map(|a| other.iter().map(move |b| pair((a, b)))).sum();
    let pairs = one.len() * other.len();
    probability(twice_u.min(2 * pairs - twice_u) / 2, one.len(), other.len())
}

/// Pairs above which the distribution of U is taken as normal: counting the orders takes pairs squared.
const PAIRS_MAX: usize = 2500;

/// The probability, two-sided, of a U of at most this among so many numbers of each kind.
fn probability(u: usize, one: usize, other: usize) -> f64 {
    let pairs = one * other;
    if pairs <= PAIRS_MAX {
        let ways = orders(one, other);
        let all: f64 = ways.iter().sum();
        return (2.0 * ways[..=u].iter().sum::<f64>() / all).min(1.0);
    }
    let deviation = (pairs as f64 * (one + other + 1) as f64 / 12.0).sqrt();
    let z = (pairs as f64 / 2.0 - u as f64 - 0.5).max(0.0) / deviation;
    two_tails(z)
}

/// The part of a normal distribution farther than `z` deviations from its mean, to six digits: Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 7.1.26.
fn two_tails(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    series.iter().fold(0.0, |sum, factor| (sum + factor) * t) * (-x * x).exp()
}

/// The least probability that so many runs can have.
fn least_p(one: usize, other: usize) -> f64 {
    probability(0, one, other)
}

/// How many runs of each can show a change; none if not even a hundred can.
fn enough_runs(alpha: f64) -> Option<usize> {
    (1..=100).find(|runs| least_p(*runs, *runs) < alpha)
}

/// In how many orders of so many numbers of each kind U is 0, 1, 2 and so on.
fn orders(one: usize, other: usize) -> Vec<f64> {
    // The last in order is of the first kind, and greater than all of the second, or of the second kind.
    let mut ways = vec![vec![Vec::new(); other + 1]; one + 1];
    for m in 0..=one {
        for n in 0..=other {
            let mut counts = vec![0.0; m * n + 1];
            if m == 0 || n == 0 {
                counts[0] = 1.0;
            } else {
                let add = |from: &Vec<f64>, by: usize, counts: &mut Vec<f64>| {
                    from.iter().enumerate().for_each(|(u, ways)| counts[u + by] += ways);
                };
                add(&ways[m - 1][n], n, &mut counts);
                add(&ways[m][n - 1], 0, &mut counts);
            }
            ways[m][n] = counts;
        }
    }
    ways.pop().and_then(|mut last| last.pop()).unwrap_or_else(|| vec![1.0])
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diff { alpha, threshold, .. } = self;
        writeln!(f, "changes beyond noise: Mann-Whitney U of the runs, p < {alpha}, and {threshold} % at least")?;
        let mut shown = "";
        let is_told = |figure: &&Compared| !matches!(figure.verdict, Verdict::Same | Verdict::TooFewRuns);
        for figure in self.figures.iter().filter(is_told) {
            if figure.what != shown {
                writeln!(f, "\n{}", figure.what)?;
                shown = &figure.what;
            }
            writeln!(f, "{figure}")?;
        }
        let (same, few) = (self.count(Verdict::Same), self.count(Verdict::TooFewRuns));
        writeln!(f, "\n{same} of {} figures are the same within noise", self.figures.len() - few)?;
        if few > 0 {
            writeln!(f, "{few} more are not compared: {}", self.too_few())?;
        }
        self.unmatched.iter().chain(&self.notes).try_for_each(|line| writeln!(f, "note: {line}"))
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared { figure, unit, before, after, change, p, verdict, .. } = self;
        let verdict = match verdict {
            Verdict::Worse => "WORSE",
            Verdict::Better => "better",
            Verdict::Changed => "changed",
            Verdict::Same => "same",
            Verdict::TooFewRuns => "too few runs to tell",
        };
        let (before, after) = (amount(*before, unit), amount(*after, unit));
        write!(f, "  {figure:<28} {before:>14} -> {after:<14} {change:>+7.1} %  p {p:.3}  {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Machine;
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        // Mann and Whitney's table for n = 4, m = 4: P(U <= 0) = 1/70, P(U <= 1) = 2/70, P(U <= 2) = 4/70.
        let orders = orders(4, 4);
        assert_eq!((orders.iter().sum::<f64>(), &orders[..4]), (70.0, &[1.0, 1.0, 2.0, 3.0][..]));
        let ascending = [1.0, 2.0, 3.0, 4.0];
        assert!((mann_whitney(&ascending, &[5.0, 6.0, 7.0, 8.0]) - 2.0 / 70.0).abs() < 1e-12);
        assert!((mann_whitney(&[5.0, 6.0, 7.0, 8.0], &ascending) - 2.0 / 70.0).abs() < 1e-12);
        assert_eq!(mann_whitney(&ascending, &ascending), 1.0);
        assert!((least_p(3, 3) - 0.1).abs() < 1e-12);
        assert_eq!(least_p(0, 5), 1.0);
    }

    #[test]
    fn many_runs_are_compared_by_the_normal_distribution() {
        assert!((two_tails(1.959_964) - 0.05).abs() < 1e-6 && (two_tails(0.0) - 1.0).abs() < 1e-6);
        let (one, other) = (50, 50);
        assert!(one * other <= PAIRS_MAX && (one + 1) * other > PAIRS_MAX);
        for u in [700, 900, 963, 1000, 1200] {
            let (exact, near) = (probability(u, one, other), probability(u * 51 / 50, one + 1, other));
            assert!((exact - near).abs() < 0.02, "{u}: {exact} and {near}");
        }
        assert!(probability(0, 1000, 1000) < 1e-9, "and it ends soon");
    }

    fn report(records: &[f64], p99: &[f64]) -> Report {
        let mut report = Report::new(Machine::default());
        let mut measured = Measured::new("produce", "corelog", "closed loop");
        measured.figure("records", "1/s", Better::Higher, records.to_vec());
        measured.figure("ack p99", "us", Better::Lower, p99.to_vec());
        report.results.push(measured);
        report
    }

    const QUIET: [f64; 5] = [100.0, 101.0, 102.0, 103.0, 104.0];

    fn verdicts(before: &Report, after: &Report) -> Vec<Verdict> {
        compare(before, after, 0.05, 5.0).figures.iter().map(|figure| figure.verdict).collect()
    }

    #[test]
    fn a_change_beyond_noise_has_a_direction() {
        let before = report(&QUIET, &QUIET);
        let faster: Vec<f64> = QUIET.iter().map(|value| value * 1.2).collect();
        assert_eq!(verdicts(&before, &report(&faster, &QUIET)), [Verdict::Better, Verdict::Same]);
        let worse = compare(&before, &report(&QUIET, &faster), 0.05, 5.0);
        assert!(worse.is_worse() && worse.to_string().contains("WORSE"), "{worse}");
        let little: Vec<f64> = QUIET.iter().map(|value| value * 1.045).collect();
        assert_eq!(verdicts(&before, &report(&little, &little)), [Verdict::Same; 2], "sure, but too little");
        let noisy = [70.0, 99.0, 120.0, 140.0, 101.5];
        assert_eq!(verdicts(&before, &report(&noisy, &noisy)), [Verdict::Same; 2], "much, but not sure");
    }

    #[test]
    fn too_few_runs_say_so_and_what_one_lacks_is_told() {
        let few = compare(&report(&QUIET[..3], &QUIET), &report(&[1.0, 2.0, 3.0], &QUIET), 0.05, 5.0);
        let verdicts: Vec<Verdict> = few.figures.iter().map(|figure| figure.verdict).collect();
        assert_eq!(verdicts, [Verdict::TooFewRuns, Verdict::Same]);
        let told = few.to_string();
        assert!(told.contains("1 of 1 figures are the same") && told.contains("it takes 4 of each"), "{told}");
        assert!(few.check().is_ok());
        let mut other = report(&QUIET, &QUIET);
        other.results[0].load = "open loop".into();
        let diff = compare(&report(&QUIET, &QUIET), &other, 0.05, 5.0);
        assert_eq!((diff.figures.len(), diff.unmatched.len(), diff.notes.len()), (2, 0, 1), "the only one of its case");
        other.results.push(Measured::new("produce", "corelog", "another"));
        let diff = compare(&report(&QUIET, &QUIET), &other, 0.05, 5.0);
        assert_eq!((diff.figures.len(), diff.unmatched.len()), (0, 3));
    }

    #[test]
    fn limits_that_moved_are_told() {
        let (mut before, mut after) = (report(&QUIET, &QUIET), report(&QUIET, &QUIET));
        for (report, flush) in [(&mut before, 100.0), (&mut after, 150.0)] {
            let mut limits = Measured::new(limits::CASE, "machine", "");
            limits.figure("flush", "us", Better::Lower, vec![flush]);
            limits.figure("write", "B/s", Better::Higher, vec![1e9]);
            report.limits = limits.figures;
        }
        let diff = compare(&before, &after, 0.05, 5.0);
        assert!(diff.notes[0].contains("flush") && diff.notes[0].contains("+50 %"), "{:?}", diff.notes);
        assert!(!diff.notes[0].contains("write") && !diff.is_worse(), "{:?}", diff.notes);
        assert!(compare(&before, &before, 0.05, 5.0).notes.is_empty());
    }

    #[test]
    fn what_tells_nothing_is_no_success() {
        let few = report(&QUIET[..3], &QUIET[..2]);
        let outcome = compare(&few, &few, 0.05, 5.0).check().map_err(|error| error.to_string());
        assert!(outcome.is_err_and(|error| error.contains("it takes 4 of each")));
        let (mut other, whole) = (report(&QUIET, &QUIET), report(&QUIET, &QUIET));
        other.results[0].case = "consume".into();
        assert!(compare(&whole, &other, 0.05, 5.0).check().is_err(), "no figure in common");
    }

    #[test]
    fn the_machines_limits_are_compared_where_they_are_what_was_measured() {
        let mut report = report(&QUIET, &QUIET);
        report.limits = std::mem::take(&mut report.results[0].figures);
        take_limits(&mut report);
        assert!(report.results[0].figures.is_empty(), "what was measured beside a load");
        report.results[0].case = limits::CASE.into();
        take_limits(&mut report);
        assert_eq!(verdicts(&report, &report), [Verdict::Same; 2]);
    }
}
