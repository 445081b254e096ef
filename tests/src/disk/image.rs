//! Images of disks: sparse files with a file system.

use super::{FS_BYTES, IMAGE_BYTES, Result, run};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where the superblock of ext4 has its magic number.
const EXT4_MAGIC_AT: usize = 1024 + 56;
const SUPERBLOCK_END: usize = 2048;

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

/// The file system of an image, by the magic number of its superblock; nothing if it is none of ours.
pub fn recognise(path: &Path) -> Result<Option<FileSystem>> {
    let mut superblock = Vec::new();
    File::open(path)?.take(SUPERBLOCK_END as u64).read_to_end(&mut superblock)?;
    let has = |at: usize, magic: &[u8]| superblock.get(at..at + magic.len()) == Some(magic);
    Ok(if has(0, b"XFSB") {
        Some(FileSystem::Xfs)
    } else if has(EXT4_MAGIC_AT, &[0x53, 0xef]) {
        Some(FileSystem::Ext4)
    } else {
        None
    })
}

/// Whether a power cut tore the superblock, which is mended then. That of ext4 is two sectors with one checksum and outside its
/// journal: where one sector arrived and the other did not the kernel refuses the file system until e2fsck took a copy of
/// it. A server has no part in that, and what it promised holds behind it.
pub fn mend_superblock(path: &Path, fs: FileSystem) -> Result<bool> {
    if fs != FileSystem::Ext4 || run("dumpe2fs", ["-h".as_ref(), path.as_os_str()]).is_ok() {
        return Ok(false);
    }
    // It fails when it has changed something as well. Whether that was enough is seen by who mounts it.
    let _ = run("e2fsck", ["-f".as_ref(), "-y".as_ref(), path.as_os_str()]);
    Ok(true)
}

/// Copies an image, its holes as holes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    run("cp", ["--sparse=auto".as_ref(), from.as_os_str(), to.as_os_str()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn an_image_tells_its_file_system() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.img");
        for fs in FileSystem::ALL {
            make(&path, fs).expect("an image");
            assert_eq!(recognise(&path).expect("it can be read"), Some(fs));
        }
        std::fs::write(&path, b"nothing").expect("written");
        assert_eq!(recognise(&path).expect("it can be read"), None);
    }

    #[test]
    fn a_superblock_of_which_half_arrived_is_mended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.img");
        make(&path, FileSystem::Ext4).expect("an image");
        assert!(!mend_superblock(&path, FileSystem::Ext4).expect("nothing to mend"));
        let image = File::options().write(true).open(&path).expect("the image");
        image.write_all_at(&[0; 512], 1024 + 512).expect("written");
        assert!(mend_superblock(&path, FileSystem::Ext4).expect("mended"));
        assert!(!mend_superblock(&path, FileSystem::Ext4).expect("nothing to mend"));
    }
}
