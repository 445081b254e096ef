//! Kill at every I/O boundary, on the real kernel: a run is recorded, then repeated with the server killed before and after
//! each operation that changes the disk. After the restart every acknowledged record is there, in order, once.

mod check;
mod server;
mod story;

pub use server::serve;

use crate::interrupt;
use crate::process::scratch;
use corelog_engine::reactor::ring::{Boundary, Side};
use corelog_engine::reactor::sim::Random;
use server::Process;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use story::Told;
use tempfile::TempDir;

type Address = SocketAddr;

/// One restart in so many is killed as well.
const RESTARTS_KILLED_ONE_IN: u64 = 4;
/// What the server does to the disk. A set of runs that is to prove something is killed at each of these.
const KINDS: [&str; 12] = [
    "allocate",
    "create a directory",
    "create a file",
    "lock",
    "remove a directory",
    "remove a file",
    "rename",
    "sync a directory",
    "sync a file",
    "sync the file system",
    "truncate",
    "write",
];

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `proof`, which serves as well.
    pub program: PathBuf,
    /// Decides the order, and where restarts are killed.
    pub seed: u64,
    /// Only this boundary; else all of them, in an order that the seed decides.
    pub only: Option<Boundary>,
    /// No new one is begun after this time.
    pub time: Option<Duration>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations of the recorded run.
    pub operations: usize,
    /// Boundaries at which the server was killed.
    pub killed: usize,
    /// Those that a run did not come to, for it did a few operations less than the recorded one.
    pub passed: usize,
    /// Restarts that were killed too.
    pub restarts_killed: usize,
    /// Records that were acknowledged before kills, all runs together.
    pub acknowledged: u64,
    /// How often the server was killed at what.
    pub kinds: BTreeMap<String, usize>,
    /// What is wrong, and where.
    pub failures: Vec<(Boundary, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.kinds {
            writeln!(f, "{count:>9} killed before or after: {kind}")?;
        }
        write!(
            f,
            "{} operations; killed at {} boundaries, {} passed by; {} restarts killed; {} records acknowledged before \
             kills; {} boundaries failed",
            self.operations,
            self.killed,
            self.passed,
            self.restarts_killed,
            self.acknowledged,
            self.failures.len()
        )
    }
}

impl Report {
    /// What the server was never killed at.
    pub fn never(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| !self.kinds.contains_key(*kind)).collect()
    }
}

/// Records a run and repeats it with kills, on all cores, telling of its progress.
///
/// # Errors
/// When not even the recorded run, without a kill, comes to a good end.
pub fn run(options: &Options) -> Result<Report, String> {
    let (operations, restart) = record(options)?;
    println!(
        "recorded: {} operations that change the disk, {restart} of a restart; seed {}",
        operations.len(),
        options.seed
    );
    let queue = Mutex::new(queue(options, &operations).into_iter());
    let report = Mutex::new(Report { operations: operations.len(), ..Report::default() });
    let began = Instant::now();
    let work = || {
        while options.time.is_none_or(|time| began.elapsed() < time) && !interrupt::is_asked() {
            let Some(boundary) = queue.lock().expect("the queue").next() else { return };
            let outcome = Cycle::new(options, boundary, restart).and_then(Cycle::run);
            report.lock().expect("the report").take(boundary, outcome, &operations, options.seed);
        }
    };
    std::thread::scope(|scope| (0..cores()).for_each(|_| drop(scope.spawn(work))));
    Ok(report.into_inner().expect("the report"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A run without a kill: its operations, and how many a restart after a kill does.
fn record(options: &Options) -> Result<(Vec<String>, u64), String> {
    let directory = scratch();
    let process = Process::start(&options.program, directory.path(), None);
    let told = story::tell(process.address.ok_or("the server does not start")?)?;
    let operations = process.stop()?.ok_or("the server was killed by somebody else")?;
    check_restart(options, directory.path(), &mut told.clone())?;
    let killed = scratch();
    drop({
        let process = Process::start(&options.program, killed.path(), None);
        story::tell(process.address.ok_or("the server does not start")?)?;
        process
    });
    let restart = Process::start(&options.program, killed.path(), None);
    let restart = restart.stop()?.ok_or("the server was killed by somebody else")?;
    Ok((operations, restart.len() as u64))
}

/// Both sides of each operation, shuffled, but one of each kind first: a sample is to have them all.
fn queue(options: &Options, operations: &[String]) -> Vec<Boundary> {
    if let Some(only) = options.only {
        return vec![only];
    }
    let sides = |number| [Side::Before, Side::After].map(|side| Boundary { number, side });
    let mut all: Vec<Boundary> = (1..=operations.len() as u64).flat_map(sides).collect();
    let mut random = Random::new(options.seed);
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut seen = BTreeSet::new();
    all.sort_by_cached_key(|boundary| !seen.insert(kind(operations, *boundary)));
    all
}

/// What the operation at a boundary does.
fn kind(operations: &[String], boundary: Boundary) -> &str {
    operations.get((boundary.number as usize).wrapping_sub(1)).map_or("beyond the recorded run", String::as_str)
}

/// What a kill came to.
struct Outcome {
    killed: bool,
    restart_killed: bool,
    acknowledged: u64,
}

/// One run with a kill, and what comes after it.
struct Cycle<'a> {
    options: &'a Options,
    boundary: Boundary,
    /// Where the first restart is killed, if it is.
    restart: Option<Boundary>,
    directory: TempDir,
}

impl Cycle<'_> {
    fn new(options: &Options, boundary: Boundary, restart_operations: u64) -> Result<Cycle<'_>, String> {
        let mut random = Random::new(options.seed ^ boundary.number << 1 ^ boundary.side as u64);
        let number = 1 + random.below(restart_operations);
        let side = if random.coin() { Side::Before } else { Side::After };
        let restart = (random.below(RESTARTS_KILLED_ONE_IN) == 0).then_some(Boundary { number, side });
        Ok(Cycle { options, boundary, restart, directory: scratch() })
    }

    fn run(self) -> Result<Outcome, String> {
        let outcome = self.kill_and_look();
        if outcome.is_err() && std::env::var_os("CORELOG_KEEP").is_some() {
            println!("{}: kept as {}", self.boundary, self.directory.keep().display());
        }
        outcome
    }

    fn kill_and_look(&self) -> Result<Outcome, String> {
        let directory = self.directory.path();
        let process = Process::start(&self.options.program, directory, Some(self.boundary));
        let mut told = process.address.map_or_else(|| Ok(Told::default()), story::tell)?;
        let killed = process.stop()?.is_none();
        let acknowledged = told.acknowledged;
        let after = |what: &str| {
            let what = what.to_owned();
            move |why| format!("{what}: {why}")
        };
        check::verify_files(&directory.join("data")).map_err(after("the files after the kill"))?;
        let restart_killed = match self.restart {
            Some(boundary) => self.kill_restart(boundary)?,
            None => false,
        };
        check_restart(self.options, directory, &mut told)?;
        Ok(Outcome { killed, restart_killed, acknowledged })
    }

    fn kill_restart(&self, boundary: Boundary) -> Result<bool, String> {
        let directory = self.directory.path();
        let restarted = Process::start(&self.options.program, directory, Some(boundary));
        let killed = restarted.stop()?.is_none();
        let why = |why| format!("the files after the kill of the restart at {boundary}: {why}");
        check::verify_files(&directory.join("data")).map_err(why)?;
        Ok(killed)
    }
}

/// Starts the server again without a kill, looks at everything, stops it, and verifies its files.
fn check_restart(options: &Options, directory: &Path, told: &mut Told) -> Result<(), String> {
    let process = Process::start(&options.program, directory, None);
    let looked = process.address.ok_or("it does not start again".into()).and_then(|server| check::check(server, told));
    let stopped = process.stop();
    looked.and(stopped.map(drop))?;
    check::verify_files(&directory.join("data"))
}

impl Report {
    fn take(&mut self, boundary: Boundary, outcome: Result<Outcome, String>, operations: &[String], seed: u64) {
        match outcome {
            Ok(outcome) => {
                self.acknowledged += outcome.acknowledged;
                self.restarts_killed += usize::from(outcome.restart_killed);
                if outcome.killed {
                    self.killed += 1;
                    *self.kinds.entry(kind(operations, boundary).to_owned()).or_default() += 1;
                } else {
                    self.passed += 1;
                }
            }
            Err(why) => {
                println!("{boundary} ({}): {why}", kind(operations, boundary));
                println!("  CORELOG_KEEP=1 proof boundaries --only {boundary} --seed {seed}");
                self.failures.push((boundary, why));
            }
        }
        let done = self.killed + self.passed + self.failures.len();
        if done.is_multiple_of(100) {
            println!("{done} of {} boundaries, {} failed", 2 * self.operations, self.failures.len());
        }
    }
}
