//! What a benchmark found: one form for all of them, for tables, JSON, CSV, the HTML page and `bench diff`.

mod csv;
pub(crate) mod diff;
mod html;
pub(crate) mod latency;
pub(crate) mod live;
mod machine;
mod table;

pub use csv::to_csv;
pub use html::to_html;
pub use latency::{Latency, Second};
pub use machine::{Machine, Program};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Version of the JSON form.
pub const FORMAT: u32 = 1;

/// What one call of a benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form.
    pub format: u32,
    /// What was run.
    pub program: Program,
    /// Where.
    pub machine: Machine,
    /// The machine's own limits, measured in turns with the results.
    pub limits: Vec<Figure>,
    /// What was measured.
    pub results: Vec<Measured>,
    /// What to keep in mind about all of it.
    pub notes: Vec<String>,
}

/// One thing measured under one load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The benchmark, and its part where it has several.
    pub case: String,
    /// Who was measured: corelog, or a yardstick.
    pub subject: String,
    /// The load in words. Case, subject and load together tell which results of two reports are the same thing.
    pub load: String,
    /// The load generator, not the subject, set the pace: what was measured is a lower bound.
    pub load_bound: bool,
    /// Numbers.
    pub figures: Vec<Figure>,
    /// Times.
    pub timings: Vec<Timing>,
    /// Second after second, over all runs.
    pub each_second: Vec<Moment>,
    /// Where the time of an acknowledged append went inside the server: means that add up.
    pub budget: Vec<Share>,
    /// What to keep in mind.
    pub notes: Vec<String>,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is.
    Higher,
    /// Less is.
    Lower,
    /// It is as it is.
    Neither,
}

/// A number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it says.
    pub name: String,
    /// In what: `1/s`, `B/s`, `us`, `B`, or nothing for a ratio.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// The number: the median of the runs, unless its name is a percentile, which is that of all runs' samples together.
    pub value: f64,
    /// The number in each run that has one.
    pub runs: Vec<f64>,
    /// What it is to a limit.
    pub limits: Vec<Ratio>,
}

/// A number to its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The limit.
    pub of: String,
    /// The number, divided by the limit.
    pub ratio: f64,
}

/// How long something took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// From what to what.
    pub name: String,
    /// Of all runs together.
    pub latency: Latency,
    /// Points of the curve of percentiles: part, and us.
    pub curve: Vec<(f64, f64)>,
}

/// A second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Which run, from 0.
    pub run: usize,
    /// Its end, seconds from the beginning of the run's measured time.
    pub at: f64,
    /// Records a second.
    pub records_per_second: f64,
    /// What the open loop wanted; null in a closed one.
    pub intended_per_second: Option<f64>,
    /// Half were at most this, us.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// All.
    pub max_us: f64,
}

/// A part of a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Which.
    pub name: String,
    /// Mean time, us.
    pub mean_us: f64,
}

/// What is said of a file system in memory.
const MEMORY: &str = "the directory is in memory (tmpfs): nothing here is durable, and no flush reaches a disk";

impl Report {
    /// A report of nothing yet.
    pub(crate) fn new(machine: Machine) -> Report {
        let notes = machine.is_memory().then(|| MEMORY.to_owned()).into_iter().collect();
        Report { format: FORMAT, program: Program::this(), machine, limits: Vec::new(), results: Vec::new(), notes }
    }
}

impl Measured {
    /// Something that was measured under a load.
    pub(crate) fn new(case: &str, subject: &str, load: impl Into<String>) -> Measured {
        Measured { case: case.into(), subject: subject.into(), load: load.into(), ..Measured::default() }
    }

    /// Adds a number by its value in each run. A run in which it is none (of each record, where none was acknowledged) is
    /// left out, and the figure where no run is left: JSON has no word for it, and a median would be of something else.
    pub(crate) fn figure(&mut self, name: &str, unit: &str, better: Better, mut runs: Vec<f64>) {
        runs.retain(|run| run.is_finite());
        if !runs.is_empty() {
            let value = median(&runs);
            self.figures.push(Figure { name: name.into(), unit: unit.into(), better, value, runs, limits: Vec::new() });
        }
    }

    /// Adds times by their histogram in each run: p50 to p99.9 become figures too, each of as many samples as it takes. A run
    /// without samples is left out, for it would count as one of 0 us.
    pub(crate) fn timing(&mut self, name: &str, runs: &[Histogram<u64>]) {
        let runs: Vec<&Histogram<u64>> = runs.iter().filter(|run| !run.is_empty()).collect();
        if runs.is_empty() {
            return;
        }
        let all = latency::joined(runs.iter().copied());
        let us = |histogram: &Histogram<u64>, part| histogram.value_at_quantile(part) as f64 / 1e3;
        // Of fewer samples the highest of them is no percentile.
        let percentiles = [("p50", 0.5, 1), ("p99", 0.99, 100), ("p99.9", 0.999, 1000)];
        for (percentile, part, _) in percentiles.into_iter().filter(|(.., least)| all.len() >= *least) {
            let (value, runs) = (us(&all, part), runs.iter().map(|run| us(run, part)).collect());
            let (name, unit) = (format!("{name} {percentile}"), "us".to_owned());
            self.figures.push(Figure { name, unit, better: Better::Lower, value, runs, limits: Vec::new() });
        }
        let (latency, curve) = (Latency::of(&all), latency::curve(&all));
        self.timings.push(Timing { name: name.into(), latency, curve });
    }

    /// The figure of a name.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// The value of the figure of a name; NaN where there is none.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.get(name).map_or(f64::NAN, |figure| figure.value)
    }

    /// Notes what a figure is to a limit, if the figure is there and the ratio is a number.
    pub(crate) fn set_ratio(&mut self, name: &str, of: &str, ratio: f64) {
        let figure = self.figures.iter_mut().find(|figure| figure.name == name);
        if let Some(figure) = figure.filter(|_| ratio.is_finite()) {
            figure.limits.push(Ratio { of: of.into(), ratio });
        }
    }
}

/// The middle one of several measurements of the same thing, which one disturbed measurement does not move; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// The median of the ratios of numbers that belong together: both of a pair saw the same minute of the machine. NaN where
/// one lacks its partner.
pub(crate) fn median_ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    if ours.len() != theirs.len() {
        return f64::NAN;
    }
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(median_ratio(&[2.0, 9.0, 30.0], &[1.0, 3.0, 10.0]), 3.0);
        assert!(median_ratio(&[2.0, 9.0, 30.0], &[1.0, 3.0]).is_nan(), "whose partner is missing is not known");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut measured = Measured::new("produce", "corelog", "closed loop");
        measured.figure("cpu", "us", Better::Lower, vec![f64::INFINITY, 2.0, f64::NAN, 4.0]);
        measured.figure("flushes", "", Better::Lower, vec![f64::NAN]);
        let mut samples = latency::histogram();
        samples.record(400_000).expect("in bounds");
        measured.timing("ack", &[latency::histogram(), samples]);
        measured.timing("push", &[latency::histogram()]);
        for ratio in [f64::NAN, f64::INFINITY, 0.5] {
            measured.set_ratio("cpu", "the bare loop", ratio);
        }
        let names: Vec<&str> = measured.figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["cpu", "ack p50"], "of one sample there is no p99");
        let cpu = &measured.figures[0];
        assert_eq!((cpu.value, &cpu.runs[..], cpu.limits.len()), (3.0, &[2.0, 4.0][..], 1));
        assert_eq!((measured.figures[1].runs.len(), measured.timings.len()), (1, 1), "a run without samples is none");
        let json = serde_json::to_string(&measured).expect("JSON");
        assert_eq!(serde_json::from_str::<Measured>(&json).expect("numbers where numbers belong"), measured);
    }

    #[test]
    fn percentiles_are_of_all_samples_and_of_each_run() {
        let run = |us: u64, count: u64| {
            let mut samples = latency::histogram();
            samples.record_n(us * 1000, count).expect("in bounds");
            samples
        };
        let mut measured = Measured::new("produce", "corelog", "closed loop");
        measured.timing("ack", &[run(100, 99), run(900, 1)]);
        let p50 = measured.get("ack p50").expect("a figure");
        assert!((p50.value - 100.0).abs() < 1.0 && (p50.runs[1] - 900.0).abs() < 1.0, "{p50:?}");
        assert_eq!(measured.timings[0].latency.count, 100);
        measured.set_ratio("ack p50", "flush", 1.5);
        assert_eq!(measured.get("ack p50").expect("a figure").limits, [Ratio { of: "flush".into(), ratio: 1.5 }]);
    }
}
