//! What a power cut leaves, and what of the damage of time (bits that flip) can be asked for.

use super::file::{Block, File, Kind, Page};
use super::{BLOCK, Disk, Ino, NameChange, Names, ROOT, SECTOR, Seq, apply};
use crate::reactor::sim::random::{Random, scramble};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How the device's cache fared. One way for a whole cut, so that the plain extremes are met as often as the mixtures.
#[derive(Debug, Clone, Copy)]
enum Luck {
    /// Nothing that was not flushed is there.
    None,
    /// All of it is.
    All,
    /// Whole writes survive or not, each for itself.
    Writes { salt: u64 },
    /// Sectors survive or not, each for itself.
    Sectors,
}

impl Luck {
    fn draw(random: &mut Random) -> Luck {
        match random.below(8) {
            0 => Luck::None,
            1 => Luck::All,
            2..=4 => Luck::Writes { salt: random.bits() },
            _ => Luck::Sectors,
        }
    }

    /// Whether one uncommitted thing survived.
    fn spares(self, random: &mut Random) -> bool {
        match self {
            Luck::None => false,
            Luck::All => true,
            Luck::Writes { .. } | Luck::Sectors => random.coin(),
        }
    }
}

/// What an unflushed block held, oldest first: before each of its writes, with the moment of that write.
type Versions = Vec<(Seq, Page)>;

impl Disk {
    /// The processes on the node are gone: their open files and locks with them. What they had finished stays.
    pub(crate) fn close_all(&mut self) {
        self.locked.clear();
        for ino in 0..self.inodes.len() as Ino {
            if let Some(inode) = self.inodes[ino as usize].as_mut() {
                inode.open = 0;
            }
            self.forget_if_gone(ino);
        }
    }

    /// Power is lost: any part of what was not flushed survives, any part of what was not committed. Includes
    /// `close_all`.
    pub(crate) fn power_cut(&mut self) {
        self.close_all();
        let luck = Luck::draw(&mut self.random);
        self.cut_data(luck);
        self.cut_shapes(luck);
        self.cut_names(luck);
        self.forget_pending();
    }

    /// Turns one bit of a stored file over. False if there is no such byte.
    pub(crate) fn flip_bit(&mut self, file: super::FileId, position: u64, bit: u8) -> bool {
        let data = &mut self.inode_mut(file.0).file;
        let block = data.blocks.get_mut((position / BLOCK as u64) as usize);
        let Some(block) = block.filter(|block| block.kind == Kind::Written && position < data.length) else {
            return false;
        };
        let page = block.page.get_or_insert_with(|| Rc::new([0; BLOCK]));
        Rc::make_mut(page)[(position % BLOCK as u64) as usize] ^= 1 << (bit % 8);
        true
    }

    /// What the medium would have of a block were the power cut now.
    pub(super) fn durable_block(&mut self, ino: Ino, data: &File, block: u32) -> Block {
        let pending = self.doomed.iter().chain(&self.unflushed).filter(|w| (w.ino, w.block) == (ino, block));
        let versions = pending.map(|w| (w.seq, w.old.clone())).collect();
        let luck = Luck::draw(&mut self.random);
        survivor(luck, &mut self.random, data, block, versions)
    }

    fn cut_data(&mut self, luck: Luck) {
        let mut pending: BTreeMap<(Ino, u32), Versions> = BTreeMap::new();
        for write in self.doomed.drain(..).chain(self.unflushed.drain(..)) {
            pending.entry((write.ino, write.block)).or_default().push((write.seq, write.old));
        }
        for &ino in &self.uncommitted {
            let Some(inode) = self.inodes[ino as usize].as_ref() else { continue };
            for &block in inode.file.unconverted.keys() {
                pending.entry((ino, block)).or_default();
            }
        }
        for ((ino, block), versions) in pending {
            let Some(inode) = self.inodes[ino as usize].as_mut() else { continue };
            let left = survivor(luck, &mut self.random, &inode.file, block, versions);
            inode.file.blocks[block as usize] = left;
        }
    }

    fn cut_shapes(&mut self, luck: Luck) {
        for ino in std::mem::take(&mut self.uncommitted) {
            let Some(inode) = self.inodes[ino as usize].as_mut() else { continue };
            let changes = inode.file.uncommitted_shapes();
            let kept = match luck {
                Luck::None => 0,
                Luck::All => changes,
                _ => self.random.below(changes as u64 + 1) as usize,
            };
            inode.file.undo_shapes(kept);
        }
    }

    /// The committed tree with some of the changes since: either those up to a moment, as a journal gives, or each for
    /// itself, which promises less.
    fn cut_names(&mut self, luck: Luck) {
        let mut names = std::mem::take(&mut self.committed_names);
        let prefix = self.random.coin().then(|| self.random.below(self.name_changes.len() as u64 + 1));
        for (index, change) in self.name_changes.drain(..).enumerate() {
            let spared = match prefix {
                Some(prefix) => (index as u64) < prefix,
                None => luck.spares(&mut self.random),
            };
            if change.committed || spared {
                remove_other_name(&mut names, &change);
                apply(&mut names, &change);
            }
        }
        drop_unreachable(&mut names);
        self.committed_names = names.clone();
        self.names = names;
    }

    /// What is there now is what is on the medium; files without a name are gone.
    fn forget_pending(&mut self) {
        let named: BTreeSet<Ino> = self.names.values().flat_map(|entries| entries.values().copied()).collect();
        self.used_blocks = 0;
        for ino in 1..self.inodes.len() as Ino {
            let slot = &mut self.inodes[ino as usize];
            match slot {
                Some(inode) if named.contains(&ino) => {
                    inode.file.settle();
                    (inode.links, inode.pins, inode.charged) = (1, 1, inode.file.used());
                    self.used_blocks += inode.charged;
                }
                _ => *slot = None,
            }
        }
    }
}

/// What is left of a block with unflushed writes, or whose conversion from unwritten was not committed.
fn survivor(luck: Luck, random: &mut Random, data: &File, index: u32, mut versions: Versions) -> Block {
    let mut block = data.blocks[index as usize].clone();
    versions.retain(|(seq, _)| *seq > block.stable);
    if let Some(&converted) = data.unconverted.get(&index) {
        if !luck.spares(random) {
            return Block { page: None, kind: Kind::Unwritten, ..block };
        }
        // The file system commits a conversion only after the data that caused it: what was there before is no choice.
        versions.retain(|(seq, _)| *seq > converted);
    }
    block.page = choose(luck, random, &versions, block.page.clone());
    block
}

fn choose(luck: Luck, random: &mut Random, versions: &[(Seq, Page)], newest: Page) -> Page {
    let Some((_, oldest)) = versions.first() else { return newest };
    match luck {
        Luck::None => oldest.clone(),
        Luck::All => newest,
        Luck::Writes { salt } => last_surviving(versions, newest, |seq| scramble(seq ^ salt) & 1 == 1),
        Luck::Sectors => tear(random, versions, &newest),
    }
}

/// The block after the last write that survived.
fn last_surviving(versions: &[(Seq, Page)], newest: Page, survives: impl Fn(Seq) -> bool) -> Page {
    let after = |i: usize| versions.get(i + 1).map_or(newest.clone(), |(_, page)| page.clone());
    let last = versions.iter().rposition(|(seq, _)| survives(*seq));
    last.map_or(versions[0].1.clone(), after)
}

fn tear(random: &mut Random, versions: &[(Seq, Page)], newest: &Page) -> Page {
    let mut torn = [0; BLOCK];
    for (sector, out) in torn.chunks_exact_mut(SECTOR).enumerate() {
        let pick = random.below(versions.len() as u64 + 1) as usize;
        let page = versions.get(pick).map_or(newest, |(_, page)| page);
        if let Some(page) = page {
            out.copy_from_slice(&page[sector * SECTOR..][..SECTOR]);
        }
    }
    super::file::page_of(&torn)
}

/// A rename may survive a rename before it: the file still has one name.
fn remove_other_name(names: &mut Names, change: &NameChange) {
    if let (Some(_), Some((_, ino))) = (&change.removes, &change.adds) {
        names.values_mut().for_each(|entries| entries.retain(|_, other| other != ino));
    }
}

/// A directory whose own entry was lost takes what is in it along.
fn drop_unreachable(names: &mut Names) {
    let (mut reached, mut next) = (BTreeSet::from([ROOT]), vec![ROOT]);
    while let Some(dir) = next.pop() {
        for ino in names[&dir].values().filter(|ino| names.contains_key(ino)) {
            reached.insert(*ino);
            next.push(*ino);
        }
    }
    names.retain(|dir, _| reached.contains(dir));
}
