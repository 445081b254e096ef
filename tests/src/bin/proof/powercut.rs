//! `proof powercut`.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use corelog_tests::chance::seed;
use corelog_tests::disk::cut::Cut;
use corelog_tests::disk::image::FileSystem;
use corelog_tests::disk::{Result, Trouble};
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
    if let (Some(kept), Some(point)) = (&arguments.again, arguments.point) {
        return judge(subject, again(kept, fs, subject, Cut { point, seed })?, Ok(()));
    }
    let plan = Plan { fs, cuts: arguments.cuts, cuts_a_recording: CUTS_A_RECORDING, seed, subject };
    let mut report = Report::default();
    let ended = powercut::run(&plan, &mut report, &mut |line| println!("{line}"));
    tell(&plan, &report);
    judge(subject, !report.found.is_empty(), ended)
}

fn failed(error: Trouble) -> Failure {
    Failure::Failed(error.to_string())
}

/// A control is there to lose something. What was lost counts also where the run did not come to its end.
fn judge(subject: Subject, lost: bool, ended: Result<()>) -> std::result::Result<(), Failure> {
    if lost {
        if let Err(error) = ended {
            eprintln!("proof: {error}");
        }
        return Err(Failure::Found);
    }
    ended.map_err(failed)?;
    if subject.is_control() {
        let what = "the control lost nothing, so this run proves nothing: try more --cuts or another --seed";
        return Err(Failure::Failed(what.to_owned()));
    }
    Ok(())
}

/// Whether a cut of a kept recording loses something.
fn again(kept: &Path, fs: FileSystem, subject: Subject, cut: Cut) -> std::result::Result<bool, Failure> {
    let points = 1..=powercut::points(kept).map_err(failed)?;
    if !points.contains(&cut.point) {
        let what = format!("--point {}: {} can be cut at 1 to {}", cut.point, kept.display(), points.end());
        return Err(Failure::Usage(what));
    }
    on_its_own(kept, fs)?;
    let found = powercut::repeat(kept, fs, subject, cut).map_err(failed)?;
    println!("{}", found.as_ref().map_or_else(|| "nothing is lost".to_owned(), |found| found.to_string()));
    Ok(found.is_some())
}

/// Refuses another file system than that of the recording: it cannot be mounted, and nothing is lost by that.
fn on_its_own(kept: &Path, fs: FileSystem) -> std::result::Result<(), Failure> {
    match powercut::file_system(kept).map_err(failed)? {
        Some(recorded) if recorded != fs => {
            let kept = kept.display();
            Err(Failure::Usage(format!("--fs {fs}: {kept} was recorded on {recorded}: give --fs {recorded}")))
        }
        _ => Ok(()),
    }
}

/// What was checked, all of the plan or as far as it came.
fn tell(plan: &Plan, report: &Report) {
    let Report { cuts, again, found, met } = report;
    println!("met: {met}");
    println!(
        "{} seed {}: {cuts} of {} cuts, {again} of them in the start after a cut, {} lost something, at worst {} records",
        plan.fs,
        plan.seed,
        plan.cuts,
        found.len(),
        report.worst()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_that_loses_nothing_has_proven_nothing() {
        assert!(judge(Subject::Promise, false, Ok(())).is_ok());
        for subject in [Subject::Promise, Subject::Unflushed, Subject::DeafDisk] {
            assert!(matches!(judge(subject, true, Ok(())), Err(Failure::Found)));
        }
        for control in [Subject::Unflushed, Subject::DeafDisk] {
            assert!(matches!(judge(control, false, Ok(())), Err(Failure::Failed(_))));
        }
    }

    #[test]
    fn a_run_that_was_cut_short_has_not_held_and_forgets_no_loss() {
        for subject in [Subject::Promise, Subject::Unflushed, Subject::DeafDisk] {
            let cut_short = || Err("it was asked to end".into());
            assert!(matches!(judge(subject, false, cut_short()), Err(Failure::Failed(_))));
            assert!(matches!(judge(subject, true, cut_short()), Err(Failure::Found)));
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

    #[test]
    fn another_file_system_than_that_of_the_recording_is_a_usage_error() {
        let kept = tempfile::tempdir().expect("a directory");
        std::fs::write(kept.path().join("base.img"), b"XFSB").expect("an image");
        let outcome = on_its_own(kept.path(), FileSystem::Ext4);
        assert!(matches!(outcome, Err(Failure::Usage(what)) if what.contains("was recorded on xfs")));
        assert!(on_its_own(kept.path(), FileSystem::Xfs).is_ok());
    }
}
