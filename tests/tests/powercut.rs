//! Forty power cuts on each file system lose nothing, and the same rig notices when there is something to lose.
//!
//! `proof powercut` does as many as one likes (docs/durability.md).
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

use corelog_tests::chance::seed;
use corelog_tests::disk::{self, image::FileSystem};
use corelog_tests::powercut::check::Loss;
use corelog_tests::powercut::{Plan, Report, Subject, run};

const CUTS: usize = 40;
const CONTROL_CUTS: usize = 8;
/// Most topics were flushed a moment ago by another, so that many cuts find nothing to take.
const UNFLUSHED_CUTS: usize = 20;
const CUTS_A_RECORDING: usize = 20;

fn cut(fs: FileSystem, subject: Subject, cuts: usize) -> Option<Report> {
    if !disk::can_run() {
        return None;
    }
    let plan = Plan { fs, cuts, cuts_a_recording: CUTS_A_RECORDING, seed: seed(), subject };
    let mut report = Report::default();
    let ended = run(&plan, &mut report, &mut |line| println!("{line}"));
    ended.unwrap_or_else(|error| panic!("{fs} with seed {}: {error}", plan.seed));
    Some(report)
}

fn nothing_is_lost(fs: FileSystem) {
    let Some(report) = cut(fs, Subject::Promise, CUTS) else { return };
    assert!(report.found.is_empty(), "{fs}: {} of {CUTS} cuts lost something: {}", report.found.len(), report.found[0]);
    assert!(report.again > 0, "no start after a cut was cut");
    assert_eq!(report.met.missing(), [""; 0], "no recording met this");
}

#[test]
fn forty_cuts_on_ext4_lose_nothing() {
    nothing_is_lost(FileSystem::Ext4);
}

#[test]
fn forty_cuts_on_xfs_lose_nothing() {
    nothing_is_lost(FileSystem::Xfs);
}

/// Nothing but records is lost, and only because their topics ask for no flush.
#[test]
fn what_is_acknowledged_before_its_flush_is_lost() {
    for fs in FileSystem::ALL {
        let Some(report) = cut(fs, Subject::Unflushed, UNFLUSHED_CUTS) else { return };
        let worst = report.worst();
        assert!(worst > 0, "{fs}: the rig noticed nothing");
        let broken = report.found.iter().find(|found| !matches!(found.loss, Loss::Records(..)));
        assert!(broken.is_none(), "{fs}: {}", broken.map(ToString::to_string).unwrap_or_default());
    }
}

#[test]
fn a_disk_that_does_not_flush_loses_what_was_acknowledged() {
    for fs in FileSystem::ALL {
        let Some(report) = cut(fs, Subject::DeafDisk, CONTROL_CUTS) else { return };
        assert!(!report.found.is_empty(), "{fs}: the rig noticed nothing");
    }
}
