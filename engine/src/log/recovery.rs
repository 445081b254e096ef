//! What a crash left, told apart and put together. Pure: the shard reads the bytes and acts on what is decided here.
//!
//! | Case | What is found | What it means | Action |
//! |---|---|---|---|
//! | A | the newest checkpoint file, whole | partitions' extents at a journal position | start from it |
//! | B | groups behind its last completed checkpoint | a checkpoint was cut short | they do not count |
//! | C | a temporary checkpoint file | a new file was cut short | removed; the older one counts |
//! | D | an entry that verifies and continues the chain | committed, perhaps not acknowledged | replayed |
//! | E | zeros, or an earlier lap, where the next entry would be | the end of the journal | stop |
//! | F | a broken entry, and no later one claims it durable | torn: never acknowledged | stop; it is cut off |
//! | G | a broken entry that a later one claims durable | damaged: was acknowledged | stop; the shard's partitions are fenced |
//! | H | an append that the checkpoint already covers | replayed twice | skipped |
//! | I | an append that does not continue its partition | something between is lost | that partition is fenced |
//! | J | an entry or section of a newer version | written by a newer program | refuse to start |
//! | K | direct blocks of an entry not known durable, with a wrong checksum | torn: never acknowledged | stop before it |
//! | L | a partition that the catalog does not know | its topic was deleted | dropped |
//! | L2 | the same, and the metadata log is damaged | its topic may be what is lost | written to its files, which are kept |
//! | N | a segment that is shorter than what was flushed to it | cut off or removed | the partition is fenced from it on; that file is not written to, the journal is set aside |
//! | M | no checkpoint file, or no journal, in a directory that was completed | somebody removed it | refuse to start |

use super::checkpoint::{CheckpointState, Extent, PartitionState, Sealed};
use super::frame::Sequence;
use super::journal::{AppendSection, ProducedSection, Section, Start, Truncate};
use super::tail::Place;
use crate::model::{LeaderEpoch, Offset, PartitionId, Position, Timestamp};
use crate::planted::{self, Bug};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Bytes that belong in a segment and may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Position of the first byte; a block boundary.
    pub from: Position,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> Position {
        self.from.plus(self.bytes.len() as u64)
    }
}

/// One partition as checkpoint and journal have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its extent, sealed segments and leader epochs.
    pub state: PartitionState,
    /// What is to be written to its segments before anything else happens to it, in order.
    pub pieces: Vec<Piece>,
    /// Why it takes no writes, if something acknowledged is lost.
    pub fenced: Option<String>,
}

/// The partitions of a shard, as replayed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// By identity.
    pub partitions: BTreeMap<PartitionId, Recovered>,
}

impl Recovered {
    /// A loss that an earlier recovery found stays one.
    fn new(state: PartitionState) -> Recovered {
        let fenced = state
            .fenced
            .map(|from| format!("acknowledged records from offset {from} on may be lost, as an earlier start found"));
        Recovered { state, pieces: Vec::new(), fenced }
    }

    /// A partition that nothing was appended to.
    pub fn empty() -> Recovered {
        let zero = Offset(0);
        let extent = Extent {
            first: zero,
            next: zero,
            high_watermark: zero,
            segment_base: zero,
            end: Position(0),
            max_timestamp: Timestamp(-1),
            leader_epoch: LeaderEpoch(0),
            replica: Uuid::nil(),
        };
        Recovered::new(PartitionState::new(extent))
    }

    /// A partition of which nothing was found, and of which something was acknowledged. It stays so at every start: were it taken for
    /// an empty one, its files would be written over.
    pub fn lost_whole(why: &str) -> Recovered {
        let mut recovered = Recovered::empty();
        recovered.fence(why.to_owned());
        recovered
    }

    fn end(&self) -> Place {
        Place { segment: self.state.extent.segment_base, position: self.state.extent.end }
    }

    /// Whether a segment still counts: of one that is dropped the file may be gone.
    pub fn holds(&self, segment: Offset) -> bool {
        let sealed = self.state.sealed.get(&segment);
        let is_active = segment == self.state.extent.segment_base;
        is_active || sealed.is_some_and(|sealed| sealed.last >= self.state.extent.first)
    }

    /// What was acknowledged from an offset on is lost, although more came behind it.
    pub fn fence_from(&mut self, from: Offset, why: String) {
        let known = self.state.fenced.unwrap_or(from);
        self.state.fenced = Some(known.min(from));
        self.fenced.get_or_insert(why);
    }

    fn fence(&mut self, why: String) {
        self.state.fenced.get_or_insert(self.state.extent.next);
        self.fenced.get_or_insert(why);
    }

    /// `direct`: the blocks written to the segment directly, if they are to be written again; else empty.
    fn append(&mut self, append: &AppendSection, inline: &[u8], direct: &[u8], sequence: Sequence) {
        if append.last_offset < self.state.extent.next {
            return;
        }
        if self.fenced.is_some() {
            return;
        }
        let rolls = append.segment_base > self.state.extent.segment_base;
        let continues = match rolls {
            true => append.segment_base == append.base_offset && append.start == Position(0),
            false => append.start == self.state.extent.end && append.segment_base == self.state.extent.segment_base,
        };
        if append.base_offset != self.state.extent.next || !continues {
            let next = self.state.extent.next;
            return self.fence(format!(
                "journal entry {} continues at offset {}, the log ends at {next}: what lies between is lost",
                sequence.0, append.base_offset
            ));
        }
        if rolls {
            self.roll(append.segment_base);
        }
        let (head, rest) = append.split(inline);
        self.add(append.segment_base, append.inline_from, head);
        self.add(append.segment_base, append.direct_from, direct);
        self.add(append.segment_base, append.direct_to, rest);
        let extent = &mut self.state.extent;
        extent.next = append.last_offset.plus(1);
        extent.high_watermark = extent.next;
        extent.end = append.end;
        extent.max_timestamp = extent.max_timestamp.max(append.max_timestamp);
        extent.leader_epoch = extent.leader_epoch.max(append.leader_epoch);
    }

    fn roll(&mut self, base: Offset) {
        let extent = &mut self.state.extent;
        if extent.end > Position(0) {
            let last = Offset(extent.next.0 - 1);
            let sealed = Sealed { last, end: extent.end, max_timestamp: extent.max_timestamp, rewrite: 0 };
            self.state.sealed.insert(extent.segment_base, sealed);
        }
        extent.segment_base = base;
        extent.end = Position(0);
        extent.max_timestamp = Timestamp(-1);
    }

    /// Adds bytes behind those that are there. Where an entry carries a block from its beginning, what it repeats is
    /// there already, unless it is the first of the partition.
    fn add(&mut self, segment: Offset, from: Position, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(last) = self.pieces.last_mut().filter(|last| last.segment == segment && last.end() >= from) {
            let repeated = ((last.end().0 - from.0) as usize).min(bytes.len());
            last.bytes.extend_from_slice(&bytes[repeated..]);
            return;
        }
        self.pieces.push(Piece { segment, from, bytes: bytes.to_vec() });
    }

    fn start(&mut self, start: &Start) {
        let next = self.state.extent.next;
        if start.first <= next {
            self.state.extent.first = self.state.extent.first.max(start.first);
            self.state.forget_epochs_before(self.state.extent.first);
        } else {
            self.fence(format!("its first offset {} lies behind its end {next}", start.first));
        }
    }

    /// Those of batches that are not in the log count for nothing: their producers may send them again.
    fn produced(&mut self, section: &ProducedSection<'_>) {
        for batch in section.batches() {
            if batch.last < self.state.extent.next {
                self.state.note_produced(&batch);
            }
        }
    }

    fn truncate(&mut self, cut: &Truncate) {
        if cut.to >= self.state.extent.next {
            return;
        }
        let place = Place { segment: cut.segment_base, position: cut.position };
        if place > self.end() || cut.to < self.state.extent.first {
            return self.fence(format!("it was cut off at offset {}, which it does not hold", cut.to));
        }
        let max_timestamp = self.state.sealed.get(&cut.segment_base).map(|sealed| sealed.max_timestamp);
        self.state.sealed.retain(|base, _| *base < cut.segment_base);
        self.state.epochs.retain(|_, start| *start < cut.to);
        self.state.producers.retain(|_, window| window.truncate(cut.to));
        self.state.cleaned = self.state.cleaned.min(cut.to);
        self.pieces.retain(|piece| (piece.segment, piece.from) < (place.segment, place.position));
        if let Some(last) = self.pieces.last_mut().filter(|last| last.segment == place.segment) {
            let keep = (place.position.0 - last.from.0) as usize;
            last.bytes.truncate(keep);
        }
        let extent = &mut self.state.extent;
        extent.next = cut.to;
        extent.high_watermark = extent.high_watermark.min(cut.to);
        extent.segment_base = cut.segment_base;
        extent.end = cut.position;
        extent.max_timestamp = max_timestamp.unwrap_or(extent.max_timestamp);
    }
}

impl Recovery {
    /// Begins with what a checkpoint says.
    pub fn new(state: &CheckpointState) -> Recovery {
        let partitions = state.partitions.iter().map(|(id, state)| (*id, Recovered::new(state.clone()))).collect();
        Recovery { partitions }
    }

    /// Takes one section of a journal entry that verified.
    pub fn section(&mut self, sequence: Sequence, section: &Section<'_>) {
        match section {
            Section::Append { append, inline } => self.append(sequence, append, inline, &[]),
            Section::Start(start) => self.of(start.partition).start(start),
            Section::Truncate(cut) => self.of(cut.partition).truncate(cut),
            Section::Epoch(epoch) => {
                let state = &mut self.of(epoch.partition).state;
                state.extent.leader_epoch = state.extent.leader_epoch.max(epoch.epoch);
                // Case H again: an older one than the last is known already.
                if state.epochs.last_key_value().is_none_or(|(last, _)| *last < epoch.epoch) {
                    state.begin_epoch(epoch.epoch, epoch.start);
                }
            }
            Section::HighWatermark(mark) => {
                let extent = &mut self.of(mark.partition).state.extent;
                extent.high_watermark = mark.offset.min(extent.next);
            }
            Section::Produced(section) => self.of(section.partition).produced(section),
        }
    }

    /// Takes an append whose blocks were found in the segment, but perhaps not on stable storage: a flush that failed lets
    /// go of what it should have covered, and no later one covers it. They are written again.
    pub fn append(&mut self, sequence: Sequence, append: &AppendSection, inline: &[u8], direct: &[u8]) {
        let direct = if planted::active(Bug::DirectBlocksTrusted) { &[] } else { direct };
        self.of(append.partition).append(append, inline, direct, sequence);
    }

    /// Case G: what was acknowledged is lost, of which partitions cannot be known.
    pub fn fence_all(&mut self, why: &str) {
        for recovered in self.partitions.values_mut() {
            recovered.fence(why.to_string());
        }
    }

    fn of(&mut self, id: PartitionId) -> &mut Recovered {
        self.partitions.entry(id).or_insert_with(Recovered::empty)
    }
}

#[cfg(test)]
mod tests;
