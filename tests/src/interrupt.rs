//! Proofs that are asked to end do so in order: mounts before the daemons that serve them, then directories.

use crate::disk;
use corelog_bench::interrupt::{clear, end_by, on_signal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_millis(100);

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes note of SIGINT, SIGTERM and SIGHUP from now on; a second one ends the process at once. To be called before other
/// threads begin, which inherit the mask.
///
/// # Errors
/// When the system refuses to block the signals.
pub fn watch() -> Result<(), String> {
    let note = |signal| {
        if ASKED.swap(true, Ordering::Relaxed) {
            clear();
            end_by(signal);
        }
        println!("{signal}: what is under way ends first, and is cleared up; a second signal ends this at once");
    };
    on_signal(note).map_err(|error| error.to_string())
}

/// Whether a signal has come.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Sleeps, until a signal comes at most.
pub fn sleep(time: Duration) {
    let until = Instant::now() + time;
    while !is_asked() && Instant::now() < until {
        thread::sleep(LOOK_INTERVAL.min(until.saturating_duration_since(Instant::now())));
    }
}

/// To be called where a proof can be left.
///
/// # Errors
/// When a signal has come.
pub fn check() -> disk::Result<()> {
    if is_asked() { Err("it was asked to end".into()) } else { Ok(()) }
}
