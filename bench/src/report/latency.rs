//! Latencies: histograms of nanoseconds, percentiles in microseconds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Latencies in nanoseconds from 1 us to 100 s with three digits: what a histogram of this crate can hold.
#[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("bounds of a histogram")
}

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The mean.
    pub mean_us: f64,
    /// Half were at most this.
    pub p50_us: f64,
    /// 90 of 100.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// 9,999 of 10,000.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    /// The heading over latencies shown in a table.
    pub const HEADING: &str = "     p50      p90      p99    p99.9   p99.99      max  (us)";
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { count, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us, .. } = self;
        // Of fewer the highest of them is no percentile.
        let percentiles = [(p50_us, 1), (p90_us, 10), (p99_us, 100), (p999_us, 1000), (p9999_us, 10_000)];
        for (value, least) in percentiles {
            if *count < least { write!(f, "{:>8} ", "-")? } else { write!(f, "{value:8.0} ")? }
        }
        write!(f, "{max_us:8.0}")
    }
}

/// What was acknowledged in a second, or in what was left of the last one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// How long it was.
    pub seconds: f64,
    /// Latencies in nanoseconds, ascending, each with how many there were of about that.
    counts: Vec<(u64, u64)>,
}

impl Second {
    /// What the histogram holds, and empties it.
    pub(crate) fn take(histogram: &mut Histogram<u64>, length: Duration) -> Second {
        let counts = counts(histogram);
        histogram.reset();
        Second { seconds: length.as_secs_f64(), counts }
    }

    /// How many were acknowledged.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Adds what another driver saw in the same second.
    pub(crate) fn add(&mut self, other: &Second) {
        let mut counts: BTreeMap<u64, u64> = self.counts.drain(..).collect();
        other.counts.iter().for_each(|(latency, count)| *counts.entry(*latency).or_default() += count);
        self.counts = counts.into_iter().collect();
        self.seconds = self.seconds.max(other.seconds);
    }

    /// The latency that this part of them did not exceed, us; 0 where there were none.
    pub fn quantile_us(&self, part: f64) -> f64 {
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut passed = 0;
        let reached = self.counts.iter().find(|(_, count)| {
            passed += count;
            passed >= rank
        });
        reached.map_or(0.0, |(latency, _)| *latency as f64 / 1e3)
    }
}

/// Values of a histogram with how many there were of about each.
pub(crate) fn counts(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|found| (found.value_iterated_to(), found.count_at_value())).collect()
}

/// The histogram that has these counts.
pub(crate) fn of_counts(counts: &[(u64, u64)]) -> Histogram<u64> {
    let mut histogram = histogram();
    counts.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
    histogram
}

/// A histogram with what all of these hold. Percentiles of several runs are those of all that was measured, never means
/// of percentiles.
pub(crate) fn joined<'a>(histograms: impl IntoIterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut all = histogram();
    // All of them have the same bounds, so adding cannot fail.
    histograms.into_iter().for_each(|one| all.add(one).unwrap_or_default());
    all
}

/// Points of the curve of percentiles: part, and latency in us. Denser towards the end, as far as there are samples.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let samples = histogram.len() as f64;
    // Eight points in each factor of ten of what is left beyond the percentile.
    let left = (0..=48).map(|step| 10_f64.powf(-f64::from(step) / 8.0)).take_while(|left| left * samples >= 1.0);
    left.map(|left| (1.0 - left, histogram.value_at_quantile(1.0 - left) as f64 / 1e3)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut samples = histogram();
        (1..=1000u64).for_each(|us| samples.record(us * 1000).expect("in bounds"));
        let latency = Latency::of(&samples);
        assert_eq!(latency.count, 1000);
        assert!((latency.p50_us - 500.0).abs() < 2.0, "{latency:?}");
        assert!((latency.p99_us - 990.0).abs() < 3.0, "{latency:?}");
        let columns: Vec<String> = latency.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!((columns.len(), &columns[4][..]), (6, "-"), "of 1,000 none is the highest of 10,000: {columns:?}");
        assert_ne!(columns[3], "-");
    }

    #[test]
    fn seconds_of_several_drivers_are_joined() {
        let second = |latencies: &[u64]| {
            let mut samples = histogram();
            latencies.iter().for_each(|us| samples.record(us * 1000).expect("in bounds"));
            let second = Second::take(&mut samples, Duration::from_secs(1));
            assert!(samples.is_empty());
            second
        };
        let mut joined = second(&[10, 20, 30]);
        joined.add(&second(&[20, 1000]));
        assert_eq!(joined.count(), 5);
        assert!((joined.quantile_us(0.5) - 20.0).abs() < 1.0 && (joined.quantile_us(1.0) - 1000.0).abs() < 2.0);
        assert_eq!(Second::default().quantile_us(0.5), 0.0);
    }

    #[test]
    fn what_is_sent_as_counts_is_the_same_histogram() {
        let mut samples = histogram();
        (1..=5000_u64).for_each(|us| samples.record(us * 777).expect("in bounds"));
        let again = of_counts(&counts(&samples));
        assert_eq!((again.len(), again.value_at_quantile(0.99)), (5000, samples.value_at_quantile(0.99)));
        assert_eq!(joined([&samples, &again]).len(), 10_000);
        let curve = curve(&samples);
        assert!(curve.len() > 25 && curve.windows(2).all(|pair| pair[0] <= pair[1]), "{curve:?}");
    }
}
