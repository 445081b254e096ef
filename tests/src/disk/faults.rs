//! Disks that misbehave: errors of reads, writes and flushes, and a disk that hangs.
//!
//! Errors come from QEMU's `blkdebug`, which is put in the daemon's chain and taken out again while it works.

use super::daemon::MONITOR;
use super::image::FileSystem;
use super::log::SECTOR;
use super::{Disk, Result, run};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const EIO: u32 = 5;

/// What a disk fails with EIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes of the sector at this byte of the disk.
    Write(u64),
    /// Reads of the sector at this byte of the disk.
    Read(u64),
    /// The next flush.
    Flush,
}

impl Fault {
    fn rule(self) -> String {
        let (kind, place) = match self {
            Fault::Write(at) => ("write", format!(r#","once":false,"sector":{}"#, at / SECTOR)),
            Fault::Read(at) => ("read", format!(r#","once":false,"sector":{}"#, at / SECTOR)),
            Fault::Flush => ("flush", r#","once":true"#.to_owned()),
        };
        format!(r#"{{"event":"none","errno":{EIO},"iotype":"{kind}"{place}}}"#)
    }
}

impl Disk {
    /// Fails what `fault` says from now on.
    ///
    /// # Errors
    /// When the daemon refuses; it does while an earlier fault is in force.
    pub fn break_down(&self, fault: Fault) -> Result<()> {
        let rule = fault.rule();
        let mut monitor = Monitor::connect(&self.directory)?;
        monitor.call(
            "blockdev-add",
            &format!(r#"{{"driver":"blkdebug","node-name":"sick","image":"image","inject-error":[{rule}]}}"#),
        )?;
        monitor.put_on("sick")
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn heal(&self) -> Result<()> {
        let mut monitor = Monitor::connect(&self.directory)?;
        // It flushes first, which may be what was to fail.
        monitor.put_on("image").or_else(|_| monitor.put_on("image"))?;
        monitor.call("blockdev-del", r#"{"node-name":"sick"}"#)
    }

    /// Nothing that the disk is asked is answered as long as what this returns is there.
    pub fn hang(&self) -> Result<Hanging> {
        kill(self.daemon.pid(), Signal::SIGSTOP)?;
        Ok(Hanging { daemon: self.daemon.pid() })
    }

    /// Makes the next reads ask the disk, and not the memory between loop device and daemon.
    pub fn forget_reads(&self) -> Result<()> {
        let export = File::open(self.daemon.export())?;
        Ok(posix_fadvise(&export, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }

    /// The file system turns read-only by itself, as after an error that it cannot live with.
    pub fn turn_read_only(&self) -> Result<()> {
        match self.fs {
            FileSystem::Ext4 => run("mount", ["-o".as_ref(), "remount,abort".as_ref(), self.root().as_os_str()]),
            FileSystem::Xfs => {
                run("xfs_io", ["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.root().as_os_str()])
            }
        }
    }

    /// Unmounts and mounts again.
    pub fn mount_again(&mut self) -> Result<()> {
        self.mount.again(self.daemon.export(), self.fs)
    }
}

/// A disk that hangs. Dropping it ends that; else nobody who waits for the disk could be ended either.
pub struct Hanging {
    daemon: Pid,
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = kill(self.daemon, Signal::SIGCONT);
    }
}

/// At which byte of the disk a byte of a file is.
///
/// # Errors
/// When nothing is allocated there.
pub fn place_of(file: &Path, offset: u64) -> Result<u64> {
    let output = Command::new("filefrag").args(["-v", "-b512"]).arg(file).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sector = offset / SECTOR;
    // "   0:        0..    2047:      34816..     36863:   2048:  ..."
    let extent = |line: &str| {
        let mut fields = line.split(':').skip(1).take(2).map(|field| field.trim().split_once(".."));
        let (logical, physical) = (fields.next()??, fields.next()??);
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let (first, last, at) = (number(logical.0)?, number(logical.1)?, number(physical.0)?);
        (first..=last).contains(&sector).then(|| (at + sector - first) * SECTOR)
    };
    let found = text.lines().find_map(extent);
    found.ok_or_else(|| format!("{} has nothing allocated at {offset}:\n{text}", file.display()).into())
}

/// The daemon's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(directory: &Path) -> Result<Monitor> {
        let stream = UnixStream::connect(directory.join(MONITOR))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut monitor = Monitor { stream: BufReader::new(stream) };
        monitor.call("qmp_capabilities", "{}")?;
        Ok(monitor)
    }

    fn call(&mut self, command: &str, arguments: &str) -> Result<()> {
        let stream = self.stream.get_mut();
        writeln!(stream, r#"{{"execute":"{command}","arguments":{arguments}}}"#)?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("the storage daemon closed its monitor".into());
            }
            if line.contains(r#""error""#) {
                return Err(format!("the storage daemon refuses {command}: {line}").into());
            }
            if line.contains(r#""return""#) {
                return Ok(());
            }
        }
    }

    /// Puts the chain on another node.
    fn put_on(&mut self, node: &str) -> Result<()> {
        self.call(
            "blockdev-reopen",
            &format!(r#"{{"options":[{{"driver":"raw","node-name":"top","file":"{node}"}}]}}"#),
        )
    }
}
