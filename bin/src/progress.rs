//! What `produce` tells the person in front of it: a live line on a terminal, and a sentence at the end.

use corelog_tuning::size_text;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the live line is written anew.
const EVERY: Duration = Duration::from_secs(1);

/// Counts of a run, and their live line on standard error.
pub(crate) struct Progress {
    begun: Instant,
    /// When the live line is due; `None` where there is none.
    due: Option<Instant>,
    terminal: bool,
    /// What the last live line showed, for the rate since then.
    last: (Instant, u64, u64),
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) acknowledged: u64,
    /// Of the acknowledged records' lines.
    pub(crate) acknowledged_bytes: u64,
}

impl Progress {
    /// With a live line if `wanted`, or if standard error is a terminal.
    pub(crate) fn begin(wanted: bool) -> Progress {
        let (now, terminal) = (Instant::now(), std::io::stderr().is_terminal());
        let due = (wanted || terminal).then_some(now + EVERY);
        Progress { begun: now, due, terminal, last: (now, 0, 0) }
    }

    /// Writes the live line if it is due.
    pub(crate) fn show(&mut self, counts: Counts) {
        let now = Instant::now();
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = Some(now + EVERY);
        let (since, records, bytes) = self.last;
        let rate = rate(counts.acknowledged - records, counts.acknowledged_bytes - bytes, now - since);
        self.last = (now, counts.acknowledged, counts.acknowledged_bytes);
        let line = format!("{} read, {} acknowledged, {rate}", counts.read, counts.acknowledged);
        // On a terminal the line replaces the last one; in a file each is a line of its own. A closed standard error
        // is no reason to stop producing.
        let (before, after) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let _ = write!(std::io::stderr(), "{before}{line}{after}");
    }

    /// Takes the live line off the terminal, and says how long it took at what rate.
    pub(crate) fn end(self, counts: Counts) -> String {
        if self.terminal && self.last.0 > self.begun {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        let took = self.begun.elapsed();
        format!("in {:.1} s ({})", took.as_secs_f64(), rate(counts.acknowledged, counts.acknowledged_bytes, took))
    }
}

fn rate(records: u64, bytes: u64, time: Duration) -> String {
    let per_second = |count: u64| (count as f64 / time.as_secs_f64().max(1e-6)) as u64;
    format!("{} records/s, {}/s", per_second(records), size_text(per_second(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate(3_000, 3 << 20, Duration::from_millis(1500)), "2000 records/s, 2.0 MiB/s");
        assert_eq!(rate(0, 0, Duration::ZERO), "0 records/s, 0 B/s");
    }
}
