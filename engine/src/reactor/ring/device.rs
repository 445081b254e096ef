//! How a block device makes one write durable.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// How a write becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DurableWrites {
    /// As suits the device.
    #[default]
    Auto,
    /// One operation, with RWF_DSYNC.
    Dsync,
    /// A write, then an fdatasync.
    Flush,
}

/// What was found out about devices, by device number.
pub(super) struct Devices {
    choice: DurableWrites,
    known: Vec<(libc::dev_t, bool)>,
}

impl Devices {
    pub(super) fn new(choice: DurableWrites) -> Devices {
        Devices { choice, known: Vec::new() }
    }

    /// Whether a DSYNC write is durable by itself: the device has no volatile cache, or can write through it (FUA).
    /// Otherwise the kernel has a worker bound to the core of the disk's interrupts flush after the write, and while
    /// that core is busy the write takes until its next clock tick. A flush of our own runs on any core.
    pub(super) fn writes_through(&mut self, file: &OwnedFd) -> bool {
        match self.choice {
            DurableWrites::Dsync => true,
            DurableWrites::Flush => false,
            DurableWrites::Auto => self.find_out(file).unwrap_or(false),
        }
    }

    fn find_out(&mut self, file: &OwnedFd) -> Option<bool> {
        let device = nix::sys::stat::fstat(file.as_fd()).ok()?.st_dev;
        if let Some((_, known)) = self.known.iter().find(|(known, _)| *known == device) {
            return Some(*known);
        }
        let through = queue_of(device).is_some_and(|queue| {
            let says = |name: &str| std::fs::read_to_string(queue.join(name)).unwrap_or_default();
            says("fua").trim() == "1" || says("write_cache").trim() == "write through"
        });
        self.known.push((device, through));
        Some(through)
    }
}

/// Where the kernel shows the queue of a device, or of the disk that a partition is on.
fn queue_of(device: libc::dev_t) -> Option<PathBuf> {
    let shown = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    let shown = std::fs::canonicalize(shown).ok()?;
    let queues = [shown.join("queue"), shown.parent()?.join("queue")];
    queues.into_iter().find(|queue| queue.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_holds() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(Devices::new(DurableWrites::Dsync).writes_through(&file));
        assert!(!Devices::new(DurableWrites::Flush).writes_through(&file));
    }

    /// What a device is takes a machine with one of each; here only that the answer is found once and stays.
    #[test]
    fn a_device_is_looked_at_once() {
        let mut devices = Devices::new(DurableWrites::Auto);
        let file: OwnedFd = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap().into();
        let first = devices.writes_through(&file);
        assert_eq!(devices.known.len(), 1);
        devices.known[0].1 = !first;
        assert_eq!(devices.writes_through(&file), !first);
    }
}
