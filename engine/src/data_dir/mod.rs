//! A data directory: whose it is, that only one server uses it, and which of its files count.
//!
//! Opening it takes the lock first and reads the `node` file; a directory without one is taken over only when it is
//! empty. A crash at any step of creating it or of changing the `node` file leaves a directory that opens as the old or
//! as the new.

mod files;
mod node_file;

pub use files::{parent, read, remove_tree, replace, temporary};
pub use node_file::{FORMAT, NODE_FILE_BYTES_MAX, NodeFile, NodeFileError};

use crate::log::paths;
use crate::metadata::Catalog;
use crate::model::TopicId;
use crate::reactor::{DirEntry, FileLock, Reactor};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file that says what the directory is.
pub const NODE: &str = "node";
/// Name of the file whose lock a running server holds.
pub const LOCK: &str = "lock";
/// What `mkfs` puts into a file system's root: a directory with nothing else counts as empty.
const LOST_AND_FOUND: &str = "lost+found";

/// A data directory in use. Cheap to clone, may go to any thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// Where it is.
    pub root: PathBuf,
    /// What it is.
    pub node: NodeFile,
}

/// What [`open`] found or made.
#[derive(Debug)]
pub struct Opened {
    /// The directory.
    pub dir: DataDir,
    /// Keeps other servers out until it is dropped.
    pub lock: FileLock,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// A data directory that cannot be used. The operator has to act.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refuses something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
    /// The directory holds something else.
    #[error(
        "{} is no data directory of corelog: it has no node file but holds {entry:?}; give another or an empty one",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the things it holds.
        entry: String,
    },
    /// Another server runs on it.
    #[error("data directory {} is in use by another server, which holds the lock {}", path.display(), lock.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The lock.
        lock: PathBuf,
    },
    /// Its `node` file is newer than this program, or damaged.
    #[error("cannot use data directory {}: {source}", path.display())]
    Node {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: NodeFileError,
    },
}

/// Opens the data directory at `root`, or makes one there that is what `new` says.
///
/// # Errors
/// See [`DataDirError`]. A directory that is refused is left as it was, but for the lock file of one that is ours.
pub async fn open(reactor: &Reactor, root: &Path, new: NodeFile) -> Result<Opened, DataDirError> {
    reactor.create_dir(root).await.map_err(failed("create data directory", root))?;
    // Before the lock file is made: a foreign directory is not to be written to.
    refuse_foreign(reactor, root).await?;
    let lock = lock(reactor, root).await?;
    // Only now is the directory ours: another server may have made it between.
    let (node, is_new) = match refuse_foreign(reactor, root).await? {
        Found::Node => {
            // A server that was killed may have renamed the file and not come to sync that: what is built on it now
            // would be a foreign directory after a power cut.
            reactor.sync_dir(root).await.map_err(failed("sync directory", root))?;
            (read_node(reactor, root).await?, false)
        }
        Found::Nothing => {
            // First, so that a directory with a node file cannot vanish from its parent.
            let above = parent(root);
            reactor.sync_dir(above).await.map_err(failed("sync directory", above))?;
            write_node(reactor, root, &new).await?;
            (new, true)
        }
    };
    Ok(Opened { dir: DataDir { root: root.to_owned(), node }, lock, is_new })
}

impl DataDir {
    /// Makes `node` what the directory is, durably.
    pub async fn replace_node(&mut self, reactor: &Reactor, node: NodeFile) -> Result<(), DataDirError> {
        write_node(reactor, &self.root, &node).await?;
        self.node = node;
        Ok(())
    }

    /// What the directory is to be after a change of the shard count: journals and checkpoints of the next generation
    /// are written beside those in force, and count from [`DataDir::replace_node`] on.
    pub fn next_generation(&self, shards: u16) -> NodeFile {
        NodeFile { generation: self.node.generation + 1, shards, ..self.node }
    }

    /// Removes what crashes left behind: the journals and checkpoints of generations that are not in force, older or
    /// never finished, and files that were not in place yet. Returns what was removed.
    pub async fn remove_leftovers(&self, reactor: &Reactor) -> Result<Vec<PathBuf>, DataDirError> {
        let is_left = |entry: &DirEntry| match paths::parse_shards_name(&entry.name) {
            Some(generation) => generation != self.node.generation,
            None => !entry.is_dir && entry.name.ends_with(files::TEMPORARY),
        };
        self.remove_entries(reactor, &self.root, is_left).await
    }

    /// Removes the directories of topics that the catalog does not have: a crash came between the record that deleted
    /// them and the end of their removal. Returns what was removed.
    pub async fn remove_orphans(&self, reactor: &Reactor, catalog: &Catalog) -> Result<Vec<PathBuf>, DataDirError> {
        let is_orphan = |entry: &DirEntry| {
            let topic = paths::parse_topic_name(&entry.name);
            topic.is_some_and(|id| id != TopicId::METADATA && catalog.topic(id).is_none())
        };
        self.remove_entries(reactor, &paths::topics(&self.root), is_orphan).await
    }

    async fn remove_entries(
        &self,
        reactor: &Reactor,
        path: &Path,
        is_left: impl Fn(&DirEntry) -> bool,
    ) -> Result<Vec<PathBuf>, DataDirError> {
        let entries = match reactor.list_dir(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(failed("list", path))?,
        };
        let left: Vec<_> = entries.iter().filter(|entry| is_left(entry)).map(|entry| path.join(&entry.name)).collect();
        for path in &left {
            remove_tree(reactor, path).await.map_err(failed("remove", path))?;
        }
        Ok(left)
    }
}

enum Found {
    Node,
    Nothing,
}

async fn refuse_foreign(reactor: &Reactor, root: &Path) -> Result<Found, DataDirError> {
    let entries = reactor.list_dir(root).await.map_err(failed("list data directory", root))?;
    if entries.iter().any(|entry| entry.name == NODE) {
        return Ok(Found::Node);
    }
    let begun = format!("{NODE}{}", files::TEMPORARY);
    let ours = |entry: &DirEntry| [LOCK, &begun, LOST_AND_FOUND].contains(&entry.name.as_str());
    match entries.into_iter().find(|entry| !ours(entry)) {
        Some(entry) => Err(DataDirError::Foreign { path: root.to_owned(), entry: entry.name }),
        None => Ok(Found::Nothing),
    }
}

async fn lock(reactor: &Reactor, root: &Path) -> Result<FileLock, DataDirError> {
    let lock = root.join(LOCK);
    match reactor.lock_file(&lock).await {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(DataDirError::Locked { path: root.to_owned(), lock })
        }
        taken => taken.map_err(failed("lock", &lock)),
    }
}

async fn read_node(reactor: &Reactor, root: &Path) -> Result<NodeFile, DataDirError> {
    let path = root.join(NODE);
    let bytes = read(reactor, &path, NODE_FILE_BYTES_MAX).await.map_err(failed("read", &path))?;
    NodeFile::parse(&bytes).map_err(|source| DataDirError::Node { path: root.to_owned(), source })
}

async fn write_node(reactor: &Reactor, root: &Path, node: &NodeFile) -> Result<(), DataDirError> {
    let path = root.join(NODE);
    replace(reactor, &path, &node.to_text()).await.map_err(failed("write", &path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { doing, path, source }
}

#[cfg(test)]
mod tests;
