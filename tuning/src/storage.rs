//! The data directory, the file system it lies on, and the disk below that.

use crate::cpuset::CpuSet;
use crate::host::{Host, Mount};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, unlink};
use std::io;
use std::path::{Path, PathBuf};

/// What the kernel says about the directory that holds the log, or is to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// The directory without links; where it does not exist yet, the nearest one above it that does.
    pub path: PathBuf,
    /// Whether files can be made in it.
    pub writable: bool,
    /// Bytes free for this user.
    pub free_bytes: u64,
    /// Bytes of the file system.
    pub total_bytes: u64,
    /// Whether files open with O_DIRECT; `None` where that could not be tried.
    pub direct: Option<bool>,
}

/// A data directory that cannot be looked at: the operator must give another path or its rights.
#[derive(Debug, thiserror::Error)]
#[error("the data directory {path} cannot be examined: {source}")]
pub struct DataDirError {
    path: PathBuf,
    source: io::Error,
}

impl DataDir {
    /// Looks at `path`. Makes no lasting change: O_DIRECT is tried on a file without a name, or one removed at once.
    pub fn look(path: &Path) -> Result<DataDir, DataDirError> {
        let fail = |source| DataDirError { path: path.to_owned(), source };
        let path = nearest(path).map_err(fail)?;
        if !path.is_dir() {
            return Err(fail(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory")));
        }
        let space = nix::sys::statvfs::statvfs(&path).map_err(|e| fail(e.into()))?;
        let writable = access(&path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        Ok(DataDir {
            writable,
            free_bytes: space.blocks_available() * space.fragment_size(),
            total_bytes: space.blocks() * space.fragment_size(),
            direct: if writable { opens_direct(&path) } else { None },
            path,
        })
    }
}

fn nearest(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for part in absolute.ancestors() {
        match part.canonicalize() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            found => return found,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn opens_direct(directory: &Path) -> Option<bool> {
    let flags = OFlag::O_RDWR | OFlag::O_DIRECT | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match open(directory, flags | OFlag::O_TMPFILE, mode) {
        Ok(_) => return Some(true),
        // Where nameless files are not supported the answer has to come from a named one.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {}
        Err(_) => return None,
    }
    let named = directory.join(format!(".corelog-probe-{}", std::process::id()));
    let opened = open(&named, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode);
    // A file system that refuses O_DIRECT may have made the file before it refused.
    let _ = unlink(&named);
    match opened {
        Ok(_) => Some(true),
        Err(Errno::EINVAL) => Some(false),
        Err(_) => None,
    }
}

/// The cores that take the interrupts of the disk below `path`, as far as they have shown so far. Empty where the disk
/// cannot be told or has no interrupts of its own.
pub fn disk_interrupts(host: &Host, path: &Path) -> CpuSet {
    let disk = mount_of(host, path).and_then(|mount| Disk::below(host, &mount));
    disk.map(|disk| disk.interrupt_cpus(host)).unwrap_or_default()
}

/// The mount that holds `path`: the longest mount point above it, the last one mounted where several are equal.
pub(crate) fn mount_of(host: &Host, path: &Path) -> Option<Mount> {
    let above = host.mounts().into_iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// A block device as `/sys` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// vda, nvme0n1, dm-0, ...
    pub(crate) name: String,
    /// Its directory in `/sys` without links, as a path that can be opened.
    directory: PathBuf,
}

impl Disk {
    pub(crate) fn below(host: &Host, mount: &Mount) -> Option<Disk> {
        // btrfs and others show a device number of their own making; their source still names the disk.
        let by_number = host.path(format!("/sys/dev/block/{}", mount.device));
        let by_name = mount.source.strip_prefix("/dev/").map(|name| host.path(format!("/sys/class/block/{name}")));
        let device = by_number.canonicalize().ok().or_else(|| by_name?.canonicalize().ok())?;
        let directory = if device.join("partition").exists() { device.parent()?.to_owned() } else { device };
        Some(Disk { name: directory.file_name()?.to_str()?.to_owned(), directory })
    }

    /// A line of the disk's `queue` directory.
    pub(crate) fn queue(&self, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.directory.join("queue").join(file)).ok()?;
        Some(text.trim().to_owned())
    }

    fn interrupt_cpus(&self, host: &Host) -> CpuSet {
        busy_cpus(&host.read("/proc/interrupts").unwrap_or_default(), &self.interrupts())
    }

    /// Interrupt numbers of the device that carries the disk: those of the nearest PCI function above it.
    fn interrupts(&self) -> Vec<String> {
        let device = self.directory.join("device").canonicalize().unwrap_or_else(|_| self.directory.clone());
        let lists = device.ancestors().map(|part| part.join("msi_irqs"));
        let Some(list) = lists.into_iter().find_map(|list| std::fs::read_dir(list).ok()) else { return Vec::new() };
        list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Cores that took at least a tenth of the given interrupts. A share, not "any": configuration interrupts and those
/// from before an affinity was set leave a few on other cores.
fn busy_cpus(table: &str, interrupts: &[String]) -> CpuSet {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or("").split_whitespace();
    let cpus: Vec<usize> = header.filter_map(|name| name.strip_prefix("CPU")?.parse().ok()).collect();
    let mut counts = vec![0u64; cpus.len()];
    for line in lines {
        let Some((number, rest)) = line.trim_start().split_once(':') else { continue };
        if interrupts.iter().any(|i| i == number) {
            let taken = rest.split_whitespace().map_while(|count| count.parse::<u64>().ok());
            counts.iter_mut().zip(taken).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        }
    }
    let total = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    cpus.into_iter().zip(counts).filter(|(_, count)| *count > 0 && *count >= total / 10).map(|(cpu, _)| cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let seen = DataDir::look(&dir.path().join("a/b")).unwrap();
        assert_eq!(seen.path, dir.path().canonicalize().unwrap());
        assert!(seen.writable && seen.total_bytes >= seen.free_bytes && seen.total_bytes > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the probe leaves nothing behind");
    }

    #[test]
    fn a_path_below_a_file_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::look(&file.path().join("x")).unwrap_err().to_string();
        assert!(error.starts_with("the data directory /"), "{error}");
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::look(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("cannot be examined: it is not a directory"), "{error}");
    }

    #[test]
    fn the_disk_is_found_through_its_partition() {
        let tree = Tree::healthy();
        let mount = mount_of(&tree.host(), Path::new("/var/lib")).unwrap();
        assert_eq!(mount.kind, "ext4");
        let disk = Disk::below(&tree.host(), &mount).unwrap();
        assert_eq!((disk.name.as_str(), disk.queue("write_cache").as_deref()), ("nvme0n1", Some("write back")));
    }

    #[test]
    fn the_innermost_mount_counts_and_of_equal_ones_the_last() {
        let tree = Tree::empty().file(
            "proc/self/mountinfo",
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:2 / /data rw - xfs /dev/sda2 rw\n\
             3 1 8:3 / /data rw - btrfs /dev/sda3 rw\n\
             4 1 8:4 / /database rw - ext4 /dev/sda4 rw\n",
        );
        assert_eq!(mount_of(&tree.host(), Path::new("/data/x")).unwrap().kind, "btrfs");
        assert_eq!(mount_of(&tree.host(), Path::new("/datab")).unwrap().device, "8:1");
    }

    #[test]
    fn interrupts_are_counted_where_the_disk_takes_them() {
        let tree = Tree::healthy();
        assert_eq!(disk_interrupts(&tree.host(), Path::new("/var")).to_string(), "3");
        assert!(disk_interrupts(&tree.host(), Path::new("/with space")).is_empty());
    }
}
