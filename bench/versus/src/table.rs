//! What came out, and the bars.

use crate::Result;
use crate::broker::Subject;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A figure is to be at most, or at least, so much of that of another broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) figure: &'static str,
    pub(crate) against: Subject,
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Not of another's, but by itself.
    Absolute(f64),
}

/// Figures of one run.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// All cases.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    versions: String,
    rows: Vec<Row>,
    bars: Vec<Judged>,
}

/// A figure of a case, with each broker's median.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    figure: &'static str,
    medians: BTreeMap<Subject, f64>,
    runs: BTreeMap<Subject, Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Judged {
    case: &'static str,
    figure: &'static str,
    /// None: not of another's, but by itself.
    against: Option<Subject>,
    ratio: f64,
    bar: f64,
    at_least: bool,
    met: bool,
}

impl Table {
    pub(crate) fn new(versions: String) -> Table {
        Table { versions, rows: Vec::new(), bars: Vec::new() }
    }

    /// Adds the runs of a case, by broker, and judges them.
    pub(crate) fn add(&mut self, case: &'static str, runs: &BTreeMap<Subject, Vec<Figures>>, bars: &[Bar]) {
        let mut names: Vec<&'static str> = Vec::new();
        for (name, _) in runs.values().flatten().flatten() {
            if !names.contains(name) {
                names.push(name);
            }
        }
        for figure in names {
            let of = |figures: &Figures| figures.iter().find(|(name, _)| *name == figure).map(|(_, value)| *value);
            let runs: BTreeMap<Subject, Vec<f64>> =
                runs.iter().map(|(subject, runs)| (*subject, runs.iter().filter_map(of).collect())).collect();
            let medians = runs.iter().map(|(subject, runs)| (*subject, median(runs))).collect();
            let row = Row { case, figure, medians, runs };
            let judged = bars.iter().filter(|bar| bar.figure == figure).filter_map(|bar| row.judge(bar));
            self.bars.extend(judged);
            self.rows.push(row);
        }
    }

    pub(crate) fn is_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// What is known of one case.
    pub(crate) fn case(&self, case: &str) -> String {
        let mut text = String::new();
        for row in self.rows.iter().filter(|row| row.case == case) {
            text.push_str(&format!("{row}\n"));
        }
        for bar in self.bars.iter().filter(|bar| bar.case == case) {
            text.push_str(&format!("{bar}\n"));
        }
        text
    }
}

impl Row {
    fn judge(&self, bar: &Bar) -> Option<Judged> {
        let ours = *self.medians.get(&Subject::Corelog)?;
        let (ratio, against) = match bar.bound {
            Bound::Absolute(_) => (ours, None),
            _ => (ours / self.medians.get(&bar.against)?, Some(bar.against)),
        };
        let (met, bar, at_least) = match bar.bound {
            Bound::AtMost(bound) | Bound::Absolute(bound) => (ratio <= bound, bound, false),
            Bound::AtLeast(bound) => (ratio >= bound, bound, true),
        };
        Some(Judged { case: self.case, figure: self.figure, against, ratio, bar, at_least, met })
    }
}

fn median(runs: &[f64]) -> f64 {
    let mut runs = runs.to_vec();
    runs.sort_by(f64::total_cmp);
    let middle = runs.len() / 2;
    match runs.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => runs[middle],
        _ => (runs[middle - 1] + runs[middle]) / 2.0,
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<34}", self.figure)?;
        for subject in Subject::ALL {
            match self.medians.get(&subject) {
                Some(value) => write!(f, " {:>16}", amount(*value))?,
                None => write!(f, " {:>16}", "-")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, met) = (if self.at_least { ">=" } else { "<=" }, if self.met { "yes" } else { "NO" });
        let against = self.against.map_or("by itself", Subject::name);
        write!(f, "    {:<32} to {against:<16} {:>9.3} {sign} {:<6} {met}", self.figure, self.ratio, self.bar)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.versions)?;
        let names = Subject::ALL.map(|subject| format!("{:>16}", subject.name())).join(" ");
        writeln!(f, "{:<36} {names}", "medians")?;
        let mut cases: Vec<&str> = self.rows.iter().map(|row| row.case).collect();
        cases.dedup();
        for case in cases {
            write!(f, "{case}\n{}", self.case(case))?;
        }
        let met = self.bars.iter().filter(|bar| bar.met).count();
        write!(f, "{met} of {} bars met", self.bars.len())
    }
}

/// Three digits that count.
fn amount(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_set_against_bars() {
        let runs = BTreeMap::from([
            (Subject::Corelog, vec![vec![("p50, ms", 1.0)], vec![("p50, ms", 3.0)], vec![("p50, ms", 2.0)]]),
            (Subject::Kafka, vec![vec![("p50, ms", 4.0)]]),
        ]);
        let bar = |against, bound| Bar { figure: "p50, ms", against, bound };
        let bars = [
            bar(Subject::Kafka, Bound::AtMost(0.5)),
            bar(Subject::Kafka, Bound::AtLeast(0.6)),
            bar(Subject::KafkaFlushed, Bound::AtMost(9.0)),
            bar(Subject::Corelog, Bound::Absolute(2.0)),
        ];
        let mut table = Table::new(String::new());
        table.add("a case", &runs, &bars);
        let met: Vec<(f64, bool)> = table.bars.iter().map(|bar| (bar.ratio, bar.met)).collect();
        assert_eq!(met, [(0.5, true), (0.5, false), (2.0, true)], "a broker that was left out has no bar");
        assert!(!table.is_met() && table.to_string().contains("2 of 3 bars met"), "{table}");
    }
}
