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

/// CPU time of one thread of this process, by the kernel's number, from its start: with that of the kernel's workers for
/// its ring, where an fdatasync runs. Workers end when they were idle for some seconds, and their time with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuClock(pub(crate) i32);

impl CpuClock {
    /// Nanoseconds of CPU time used so far.
    pub(crate) fn nanoseconds(self) -> Result<u64> {
        let CpuClock(id) = self;
        let doing = "reading a thread's CPU time";
        let text = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).doing(doing)?;
        let own = thread_time(&text)
            .ok_or_else(|| BenchError::Server("the kernel's figures of CPU time are in an unknown form".into()))?;
        let workers = fs::read_dir("/proc/self/task").doing(doing)?.flatten().filter_map(|task| {
            // A worker may have ended meanwhile.
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let time = || thread_time(&fs::read_to_string(task.path().join("schedstat")).ok()?);
            (name.trim() == format!("iou-wrk-{id}")).then(time)?
        });
        Ok(own + workers.sum::<u64>())
    }
}

/// The first field is nanoseconds on a core.
fn thread_time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_yardstick::bare::{Bare, Durable, Options};
    use corelog_yardstick::frame::HEADER_BYTES;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn reads_the_kernels_figures() {
        assert_eq!(thread_time("1500 20 3"), Some(1500));
        assert!(CpuClock(nix::unistd::gettid().as_raw()).nanoseconds().is_ok());
    }

    #[test]
    fn counts_the_kernels_workers_for_a_ring() {
        let options = Options {
            directory: ".".into(),
            file_bytes: 2 << 20,
            frame_bytes: HEADER_BYTES + 8,
            ack_bytes: 0,
            gather_bytes: 4096,
            cpu: None,
            durable: Durable::Flush,
        };
        let bare = Bare::start(options).expect("starts");
        let mut stream = TcpStream::connect(bare.address()).expect("connects");
        let mut frame = [0; HEADER_BYTES + 8];
        frame[0] = 8;
        for _ in 0..100 {
            stream.write_all(&frame).expect("sends");
            stream.read_exact(&mut [0; HEADER_BYTES]).expect("an acknowledgement");
        }
        let all = CpuClock(bare.thread_id()).nanoseconds().expect("a time");
        let own = fs::read_to_string(format!("/proc/self/task/{}/schedstat", bare.thread_id())).expect("a time");
        // The thread's own is read last: it can only have grown.
        assert!(all > thread_time(&own).expect("a number"), "{all} ns in all, of which its own are {own}");
    }
}
