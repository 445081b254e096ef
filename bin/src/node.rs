//! The server: a shard on every core of the plan, each with the native protocol in front of it.

use crate::failure::Failure;
use crate::server;
use crate::settings::Settings;
use corelog_engine::limits::{MemoryBudget, PoolBudget};
use corelog_engine::model::ShardId;
use corelog_engine::node::{self, NodeConfig, NodeError, ShardStart, Stop};
use corelog_engine::reactor::Listener;
use corelog_engine::shard::Shard;
use corelog_net::kafka::NodeSettings;
use corelog_net::limits::Limits;
use corelog_net::native::{self, Options};
use corelog_net::transport::{Common, Ports};
use corelog_net::{admin, kafka};
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
    told: NodeSettings,
    plan: &ShardPlan,
    budget: &MemoryBudget,
    remarks: &[String],
) -> Result<(), Failure> {
    let stop = Stop::new();
    // Before any thread begins: they inherit the mask of signals.
    stop.on_signals().map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")))?;
    let Free { listen, kafka, admin } = free_ports(settings, budget.shards)?;
    say(&start_lines(settings, plan, budget, remarks));
    let (serving, ready) = channel();
    let kafka = kafka.map(|listen| Kafka {
        listen,
        host: settings.kafka_advertise.clone().unwrap_or_else(|| listen.ip().to_string()),
        has_chosen_port: settings.kafka_listen.is_some_and(|asked| asked.port() != 0),
        ports: Ports::new(budget.shards),
        told,
    });
    let shard_port = settings.shard_port;
    let address = Address { listen, kafka, admin, shard_port, ports: Ports::new(budget.shards) };
    announce(ready, address.clone(), budget.shards);
    let own = settings.clone();
    let serve = move |start: ShardStart| {
        let limits = limits(&own, &start.budget.pool, start.connections_max);
        serve(start, address.clone(), limits, serving.clone())
    };
    node::run(&config(settings, plan, budget), &stop, serve).map_err(|error| failed(&error))?;
    say("stopped\n");
    Ok(())
}

/// The bounds of each shard's connections.
pub(crate) fn limits(settings: &Settings, pool: &PoolBudget, connections_max: u32) -> Limits {
    let limits = Limits::within(pool, connections_max, settings.produce_rate_max);
    Limits { idle_time: settings.kafka.idle_time, ..limits }
}

/// Where the node is to be reached.
#[derive(Clone)]
struct Address {
    /// The address that all shards share.
    listen: SocketAddr,
    /// Where Kafka's protocol is spoken, if anywhere.
    kafka: Option<Kafka>,
    /// Where the first shard serves `/metrics`, if anywhere.
    admin: Option<SocketAddr>,
    /// The port on which shard 0 is to listen alone, where that is not left to the kernel.
    shard_port: Option<u16>,
    /// Where each listens alone.
    ports: Ports,
}

/// Where Kafka's protocol is spoken.
#[derive(Clone)]
struct Kafka {
    /// The address that all shards share.
    listen: SocketAddr,
    /// What clients are told.
    host: String,
    /// Shards have the ports behind that of `listen`; else the kernel chooses them too.
    has_chosen_port: bool,
    /// Where each shard listens alone.
    ports: Ports,
    /// What clients are told of the node's settings.
    told: NodeSettings,
}

impl Kafka {
    /// Where a shard is to listen alone. Always the same after a restart: old clients never ask again whom they can reach.
    fn alone(&self, shard: ShardId) -> SocketAddr {
        let port = if self.has_chosen_port { self.listen.port() + 1 + shard.0 } else { 0 };
        SocketAddr::new(self.listen.ip(), port)
    }
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
    let kafka_own = match &address.kafka {
        Some(kafka) => Some(listen(&shard, kafka.alone(shard.id())).await?),
        None => None,
    };
    if let (Some(kafka), Some(own)) = (&address.kafka, &kafka_own) {
        kafka.ports.set(shard.id(), own.local_addr().port());
    }
    // A client that asks before would get metadata that lacks shards.
    let all_ports = [Some(&address.ports), address.kafka.as_ref().map(|kafka| &kafka.ports)];
    if !all_listen(&shard, all_ports, stop.as_mut()).await {
        return Ok(());
    }
    let common = Common::new(shard.clone(), limits);
    let shared = listen(&shard, address.listen).await?;
    // Clients use the host by which they know the node, as long as there is only one.
    let options = Options { host: String::new(), ports: address.ports };
    let mut servers = vec![native::serve(&common, vec![own, shared], options)];
    if let (Some(kafka), Some(own)) = (address.kafka, kafka_own) {
        let shared = listen(&shard, kafka.listen).await?;
        let options = kafka::Options { host: kafka.host, ports: kafka.ports, node: kafka.told };
        servers.push(kafka::serve(&common, vec![own, shared], options));
    }
    let admin = match address.admin.filter(|_| shard.id() == ShardId(0)) {
        Some(address) => Some(admin::serve(shard.clone(), listen(&shard, address).await?)),
        None => None,
    };
    // The one who listens may have ended.
    let _ = serving.send(());
    drop(serving);
    stop.await;
    drop(admin);
    // Who waits in a group would hold its connection open.
    shard.close_groups();
    for server in servers {
        server.stop().await;
    }
    Ok(())
}

/// Waits until every shard listens alone. Tells whether that came before `stop`.
async fn all_listen(shard: &Shard, ports: [Option<&Ports>; 2], mut stop: Pin<&mut impl Future<Output = ()>>) -> bool {
    while !ports.iter().flatten().all(|ports| ports.are_all_listening()) {
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
            let kafka =
                address.kafka.map(|kafka| format!("Kafka's protocol at {}\n", kafka.listen)).unwrap_or_default();
            say(&format!("shards on ports {}\n{kafka}{metrics}listening on {}\n", ports.join(", "), address.listen));
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
        compaction_interval: settings.compaction_interval,
        producer_expiration: settings.producer_expiration,
        groups: settings.kafka.groups,
        fetch_path: settings.fetch_path.unwrap_or_default(),
        spin: settings.spin,
    }
}

/// What to give where another program has one of the ports of Kafka's protocol.
const OTHER_KAFKA: &str = "another address by --kafka-listen, or off there";

/// How long a port may stay taken after its server was killed: the kernel takes a ring down when it gets to it.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// The addresses to listen on, with the port that the kernel chose where it was left to it.
struct Free {
    listen: SocketAddr,
    kafka: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// Finds out where there is to be listened. Shards share a port, so that a second server would be let in and take a part of
/// the connections: this tells it apart first, because a socket that does not share is refused where any other listens. All
/// are held until the last is known to be free, so that the kernel chooses none of the others.
fn free_ports(settings: &Settings, shards: u16) -> Result<Free, Failure> {
    let until = Instant::now() + PORT_PATIENCE;
    let mut held = Vec::new();
    let mut hold = |asked: SocketAddr, flag| {
        let listener = free_port(asked, flag, until)?;
        let address = listener.local_addr().map_err(|error| cannot_listen(asked, &error))?;
        held.push(listener);
        Ok(address)
    };
    if let Some(first) = settings.shard_port {
        for port in first..first + shards {
            hold(SocketAddr::new(settings.listen.ip(), port), "--shard-port")?;
        }
    }
    if let Some(address) = settings.kafka_listen.filter(|address| address.port() != 0) {
        for port in address.port() + 1..=address.port() + shards {
            hold(SocketAddr::new(address.ip(), port), OTHER_KAFKA)?;
        }
    }
    let listen = hold(settings.listen, "--listen")?;
    let kafka = settings.kafka_listen.map(|asked| hold(asked, OTHER_KAFKA)).transpose()?;
    let admin = settings.admin_listen.map(|asked| hold(asked, "--admin-listen")).transpose()?;
    Ok(Free { listen, kafka, admin })
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
