//! How much a connection may produce: bytes are paid for with time, and who is ahead of that waits.

use corelog_engine::reactor::Instant;
use std::cell::Cell;
use std::time::Duration;

/// So far ahead a connection may be: a burst of the bytes of this time, and the frame that goes over it.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_a_second: u64,
    /// What was taken is paid for by then.
    paid: Cell<Instant>,
}

impl Rate {
    /// `u64::MAX` is no bound.
    pub(crate) fn new(bytes_a_second: u64) -> Rate {
        Rate { bytes_a_second: bytes_a_second.max(1), paid: Cell::default() }
    }

    /// Notes that so many bytes were taken.
    pub(crate) fn take(&self, now: Instant, bytes: usize) {
        if self.bytes_a_second < u64::MAX {
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_a_second);
            let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.paid.set(self.paid.get().max(now).plus(price));
        }
    }

    /// How long more must not be taken.
    pub(crate) fn debt(&self, now: Instant) -> Option<Duration> {
        let ahead = self.paid.get().since(now);
        ahead.checked_sub(BURST).filter(|debt| !debt.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn who_is_ahead_waits_until_it_is_paid_for() {
        let rate = Rate::new(1_000_000);
        rate.take(at(5000), 100_000);
        assert_eq!(rate.debt(at(5000)), None);
        rate.take(at(5000), 50_000);
        assert_eq!(rate.debt(at(5000)), Some(Duration::from_millis(50)));
        assert_eq!(rate.debt(at(5050)), None);
    }

    #[test]
    fn silence_saves_no_more_than_a_burst() {
        let rate = Rate::new(1_000_000);
        rate.take(at(0), 10);
        rate.take(at(3_600_000), 200_000);
        assert_eq!(rate.debt(at(3_600_000)), Some(Duration::from_millis(100)));
    }

    #[test]
    fn no_bound_is_none_and_a_tiny_one_does_not_overflow() {
        let free = Rate::new(u64::MAX);
        free.take(at(1), usize::MAX);
        assert_eq!(free.debt(at(1)), None);
        let tiny = Rate::new(0);
        tiny.take(at(1), usize::MAX);
        assert!(tiny.debt(at(1)).is_some());
    }

    proptest! {
        #[test]
        fn who_waits_when_told_gets_its_rate(frames in prop::collection::vec((1usize..50_000, 0u64..30), 1..200)) {
            let rate = Rate::new(1_000_000);
            let (mut now, mut taken) = (at(1000), 0);
            for (bytes, pause) in frames {
                now = now.plus(Duration::from_millis(pause));
                now = now.plus(rate.debt(now).unwrap_or_default());
                let allowed = 1_000_000 * (now.since(at(1000)) + BURST).as_nanos() / 1_000_000_000;
                prop_assert!(taken as u128 <= allowed + 1, "{taken} bytes before the next, {allowed} allowed");
                rate.take(now, bytes);
                taken += bytes;
            }
        }
    }
}
