//! `corelog serve`: reads the settings, chooses the cores, and runs the node.

use crate::failure::Failure;
use crate::settings::{Given, Settings, SettingsError, parse_set, remarks_on_variables};
use crate::table::Table;
use crate::{node, quantity, tune};
use clap::Args;
use corelog_engine::limits::{self, Limit, MemoryBudget};
use corelog_engine::rlimits::{Remark, Rlimits};
use corelog_engine::shard::FetchPath;
use corelog_net::limits::Limits as NetLimits;
use corelog_tuning::{Check, CpuSet, DataDir, Host, ShardPlan, Verdict, checks, disk_interrupts, plan};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// Settings file (TOML, same names as the flags) [default: none]
    #[arg(long, value_name = "FILE", env = "CORELOG_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Where the log lies [default: ./corelog-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address that clients are told; port 0 has the kernel choose. Shards listen on ports of their own beside it
    /// [default: 127.0.0.1:7092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Shard N listens on PORT + N [default: the kernel chooses]
    #[arg(long, value_name = "PORT")]
    shard_port: Option<String>,
    /// Speak Kafka's protocol at this address, with shard N on PORT + 1 + N, or off [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    kafka_listen: Option<String>,
    /// Host that Kafka's clients are told to reach this machine by [default: that of --kafka-listen]
    #[arg(long, value_name = "HOST")]
    kafka_advertise: Option<String>,
    /// Serve /metrics for Prometheus over HTTP at this address, or off [default: off]
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    /// Number of shards, one a core, at most 256 [default: one on every core this process may use]
    #[arg(long, value_name = "N")]
    smp: Option<String>,
    /// Cores the shards may have, like 0-3,8 [default: all this process may use]
    #[arg(long, value_name = "LIST")]
    cpuset: Option<String>,
    /// Memory the server may use, like 512MiB or 4G [default: a quarter of the machine's, at most 1GiB a shard]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Size of each shard's journal, from 32MiB to 64GiB [default: 128MiB]
    #[arg(long, value_name = "SIZE")]
    journal_bytes: Option<String>,
    /// Bytes that one connection may produce in a second, from 2MiB: it is not read from while it is ahead of that
    /// [default: off]
    #[arg(long, value_name = "SIZE")]
    produce_rate_max: Option<String>,
    /// Free disk space below which producers are refused [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    disk_reserve: Option<String>,
    /// How often retention is looked at [default: 5m]
    #[arg(long, value_name = "DURATION")]
    retention_check_interval: Option<String>,
    /// How often it is looked for topics that are to be compacted [default: 15s]
    #[arg(long, value_name = "DURATION")]
    compaction_interval: Option<String>,
    /// How long a producer that numbers its batches is remembered after its last one [default: 1d]
    #[arg(long, value_name = "DURATION")]
    producer_expiration: Option<String>,
    /// How what is no longer in memory gets to readers: auto, direct (read past the page cache, checked, sent) or splice
    /// (sent from the page cache by the kernel) [default: auto]
    #[arg(long, value_name = "PATH")]
    fetch_path: Option<String>,
    /// How long a shard without work looks for more before it sleeps, at most 1s [default: 50us]
    #[arg(long, value_name = "DURATION")]
    spin: Option<String>,
    /// Let other machines connect although there is no authentication yet
    #[arg(long)]
    insecure: bool,
    /// Give a setting that has no flag, under Kafka's name: auto.create.topics.enable=false, num.partitions=3, ... (may be
    /// repeated; --print-config shows all)
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Show every setting in force and where it came from, and end
    #[arg(long)]
    print_config: bool,
    /// Show every bound of the server and what happens past it, and end
    #[arg(long)]
    print_limits: bool,
}

const EXAMPLES: &str = "\
Examples:
  corelog serve
  corelog serve --data-dir /var/lib/corelog --smp 4 --memory 2G
  corelog serve --listen 127.0.0.1:7092 --shard-port 7100
  corelog serve --kafka-listen 0.0.0.0:9092 --kafka-advertise log.example.com --insecure
  corelog serve --admin-listen 127.0.0.1:7093
  corelog serve --config corelog.toml --print-config

SIZE is a number of bytes, or one with K, M, G or T (or KiB and so on): units are powers of 1024.
DURATION is a number with us, ms, s, m, h or d.
Every setting may also stand in the environment (CORELOG_DATA_DIR, CORELOG_SMP, ...) or in the settings file.
A flag wins over the environment, that over the file, and that over the default.";

impl Serve {
    fn flag(&self, name: &str) -> Option<String> {
        match name {
            "data-dir" => self.data_dir.clone(),
            "listen" => self.listen.clone(),
            "shard-port" => self.shard_port.clone(),
            "kafka-listen" => self.kafka_listen.clone(),
            "kafka-advertise" => self.kafka_advertise.clone(),
            "admin-listen" => self.admin_listen.clone(),
            "smp" => self.smp.clone(),
            "cpuset" => self.cpuset.clone(),
            "memory" => self.memory.clone(),
            "journal-bytes" => self.journal_bytes.clone(),
            "produce-rate-max" => self.produce_rate_max.clone(),
            "disk-reserve" => self.disk_reserve.clone(),
            "retention-check-interval" => self.retention_check_interval.clone(),
            "compaction-interval" => self.compaction_interval.clone(),
            "producer-expiration" => self.producer_expiration.clone(),
            "fetch-path" => self.fetch_path.clone(),
            "spin" => self.spin.clone(),
            "insecure" => self.insecure.then(|| "true".to_owned()),
            _ => None,
        }
    }

    fn gather(&self) -> Result<Given, SettingsError> {
        let file = self.config.as_ref().map(|path| {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path);
            text.map_err(|error| SettingsError::Unreadable { file: name.clone(), error: error.to_string() })
                .map(|text| (name, text))
        });
        let file = file.transpose()?;
        let named = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let set = parse_set(&self.set)?;
        Given::gather(
            |name| self.flag(name).or_else(|| set.get(name).cloned()),
            |variable| std::env::var(variable).ok(),
            named,
        )
    }
}

pub(crate) fn run(args: Serve) -> Result<(), Failure> {
    let given = args.gather().map_err(Failure::usage)?;
    let settings = given.settings().map_err(Failure::usage)?;
    for remark in remarks_on_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        eprintln!("corelog: {remark}");
    }
    let host = Host::this();
    let data_dir = DataDir::look(&settings.data_dir).map_err(Failure::failed)?;
    let interrupts = disk_interrupts(&host, &data_dir.path);
    let plan = plan(&host, settings.smp, settings.cpuset.as_ref(), &interrupts).map_err(Failure::usage)?;
    // The plan has at most 256 shards.
    let count = plan.shards.len() as u16;
    given.check_ports(&settings, count).map_err(Failure::usage)?;
    let memory_bytes = settings.memory_bytes.unwrap_or_else(|| tune::default_memory(&host, count));
    let budget = MemoryBudget::plan(memory_bytes, count).map_err(Failure::usage)?;
    let rlimits = Rlimits::raised();
    rlimits.check(count).map_err(Failure::failed)?;
    if args.print_limits {
        return print(&limits_text(&settings, &budget, rlimits));
    }
    if args.print_config {
        return print(&given.print(&in_force(&plan, memory_bytes)));
    }
    let mut remarks = remarks(&checks(&host, &data_dir, memory_bytes), &plan)?;
    remarks.extend(rlimits.remarks(count).iter().map(Remark::to_string));
    let told = given.told(&settings, &NetLimits::default());
    node::run(&settings, told, &plan, &budget, &remarks)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
}

/// What stands behind the settings that are left to the machine.
fn in_force(plan: &ShardPlan, memory_bytes: u64) -> [(&'static str, String); 4] {
    let cores = CpuSet::from_iter(plan.shards.iter().copied());
    [
        ("smp", plan.shards.len().to_string()),
        ("cpuset", cores.to_string()),
        ("memory", quantity::exact_size(memory_bytes)),
        ("fetch-path", FetchPath::default().name().to_owned()),
    ]
}

fn limits_text(settings: &Settings, budget: &MemoryBudget, rlimits: Rlimits) -> String {
    let mut table = Table::new(["BOUND", "VALUE", "PAST IT"]);
    let files = rlimits.segment_files_max(budget.shards) as u64;
    let engines = limits::LIMITS.map(|limit| match limit.name {
        limits::SEGMENT_FILES => Limit { value: files, ..limit },
        _ => limit,
    });
    let net = node::limits(settings, &budget.pool, rlimits.connections_max(budget.shards));
    for limit in engines.iter().chain(&net.table()) {
        table.row([limit.name.to_owned(), limit.to_string(), limit.past.to_owned()]);
    }
    table.text()
}

/// What the operator should know about this machine at the start. What makes a start impossible is an error.
fn remarks(checks: &[Check], plan: &ShardPlan) -> Result<Vec<String>, Failure> {
    let sentence = |check: &Check| format!("{}: {}: {}", check.name, check.found, check.what_to_do);
    if let Some(check) = checks.iter().find(|check| check.verdict == Verdict::Cannot) {
        return Err(Failure::Failed(sentence(check)));
    }
    let warnings = checks.iter().filter(|check| check.verdict == Verdict::Warning).map(sentence);
    Ok(warnings.chain((!plan.warning.is_empty()).then(|| plan.warning.clone())).collect())
}
