//! Crowds of clients that do what no client should, beside honest ones. Nothing here is timed: `proof edges` does that.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

use corelog_tests::edges::{Fault, Kind, Options, run};
use std::time::Duration;

const MEMORY: u64 = 1 << 30;
/// Far below what the disk takes of eight producers, so that they are far over it.
const PRODUCE_RATE: u64 = 2 << 20;
const BESIDE: Duration = Duration::from_secs(4);
/// Longer than the time to the hello, so that those who never say it are closed and come again.
const BESIDE_SILENT: Duration = Duration::from_secs(12);

fn endure(kind: Kind) {
    let beside = if kind == Kind::Silent { BESIDE_SILENT } else { BESIDE };
    let produce_rate = (kind == Kind::Flood).then_some(PRODUCE_RATE);
    let options = Options { beside, rounds: 1, memory: MEMORY, produce_rate };
    let row = run(kind, &options, &mut |line| println!("{line}")).expect("a run");
    println!("{row}\n{}", row.numbers);
    let faults: Vec<_> = row.faults().into_iter().filter(|fault| *fault != Fault::Latency).collect();
    assert_eq!(faults, [], "{row}; {:?}", row.answers.failures.last());
}

#[test]
fn ten_thousand_that_never_say_hello() {
    endure(Kind::Silent);
}

#[test]
fn readers_that_never_read() {
    endure(Kind::NeverRead);
}

#[test]
fn writers_of_a_byte_a_second() {
    endure(Kind::ByteASecond);
}

#[test]
fn subscribers_that_grant_no_credit() {
    endure(Kind::NoCredit);
}

#[test]
fn producers_far_over_the_limit() {
    endure(Kind::Flood);
}
