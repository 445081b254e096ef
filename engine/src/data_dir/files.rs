//! Small files replaced atomically, and trees removed, over the reactor.

use crate::reactor::{Open, PAGE, Reactor, WriteSync};
use std::io;
use std::path::{Path, PathBuf};

/// Ends the name of a file that is not in place yet. One that a crash left behind is removed at the next start.
pub(super) const TEMPORARY: &str = ".new";

/// The name under which the next content of `path` is written.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

/// Makes `text` the durable content of `path`. A crash at any step leaves the old content or the new.
///
/// # Errors
/// The operating system's. Which of the two contents a later start will find is not known then.
pub async fn replace(reactor: &Reactor, path: &Path, text: &str) -> io::Result<()> {
    let new = temporary(path);
    write(reactor, &new, text).await?;
    reactor.rename(&new, path).await?;
    reactor.sync_dir(parent(path)).await
}

/// Reads a small file whole.
///
/// # Errors
/// The operating system's; `InvalidData` when it is longer than `bytes_max`.
pub async fn read(reactor: &Reactor, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = reactor.open(path, Open::Read).await?;
    if file.length().await? > bytes_max as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {bytes_max} bytes")));
    }
    let buffer = reactor.pool().buffer(bytes_max.next_multiple_of(PAGE)).ok_or(io::ErrorKind::OutOfMemory)?;
    let (read, buffer) = file.read_at(0, buffer).await;
    Ok(buffer[..read?.min(bytes_max)].to_vec())
}

/// Removes a file or a whole directory, and makes that durable: nothing of it comes back after a power cut, to be taken
/// for part of what is written there later. What is gone already is a success.
///
/// # Errors
/// The operating system's; a part may be gone then.
pub async fn remove_tree(reactor: &Reactor, path: &Path) -> io::Result<()> {
    let mut pending = vec![(path.to_owned(), true)];
    while let Some((path, to_list)) = pending.pop() {
        if !to_list {
            unless_gone(reactor.remove_dir(&path).await)?;
            continue;
        }
        match reactor.list_dir(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                unless_gone(reactor.remove_file(&path).await)?;
                continue;
            }
            listed => {
                pending.push((path.clone(), false));
                for entry in listed? {
                    let inner = path.join(&entry.name);
                    match entry.is_dir {
                        true => pending.push((inner, true)),
                        false => unless_gone(reactor.remove_file(&inner).await)?,
                    }
                }
            }
        }
    }
    reactor.sync_dir(parent(path)).await
}

/// The directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

async fn write(reactor: &Reactor, path: &Path, text: &str) -> io::Result<()> {
    let file = reactor.open(path, Open::Create).await?;
    let mut block = reactor.pool().buffer(text.len().next_multiple_of(PAGE)).ok_or(io::ErrorKind::OutOfMemory)?;
    // Writes are whole blocks: the text is filled up with empty lines, then the file is cut to the text, which also
    // takes away what a crash may have left behind it.
    block.fill(b'\n');
    block[..text.len()].copy_from_slice(text.as_bytes());
    file.write_at(0, block.freeze(), WriteSync::None).await?;
    file.truncate(text.len() as u64).await?;
    file.sync_data().await
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
