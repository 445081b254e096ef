//! Journals that are set aside.

use super::PIECE_BYTES;
use crate::error::ShardError;
use crate::log::paths;
use crate::log::tail::BLOCK;
use crate::reactor::{Open, Reactor, WriteSync};
use crate::shard::ShardConfig;
use crate::shard::memory::OwnMemory;
use std::path::Path;

/// Sets aside the journal in a shard's directory, which has what was acknowledged and could not be put in its place, for
/// whoever repairs it. It is named by the checkpoint file that it follows: tried again, it is the same copy and no other one.
pub(in crate::shard) async fn keep_journal(
    reactor: &Reactor,
    memory: &OwnMemory,
    config: &ShardConfig,
    directory: &Path,
    checkpoint: u64,
) -> Result<(), ShardError> {
    // Beside the shards: with another shard count their directories go.
    let shard = directory.file_name().map_or_else(String::new, |shard| shard.to_string_lossy().into_owned());
    let layout =
        directory.parent().and_then(Path::file_name).map_or_else(String::new, |all| all.to_string_lossy().into_owned());
    let name = format!("{}{layout}-{shard}-{checkpoint}", paths::DAMAGED_JOURNAL);
    let kept = config.data_dir.join(name);
    eprintln!("corelog: shard {}: its journal is kept as {}", reactor.shard(), kept.display());
    copy_file(reactor, memory, &directory.join(paths::JOURNAL), &kept).await?;
    let root = &config.data_dir;
    reactor.sync_dir(root).await.map_err(|error| ShardError::io("flushing", root, &error))
}

async fn copy_file(reactor: &Reactor, memory: &OwnMemory, from: &Path, to: &Path) -> Result<(), ShardError> {
    let failed = |error: std::io::Error| ShardError::io("copying", from, &error);
    let source = reactor.open(from, Open::Read).await.map_err(failed)?;
    let target = reactor.open(to, Open::Create).await.map_err(failed)?;
    let mut at = 0;
    loop {
        let (read, mut buffer) = source.read_at(at, memory.wait_buffer(PIECE_BYTES).await).await;
        let read = read.map_err(failed)?;
        // Its length may be what is damaged: the last block is filled up, and cut off below.
        buffer.truncate(read.next_multiple_of(BLOCK as usize));
        buffer[read..].fill(0);
        if read > 0 {
            target.write_at(at, buffer.freeze(), WriteSync::None).await.map_err(failed)?;
        }
        at += read as u64;
        if read < PIECE_BYTES {
            target.truncate(at).await.map_err(failed)?;
            return target.sync_data().await.map_err(failed);
        }
    }
}
