//! A disk whose every write and flush is logged, with a real file system on it, so that its power can be cut at any of them.
//!
//! The storage daemon of QEMU keeps a raw image, exports it as a file through FUSE and logs what comes in the order in which
//! it comes. A loop device lies on that file, the file system on the loop device. It needs root, /dev/fuse, loop devices and
//! the tools that tests/run installs, and no device mapper.

pub mod cut;
mod daemon;
pub mod faults;
pub mod image;
pub mod log;
pub mod mount;

use crate::process::scratch;
use daemon::Daemon;
use image::FileSystem;
use log::{MARK_BYTES, WriteLog};
use mount::Mount;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use tempfile::TempDir;

/// Why the rig itself cannot go on; what was found about corelog is no error but a result.
pub type Trouble = Box<dyn Error + Send + Sync>;
/// Of what the rig does.
pub type Result<T> = std::result::Result<T, Trouble>;

/// Size of the file systems here. XFS takes no less than 300 MiB; images are sparse.
pub const FS_BYTES: u64 = 512 << 20;
/// Behind the file system the image has room for marks.
const IMAGE_BYTES: u64 = FS_BYTES + (1 << 20);
/// Bound of the log; sparse too.
const LOG_BYTES: u64 = 16 << 30;
/// What a tmpfs must have free to hold the images, instead of the disk of the build.
const MEMORY_BYTES_MIN: u64 = 4 << 30;

/// A mounted file system on a logged disk. Dropping it unmounts it and ends its daemon.
pub struct Disk {
    // In the order in which they must end.
    mount: Mount,
    daemon: Daemon,
    directory: PathBuf,
    fs: FileSystem,
}

impl Disk {
    /// Puts `image` (a file of `directory`, made by [`image::make`] or [`image::copy`]) behind a daemon and mounts it.
    /// What is written to it goes to the image and, with what else it was asked, to a log beside it.
    pub fn start(directory: &Path, image: &Path, fs: FileSystem) -> Result<Disk> {
        let daemon = Daemon::start(directory, image)?;
        let mount = Mount::new(daemon.export(), &directory.join("disk"), fs)?;
        Ok(Disk { mount, daemon, directory: directory.to_owned(), fs })
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        self.mount.root()
    }

    /// Where marks are written: past the file system, into the same log.
    pub fn marks(&self) -> Result<Marks> {
        Ok(Marks { export: File::options().read(true).write(true).open(self.daemon.export())? })
    }

    /// Unmounts it, ends the daemon and reads the log.
    pub fn finish(self) -> Result<WriteLog> {
        let Disk { mount, daemon, directory, .. } = self;
        mount.end()?;
        daemon.end()?;
        WriteLog::open(&directory.join(log::FILE))
    }
}

/// Writes marks into the log of a [`Disk`].
pub struct Marks {
    export: File,
}

impl Marks {
    /// Writes one; when this returns it is in the log, before all that the disk is asked from now on.
    pub fn write(&self, mark: &[u8; MARK_BYTES]) -> Result<()> {
        Ok(self.export.write_all_at(mark, FS_BYTES)?)
    }
}

/// Whether this machine can have such a disk. Where it cannot, it says why, and with `CI=true` that is a failure.
pub fn can_run() -> bool {
    let lacks = if !nix::unistd::geteuid().is_root() {
        "it must be run as root, for mounts and loop devices"
    } else if let Some(device) = ["/dev/fuse", "/dev/loop-control"].iter().find(|device| !Path::new(device).exists()) {
        device
    } else {
        return true;
    };
    assert!(std::env::var("CI").is_err(), "power cuts cannot be tested here: {lacks}");
    println!("left out: {lacks}");
    false
}

/// What names of directories for images begin with; the number of the process follows.
const ROOM: &str = "corelog-disk-";

/// A directory for images: in memory where that is large enough, because their flushes need not reach any disk, else beside
/// the build. `CORELOG_SCRATCH` names another place.
pub fn room() -> Result<TempDir> {
    if let Some(given) = std::env::var_os("CORELOG_SCRATCH") {
        fs::create_dir_all(&given)?;
        return Ok(tempfile::Builder::new().prefix(ROOM).tempdir_in(given)?);
    }
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory).map_or(0, |found| found.blocks_free() * found.fragment_size());
    if free >= MEMORY_BYTES_MIN && available_memory() >= MEMORY_BYTES_MIN {
        clear_left_behind(memory);
        return Ok(tempfile::Builder::new().prefix(&format!("{ROOM}{}-", process::id())).tempdir_in(memory)?);
    }
    Ok(scratch())
}

/// Removes the rooms of processes that were killed: memory, of which each holds hundreds of MB.
fn clear_left_behind(memory: &Path) {
    for entry in fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(ROOM)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Runs a program to its end; an error says what it said.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| format!("cannot run {program}: {error}; bash tests/run installs what is missing"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}
