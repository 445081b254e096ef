//! Settings of the server: what each is, where its value came from, and what is wrong with it.
//!
//! In order: a flag, an environment variable, the settings file, the default. The file is TOML with the same names as
//! the flags, and nothing in it is ignored: a name that is none of ours is refused with the nearest one that is.

use crate::kafka_settings::{self, KafkaSettings};
use crate::quantity;
use corelog_engine::limits;
use corelog_engine::shard::FetchPath;
use corelog_tuning::CpuSet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

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

/// One setting: the row of a table that flags, file and `--print-config` share.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    /// How its value stands in TOML.
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    /// A number of bytes, or text with a unit.
    Size,
    Switch,
}

const TABLE: [Setting; 18] = [
    Setting { name: "data-dir", default: "./corelog-data", kind: Kind::Text },
    Setting { name: "listen", default: "127.0.0.1:7092", kind: Kind::Text },
    Setting { name: "shard-port", default: AUTO, kind: Kind::Number },
    Setting { name: "kafka-listen", default: "127.0.0.1:9092", kind: Kind::Text },
    Setting { name: "kafka-advertise", default: AUTO, kind: Kind::Text },
    Setting { name: "admin-listen", default: OFF, kind: Kind::Text },
    Setting { name: "smp", default: AUTO, kind: Kind::Number },
    Setting { name: "cpuset", default: AUTO, kind: Kind::Text },
    Setting { name: "memory", default: AUTO, kind: Kind::Size },
    Setting { name: "journal-bytes", default: "128MiB", kind: Kind::Size },
    Setting { name: "produce-rate-max", default: OFF, kind: Kind::Size },
    Setting { name: "disk-reserve", default: "512MiB", kind: Kind::Size },
    Setting { name: "retention-check-interval", default: "5m", kind: Kind::Text },
    Setting { name: "compaction-interval", default: "15s", kind: Kind::Text },
    Setting { name: "producer-expiration", default: "1d", kind: Kind::Text },
    Setting { name: "fetch-path", default: AUTO, kind: Kind::Text },
    Setting { name: "spin", default: "50us", kind: Kind::Text },
    Setting { name: "insecure", default: "false", kind: Kind::Switch },
];

/// All settings: those that are corelog's own, and those that have Kafka's names.
fn all() -> impl Iterator<Item = &'static Setting> {
    TABLE.iter().chain(&kafka_settings::TABLE)
}

/// The value of a setting that is left to the machine.
const AUTO: &str = "auto";

/// The value of a setting for something that is not done.
const OFF: &str = "off";

/// The values that `--set NAME=VALUE` gives, by name. The last one of a name wins.
pub(crate) fn parse_set(given: &[String]) -> Result<BTreeMap<&'static str, String>, SettingsError> {
    let one = |given: &String| {
        let (name, value) = given.split_once('=').ok_or_else(|| SettingsError::NoValue { given: given.clone() })?;
        let name = name.trim();
        if let Some(of_topic) = kafka_settings::setting_of_topics(name) {
            let source_of = Source::Flag("set");
            return Err(SettingsError::OfTopics { name: name.to_owned(), source_of, of_topic });
        }
        let unknown = || SettingsError::UnknownFlag { name: name.to_owned(), nearest: nearest(name) };
        let setting = all().find(|setting| setting.name == name).ok_or_else(unknown)?;
        Ok((setting.name, value.trim().to_owned()))
    };
    given.iter().map(one).collect()
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(&'static str),
    Environment(String),
    /// The file as it was named, and the line, from 1.
    File(String, usize),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) if TABLE.iter().any(|setting| setting.name == *name) => write!(f, "--{name}"),
            Source::Flag(_) => f.write_str("--set"),
            Source::Environment(name) => f.write_str(name),
            Source::File(file, line) => write!(f, "{file} line {line}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// What is wrong with the settings. The operator must change what the text names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the settings file {file}: {error}")]
    Unreadable { file: String, error: String },
    #[error("{file} line {line} is not TOML: {error}")]
    NotToml { file: String, line: usize, error: String },
    #[error("{file} line {line}: there is no setting `{name}`; did you mean `{nearest}`?")]
    Unknown { file: String, line: usize, name: String, nearest: &'static str },
    #[error("there is no setting `{name}` (--set); did you mean `{nearest}`?")]
    UnknownFlag { name: String, nearest: &'static str },
    #[error("--set {given}: it is NAME=VALUE, like num.partitions=3")]
    NoValue { given: String },
    #[error(
        "{name} ({source_of}) is not a setting of the server here: set `{of_topic}` of the topics that are to have it"
    )]
    OfTopics { name: String, source_of: Source, of_topic: &'static str },
    #[error("{name} = `{value}` ({source_of}) is not allowed: it must be {allowed}")]
    Value { name: &'static str, value: String, source_of: Source, allowed: String },
    #[error(
        "{name} = `{value}` ({source_of}) can be reached from other machines, and there is no authentication yet: listen on 127.0.0.1, or say --insecure"
    )]
    Reachable { name: &'static str, value: String, source_of: Source },
}

/// Every setting as text, with its source, before it is understood.
#[derive(Debug)]
pub(crate) struct Given(BTreeMap<&'static str, (String, Source)>);

impl Given {
    /// Gathers the settings. `flag` and `environment` answer for a name.
    pub(crate) fn gather(
        flag: impl Fn(&str) -> Option<String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<(&str, &str)>,
    ) -> Result<Given, SettingsError> {
        let mut from_file = file.map_or_else(|| Ok(BTreeMap::new()), |(name, text)| parse(name, text))?;
        let choose = |setting: &Setting| {
            let name = setting.name;
            let variable = variable(name);
            let by_flag = flag(name).map(|value| (value, Source::Flag(name)));
            let by_file = from_file.remove(name);
            let chosen = by_flag
                .or_else(|| Some((environment(&variable).filter(|v| !v.is_empty())?, Source::Environment(variable))))
                .or(by_file)
                .unwrap_or_else(|| (setting.default.to_owned(), Source::Default));
            (name, chosen)
        };
        Ok(Given(all().map(choose).collect()))
    }

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
                let (value, source_of) = self.0[name].clone();
                return Err(SettingsError::Reachable { name, value, source_of });
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

    /// The value of a setting, and whether nobody gave it.
    pub(crate) fn value(&self, name: &str) -> Option<(String, bool)> {
        self.0.get(name).map(|(value, source)| (value.clone(), *source == Source::Default))
    }

    pub(crate) fn read<T>(
        &self,
        name: &'static str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let (value, source_of) = &self.0[name];
        read(value).ok_or_else(|| SettingsError::Value {
            name,
            value: value.clone(),
            source_of: source_of.clone(),
            allowed: allowed.to_owned(),
        })
    }

    /// The settings in force as a settings file, with a remark where each came from. `chosen` gives the values that
    /// stand behind `auto`.
    pub(crate) fn print(&self, chosen: &[(&str, String)]) -> String {
        let assignments: Vec<(String, String)> = all().map(|setting| self.line(setting, chosen)).collect();
        let width = assignments.iter().map(|(assignment, _)| assignment.chars().count()).max().unwrap_or(0);
        assignments.iter().map(|(assignment, remark)| format!("{assignment:<width$}  # {remark}\n")).collect()
    }

    fn line(&self, setting: &Setting, chosen: &[(&str, String)]) -> (String, String) {
        let (given, source) = &self.0[setting.name];
        let choice = chosen.iter().find(|(name, _)| *name == setting.name && given == AUTO);
        let remark = if choice.is_some() { format!("{source}: {AUTO}") } else { source.to_string() };
        let value = choice.map_or(given, |(_, value)| value);
        let literal = match setting.kind {
            Kind::Number | Kind::Switch if value != AUTO => value.clone(),
            _ => toml::Value::from(value.as_str()).to_string(),
        };
        (format!("{} = {literal}", setting.name), remark)
    }
}

/// What other commands, the proofs, or this one beside its settings, take from the environment.
const OTHER_VARIABLES: [&str; 4] = ["CORELOG_BIN", "CORELOG_BOOTSTRAP", "CORELOG_CONFIG", "CORELOG_KAFKA_BOOTSTRAP"];
/// Letters by which a slip may differ from what was meant. More is likelier to be a variable of somebody else's.
const SLIPS_MAX: usize = 2;

/// `data-dir` is CORELOG_DATA_DIR in the environment, and `num.partitions` is CORELOG_NUM_PARTITIONS.
fn variable(name: &str) -> String {
    format!("CORELOG_{}", name.to_uppercase().replace(['-', '.'], "_"))
}

/// A sentence for each variable of the environment that is none of ours and looks like a slip of one.
pub(crate) fn remarks_on_variables(variables: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> =
        all().map(|setting| variable(setting.name)).chain(OTHER_VARIABLES.map(String::from)).collect();
    let remark = |given: String| {
        let slips = |known: &&String| strsim::damerau_levenshtein(known, &given);
        let nearest = known.iter().min_by_key(slips).filter(|known| (1..=SLIPS_MAX).contains(&slips(known)))?;
        Some(format!("{given} in the environment is no setting and has no effect; did you mean {nearest}?"))
    };
    variables.filter(|given| given.starts_with("CORELOG_")).filter_map(remark).collect()
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

type FromFile = BTreeMap<&'static str, (String, Source)>;

fn parse(file: &str, text: &str) -> Result<FromFile, SettingsError> {
    let table = DeTable::parse(text).map_err(|error| SettingsError::NotToml {
        file: file.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        error: error.message().to_owned(),
    })?;
    let mut leaves = Vec::new();
    flatten("", table.get_ref(), &mut leaves);
    let entry = |(name, at, value): &Leaf| {
        // What is no table is one value, as it stands there.
        let value = text[value.clone()].parse().unwrap_or_else(|_| toml::Value::from(&text[value.clone()]));
        entry(file, line_of(text, *at), name, &value)
    };
    leaves.iter().map(entry).collect()
}

/// A setting's name, where it stands, and where its value does.
type Leaf = (String, usize, Range<usize>);

/// Dots in a name are tables in TOML.
fn flatten(prefix: &str, table: &DeTable<'_>, leaves: &mut Vec<Leaf>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(&format!("{name}."), inner, leaves),
            _ => leaves.push((name, key.span().start, value.span())),
        }
    }
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count()
}

fn entry(
    file: &str,
    line: usize,
    name: &str,
    value: &toml::Value,
) -> Result<(&'static str, (String, Source)), SettingsError> {
    let source = Source::File(file.to_owned(), line);
    if let Some(of_topic) = kafka_settings::setting_of_topics(name) {
        return Err(SettingsError::OfTopics { name: name.to_owned(), source_of: source, of_topic });
    }
    let Some(setting) = all().find(|setting| setting.name == name) else {
        return Err(SettingsError::Unknown {
            file: file.to_owned(),
            line,
            name: name.to_owned(),
            nearest: nearest(name),
        });
    };
    let text = match (setting.kind, value) {
        (Kind::Text | Kind::Number | Kind::Size, toml::Value::String(text)) => text.clone(),
        (Kind::Number | Kind::Size, toml::Value::Integer(number)) => number.to_string(),
        (Kind::Switch, toml::Value::Boolean(on)) => on.to_string(),
        (kind, value) => {
            let allowed = match kind {
                Kind::Text => "text in quotes",
                Kind::Number => "a number",
                Kind::Size => "a number of bytes, or a size in quotes",
                Kind::Switch => "true or false, without quotes",
            };
            let (value, allowed) = (value.to_string(), allowed.to_owned());
            return Err(SettingsError::Value { name: setting.name, value, source_of: source, allowed });
        }
    };
    Ok((setting.name, (text, source)))
}

fn nearest(name: &str) -> &'static str {
    // Underscores for dashes are the likeliest slip and should not count as one.
    let name: String = name.chars().take(64).collect::<String>().to_lowercase().replace('_', "-");
    let distance = |setting: &&Setting| strsim::damerau_levenshtein(setting.name, &name);
    all().min_by_key(distance).map_or("", |setting| setting.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::shard::GroupSettings;

    fn gather(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Given, SettingsError> {
        let answer = |from: &[(&str, &str)], name: &str| {
            from.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Given::gather(|name| answer(flags, name), |name| answer(environment, name), Some(("corelog.toml", file)))
    }

    fn error(flags: &[(&str, &str)], file: &str) -> String {
        gather(flags, &[], file).and_then(|given| given.settings()).unwrap_err().to_string()
    }

    #[test]
    fn the_operations_page_has_every_setting() {
        let page = include_str!("../../docs/operations.md");
        for setting in all() {
            let row = format!("\n| `{}` | ", setting.name);
            assert!(page.contains(&row), "docs/operations.md lacks {}", setting.name);
        }
    }

    #[test]
    fn defaults() {
        let settings = gather(&[], &[], "").unwrap().settings().unwrap();
        let expected = Settings {
            data_dir: "./corelog-data".into(),
            listen: "127.0.0.1:7092".parse().unwrap(),
            shard_port: None,
            kafka_listen: Some("127.0.0.1:9092".parse().unwrap()),
            kafka_advertise: None,
            admin_listen: None,
            smp: None,
            cpuset: None,
            memory_bytes: None,
            journal_bytes: limits::JOURNAL_BYTES_DEFAULT,
            produce_rate_max: None,
            disk_reserve_bytes: 512 << 20,
            retention_check_interval: Duration::from_secs(300),
            compaction_interval: Duration::from_secs(15),
            producer_expiration: Duration::from_secs(86_400),
            fetch_path: None,
            spin: Duration::from_micros(50),
            insecure: false,
            kafka: KafkaSettings {
                creates_topics: true,
                partitions: 1,
                idle_time: Duration::from_secs(600),
                groups: GroupSettings::default(),
            },
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = "smp = 2\nmemory = \"1GiB\"\n\ndata-dir = \"/file\"\n";
        let environment = [("CORELOG_MEMORY", "2G"), ("CORELOG_DATA_DIR", "/environment"), ("CORELOG_LISTEN", "")];
        let given = gather(&[("data-dir", "/flag")], &environment, file).unwrap();
        let settings = given.settings().unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("/flag"));
        assert_eq!((settings.memory_bytes, settings.smp), (Some(2 << 30), Some(2)));
        let printed = given.print(&[("cpuset", "0-1".into())]);
        let expected = r#"
data-dir = "/flag"                       # --data-dir
listen = "127.0.0.1:7092"                # default
shard-port = "auto"                      # default
kafka-listen = "127.0.0.1:9092"          # default
kafka-advertise = "auto"                 # default
admin-listen = "off"                     # default
smp = 2                                  # corelog.toml line 1
cpuset = "0-1"                           # default: auto
memory = "2G"                            # CORELOG_MEMORY
journal-bytes = "128MiB"                 # default
produce-rate-max = "off"                 # default
disk-reserve = "512MiB"                  # default
retention-check-interval = "5m"          # default
compaction-interval = "15s"              # default
producer-expiration = "1d"               # default
fetch-path = "auto"                      # default
spin = "50us"                            # default
insecure = false                         # default
auto.create.topics.enable = true         # default
connections.max.idle.ms = 600000         # default
group.initial.rebalance.delay.ms = 3000  # default
group.max.session.timeout.ms = 1800000   # default
group.max.size = 10000                   # default
group.min.session.timeout.ms = 6000      # default
num.partitions = 1                       # default
offset.metadata.max.bytes = 4096         # default
offsets.retention.minutes = 10080        # default
offsets.topic.num.partitions = 50        # default
"#;
        assert_eq!(printed, expected.trim_start());
        let again = gather(&[], &[], &printed).unwrap().settings().unwrap();
        assert_eq!(again.data_dir, settings.data_dir, "what is printed is a settings file");
    }

    #[test]
    fn a_slip_in_the_environment_is_remarked_on() {
        let given = ["CORELOG_SMPP", "CORELOG_SMP", "CORELOG_BOOTSTRAP", "CORELOG_SEED", "CORELOGS_SMP", "HOME"];
        let remarks = remarks_on_variables(given.map(String::from).into_iter());
        assert_eq!(
            remarks,
            ["CORELOG_SMPP in the environment is no setting and has no effect; did you mean CORELOG_SMP?"]
        );
    }

    #[test]
    fn kafkas_names_are_settings_too() {
        let file = "smp = 1\ngroup.max.session.timeout.ms = 60_000\nnum.partitions = 3\n\n[group]\nmax.size = 7\n";
        let text = error(&[], file);
        assert!(text.starts_with("corelog.toml line 5 is not TOML: "), "a table cannot be opened twice: {text}");
        let file = file.replace("[group]\nmax.size", "group.max.size").replace("60_000", "60000");
        let environment = [("CORELOG_AUTO_CREATE_TOPICS_ENABLE", "false")];
        let given = gather(&[("offsets.retention.minutes", "2")], &environment, &file).unwrap();
        let kafka = given.settings().unwrap().kafka;
        assert!(!kafka.creates_topics);
        assert_eq!((kafka.partitions, kafka.groups.members_max), (3, 7));
        assert_eq!(kafka.groups.session_max, Duration::from_secs(60));
        assert_eq!(kafka.groups.offsets_retention, Duration::from_secs(120));
        let printed = given.print(&[]);
        for line in ["offsets.retention.minutes = 2 ", "group.max.size = 7 ", "auto.create.topics.enable = false "] {
            assert!(printed.contains(line), "{line}: {printed}");
        }
        assert_eq!(gather(&[], &[], &printed).unwrap().settings().unwrap().kafka, kafka);
        let shown = given.told(&given.settings().unwrap(), &corelog_net::limits::Limits::default()).shown;
        let told = |key: &str| shown.iter().find(|shown| shown.key == key).map(|s| (s.value.as_str(), s.is_default));
        assert_eq!(told("num.partitions"), Some(("3", false)));
        assert_eq!(told("group.min.session.timeout.ms"), Some(("6000", true)));
        assert_eq!(told("message.max.bytes"), Some(("1048588", true)));
        assert!(shown.is_sorted_by_key(|shown| shown.key));
    }

    #[test]
    fn a_wrong_value_of_kafkas_is_refused() {
        let refused = "(corelog.toml line 1) is not allowed: it must be";
        for (file, text) in [
            ("num.partitions = 0", format!("num.partitions = `0` {refused} a number from 1 to 10000")),
            ("auto.create.topics.enable = 1", format!("auto.create.topics.enable = `1` {refused} true or false, without quotes")),
            (
                "group.min.session.timeout.ms = 1800001",
                format!("group.min.session.timeout.ms = `1800001` {refused} at most 1800000, which is group.max.session.timeout.ms"),
            ),
            ("num.partition = 1", "corelog.toml line 1: there is no setting `num.partition`; did you mean `num.partitions`?".to_owned()),
            (
                "log.retention.ms = 1",
                "log.retention.ms (corelog.toml line 1) is not a setting of the server here: set `retention.ms` of the topics that are to have it".to_owned(),
            ),
            ("[group]", "corelog.toml line 1: there is no setting `group`; did you mean `smp`?".to_owned()),
        ] {
            assert_eq!(error(&[], file), text);
        }
        let set = |given: &str| parse_set(&[given.to_owned()]).map_err(|error| error.to_string());
        assert_eq!(set("num.partitions=3"), Ok([("num.partitions", "3".to_owned())].into()));
        assert_eq!(set("num.partitions").unwrap_err(), "--set num.partitions: it is NAME=VALUE, like num.partitions=3");
        assert_eq!(
            set("num.partition=3").unwrap_err(),
            "there is no setting `num.partition` (--set); did you mean `num.partitions`?"
        );
        assert!(
            set("log.segment.bytes=3")
                .unwrap_err()
                .contains("(--set) is not a setting of the server here: set `segment.bytes`")
        );
    }

    #[test]
    fn a_typo_names_the_nearest_setting() {
        for (typo, meant) in [("data_dir", "data-dir"), ("lisen", "listen"), ("CPUSET", "cpuset"), ("memroy", "memory")]
        {
            let text = error(&[], &format!("# mine\n{typo} = \"x\"\n"));
            assert_eq!(text, format!("corelog.toml line 2: there is no setting `{typo}`; did you mean `{meant}`?"));
        }
        assert!(error(&[], "[server]\nsmp = 2\n").contains("there is no setting `server.smp`"));
    }

    #[test]
    fn a_bad_value_names_setting_value_source_and_what_is_allowed() {
        let cases = [
            (
                "smp = 0",
                "smp = `0` (corelog.toml line 1) is not allowed: it must be auto or a number of shards from 1 to 256",
            ),
            ("smp = true", "smp = `true` (corelog.toml line 1) is not allowed: it must be a number"),
            (
                "insecure = \"yes\"",
                "insecure = `\"yes\"` (corelog.toml line 1) is not allowed: it must be true or false, without quotes",
            ),
            (
                "journal-bytes = 1024",
                "journal-bytes = `1024` (corelog.toml line 1) is not allowed: it must be a size from 32MiB to 64GiB in steps of 4096",
            ),
            (
                "retention-check-interval = \"0\"",
                "retention-check-interval = `0` (corelog.toml line 1) is not allowed: it must be a duration from 1ms, like 5m",
            ),
            (
                "produce-rate-max = \"1k\"",
                "produce-rate-max = `1k` (corelog.toml line 1) is not allowed: it must be off or a size from 2MiB, like 32MiB",
            ),
            (
                "fetch-path = \"sendfile\"",
                "fetch-path = `sendfile` (corelog.toml line 1) is not allowed: it must be auto, direct or splice",
            ),
            (
                "memory = false",
                "memory = `false` (corelog.toml line 1) is not allowed: it must be a number of bytes, or a size in quotes",
            ),
            (
                "shard-port = 65536",
                "shard-port = `65536` (corelog.toml line 1) is not allowed: it must be auto or a port from 1 to 65535",
            ),
            (
                "cpuset = \"3-1\"",
                "cpuset = `3-1` (corelog.toml line 1) is not allowed: it must be auto or a list of cores like 0-3,8",
            ),
        ];
        for (file, text) in cases {
            assert_eq!(error(&[], file), text);
        }
        let text = error(&[("listen", "7092")], "");
        assert_eq!(text, "listen = `7092` (--listen) is not allowed: it must be HOST:PORT, like 127.0.0.1:7092");
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_by_line() {
        for file in ["smp = 2\nlisten = ", "smp = 2\nsmp = 3\n"] {
            let text = error(&[], file);
            assert!(text.starts_with("corelog.toml line 2 is not TOML: "), "{text}");
        }
    }

    #[test]
    fn every_shard_needs_a_port_of_its_own() {
        let check = |shard_port: &str, shards| {
            let given = gather(&[("shard-port", shard_port)], &[], "").unwrap();
            given.check_ports(&given.settings().unwrap(), shards).map_err(|error| error.to_string())
        };
        for (shard_port, shards) in [("auto", 256), ("7093", 4), ("7091", 1), ("65532", 4), ("7088", 4)] {
            assert_eq!(check(shard_port, shards), Ok(()), "{shard_port}");
        }
        let refused = "is not allowed: it must be";
        let text = format!(
            "shard-port = `65533` (--shard-port) {refused} at most 65532, because shard N of 4 shards listens on that port + N"
        );
        assert_eq!(check("65533", 4), Err(text));
        let text = format!(
            "shard-port = `7090` (--shard-port) {refused} such that no shard has the port of listen: shard 2 would listen on 7092"
        );
        assert_eq!(check("7090", 4), Err(text));
        assert!(check("7092", 1).is_err() && check("7089", 4).is_err());
    }

    #[test]
    fn only_loopback_without_insecure() {
        let text = error(&[("listen", "0.0.0.0:7092")], "");
        assert!(text.starts_with("listen = `0.0.0.0:7092` (--listen) can be reached from other machines"), "{text}");
        let text = error(&[("admin-listen", "0.0.0.0:7093")], "");
        assert!(text.starts_with("admin-listen = `0.0.0.0:7093` (--admin-listen) can be reached"), "{text}");
        let open = gather(&[("listen", "0.0.0.0:7092"), ("insecure", "true")], &[], "").unwrap();
        assert!(open.settings().unwrap().insecure);
        for listen in ["127.0.0.1:0", "[::1]:7092", "localhost:7092"] {
            assert!(gather(&[("listen", listen)], &[], "").unwrap().settings().is_ok(), "{listen}");
        }
    }
}
