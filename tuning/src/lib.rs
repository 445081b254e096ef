//! What this machine gives a thread-per-core log, what to do about what it lacks, and which cores the shards get.
//!
//! Everything is read from `/proc` and `/sys` under a root that tests replace with a fixture tree ([`Host::at`]); only
//! [`DataDir::look`] asks the kernel directly, about one directory. What the kernel's io_uring can do is not judged
//! here: the reactor probes it.
#![forbid(unsafe_code)]

mod checks;
mod cpuset;
mod describe;
mod host;
mod plan;
mod storage;

pub use checks::{Check, Verdict, checks, size_text};
pub use cpuset::{CpuSet, CpuSetError};
pub use describe::{Fact, describe};
pub use host::{Host, Limit};
pub use plan::{PlanError, ShardPlan, plan};
pub use storage::{DataDir, DataDirError, disk_interrupts};
