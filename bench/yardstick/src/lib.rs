//! What corelog is measured against: the least work that still does the job, straight on the kernel's interfaces.
//!
//! - [`bare`]: a durable echo server in one thread. It receives, gathers what arrived into one direct write, waits for
//!   it to be on stable storage, answers. Nothing that keeps a promise can do less, so it is the machine's limit.
//! - [`broker`]: the same work as tasks over a runtime, for the engine's reactor and for glommio.
//! - [`disk`]: the raw latency of one durable 4 KiB write and the bandwidth of direct sequential writes.
//! - [`frame`]: what these speak.
//! - [`heap`]: an allocator that counts, to prove that a path does not allocate.
//! - [`loopback`]: the raw round trip and the bandwidth of sending from memory.
//! - [`transfer`]: a file over TCP in each of the ways there are.
//!
//! Never part of the product, but for the allocator: `corelog bench bars` counts in the program itself. Like the engine's reactor it may hold `unsafe` code, each block with its reason; nothing
//! else in the workspace may.
#![allow(unsafe_code)]

pub mod bare;
pub mod broker;
pub mod disk;
pub mod frame;
pub mod heap;
pub mod loopback;
mod memory;
mod ring;
pub mod transfer;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::time::Duration;

/// How long a loop looks for completions, yielding the core between looks, before it parks in the kernel. Long enough
/// to cover a flush, so that a busy loop never pays for being woken.
pub const SPIN: Duration = Duration::from_micros(500);

/// Pins the calling thread to `cpu`; `None` leaves it to the scheduler.
///
/// # Errors
/// What sched_setaffinity(2) answers, e.g. for a core outside the process's cpuset.
pub fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
