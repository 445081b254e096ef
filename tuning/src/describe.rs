//! What a machine is, in the words that a benchmark's figures have to be read with.

use crate::checks::size_text;
use crate::host::{Host, Limit, Mount};
use crate::storage::{Disk, mount_of};
use std::collections::BTreeSet;
use std::path::Path;

/// A fact about the machine: its name, and what was found.
pub type Fact = (&'static str, String);

/// What the machine is, and the disk below `path`. What cannot be read is left out.
pub fn describe(host: &Host, path: &Path) -> Vec<Fact> {
    let mut facts = processor(host);
    facts.extend(kernel(host));
    if let Some(mount) = mount_of(host, path) {
        facts.extend(storage(host, &mount));
    }
    facts
}

fn processor(host: &Host) -> Vec<Fact> {
    let info = host.read("/proc/cpuinfo").unwrap_or_default();
    let line = |key: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let is_virtual = line("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let cores = host.allowed_cpus().map(|cores| format!("{cores} ({} of them)", cores.len()));
    let governors: BTreeSet<String> = (0..1024)
        .map_while(|cpu| host.read(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")))
        .collect();
    let governors = governors.into_iter().collect::<Vec<_>>().join(", ");
    [
        ("processor", line("model name")),
        ("cores allowed", cores),
        ("virtual machine", Some(if is_virtual { "yes" } else { "no" }.to_owned())),
        ("frequency governor", (!governors.is_empty()).then_some(governors)),
        ("memory", host.memory_bytes().map(size_text)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn kernel(host: &Host) -> Vec<Fact> {
    let locked = host.limit("Max locked memory").map(|limit| match limit {
        Limit::At(bytes) => size_text(bytes),
        Limit::Unlimited => "unlimited".to_owned(),
    });
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    [
        ("kernel", host.read("/proc/sys/kernel/osrelease")),
        ("clock source", host.read(clock)),
        ("locked memory", locked),
        ("huge pages", host.read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen)),
        ("reserved huge pages free", host.meminfo("HugePages_Free").map(|pages| pages.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn storage(host: &Host, mount: &Mount) -> Vec<Fact> {
    let mut facts = vec![
        ("file system", format!("{} at {}", mount.kind, mount.point.display())),
        ("mounted with", mount.options.join(",")),
    ];
    let Some(disk) = Disk::below(host, mount) else { return facts };
    let queue = |file| disk.queue(file);
    facts.push(("disk", disk.name.clone()));
    facts.extend(queue("scheduler").as_deref().and_then(chosen).map(|scheduler| ("disk scheduler", scheduler)));
    facts.extend(queue("write_cache").map(|cache| ("disk cache", cache)));
    facts
}

/// The word in brackets of a list of choices; all of it where there are none.
fn chosen(choices: &str) -> Option<String> {
    let marked = choices.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    let chosen = marked.unwrap_or(choices).trim();
    (!chosen.is_empty()).then(|| chosen.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn a_healthy_machine_is_described_and_what_is_unknown_left_out() {
        let tree = Tree::healthy().file("proc/cpuinfo", "model name\t: A CPU\nflags\t\t: fpu hypervisor\n");
        let facts = describe(&tree.host(), Path::new("/var/lib/corelog"));
        let of = |name| facts.iter().find(|(fact, _)| *fact == name).map(|(_, value)| value.as_str());
        assert_eq!((of("processor"), of("virtual machine")), (Some("A CPU"), Some("yes")));
        assert_eq!((of("kernel"), of("clock source")), (Some("6.12.0-generic"), Some("tsc")));
        assert_eq!((of("huge pages"), of("frequency governor")), (Some("madvise"), Some("performance")));
        assert_eq!((of("disk"), of("disk cache"), of("disk scheduler")), (Some("nvme0n1"), Some("write back"), None));
        let nothing = describe(&Tree::empty().host(), Path::new("/"));
        assert_eq!(nothing, [("virtual machine", "no".to_owned())]);
    }
}
