//! A node of this machine: a pinned thread with a reactor for each shard, and their orderly end.
//!
//! The thread that calls [`run`] becomes the control thread: it starts the shards and sleeps until somebody asks for the
//! node to stop or a shard ends by itself, then wakes every shard through a mesh of its own. A shard serves until it is
//! told, and then takes a checkpoint, so that the next start has nothing to recover.

use crate::error::ShardError;
use crate::limits::{
    self, Bytes, JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, MESH_MESSAGES_MAX, MemoryBudget, MemoryTooSmall, PRODUCERS_MAX,
    SHARDS_MAX,
};
use crate::metadata::Bounds;
use crate::model::ShardId;
use crate::reactor::mesh::{self, Mesh, MeshHandle};
use crate::reactor::ring::{Options, StartError};
use crate::reactor::{Reactor, run_ring};
use crate::rlimits::{Rlimits, TooFewFiles};
use crate::shard::{Envelope, FetchPath, GroupSettings, Shard, ShardConfig};
use nix::sys::signal::{SigSet, Signal};
use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The control reactor needs no buffers to speak of: the least that a pool can be.
const CONTROL_POOL_BYTES: usize = 2 << 20;
/// It has few operations in flight and no sockets.
const CONTROL_ENTRIES: u32 = 64;

const _: () = assert!(size_of::<Envelope>() <= limits::MESH_MESSAGE_BYTES, "the budget counts messages at this size");

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where its files are.
    pub data_dir: PathBuf,
    /// How many shards it runs.
    pub shards: u16,
    /// The core of each shard; empty leaves the choice to the kernel.
    pub cpus: Vec<usize>,
    /// All memory it may use, in bytes.
    pub memory: u64,
    /// Size of each shard's journal, in bytes.
    pub journal_bytes: u64,
    /// Free space on the data directory's file system below which produces are refused, in bytes.
    pub disk_reserve_bytes: u64,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// How often it is looked for what is to be compacted.
    pub compaction_interval: Duration,
    /// How long a producer that numbers its batches is remembered after the last of them.
    pub producer_expiration: Duration,
    /// How groups of consumers are coordinated.
    pub groups: GroupSettings,
    /// How what is no longer in memory gets to readers.
    pub fetch_path: FetchPath,
    /// How long a shard looks for work before it goes to sleep.
    pub spin: Duration,
}

/// A setting of the node that cannot be. The operator has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No shards, or too many.
    #[error("smp is {0}; it must be from 1 to {SHARDS_MAX}")]
    Shards(u16),
    /// Cores are given, but not one per shard.
    #[error("{cpus} cores are given for {shards} shards; give one for each")]
    Cpus {
        /// Cores given.
        cpus: usize,
        /// Shards.
        shards: u16,
    },
    /// Too little memory.
    #[error(transparent)]
    Memory(#[from] MemoryTooSmall),
    /// Too few files may be open.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// A journal too small to work with, or too large to recover in reasonable time.
    #[error(
        "journal-bytes is {}; it must be from {} to {}, in steps of 4096",
        Bytes(*.0), Bytes(JOURNAL_BYTES_MIN), Bytes(JOURNAL_BYTES_MAX)
    )]
    Journal(u64),
}

/// Why a node did not run, or ended before it was asked to. `E` is what a server gives up with.
#[derive(Debug, thiserror::Error)]
pub enum NodeError<E> {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A reactor did not start.
    #[error(transparent)]
    Reactor(#[from] StartError),
    /// The operating system refuses a thread.
    #[error("cannot start a thread for shard {shard}: {source}")]
    Thread {
        /// The shard.
        shard: ShardId,
        /// The reason given.
        source: io::Error,
    },
    /// A shard did not start: the data directory, or something in it.
    #[error("{0}")]
    Shard(ShardError),
    /// A shard's server gave up.
    #[error("{0}")]
    Server(E),
    /// A shard broke one of its own invariants.
    #[error("shard {shard} has panicked; the log above says where")]
    Panicked {
        /// Which.
        shard: ShardId,
    },
}

/// What a server has to work with on each shard.
pub struct ShardStart {
    /// The shard, which can serve.
    pub shard: Shard,
    /// What the node may use.
    pub budget: Arc<MemoryBudget>,
    /// Connections that the shard may have.
    pub connections_max: u32,
    /// Tells when to stop.
    pub stopping: Stopping,
}

/// Asks a node to stop. May be cloned and used from any thread, before the node runs too.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

/// How a shard hears that the node stops.
pub struct Stopping(MeshHandle<()>);

impl NodeConfig {
    /// Checks every setting, and shares out the memory.
    pub fn budget(&self) -> Result<MemoryBudget, ConfigError> {
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(ConfigError::Shards(self.shards));
        }
        if !self.cpus.is_empty() && self.cpus.len() != usize::from(self.shards) {
            return Err(ConfigError::Cpus { cpus: self.cpus.len(), shards: self.shards });
        }
        let journal = self.journal_bytes;
        if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&journal) || !journal.is_multiple_of(4096) {
            return Err(ConfigError::Journal(journal));
        }
        Ok(MemoryBudget::plan(self.memory, self.shards)?)
    }

    fn shard(&self, budget: &MemoryBudget, rlimits: Rlimits) -> ShardConfig {
        let bounds = Bounds { partitions: budget.partitions, ..Bounds::default() };
        ShardConfig {
            data_dir: self.data_dir.clone(),
            generation: 0,
            node: 1,
            journal_bytes: self.journal_bytes,
            entry_bytes_max: limits::JOURNAL_ENTRY_BYTES_MAX as usize,
            commits_in_flight: usize::from(limits::COMMITS_IN_FLIGHT_MAX),
            beside_bytes_min: limits::BESIDE_BYTES_MIN as usize,
            direct_bytes_min: limits::DIRECT_BYTES_MIN as usize,
            tail_bytes_max: budget.pool.tails as usize,
            waiting_bytes_max: limits::WAITING_BYTES as usize,
            read_bytes: limits::READ_BYTES as usize,
            read_bytes_max: budget.pool.reads as usize,
            fetch_path: self.fetch_path,
            files_max: rlimits.segment_files_max(self.shards),
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            retention_interval: self.retention_interval,
            compaction_interval: self.compaction_interval,
            producer_expiration: self.producer_expiration,
            producers_max: PRODUCERS_MAX,
            groups: self.groups,
            disk_reserve_bytes: self.disk_reserve_bytes,
            bounds,
        }
    }

    fn ring(&self, shard: ShardId, budget: &MemoryBudget, rlimits: Rlimits) -> Options {
        Options {
            shard,
            shards: self.shards,
            cpu: self.cpus.get(usize::from(shard.0)).copied(),
            pool_bytes: budget.pool.bytes as usize,
            entries: rlimits.ring_entries(self.shards),
            spin: self.spin,
            receive_buffers: limits::RECEIVE_BUFFERS,
            receive_buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
            ..Options::default()
        }
    }

    fn control_ring(&self) -> Options {
        Options {
            // The endpoint of its mesh behind those of the shards.
            shard: ShardId(self.shards),
            shards: self.shards,
            cpu: None,
            pool_bytes: CONTROL_POOL_BYTES,
            entries: CONTROL_ENTRIES,
            spin: Duration::ZERO,
            receive_buffers: 1,
            ..Options::default()
        }
    }
}

/// Runs a node until `stop` is asked for or a shard ends, and then until every shard has ended.
///
/// `serve` runs on each shard's thread once that shard can serve. It ends soon after its `stopping` says so; what it has
/// appended by then is in the log, and the shard takes a checkpoint.
///
/// # Errors
/// See [`NodeError`]. Of several shards that fail the first one's error is given.
pub fn run<E, F>(
    config: &NodeConfig,
    stop: &Stop,
    serve: impl Fn(ShardStart) -> F + Clone + Send + 'static,
) -> Result<(), NodeError<E>>
where
    E: Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
{
    let budget = Arc::new(config.budget()?);
    let rlimits = Rlimits::raised();
    rlimits.check(config.shards).map_err(ConfigError::from)?;
    let (config, stop) = (config.clone(), stop.clone());
    run_ring(config.control_ring(), async move |reactor: Reactor| {
        let shards = Shards::start(&config, &stop, &budget, rlimits, serve);
        // Blocks this thread, which has nothing else to do until then.
        stop.wait();
        shards.stop(&reactor).await
    })?
}

/// The threads that run shards.
struct Shards<E> {
    control: Mesh<()>,
    threads: Vec<JoinHandle<Result<(), NodeError<E>>>>,
    /// The thread that could not be started; the node stops at once then.
    failed: Option<NodeError<E>>,
}

impl<E: Send + 'static> Shards<E> {
    fn start<F: Future<Output = Result<(), E>> + 'static>(
        config: &NodeConfig,
        stop: &Stop,
        budget: &Arc<MemoryBudget>,
        rlimits: Rlimits,
        serve: impl Fn(ShardStart) -> F + Clone + Send + 'static,
    ) -> Shards<E> {
        let meshes = mesh::build::<Envelope>(config.shards, MESH_MESSAGES_MAX);
        let mut controls = mesh::build::<()>(config.shards + 1, 1);
        let Some(control) = controls.pop() else { unreachable!("there is one more than shards") };
        let mut shards = Shards { control, threads: Vec::new(), failed: None };
        let shard_config = config.shard(budget, rlimits);
        for (mesh, control) in meshes.into_iter().zip(controls) {
            let shard = ShardId(shards.threads.len() as u16);
            let options = config.ring(shard, budget, rlimits);
            let (config, budget, serve) = (shard_config.clone(), budget.clone(), serve.clone());
            // However this thread ends, or if it does not begin: the node does not go on without it.
            let at_end = StopAtEnd(stop.clone());
            let connections_max = rlimits.connections_max(options.shards);
            let body = move || {
                let _at_end = at_end;
                let serve = move |shard, stopping| serve(ShardStart { shard, budget, connections_max, stopping });
                run_shard(options, mesh, control, config, serve)
            };
            match thread::Builder::new().name(format!("shard-{shard}")).spawn(body) {
                Ok(thread) => shards.threads.push(thread),
                Err(source) => {
                    shards.failed = Some(NodeError::Thread { shard, source });
                    break;
                }
            }
        }
        shards
    }

    /// Tells every shard to stop and waits until it has.
    async fn stop(self, reactor: &Reactor) -> Result<(), NodeError<E>> {
        let control = self.control.attach(reactor);
        for shard in 0..self.threads.len() as u16 {
            // The ring to a shard has room for one message, and this is the only one there ever is.
            let _ = control.try_send(ShardId(shard), ());
        }
        while !self.threads.iter().all(JoinHandle::is_finished) {
            reactor.sleep(Duration::from_millis(5)).await;
        }
        let ended = self.threads.into_iter().enumerate().map(|(shard, thread)| {
            let shard = ShardId(shard as u16);
            thread.join().unwrap_or(Err(NodeError::Panicked { shard }))
        });
        // All are joined before the first error is given.
        let ended: Vec<_> = ended.collect();
        self.failed.map_or(Ok(()), Err).and(ended.into_iter().collect())
    }
}

fn run_shard<E: 'static, F: Future<Output = Result<(), E>> + 'static>(
    options: Options,
    mesh: Mesh<Envelope>,
    control: Mesh<()>,
    config: ShardConfig,
    serve: impl FnOnce(Shard, Stopping) -> F + 'static,
) -> Result<(), NodeError<E>> {
    run_ring(options, async move |reactor: Reactor| {
        let mesh = mesh.attach(&reactor);
        let stopping = Stopping(control.attach(&reactor));
        // Shards start together: where another one cannot, this one would wait for it for ever.
        let started = unless(stopping.requested(), Shard::start(reactor, mesh, config)).await;
        let Some(started) = started else { return Ok(()) };
        let shard = started.map_err(NodeError::Shard)?;
        let served = serve(shard.clone(), stopping).await;
        shard.stop().await;
        served.map_err(NodeError::Server)
    })?
}

/// What `work` gives, or nothing if `ended` is ready before it.
async fn unless<T>(ended: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    let (mut ended, mut work) = (pin!(ended), pin!(work));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => ended.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Asks the node to stop when it is dropped.
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.request();
    }
}

impl Stop {
    /// One that nobody has asked yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks.
    pub fn request(&self) {
        let (requested, changed) = &*self.0;
        *requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Asks at the first SIGINT or SIGTERM; the second ends the process at once, as a crash would. To be called before
    /// the process has other threads: these signals are blocked in all threads that are started later.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let stop = self.clone();
        let wait = move || {
            if signals.wait().is_ok() {
                stop.request();
            }
            if signals.wait().is_ok() {
                std::process::exit(1);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
    }

    fn wait(&self) {
        let (requested, changed) = &*self.0;
        let guard = requested.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(guard, |requested| !*requested));
    }
}

impl Stopping {
    /// Completes when the node stops, once.
    pub async fn requested(&self) {
        self.0.receive().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::TopicName;
    use crate::shard::Command;
    use std::path::Path;
    use std::sync::mpsc;

    fn config(data_dir: &Path) -> NodeConfig {
        NodeConfig {
            data_dir: data_dir.into(),
            shards: 2,
            cpus: Vec::new(),
            memory: limits::least_memory(2),
            journal_bytes: JOURNAL_BYTES_MIN,
            disk_reserve_bytes: 0,
            retention_interval: Duration::from_secs(1),
            compaction_interval: Duration::from_secs(1),
            producer_expiration: Duration::from_secs(3600),
            groups: GroupSettings::default(),
            fetch_path: FetchPath::default(),
            spin: Duration::ZERO,
        }
    }

    #[test]
    fn what_a_shard_sets_aside_is_what_the_budget_has_for_it() {
        let config = config(Path::new("data"));
        let budget = MemoryBudget::plan(config.memory, config.shards).unwrap();
        assert_eq!(config.shard(&budget, Rlimits::raised()).own_bytes() as u64, budget.pool.journal);
    }

    /// A server that does nothing until it is to stop.
    async fn idle(start: ShardStart) -> Result<(), String> {
        start.stopping.requested().await;
        Ok(())
    }

    /// Runs a node on another thread until `stop` is asked for.
    fn running(
        config: NodeConfig,
        stop: &Stop,
        shard_serves: mpsc::Sender<ShardId>,
    ) -> JoinHandle<Result<(), NodeError<String>>> {
        let stop = stop.clone();
        let serve = move |start: ShardStart| {
            let told = shard_serves.send(start.shard.id());
            async move {
                told.map_err(|error| error.to_string())?;
                idle(start).await
            }
        };
        thread::spawn(move || run(&config, &stop, serve))
    }

    #[test]
    fn impossible_settings_are_one_sentence_each() {
        let config = || config(Path::new("data"));
        let error = |config: NodeConfig| config.budget().unwrap_err().to_string();
        assert_eq!(error(NodeConfig { shards: 0, ..config() }), "smp is 0; it must be from 1 to 256");
        assert_eq!(error(NodeConfig { shards: 257, ..config() }), "smp is 257; it must be from 1 to 256");
        let cpus = NodeConfig { cpus: vec![1], ..config() };
        assert_eq!(error(cpus), "1 cores are given for 2 shards; give one for each");
        let memory = NodeConfig { memory: 1 << 20, ..config() };
        assert_eq!(error(memory), "memory is 1 MiB; with 2 shards it must be at least 978 MiB");
        for journal_bytes in [JOURNAL_BYTES_MIN - 4096, JOURNAL_BYTES_MAX + 4096, JOURNAL_BYTES_MIN + 512] {
            let sentence = error(NodeConfig { journal_bytes, ..config() });
            assert!(sentence.ends_with("it must be from 32 MiB to 64 GiB, in steps of 4096"), "{sentence}");
        }
        assert_eq!(config().budget().unwrap().shards, 2);
    }

    #[test]
    fn a_shard_has_the_ring_that_the_budget_counts() {
        let config = config(Path::new("data"));
        let options = config.ring(ShardId(1), &config.budget().unwrap(), Rlimits { files: 1 << 20, locked: 8 << 20 });
        assert_eq!(options.entries, limits::RING_ENTRIES);
    }

    #[test]
    fn every_shard_serves_until_the_node_is_asked_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, (told, serving)) = (Stop::new(), mpsc::channel());
        let node = running(config(dir.path()), &stop, told);
        let mut shards: Vec<_> = serving.iter().take(2).collect();
        shards.sort();
        assert_eq!(shards, [ShardId(0), ShardId(1)]);
        assert!(!node.is_finished());
        stop.request();
        node.join().unwrap().unwrap();
    }

    #[test]
    fn topics_outlive_the_node_and_a_change_of_the_shard_count() {
        let dir = tempfile::tempdir().unwrap();
        let create = async |start: ShardStart| {
            if start.shard.id() == ShardId(1) {
                let settings = vec![("durability".into(), "write".into())];
                let create = Command::CreateTopic { name: "clicks".into(), partitions: 3, settings };
                start.shard.command(create).await.map_err(|error| error.to_string())?;
                return Ok(());
            }
            idle(start).await
        };
        run(&config(dir.path()), &Stop::new(), create).unwrap();
        for shards in [1, 3] {
            let config = NodeConfig { shards, memory: limits::least_memory(shards), ..config(dir.path()) };
            let found = move |start: ShardStart| {
                let catalog = start.shard.catalog();
                let topic = catalog.named(&TopicName::parse("clicks").unwrap()).cloned();
                drop(catalog);
                async move {
                    let topic = topic.ok_or("the topic is gone")?;
                    let durability = topic.settings.durability.as_str();
                    let mine = topic.owned_by(start.shard.id(), shards).filter_map(|id| start.shard.open(id)).count();
                    assert_eq!((topic.partitions, durability, mine), (3, "write", 3 / usize::from(shards)));
                    Ok::<_, String>(())
                }
            };
            run(&config, &Stop::new(), found).unwrap();
        }
    }

    #[test]
    fn a_server_that_gives_up_stops_the_node_and_its_sentence_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let serve = async |start: ShardStart| match start.shard.id() {
            ShardId(1) => Err("port 7092 is in use".to_owned()),
            _ => idle(start).await,
        };
        let error = run(&config(dir.path()), &Stop::new(), serve).unwrap_err();
        assert_eq!(error.to_string(), "port 7092 is in use");
    }

    #[test]
    fn a_second_node_is_refused_and_the_first_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, (told, serving)) = (Stop::new(), mpsc::channel());
        let first = running(config(dir.path()), &stop, told);
        assert_eq!(serving.iter().take(2).count(), 2);
        let error = run(&config(dir.path()), &Stop::new(), idle).unwrap_err();
        assert!(error.to_string().contains("is in use by another server, which holds the lock"), "{error}");
        assert!(!first.is_finished());
        stop.request();
        first.join().unwrap().unwrap();
    }

    #[test]
    fn a_panic_on_one_shard_stops_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let serve = async |start: ShardStart| {
            assert!(start.shard.id() == ShardId(0), "on purpose");
            idle(start).await
        };
        let error = run(&config(dir.path()), &Stop::new(), serve).unwrap_err();
        assert_eq!(error.to_string(), "shard 1 has panicked; the log above says where");
    }

    #[test]
    fn a_stop_that_came_before_the_start_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Stop::new();
        stop.request();
        run(&config(dir.path()), &stop, idle).unwrap();
    }
}
