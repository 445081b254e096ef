//! `proof powercut`.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use corelog_tests::chance::seed;
use corelog_tests::disk::Trouble;
use corelog_tests::disk::cut::Cut;
use corelog_tests::disk::image::FileSystem;
use corelog_tests::powercut::{self, Plan, Report, Subject};
use std::path::{Path, PathBuf};

/// As many as share the cost of a recording without looking at one server's timing alone.
const CUTS_A_RECORDING: usize = 40;

#[derive(Args)]
#[command(after_help = "\
Examples:
  proof powercut --fs ext4 --cuts 10000 --seed 7
  proof powercut --fs xfs --cuts 40 --control unflushed        exits 3: it must lose something
  CORELOG_KEEP=/tmp/kept proof powercut --fs ext4 --cuts 500   keeps what lost something, and says how to check it again

It needs root, /dev/fuse, loop devices and what tests/run installs. Images are in /dev/shm where that has room,
else beside the build; CORELOG_SCRATCH names another place.")]
pub(crate) struct Arguments {
    /// File system of the disk
    #[arg(long, value_enum)]
    fs: Fs,
    /// How many power cuts
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = at_least_one)]
    cuts: usize,
    /// Decides where and how; printed, and drawn from the clock without it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A rig that must lose something (exit status 3); one that does not proves nothing (1)
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// Check one cut of a kept recording again; --seed is that cut's
    #[arg(long, value_name = "DIR", requires_all = ["point", "seed"])]
    again: Option<PathBuf>,
    /// Where in its log: so many entries are before the cut
    #[arg(long, value_name = "N", requires = "again")]
    point: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Control {
    /// Topics with durability=write are acknowledged before their flush
    Unflushed,
    /// Flushes of the disk do nothing
    DeafDisk,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|cuts| *cuts > 0).ok_or_else(|| "it must be a number from 1".to_owned())
}

impl Arguments {
    fn fs(&self) -> FileSystem {
        match self.fs {
            Fs::Ext4 => FileSystem::Ext4,
            Fs::Xfs => FileSystem::Xfs,
        }
    }

    fn subject(&self) -> Subject {
        match self.control {
            None => Subject::Promise,
            Some(Control::Unflushed) => Subject::Unflushed,
            Some(Control::DeafDisk) => Subject::DeafDisk,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> std::result::Result<(), Failure> {
    let (fs, subject) = (arguments.fs(), arguments.subject());
    let seed = arguments.seed.unwrap_or_else(seed);
    let lost = match (&arguments.again, arguments.point) {
        (Some(kept), Some(point)) => again(kept, fs, subject, Cut { point, seed }),
        _ => {
            let plan = Plan { fs, cuts: arguments.cuts, cuts_a_recording: CUTS_A_RECORDING, seed, subject };
            powercut::run(&plan, &mut |line| println!("{line}")).map(|report| tell(&plan, &report)).map_err(failed)
        }
    };
    judge(subject, lost?)
}

fn failed(error: Trouble) -> Failure {
    Failure::Failed(error.to_string())
}

/// A control is there to lose something.
fn judge(subject: Subject, lost: bool) -> std::result::Result<(), Failure> {
    match (lost, subject.is_control()) {
        (true, _) => Err(Failure::Found),
        (false, false) => Ok(()),
        (false, true) => {
            let what = "the control lost nothing, so this run proves nothing: try more --cuts or another --seed";
            Err(Failure::Failed(what.to_owned()))
        }
    }
}

/// Whether a cut of a kept recording loses something.
fn again(kept: &Path, fs: FileSystem, subject: Subject, cut: Cut) -> std::result::Result<bool, Failure> {
    let points = 1..=powercut::points(kept).map_err(failed)?;
    if !points.contains(&cut.point) {
        let what = format!("--point {}: {} can be cut at 1 to {}", cut.point, kept.display(), points.end());
        return Err(Failure::Usage(what));
    }
    let found = powercut::repeat(kept, fs, subject, cut).map_err(failed)?;
    println!("{}", found.as_ref().map_or_else(|| "nothing is lost".to_owned(), |found| found.to_string()));
    Ok(found.is_some())
}

/// Whether something was lost.
fn tell(plan: &Plan, report: &Report) -> bool {
    let Report { cuts, again, found, met } = report;
    println!("met: {met}");
    println!(
        "{} seed {}: {cuts} cuts, {again} of them in the start after a cut, {} lost something, at worst {} records",
        plan.fs,
        plan.seed,
        found.len(),
        report.worst()
    );
    !found.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_that_loses_nothing_has_proven_nothing() {
        assert!(judge(Subject::Promise, false).is_ok());
        for subject in [Subject::Promise, Subject::Unflushed, Subject::DeafDisk] {
            assert!(matches!(judge(subject, true), Err(Failure::Found)));
        }
        for control in [Subject::Unflushed, Subject::DeafDisk] {
            assert!(matches!(judge(control, false), Err(Failure::Failed(_))));
        }
    }

    #[test]
    fn a_point_behind_the_log_is_a_usage_error() {
        let kept = tempfile::tempdir().expect("a directory");
        // Its superblock, and a header of zeros behind it: a log without an entry.
        std::fs::write(kept.path().join("log.img"), [0; 1024]).expect("a log");
        let outcome = again(kept.path(), FileSystem::Ext4, Subject::Promise, Cut { point: 1, seed: 1 });
        assert!(matches!(outcome, Err(Failure::Usage(_))));
    }
}
