//! What a load runs against: a server, started here or already there, and the yardstick on the same disk and core.

use crate::connection::Connection;
use crate::cores::{Cores, CpuClock};
use crate::error::{BenchError, Doing, Result};
use crate::interrupt;
use crate::load::{self, Lane, Load, Pace, Span};
use crate::server::{Server, ServerOptions, free_address};
use clap::Args;
use corelog_batch::{BatchBuilder, Codec};
use corelog_wire::HEADER_BYTES;
use corelog_yardstick::bare::{self, Durable};
use corelog_yardstick::pin;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const START_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a response's body to a produce; the yardstick answers as many.
const ACK_BYTES: usize = 24;

/// Where to run: shared by all benchmarks that need a server.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// A running server to measure; without it one with a single shard is started and stopped here.
    #[arg(short = 'b', long, value_name = "HOST:PORT")]
    pub bootstrap_server: Option<SocketAddr>,
    /// Directory for data and scratch files, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Shards of the server that is started.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u16,
}

/// The shape of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) span: Span,
}

/// A server and whatever is needed beside it.
pub(crate) struct Rig {
    pub(crate) cores: Cores,
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
}

impl Rig {
    /// Connects to the server of `place`, or starts one there.
    pub(crate) fn start(place: &Place) -> Result<Rig> {
        let directory = interrupt::scratch(&place.dir)?;
        let cores = Cores::choose();
        if let Some(address) = place.bootstrap_server {
            // Where that server runs is not known: the load is left to the scheduler, so as not to meet it on its core.
            let cores = Cores { load: None, ..cores };
            return Ok(Rig { cores, directory, address, server: None });
        }
        let options = server_options(directory.path(), place.smp, cores)?;
        let (address, server) = (options.listen, Server::start(options, START_PATIENCE)?);
        Ok(Rig { cores, directory, address, server: Some(server) })
    }

    /// Makes a topic of its own for one run.
    pub(crate) fn topic(&self, partitions: u32, settings: &[(&str, &str)]) -> Result<Topic> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("bench-{}-{}", std::process::id(), now.as_nanos());
        Connection::open(self.address)?.create_topic(&name, partitions, settings)?;
        Ok(Topic { name, partitions, address: self.address })
    }

    /// Loads a topic with produce requests of `body`; probes the CPU time of a server that was started here.
    pub(crate) fn load(&self, topic: &Topic, body: &[u8], shape: Shape) -> Result<Load> {
        let clock = self.server.as_ref().map(|server| CpuClock::Process(server.pid()));
        self.load_probed(topic, body, shape, || clock.map_or(Ok(0), CpuClock::nanoseconds))
    }

    /// The same with a probe of the caller's.
    pub(crate) fn load_probed(
        &self,
        topic: &Topic,
        body: &[u8],
        shape: Shape,
        probe: impl FnMut() -> Result<u64> + Send,
    ) -> Result<Load> {
        let lanes = topic.lanes(shape.connections)?;
        on_core(self.cores.load, || load::run(lanes, body, shape.pace, shape.span, probe))
    }

    /// Produces batches until they are at least `bytes`. Answers how many bytes they are.
    pub(crate) fn fill(&self, topic: &Topic, body: &[u8], bytes: u64) -> Result<u64> {
        let span = Span { warm_up: Duration::ZERO, measured: Duration::from_millis(500) };
        let shape = Shape { connections: 8, pace: Pace::Closed { window: 4 }, span };
        let mut filled = 0;
        while filled < bytes {
            let load = self.load(topic, body, shape)?;
            if load.requests == 0 {
                return Err(BenchError::Server("the server takes no records".into()));
            }
            filled += load.requests * body.len() as u64;
        }
        Ok(filled)
    }

    /// Resident memory of the server that was started here.
    pub(crate) fn server_bytes(&self) -> Result<u64> {
        let server = self.server.as_ref();
        server.ok_or_else(|| BenchError::Usage("this needs a server that is started here".into()))?.resident_bytes()
    }

    /// The server that was started here, to be stopped or killed by the caller.
    pub(crate) fn take_server(&mut self) -> Result<Server> {
        self.server.take().ok_or_else(|| BenchError::Usage("this needs a server that is started here".into()))
    }

    /// Takes over a server that was started in the place of the one given away.
    pub(crate) fn adopt(&mut self, server: Server) {
        self.server = Some(server);
    }
}

/// A server with this executable, its data in `directory`, on the core that is meant for it.
pub(crate) fn server_options(directory: &Path, smp: u16, cores: Cores) -> Result<ServerOptions> {
    let program = std::env::current_exe().doing("finding this program")?;
    let one = cores.server.filter(|_| smp == 1);
    let more = one.map_or_else(Vec::new, |core| vec!["--cpuset".into(), core.to_string()]);
    Ok(ServerOptions { program, data_dir: directory.join("data"), smp, listen: free_address()?, more })
}

/// A topic that is deleted when its run is over.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    address: SocketAddr,
}

impl Topic {
    /// The address of the shard that owns partition 0.
    pub(crate) fn owner(&self) -> Result<SocketAddr> {
        let owners = Connection::open(self.address)?.owners(&self.name)?;
        owners.first().copied().ok_or_else(|| BenchError::Server("the topic has no partition".into()))
    }

    /// Opens `connections` connections to the shards that own the topic's partitions, and spreads these over them.
    fn lanes(&self, connections: usize) -> Result<Vec<Lane>> {
        let owners = Connection::open(self.address)?.owners(&self.name)?;
        let mut by_shard: HashMap<SocketAddr, Vec<u32>> = HashMap::new();
        for (partition, owner) in (0..self.partitions).zip(owners) {
            by_shard.entry(owner).or_default().push(partition);
        }
        if by_shard.len() > connections {
            return Err(BenchError::Usage("there are fewer connections than shards with partitions".into()));
        }
        let shards: Vec<(SocketAddr, Vec<u32>)> = by_shard.into_iter().collect();
        let lane = |number: usize| {
            let (address, partitions) = &shards[number % shards.len()];
            let of_this_shard = connections.div_ceil(shards.len());
            self.lane(*address, &share(partitions, number / shards.len(), of_this_shard))
        };
        (0..connections).map(lane).collect()
    }

    fn lane(&self, address: SocketAddr, partitions: &[u32]) -> Result<Lane> {
        let mut connection = Connection::open(address)?;
        let open = |partition: &u32| connection.open_partition(&self.name, *partition).map(|(handle, _)| handle);
        let handles = partitions.iter().map(open).collect::<Result<_>>()?;
        Ok(Lane { stream: connection.into_stream(), handles })
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // Where the server is gone, its directory goes too.
        let _ = Connection::open(self.address).and_then(|mut connection| connection.delete_topic(&self.name));
    }
}

/// Which of a shard's partitions its `number`th of `count` connections serves: its share, or one, shared with others.
fn share(partitions: &[u32], number: usize, count: usize) -> Vec<u32> {
    if partitions.len() <= count {
        return vec![partitions[number % partitions.len()]];
    }
    partitions.iter().copied().skip(number).step_by(count).collect()
}

/// Loads the bare loop with requests of the same size and in the same shape: in both of its ways to make a write durable.
/// The better one is the limit.
pub(crate) fn load_bare(directory: &Path, cores: Cores, body: &[u8], shape: Shape) -> Result<Load> {
    let dsync = load_bare_once(directory, cores, body, shape, Durable::Dsync)?;
    let flush = load_bare_once(directory, cores, body, shape, Durable::Flush)?;
    let p50 = |load: &Load| load.latency.value_at_quantile(0.5);
    let is_better = match shape.pace {
        Pace::Closed { .. } => dsync.requests as f64 / dsync.seconds >= flush.requests as f64 / flush.seconds,
        Pace::Open { .. } => p50(&dsync) <= p50(&flush),
    };
    Ok(if is_better { dsync } else { flush })
}

fn load_bare_once(directory: &Path, cores: Cores, body: &[u8], shape: Shape, durable: Durable) -> Result<Load> {
    let frame_bytes = HEADER_BYTES + body.len();
    let outstanding = match shape.pace {
        Pace::Closed { window } => shape.connections * window,
        Pace::Open { .. } => 16 << 10,
    };
    let gather_bytes = outstanding * frame_bytes;
    let file_bytes = (4 * gather_bytes as u64).max(128 << 20);
    let directory = directory.to_owned();
    let (ack_bytes, cpu) = (ACK_BYTES, cores.server);
    let options = bare::Options { directory, file_bytes, frame_bytes, ack_bytes, gather_bytes, cpu, durable };
    let bare = bare::Bare::start(options).doing("starting the yardstick")?;
    let lane = |_| {
        let stream = TcpStream::connect(bare.address())?;
        stream.set_nodelay(true)?;
        Ok(Lane { stream, handles: vec![0] })
    };
    let lanes =
        (0..shape.connections).map(lane).collect::<std::io::Result<_>>().doing("connecting to the yardstick")?;
    let clock = CpuClock::Thread(bare.thread_id());
    let load = on_core(cores.load, || load::run(lanes, body, shape.pace, shape.span, || clock.nanoseconds()))?;
    bare.stop().doing("running the yardstick")?;
    Ok(load)
}

/// Runs `work` on a thread pinned to `core`; the threads of this process are left where they are.
pub(crate) fn on_core<T: Send>(core: Option<usize>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(core).doing("moving the load to its core")?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(BenchError::Server("the load's thread panicked".into())))
    })
}

/// One batch of `records` records of `size` bytes that no disk can compress.
pub(crate) fn batch(records: u32, size: usize) -> Result<Vec<u8>> {
    let refused = |why: String| BenchError::Usage(format!("{records} records of {size} bytes make no batch: {why}"));
    let mut builder = BatchBuilder::new(usize::MAX, Codec::None);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..records {
        let value: Vec<u8> = (0..size).map(|_| noise.next() as u8).collect();
        builder.append(None, Some(&value), &[], 1_700_000_000_000).map_err(|why| refused(why.to_string()))?;
    }
    builder.build().map_err(|why| refused(why.to_string()))
}

/// Marsaglia's xorshift: the same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_out_whole_and_once_where_there_are_enough() {
        let partitions: Vec<u32> = (0..10).collect();
        let mut given: Vec<u32> = (0..3).flat_map(|number| share(&partitions, number, 3)).collect();
        given.sort_unstable();
        assert_eq!(given, partitions);
        assert_eq!(share(&[4, 5], 3, 8), vec![5], "more connections than partitions: they share");
    }

    #[test]
    fn a_batch_is_whole_and_of_the_size_asked_for() {
        let bytes = batch(3, 100).expect("a batch");
        assert!((3 * 100..3 * 100 + 100).contains(&bytes.len()), "{}", bytes.len());
        assert!(batch(0, 100).is_err());
    }
}
