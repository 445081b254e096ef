//! One simulated file: its blocks, its length, and which changes of either the file system has not committed yet.

use super::{BLOCK, Seq};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Contents of a block; `None` is all zeros, so that a zero-filled journal costs nothing.
pub(super) type Page = Option<Rc<[u8; BLOCK]>>;

/// What the file system knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// No space: reads as zeros.
    #[default]
    Hole,
    /// Space reserved by fallocate: reads as zeros whatever the medium holds.
    Unwritten,
    /// Reads as what was written.
    Written,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub(super) page: Page,
    pub(super) kind: Kind,
    /// What was written to this block up to this moment needs no flush any more.
    pub(super) stable: Seq,
}

/// A change of length or extents, with what undoes it should the file system's journal not have it at a power cut.
#[derive(Debug, Clone, Default)]
struct Shape {
    seq: Seq,
    old_length: u64,
    /// Blocks that became `Unwritten`.
    allocated: Vec<u32>,
    /// Blocks cut off, as the medium had them.
    removed: Vec<(u32, Block)>,
    /// The last block left, as it was before its end was cleared.
    shortened: Option<(u32, Page)>,
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) length: u64,
    pub(super) blocks: Vec<Block>,
    /// Blocks that went from unwritten to written, and when, by a change the file system has not committed.
    pub(super) unconverted: BTreeMap<u32, Seq>,
    shapes: Vec<Shape>,
}

pub(super) fn blocks_of(length: u64) -> usize {
    length.div_ceil(BLOCK as u64) as usize
}

pub(super) fn page_of(bytes: &[u8]) -> Page {
    let whole: [u8; BLOCK] = bytes.try_into().ok()?;
    if bytes.iter().all(|&b| b == 0) { None } else { Some(Rc::new(whole)) }
}

impl File {
    /// Blocks that take space.
    pub(super) fn used(&self) -> u64 {
        self.blocks.iter().filter(|b| b.kind != Kind::Hole).count() as u64
    }

    /// How many blocks from `first` to `end` (excluded) would need new space.
    pub(super) fn holes(&self, first: usize, end: usize) -> u64 {
        let have = self.blocks.get(first.min(self.blocks.len())..end.min(self.blocks.len())).unwrap_or_default();
        let beyond = end.saturating_sub(first.max(self.blocks.len()));
        have.iter().filter(|b| b.kind == Kind::Hole).count() as u64 + beyond as u64
    }

    pub(super) fn read(&self, position: u64, into: &mut [u8]) -> usize {
        let length = into.len().min(self.length.saturating_sub(position) as usize);
        let mut done = 0;
        while done < length {
            let at = position + done as u64;
            let (index, within) = ((at / BLOCK as u64) as usize, (at % BLOCK as u64) as usize);
            let piece = (BLOCK - within).min(length - done);
            let out = &mut into[done..done + piece];
            match self.blocks.get(index).and_then(|b| b.page.as_ref()) {
                Some(page) => out.copy_from_slice(&page[within..within + piece]),
                None => out.fill(0),
            }
            done += piece;
        }
        length
    }

    /// Puts one whole block; returns what it held before and whether it took new space.
    pub(super) fn put(&mut self, index: usize, page: Page, seq: Seq, durable: bool) -> (Page, bool) {
        if self.blocks.len() <= index {
            self.blocks.resize(index + 1, Block::default());
        }
        let block = &mut self.blocks[index];
        let old = std::mem::replace(&mut block.page, page);
        let kind = std::mem::replace(&mut block.kind, Kind::Written);
        if durable {
            block.stable = seq;
            self.unconverted.remove(&(index as u32));
        } else if kind != Kind::Written {
            self.unconverted.insert(index as u32, seq);
        }
        (old, kind == Kind::Hole)
    }

    /// Makes the file at least `end` long, as a write past its end does.
    pub(super) fn extend(&mut self, end: u64, seq: Seq) {
        if end > self.length {
            self.reshape(Shape { seq, ..Shape::default() }, end);
        }
    }

    /// fallocate: reserves the holes between two positions.
    pub(super) fn allocate(&mut self, position: u64, end: u64, seq: Seq) {
        let (first, last) = ((position / BLOCK as u64) as usize, blocks_of(end));
        if self.blocks.len() < last {
            self.blocks.resize(last, Block::default());
        }
        let mut allocated = Vec::new();
        for (index, block) in self.blocks[first..last].iter_mut().enumerate() {
            if block.kind == Kind::Hole {
                block.kind = Kind::Unwritten;
                allocated.push((first + index) as u32);
            }
        }
        self.reshape(Shape { seq, allocated, ..Shape::default() }, self.length.max(end));
    }

    /// Cuts or grows the file. `durable` says for a block that goes what of it would be on the medium.
    pub(super) fn truncate(&mut self, length: u64, seq: Seq, mut durable: impl FnMut(&File, u32) -> Block) {
        let kept = blocks_of(length);
        let removed = (kept..self.blocks.len()).map(|i| (i as u32, durable(self, i as u32))).collect();
        let last = kept.saturating_sub(1);
        let shortened = self.blocks.get(last).map(|block| (last as u32, block.page.clone()));
        self.blocks.truncate(kept);
        self.unconverted.split_off(&(kept as u32));
        self.reshape(Shape { seq, removed, shortened, ..Shape::default() }, length);
        self.clear_past_end();
    }

    fn reshape(&mut self, mut shape: Shape, length: u64) {
        shape.old_length = self.length;
        self.shapes.push(shape);
        self.length = length;
    }

    /// The rest of the last block reads as zeros when the file grows again.
    pub(super) fn clear_past_end(&mut self) {
        let within = (self.length % BLOCK as u64) as usize;
        if within == 0 {
            return;
        }
        if let Some(page) = self.blocks.get_mut(blocks_of(self.length) - 1).and_then(|b| b.page.as_mut()) {
            Rc::make_mut(page)[within..].fill(0);
        }
    }

    /// The file system has committed this file's changes up to `mark`.
    pub(super) fn commit(&mut self, mark: Seq) {
        self.shapes.retain(|shape| shape.seq > mark);
        self.unconverted.retain(|_, seq| *seq > mark);
    }

    /// A synchronous write past what is committed takes the file's length and extents with it.
    pub(super) fn commit_shapes(&mut self) {
        self.shapes.clear();
    }

    pub(super) fn is_committed(&self) -> bool {
        self.shapes.is_empty() && self.unconverted.is_empty()
    }

    pub(super) fn uncommitted_shapes(&self) -> usize {
        self.shapes.len()
    }

    /// Takes back all changes of shape but the first `kept`: a file's own changes are committed in their order.
    pub(super) fn undo_shapes(&mut self, kept: usize) {
        while self.shapes.len() > kept {
            let Some(shape) = self.shapes.pop() else { return };
            let cut_at = (self.length % BLOCK as u64) as usize;
            self.length = shape.old_length;
            for index in shape.allocated {
                self.take_back(index);
            }
            self.put_back(shape.removed);
            if let Some((index, page)) = shape.shortened {
                self.lengthen(index, cut_at, &page);
            }
            self.blocks.truncate(blocks_of(self.length));
        }
    }

    fn take_back(&mut self, index: u32) {
        if let Some(block) = self.blocks.get_mut(index as usize) {
            *block = Block::default();
        }
    }

    fn put_back(&mut self, removed: Vec<(u32, Block)>) {
        for (index, block) in removed {
            if self.blocks.len() <= index as usize {
                self.blocks.resize(index as usize + 1, Block::default());
            }
            self.blocks[index as usize] = block;
        }
    }

    /// Gives the last block the end back that a truncation cleared.
    fn lengthen(&mut self, index: u32, cut_at: usize, before: &Page) {
        let (Some(block), Some(before)) = (self.blocks.get_mut(index as usize), before) else { return };
        if cut_at > 0 {
            let page = block.page.get_or_insert_with(|| Rc::new([0; BLOCK]));
            Rc::make_mut(page)[cut_at..].copy_from_slice(&before[cut_at..]);
        }
    }

    /// Nothing is pending any more: what is there is on the medium.
    pub(super) fn settle(&mut self) {
        self.blocks.truncate(blocks_of(self.length));
        self.shapes.clear();
        self.unconverted.clear();
        self.clear_past_end();
    }
}
