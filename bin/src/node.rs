//! The server: a shard on every core of the plan, each with the native protocol in front of it.

use crate::failure::Failure;
use crate::server;
use crate::settings::Settings;
use corelog_engine::limits::MemoryBudget;
use corelog_engine::model::ShardId;
use corelog_engine::node::{self, NodeConfig, NodeError, ShardStart, Stop};
use corelog_engine::reactor::Listener;
use corelog_engine::shard::Shard;
use corelog_net::admin;
use corelog_net::limits::Limits;
use corelog_net::native::{self, Options};
use corelog_net::transport::{Common, Ports};
use corelog_tuning::ShardPlan;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the server until a signal asks for its end.
pub(crate) fn run(
    settings: &Settings,
    plan: &ShardPlan,
    budget: &MemoryBudget,
    remarks: &[String],
) -> Result<(), Failure> {
    let stop = Stop::new();
    // Before any thread begins: they inherit the mask of signals.
    stop.on_signals().map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")))?;
    let (listen, admin) = free_ports(settings, budget.shards)?;
    say(&start_lines(settings, plan, budget, remarks));
    let (serving, ready) = channel();
    let address = Address { listen, admin, shard_port: settings.shard_port, ports: Ports::new(budget.shards) };
    announce(ready, address.clone(), budget.shards);
    let produce_rate_max = settings.produce_rate_max;
    let serve = move |start: ShardStart| {
        let limits = Limits::within(&start.budget.pool, start.connections_max, produce_rate_max);
        serve(start, address.clone(), limits, serving.clone())
    };
    node::run(&config(settings, plan, budget), &stop, serve).map_err(|error| failed(&error))?;
    say("stopped\n");
    Ok(())
}

/// Where the node is to be reached.
#[derive(Clone)]
struct Address {
    /// The address that all shards share.
    listen: SocketAddr,
    /// Where the first shard serves `/metrics`, if anywhere.
    admin: Option<SocketAddr>,
    /// The port on which shard 0 is to listen alone, where that is not left to the kernel.
    shard_port: Option<u16>,
    /// Where each listens alone.
    ports: Ports,
}

impl Address {
    /// Where a shard is to listen alone.
    fn alone(&self, shard: ShardId) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.shard_port.map_or(0, |first| first + shard.0))
    }
}

/// A shard cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Serves clients of one shard until the node stops. Tells `serving` when it has begun.
async fn serve(start: ShardStart, address: Address, limits: Limits, serving: Sender<()>) -> Result<(), ListenError> {
    let ShardStart { shard, stopping, .. } = start;
    let mut stop = pin!(stopping.requested());
    let own = listen(&shard, address.alone(shard.id())).await?;
    address.ports.set(shard.id(), own.local_addr().port());
    // A client that asks before would get metadata that lacks shards.
    if !all_listen(&shard, &address.ports, stop.as_mut()).await {
        return Ok(());
    }
    let shared = listen(&shard, address.listen).await?;
    // Clients use the host by which they know the node, as long as there is only one.
    let options = Options { host: String::new(), ports: address.ports };
    let admin = match address.admin.filter(|_| shard.id() == ShardId(0)) {
        Some(address) => Some(admin::serve(shard.clone(), listen(&shard, address).await?)),
        None => None,
    };
    let server = native::serve(&Common::new(shard, limits), vec![own, shared], options);
    // The one who listens may have ended.
    let _ = serving.send(());
    drop(serving);
    stop.await;
    drop(admin);
    server.stop().await;
    Ok(())
}

/// Waits until every shard listens alone. Tells whether that came before `stop`.
async fn all_listen(shard: &Shard, ports: &Ports, mut stop: Pin<&mut impl Future<Output = ()>>) -> bool {
    while !ports.are_all_listening() {
        let mut pause = pin!(shard.reactor().sleep(Duration::from_millis(1)));
        let go_on = poll_fn(|context| match stop.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => pause.as_mut().poll(context).map(|()| true),
        });
        if !go_on.await {
            return false;
        }
    }
    true
}

async fn listen(shard: &Shard, address: SocketAddr) -> Result<Listener, ListenError> {
    shard.reactor().listen(address).await.map_err(|source| ListenError { address, source })
}

fn failed(error: &NodeError<ListenError>) -> Failure {
    match error {
        NodeError::Config(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}

/// Says that the node serves once all shards do, from a thread: the calling one runs the node.
fn announce(ready: Receiver<()>, address: Address, shards: u16) {
    thread::spawn(move || {
        // Where a shard did not start, fewer report than there are.
        if ready.iter().take(usize::from(shards)).count() == usize::from(shards) {
            let ports: Vec<String> = address.ports.listening().map(|(_, port)| port.to_string()).collect();
            let metrics = address.admin.map(|admin| format!("metrics at http://{admin}/metrics\n")).unwrap_or_default();
            say(&format!("shards on ports {}\n{metrics}listening on {}\n", ports.join(", "), address.listen));
            say(&next_lines(address.listen));
        }
    });
}

fn config(settings: &Settings, plan: &ShardPlan, budget: &MemoryBudget) -> NodeConfig {
    NodeConfig {
        data_dir: settings.data_dir.clone(),
        shards: budget.shards,
        cpus: plan.shards.clone(),
        memory: budget.memory,
        journal_bytes: settings.journal_bytes,
        disk_reserve_bytes: settings.disk_reserve_bytes,
        retention_interval: settings.retention_check_interval,
        fetch_path: settings.fetch_path.unwrap_or_default(),
        spin: settings.spin,
    }
}

/// How long a port may stay taken after its server was killed: the kernel takes a ring down when it gets to it.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// The addresses to listen on, for clients and for `/metrics`, with the port that the kernel chose where it was left to it. Shards share their port, so
/// that a second server would be let in and take a part of the connections: this tells it apart first, because a socket
/// that does not share is refused where any other listens. All are held until the last is known to be free, so that the
/// kernel chooses none of the others.
fn free_ports(settings: &Settings, shards: u16) -> Result<(SocketAddr, Option<SocketAddr>), Failure> {
    let until = Instant::now() + PORT_PATIENCE;
    let own = settings.shard_port.map_or(0..0, |first| u32::from(first)..u32::from(first) + u32::from(shards));
    let own = own.map(|port| SocketAddr::new(settings.listen.ip(), port as u16));
    let _held = own.map(|address| free_port(address, "--shard-port", until)).collect::<Result<Vec<_>, _>>()?;
    let shared = free_port(settings.listen, "--listen", until)?;
    let admin = settings.admin_listen.map(|address| free_port(address, "--admin-listen", until)).transpose()?;
    let chosen = |listener: &TcpListener, asked| listener.local_addr().map_err(|error| cannot_listen(asked, &error));
    let admin = admin.zip(settings.admin_listen).map(|(listener, asked)| chosen(&listener, asked)).transpose()?;
    Ok((chosen(&shared, settings.listen)?, admin))
}

fn free_port(address: SocketAddr, flag: &str, until: Instant) -> Result<TcpListener, Failure> {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(cannot_listen(address, &error)),
            Err(_) if Instant::now() >= until => {
                let why = format!("another program uses this port; stop it, or give {flag}");
                return Err(cannot_listen(address, &why));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn cannot_listen(address: SocketAddr, why: &dyn fmt::Display) -> Failure {
    Failure::Failed(format!("cannot listen on {address}: {why}"))
}

fn start_lines(settings: &Settings, plan: &ShardPlan, budget: &MemoryBudget, remarks: &[String]) -> String {
    let remarks = remarks.iter().map(|remark| format!("warning: {remark}\n"));
    format!(
        "corelog {}, data in {}\n{}\nmemory, at most:\n{budget}\nevery other bound: corelog serve --print-limits\n{}",
        env!("CARGO_PKG_VERSION"),
        settings.data_dir.display(),
        plan.why,
        remarks.collect::<String>()
    )
}

/// What a newcomer types next, with this program's own name as it was called.
fn next_lines(listen: SocketAddr) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "corelog".to_owned());
    let to = if listen.to_string() == server::DEFAULT { String::new() } else { format!(" -b {listen}") };
    format!(
        "Ctrl-C ends it. In a second terminal:\n  \
         {program} topic create clicks --partitions 8{to}\n  \
         {program} produce clicks{to} < access.log\n  \
         {program} consume clicks --from beginning --exit-at-end{to}\n"
    )
}

/// Nobody may read what we say; the server runs nevertheless.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
