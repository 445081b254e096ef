//! What is said while a benchmark runs: a line a second, and how far it is. To standard error, and only to a terminal
//! unless it is asked for: a log wants the result.

use super::latency::Second;
use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU8, Ordering};

/// 0: as the terminal is; 1: always; 2: never.
static WANTED: AtomicU8 = AtomicU8::new(0);
const BAR_WIDTH: usize = 24;

/// Says it also where nobody may be looking, or never.
pub(crate) fn want(wanted: bool) {
    WANTED.store(if wanted { 1 } else { 2 }, Ordering::Relaxed);
}

fn is_wanted() -> bool {
    match WANTED.load(Ordering::Relaxed) {
        0 => stderr().is_terminal(),
        wanted => wanted == 1,
    }
}

/// Says a line.
pub(crate) fn say(line: &str) {
    if is_wanted() {
        // Who closed standard error does not want to know.
        let _ = writeln!(stderr(), "{line}");
    }
}

/// How far something is whose end is known.
pub(crate) fn bar(part: f64) -> String {
    let part = part.clamp(0.0, 1.0);
    let filled = (part * BAR_WIDTH as f64).round() as usize;
    format!("[{}{}] {:3.0} %", "#".repeat(filled), ".".repeat(BAR_WIDTH - filled), part * 100.0)
}

/// The runs of one load.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    what: String,
    runs: usize,
    seconds: f64,
    records_a_request: f64,
}

impl Runs {
    pub(crate) fn new(what: &str, runs: usize, seconds: f64, records_a_request: f64) -> Runs {
        Runs { what: what.into(), runs, seconds, records_a_request }
    }

    /// A second of a run, both counted from 0, is over.
    pub(crate) fn second(&self, run: usize, number: usize, second: &Second) {
        let Runs { what, runs, seconds, records_a_request } = self;
        let done = (run as f64 + (number + 1) as f64 / seconds.max(1.0)) / *runs as f64;
        let rate = second.count() as f64 * records_a_request / second.seconds;
        let us = |part| second.quantile_us(part);
        let times = format!("p50 {:.0}  p99 {:.0}  max {:.0} us", us(0.5), us(0.99), us(1.0));
        say(&format!("{} {what}, run {} of {runs}: {rate:>9.0} records/s  {times}", bar(done), run + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_width_whatever_the_part() {
        assert_eq!(bar(0.5), format!("[{}{}]  50 %", "#".repeat(12), ".".repeat(12)));
        for part in [-1.0, 0.0, 0.999, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(part).find(']'), Some(BAR_WIDTH + 1), "{part}");
        }
    }
}
