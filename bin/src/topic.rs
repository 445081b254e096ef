//! `corelog topic`: create, list, describe, alter and delete topics, and delete their records.

use crate::failure::{Failure, for_terminal};
use crate::quantity;
use crate::server::{ServerArgs, check_partitions, failed};
use crate::table::Table;
use clap::{Args, Subcommand};
use corelog_client::{ClusterInfo, PartitionInfo, TopicChanges, TopicDescription, TopicFacts};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Topic {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  corelog topic create clicks --partitions 8
  corelog topic list
  corelog topic describe clicks
  corelog topic alter clicks --config retention.ms=86400000
  corelog topic delete-records clicks --before end
  corelog topic delete clicks";

#[derive(Subcommand)]
enum Action {
    /// Create a topic
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// List all topics
    #[command(after_help = "Example:\n  corelog topic list --json")]
    List(List),
    /// Show a topic's settings and, for each partition, shard, port, offsets and bytes
    #[command(after_help = "Example:\n  corelog topic describe clicks")]
    Describe(Named),
    /// Change a topic's settings (all of them, or none where one is refused), and add partitions
    #[command(after_help = ALTER_EXAMPLES)]
    Alter(Alter),
    /// Delete a topic with all its records
    #[command(after_help = "Example:\n  corelog topic delete clicks")]
    Delete(Named),
    /// Delete a topic's oldest records, and show each partition's first offset after that
    #[command(after_help = DELETE_RECORDS_EXAMPLES)]
    DeleteRecords(DeleteRecords),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  corelog topic create clicks --partitions 8
  corelog topic create clicks --config retention.ms=86400000 --config durability=write

`corelog topic describe` shows every setting there is, with its value; docs/operations.md says what each means.";

const ALTER_EXAMPLES: &str = "\
Examples:
  corelog topic alter clicks --partitions 16
  corelog topic alter clicks --partitions 16 --config durability=write --unset retention.ms

Settings are changed first, partitions are added then: where the latter is refused, the settings stay changed.";

const DELETE_RECORDS_EXAMPLES: &str = "\
Examples:
  corelog topic delete-records clicks --before 4711 -p 3
  corelog topic delete-records clicks --before end

Readers do not see the records any more at once; disk space is freed by whole segments.";

#[derive(Args)]
struct Create {
    #[command(flatten)]
    named: Named,
    /// Number of partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = partitions(), allow_negative_numbers = true)]
    partitions: u32,
    /// A setting, with Kafka's name where Kafka has it; may be repeated [default: as `topic describe` shows]
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    server: ServerArgs,
    /// Show one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Named {
    /// The topic's name
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Show one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Alter {
    #[command(flatten)]
    named: Named,
    /// New number of partitions, more than now
    #[arg(long, value_name = "N", value_parser = partitions(), allow_negative_numbers = true)]
    partitions: Option<u32>,
    /// A setting to set; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A setting to put back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

#[derive(Args)]
struct DeleteRecords {
    #[command(flatten)]
    named: Named,
    /// Delete the records below this offset; `end` deletes all that readers can see now
    #[arg(long, value_name = "OFFSET", value_parser = before, allow_negative_numbers = true)]
    before: Before,
    /// Only of this partition; may be repeated [default: all]
    #[arg(short = 'p', long = "partition", value_name = "N", value_parser = quantity::partition, allow_negative_numbers = true)]
    partitions: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Offset(i64),
    /// The high watermark.
    End,
}

fn before(text: &str) -> Result<Before, String> {
    let offset = || text.parse().ok().filter(|offset| *offset >= 0).map(Before::Offset);
    if text == "end" { Some(Before::End) } else { offset() }.ok_or_else(|| "it must be an offset from 0, or end".into())
}

fn partitions() -> impl Fn(&str) -> Result<u32, String> + Clone {
    quantity::number(1.., "a number of partitions, from 1")
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("write it like retention.ms=86400000")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(topic: Topic) -> Result<(), Failure> {
    let shown = match topic.action {
        Action::Create(args) => create(&args)?,
        Action::List(args) => list(&args)?,
        Action::Describe(args) => describe(&args)?,
        Action::Alter(args) => alter(args)?,
        Action::Delete(args) => delete(&args)?,
        Action::DeleteRecords(args) => delete_records(&args)?,
    };
    let mut out = std::io::stdout().lock();
    out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// A setting that is named twice: only one of the two could be meant.
fn check_once<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    match keys.into_iter().find(|key| !seen.insert(*key)) {
        Some(twice) => {
            Err(Failure::Usage(format!("{twice} is given more than once; give it one value, or --unset it")))
        }
        None => Ok(()),
    }
}

fn create(args: &Create) -> Result<String, Failure> {
    check_once(args.config.iter().map(|(key, _)| key.as_str()))?;
    let settings: Vec<(&str, &str)> = args.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut admin = args.named.server.admin()?;
    let facts = admin.create_topic(&args.named.topic, args.partitions, &settings).map_err(failed)?;
    Ok(done("created", &args.named, facts))
}

fn alter(args: Alter) -> Result<String, Failure> {
    let Alter { named, partitions, config: set, unset: reset } = args;
    check_once(set.iter().map(|(key, _)| key).chain(&reset).map(String::as_str))?;
    let settings = TopicChanges { partitions: None, set, reset };
    let more = TopicChanges { partitions, ..TopicChanges::default() };
    // The server changes both by two requests. Partitions cannot be taken back, so they come last.
    let changes = [settings, more].into_iter().filter(|changes| *changes != TopicChanges::default());
    let changes: Vec<TopicChanges> = changes.collect();
    let Some((first, rest)) = changes.split_first() else {
        return Err(Failure::usage("nothing to alter: give --partitions, --config or --unset"));
    };
    let mut admin = named.server.admin()?;
    let mut facts = admin.alter_topic(&named.topic, first).map_err(failed)?;
    for more in rest {
        let partly = |error| Failure::Failed(format!("{}; the settings were changed before that", failed(error)));
        facts = admin.alter_topic(&named.topic, more).map_err(partly)?;
    }
    Ok(done("altered", &named, facts))
}

fn delete(args: &Named) -> Result<String, Failure> {
    let facts = args.server.admin()?.delete_topic(&args.topic).map_err(failed)?;
    Ok(done("deleted", args, facts))
}

fn delete_records(args: &DeleteRecords) -> Result<String, Failure> {
    let Named { topic, server, json } = &args.named;
    let mut admin = server.admin()?;
    let there = admin.describe_topic(topic).map_err(failed)?.partitions;
    check_partitions(topic, &args.partitions, there.len() as u32)?;
    let wanted = |p: &&PartitionInfo| args.partitions.is_empty() || args.partitions.contains(&p.partition);
    let chosen: Vec<&PartitionInfo> = there.iter().filter(wanted).collect();
    check_before(args.before, &chosen)?;
    let before = if let Before::Offset(offset) = args.before { offset } else { -1 };
    let mut firsts = Vec::with_capacity(chosen.len());
    for PartitionInfo { partition, .. } in chosen {
        let first = admin.delete_records(topic, *partition, before).map_err(|error| {
            let done = firsts.len();
            Failure::Failed(format!("partition {partition}: {error}; {done} partitions before it were done"))
        })?;
        firsts.push((*partition, first));
    }
    Ok(if *json { json_of_firsts(topic, &firsts) } else { text_of_firsts(&firsts) })
}

/// That no partition would be asked for more than it has: where one cannot, none should be begun with.
fn check_before(before: Before, chosen: &[&PartitionInfo]) -> Result<(), Failure> {
    let Before::Offset(offset) = before else { return Ok(()) };
    match chosen.iter().find(|p| p.trouble.is_none() && p.high_watermark < offset) {
        Some(PartitionInfo { partition, first, high_watermark, .. }) => Err(Failure::Failed(format!(
            "partition {partition} holds offsets {first} up to {high_watermark}, so that --before {offset} is beyond \
             its end; nothing was deleted"
        ))),
        None => Ok(()),
    }
}

fn text_of_firsts(firsts: &[(u32, i64)]) -> String {
    let mut table = Table::new(["PARTITION", "FIRST"]);
    for (partition, first) in firsts {
        table.row([partition.to_string(), first.to_string()]);
    }
    table.text()
}

fn json_of_firsts(topic: &str, firsts: &[(u32, i64)]) -> String {
    let partitions: Vec<_> =
        firsts.iter().map(|(partition, first)| json!({ "partition": partition, "first": first })).collect();
    line_of(&json!({ "name": topic, "partitions": partitions }))
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
    let facts = format!("topic {}, id {}\n{}", topic.name, topic.id, settings.collect::<String>());
    format!("{}\n{}", for_terminal(&facts), table.text())
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
