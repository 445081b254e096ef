//! Which core serves and which makes load, and how much CPU time each used.

use crate::error::{BenchError, Doing, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;

/// The two cores of a run. On a machine with a single one both are left to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cores {
    /// Where the server's one shard, or the yardstick, runs.
    pub server: Option<usize>,
    /// Where the load is made.
    pub load: Option<usize>,
}

impl Cores {
    /// The last core of this process's cpuset for the server, the first for the load: interrupts tend to be on the
    /// first ones.
    pub fn choose() -> Cores {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        match (cores.next(), cores.next_back()) {
            (Some(first), Some(last)) => Cores { server: Some(last), load: Some(first) },
            _ => Cores { server: None, load: None },
        }
    }
}

/// CPU time of a process or of one thread, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuClock {
    /// All threads of a process, ended ones and the kernel's workers for its rings included.
    Process(u32),
    /// One thread of this process, by the kernel's number.
    Thread(i32),
}

impl CpuClock {
    /// Nanoseconds of CPU time used so far, to 10 ms for a process and exactly for a thread.
    ///
    /// # Errors
    /// When it is gone.
    pub fn nanoseconds(self) -> Result<u64> {
        let (path, parse): (_, fn(&str) -> Option<u64>) = match self {
            CpuClock::Process(pid) => (format!("/proc/{pid}/stat"), process_time),
            CpuClock::Thread(id) => (format!("/proc/self/task/{id}/schedstat"), thread_time),
        };
        let text = fs::read_to_string(path).doing("reading the CPU time of the server")?;
        parse(&text).ok_or_else(|| BenchError::Server("the kernel's figures of CPU time are in an unknown form".into()))
    }
}

/// utime and stime, the 14th and 15th fields, in clock ticks. The second, a name in parentheses, may hold blanks.
fn process_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<u64, _>>();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(ticks.ok()? * 1_000_000_000 / per_second as u64)
}

/// The first field is nanoseconds on a core.
fn thread_time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_figures() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 199 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(process_time(stat), Some(3_000_000_000), "300 ticks of 10 ms");
        assert_eq!(thread_time("1500 20 3"), Some(1500));
        assert!(CpuClock::Process(std::process::id()).nanoseconds().is_ok());
        assert!(CpuClock::Thread(nix::unistd::gettid().as_raw()).nanoseconds().is_ok());
    }
}
