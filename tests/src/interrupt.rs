//! Proofs that are asked to end do so in order: mounts before the daemons that serve them, then directories.

use crate::disk;
use nix::sys::signal::{SigSet, Signal};
use std::process;
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
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|error| format!("waiting for signals: {error}"))?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            ASKED.store(true, Ordering::Relaxed);
            println!("{signal}: what is under way ends first, and is cleared up; a second signal ends this at once");
        }
        if let Ok(signal) = signals.wait() {
            // The status that a shell gives a process that a signal ended.
            process::exit(128 + signal as i32);
        }
    });
    Ok(())
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
