//! Which core each shard is pinned to, and why.

use crate::cpuset::CpuSet;
use crate::host::Host;

/// Where the shards run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// The core of each shard, by shard number.
    pub shards: Vec<usize>,
    /// One sentence for the start line.
    pub why: String,
    /// What the operator should know about this choice; empty when there is nothing.
    pub warning: String,
}

/// A wish this machine cannot meet: the operator must change the setting that the text names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// smp is 0 or more than shard ids can number.
    #[error("smp is {0}; it must be from 1 to {SHARDS_MAX}")]
    Shards(usize),
    /// cpuset names a core that is off, or that this process may not use.
    #[error("cpuset names core {asked}, but this process may run only on {allowed}")]
    NotAllowed {
        /// The first such cores, as a list.
        asked: CpuSet,
        /// What it may use.
        allowed: CpuSet,
    },
    /// The machine does not say which cores there are.
    #[error("neither /proc/self/status nor /sys shows which cores there are; give --cpuset")]
    NoCores,
}

/// Shards a node may have; their mesh has a ring for each ordered pair.
const SHARDS_MAX: usize = 256;

/// Chooses cores. By default there is a shard on every core this process may use: a shard that finds nothing to do
/// parks, and while it spins it yields, so a core kept free for others would be idle under load and unneeded without.
/// A CPU quota lowers the number, because a throttled shard stalls every partition it owns. `interrupts` are the cores
/// that take the disk's interrupts ([`crate::disk_interrupts`]).
pub fn plan(
    host: &Host,
    smp: Option<usize>,
    cpuset: Option<&CpuSet>,
    interrupts: &CpuSet,
) -> Result<ShardPlan, PlanError> {
    if let Some(smp) = smp.filter(|smp| !(1..=SHARDS_MAX).contains(smp)) {
        return Err(PlanError::Shards(smp));
    }
    let usable = usable(host, cpuset)?;
    let (count, reason) = count(host, smp, cpuset, usable.len());
    let order = preference(host, &usable, interrupts);
    let mut shards: Vec<usize> = order.iter().copied().cycle().take(count).collect();
    shards.sort_unstable();
    let used = CpuSet::from_iter(shards.iter().copied());
    let warning = if count > usable.len() {
        format!("{count} shards share {} cores: they take turns, and latency suffers; use smp = {0}", usable.len())
    } else {
        String::new()
    };
    Ok(ShardPlan { why: sentence(&shards, &used, &reason, interrupts), shards, warning })
}

fn usable(host: &Host, cpuset: Option<&CpuSet>) -> Result<CpuSet, PlanError> {
    let allowed = host.allowed_cpus().or_else(|| host.online_cpus());
    let Some(cpuset) = cpuset else { return allowed.filter(|cpus| !cpus.is_empty()).ok_or(PlanError::NoCores) };
    let allowed = allowed.unwrap_or_else(|| cpuset.clone());
    let asked = cpuset.without(&allowed);
    if asked.is_empty() { Ok(cpuset.clone()) } else { Err(PlanError::NotAllowed { asked, allowed }) }
}

fn count(host: &Host, smp: Option<usize>, cpuset: Option<&CpuSet>, usable: usize) -> (usize, String) {
    if let Some(smp) = smp {
        return (smp, format!("smp = {smp}"));
    }
    if let Some(cpuset) = cpuset {
        return (usable.min(SHARDS_MAX), format!("cpuset = {cpuset}"));
    }
    match host.cpu_quota() {
        Some(quota) if quota < usable as f64 => {
            let count = (quota as usize).max(1);
            (count, format!("a CPU quota of {quota:.1} of the {usable} cores; more shards would be throttled"))
        }
        _ => (usable.min(SHARDS_MAX), "every core this process may use".to_owned()),
    }
}

/// Cores in the order of taking: one thread of each physical core before any second thread, and cores that take the
/// disk's interrupts last among equals.
fn preference(host: &Host, usable: &CpuSet, interrupts: &CpuSet) -> Vec<usize> {
    let rank = |cpu: usize| {
        let before = host.siblings(cpu).intersection(usable).0.range(..cpu).count();
        (before, interrupts.contains(cpu), cpu)
    };
    let mut order: Vec<usize> = usable.0.iter().copied().collect();
    order.sort_by_key(|&cpu| rank(cpu));
    order
}

fn sentence(shards: &[usize], used: &CpuSet, reason: &str, interrupts: &CpuSet) -> String {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let (n, cores) = (shards.len(), plural(used.len()));
    let text = format!("{n} shard{} on core{cores} {used}: {reason}", plural(n));
    let both = used.intersection(interrupts);
    match both.len() {
        0 => text,
        // Where every core takes interrupts of its own disk queue there is nothing special about any of them.
        all if all == used.len() => text,
        1 => format!("{text}; core {both} also takes the disk's interrupts"),
        _ => format!("{text}; cores {both} also take the disk's interrupts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    #[test]
    fn every_allowed_core_by_default() {
        let tree = Tree::healthy();
        let plan = plan(&tree.host(), None, None, &cpus("3")).unwrap();
        assert_eq!(plan.shards, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            plan.why,
            "8 shards on cores 0-7: every core this process may use; core 3 also takes the disk's interrupts"
        );
        assert_eq!(plan.warning, "");
    }

    #[test]
    fn a_quota_lowers_the_default_but_not_an_explicit_number() {
        let tree = Tree::healthy().file("sys/fs/cgroup/cpu.max", "250000 100000\n");
        let by_default = plan(&tree.host(), None, None, &CpuSet::default()).unwrap();
        assert_eq!(by_default.shards, [0, 1]);
        assert!(by_default.why.ends_with("a CPU quota of 2.5 of the 8 cores; more shards would be throttled"));
        assert_eq!(plan(&tree.host(), Some(4), None, &CpuSet::default()).unwrap().shards.len(), 4);
        let tiny = tree.file("sys/fs/cgroup/cpu.max", "50000 100000\n");
        assert_eq!(plan(&tiny.host(), None, None, &CpuSet::default()).unwrap().shards, [0]);
    }

    #[test]
    fn few_shards_take_whole_physical_cores_away_from_the_interrupts() {
        let tree = Tree::healthy();
        assert_eq!(plan(&tree.host(), Some(3), None, &cpus("0")).unwrap().shards, [1, 2, 3]);
        assert_eq!(plan(&tree.host(), Some(5), None, &cpus("4")).unwrap().shards, [0, 1, 2, 3, 5]);
    }

    #[test]
    fn a_cpuset_is_followed_exactly() {
        let tree = Tree::healthy();
        let plan = plan(&tree.host(), None, Some(&cpus("4,6")), &CpuSet::default()).unwrap();
        assert_eq!((plan.shards.as_slice(), plan.why.as_str()), (&[4, 6][..], "2 shards on cores 4,6: cpuset = 4,6"));
    }

    #[test]
    fn more_shards_than_cores_are_shared_out_with_a_warning() {
        let tree = Tree::healthy();
        let plan = plan(&tree.host(), Some(3), Some(&cpus("2-3")), &CpuSet::default()).unwrap();
        assert_eq!(plan.shards, [2, 2, 3]);
        assert_eq!(plan.warning, "3 shards share 2 cores: they take turns, and latency suffers; use smp = 2");
    }

    #[test]
    fn impossible_wishes_are_one_sentence() {
        let tree = Tree::healthy();
        let none = CpuSet::default();
        let error = plan(&tree.host(), None, Some(&cpus("6-9")), &none).unwrap_err();
        assert_eq!(error.to_string(), "cpuset names core 8-9, but this process may run only on 0-7");
        assert_eq!(
            plan(&tree.host(), Some(0), None, &none).unwrap_err().to_string(),
            "smp is 0; it must be from 1 to 256"
        );
        assert_eq!(plan(&Tree::empty().host(), None, None, &none), Err(PlanError::NoCores));
    }
}
