//! A node of one shard in this process, with its server: for what only its own process can see, such as what it takes from
//! the heap.

use super::connection::Connection;
use super::interrupt;
use super::process::free_address;
use crate::error::{BenchError, Result};
use crate::machine::cores::Cores;
use corelog_engine::limits::JOURNAL_BYTES_DEFAULT;
use corelog_engine::node::{self, NodeConfig, ShardStart, Stop};
use corelog_engine::shard::FetchPath;
use corelog_net::limits::Limits;
use corelog_net::native::{self, Options};
use corelog_net::transport::{Common, Ports};
use corelog_yardstick::heap::watch_this_thread;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

const MEMORY: u64 = 512 << 20;
/// The default of `serve`.
const SPIN: Duration = Duration::from_micros(50);

/// A node that runs in threads of this process, its shard's watched by the counting allocator. Dropping it stops it.
pub struct Embedded {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<()>>>,
    // Not before it has ended, and its directory last.
    _runs: interrupt::Node,
    _directory: TempDir,
}

impl Embedded {
    /// Starts one with its data in a directory of its own below `parent`, and waits until it serves.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(parent: &Path) -> Result<Embedded> {
        let (directory, address, stop) = (interrupt::scratch(parent)?, free_address()?, Stop::new());
        let (config, stopping) = (config(directory.path().join("data"), MEMORY), stop.clone());
        let runs = interrupt::Node::runs();
        let thread = thread::spawn(move || {
            let ran = node::run(&config, &stopping, move |start| serve(start, address));
            ran.map_err(|error| BenchError::Server(format!("the node in this process ended: {error}")))
        });
        let mut node = Embedded { address, stop, thread: Some(thread), _runs: runs, _directory: directory };
        while Connection::open(address).is_err() {
            if node.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                node.join()?;
                return Err(BenchError::Server("the node in this process ended at its start".into()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(node)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it and waits until it has ended.
    ///
    /// # Errors
    /// What it ended with.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.request();
        let panicked = |_| Err(BenchError::Server("the node in this process panicked".into()));
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Its directory must not go before it has ended.
        let _ = self.join();
    }
}

async fn serve(start: ShardStart, address: SocketAddr) -> io::Result<()> {
    watch_this_thread();
    let ShardStart { shard, stopping, .. } = start;
    let listener = shard.reactor().listen(address).await?;
    let ports = Ports::new(1);
    ports.set(shard.id(), address.port());
    let options = Options { host: String::new(), ports };
    let server = native::serve(&Common::new(shard, Limits::default()), vec![listener], options);
    stopping.requested().await;
    server.stop().await;
    Ok(())
}

/// A node of one shard, on the core that is meant for it.
pub(crate) fn config(data_dir: PathBuf, memory: u64) -> NodeConfig {
    NodeConfig {
        data_dir,
        shards: 1,
        cpus: Cores::choose().server.into_iter().collect(),
        memory,
        journal_bytes: JOURNAL_BYTES_DEFAULT,
        disk_reserve_bytes: 0,
        retention_interval: Duration::from_secs(60),
        compaction_interval: Duration::from_secs(60),
        producer_expiration: Duration::from_secs(3600),
        groups: corelog_engine::shard::GroupSettings::default(),
        fetch_path: FetchPath::default(),
        spin: SPIN,
    }
}
