//! Mounts that do not outlive the process.

use super::image::FileSystem;
use super::{FS_BYTES, Result, run};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A mounted image. Dropping it unmounts it and lets go of its loop device.
pub struct Mount {
    root: PathBuf,
    mounted: bool,
}

/// Gives this thread, and all that it starts from now on, mounts of their own. They and their loop devices are gone with
/// the last process that has them, however that ends.
///
/// # Errors
/// Without root.
pub fn apart() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("cannot have mounts of one's own ({error}): run it as root"))?;
    run("mount", ["--make-rprivate", "/"])
}

impl Mount {
    /// Mounts an image, or the export of one, on the directory `root`, which is made if need be.
    pub fn new(image: &Path, root: &Path, fs: FileSystem) -> Result<Mount> {
        fs::create_dir_all(root)?;
        // The loop device that mount makes goes by itself when it is unmounted.
        let options = format!("loop,sizelimit={FS_BYTES}{}", fs.options());
        run(
            "mount",
            ["-t".as_ref(), fs.name().as_ref(), "-o".as_ref(), options.as_ref(), image.as_os_str(), root.as_os_str()],
        )?;
        Ok(Mount { root: root.to_owned(), mounted: true })
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts it and mounts `image` in its place.
    pub(super) fn again(&mut self, image: &Path, fs: FileSystem) -> Result<()> {
        self.unmount()?;
        *self = Mount::new(image, &self.root, fs)?;
        Ok(())
    }

    /// Unmounts it.
    pub fn end(mut self) -> Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        // A process that was just killed may hold it for a moment more.
        for _ in 0..100 {
            if run("umount", [&self.root]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        run("umount", ["--lazy".as_ref(), self.root.as_os_str()])?;
        Err(format!("{} stayed in use", self.root.display()).into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("unmounting: {error}");
        }
    }
}
