//! Every bound of the network side: numbers that a server is given, and the table that people read.

use corelog_engine::limits::{
    CONNECTION_BYTES, CONNECTIONS_MAX, HANDLES_MAX, HELLO_MS_MAX, Limit, MESSAGE_BYTES_MAX, PoolBudget, REPACKED_BYTES,
    REQUESTS_IN_FLIGHT_MAX, UNPACKING_BYTES, Unit, WAITERS_MAX,
};
use std::time::Duration;

/// What a server's connections may take. Every field has its line in [`Limits::table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one shard.
    pub connections_max: usize,
    /// Time from the connection to its hello.
    pub hello_time: Duration,
    /// Time without a byte from the client.
    pub idle_time: Duration,
    /// Time from the first byte of a frame to its last.
    pub frame_time: Duration,
    /// Time in which one batch of responses must have been taken by the client.
    pub send_time: Duration,
    /// The same while the shard's memory is short.
    pub short_send_time: Duration,
    /// A client that has taken nothing for so long is not read ahead for.
    pub stalled_time: Duration,
    /// Time for which a connection that ends still takes and discards what its client sends, so that the client gets to
    /// read the reason instead of a reset.
    pub linger_time: Duration,
    /// Bytes that the compressed batches of a produce may unpack to. What clients unpack of one unless told otherwise.
    pub unpacked_bytes_max: usize,
    /// Bytes of batches of a produce that are compressed anew as their topics ask.
    pub repacked_bytes_max: usize,
    /// Bytes of a frame's body.
    pub body_bytes_max: u32,
    /// Requests of one connection that are not answered yet.
    pub requests_max: usize,
    /// Bytes of produce bodies of one connection that are not answered yet. One may go over it alone.
    pub request_bytes_max: usize,
    /// Bytes of produces of one connection in a second; `u64::MAX` is no bound. The last produce may go over it.
    pub produce_rate_max: u64,
    /// Bytes of responses of one connection that its client has not taken yet. The last one may go over it.
    pub outgoing_bytes_max: usize,
    /// The same of all connections of a shard together.
    pub shard_outgoing_bytes_max: usize,
    /// Bytes of frames of a shard that have arrived in part.
    pub frame_bytes_max: usize,
    /// Open partitions of one connection.
    pub handles_max: usize,
    /// Open partitions of all connections of a shard together.
    pub shard_handles_max: usize,
    /// Requests that wait, and subscriptions, of all connections of a shard together.
    pub shard_waits_max: usize,
    /// From so many of those on, no more fetches and subscriptions: idle readers leave room for producers.
    pub shard_reader_waits_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Disk reads of one connection under way.
    pub disk_reads_max: usize,
    /// Requests of one connection under way that are more than appends and reads: topics, descriptions, look-ups by time.
    pub errands_max: usize,
    /// Bytes of batches in one response or push.
    pub fetch_bytes_max: usize,
    /// Longest wait of a fetch.
    pub fetch_wait_max: Duration,
    /// Names in one metadata request.
    pub metadata_names_max: usize,
    /// Bytes of topics in one metadata response.
    pub metadata_bytes_max: usize,
    /// Partitions in one description of a topic.
    pub described_partitions_max: usize,
}

/// Bytes that a body has beside the largest batch.
const BODY_BYTES_EXTRA: u32 = 64 << 10;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: CONNECTIONS_MAX as usize,
            hello_time: Duration::from_millis(HELLO_MS_MAX),
            idle_time: Duration::from_secs(600),
            frame_time: Duration::from_secs(60),
            send_time: Duration::from_secs(30),
            short_send_time: Duration::from_secs(2),
            stalled_time: Duration::from_millis(500),
            linger_time: Duration::from_secs(1),
            unpacked_bytes_max: 128 << 20,
            repacked_bytes_max: REPACKED_BYTES,
            body_bytes_max: MESSAGE_BYTES_MAX + BODY_BYTES_EXTRA,
            requests_max: REQUESTS_IN_FLIGHT_MAX as usize,
            request_bytes_max: 32 << 20,
            produce_rate_max: u64::MAX,
            outgoing_bytes_max: 2 << 20,
            shard_outgoing_bytes_max: 64 << 20,
            frame_bytes_max: 2 * MESSAGE_BYTES_MAX as usize,
            handles_max: 16_384,
            shard_handles_max: HANDLES_MAX as usize,
            shard_waits_max: WAITERS_MAX as usize,
            shard_reader_waits_max: WAITERS_MAX as usize / 4 * 3,
            subscriptions_max: 1024,
            disk_reads_max: 4,
            errands_max: 16,
            fetch_bytes_max: MESSAGE_BYTES_MAX as usize,
            fetch_wait_max: Duration::from_secs(60),
            metadata_names_max: 1000,
            metadata_bytes_max: 1 << 20,
            described_partitions_max: 256,
        }
    }
}

const STOPS: &str = "nothing more is read from the connection until there is room";

/// Clients have no more on its way than their rate lets them in this time: they give up a server that does not answer for
/// half a minute.
const ANSWER_SECONDS: u64 = 10;

impl Limits {
    /// The defaults, and of a shard's buffers as much as the node's memory budget gives, and so many connections. Without a
    /// `produce_rate_max` there is none.
    pub fn within(pool: &PoolBudget, connections_max: u32, produce_rate_max: Option<u64>) -> Limits {
        let (frame_bytes_max, shard_outgoing_bytes_max) = (pool.frames as usize, pool.outgoing as usize);
        let connections_max = connections_max as usize;
        let produce_rate_max = produce_rate_max.unwrap_or(u64::MAX);
        let limits = Limits::default();
        let in_time = usize::try_from(produce_rate_max.saturating_mul(ANSWER_SECONDS)).unwrap_or(usize::MAX);
        let request_bytes_max = limits.request_bytes_max.min(in_time);
        Limits {
            connections_max,
            frame_bytes_max,
            shard_outgoing_bytes_max,
            produce_rate_max,
            request_bytes_max,
            ..limits
        }
    }

    /// One line per bound. Those that the engine's table has as well are left to it.
    pub fn table(&self) -> [Limit; 25] {
        let bytes = |name, value: usize, past| Limit { name, value: value as u64, unit: Unit::Bytes, past };
        let count = |name, value: usize, past| Limit { name, value: value as u64, unit: Unit::Count, past };
        let time = |name, value: Duration, past| Limit {
            name,
            value: value.as_millis() as u64,
            unit: Unit::Milliseconds,
            past,
        };
        [
            count(
                "connections of a shard",
                self.connections_max,
                "the one that waits for its hello for longest is closed; where none does, the new one",
            ),
            time("silence of a client", self.idle_time, "idle_timeout, the connection is closed"),
            time("a frame from its first byte to its last", self.frame_time, "idle_timeout, the connection is closed"),
            time("a client taking what was sent to it", self.send_time, "the connection is closed"),
            time("the same while the shard's memory is short", self.short_send_time, "the connection is closed"),
            time("a client taking nothing", self.stalled_time, "what was read ahead for it goes back"),
            time("a client noticing that its connection ends", self.linger_time, "the connection is closed"),
            bytes("body of a frame", self.body_bytes_max as usize, "frame_too_large, the connection is closed"),
            bytes("compressed batches of a produce once unpacked", self.unpacked_bytes_max, "invalid_batch"),
            bytes(
                "batches of a produce compressed anew (`compression.type`)",
                self.repacked_bytes_max,
                "batch_too_large for one alone; those behind it are to be sent again",
            ),
            bytes("produce bodies of a connection not yet answered", self.request_bytes_max, STOPS),
            Limit {
                name: "produces of a connection a second",
                value: self.produce_rate_max,
                unit: Unit::Bytes,
                past: "nothing more is read from the connection until its time has come (`produce-rate-max`)",
            },
            bytes("responses of a connection not yet taken", self.outgoing_bytes_max, STOPS),
            bytes(
                "responses of a shard's connections not yet taken",
                self.shard_outgoing_bytes_max,
                "busy, retriable; who has taken all gets 64 KiB or a batch at a time",
            ),
            bytes("frames of a shard that arrived in part", self.frame_bytes_max, "busy, retriable"),
            count(
                "waiting requests of a shard when a fetch or subscription comes",
                self.shard_reader_waits_max,
                "busy, retriable",
            ),
            count("open partitions of a connection", self.handles_max, "too_many_handles"),
            count("subscriptions of a connection", self.subscriptions_max, "too_many_subscriptions"),
            count("disk reads of a connection at once", self.disk_reads_max, "the next one waits for its turn"),
            count("other lengthy requests of a connection at once", self.errands_max, STOPS),
            bytes("batches of one response or push", self.fetch_bytes_max, "the response is cut after a batch"),
            time("wait of a fetch", self.fetch_wait_max, "the wait is shortened"),
            count("names in a metadata request", self.metadata_names_max, "invalid_request"),
            bytes("topics in a metadata response", self.metadata_bytes_max, "the client asks for the rest"),
            count("partitions in a description", self.described_partitions_max, "the client asks for the rest"),
        ]
    }
}

const _: () = assert!(UNPACKING_BYTES as usize >= corelog_batch::Unpacker::BYTES_MAX + REPACKED_BYTES / 8 * 9);
const _: () = assert!(CONNECTION_BYTES as usize >= corelog_wire::HELLO_BODY_BYTES_MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::limits::{MemoryBudget, least_memory};
    use corelog_engine::reactor::BLOCK_MAX;

    #[test]
    fn a_frame_of_any_allowed_length_fits_one_buffer() {
        let limits = Limits::default();
        assert!(limits.body_bytes_max as usize + corelog_wire::HEADER_BYTES <= BLOCK_MAX);
        assert!((limits.body_bytes_max as usize).next_power_of_two() <= BLOCK_MAX, "nor does doubling ask for more");
        let least = MemoryBudget::plan(least_memory(1), 1).unwrap().pool;
        assert!(
            Limits::within(&least, CONNECTIONS_MAX, None).frame_bytes_max >= BLOCK_MAX,
            "one such frame is possible on every node"
        );
    }

    #[test]
    fn the_operations_page_has_every_limit() {
        let page = include_str!("../../docs/operations.md");
        let rows =
            Limits::default().table().map(|line| format!("| {} | {line} | {} |\n", line.name, line.past)).concat();
        assert!(page.contains(&rows), "docs/operations.md is to have\n{rows}");
    }

    #[test]
    fn the_table_says_what_holds() {
        let table = Limits { handles_max: 7, ..Limits::default() }.table();
        let line = table.iter().find(|line| line.name == "open partitions of a connection").unwrap();
        assert_eq!((line.value, line.past), (7, "too_many_handles"));
    }
}
