//! One shard on the real kernel, with bounds so small that everything happens in a few hundred operations, and ended at
//! an operation of choice. A process of its own: `proof serve-until`.

use super::Address;
use corelog_engine::metadata::Bounds;
use corelog_engine::model::ShardId;
use corelog_engine::reactor::ring::{Boundary, Options as RingOptions, end_at, handed_over};
use corelog_engine::reactor::{Reactor, mesh, run_ring};
use corelog_engine::shard::{Envelope, FetchPath, GroupSettings, Shard, ShardConfig};
use corelog_net::limits::Limits;
use corelog_net::native::{Options, serve as serve_native};
use corelog_net::transport::{Common, Ports};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// No life of a server is longer: one that hangs ends itself, and whoever waits for it with it.
const LIFE_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
const POOL_BYTES: usize = 64 << 20;

/// Batches go to segments directly from the size on that the product has; the journal is as small as that allows, so that
/// it goes around and checkpoints are taken for want of room, at the same operations each time.
fn config(data_dir: &Path) -> ShardConfig {
    ShardConfig {
        data_dir: data_dir.to_owned(),
        generation: 0,
        node: 1,
        journal_bytes: 4 * (320 << 10),
        entry_bytes_max: 320 << 10,
        commits_in_flight: 2,
        beside_bytes_min: 0,
        direct_bytes_min: 256 << 10,
        tail_bytes_max: 8 << 20,
        waiting_bytes_max: 4 << 20,
        read_bytes: 1 << 20,
        read_bytes_max: 8 << 20,
        fetch_path: FetchPath::default(),
        files_max: 64,
        checkpoint_interval: LIFE_MAX,
        retention_interval: Duration::from_millis(50),
        compaction_interval: Duration::from_millis(50),
        producer_expiration: Duration::from_secs(3600),
        producers_max: 1024,
        groups: GroupSettings::default(),
        disk_reserve_bytes: 1 << 20,
        bounds: Bounds::default(),
    }
}

/// Serves a data directory until standard input ends, or the operation comes at which the process is to end. Says where it
/// listens, and at the end what it did to the disk.
///
/// # Errors
/// What the shard says when it cannot start.
pub fn serve(data_dir: &Path, boundary: Option<Boundary>) -> Result<(), String> {
    if let Some(boundary) = boundary {
        end_at(boundary);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    thread::spawn(move || {
        // Whoever started this process is gone, or wants it to end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
    thread::spawn(|| {
        thread::sleep(LIFE_MAX);
        eprintln!("the server took longer than {LIFE_MAX:?}");
        std::process::exit(1);
    });
    let config = config(data_dir);
    let options = RingOptions { pool_bytes: POOL_BYTES, entries: 256, receive_buffers: 64, ..RingOptions::default() };
    run_ring(options, |reactor| run(reactor, config, stopping)).map_err(|error| error.to_string())??;
    println!("operations {}", handed_over().join(","));
    Ok(())
}

async fn run(reactor: Reactor, config: ShardConfig, stopping: Arc<AtomicBool>) -> Result<(), String> {
    let mesh = mesh::build::<Envelope>(1, 64).remove(0).attach(&reactor);
    let shard = Shard::start(reactor.clone(), mesh, config).await.map_err(|error| error.to_string())?;
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let listener = reactor.listen(any).await.map_err(|error| error.to_string())?;
    let (address, ports) = (listener.local_addr(), Ports::new(1));
    ports.set(ShardId(0), address.port());
    let options = Options { host: String::new(), ports };
    let server = serve_native(&Common::new(shard.clone(), Limits::default()), vec![listener], options);
    println!("listening on {address}");
    while !stopping.load(Ordering::Relaxed) {
        reactor.sleep(LOOK_INTERVAL).await;
    }
    server.stop().await;
    shard.stop().await;
    Ok(())
}

/// Such a process, seen from outside. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    /// Where it listens; nothing if it ended before.
    pub(super) address: Option<Address>,
}

impl Process {
    /// Starts `program serve-until`, and waits until it serves or has ended.
    pub(super) fn start(program: &Path, directory: &Path, boundary: Option<Boundary>) -> Process {
        let log = directory.join("log");
        let errors = std::fs::File::options().create(true).append(true).open(&log).expect("a file for its words");
        let mut command = Command::new(program);
        command.arg("serve-until").arg(directory.join("data"));
        command.args(boundary.map(|boundary| boundary.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("the server starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let address = line(&mut output).and_then(|line| line.strip_prefix("listening on ")?.parse().ok());
        Process { child, output, log, address }
    }

    /// Asks it to end. What it did to the disk; nothing if it was killed.
    pub(super) fn stop(mut self) -> Result<Option<Vec<String>>, String> {
        drop(self.child.stdin.take());
        let operations = line(&mut self.output);
        let status = self.ended();
        if was_killed(status) {
            return Ok(None);
        }
        let words = std::fs::read_to_string(&self.log).unwrap_or_default();
        let operations = operations.as_ref().and_then(|line| line.strip_prefix("operations "));
        match operations.filter(|_| status.success()) {
            Some(operations) => Ok(Some(operations.split(',').map(str::to_owned).collect())),
            None => Err(format!("the server ended with {status}:\n{words}")),
        }
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().expect("the server's end")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

fn line(output: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = output.read_line(&mut line).unwrap_or_default();
    (read > 0).then(|| line.trim_end().to_owned())
}
