//! What was found in the journals goes to the segments.

use super::{PIECE_BYTES, for_each};
use crate::error::ShardError;
use crate::log::paths;
use crate::log::recovery::{Piece, Recovered};
use crate::log::tail::BLOCK;
use crate::model::{Offset, PartitionId};
use crate::reactor::{File, Open, Reactor, WriteSync};
use crate::shard::ShardConfig;
use crate::shard::memory::OwnMemory;
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Segments that are written at the same time, and pieces of one.
const WRITERS: usize = 16;

/// Pieces of one segment, in order.
type Segment = (PartitionId, Offset, Vec<Piece>);

/// A segment that ends before the place where more was to be written to it.
#[derive(Debug)]
struct Short {
    id: PartitionId,
    segment: Offset,
    length: u64,
    wanted: u64,
}

/// Writes what was found to the segments, and makes it durable together with all that was written before the crash: an
/// entry that was read may have been in the device's cache only.
///
/// A partition of which a file is cut off or gone is fenced, and nothing is written to that file: it would hide the hole from
/// a start that comes before a checkpoint says so. True if there is one: only the journal has what was to be written there.
pub(in crate::shard) async fn settle(
    reactor: &Reactor,
    memory: &OwnMemory,
    config: &ShardConfig,
    found: &mut [(PartitionId, Recovered)],
) -> Result<bool, ShardError> {
    let segments: Vec<Segment> = found.iter_mut().flat_map(|(id, found)| by_segment(*id, found)).collect();
    let short: Rc<RefCell<Vec<Short>>> = Rc::default();
    let root: Rc<Path> = config.data_dir.as_path().into();
    let (inner, memory, path, told) = (reactor.clone(), memory.clone(), root.clone(), short.clone());
    let write = move |segment| {
        let (reactor, memory, root, short) = (inner.clone(), memory.clone(), path.clone(), told.clone());
        async move {
            let found_short = write_segment(&reactor, &memory, &root, segment).await?;
            short.borrow_mut().extend(found_short);
            Ok(())
        }
    };
    for_each(reactor, WRITERS, segments.into_iter(), write).await?;
    let is_short = fence_short(&root, found, &short.borrow());
    reactor.sync_fs(&root).await.map_err(|error| ShardError::io("flushing", &root, &error))?;
    Ok(is_short)
}

fn by_segment(id: PartitionId, found: &mut Recovered) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for piece in found.pieces.drain(..) {
        match segments.last_mut() {
            Some((_, segment, pieces)) if *segment == piece.segment => pieces.push(piece),
            _ => segments.push((id, piece.segment, vec![piece])),
        }
    }
    segments
}

/// Of segments that are dropped the file may be gone: what is not of this partition any more is not missed.
fn fence_short(root: &Path, found: &mut [(PartitionId, Recovered)], short: &[Short]) -> bool {
    let mut fenced = false;
    for Short { id, segment, length, wanted } in short {
        let damaged = found.iter_mut().find(|(found, _)| found == id);
        if let Some((_, damaged)) = damaged.filter(|(_, damaged)| damaged.holds(*segment)) {
            let path = paths::segment(root, *id, *segment);
            damaged.fence_from(*segment, format!("{} has {length} bytes, and was flushed to {wanted}", path.display()));
            fenced = true;
        }
    }
    fenced
}

/// Writes what the journal has of a segment, unless the file ends before the place of some of it.
async fn write_segment(
    reactor: &Reactor,
    memory: &OwnMemory,
    root: &Path,
    (id, segment, pieces): Segment,
) -> Result<Option<Short>, ShardError> {
    let path = paths::segment(root, id, segment);
    let failed = |error: io::Error| ShardError::io("writing", &path, &error);
    if let Some(piece) = pieces.iter().find(|piece| !piece.from.0.is_multiple_of(BLOCK)) {
        let why = format!("the journal lacks the beginning of the block at byte {}", piece.from);
        return Err(ShardError::Damaged { path: path.display().to_string().into(), why: why.into() });
    }
    reactor.create_dir(&paths::topic(root, id.topic)).await.map_err(failed)?;
    reactor.create_dir(&paths::partition(root, id)).await.map_err(failed)?;
    let file = reactor.open(&path, Open::Create).await.map_err(failed)?;
    let length = file.length().await.map_err(failed)?;
    if let Some(wanted) = first_gap(length, &pieces) {
        return Ok(Some(Short { id, segment, length, wanted }));
    }
    let (file, memory) = (Rc::new(file), memory.clone());
    let write = move |piece| {
        let (file, memory) = (file.clone(), memory.clone());
        async move { write_piece(&memory, &file, &piece).await }
    };
    for_each(reactor, WRITERS, pieces.into_iter(), write).await.map_err(failed)?;
    Ok(None)
}

/// Where pieces begin that neither the file nor those before them reach up to.
fn first_gap(length: u64, pieces: &[Piece]) -> Option<u64> {
    let mut end = length;
    for piece in pieces {
        if end < piece.from.0 {
            return Some(piece.from.0);
        }
        end = end.max(piece.from.0 + piece.bytes.len() as u64);
    }
    None
}

async fn write_piece(memory: &OwnMemory, file: &File, piece: &Piece) -> io::Result<()> {
    let mut at = piece.from.0;
    for part in piece.bytes.chunks(PIECE_BYTES) {
        let length = part.len().next_multiple_of(BLOCK as usize);
        let mut buffer = memory.wait_buffer(length).await;
        buffer[..part.len()].copy_from_slice(part);
        buffer[part.len()..].fill(0);
        file.write_at(at, buffer.freeze(), WriteSync::None).await?;
        at += length as u64;
    }
    Ok(())
}
