//! Which core serves and which makes load.

use crate::error::{BenchError, Doing, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs;

/// The two cores of a run. On a machine with a single one both are left to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Cores {
    /// Where the server's one shard, or the yardstick, runs.
    pub(crate) server: Option<usize>,
    /// Where the load is made.
    pub(crate) load: Option<usize>,
}

impl Cores {
    /// The last core of this process's cpuset for the server, the first for the load: interrupts tend to be on the
    /// first ones.
    pub(crate) fn choose() -> Cores {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        match (cores.next(), cores.next_back()) {
            (Some(first), Some(last)) => Cores { server: Some(last), load: Some(first) },
            _ => Cores { server: None, load: None },
        }
    }
}

/// CPU time of one thread of this process, by the kernel's number, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuClock(pub(crate) i32);

impl CpuClock {
    /// Nanoseconds of CPU time used so far.
    pub(crate) fn nanoseconds(self) -> Result<u64> {
        let CpuClock(id) = self;
        let text =
            fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).doing("reading a thread's CPU time")?;
        thread_time(&text)
            .ok_or_else(|| BenchError::Server("the kernel's figures of CPU time are in an unknown form".into()))
    }
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
        assert_eq!(thread_time("1500 20 3"), Some(1500));
        assert!(CpuClock(nix::unistd::gettid().as_raw()).nanoseconds().is_ok());
    }
}
