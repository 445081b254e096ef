//! The engine in the simulated world, many seeds of it. A seed and a commit are a run:
//!
//! ```text
//! CORELOG_SEED=17 cargo test --profile proof -p corelog-tests --test simulation -- --nocapture   # one seed again
//! CORELOG_SEEDS=5000 cargo test --profile proof -p corelog-tests --test simulation               # many, from
//!                                                                                # CORELOG_SEEDS_FROM on, else from 0
//! ```
#![allow(clippy::panic, clippy::unwrap_used, reason = "all of this is a test: what is broken is to stop it")]

use corelog_tests::kept;
use corelog_tests::run::{Report, run};
use corelog_tests::sometimes;
use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds that the integration server runs.
const SEEDS_DEFAULT: u64 = 21;

/// What a set of runs must have met at least once.
const RARE: [&str; 26] = [
    "a checkpoint was taken",
    "a large batch was appended",
    "a native client opened a partition of another shard",
    "a native client's connection broke with requests under way",
    "a native client's records were acknowledged",
    "a reader fell out of the log",
    "a reader met damage",
    "a reader went to the disk",
    "a segment or an index was damaged",
    "a shard reopened its log",
    "a start was cut short",
    "a subscription came to the end of its log",
    "a topic was created",
    "a topic was deleted",
    "a waiting reader was woken",
    "a write to a segment was lost or went astray",
    "an append crossed to another shard",
    "an append met a bound",
    "an append met a full disk",
    "an append met a partition that is gone",
    "an append met a shard that recovers",
    "records were deleted",
    "records were pushed to a native client",
    "the number of shards changed",
    "the power was cut",
    "the process was killed",
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text}, which is no number")))
}

/// One seed, a range of them, or what the integration server runs: the first few, and those that found something once.
fn seeds() -> BTreeSet<u64> {
    if let Some(seed) = number("CORELOG_SEED") {
        return [seed].into();
    }
    let from = number("CORELOG_SEEDS_FROM").unwrap_or(0);
    match number("CORELOG_SEEDS") {
        Some(count) => (from..from + count).collect(),
        None => (0..SEEDS_DEFAULT).chain(kept::SEEDS.iter().map(|(seed, _)| *seed)).collect(),
    }
}

/// A run, or what it panicked with: our own assertions count as findings.
fn run_caught(seed: u64) -> Result<Report, String> {
    let report = catch_unwind(|| run(seed)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })?;
    match report.broken.clone() {
        Some(broken) => Err(broken),
        None => Ok(report),
    }
}

/// Runs seeds on all cores; what went wrong, by seed, is said at once and returned.
fn run_all(seeds: &BTreeSet<u64>) -> Vec<(u64, String)> {
    let (next, failures) = (Mutex::new(seeds.iter().copied()), Mutex::new(Vec::new()));
    let totals = [const { AtomicU64::new(0) }; 3];
    let began = Instant::now();
    let work = || {
        loop {
            let Some(seed) = next.lock().unwrap().next() else { return };
            match run_caught(seed) {
                Ok(report) => {
                    for (total, count) in totals.iter().zip([report.acknowledged, report.read, report.events]) {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                }
                Err(broken) => {
                    println!("seed {seed}: {broken}");
                    failures.lock().unwrap().push((seed, broken));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let [acknowledged, read, events] = totals.map(AtomicU64::into_inner);
    let (count, took) = (seeds.len(), began.elapsed().as_secs_f64());
    println!("{count} seeds in {took:.1} s: {acknowledged} records acknowledged, {read} read, {events} events");
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    failures
}

#[test]
fn every_seed_keeps_the_promises() {
    let seeds = seeds();
    let failures = run_all(&seeds);
    for (seed, broken) in &failures {
        println!("seed {seed}: {broken}");
        println!("  CORELOG_SEED={seed} cargo test --profile proof -p corelog-tests --test simulation -- --nocapture");
    }
    assert!(failures.is_empty(), "{} of {} seeds failed", failures.len(), seeds.len());
    for (what, count) in sometimes::counts() {
        println!("{count:>9} {what}");
    }
    let never = sometimes::never(&RARE);
    assert!(never.is_empty() || (seeds.len() as u64) < SEEDS_DEFAULT, "never met: {never:?}");
}

#[test]
fn a_seed_gives_one_run_and_another_seed_another() {
    let hashes: Vec<u64> = (0..8).map(|seed| run(seed).trace_hash).collect();
    let again: Vec<u64> = (0..8).map(|seed| run(seed).trace_hash).collect();
    assert_eq!(hashes, again);
    assert!(hashes.iter().enumerate().all(|(at, hash)| !hashes[..at].contains(hash)));
}

/// Bugs on purpose: each must be found within the seeds that are run anyway.
#[cfg(feature = "planted")]
mod planted {
    use super::{number, run_caught};
    use corelog_engine::planted::{Bug, plant};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Seeds that are tried for a bug; most need a few.
    const SEEDS: usize = 200;
    /// Seeds that found what needs many, tried first. When what a run draws changes, they are as good as any.
    const FINDERS: [(Bug, u64); 5] = [
        (Bug::CheckpointedAfterFailure, 172),
        (Bug::DirectBlocksTrusted, 37),
        (Bug::JournalReusedEarly, 9),
        (Bug::FailedFlushRetried, 10),
        (Bug::MetadataTorn, 10),
    ];
    /// Seeds with errors of the disk are those that leave this when divided by `KINDS`.
    const DISK_ERRORS: u64 = 1;
    const KINDS: usize = 9;

    /// What goes wrong after a failed flush only is looked for where flushes fail.
    fn seeds(bug: Bug) -> impl Iterator<Item = u64> {
        let found = FINDERS.iter().filter(move |(found, _)| *found == bug).map(|(_, seed)| *seed);
        found.chain(all_seeds(bug))
    }

    fn all_seeds(bug: Bug) -> Box<dyn Iterator<Item = u64>> {
        match bug {
            Bug::CheckpointedAfterFailure | Bug::DirectBlocksTrusted | Bug::FailedFlushRetried => {
                Box::new((DISK_ERRORS..).step_by(KINDS).take(SEEDS))
            }
            _ => Box::new((0..).take(SEEDS)),
        }
    }

    /// The first seed that finds it, and what it says.
    fn find(bug: Bug) -> Option<(u64, String)> {
        plant(Some(bug));
        let found = seeds(bug).find_map(|seed| run_caught(seed).err().map(|broken| (seed, broken)));
        plant(None);
        found
    }

    #[test]
    fn every_planted_bug_is_found() {
        let chosen = number("CORELOG_BUG").map(|at| at as usize);
        let next = AtomicUsize::new(chosen.unwrap_or(0));
        let end = chosen.map_or(Bug::ALL.len(), |at| at + 1);
        let missed = std::sync::Mutex::new(Vec::new());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&bug) = Bug::ALL[..end].get(at) else { return };
                match find(bug) {
                    Some((seed, broken)) => println!("{bug:?} found by seed {seed}: {broken}"),
                    None => missed.lock().unwrap().push(bug),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let missed = missed.into_inner().unwrap();
        assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
    }
}
