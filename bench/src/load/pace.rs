//! When requests are sent.

use super::Span;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// Each connection keeps so many requests unanswered.
    Closed {
        /// How many.
        window: usize,
    },
    /// So many requests a second over all connections, evenly spaced, whatever the answers do.
    Open {
        /// How many.
        requests_per_second: f64,
    },
    /// As many on average, but all that is due in an interval at once, at its beginning.
    Bursts {
        /// How many, on average.
        requests_per_second: f64,
        /// The interval.
        every: Duration,
    },
    /// Ever more, evenly from one rate to the other over the measured time; the first one while it warms up.
    Ramp {
        /// Requests a second at the beginning.
        from: f64,
        /// And at the end.
        to: f64,
    },
}

/// Requests a second; no machine does as many.
const RATE_MAX: f64 = 1e9;
/// Requests that a connection may keep unanswered; servers allow far fewer.
const WINDOW_MAX: usize = 1 << 20;

impl Pace {
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_rate = |rate: f64| rate > 0.0 && rate <= RATE_MAX;
        match *self {
            Pace::Closed { window: 0 } => Err("window is 0; it must be at least 1".into()),
            Pace::Closed { window } if window > WINDOW_MAX => {
                Err(format!("window is {window}; it must be at most {WINDOW_MAX}"))
            }
            Pace::Open { requests_per_second } if !is_rate(requests_per_second) => {
                Err("rate must be a number of records a second, above 0 and at most a billion requests".into())
            }
            Pace::Bursts { requests_per_second, every } if !is_rate(requests_per_second) || every.is_zero() => {
                Err("rate must be above 0 and at most a billion requests a second, and burst-every-ms at least 1"
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the answers set the pace.
    pub fn is_closed(&self) -> bool {
        matches!(self, Pace::Closed { .. })
    }

    /// The share of one of several that make the load together. A window is each connection's own.
    #[must_use]
    pub fn shared(self, among: usize) -> Pace {
        let part = |rate: f64| rate / among as f64;
        match self {
            Pace::Closed { .. } => self,
            Pace::Open { requests_per_second } => Pace::Open { requests_per_second: part(requests_per_second) },
            Pace::Bursts { requests_per_second, every } => {
                Pace::Bursts { requests_per_second: part(requests_per_second), every }
            }
            Pace::Ramp { from, to } => Pace::Ramp { from: part(from), to: part(to) },
        }
    }

    /// When the `number`th request of an open loop is due, nanoseconds from the beginning of the span.
    pub(super) fn due(&self, number: u64, span: Span) -> u64 {
        let number = number as f64;
        let seconds = match *self {
            Pace::Closed { .. } => 0.0,
            Pace::Open { requests_per_second } => number / requests_per_second,
            Pace::Bursts { requests_per_second, every } => {
                let every = every.as_secs_f64();
                (number / (requests_per_second * every)).floor() * every
            }
            Pace::Ramp { from, to } => ramp(number, from, to, span),
        };
        (seconds * 1e9) as u64
    }

    /// Requests a second that are intended at a time from the beginning of the measured part.
    pub fn intended(&self, at: Duration, measured: Duration) -> Option<f64> {
        match *self {
            Pace::Closed { .. } => None,
            Pace::Open { requests_per_second } | Pace::Bursts { requests_per_second, .. } => Some(requests_per_second),
            Pace::Ramp { from, to } => {
                Some(from + (to - from) * at.as_secs_f64() / measured.as_secs_f64().max(f64::MIN_POSITIVE))
            }
        }
    }
}

/// The time at which `from * t + (to - from) / 2T * t^2` requests are due, T being the measured time.
fn ramp(number: f64, from: f64, to: f64, span: Span) -> f64 {
    let (warm_up, measured) = (span.warm_up.as_secs_f64(), span.measured.as_secs_f64());
    let before = from * warm_up;
    if number < before {
        return number / from;
    }
    let (number, growth) = (number - before, (to - from) / measured);
    warm_up + ((from * from + 2.0 * growth * number).sqrt() - from) / growth
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { warm_up: Duration::from_secs(1), measured: Duration::from_secs(10) };

    fn due(pace: Pace, number: u64) -> f64 {
        pace.due(number, SPAN) as f64 / 1e9
    }

    #[test]
    fn even_and_in_bursts() {
        let open = Pace::Open { requests_per_second: 100.0 };
        assert_eq!((due(open, 0), due(open, 150)), (0.0, 1.5));
        let bursts = Pace::Bursts { requests_per_second: 100.0, every: Duration::from_millis(500) };
        assert_eq!([0, 49, 50, 99, 100].map(|number| due(bursts, number)), [0.0, 0.0, 0.5, 0.5, 1.0]);
    }

    #[test]
    fn a_ramp_ends_at_its_second_rate() {
        let pace = Pace::Ramp { from: 100.0, to: 300.0 };
        assert_eq!((due(pace, 50), due(pace, 100)), (0.5, 1.0), "it warms up with the first rate");
        // 200 a second on average over 10 s.
        assert!((due(pace, 100 + 2000) - 11.0).abs() < 1e-6);
        let last = due(pace, 100 + 2000) - due(pace, 100 + 1999);
        assert!((last - 1.0 / 300.0).abs() < 1e-4, "{last}");
        assert_eq!(pace.intended(Duration::from_secs(5), SPAN.measured), Some(200.0));
    }

    #[test]
    fn shares_add_up() {
        let open = Pace::Open { requests_per_second: 100.0 };
        assert_eq!(open.shared(4), Pace::Open { requests_per_second: 25.0 });
        assert_eq!(Pace::Closed { window: 3 }.shared(4), Pace::Closed { window: 3 });
        assert!(Pace::Open { requests_per_second: f64::NAN }.check().is_err());
        assert!(Pace::Closed { window: 0 }.check().is_err());
    }
}
