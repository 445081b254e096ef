//! Brokers, started and ended here.

use crate::Result;
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Serialize;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Of Kafka's cluster; any will do.
const CLUSTER: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// As Kafka's own scripts start it.
const JVM: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// Durable: what it acknowledges is flushed.
    Corelog,
    /// With its defaults: what it acknowledges is in the page cache.
    Kafka,
    /// With flush.messages=1: what it acknowledges is flushed.
    KafkaFlushed,
}

impl Subject {
    pub(crate) const ALL: [Subject; 3] = [Subject::Corelog, Subject::Kafka, Subject::KafkaFlushed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Corelog => "corelog",
            Subject::Kafka => "Kafka",
            Subject::KafkaFlushed => "Kafka, flushed",
        }
    }
}

/// What brokers are started with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) corelog: PathBuf,
    pub(crate) kafka: PathBuf,
    pub(crate) directory: PathBuf,
}

impl Setup {
    pub(crate) fn versions(&self) -> Result<String> {
        let output = Command::new(&self.corelog).arg("--version").output()?;
        let corelog = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let jar = |name: &str| Some(name.strip_prefix("kafka-server-")?.strip_suffix(".jar")?.to_owned());
        let names = fs::read_dir(&self.kafka)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let version = names.filter_map(|name| jar(&name)).find(|version| version.starts_with(char::is_numeric));
        Ok(format!("{corelog}, Apache Kafka {}", version.ok_or("there are no jars of Kafka's server")?))
    }

    pub(crate) fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.arg("-cp").arg(self.kafka.join("*")).arg(class);
        command
    }
}

/// A broker that runs. Dropping it kills it; its directory stays.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) subject: Subject,
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    child: Child,
}

impl Broker {
    /// Starts one on a directory, which is made if it is not there, and waits until it tells of itself.
    pub(crate) fn start(subject: Subject, setup: &Setup, directory: &Path) -> Result<Broker> {
        let broker = Broker::spawn(subject, setup, directory)?;
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Starts one, and does not wait.
    pub(crate) fn spawn(subject: Subject, setup: &Setup, directory: &Path) -> Result<Broker> {
        let address = free_address()?;
        let mut command = match subject {
            Subject::Corelog => corelog(setup, directory, address)?,
            Subject::Kafka | Subject::KafkaFlushed => kafka(subject, setup, directory, address)?,
        };
        let log = File::create(directory.with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        Ok(Broker { subject, address, directory: directory.to_owned(), child })
    }

    pub(crate) fn wait_ready(&self) -> Result<()> {
        let began = Instant::now();
        let consumer: BaseConsumer = self.config().create()?;
        while consumer.fetch_metadata(None, Duration::from_secs(1)).is_err() {
            if began.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!("{} does not answer: {}", self.subject.name(), end.join("; ")).into());
            }
        }
        Ok(())
    }

    /// What every client of it is configured with.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address.to_string());
        config.set("group.id", "versus");
        // It may only just be starting: who asks again late would be taken for a slow start.
        config.set("reconnect.backoff.ms", "5").set("reconnect.backoff.max.ms", "20");
        config.set("log_level", "0");
        config
    }

    /// CPU time that it has taken so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(clock_getcpuclockid(self.pid()).and_then(ClockId::now)?.into())
    }

    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.ok_or("the kernel's figures of memory are in an unknown form")? * 1024.0)
    }

    /// Ends it at once, as a crash of the process would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGTERM)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > STOP_PATIENCE {
                return Err(format!("{} does not end", self.subject.name()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn corelog(setup: &Setup, directory: &Path, address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(&setup.corelog);
    command.arg("serve").arg("--data-dir").arg(directory);
    // One shard: the clients have the other core, or cores.
    command.args(["--smp", "1", "--listen", &free_address()?.to_string()]);
    command.args(["--kafka-listen", &address.to_string()]);
    Ok(command)
}

fn kafka(subject: Subject, setup: &Setup, directory: &Path, address: SocketAddr) -> Result<Command> {
    fs::create_dir_all(directory)?;
    let properties = directory.with_extension("properties");
    let controller = free_address()?;
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\ncontroller.listener.names=CONTROLLER\n\
         log.dirs={}\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
        directory.display()
    );
    if subject == Subject::KafkaFlushed {
        text.push_str("log.flush.interval.messages=1\n");
    }
    fs::write(&properties, text)?;
    if !directory.join("meta.properties").exists() {
        let mut format = setup.java("kafka.tools.StorageTool");
        let ended = format.args(["format", "--cluster-id", CLUSTER, "--config"]).arg(&properties).output()?;
        if !ended.status.success() {
            return Err(format!("Kafka's directory: {}", String::from_utf8_lossy(&ended.stderr)).into());
        }
    }
    let mut command = Command::new("java");
    command.args(JVM).arg("-cp").arg(setup.kafka.join("*")).arg("kafka.Kafka").arg(&properties);
    Ok(command)
}

/// One that is free, and the next port too: corelog's first shard has that.
fn free_address() -> Result<SocketAddr> {
    loop {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let next = address.port().checked_add(1);
        if next.is_some_and(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(address);
        }
    }
}
