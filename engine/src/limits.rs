//! Every bound of a node, as numbers that the code uses and as a table that people read, and the memory budget: the sum
//! of what each user of memory may take.

use crate::metadata::names::TOPIC_NAME_BYTES_MAX;
use std::fmt;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Shards of a node. Their mesh has a ring for every ordered pair.
pub const SHARDS_MAX: u16 = 256;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 10_000;
/// Partitions of a node, whatever its memory.
pub const NODE_PARTITIONS_MAX: u32 = 100_000;
/// Largest value that `max.message.bytes` can have.
pub const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// Smallest value that `segment.bytes` can have. Far below what makes sense in production: tests roll segments quickly.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
/// Largest value that `segment.bytes` can have.
pub const SEGMENT_BYTES_MAX: u32 = 2 << 30;

/// Bytes of one journal entry: what a commit of one shard carries inline.
pub const JOURNAL_ENTRY_BYTES_MAX: u32 = 4 << 20;
/// Commits of a shard that are being written or flushed at once. With four p99 was measured at 1.4 to 1.7 times.
pub const COMMITS_IN_FLIGHT_MAX: u16 = 2;
/// Pending bytes from which on an entry is written while another one is under way: then the device moves data in the time
/// in which it would only wait. Fewer are acknowledged no earlier for a flush of their own, for a device takes one at a
/// time, and it costs CPU (docs/decisions/021).
pub const BESIDE_BYTES_MIN: u32 = 256 << 10;
/// Bytes of one partition in one commit from which on they go straight to the segment. The journal, which writes them
/// twice, was measured ahead up to 64 KiB, level near 512 KiB and behind at 1 MiB.
pub const DIRECT_BYTES_MIN: u32 = 256 << 10;
/// Bytes of a shard's journal file unless configured. Replaying a full one takes a fraction of a second.
pub const JOURNAL_BYTES_DEFAULT: u64 = 128 * MIB;
/// Least bytes of a shard's journal file: commits in flight and a checkpoint's distance behind them.
pub const JOURNAL_BYTES_MIN: u64 = 8 * JOURNAL_ENTRY_BYTES_MAX as u64;
/// Most bytes of a shard's journal file; it bounds the time of recovery.
pub const JOURNAL_BYTES_MAX: u64 = 64 * GIB;

/// A checkpoint is taken at least this often if anything changed: it bounds what a crash leaves to recover.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// What is read from a segment at once, in bytes, unless a batch is larger.
pub const READ_BYTES: u64 = MIB;
/// What readers and checkpoints read and write for each commit that comes, unless it is larger. A flush waits for what the
/// device is doing (docs/decisions/022).
pub const BACKGROUND_BYTES: usize = 64 << 10;
/// Batches of a shard that wait until their segment is made or has more space reserved.
pub const WAITING_BYTES: u64 = 2 * MESSAGE_BYTES_MAX as u64;
/// Segment files that a shard keeps open.
pub const SEGMENT_FILES_MAX: u64 = 4096;
/// Segment files that a shard keeps open though the process is allowed fewer than it would like.
pub const SEGMENT_FILES_MIN: u64 = 64;
/// Readers of a shard that get pieces of files through a pipe. Each has two descriptors of it and one of a file, and takes a
/// thread of the kernel while its client does not take what is sent.
pub const PIPES_MAX: usize = 16;

/// Memory of an idle partition, its index included.
pub const PARTITION_BYTES: u64 = 16 * KIB;

/// Producers that number their batches, of a shard, counted once for each partition that they write to.
pub const PRODUCERS_MAX: usize = 65_536;
/// Memory of each: what its partition, the checkpoint under way and the checkpoint file's state know of it.
pub const PRODUCER_BYTES: u64 = 512;

/// What a shard's groups of consumers take: what their members say and are to read, and their offsets.
pub const GROUPS_BYTES: usize = 32 << 20;

/// Keys of which a pass of compaction knows the newest record; more take several passes.
pub const COMPACTION_KEYS_MAX: usize = (1 << 19) / 8 * 7;
/// The largest batch that compaction looks into, in bytes, as it is stored and unpacked.
pub const COMPACTION_BATCH_BYTES: usize = 6 << 20;
/// Memory of compaction in a shard: a table of 2^19 keys of 25 bytes, and of such batches one unpacked, the records of it that
/// stay, one as it goes, and the one before it.
pub const COMPACTION_BYTES: u64 = (25 << 19) + 4 * COMPACTION_BATCH_BYTES as u64;

/// Buffers of a shard for what arrives on its sockets.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Bytes of each of them.
pub const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
/// Connections of one shard.
pub const CONNECTIONS_MAX: u32 = 1024;
/// Memory of one connection beside its frames; also what it may hold before its hello is accepted.
pub const CONNECTION_BYTES: u64 = 16 * KIB;
/// Time in which a connection has to say hello, in milliseconds.
pub const HELLO_MS_MAX: u64 = 10_000;
/// Requests of one connection that are not answered yet.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 1024;
/// Partitions that the connections of one shard hold open together.
pub const HANDLES_MAX: u32 = 65_536;
/// Memory of an open handle; the network side checks that its state fits.
pub const HANDLE_BYTES: u64 = 192;
/// Requests of one shard that wait, for a commit, for data, or for another shard, and subscriptions.
pub const WAITERS_MAX: u32 = 32_768;
/// Memory of a waiter; the network side checks that its state fits.
pub const WAITER_BYTES: u64 = 512;

/// Bytes of batches that a shard has on their way to others. The last one may go over it.
pub const PARCEL_BYTES: usize = 4 << 20;
/// What the batches of a produce may take together that are compressed anew as their topics ask.
pub const REPACKED_BYTES: usize = 4 << 20;
/// Memory of a shard for a look inside compressed batches and for what is compressed anew, which may have an eighth more than
/// its bytes; the network side checks that it does.
pub const UNPACKING_BYTES: u64 = 17 * MIB;
/// Messages under way from one shard to another.
pub const MESH_MESSAGES_MAX: usize = 1024;
/// Memory of a message between shards; larger ones carry a pointer.
pub const MESH_MESSAGE_BYTES: usize = 128;
/// Submission entries of a ring.
pub const RING_ENTRIES: u32 = 1024;
/// Memory of a ring's queues and the operations in flight, generously.
const RING_BYTES: u64 = RING_ENTRIES as u64 * KIB;

/// The program, its threads' stacks and what the allocator wastes, of the whole node.
const PROGRAM_BYTES: u64 = 32 * MIB;
/// The part of the memory that partitions' state may take: one in so many.
const PARTITIONS_SHARE: u64 = 4;

/// Least bytes of a shard's buffer pool: one of everything that must be possible.
const POOL_BYTES_MIN: u64 =
    POOL_JOURNAL_BYTES + POOL_FRAMES_BYTES_MIN + POOL_READS_BYTES_MIN + POOL_OUTGOING_BYTES_MIN + POOL_TAILS_BYTES_MIN;
/// Entries in flight, the one being gathered, and a checkpoint's.
const POOL_JOURNAL_BYTES: u64 = (COMMITS_IN_FLIGHT_MAX as u64 + 2) * JOURNAL_ENTRY_BYTES_MAX as u64;
/// Blocks of the pool are powers of two: a frame with a batch of 16 MiB takes one of 32 MiB.
const POOL_FRAMES_BYTES_MIN: u64 = 2 * MESSAGE_BYTES_MAX as u64;
/// Likewise for a batch that is read.
const POOL_READS_BYTES_MIN: u64 = 2 * MESSAGE_BYTES_MAX as u64;
/// Responses that hold on to tails and reads until they are sent: the largest batch once.
const POOL_OUTGOING_BYTES_MIN: u64 = MESSAGE_BYTES_MAX as u64;
/// Room for the largest batch beside others.
const POOL_TAILS_BYTES_MIN: u64 = 2 * MESSAGE_BYTES_MAX as u64;
/// The pool is mapped in huge pages.
const POOL_GRAIN: u64 = 2 * MIB;

const _: () = assert!(JOURNAL_BYTES_MIN <= JOURNAL_BYTES_DEFAULT && JOURNAL_BYTES_DEFAULT <= JOURNAL_BYTES_MAX);
const _: () = assert!(DIRECT_BYTES_MIN <= JOURNAL_ENTRY_BYTES_MAX / 4, "an entry has room for several partitions");
const _: () = assert!(MESSAGE_BYTES_MAX <= SEGMENT_BYTES_MAX, "the largest batch fits a segment");
const _: () = assert!(POOL_BYTES_MIN.is_multiple_of(POOL_GRAIN));
const _: () = assert!(POOL_JOURNAL_BYTES.is_power_of_two(), "a shard sets it aside as one block");
const _: () = assert!(RING_ENTRIES.is_power_of_two() && RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!(TOPIC_PARTITIONS_MAX <= NODE_PARTITIONS_MAX);
const _: () = assert!(TOPIC_NAME_BYTES_MAX < 256, "metadata records store names with one byte of length");

/// One bound, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is bounded, and of what there is one such bound.
    pub name: &'static str,
    /// The bound, or its default where it can be configured.
    pub value: u64,
    /// The unit of `value`.
    pub unit: Unit,
    /// What happens past it.
    pub past: &'static str,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Milliseconds.
    Milliseconds,
}

const fn limit(name: &'static str, value: u64, unit: Unit, past: &'static str) -> Limit {
    Limit { name, value, unit, past }
}

/// The name of the bound that follows from how many files the process may have open.
pub const SEGMENT_FILES: &str = "segment files that a shard keeps open";

/// Every bound of a node.
pub const LIMITS: [Limit; 25] = [
    limit("shards of a node", SHARDS_MAX as u64, Unit::Count, "the server does not start"),
    limit("bytes of a topic's name", TOPIC_NAME_BYTES_MAX as u64, Unit::Count, "the topic is refused"),
    limit("partitions of a topic", TOPIC_PARTITIONS_MAX as u64, Unit::Count, "the topic is refused"),
    limit(
        "partitions of a node (and less with little memory: see the budget)",
        NODE_PARTITIONS_MAX as u64,
        Unit::Count,
        "the topic is refused",
    ),
    limit("a record batch (topic setting max.message.bytes)", 1_048_588, Unit::Bytes, "the produce is refused"),
    limit("max.message.bytes itself", MESSAGE_BYTES_MAX as u64, Unit::Bytes, "the setting is refused"),
    limit("segment.bytes itself", SEGMENT_BYTES_MAX as u64, Unit::Bytes, "the setting is refused"),
    limit(
        "a shard's journal (setting journal-bytes)",
        JOURNAL_BYTES_DEFAULT,
        Unit::Bytes,
        "produces are refused as busy, retriable, until a checkpoint has freed a part",
    ),
    limit("a journal entry", JOURNAL_ENTRY_BYTES_MAX as u64, Unit::Bytes, "the rest waits for the next commit"),
    limit("commits of a shard in flight", COMMITS_IN_FLIGHT_MAX as u64, Unit::Count, "the next one gathers meanwhile"),
    limit(
        "a shard's batches that wait for their segment",
        WAITING_BYTES,
        Unit::Bytes,
        "the produce is refused as busy, retriable",
    ),
    limit(
        "producers of a shard that number batches, once for each partition",
        PRODUCERS_MAX as u64,
        Unit::Count,
        "one silent for a minute is forgotten, or else the produce is refused as busy, retriable",
    ),
    limit(
        "what a shard's groups of consumers say, are to read, and have committed",
        GROUPS_BYTES as u64,
        Unit::Bytes,
        "a member is refused, a commit is to be tried again",
    ),
    limit(
        "keys that a pass of compaction has in mind",
        COMPACTION_KEYS_MAX as u64,
        Unit::Count,
        "the rest is left to the next pass",
    ),
    limit(
        "a batch of a compacted topic, as it is stored and unpacked",
        COMPACTION_BATCH_BYTES as u64,
        Unit::Bytes,
        "the produce is refused; one that is there is left as it is",
    ),
    limit(SEGMENT_FILES, SEGMENT_FILES_MAX, Unit::Count, "the one not used for longest is closed"),
    limit("readers of a shard that are spliced to", PIPES_MAX as u64, Unit::Count, "the next one is read for directly"),
    limit("a connection before its hello", CONNECTION_BYTES, Unit::Bytes, "the connection is closed"),
    limit("time to the hello", HELLO_MS_MAX, Unit::Milliseconds, "the connection is closed"),
    limit(
        "requests of a connection in flight",
        REQUESTS_IN_FLIGHT_MAX as u64,
        Unit::Count,
        "nothing more is read from it until one is answered",
    ),
    limit("open handles of a shard", HANDLES_MAX as u64, Unit::Count, "the open is refused, retriable"),
    limit(
        "waiting requests and subscriptions of a shard",
        WAITERS_MAX as u64,
        Unit::Count,
        "the request is refused as busy, retriable",
    ),
    limit(
        "received pieces of a shard not yet taken in",
        RECEIVE_BUFFERS as u64,
        Unit::Count,
        "nothing more is read from sockets until one is free",
    ),
    limit(
        "batches of a shard on their way to others",
        PARCEL_BYTES as u64,
        Unit::Bytes,
        "the request is refused as busy, retriable; the last one may go over it",
    ),
    limit(
        "messages from one shard to another",
        MESH_MESSAGES_MAX as u64,
        Unit::Count,
        "the request is refused as busy, retriable",
    ),
];

/// Who may take how much memory. The lines add up to the memory given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    /// What was given, in bytes.
    pub memory: u64,
    /// Among how many shards.
    pub shards: u16,
    /// Most partitions of the node.
    pub partitions: u32,
    /// The buffer pool of one shard, in bytes.
    pub pool: PoolBudget,
    /// One line per user.
    pub lines: Vec<BudgetLine>,
}

/// How one shard's buffer pool is shared out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolBudget {
    /// All of it.
    pub bytes: u64,
    /// Journal entries in the making and in flight, and checkpoints.
    pub journal: u64,
    /// Frames that have arrived in part.
    pub frames: u64,
    /// What is read from the disk for readers, read-ahead included.
    pub reads: u64,
    /// What responses hold on to that their clients have not taken yet, though its reader or partition let go of it.
    pub outgoing: u64,
    /// Partitions' newest bytes, from which readers are served.
    pub tails: u64,
}

/// One user of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLine {
    /// Who.
    pub what: &'static str,
    /// At most, in bytes, of the whole node.
    pub bytes: u64,
}

/// The memory given is too little. The operator has to give more or run fewer shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory is {}; with {shards} shard{} it must be at least {}",
    Bytes(*.given), if *.shards == 1 { "" } else { "s" }, Bytes(*.least)
)]
pub struct MemoryTooSmall {
    /// What was given, in bytes.
    pub given: u64,
    /// For how many shards.
    pub shards: u16,
    /// What would do, in bytes.
    pub least: u64,
}

impl MemoryBudget {
    /// Shares `memory` bytes out.
    pub fn plan(memory: u64, shards: u16) -> Result<MemoryBudget, MemoryTooSmall> {
        let least = least_memory(shards);
        if memory < least {
            return Err(MemoryTooSmall { given: memory, shards, least });
        }
        let partition_bytes = (memory / PARTITIONS_SHARE).min(u64::from(NODE_PARTITIONS_MAX) * PARTITION_BYTES);
        let shared = memory - PROGRAM_BYTES - partition_bytes;
        let fixed = fixed_lines(shards);
        let pool = shared / u64::from(shards) - fixed.iter().map(|line| line.bytes).sum::<u64>();
        let pool = PoolBudget::plan(pool / POOL_GRAIN * POOL_GRAIN);
        let per_shard = fixed.into_iter().chain(pool.lines());
        let mut lines: Vec<_> = per_shard.map(|line| line.times(shards)).collect();
        lines.push(BudgetLine { what: "partitions' state and indexes", bytes: partition_bytes });
        // What rounding the pools to huge pages leaves over is the program's.
        let rest = memory - lines.iter().map(|line| line.bytes).sum::<u64>();
        lines.push(BudgetLine { what: "program, stacks, allocator", bytes: rest });
        let partitions = (partition_bytes / PARTITION_BYTES) as u32;
        Ok(MemoryBudget { memory, shards, partitions, pool, lines })
    }
}

/// The memory to use when none is configured: a quarter of what the machine (or its cgroup) has, at most 1 GiB a shard,
/// and at least what the shards need. A quarter, because a log is rarely alone on a small machine; 1 GiB, because tails
/// and read-ahead gain nothing from more unless readers lag by that much.
pub fn default_memory(available: u64, shards: u16) -> u64 {
    (available / 4).min(u64::from(shards) * GIB).max(least_memory(shards))
}

/// The least memory that `shards` shards can run in.
pub fn least_memory(shards: u16) -> u64 {
    let fixed = fixed_lines(shards).iter().map(|line| line.bytes).sum::<u64>();
    let shared = PROGRAM_BYTES + u64::from(shards) * (fixed + POOL_BYTES_MIN);
    // Partitions take a share of the whole, so that the rest has to do.
    (shared * PARTITIONS_SHARE).div_ceil(PARTITIONS_SHARE - 1).next_multiple_of(MIB)
}

/// What a shard takes beside its pool and its partitions, whatever the memory.
fn fixed_lines(shards: u16) -> [BudgetLine; 12] {
    let mesh = u64::from(shards) * (MESH_MESSAGES_MAX * MESH_MESSAGE_BYTES) as u64;
    [
        BudgetLine { what: "receive buffers", bytes: u64::from(RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES as u64 },
        BudgetLine { what: "connections", bytes: u64::from(CONNECTIONS_MAX) * CONNECTION_BYTES },
        BudgetLine { what: "open handles", bytes: u64::from(HANDLES_MAX) * HANDLE_BYTES },
        BudgetLine { what: "waiting requests, subscriptions", bytes: u64::from(WAITERS_MAX) * WAITER_BYTES },
        BudgetLine { what: "producers that number batches", bytes: PRODUCERS_MAX as u64 * PRODUCER_BYTES },
        BudgetLine { what: "groups of consumers", bytes: GROUPS_BYTES as u64 },
        BudgetLine { what: "compaction", bytes: COMPACTION_BYTES },
        BudgetLine { what: "batches that wait for their segment", bytes: WAITING_BYTES },
        BudgetLine { what: "compressed batches that are checked, or compressed anew", bytes: UNPACKING_BYTES },
        BudgetLine { what: "mesh between shards", bytes: mesh },
        BudgetLine { what: "batches between shards", bytes: PARCEL_BYTES as u64 + u64::from(MESSAGE_BYTES_MAX) },
        BudgetLine { what: "rings", bytes: RING_BYTES },
    ]
}

impl PoolBudget {
    fn plan(bytes: u64) -> PoolBudget {
        let frames = (bytes / 8).max(POOL_FRAMES_BYTES_MIN);
        let reads = (bytes / 8).max(POOL_READS_BYTES_MIN);
        let outgoing = (bytes / 8).max(POOL_OUTGOING_BYTES_MIN);
        let journal = POOL_JOURNAL_BYTES;
        let tails = bytes - journal - frames - reads - outgoing;
        PoolBudget { bytes, journal, frames, reads, outgoing, tails }
    }

    fn lines(&self) -> [BudgetLine; 5] {
        [
            BudgetLine { what: "buffers: journal entries, checkpoints", bytes: self.journal },
            BudgetLine { what: "buffers: partly received frames", bytes: self.frames },
            BudgetLine { what: "buffers: reads and read-ahead", bytes: self.reads },
            BudgetLine { what: "buffers: responses not yet taken", bytes: self.outgoing },
            BudgetLine { what: "buffers: partition tails", bytes: self.tails },
        ]
    }
}

impl BudgetLine {
    fn times(self, shards: u16) -> BudgetLine {
        BudgetLine { bytes: self.bytes * u64::from(shards), ..self }
    }
}

/// Shows bytes in the largest unit that keeps the number exact to a tenth, as in `1.5 GiB`.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            GIB.. => (GIB, "GiB"),
            MIB.. => (MIB, "MiB"),
            KIB.. => (KIB, "KiB"),
            bytes => return write!(f, "{bytes} B"),
        };
        if self.0.is_multiple_of(unit) {
            return write!(f, "{} {name}", self.0 / unit);
        }
        write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Bytes if self.value == u64::MAX => f.write_str("none"),
            // A bound is shown exactly.
            Unit::Bytes if !self.value.is_multiple_of(KIB) => write!(f, "{} B", self.value),
            Unit::Bytes => Bytes(self.value).fmt(f),
            Unit::Count => self.value.fmt(f),
            Unit::Milliseconds => write!(f, "{} ms", self.value),
        }
    }
}

impl fmt::Display for MemoryBudget {
    /// A line per user and their sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{:>10}  {}", Bytes(line.bytes).to_string(), line.what)?;
        }
        let plural = if self.shards == 1 { "" } else { "s" };
        write!(
            f,
            "{:>10}  in all: {} shard{plural}, at most {} partitions",
            Bytes(self.memory).to_string(),
            self.shards,
            self.partitions
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::TopicSettings;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_lines_add_up_to_the_memory(shards in 1u16..=SHARDS_MAX, more in 0u64..1 << 40) {
            let memory = least_memory(shards) + more;
            let budget = MemoryBudget::plan(memory, shards).unwrap();
            prop_assert_eq!(budget.lines.iter().map(|line| line.bytes).sum::<u64>(), memory);
            let PoolBudget { bytes, journal, frames, reads, outgoing, tails } = budget.pool;
            prop_assert_eq!(journal + frames + reads + outgoing + tails, bytes);
            prop_assert!(bytes >= POOL_BYTES_MIN && tails >= POOL_TAILS_BYTES_MIN);
            prop_assert!(budget.partitions <= NODE_PARTITIONS_MAX);
            let program = budget.lines.last().unwrap().bytes;
            prop_assert!(program >= PROGRAM_BYTES && program < PROGRAM_BYTES + u64::from(shards) * POOL_GRAIN);
        }

        #[test]
        fn the_least_memory_is_the_least(shards in 1u16..=SHARDS_MAX) {
            let least = least_memory(shards);
            prop_assert!(MemoryBudget::plan(least, shards).is_ok());
            prop_assert_eq!(MemoryBudget::plan(least - 1, shards), Err(MemoryTooSmall { given: least - 1, shards, least }));
        }

        #[test]
        fn the_default_is_always_enough(available: u64, shards in 1u16..=SHARDS_MAX) {
            prop_assert!(MemoryBudget::plan(default_memory(available, shards), shards).is_ok());
        }
    }

    #[test]
    fn the_default_is_a_quarter_up_to_a_gibibyte_a_shard() {
        assert_eq!(default_memory(2 * GIB, 1), GIB / 2);
        assert_eq!(default_memory(1 << 40, 4), 4 * GIB);
        assert_eq!(default_memory(MIB, 2), least_memory(2));
    }

    #[test]
    fn ten_thousand_idle_partitions_fit_in_a_gibibyte() {
        assert!(MemoryBudget::plan(GIB, 2).unwrap().partitions >= 10_000);
    }

    #[test]
    fn too_little_memory_is_one_sentence() {
        let error = MemoryBudget::plan(64 * MIB, 2).unwrap_err().to_string();
        assert_eq!(error, "memory is 64 MiB; with 2 shards it must be at least 978 MiB");
    }

    #[test]
    fn the_budget_is_shown_as_a_sum() {
        let text = MemoryBudget::plan(2 * GIB, 2).unwrap().to_string();
        assert!(text.starts_with("    16 MiB  receive buffers\n"), "{text}");
        assert!(text.ends_with("     2 GiB  in all: 2 shards, at most 32768 partitions"), "{text}");
    }

    const PAGE: &str = include_str!("../../docs/operations.md");

    #[test]
    fn the_operations_page_has_every_limit() {
        let rows: String = LIMITS.iter().map(|l| format!("| {} | {l} | {} |\n", l.name, l.past)).collect();
        assert!(PAGE.contains(&rows), "docs/operations.md is to have\n{rows}");
    }

    #[test]
    fn the_operations_page_has_the_budget_as_it_is() {
        let budget = MemoryBudget::plan(2 * GIB, 2).unwrap().to_string();
        assert!(PAGE.contains(&budget), "docs/operations.md is to have\n{budget}");
        let [one, two, eight] = [1, 2, 8].map(|shards| Bytes(least_memory(shards)));
        let least = format!("One shard needs {one}, two need {two}, eight {eight}.");
        assert!(PAGE.contains(&least), "docs/operations.md is to have\n{least}");
    }

    #[test]
    fn the_operations_page_has_every_setting_of_a_topic() {
        let shown = TopicSettings::default().show();
        let rows = TopicSettings::documented().zip(shown).map(|(setting, shown)| {
            format!("| `{}` | `{}` | {} | {} |\n", setting.key, shown.value, setting.allowed, setting.meaning)
        });
        let rows: String = rows.collect();
        assert!(PAGE.contains(&rows), "docs/operations.md is to have\n{rows}");
    }

    #[test]
    fn bytes_are_shown_in_their_unit() {
        let shown = [0, 1023, 1024, 1536, MIB, 16 * MIB, GIB + GIB / 2].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "16 MiB", "1.5 GiB"]);
    }
}
