//! `corelog topic`: create, list, describe, alter and delete topics.

use crate::failure::Failure;
use crate::server::{ServerArgs, failed};
use crate::table::Table;
use clap::{Args, Subcommand};
use corelog_client::{ClusterInfo, PartitionInfo, TopicChanges, TopicDescription, TopicFacts};
use serde_json::json;
use std::io::Write;

#[derive(Args)]
pub(crate) struct Topic {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a topic
    #[command(after_help = "Example:\n  corelog topic create clicks --partitions 8 --config retention.ms=86400000")]
    Create(Create),
    /// List all topics
    #[command(after_help = "Example:\n  corelog topic list --json")]
    List(List),
    /// Show a topic's settings and, for each partition, shard, port, offsets and bytes
    #[command(after_help = "Example:\n  corelog topic describe clicks")]
    Describe(Named),
    /// Change a topic's settings (all of them, or none where one is refused), or add partitions
    #[command(after_help = ALTER_EXAMPLES)]
    Alter(Alter),
    /// Delete a topic with all its records
    #[command(after_help = "Example:\n  corelog topic delete clicks")]
    Delete(Named),
}

const ALTER_EXAMPLES: &str = "\
Examples:
  corelog topic alter clicks --partitions 16
  corelog topic alter clicks --config durability=write --unset retention.ms";

#[derive(Args)]
struct Create {
    #[command(flatten)]
    named: Named,
    /// Number of partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// A setting, with Kafka's name where Kafka has it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    server: ServerArgs,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Named {
    /// Its name
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Alter {
    #[command(flatten)]
    named: Named,
    /// New number of partitions, more than now; settings are changed by another call
    #[arg(long, value_name = "N", conflicts_with_all = ["config", "unset"], value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// A setting to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A setting to put back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like retention.ms=86400000")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(topic: Topic) -> Result<(), Failure> {
    let shown = match topic.action {
        Action::Create(args) => create(&args)?,
        Action::List(args) => list(&args)?,
        Action::Describe(args) => describe(&args)?,
        Action::Alter(args) => alter(args)?,
        Action::Delete(args) => delete(&args)?,
    };
    let mut out = std::io::stdout().lock();
    out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

fn create(args: &Create) -> Result<String, Failure> {
    let settings: Vec<(&str, &str)> = args.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut admin = args.named.server.admin()?;
    let facts = admin.create_topic(&args.named.topic, args.partitions, &settings).map_err(failed)?;
    Ok(done("created", &args.named, facts))
}

fn alter(args: Alter) -> Result<String, Failure> {
    if args.partitions.is_none() && args.config.is_empty() && args.unset.is_empty() {
        return Err(Failure::usage("nothing to alter: give --partitions, --config or --unset"));
    }
    let changes = TopicChanges { partitions: args.partitions, set: args.config, reset: args.unset };
    let facts = args.named.server.admin()?.alter_topic(&args.named.topic, &changes).map_err(failed)?;
    Ok(done("altered", &args.named, facts))
}

fn delete(args: &Named) -> Result<String, Failure> {
    let facts = args.server.admin()?.delete_topic(&args.topic).map_err(failed)?;
    Ok(done("deleted", args, facts))
}

fn done(what: &str, named: &Named, facts: TopicFacts) -> String {
    let (name, partitions) = (&named.topic, facts.partitions);
    if named.json {
        return line_of(&json!({ "name": name, "id": facts.id.to_string(), "partitions": partitions }));
    }
    format!("{what} topic {name} with {partitions} partition{}\n", if partitions == 1 { "" } else { "s" })
}

fn list(args: &List) -> Result<String, Failure> {
    let topics = args.server.admin()?.topics().map_err(failed)?;
    if args.json {
        let topic = |t: &corelog_client::TopicInfo| json!({ "name": t.name, "id": t.id.to_string(), "partitions": t.owners.len() });
        return Ok(line_of(&topics.iter().map(topic).collect::<Vec<_>>().into()));
    }
    let mut table = Table::new(["TOPIC", "PARTITIONS", "ID"]);
    for topic in topics {
        table.row([topic.name, topic.owners.len().to_string(), topic.id.to_string()]);
    }
    Ok(table.text())
}

fn describe(args: &Named) -> Result<String, Failure> {
    let mut admin = args.server.admin()?;
    let topic = admin.describe_topic(&args.topic).map_err(failed)?;
    let cluster = admin.cluster().map_err(failed)?;
    Ok(if args.json { line_of(&json_of(&topic, &cluster)) } else { text_of(&topic, &cluster) })
}

fn port(cluster: &ClusterInfo, partition: &PartitionInfo) -> Option<u16> {
    let owner = cluster.endpoints.iter().find(|e| e.node == partition.node && e.shard == partition.shard);
    owner.map(|endpoint| endpoint.port)
}

/// What an operator has to know about a partition beyond its numbers.
fn note(partition: &PartitionInfo) -> Option<&str> {
    partition.fenced.as_deref().or(partition.trouble.as_deref())
}

fn text_of(topic: &TopicDescription, cluster: &ClusterInfo) -> String {
    let settings = topic.settings.iter().map(|setting| {
        let remark = if setting.set { "" } else { "  (default)" };
        format!("  {} = {}{remark}\n", setting.key, setting.value)
    });
    let mut table =
        Table::new(["PARTITION", "SHARD", "PORT", "FIRST", "NEXT", "BYTES", "SEGMENTS", "CROSSINGS", "NOTE"]);
    for partition in &topic.partitions {
        table.row([
            partition.partition.to_string(),
            partition.shard.to_string(),
            port(cluster, partition).map_or_else(|| "-".to_owned(), |port| port.to_string()),
            partition.first.to_string(),
            partition.next.to_string(),
            partition.bytes.to_string(),
            partition.segments.to_string(),
            partition.crossings.to_string(),
            note(partition).unwrap_or_default().to_owned(),
        ]);
    }
    format!("topic {}, id {}\n{}\n{}", topic.name, topic.id, settings.collect::<String>(), table.text())
}

fn json_of(topic: &TopicDescription, cluster: &ClusterInfo) -> serde_json::Value {
    let setting = |s: &corelog_client::SettingInfo| (s.key.clone(), json!({ "value": s.value, "default": !s.set }));
    let partition = |p: &PartitionInfo| {
        json!({
            "partition": p.partition,
            "node": p.node,
            "shard": p.shard,
            "port": port(cluster, p),
            "leader_epoch": p.leader_epoch,
            "first": p.first,
            "next": p.next,
            "high_watermark": p.high_watermark,
            "bytes": p.bytes,
            "segments": p.segments,
            "crossings": p.crossings,
            "fenced": p.fenced,
            "trouble": p.trouble,
        })
    };
    json!({
        "name": topic.name,
        "id": topic.id.to_string(),
        "settings": topic.settings.iter().map(setting).collect::<serde_json::Map<_, _>>(),
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn line_of(value: &serde_json::Value) -> String {
    format!("{value}\n")
}
