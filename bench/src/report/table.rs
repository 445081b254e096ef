//! A report for people at a terminal.

use super::{Figure, Latency, Measured, Report};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.limits.is_empty() {
            writeln!(f, "limits of the machine, measured in the same minutes")?;
            self.limits.iter().try_for_each(|figure| write_figure(f, figure))?;
        }
        for measured in &self.results {
            write!(f, "\n{measured}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}: {}", self.case, self.subject, self.load)?;
        // Percentiles of timings stand in their own table.
        let is_percentile = |figure: &&Figure| !self.timings.iter().any(|timing| figure.name.starts_with(&timing.name));
        self.figures.iter().filter(is_percentile).try_for_each(|figure| write_figure(f, figure))?;
        if !self.timings.is_empty() {
            writeln!(f, "  {:<24} {}", "", Latency::HEADING)?;
        }
        for timing in &self.timings {
            writeln!(f, "  {:<24} {}", timing.name, timing.latency)?;
            let with_limits = self.figures.iter().filter(|figure| figure.name.starts_with(&timing.name));
            for figure in with_limits.filter(|figure| !figure.limits.is_empty()) {
                writeln!(f, "    {}: {}", figure.name, ratios(figure))?;
            }
        }
        if !self.budget.is_empty() {
            let all: f64 = self.budget.iter().map(|share| share.mean_us).sum();
            let parts: Vec<_> =
                self.budget.iter().map(|share| format!("{} {:.1}", share.name, share.mean_us)).collect();
            writeln!(f, "  mean us in the server     {all:.1}: {}", parts.join(", "))?;
        }
        if self.load_bound {
            writeln!(f, "  LOAD-BOUND: the load generator, not {}, set the pace", self.subject)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

fn write_figure(f: &mut fmt::Formatter<'_>, figure: &Figure) -> fmt::Result {
    let Figure { name, unit, value, runs, .. } = figure;
    let (low, high) =
        runs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), run| (low.min(*run), high.max(*run)));
    let spread = match runs.len() {
        0 | 1 => String::new(),
        _ => format!("{} to {}", amount(low, unit), amount(high, unit)),
    };
    let line = format!("  {name:<24} {:>14}  {spread:<26} {}", amount(*value, unit), ratios(figure));
    writeln!(f, "{}", line.trim_end())
}

fn ratios(figure: &Figure) -> String {
    let ratio = |limit: &super::Ratio| format!("{:.2} of {}", limit.ratio, limit.of);
    figure.limits.iter().map(ratio).collect::<Vec<_>>().join(", ")
}

/// A number as people read it.
pub(crate) fn amount(value: f64, unit: &str) -> String {
    let number = match value.abs() {
        _ if value.is_nan() => return "-".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".into(),
        _ => format!("{value:.4}"),
    };
    match unit {
        "B/s" if value >= 1e9 => format!("{:.2} GB/s", value / 1e9),
        "B/s" => format!("{:.1} MB/s", value / 1e6),
        "B" if value >= 1e6 => format!("{:.1} MB", value / 1e6),
        "" => number,
        unit => format!("{number} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Better, Share};
    use super::*;

    #[test]
    fn a_result_shows_its_figures_with_spread_and_ratio() {
        let mut measured = Measured::new("produce", "corelog", "closed loop");
        measured.figure("records", "1/s", Better::Higher, vec![900.0, 1000.0, 1100.0]);
        measured.set_ratio("records", "the bare loop", 0.93);
        measured.budget =
            vec![Share { name: "queue".into(), mean_us: 2.5 }, Share { name: "flush".into(), mean_us: 80.0 }];
        measured.load_bound = true;
        let text = measured.to_string();
        assert!(text.contains("1000 1/s  900 1/s to 1100 1/s        0.93 of the bare loop\n"), "{text}");
        assert!(text.contains("82.5: queue 2.5, flush 80.0\n") && text.contains("LOAD-BOUND"), "{text}");
    }

    #[test]
    fn amounts_are_as_long_as_they_need_to_be() {
        let shown = [(1.5e9, "B/s"), (2.5e6, "B/s"), (12.345, "us"), (0.01234, ""), (0.0, ""), (f64::NAN, "us")];
        let shown = shown.map(|(value, unit)| amount(value, unit));
        assert_eq!(shown, ["1.50 GB/s", "2.5 MB/s", "12.35 us", "0.0123", "0", "-"]);
    }
}
