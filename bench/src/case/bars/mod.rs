//! `bench bars`: the speed and memory that corelog promises, each measured beside its limit and set against its bar.

mod loads;
mod reads;
mod state;
mod steady;

use super::produce::ACK;
use crate::error::{BenchError, Result};
use crate::machine::limits::Meter;
use crate::report::{Measured, live};
use crate::server::rig::{Place, Rig};
use crate::workload::Workload;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Arguments of `bench bars`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  corelog bench bars --quick || echo 'a bar was not met'
  corelog bench bars --only recovery --only idle
  corelog bench bars --only heap --only calls")]
pub struct BarsArgs {
    /// Directory for data and scratch files, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Short runs, a log of 1 GB instead of 10 for the recovery and for the reader far behind, and 10 s instead of a minute past the journal's end.
    #[arg(long)]
    pub quick: bool,
    /// Only bars of the groups whose name has this in it; may be repeated.
    #[arg(long, value_name = "WORD")]
    pub only: Vec<String>,
}

/// One bar.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    /// What was measured.
    pub figure: String,
    /// What came out; null where it could not be told.
    pub ratio: f64,
    /// What it should be.
    pub bar: f64,
    /// Whether `bar` is the least or the most that is allowed.
    pub at_least: bool,
    /// Whether it is met; null where it says nothing about this machine, for the reason that `figure` ends with.
    pub met: Option<bool>,
    /// The results behind it.
    #[serde(skip)]
    pub behind: Vec<Measured>,
}

/// The report of `bench bars`: as JSON a list.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct BarsReport {
    /// All bars.
    pub bars: Vec<Bar>,
}

impl BarsReport {
    /// Whether all are met that say something about this machine.
    pub fn met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met != Some(false))
    }
}

/// What groups of bars are measured with.
struct Bench<'a> {
    args: &'a BarsArgs,
    place: Place,
}

/// Measures some bars that belong together.
type Group = fn(&Bench<'_>) -> Result<Vec<Bar>>;

const GROUPS: [(&str, Group); 16] = [
    ("64 producers", loads::closed),
    ("one producer", loads::one),
    ("spread over partitions", loads::spread),
    ("70 % of saturation", loads::near_saturation),
    ("client library", loads::client_library),
    ("large batches", loads::large_batches),
    ("sustained", loads::sustained),
    ("two shards", loads::two_shards),
    ("commit of partitions", state::many_partitions),
    ("tail and catch-up", reads::reading),
    ("beside a reader far behind", reads::beside),
    ("end to end", reads::end_to_end),
    ("idle partitions", state::idle),
    ("recovery", state::recovery_time),
    ("heap allocations", steady::heap),
    ("system calls", steady::calls),
];

/// Runs `bench bars`.
pub(crate) fn run(args: &BarsArgs) -> Result<BarsReport> {
    let place = Place { bootstrap_server: None, dir: args.dir.clone(), smp: 1, serve_args: Vec::new() };
    let bench = Bench { args, place };
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|word| name.contains(word.as_str()));
    let is_known = |word: &&String| GROUPS.iter().any(|(name, _)| name.contains(word.as_str()));
    if let Some(word) = args.only.iter().find(|word| !is_known(word)) {
        let names = GROUPS.map(|(name, _)| name).join(", ");
        return Err(BenchError::Usage(format!("no group of bars has {word:?} in its name: they are {names}")));
    }
    let mut bars = Vec::new();
    for (name, group) in GROUPS.into_iter().filter(|(name, _)| is_wanted(name)) {
        live::say(&format!("bars: {name}"));
        let measured = group(&bench)?;
        // All of it takes minutes: whoever waits sees how far it is.
        measured.iter().for_each(|bar| live::say(&bar.to_string()));
        bars.extend(measured);
    }
    Ok(BarsReport { bars })
}

impl Bench<'_> {
    fn workload(&self) -> Workload {
        let (seconds, warm_up, repeats) = if self.args.quick { (0.5, 0.2, 2) } else { (4.0, 1.0, 5) };
        Workload { seconds, warm_up, repeats, ..Workload::default() }
    }

    /// A server of one shard, and the machine's limits beside it.
    fn rig(&self) -> Result<(Rig, Meter)> {
        let rig = Rig::start(&self.place)?;
        let meter = Meter::new(rig.directory.path(), rig.cores)?;
        Ok((rig, meter))
    }

    fn or_quick<T>(&self, whole: T, quick: T) -> T {
        if self.args.quick { quick } else { whole }
    }
}

/// What a figure of the first result is to a limit.
fn ratio(results: &[Measured], figure: &str, of: &str) -> f64 {
    let limits = results.first().and_then(|measured| measured.get(figure)).map(|figure| &figure.limits);
    limits.and_then(|limits| limits.iter().find(|limit| limit.of == of)).map_or(f64::NAN, |limit| limit.ratio)
}

/// The name of a percentile of acknowledgements.
fn ack(percentile: &str) -> String {
    format!("{ACK} {percentile}")
}

impl Bar {
    fn at_least(figure: impl Into<String>, ratio: f64, bar: f64, behind: &[Measured]) -> Bar {
        Bar { figure: figure.into(), ratio, bar, at_least: true, met: Some(ratio >= bar), behind: behind.to_vec() }
    }

    fn at_most(figure: impl Into<String>, ratio: f64, bar: f64, behind: &[Measured]) -> Bar {
        Bar { figure: figure.into(), ratio, bar, at_least: false, met: Some(ratio <= bar), behind: behind.to_vec() }
    }

    /// One that cannot be measured on this machine; `figure` ends with the reason.
    fn not_here(figure: String, bar: f64) -> Bar {
        Bar { met: None, ..Bar::at_most(figure, f64::NAN, bar, &[]) }
    }
}

impl fmt::Display for BarsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bar in &self.bars {
            bar.behind.iter().try_for_each(|measured| writeln!(f, "{measured}"))?;
        }
        writeln!(f, "measured       bar   met")?;
        self.bars.iter().try_for_each(|bar| writeln!(f, "{bar}"))
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { figure, ratio, bar, at_least, met, .. } = self;
        let sign = if *at_least { ">=" } else { "<=" };
        let met = match met {
            Some(true) => "yes",
            Some(false) => "NO ",
            None => "n/a",
        };
        let ratio = match ratio {
            ratio if !ratio.is_finite() => "n/a".to_owned(),
            // Next to a bar of 0 the least bit counts.
            ratio if *ratio > 0.0 && *ratio < 0.01 => format!("{ratio:.1e}"),
            ratio => format!("{ratio:.2}"),
        };
        write!(f, "{ratio:>8} {sign} {bar:>6} {met:>5}  {figure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_cannot_be_measured_is_not_met() {
        assert_eq!(Bar::at_least("ratio", f64::NAN, 0.7, &[]).met, Some(false));
        let unknown = Bar::at_most("ratio", f64::NAN, 1.3, &[]);
        assert_eq!((unknown.met, unknown.to_string().as_str()), (Some(false), "     n/a <=    1.3   NO   ratio"));
        let (good, bad) = (Bar::at_most("ms", 5.0, 10.0, &[]), Bar::at_least("ratio", 0.5, 0.7, &[]));
        assert!(!BarsReport { bars: vec![good.clone(), bad] }.met());
        assert!(BarsReport { bars: vec![good] }.met());
    }

    #[test]
    fn a_bar_that_says_nothing_about_this_machine_fails_nothing() {
        let row = Bar::not_here("calls: ptrace: EPERM".into(), 0.0);
        assert_eq!(row.to_string(), "     n/a <=      0   n/a  calls: ptrace: EPERM");
        let tiny = Bar::at_most("calls", 0.0004, 0.0, &[]);
        assert_eq!(tiny.to_string(), "  4.0e-4 <=      0   NO   calls");
        assert!(BarsReport { bars: vec![row.clone()] }.met() && !BarsReport { bars: vec![row, tiny] }.met());
    }

    #[test]
    fn as_json_it_is_a_list_of_figures() {
        let report = BarsReport { bars: vec![Bar::at_most("ms", 5.0, 10.0, &[])] };
        let json = serde_json::to_value(&report).expect("JSON");
        let expected = serde_json::json!({ "figure": "ms", "ratio": 5.0, "bar": 10.0, "at_least": false, "met": true });
        assert_eq!(json, serde_json::json!([expected]));
    }
}
