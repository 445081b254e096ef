//! The checks, each one function from readings to a verdict and what to do.

use crate::host::{Host, Limit, Mount};
use crate::storage::{DataDir, Disk, mount_of};
use serde::Serialize;
use std::collections::BTreeSet;

/// How far a finding is from what the log wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// Works as promised; could be faster or roomier.
    Advice,
    /// A promise may not hold here, or the speed is far below what the machine can do.
    Warning,
    /// The server does not start here.
    Cannot,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was seen, with its unit.
    pub found: String,
    /// How good that is.
    pub verdict: Verdict,
    /// What the operator should do and why; empty when the verdict is Ok.
    pub what_to_do: String,
}

/// All checks that apply to this host, in the order of the table. `memory_bytes` is the server's memory budget: locked
/// memory and huge pages are judged against it.
pub fn checks(host: &Host, data_dir: &DataDir, memory_bytes: u64) -> Vec<Check> {
    let processor =
        [kernel(host), io_uring(host), cores(host), affinity(host), quota(host), governor(host), clock(host)];
    let memory = [
        memory(host, memory_bytes),
        locked_memory(host, memory_bytes),
        huge_pages(host, memory_bytes),
        swap(host),
        open_files(host),
    ];
    let mut found: Vec<Check> = processor.into_iter().chain(memory).flatten().collect();
    found.extend([writable(data_dir), free_space(data_dir)]);
    if let Some(mount) = mount_of(host, &data_dir.path) {
        let disk = Disk::below(host, &mount);
        found.push(file_system(host, &mount));
        found.extend(mount_options(&mount));
        found.push(direct_io(data_dir));
        found.extend(disk.iter().flat_map(|disk| [write_cache(disk), block_sizes(disk)]).flatten());
    }
    found
}

/// Bytes as people say them: `512 B`, `64.0 KiB`, `3.9 GiB`.
pub fn size_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.ilog2() / 10).min(units.len() as u32);
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * step)) as f64, units[step as usize - 1])
}

fn check(name: &'static str, found: impl Into<String>, verdict: Verdict, what_to_do: impl Into<String>) -> Check {
    Check { name, found: found.into(), verdict, what_to_do: what_to_do.into() }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    check(name, found, Verdict::Ok, "")
}

fn kernel(host: &Host) -> Option<Check> {
    let version = host.kernel()?;
    let found = format!("Linux {}.{}", version.0, version.1);
    Some(if version < (5, 15) {
        check("kernel", found, Verdict::Cannot, "install Linux 5.15 or later: io_uring lacks what is needed")
    } else if version < (6, 1) {
        check("kernel", found, Verdict::Advice, "Linux 6.1 or later completes I/O without interrupting the shard")
    } else {
        ok("kernel", found)
    })
}

fn io_uring(host: &Host) -> Option<Check> {
    const CAP_SYS_ADMIN: u32 = 21;
    let name = "io_uring";
    // The setting came with Linux 6.6; before it there was none to forbid io_uring.
    let disabled = host.number("/proc/sys/kernel/io_uring_disabled").unwrap_or(0);
    let found = format!("kernel.io_uring_disabled = {disabled}");
    Some(match disabled {
        0 => match host.status("Seccomp").as_deref() {
            Some("2") => check(
                name,
                format!("{found}, behind a seccomp filter"),
                Verdict::Advice,
                "if the server says that io_uring is forbidden, allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
            ),
            _ => ok(name, found),
        },
        1 if host.capable(CAP_SYS_ADMIN) => ok(name, format!("{found}, with CAP_SYS_ADMIN")),
        1 if in_io_uring_group(host) => ok(name, format!("{found}, in kernel.io_uring_group")),
        _ => check(name, found, Verdict::Cannot, "run `sysctl -w kernel.io_uring_disabled=0`"),
    })
}

fn in_io_uring_group(host: &Host) -> bool {
    let group = host.number("/proc/sys/kernel/io_uring_group").map(|group| group.to_string());
    let ours = ["Gid", "Groups"].map(|key| host.status(key).unwrap_or_default()).join(" ");
    group.is_some_and(|group| ours.split_whitespace().any(|id| id == group))
}

fn cores(host: &Host) -> Option<Check> {
    let online = host.online_cpus()?;
    let physical: BTreeSet<_> = online.0.iter().map(|&cpu| host.siblings(cpu).0.first().copied()).collect();
    let found = if physical.len() == online.len() {
        format!("{} online", online.len())
    } else {
        format!("{} online, {} physical", online.len(), physical.len())
    };
    Some(match online.len() {
        1 => {
            check("cores", found, Verdict::Advice, "with one core, clients on this machine compete with the only shard")
        }
        _ => ok("cores", found),
    })
}

fn affinity(host: &Host) -> Option<Check> {
    let (online, allowed) = (host.online_cpus()?, host.allowed_cpus()?);
    let missing = online.without(&allowed);
    let found = format!("may run on {allowed}");
    Some(if missing.is_empty() {
        ok("affinity", found)
    } else {
        let text =
            format!("cores {missing} are kept from this process; widen its cpuset or taskset if it should have them");
        check("affinity", found, Verdict::Advice, text)
    })
}

fn quota(host: &Host) -> Option<Check> {
    let allowed = host.allowed_cpus().or_else(|| host.online_cpus()).map_or(1, |cpus| cpus.len());
    Some(match host.cpu_quota() {
        None => ok("cpu quota", "none"),
        Some(quota) if quota >= allowed as f64 => ok("cpu quota", format!("{quota:.1} cores of {allowed}")),
        Some(quota) => check(
            "cpu quota",
            format!("{quota:.1} cores of {allowed}"),
            Verdict::Warning,
            "a throttled shard stops for up to 100 ms at a time: give whole cores by cpuset instead of a quota",
        ),
    })
}

fn governor(host: &Host) -> Option<Check> {
    let allowed = host.allowed_cpus().or_else(|| host.online_cpus())?;
    let path = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let governors: BTreeSet<String> = allowed.0.iter().filter_map(|cpu| host.read(path(cpu))).collect();
    let found = governors.iter().cloned().collect::<Vec<_>>().join(", ");
    match governors.iter().all(|governor| governor == "performance") {
        // Virtual machines show no governor: the frequency is the host's affair.
        _ if governors.is_empty() => None,
        true => Some(ok("frequency", found)),
        false => Some(check(
            "frequency",
            found,
            Verdict::Advice,
            "a core that clocks down answers late: run `cpupower frequency-set -g performance`",
        )),
    }
}

fn clock(host: &Host) -> Option<Check> {
    let source = host.read("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    Some(match source.as_str() {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" => ok("clock source", source),
        _ => check(
            "clock source",
            source,
            Verdict::Warning,
            "reading this clock enters the kernel or a device each time: boot with clocksource=tsc if the processor's is stable",
        ),
    })
}

fn memory(host: &Host, wanted: u64) -> Option<Check> {
    let usable = host.memory_bytes()?;
    let found = format!("{} usable, budget {}", size_text(usable), size_text(wanted));
    Some(if wanted > usable {
        check("memory", found, Verdict::Cannot, "lower --memory, or raise the memory limit of the cgroup")
    } else if wanted > usable / 10 * 9 {
        check("memory", found, Verdict::Warning, "leave a tenth to the kernel and other programs: lower --memory")
    } else {
        ok("memory", found)
    })
}

fn locked_memory(host: &Host, wanted: u64) -> Option<Check> {
    const CAP_IPC_LOCK: u32 = 14;
    let limit = host.limit("Max locked memory")?;
    let name = "locked memory";
    Some(match limit {
        Limit::Unlimited => ok(name, "unlimited"),
        Limit::At(bytes) if host.capable(CAP_IPC_LOCK) => {
            ok(name, format!("{}, lifted by CAP_IPC_LOCK", size_text(bytes)))
        }
        Limit::At(bytes) if bytes >= wanted => ok(name, size_text(bytes)),
        Limit::At(bytes) => check(
            name,
            size_text(bytes),
            Verdict::Advice,
            format!(
                "buffers cannot be registered with the kernel: run `ulimit -l {}` (or LimitMEMLOCK=) before the server",
                wanted / 1024
            ),
        ),
    })
}

fn huge_pages(host: &Host, wanted: u64) -> Option<Check> {
    let free = host.meminfo("HugePages_Free").unwrap_or(0).saturating_mul(host.meminfo("Hugepagesize").unwrap_or(0));
    let modes = host.read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("absent").to_owned();
    let found = format!("{} free, transparent: {mode}", size_text(free));
    Some(if free >= wanted || mode == "always" || mode == "madvise" {
        ok("huge pages", found)
    } else {
        let pages = wanted.div_ceil(2 << 20);
        let text = format!(
            "buffers on 4 KiB pages cost bandwidth and CPU: run `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` or `sysctl -w vm.nr_hugepages={pages}`"
        );
        check("huge pages", found, Verdict::Warning, text)
    })
}

fn swap(host: &Host) -> Option<Check> {
    let table = host.read("/proc/swaps")?;
    let areas: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    Some(if areas.is_empty() {
        ok("swap", "none")
    } else {
        let text =
            "a shard whose memory is swapped out stalls: run `swapoff -a`, or keep the budget well below the memory";
        check("swap", areas.join(", "), Verdict::Advice, text)
    })
}

fn open_files(host: &Host) -> Option<Check> {
    const WANTED: u64 = 65_536;
    Some(match host.limit("Max open files")? {
        Limit::Unlimited => ok("open files", "unlimited"),
        Limit::At(files) if files >= WANTED => ok("open files", files.to_string()),
        Limit::At(files) => check(
            "open files",
            files.to_string(),
            Verdict::Advice,
            format!(
                "each connection and each partition in use takes one: run `ulimit -n {WANTED}` (or LimitNOFILE=) before the server"
            ),
        ),
    })
}

fn writable(data_dir: &DataDir) -> Check {
    let path = data_dir.path.display().to_string();
    if data_dir.writable {
        ok("data directory", path)
    } else {
        check(
            "data directory",
            path,
            Verdict::Cannot,
            "it is not writable for this user: change its owner, or give --data-dir",
        )
    }
}

fn free_space(data_dir: &DataDir) -> Check {
    let found = format!("{} of {}", size_text(data_dir.free_bytes), size_text(data_dir.total_bytes));
    let name = "free space";
    // Never "cannot": a server must start on a full disk, to serve readers and to delete.
    if data_dir.free_bytes < (1 << 30).max(data_dir.total_bytes / 20) {
        check(
            name,
            found,
            Verdict::Warning,
            "producers are refused when the reserve is reached: free space or lower the retention",
        )
    } else {
        ok(name, found)
    }
}

fn file_system(host: &Host, mount: &Mount) -> Check {
    let found = format!("{} at {}", mount.kind, mount.point.display());
    let (verdict, text) = match mount.kind.as_str() {
        "ext4" if !has_journal(host, mount) => (
            Verdict::Warning,
            "ext4 without a journal: after a power cut its directories need fsck and may lose files; run `tune2fs -O has_journal` on it while unmounted",
        ),
        "ext4" | "xfs" => (Verdict::Ok, ""),
        "btrfs" | "bcachefs" | "zfs" => (
            Verdict::Warning,
            "a copying file system writes every block to a new place, so that each commit pays for metadata too; use ext4 or xfs",
        ),
        "tmpfs" | "ramfs" => {
            (Verdict::Warning, "memory only: nothing outlives a restart of the machine; good for trials alone")
        }
        "overlay" => (Verdict::Warning, "a container's layer: slow, and gone with the container; mount a volume"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" => (
            Verdict::Warning,
            "a network's file system: each commit waits for the network, and locks may not hold; use a local disk",
        ),
        kind if kind.starts_with("fuse") || kind == "virtiofs" => {
            (Verdict::Warning, "whether a flush reaches the disk is up to another program; use a local ext4 or xfs")
        }
        _ => (Verdict::Advice, "not tried with corelog; ext4 and xfs are"),
    };
    check("file system", found, verdict, text)
}

/// ext4 shows its journal's thread; without a journal the file says `<none>`.
fn has_journal(host: &Host, mount: &Mount) -> bool {
    let device = host.path(format!("/sys/dev/block/{}", mount.device)).canonicalize().ok();
    let name = device.as_deref().and_then(|path| path.file_name()?.to_str());
    let task = name.and_then(|name| host.read(format!("/sys/fs/ext4/{name}/journal_task")));
    task.is_none_or(|task| task != "<none>")
}

fn mount_options(mount: &Mount) -> Option<Check> {
    let named = |wanted: &[&'static str]| wanted.iter().copied().find(|option| mount.has(option));
    let name = "mount options";
    if mount.has("ro") {
        return Some(check(name, "ro", Verdict::Cannot, "the file system is mounted read-only: remount it with rw"));
    }
    if let Some(option) = named(&["nobarrier", "barrier=0", "volatile"]) {
        let text = format!("{option} drops flushes: acknowledged records are lost with the power; mount without it");
        return Some(check(name, option, Verdict::Warning, text));
    }
    if let Some(option) = named(&["data=journal", "sync", "dirsync"]) {
        let text = format!("{option} writes twice or waits for every write; mount without it");
        return Some(check(name, option, Verdict::Warning, text));
    }
    Some(ok(name, if mount.options.is_empty() { "none".to_owned() } else { shortened(&mount.options) }))
}

fn shortened(options: &[String]) -> String {
    let unique: BTreeSet<&str> = options.iter().map(String::as_str).collect();
    let shown: Vec<&str> = unique.iter().copied().take(4).collect();
    let more = unique.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(",")) } else { shown.join(",") }
}

fn direct_io(data_dir: &DataDir) -> Check {
    match data_dir.direct {
        Some(true) => ok("direct I/O", "possible"),
        Some(false) => check(
            "direct I/O",
            "refused",
            Verdict::Advice,
            "writes go through the page cache, with the same flushes; a local ext4 or xfs is faster",
        ),
        None => {
            check("direct I/O", "not tried", Verdict::Advice, "no file could be made in the data directory to try it")
        }
    }
}

fn write_cache(disk: &Disk) -> Option<Check> {
    let cache = disk.queue("write_cache")?;
    let meaning =
        if cache == "write back" { "volatile cache, each commit flushes it" } else { "no volatile cache shown" };
    Some(ok("disk cache", format!("{}: {cache} ({meaning})", disk.name)))
}

fn block_sizes(disk: &Disk) -> Option<Check> {
    let logical: u64 = disk.queue("logical_block_size")?.parse().ok()?;
    let physical: u64 = disk.queue("physical_block_size")?.parse().ok()?;
    let found = format!("{}: logical {logical}, physical {physical}", disk.name);
    Some(if logical > 4096 {
        check(
            "block sizes",
            found,
            Verdict::Cannot,
            "blocks are written in units of 4096 bytes; this disk takes only larger ones",
        )
    } else if physical > 4096 {
        check("block sizes", found, Verdict::Advice, "a 4 KiB write makes this disk read and rewrite a larger block")
    } else {
        ok("block sizes", found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::{LIMITS, Tree};

    fn directory() -> DataDir {
        DataDir {
            path: "/var/lib/corelog".into(),
            writable: true,
            free_bytes: 500 << 30,
            total_bytes: 1 << 40,
            direct: Some(true),
        }
    }

    fn seen(tree: &Tree) -> Vec<Check> {
        checks(&tree.host(), &directory(), 1 << 30)
    }

    /// The check `name` of this machine, as "verdict: what to do".
    fn line(tree: &Tree, name: &str) -> (Verdict, String) {
        of(seen(tree), name)
    }

    fn of(checks: Vec<Check>, name: &str) -> (Verdict, String) {
        let check = checks.into_iter().find(|check| check.name == name).unwrap();
        (check.verdict, format!("{}: {}", check.found, check.what_to_do))
    }

    #[test]
    fn a_healthy_machine_has_nothing_to_do() {
        let found = seen(&Tree::healthy());
        assert_eq!(found.len(), 19, "{found:#?}");
        for check in found {
            assert_eq!((check.verdict, check.what_to_do.as_str()), (Verdict::Ok, ""), "{}", check.name);
        }
    }

    #[test]
    fn a_machine_that_shows_nothing_is_judged_by_the_directory_alone() {
        let names: Vec<_> = seen(&Tree::empty()).iter().map(|check| check.name).collect();
        assert_eq!(names, ["io_uring", "cpu quota", "huge pages", "data directory", "free space"]);
    }

    /// One change to a healthy machine, and what the table then says.
    #[test]
    fn each_fault_has_its_verdict_and_its_remedy() {
        use Verdict::*;
        let cases: &[(&str, &str, &str, Verdict, &str)] = &[
            ("proc/sys/kernel/osrelease", "5.14.21-x", "kernel", Cannot, "install Linux 5.15"),
            ("proc/sys/kernel/osrelease", "5.15.0", "kernel", Advice, "Linux 6.1 or later"),
            ("proc/sys/kernel/io_uring_disabled", "2", "io_uring", Cannot, "sysctl -w kernel.io_uring_disabled=0"),
            ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", Cannot, "sysctl -w kernel.io_uring_disabled=0"),
            ("proc/self/status", "Seccomp:\t2\nCpus_allowed_list:\t0-7\n", "io_uring", Advice, "seccomp profile"),
            ("sys/devices/system/cpu/online", "0", "cores", Advice, "the only shard"),
            ("proc/self/status", "Cpus_allowed_list:\t0-3\n", "affinity", Advice, "cores 4-7 are kept"),
            ("sys/fs/cgroup/cpu.max", "150000 100000", "cpu quota", Warning, "1.5 cores of 8: a throttled shard"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave", "frequency", Advice, "cpupower"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock source", Warning, "tsc"),
            ("proc/meminfo", "MemTotal: 524288 kB\n", "memory", Cannot, "lower --memory"),
            ("proc/meminfo", "MemTotal: 1100000 kB\n", "memory", Warning, "leave a tenth"),
            ("proc/swaps", "Filename\n/dev/sda2 partition\n", "swap", Advice, "/dev/sda2: a shard whose memory"),
            ("sys/fs/ext4/nvme0n1p1/journal_task", "<none>\n", "file system", Warning, "without a journal"),
            ("sys/devices/pci0/nvme/nvme0/nvme0n1/queue/logical_block_size", "8192", "block sizes", Cannot, "4096"),
            ("sys/devices/pci0/nvme/nvme0/nvme0n1/queue/physical_block_size", "16384", "block sizes", Advice, "larger"),
        ];
        for (path, text, name, verdict, words) in cases {
            let (found, line) = line(&Tree::healthy().file(path, text), name);
            assert_eq!(found, *verdict, "{path} {text}: {line}");
            assert!(line.contains(words), "{path} {text}: {line}");
        }
    }

    #[test]
    fn a_group_or_capability_lifts_the_half_closed_io_uring() {
        let tree = Tree::healthy().file("proc/sys/kernel/io_uring_disabled", "1\n");
        let tree = tree.file("proc/sys/kernel/io_uring_group", "27\n").file("proc/self/status", "Groups:\t4 27 \n");
        assert_eq!(line(&tree, "io_uring").0, Verdict::Ok);
        let tree = tree.file("proc/self/status", "Groups:\t4\nCapEff:\t0000000000200000\n");
        assert_eq!(line(&tree, "io_uring").0, Verdict::Ok);
    }

    #[test]
    fn small_limits_name_the_command_that_lifts_them() {
        let limits = LIMITS.replace("unlimited  ", "8388608    ").replace("1048576  ", "1024     ");
        let tree = Tree::healthy().file("proc/self/limits", &limits);
        let (verdict, text) = line(&tree, "locked memory");
        assert_eq!(verdict, Verdict::Advice);
        assert!(text.starts_with("8.0 MiB: ") && text.contains("`ulimit -l 1048576`"), "{text}");
        let (verdict, text) = line(&tree, "open files");
        assert_eq!(verdict, Verdict::Advice);
        assert!(text.starts_with("1024: ") && text.contains("`ulimit -n 65536`"), "{text}");
        let capable = tree.file("proc/self/status", "CapEff:\t0000000000004000\n");
        assert_eq!(line(&capable, "locked memory").0, Verdict::Ok);
    }

    #[test]
    fn huge_pages_come_from_either_source() {
        let never = ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        let tree = Tree::healthy().file(never.0, never.1);
        assert_eq!(line(&tree, "huge pages").0, Verdict::Ok, "2 GiB are reserved");
        let tree = tree.file("proc/meminfo", "HugePages_Free: 0\nHugepagesize: 2048 kB\n");
        let (verdict, text) = line(&tree, "huge pages");
        assert_eq!(verdict, Verdict::Warning);
        assert!(text.contains("vm.nr_hugepages=512"), "{text}");
    }

    #[test]
    fn file_systems_and_mount_options_have_their_verdicts() {
        let cases = [
            ("xfs", "rw", "file system", Verdict::Ok),
            ("btrfs", "rw", "file system", Verdict::Warning),
            ("tmpfs", "rw", "file system", Verdict::Warning),
            ("overlay", "rw", "file system", Verdict::Warning),
            ("nfs4", "rw", "file system", Verdict::Warning),
            ("fuse.sshfs", "rw", "file system", Verdict::Warning),
            ("f2fs", "rw", "file system", Verdict::Advice),
            ("ext4", "rw,nobarrier", "mount options", Verdict::Warning),
            ("ext4", "rw,data=journal", "mount options", Verdict::Warning),
            ("overlay", "rw,volatile", "mount options", Verdict::Warning),
            ("xfs", "ro", "mount options", Verdict::Cannot),
            ("xfs", "rw,noatime", "mount options", Verdict::Ok),
        ];
        for (kind, options, name, verdict) in cases {
            let mounts = format!("20 1 259:1 / / rw - {kind} /dev/nvme0n1p1 {options}\n");
            let tree = Tree::healthy().file("proc/self/mountinfo", &mounts);
            let (found, text) = line(&tree, name);
            assert_eq!(found, verdict, "{kind} {options}: {text}");
        }
    }

    #[test]
    fn the_directory_itself_is_judged() {
        let tree = Tree::healthy();
        let with = |change: fn(&mut DataDir)| {
            let mut directory = directory();
            change(&mut directory);
            checks(&tree.host(), &directory, 1 << 30)
        };
        assert_eq!(of(with(|d| d.writable = false), "data directory").0, Verdict::Cannot);
        assert_eq!(of(with(|d| d.free_bytes = 2 << 30), "free space").0, Verdict::Warning);
        assert_eq!(of(with(|d| d.direct = Some(false)), "direct I/O").0, Verdict::Advice);
        assert_eq!(of(with(|d| d.direct = None), "direct I/O").0, Verdict::Advice);
    }

    #[test]
    fn a_disk_without_a_volatile_cache_says_so() {
        let path = "sys/devices/pci0/nvme/nvme0/nvme0n1/queue/write_cache";
        let (verdict, text) = line(&Tree::healthy().file(path, "write through\n"), "disk cache");
        assert_eq!((verdict, text.as_str()), (Verdict::Ok, "nvme0n1: write through (no volatile cache shown): "));
        let tree = Tree::healthy().without(path);
        assert!(seen(&tree).iter().all(|check| check.name != "disk cache"));
    }

    #[test]
    fn sizes_read_well() {
        let shown = [0, 1023, 1024, 1536, 5 << 30, 1 << 50].map(size_text);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB", "1024.0 TiB"]);
    }
}
