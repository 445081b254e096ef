//! Many seeds of the simulation on all cores: what they found, what they met, and how fast the world went.

use crate::run::{Report, run};
use crate::sometimes;
use std::fmt;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a set of runs must have met at least once.
pub const RARE: [&str; 29] = [
    "a checkpoint was taken",
    "a large batch was appended",
    "a native client opened a partition of another shard",
    "a native client's connection broke with requests under way",
    "a native client's records were acknowledged",
    "a reader fell out of the log",
    "a reader met damage",
    "a reader went to the disk",
    "a keyed record without a value was read",
    "a piece of a file was sent",
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
    "compaction left a record out",
    "records were deleted",
    "records were pushed to a native client",
    "the number of shards changed",
    "the power was cut",
    "the process was killed",
];

/// How often a long campaign says where it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

/// What a set of seeds came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Runs that were ended, well or not.
    pub seeds: u64,
    /// What was broken, by seed.
    pub failures: Vec<(u64, String)>,
    acknowledged: u64,
    read: u64,
    events: u64,
    simulated: Duration,
    faults: u64,
    took: Duration,
}

/// A run, or what it panicked with: our own assertions count as findings.
pub fn run_caught(seed: u64) -> Result<Report, String> {
    let report = catch_unwind(|| run(seed)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })?;
    match report.broken.clone() {
        Some(broken) => Err(broken),
        None => Ok(report),
    }
}

/// Runs seeds on all cores until there are no more. What went wrong is said at once.
pub fn run_all(next: impl FnMut() -> Option<u64> + Send) -> Outcome {
    let (next, outcome) = (Mutex::new(next), Mutex::new(Outcome::default()));
    let began = Instant::now();
    let said = Mutex::new(began);
    let work = || {
        loop {
            let seed = lock(&next)();
            let Some(seed) = seed else { return };
            let result = run_caught(seed);
            let mut outcome = lock(&outcome);
            outcome.take(seed, result);
            outcome.took = began.elapsed();
            let mut said = lock(&said);
            if said.elapsed() >= PROGRESS_INTERVAL {
                *said = Instant::now();
                println!("{}", outcome.figures());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.failures.sort();
    outcome
}

/// What runs of this process should have met by now and have not.
pub fn never() -> Vec<&'static str> {
    sometimes::never(&RARE)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcome {
    fn take(&mut self, seed: u64, result: Result<Report, String>) {
        self.seeds += 1;
        match result {
            Ok(report) => {
                self.acknowledged += report.acknowledged;
                self.read += report.read;
                self.events += report.events;
                self.simulated += report.simulated;
                self.faults += report.faults;
            }
            Err(broken) => {
                println!("seed {seed}: {broken}");
                println!(
                    "  CORELOG_SEED={seed} cargo test --profile proof -p corelog-tests --test simulation -- --nocapture"
                );
                self.failures.push((seed, broken));
            }
        }
    }

    fn figures(&self) -> String {
        let (seconds, simulated) = (self.took.as_secs_f64(), self.simulated.as_secs_f64());
        let Outcome { seeds, acknowledged, read, events, faults, failures, .. } = self;
        format!(
            "{seeds} seeds in {seconds:.1} s: {acknowledged} records acknowledged, {read} read, {events} events; \
             {:.1} simulated seconds per second, {:.0} faults per simulated hour; {} failed",
            simulated / seconds.max(0.001),
            *faults as f64 / simulated.max(0.001) * 3600.0,
            failures.len()
        )
    }
}

/// What was met, each with how often, then the figures.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = sometimes::counts();
        let also = counts.keys().filter(|what| !RARE.contains(what));
        for what in RARE.iter().chain(also) {
            let must = if RARE.contains(what) { "" } else { " (need not be)" };
            writeln!(f, "{:>9} {what}{must}", counts.get(what).copied().unwrap_or(0))?;
        }
        f.write_str(&self.figures())
    }
}
