//! Kill at every I/O boundary of a small run on the real kernel. Takes the feature `planted`:
//!
//! ```text
//! cargo test --profile proof -p corelog-tests --features planted --test boundaries -- --nocapture
//! cargo run --profile proof -p corelog-tests --features planted --bin proof -- boundaries       # all of them, however long
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "a test that meets what it did not expect should end there")]

use corelog_tests::boundaries::{Options, run};
use corelog_tests::chance::seed;
use std::time::Duration;

/// Enough for all boundaries on two cores that are not busy; less than all is a sample that the seed decides.
const TIME: Duration = Duration::from_secs(60);

#[test]
fn what_was_acknowledged_survives_a_kill_at_every_boundary() {
    let program = env!("CARGO_BIN_EXE_proof").into();
    let options = Options { program, seed: seed(), only: None, time: Some(TIME) };
    let report = run(&options).unwrap_or_else(|error| panic!("{error}"));
    println!("{report}");
    assert!(report.failures.is_empty(), "{} boundaries failed", report.failures.len());
    assert!(report.never().is_empty(), "never killed at: {:?}", report.never());
    assert!(report.restarts_killed > 0 && report.killed > 10 * report.passed, "most runs come to their boundary");
}
