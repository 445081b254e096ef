//! `proof disks`.

use crate::failure::Failure;
use clap::Args;
use corelog_tests::disk::{Result, image::FileSystem};
use corelog_tests::disks::{STORIES, hang, rehearse, tell};
use corelog_tests::interrupt;
use std::time::Duration;

const HANG: &str = "a disk that hangs";

#[derive(Args)]
#[command(after_help = "\
Examples:
  proof disks
  proof disks --hang 30 --only hangs

It needs root, /dev/fuse, loop devices and what tests/run installs.")]
pub(crate) struct Arguments {
    /// How long the disk hangs, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = at_least_one)]
    hang: u64,
    /// Only stories whose name contains this
    #[arg(long, value_name = "WORD", default_value = "")]
    only: String,
}

/// A disk that hangs for no time at all is none that hangs.
fn at_least_one(text: &str) -> std::result::Result<u64, String> {
    text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| "it must be a number of seconds from 1".to_owned())
}

pub(crate) fn run(arguments: &Arguments) -> std::result::Result<(), Failure> {
    let names: Vec<&str> = STORIES.iter().map(|(name, _)| *name).chain([HANG]).collect();
    if !names.iter().any(|name| name.contains(&arguments.only)) {
        let what = format!("no story has {:?} in its name: they are {}", arguments.only, names.join(", "));
        return Err(Failure::Usage(what));
    }
    for fs in FileSystem::ALL {
        rehearse(fs).map_err(|error| Failure::Failed(format!("no disk can be had here: {error}")))?;
    }
    let all = FileSystem::ALL.len() * names.iter().filter(|name| name.contains(&arguments.only)).count();
    let mut outcomes = Vec::new();
    for fs in FileSystem::ALL {
        for (name, story) in STORIES {
            outcomes.extend(told(arguments, fs, name, || tell(story, fs)));
        }
        let time = Duration::from_secs(arguments.hang);
        outcomes.extend(told(arguments, fs, HANG, || tell(|fs| hang(fs, time), fs)));
    }
    let wrong = outcomes.iter().filter(|went_well| !**went_well).count();
    println!("{} of {all} stories were told, {wrong} went wrong", outcomes.len());
    Failure::unless(wrong == 0)
}

/// Whether it went well; `None` of one that is left out.
fn told(arguments: &Arguments, fs: FileSystem, name: &str, story: impl FnOnce() -> Result<String>) -> Option<bool> {
    if !name.contains(&arguments.only) || interrupt::is_asked() {
        return None;
    }
    let outcome = story();
    match &outcome {
        Ok(told) => println!("{fs}: {name}: {told}"),
        Err(error) => println!("{fs}: {name}: WRONG: {error}"),
    }
    Some(outcome.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_hangs_for_a_second_at_least() {
        assert_eq!(at_least_one("1"), Ok(1));
        for text in ["0", "-1", "", "long"] {
            assert!(at_least_one(text).is_err());
        }
    }
}
