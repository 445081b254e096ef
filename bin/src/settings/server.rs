//! What the settings say: how the server runs.

use super::gather::{Given, SettingsError};
use super::kafka::KafkaSettings;
use super::table::{AUTO, OFF};
use crate::quantity;
use corelog_engine::limits;
use corelog_engine::shard::FetchPath;
use corelog_tuning::CpuSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// What the server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where the log lies.
    pub(crate) data_dir: PathBuf,
    /// The bootstrap address. Shards listen on ports of their own at the same host.
    pub(crate) listen: SocketAddr,
    /// The own port of shard 0, with those of the others behind it; `None`: as the kernel chooses.
    pub(crate) shard_port: Option<u16>,
    /// Where Kafka's protocol is spoken, with the shards on the ports behind it; `None`: nowhere.
    pub(crate) kafka_listen: Option<SocketAddr>,
    /// The host that clients of Kafka's protocol are told; `None`: the address they are served at.
    pub(crate) kafka_advertise: Option<String>,
    /// Where `/metrics` is served over HTTP; `None`: nowhere.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Number of shards; `None`: as many as the machine suggests.
    pub(crate) smp: Option<usize>,
    /// Cores they may have; `None`: all that this process may use.
    pub(crate) cpuset: Option<CpuSet>,
    /// Bytes that the server may use; `None`: by the size of the machine.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes of each shard's journal file.
    pub(crate) journal_bytes: u64,
    /// Bytes of produces that are taken from one connection in a second; `None`: no bound.
    pub(crate) produce_rate_max: Option<u64>,
    /// Free space on the data directory's file system below which producers are refused, in bytes.
    pub(crate) disk_reserve_bytes: u64,
    /// How often segments are held against their topic's retention.
    pub(crate) retention_check_interval: Duration,
    /// How often it is looked for what is to be compacted.
    pub(crate) compaction_interval: Duration,
    pub(crate) producer_expiration: Duration,
    /// How what is no longer in memory gets to readers; `None`: as measurements advise.
    pub(crate) fetch_path: Option<FetchPath>,
    /// How long a shard without work looks for more before it sleeps.
    pub(crate) spin: Duration,
    /// Whether others than this machine may connect although nobody is asked who he is.
    pub(crate) insecure: bool,
    /// What has Kafka's names.
    pub(crate) kafka: KafkaSettings,
}

impl Given {
    /// Reads every value, or says what is wrong with the first that cannot be.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        let settings = Settings {
            data_dir: self.read("data-dir", "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)))?,
            listen: self.read("listen", "HOST:PORT, like 127.0.0.1:7092", address)?,
            shard_port: self.read("shard-port", "auto or a port from 1 to 65535", or_auto(port))?,
            kafka_listen: self.read("kafka-listen", "off or HOST:PORT, like 127.0.0.1:9092", or_off(address))?,
            kafka_advertise: self.read("kafka-advertise", "auto or a host, without a port", or_auto(host))?,
            admin_listen: self.read("admin-listen", "off or HOST:PORT, like 127.0.0.1:7093", or_off(address))?,
            smp: self.read("smp", "auto or a number of shards from 1 to 256", or_auto(shards))?,
            cpuset: self.read("cpuset", "auto or a list of cores like 0-3,8", or_auto(|text| text.parse().ok()))?,
            memory_bytes: self.read("memory", "auto or a size like 512MiB or 4G", or_auto(size))?,
            journal_bytes: self.read("journal-bytes", "a size from 32MiB to 64GiB in steps of 4096", journal_bytes)?,
            produce_rate_max: self.read(
                "produce-rate-max",
                "off or a size from 2MiB, like 32MiB",
                or_off(produce_rate),
            )?,
            disk_reserve_bytes: self.read("disk-reserve", "a size like 512MiB", size)?,
            retention_check_interval: self.read(
                "retention-check-interval",
                "a duration from 1ms, like 5m",
                interval,
            )?,
            compaction_interval: self.read("compaction-interval", "a duration from 1ms, like 15s", interval)?,
            producer_expiration: self.read("producer-expiration", "a duration from 1ms, like 1d", interval)?,
            fetch_path: self.read("fetch-path", "auto, direct or splice", or_auto(fetch_path))?,
            spin: self.read("spin", "a duration up to 1s, like 50us", spin)?,
            insecure: self.read("insecure", "true or false", |text| text.parse().ok())?,
            kafka: self.kafka()?,
        };
        let listeners = [
            ("listen", Some(settings.listen)),
            ("kafka-listen", settings.kafka_listen),
            ("admin-listen", settings.admin_listen),
        ];
        for (name, address) in listeners {
            if !settings.insecure && address.is_some_and(|address| !address.ip().is_loopback()) {
                return Err(self.reachable(name));
            }
        }
        if settings.kafka_listen.is_some_and(|address| address.ip().is_unspecified())
            && settings.kafka_advertise.is_none()
        {
            let allowed = "a host that clients reach this machine by, because kafka-listen is every address of it";
            self.read("kafka-advertise", allowed, |_| None::<()>)?;
        }
        Ok(settings)
    }

    /// Checks that there is a port of its own for each shard, once it is known how many there are.
    pub(crate) fn check_ports(&self, settings: &Settings, shards: u16) -> Result<(), SettingsError> {
        self.check_shard_ports(settings, shards)?;
        self.check_kafka_ports(settings, shards)
    }

    fn check_kafka_ports(&self, settings: &Settings, shards: u16) -> Result<(), SettingsError> {
        let Some(port) = settings.kafka_listen.map(|address| address.port()).filter(|port| *port != 0) else {
            return Ok(());
        };
        let own = usize::from(port)..usize::from(port) + 1 + usize::from(shards);
        let shard_ports =
            settings.shard_port.map_or(0..0, |first| first.into()..usize::from(first) + usize::from(shards));
        let admin = settings.admin_listen.map(|address| usize::from(address.port()));
        let others = admin.into_iter().chain([usize::from(settings.listen.port())]).chain(shard_ports);
        let allowed = if own.end > PORTS {
            format!(
                "on a port of at most {}, because shard N of {shards} listens on that port + 1 + N",
                PORTS - own.len()
            )
        } else if let Some(taken) = others.filter(|port| *port != 0).find(|port| own.contains(port)) {
            let last = own.end - 1;
            format!(
                "such that no other port of corelog is among its own: they are {port} to {last}, and {taken} is taken"
            )
        } else {
            return Ok(());
        };
        self.read("kafka-listen", &allowed, |_| None)
    }

    fn check_shard_ports(&self, settings: &Settings, shards: u16) -> Result<(), SettingsError> {
        let Some(first) = settings.shard_port else { return Ok(()) };
        let listen = settings.listen.port();
        let allowed = if usize::from(first) + usize::from(shards) > PORTS {
            let most = PORTS - usize::from(shards);
            format!("at most {most}, because shard N of {shards} shards listens on that port + N")
        } else if (first..=first + (shards - 1)).contains(&listen) {
            let shard = listen - first;
            format!("such that no shard has the port of listen: shard {shard} would listen on {listen}")
        } else {
            return Ok(());
        };
        self.read("shard-port", &allowed, |_| None)
    }
}

fn size(text: &str) -> Option<u64> {
    quantity::size(text).ok()
}

/// The largest produce, and what a client has on its way, are paid for long before clients give up a server that does not
/// answer (30 s); and who went away in debt keeps its place for a few seconds only.
const PRODUCE_RATE_MIN: u64 = 2 << 20;

fn produce_rate(text: &str) -> Option<u64> {
    size(text).filter(|bytes| *bytes >= PRODUCE_RATE_MIN)
}

fn interval(text: &str) -> Option<Duration> {
    quantity::duration(text).ok().filter(|interval| !interval.is_zero())
}

fn fetch_path(text: &str) -> Option<FetchPath> {
    FetchPath::ALL.into_iter().find(|path| path.name() == text)
}

fn spin(text: &str) -> Option<Duration> {
    quantity::duration(text).ok().filter(|spin| *spin <= Duration::from_secs(1))
}

fn journal_bytes(text: &str) -> Option<u64> {
    let allowed = limits::JOURNAL_BYTES_MIN..=limits::JOURNAL_BYTES_MAX;
    size(text).filter(|bytes| allowed.contains(bytes) && bytes.is_multiple_of(4096))
}

/// One more than the highest port.
const PORTS: usize = 1 << 16;

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// A name or an address, by which others find this machine.
fn host(text: &str) -> Option<String> {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || "-._:".contains(character);
    let is_host = !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.chars().all(is_allowed);
    // A colon is an IPv6 address's, or would be a port's.
    (is_host && (!text.contains(':') || text.parse::<IpAddr>().is_ok())).then(|| text.to_owned())
}

/// The longest name of a host that DNS has.
const HOST_BYTES_MAX: usize = 253;

fn shards(text: &str) -> Option<usize> {
    text.parse().ok().filter(|shards| (1..=usize::from(limits::SHARDS_MAX)).contains(shards))
}

fn or_auto<T>(read: impl Fn(&str) -> Option<T>) -> impl Fn(&str) -> Option<Option<T>> {
    move |text| if text == AUTO { Some(None) } else { read(text).map(Some) }
}

fn or_off<T>(read: impl Fn(&str) -> Option<T>) -> impl Fn(&str) -> Option<Option<T>> {
    move |text| if text == OFF { Some(None) } else { read(text).map(Some) }
}

/// A name may stand for several addresses; the loopback one is taken where there is one, else the first.
fn address(text: &str) -> Option<SocketAddr> {
    let found: Vec<SocketAddr> = text.to_socket_addrs().ok()?.collect();
    let preferred = |a: &&SocketAddr| matches!(a.ip(), IpAddr::V4(ip) if ip.is_loopback());
    found.iter().find(preferred).or(found.first()).copied()
}
