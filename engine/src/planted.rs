//! Bugs on purpose, to see that the simulation finds them. Only with the feature `planted`, which no product build has;
//! without it [`active`] is `false` at compile time and the bug's code is gone.

/// A bug that can be switched on. Each names the promise that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Appends are acknowledged when their entry is written, before it is flushed.
    AcknowledgeBeforeFlush,
    /// Entries are written without a flush, and acknowledged as if there had been one.
    FlushSkipped,
    /// A later entry is acknowledged although an earlier one is still on its way.
    AcknowledgedOutOfOrder,
    /// Readers are shown what is appended, not what is durable.
    ReadBeforeDurable,
    /// The journal's space is free when a checkpoint begins, not when it is durable.
    JournalReusedEarly,
    /// A checkpoint frees the journal without the file system's barrier.
    BarrierSkipped,
    /// Large batches go to fallocated blocks with no barrier but the journal's flush.
    DirectBarrierSkipped,
    /// A new segment's name in its directory is not made durable before its records count.
    DirectoryNotSynced,
    /// An entry does not carry the beginning of a partly filled block that a checkpoint rewrites.
    TailBlockRewritten,
    /// Recovery takes entries whose sequence and checksum do not follow from the one before.
    ChainNotChecked,
    /// Recovery takes a torn entry, which nobody was told of, for a damaged one.
    TornTakenForDamaged,
    /// Recovery cuts off a damaged entry as if nobody had been told of it.
    DamagedTakenForTorn,
    /// A topic is acknowledged before its record in the metadata log is durable.
    MetadataTorn,
    /// Memory of a tail is given back when its bytes are journaled, not when they are in the segment.
    BufferFreedEarly,
    /// The answer of another shard is dropped now and then.
    CrossingLost,
    /// A handle of a partition that is gone opens whatever took its place.
    StaleHandleServed,
    /// A flush that failed is tried again, and taken for good when that succeeds.
    FailedFlushRetried,
    /// A checkpoint is completed although another flush failed while it was written.
    CheckpointedAfterFailure,
    /// Recovery trusts blocks that it can read to be on stable storage.
    DirectBlocksTrusted,
    /// Every partition of a commit is flushed by itself.
    FlushPerPartition,
    /// A new checkpoint file is renamed into place before its content is flushed.
    CheckpointNotFlushed,
    /// Deleting records drops the segment that holds the first one left.
    SegmentDroppedEarly,
    /// A checkpoint does not say what it covers of producers that number their batches.
    ProducersNotCheckpointed,
    /// A journal entry does not say which of its batches are of such producers.
    ProducersNotJournaled,
    /// A batch that comes again is acknowledged before it is durable.
    DuplicateAcknowledgedEarly,
    /// Compaction leaves the newest record of a key out.
    NewestLeftOut,
    /// The checkpoint file does not hear that a segment was written anew.
    SwapNotRecorded,
    /// A reader goes on at a place in a segment that was written anew.
    OldPlacesTrusted,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 28] = [
        Bug::AcknowledgeBeforeFlush,
        Bug::FlushSkipped,
        Bug::AcknowledgedOutOfOrder,
        Bug::ReadBeforeDurable,
        Bug::JournalReusedEarly,
        Bug::BarrierSkipped,
        Bug::DirectBarrierSkipped,
        Bug::DirectoryNotSynced,
        Bug::TailBlockRewritten,
        Bug::ChainNotChecked,
        Bug::TornTakenForDamaged,
        Bug::DamagedTakenForTorn,
        Bug::MetadataTorn,
        Bug::BufferFreedEarly,
        Bug::CrossingLost,
        Bug::StaleHandleServed,
        Bug::FailedFlushRetried,
        Bug::CheckpointedAfterFailure,
        Bug::DirectBlocksTrusted,
        Bug::FlushPerPartition,
        Bug::CheckpointNotFlushed,
        Bug::SegmentDroppedEarly,
        Bug::ProducersNotCheckpointed,
        Bug::ProducersNotJournaled,
        Bug::DuplicateAcknowledgedEarly,
        Bug::NewestLeftOut,
        Bug::SwapNotRecorded,
        Bug::OldPlacesTrusted,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Switches one bug on for this thread, or the one that is on off.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is on.
#[cfg(feature = "planted")]
pub fn active(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is on: never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn active(_: Bug) -> bool {
    false
}
