//! `proof powercut`.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use corelog_tests::chance::seed;
use corelog_tests::disk::Result;
use corelog_tests::disk::cut::Cut;
use corelog_tests::disk::image::FileSystem;
use corelog_tests::powercut::{self, Plan, Report, Subject};
use std::path::PathBuf;

/// As many as share the cost of a recording without looking at one server's timing alone.
const CUTS_A_RECORDING: usize = 40;

#[derive(Args)]
#[command(after_help = "\
Examples:
  proof powercut --fs ext4 --cuts 10000 --seed 7
  proof powercut --fs xfs --cuts 40 --control unflushed        must lose something, or the rig proves nothing
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
    /// A rig that must lose something
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// Check one cut of a kept recording again; --seed is that cut's
    #[arg(long, value_name = "DIR", requires = "point")]
    again: Option<PathBuf>,
    /// Where in its log
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
    match holds(arguments) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Found),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}

fn holds(arguments: &Arguments) -> Result<bool> {
    let (fs, subject) = (arguments.fs(), arguments.subject());
    let seed = arguments.seed.unwrap_or_else(seed);
    if let (Some(kept), Some(point)) = (&arguments.again, arguments.point) {
        let found = powercut::repeat(kept, fs, subject, Cut { point, seed })?;
        println!("{}", found.as_ref().map_or_else(|| "nothing is lost".to_owned(), |found| found.to_string()));
        return Ok(found.is_none());
    }
    let plan = Plan { fs, cuts: arguments.cuts, cuts_a_recording: CUTS_A_RECORDING, seed, subject };
    let report = powercut::run(&plan, &mut |line| println!("{line}"))?;
    Ok(tell(&plan, &report))
}

/// Whether nothing was lost.
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
    found.is_empty()
}
