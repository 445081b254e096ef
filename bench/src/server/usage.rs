//! What a server has used and counted so far: the kernel's figures of its process, and its own.

use super::connection::Connection;
use crate::error::{BenchError, Doing, Result};
use corelog_wire::{Operation, ShardStats, StatsRequest};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// What was used up to a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// The process's; `None` of one that was not started here.
    pub(crate) process: Option<Process>,
    /// What all shards together have counted.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Of each stage of an append: how many passed it, and their times together in nanoseconds.
    pub(crate) stages: Vec<(String, u64, u64)>,
}

/// The kernel's figures of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    /// CPU time of all its threads, those that have ended among them, nanoseconds.
    pub(crate) cpu: u64,
    /// How much of it was in its own code and in the kernel for it, in the kernel's ticks of 10 ms: coarse, but true over
    /// a run of some seconds.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    /// How often its threads gave their core to others, or had it taken.
    pub(crate) switches: u64,
    /// The most memory that was resident.
    pub(crate) memory_peak: u64,
}

impl Process {
    /// Of a process by its number.
    pub(crate) fn of(pid: u32) -> Result<Process> {
        let doing = "reading what the server used";
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).doing(doing)?;
        let unknown = || BenchError::Server("the kernel's figures of CPU time are in an unknown form".into());
        let (user_ticks, system_ticks) = ticks(&stat).ok_or_else(unknown)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).doing(doing)?;
        let mut switches = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).doing(doing)?.flatten() {
            // A thread may have ended meanwhile.
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            switches += number(&status, "voluntary_ctxt_switches:") + number(&status, "nonvoluntary_ctxt_switches:");
        }
        let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).and_then(ClockId::now);
        let cpu = clock.map(|time| Duration::from(time).as_nanos() as u64).map_err(io::Error::from).doing(doing)?;
        Ok(Process { cpu, user_ticks, system_ticks, switches, memory_peak: number(&status, "VmHWM:") * 1024 })
    }
}

/// utime and stime, the 14th and 15th fields. The second, a name in parentheses, may hold blanks.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some((ticks.next()?.ok()?, ticks.next()?.ok()?))
}

fn number(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Process {
    /// CPU time since `before`, in its own code and in the kernel, nanoseconds.
    pub(crate) fn cpu_since(&self, before: &Process) -> (f64, f64) {
        let cpu = self.cpu.saturating_sub(before.cpu) as f64;
        let (user, system) = (self.user_ticks - before.user_ticks, self.system_ticks - before.system_ticks);
        let part = user as f64 / (user + system).max(1) as f64;
        (cpu * part, cpu * (1.0 - part))
    }
}

impl Usage {
    /// Asks the server for what its shards have counted, and the kernel for the process.
    pub(crate) fn look(connection: &mut Connection, shards: u16, pid: Option<u32>) -> Result<Usage> {
        let mut usage = Usage { process: pid.map(Process::of).transpose()?, ..Usage::default() };
        for shard in 0..shards {
            connection.call(Operation::Stats, 0, &StatsRequest { shard }, &[])?;
            usage.add(&connection.decode::<ShardStats<'_>>(Operation::Stats)?);
        }
        Ok(usage)
    }

    fn add(&mut self, stats: &ShardStats<'_>) {
        for count in stats.counts.iter() {
            *self.counts.entry(count.name.as_str().to_owned()).or_default() += count.value;
        }
        for stage in stats.stages.iter() {
            let passed: u64 = stage.buckets.iter().map(|bucket| bucket.count).sum();
            match self.stages.iter_mut().find(|(name, ..)| name == stage.name.as_str()) {
                Some((_, all, sum)) => (*all, *sum) = (*all + passed, *sum + stage.sum_ns),
                None => self.stages.push((stage.name.as_str().to_owned(), passed, stage.sum_ns)),
            }
        }
    }

    /// How much a count grew since `before`.
    pub(crate) fn grown(&self, before: &Usage, name: &str) -> f64 {
        let of = |usage: &Usage| usage.counts.get(name).copied().unwrap_or(0);
        of(self).saturating_sub(of(before)) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_figures() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 199 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some((250, 50)));
        let status = "VmHWM:\t    1024 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!((number(status, "VmHWM:"), number(status, "voluntary_ctxt_switches:")), (1024, 7));
        let this = Process::of(std::process::id()).expect("this process");
        assert!(this.memory_peak > 0 && this.cpu > 0);
    }
}
