//! The engine in the simulated world, many seeds of it. A seed and a commit are a run:
//!
//! ```text
//! CORELOG_SEED=17 cargo test --profile proof -p corelog-tests --test simulation -- --nocapture   # one seed again
//! CORELOG_SEEDS=5000 cargo test --profile proof -p corelog-tests --test simulation               # many, from
//!                                                                                # CORELOG_SEEDS_FROM on, else from 0
//! ```
#![allow(clippy::panic, clippy::unwrap_used, reason = "all of this is a test: what is broken is to stop it")]

use corelog_tests::campaign::{never, run_all};
use corelog_tests::kept;
use corelog_tests::run::run;
use std::collections::BTreeSet;

/// Seeds that the integration server runs.
const SEEDS_DEFAULT: u64 = 21;

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
        None => (0..SEEDS_DEFAULT).chain(kept::seeds().into_keys()).collect(),
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    let seeds = seeds();
    let (mut next, count) = (seeds.iter().copied(), seeds.len() as u64);
    let outcome = run_all(|| next.next());
    println!("{outcome}");
    assert!(outcome.failures.is_empty(), "{} of {count} seeds failed", outcome.failures.len());
    assert!(never().is_empty() || count < SEEDS_DEFAULT, "never met: {:?}", never());
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
    use super::number;
    use corelog_engine::planted::{Bug, plant};
    use corelog_tests::campaign::run_caught;
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
