//! Images of disks: sparse files with a file system.

use super::{FS_BYTES, IMAGE_BYTES, Result, run};
use std::fmt;
use std::fs::File;
use std::path::Path;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 with its journal, data ordered.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// Both.
    pub const ALL: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

    /// As `mount -t` has it.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// What `mount -o` needs. Images that are copies of one another have one UUID, and XFS wants to be told.
    pub(super) fn options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "",
            FileSystem::Xfs => ",nouuid",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes an image with an empty file system. The ext4 journal is small, so that recordings go around its end.
pub fn make(path: &Path, fs: FileSystem) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(FS_BYTES)?;
    let image = path.to_string_lossy();
    match fs {
        FileSystem::Ext4 => {
            let lazily = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
            let blocks = format!("{}k", FS_BYTES >> 10);
            run("mkfs.ext4", ["-q", "-F", "-N", "4096", "-J", "size=8", "-E", lazily, &image, &blocks])?;
        }
        FileSystem::Xfs => run("mkfs.xfs", ["-q", "-f", "-K", &image])?,
    }
    Ok(file.set_len(IMAGE_BYTES)?)
}

/// Copies an image, its holes as holes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    run("cp", ["--sparse=auto".as_ref(), from.as_os_str(), to.as_os_str()])
}
