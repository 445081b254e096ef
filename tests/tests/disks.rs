//! Disks that misbehave, under a real server on both file systems: full, failing, hanging, read-only, with files gone.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

use corelog_tests::disk::{self, Result, image::FileSystem};
use corelog_tests::disks::{self, STORIES};
use std::time::Duration;

/// How long a disk hangs here; `proof disks --hang 30` takes longer.
const HANG: Duration = Duration::from_secs(4);

fn tell(name: &str) {
    let story = STORIES.iter().find(|(called, _)| *called == name).expect("a story of this name").1;
    tell_story(name, story);
}

fn tell_story(name: &str, story: impl Fn(FileSystem) -> Result<String>) {
    if !disk::can_run() {
        return;
    }
    for fs in FileSystem::ALL {
        match disks::tell(&story, fs) {
            Ok(told) => println!("{name} on {fs}: {told}"),
            Err(error) => panic!("{name} on {fs}: {error}"),
        }
    }
}

#[test]
fn full_to_its_reserve() {
    tell("full to its reserve");
}

#[test]
fn full_to_the_last_block() {
    tell("full to the last block");
}

#[test]
fn an_error_of_a_write() {
    tell("an error of a write");
}

#[test]
fn an_error_of_a_flush() {
    tell("an error of a flush");
}

#[test]
fn errors_of_reads() {
    tell("errors of reads");
}

#[test]
fn a_file_system_that_turns_read_only() {
    tell("a file system that turns read-only");
}

#[test]
fn short_writes() {
    tell("short writes");
}

#[test]
fn files_deleted_and_truncated() {
    tell("files deleted and truncated");
}

#[test]
fn a_disk_that_hangs() {
    tell_story("a disk that hangs", |fs| disks::hang(fs, HANG));
}
