//! Fixed-width little-endian fields, taken off and put on one after another.

use crate::model::{
    LeaderEpoch, Offset, PartitionId, PartitionIndex, Position, ProducerEpoch, ProducerId, ProducerSequence, Timestamp,
    TopicId,
};
use crate::producer::Produced;
use uuid::Uuid;

/// Takes fields off the front of hostile bytes: `None` once they have run out.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    pub(super) fn offset(&mut self) -> Option<Offset> {
        self.i64().map(Offset)
    }

    pub(super) fn position(&mut self) -> Option<Position> {
        self.u64().map(Position)
    }

    pub(super) fn timestamp(&mut self) -> Option<Timestamp> {
        self.i64().map(Timestamp)
    }

    pub(super) fn leader_epoch(&mut self) -> Option<LeaderEpoch> {
        self.array().map(i32::from_le_bytes).map(LeaderEpoch)
    }

    /// See [`Put::produced`].
    pub(super) fn produced(&mut self) -> Option<Produced> {
        let producer = ProducerId(self.i64()?);
        let epoch = ProducerEpoch(self.array().map(i16::from_le_bytes)?);
        let first = ProducerSequence(self.array().map(i32::from_le_bytes)?);
        let base = self.offset()?;
        let last = Offset(base.0.checked_add(i64::from(self.u32()?))?);
        Some(Produced { producer, epoch, first, base, last, at: self.timestamp()? })
    }

    pub(super) fn partition(&mut self) -> Option<PartitionId> {
        Some(PartitionId { topic: TopicId(self.uuid()?), index: PartitionIndex(self.u32()?) })
    }
}

/// Puts fields into a slice that its caller sized for them; running over is a bug of ours and panics.
pub(super) struct Put<'a> {
    rest: &'a mut [u8],
}

impl<'a> Put<'a> {
    pub(super) fn into(bytes: &'a mut [u8]) -> Self {
        Put { rest: bytes }
    }

    /// What has not been put yet.
    pub(super) fn rest(self) -> &'a mut [u8] {
        self.rest
    }

    pub(super) fn bytes(mut self, field: &[u8]) -> Self {
        let (into, rest) = self.rest.split_at_mut(field.len());
        into.copy_from_slice(field);
        self.rest = rest;
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn uuid(self, value: Uuid) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(super) fn offset(self, value: Offset) -> Self {
        self.bytes(&value.0.to_le_bytes())
    }

    pub(super) fn position(self, value: Position) -> Self {
        self.u64(value.0)
    }

    pub(super) fn timestamp(self, value: Timestamp) -> Self {
        self.bytes(&value.0.to_le_bytes())
    }

    pub(super) fn leader_epoch(self, value: LeaderEpoch) -> Self {
        self.bytes(&value.0.to_le_bytes())
    }

    /// A batch of a producer, in [`PRODUCED_BYTES`].
    pub(super) fn produced(self, batch: &Produced) -> Self {
        self.bytes(&batch.producer.0.to_le_bytes())
            .bytes(&batch.epoch.0.to_le_bytes())
            .bytes(&batch.first.0.to_le_bytes())
            .offset(batch.base)
            .u32((batch.last.0 - batch.base.0) as u32)
            .timestamp(batch.at)
    }

    pub(super) fn partition(self, id: PartitionId) -> Self {
        self.uuid(id.topic.0).u32(id.index.0)
    }
}

/// Bytes of a producer's batch in the formats.
pub(super) const PRODUCED_BYTES: usize = 34;

/// What holds of a producer's batch on both sides of the disk.
pub(super) fn check_produced(batch: &Produced) -> Result<(), &'static str> {
    rule(batch.producer.0 >= 0 && batch.epoch.0 >= 0 && batch.first.0 >= 0, "a producer's number is negative")?;
    rule(Offset(0) <= batch.base && batch.base <= batch.last, "a producer's batch ends before it begins")?;
    rule(batch.last.0 - batch.base.0 < i64::from(i32::MAX), "a producer's batch has too many records")
}

/// A rule of a format: what is broken if it does not hold.
pub(super) fn rule(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// What we are about to write down must keep the rules that a reader will hold us to.
pub(super) fn checked(rules: Result<(), &'static str>) {
    assert_eq!(rules, Ok(()));
}
