//! Readings of `/proc` and `/sys`. A reading that is absent or malformed is `None`: kernels and containers differ in
//! what they show, and no check may fail for that.

use crate::cpuset::CpuSet;
use std::path::{Path, PathBuf};

/// A machine as the files below a root show it.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

/// A resource limit of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this much.
    At(u64),
    /// No limit.
    Unlimited,
}

impl Host {
    /// The machine we run on.
    pub fn this() -> Host {
        Host::at("/")
    }

    /// A machine whose `/proc` and `/sys` lie under `root`.
    pub fn at(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    /// Where the host's file `path` (absolute, as on the host) lies for us.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim_end().to_owned())
    }

    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// Cores that are switched on.
    pub fn online_cpus(&self) -> Option<CpuSet> {
        self.read("/sys/devices/system/cpu/online")?.parse().ok()
    }

    /// Cores this process may run on: affinity mask and cpuset together, as the kernel applies them.
    pub fn allowed_cpus(&self) -> Option<CpuSet> {
        self.status("Cpus_allowed_list")?.parse().ok()
    }

    /// The smallest CPU quota, in cores, of the cgroups this process is in; `None` when there is none.
    pub fn cpu_quota(&self) -> Option<f64> {
        let unified = self.smallest_in_cgroups(None, |host, dir| {
            let text = host.read(dir.join("cpu.max"))?;
            let (quota, period) = text.split_once(' ')?;
            cores(quota, period)
        });
        let legacy = self.smallest_in_cgroups(Some("cpu"), |host, dir| {
            let quota = host.read(dir.join("cpu.cfs_quota_us"))?;
            cores(&quota, &host.read(dir.join("cpu.cfs_period_us"))?)
        });
        [unified, legacy].into_iter().flatten().reduce(f64::min)
    }

    /// Bytes of memory this process may use: what the machine has, or the smallest limit of its cgroups.
    pub fn memory_bytes(&self) -> Option<u64> {
        let limits = [(None, "memory.max"), (Some("memory"), "memory.limit_in_bytes")].map(|(controller, file)| {
            self.smallest_in_cgroups(controller, |host, dir| host.number(dir.join(file)).map(|bytes| bytes as f64))
                .map(|bytes| bytes as u64)
        });
        limits.into_iter().flatten().chain(self.meminfo("MemTotal")).min()
    }

    /// A line of `/proc/meminfo`, in bytes (or pages, where the kernel counts pages).
    pub(crate) fn meminfo(&self, key: &str) -> Option<u64> {
        let text = self.read("/proc/meminfo")?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        match value.trim().strip_suffix(" kB") {
            Some(kib) => kib.parse::<u64>().ok()?.checked_mul(1024),
            None => value.trim().parse().ok(),
        }
    }

    /// A line of `/proc/self/status`.
    pub(crate) fn status(&self, key: &str) -> Option<String> {
        let text = self.read("/proc/self/status")?;
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// Whether this process holds capability number `bit` (capabilities(7)).
    pub(crate) fn capable(&self, bit: u32) -> bool {
        let set = self.status("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        set.is_some_and(|set| set >> bit & 1 == 1)
    }

    /// The soft limit that `/proc/self/limits` shows under `name`, as in "Max open files".
    pub fn limit(&self, name: &str) -> Option<Limit> {
        let text = self.read("/proc/self/limits")?;
        let soft = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?;
        if soft == "unlimited" { Some(Limit::Unlimited) } else { soft.parse().ok().map(Limit::At) }
    }

    /// Kernel version as (major, minor).
    pub(crate) fn kernel(&self) -> Option<(u32, u32)> {
        let release = self.read("/proc/sys/kernel/osrelease")?;
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// The cores that share a physical core with `cpu`, itself among them.
    pub(crate) fn siblings(&self, cpu: usize) -> CpuSet {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        self.read(path).and_then(|list| list.parse().ok()).unwrap_or_else(|| CpuSet::from_iter([cpu]))
    }

    pub(crate) fn mounts(&self) -> Vec<Mount> {
        self.read("/proc/self/mountinfo").unwrap_or_default().lines().filter_map(Mount::parse).collect()
    }

    /// The least of a value over this process's cgroup and all above it. `controller`: `None` is the unified (v2)
    /// hierarchy, else the v1 hierarchy of that name.
    fn smallest_in_cgroups(
        &self,
        controller: Option<&str>,
        value: impl Fn(&Host, &Path) -> Option<f64>,
    ) -> Option<f64> {
        let inside = self.cgroup_path(controller)?;
        let mount = self.mounts().into_iter().find(|mount| mount.is_cgroup(controller))?;
        // Seen from inside a container the path may be the host's, of which the mount shows only the container's part.
        let below = inside.strip_prefix(&mount.root).unwrap_or(&inside);
        let relative = Path::new(below).strip_prefix("/").unwrap_or(Path::new(below));
        let ancestors = relative.ancestors().map(|part| mount.point.join(part));
        ancestors.filter_map(|dir| value(self, &dir)).reduce(f64::min)
    }

    /// The third field of our line in `/proc/self/cgroup`.
    fn cgroup_path(&self, controller: Option<&str>) -> Option<String> {
        let text = self.read("/proc/self/cgroup")?;
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let ours = match controller {
                None => controllers.is_empty(),
                Some(name) => controllers.split(',').any(|c| c == name),
            };
            ours.then(|| path.to_owned())
        })
    }
}

/// `quota` of `period`, in cores; `max` and -1 mean no quota.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// A line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor`.
    pub(crate) device: String,
    /// What part of its file system is mounted.
    pub(crate) root: String,
    /// Where.
    pub(crate) point: PathBuf,
    /// ext4, xfs, ...
    pub(crate) kind: String,
    /// /dev/vda1, or any word where there is no device.
    pub(crate) source: String,
    /// Options of the mount and of its file system.
    pub(crate) options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let mut file_system = file_system.split(' ');
        let (kind, source) = (file_system.next()?, file_system.next()?);
        let own = mount.get(5)?.split(',');
        Some(Mount {
            device: (*mount.get(2)?).to_owned(),
            root: unescape(mount.get(3)?),
            point: unescape(mount.get(4)?).into(),
            kind: kind.to_owned(),
            source: unescape(source),
            options: own.chain(file_system.next().unwrap_or("").split(',')).map(str::to_owned).collect(),
        })
    }

    fn is_cgroup(&self, controller: Option<&str>) -> bool {
        match controller {
            None => self.kind == "cgroup2",
            Some(name) => self.kind == "cgroup" && self.has(name),
        }
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// Space, tab, newline and backslash stand as `\ooo` in mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .iter()
        .zip([" ", "\t", "\n"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        .replace("\\134", "\\")
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::Host;
    use std::path::Path;

    /// A pretended machine in a temporary directory.
    pub(crate) struct Tree(tempfile::TempDir);

    impl Tree {
        /// Nothing in it.
        pub(crate) fn empty() -> Tree {
            Tree(tempfile::tempdir().unwrap())
        }

        /// A healthy machine: eight cores (four physical, siblings n and n+4), ext4 on an NVMe disk.
        pub(crate) fn healthy() -> Tree {
            let tree = Tree::empty()
                .file("proc/sys/kernel/osrelease", "6.12.0-generic\n")
                .file("proc/sys/kernel/io_uring_disabled", "0\n")
                .file("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\nSeccomp:\t0\nCpus_allowed_list:\t0-7\n")
                .file("proc/self/limits", LIMITS)
                .file("proc/self/cgroup", "0::/system.slice/corelog.service\n")
                .file("proc/self/mountinfo", MOUNTS)
                .file("proc/meminfo", "MemTotal: 16777216 kB\nHugePages_Free: 1024\nHugepagesize: 2048 kB\n")
                .file("proc/swaps", "Filename Type Size Used Priority\n")
                .file("proc/interrupts", INTERRUPTS)
                .file("sys/devices/system/cpu/online", "0-7\n")
                .file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
                .file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
                .file("sys/fs/ext4/nvme0n1p1/journal_task", "512\n")
                .file("sys/devices/pci0/nvme/nvme0/nvme0n1/queue/write_cache", "write back\n")
                .file("sys/devices/pci0/nvme/nvme0/nvme0n1/queue/logical_block_size", "512\n")
                .file("sys/devices/pci0/nvme/nvme0/nvme0n1/queue/physical_block_size", "4096\n")
                .file("sys/devices/pci0/nvme/nvme0/nvme0n1/nvme0n1p1/partition", "1\n")
                .file("sys/devices/pci0/msi_irqs/40", "msix\n")
                .file("sys/devices/pci0/msi_irqs/41", "msix\n")
                .link("sys/dev/block/259:1", "../../devices/pci0/nvme/nvme0/nvme0n1/nvme0n1p1");
            (0..8).fold(tree, |tree, cpu| {
                let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
                tree.file(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings)
                    .file(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance\n")
            })
        }

        /// With this file, in place of any former one.
        pub(crate) fn file(self, path: &str, text: &str) -> Tree {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        pub(crate) fn link(self, path: &str, target: &str) -> Tree {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(Path::new(target), path).unwrap();
            self
        }

        pub(crate) fn without(self, path: &str) -> Tree {
            std::fs::remove_file(self.0.path().join(path)).unwrap();
            self
        }

        pub(crate) fn host(&self) -> Host {
            Host::at(self.0.path())
        }
    }

    pub(crate) const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
";
    pub(crate) const MOUNTS: &str = "\
20 1 259:1 / / rw,relatime - ext4 /dev/nvme0n1p1 rw,errors=remount-ro
21 20 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
22 20 0:30 / /with\\040space rw - tmpfs tmpfs rw
";
    const INTERRUPTS: &str = "\
            CPU0       CPU1       CPU2       CPU3       CPU4       CPU5       CPU6       CPU7
  40:          3          0          0          0          0          0          0          0  PCI-MSIX nvme0q0
  41:          0          0          0       9000          0          0          0          0  PCI-MSIX nvme0q1
  50:      70000          0          0          0          0          0          0          0  PCI-MSIX eth0
";
}

#[cfg(test)]
mod tests {
    use super::fixture::{MOUNTS, Tree};
    use super::*;

    #[test]
    fn readings_of_a_healthy_machine() {
        let tree = Tree::healthy();
        let host = tree.host();
        assert_eq!(host.online_cpus().unwrap().to_string(), "0-7");
        assert_eq!(host.allowed_cpus().unwrap().to_string(), "0-7");
        assert_eq!(host.cpu_quota(), None);
        assert_eq!(host.memory_bytes(), Some(16 << 30));
        assert_eq!(host.limit("Max open files"), Some(Limit::At(1_048_576)));
        assert_eq!(host.limit("Max locked memory"), Some(Limit::Unlimited));
        assert_eq!(host.kernel(), Some((6, 12)));
        assert_eq!(host.siblings(5).to_string(), "1,5");
        assert_eq!(host.mounts()[2].point, Path::new("/with space"));
    }

    #[test]
    fn nothing_to_read_is_no_failure() {
        let tree = Tree::empty();
        let host = tree.host();
        assert_eq!((host.online_cpus(), host.cpu_quota(), host.memory_bytes()), (None, None, None));
        assert_eq!((host.kernel(), host.limit("Max open files")), (None, None));
        assert!(host.mounts().is_empty());
    }

    #[test]
    fn the_smallest_quota_above_us_counts_in_the_unified_hierarchy() {
        let tree = Tree::healthy()
            .file("sys/fs/cgroup/system.slice/corelog.service/cpu.max", "max 100000\n")
            .file("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n")
            .file("sys/fs/cgroup/cpu.max", "800000 100000\n")
            .file("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        assert_eq!(tree.host().cpu_quota(), Some(2.5));
        assert_eq!(tree.host().memory_bytes(), Some(1 << 30));
    }

    #[test]
    fn quota_of_the_legacy_hierarchy_inside_a_container() {
        let mounts = format!("{MOUNTS}23 20 0:31 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
        let tree = Tree::healthy()
            .file("proc/self/mountinfo", &mounts)
            .file("proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n")
            .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n")
            .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        assert_eq!(tree.host().cpu_quota(), Some(1.5));
        let unlimited = tree.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        assert_eq!(unlimited.host().cpu_quota(), None);
    }
}
