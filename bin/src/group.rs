//! `corelog group`: consumer groups, how far they have come, and how far they lag behind. It speaks Kafka's protocol, so that
//! offsets can be taken from a cluster of Kafka's brokers to corelog, and back.

use crate::failure::{Failure, for_terminal};
use crate::quantity;
use crate::table::Table;
use crate::when::{self, From};
use clap::{Args, Subcommand};
use corelog_kafka_client::{Bound, Committed, Description, Groups, KafkaError, Partition};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Group {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  corelog group list
  corelog group describe readers
  corelog group reset-offsets readers --to beginning --topic clicks --dry-run
  corelog group export readers > offsets.csv
  corelog group import offsets.csv
  corelog group delete readers

These commands speak Kafka's protocol: give -b the address of `serve --kafka-listen`, or of any broker of Kafka's.";

#[derive(Subcommand)]
enum Action {
    /// List all groups
    #[command(after_help = "Example:\n  corelog group list --json")]
    List(List),
    /// Show how far a group has come in each partition, how far it lags behind, and who reads it
    #[command(after_help = "Example:\n  corelog group describe readers")]
    Describe(Named),
    /// Delete groups without members, and their offsets
    #[command(after_help = "Example:\n  corelog group delete readers")]
    Delete(Delete),
    /// Set how far a group without members has come
    #[command(after_help = RESET_EXAMPLES)]
    ResetOffsets(Reset),
    /// Write how far groups have come as lines `group,topic,partition,offset`
    #[command(after_help = "Examples:\n  corelog group export > all.csv\n  corelog group export readers writers")]
    Export(Export),
    /// Set how far groups without members have come, from lines that `export` wrote
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Import),
}

const RESET_EXAMPLES: &str = "\
Examples:
  corelog group reset-offsets readers --to beginning
  corelog group reset-offsets readers --to 2026-01-31T12:00:00Z --topic clicks
  corelog group reset-offsets readers --shift -1000 --topic clicks:0,3 --dry-run

An offset outside a partition's log becomes its first, or its end.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  corelog group import offsets.csv --dry-run
  corelog group export -b kafka.example.com:9092 | corelog group import";

#[derive(Args)]
struct KafkaArgs {
    /// A broker, as `serve` says where Kafka's protocol is spoken; several are separated by commas
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        env = "CORELOG_KAFKA_BOOTSTRAP",
        hide_env_values = true
    )]
    bootstrap: String,
}

impl KafkaArgs {
    fn groups(&self) -> Result<Groups, Failure> {
        let client_id = concat!("corelog ", env!("CARGO_PKG_VERSION"));
        Groups::connect(&self.bootstrap, client_id).map_err(failed)
    }
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    server: KafkaArgs,
    /// Show one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Named {
    /// The group's name
    #[arg(value_name = "GROUP")]
    group: String,
    #[command(flatten)]
    server: KafkaArgs,
    /// Show one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Delete {
    /// The groups' names
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    server: KafkaArgs,
}

#[derive(Args)]
struct Reset {
    #[command(flatten)]
    named: Named,
    /// Where to: beginning, end, an offset, a time like 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970
    #[arg(long, value_name = "PLACE", value_parser = when::from, allow_hyphen_values = true)]
    #[arg(required_unless_present = "shift", conflicts_with = "shift")]
    to: Option<From>,
    /// Records ahead, or back if it is negative, of where the group is
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift: Option<i64>,
    /// Only in this topic, or in these partitions of it; may be repeated [default: where the group has been]
    #[arg(long = "topic", value_name = "TOPIC[:P,P...]", value_parser = scope)]
    topics: Vec<Scope>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Export {
    /// The groups' names [default: all]
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    server: KafkaArgs,
}

#[derive(Args)]
struct Import {
    /// The file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    server: KafkaArgs,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// A topic, or some partitions of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    topic: String,
    partitions: Vec<i32>,
}

fn scope(text: &str) -> Result<Scope, String> {
    let (topic, partitions) = text.split_once(':').map_or((text, None), |(topic, rest)| (topic, Some(rest)));
    if topic.is_empty() {
        return Err("write it like clicks, or clicks:0,3".to_owned());
    }
    let index = |text: &str| quantity::partition(text.trim()).map(|partition| partition as i32);
    let partitions = partitions.map(|list| list.split(',').map(index).collect()).transpose()?;
    Ok(Scope { topic: topic.to_owned(), partitions: partitions.unwrap_or_default() })
}

pub(crate) fn run(group: Group) -> Result<(), Failure> {
    let shown = match group.action {
        Action::List(args) => list(&args)?,
        Action::Describe(args) => describe(&args)?,
        Action::Delete(args) => delete(&args)?,
        Action::ResetOffsets(args) => reset(&args)?,
        Action::Export(args) => export(&args)?,
        Action::Import(args) => import(&args)?,
    };
    let mut out = std::io::stdout().lock();
    out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

fn failed(error: KafkaError) -> Failure {
    match error {
        KafkaError::Unreachable { .. } => {
            Failure::Failed(format!("{error}; is `corelog serve` speaking Kafka's protocol there (--kafka-listen)?"))
        }
        _ => Failure::failed(error),
    }
}

fn list(args: &List) -> Result<String, Failure> {
    let groups = args.server.groups()?.list().map_err(failed)?;
    if args.json {
        let group = |g: &corelog_kafka_client::Listed| json!({ "group": g.group, "state": g.state, "protocol_type": g.protocol_type });
        return Ok(format!("{}\n", serde_json::Value::from(groups.iter().map(group).collect::<Vec<_>>())));
    }
    let mut table = Table::new(["GROUP", "STATE", "PROTOCOL"]);
    for group in groups {
        table.row([group.group, group.state, group.protocol_type]);
    }
    Ok(table.text())
}

/// What is known of a group in one partition.
struct Row<'a> {
    partition: &'a Partition,
    committed: Option<&'a Committed>,
    end: Option<i64>,
    reader: Option<&'a corelog_kafka_client::Member>,
}

impl Row<'_> {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?.offset).max(0))
    }
}

fn describe(args: &Named) -> Result<String, Failure> {
    let mut groups = args.server.groups()?;
    let about = groups.describe(&args.group).map_err(failed)?;
    let committed = groups.committed(&args.group).map_err(failed)?;
    if about.state == DEAD && committed.is_empty() {
        return Err(no_group(&args.group));
    }
    let read = about.members.iter().flat_map(|member| &member.partitions);
    let all: BTreeSet<&Partition> = committed.keys().chain(read).collect();
    let wanted: Vec<Partition> = all.iter().copied().cloned().collect();
    let ends = groups.offsets(&wanted, Bound::End).map_err(failed)?;
    let row = |partition| Row {
        partition,
        committed: committed.get(partition),
        end: ends.get(partition).copied(),
        reader: about.members.iter().find(|member| member.partitions.contains(partition)),
    };
    let rows: Vec<Row<'_>> = all.into_iter().map(row).collect();
    Ok(if args.json { json_of(&args.group, &about, &rows) } else { text_of(&args.group, &about, &rows) })
}

/// What a coordinator calls a group that it does not know.
const DEAD: &str = "Dead";
/// And one without members.
const EMPTY: &str = "Empty";

fn no_group(group: &str) -> Failure {
    Failure::Failed(format!("there is no group {group}; `corelog group list` shows what there is"))
}

fn text_of(group: &str, about: &Description, rows: &[Row<'_>]) -> String {
    let or_dash = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"]);
    for row in rows {
        let reader = |of: fn(&corelog_kafka_client::Member) -> &str| row.reader.map_or("-", of).to_owned();
        table.row([
            row.partition.0.clone(),
            row.partition.1.to_string(),
            or_dash(row.committed.map(|committed| committed.offset)),
            or_dash(row.end),
            or_dash(row.lag()),
            reader(|member| &member.id),
            reader(|member| &member.client_id),
            reader(|member| &member.host),
        ]);
    }
    let Description { state, assignor, coordinator, members } = about;
    let assignor = if assignor.is_empty() { String::new() } else { format!(", assignor {assignor}") };
    let facts = format!("group {group}: {state}, {} members{assignor}, coordinated by {coordinator}\n", members.len());
    format!("{}\n{}", for_terminal(&facts), table.text())
}

fn json_of(group: &str, about: &Description, rows: &[Row<'_>]) -> String {
    let row = |row: &Row<'_>| {
        json!({
            "topic": row.partition.0,
            "partition": row.partition.1,
            "committed": row.committed.map(|committed| committed.offset),
            "metadata": row.committed.map(|committed| &committed.metadata),
            "end": row.end,
            "lag": row.lag(),
            "member": row.reader.map(|member| &member.id),
        })
    };
    let member = |member: &corelog_kafka_client::Member| {
        json!({
            "member": member.id,
            "instance": member.instance,
            "client": member.client_id,
            "host": member.host,
            "partitions": member.partitions.len(),
        })
    };
    let shown = json!({
        "group": group,
        "state": about.state,
        "assignor": about.assignor,
        "coordinator": about.coordinator,
        "members": about.members.iter().map(member).collect::<Vec<_>>(),
        "offsets": rows.iter().map(row).collect::<Vec<_>>(),
    });
    format!("{shown}\n")
}

fn delete(args: &Delete) -> Result<String, Failure> {
    let mut groups = args.server.groups()?;
    let (mut shown, mut refused) = (String::new(), String::new());
    for group in &args.groups {
        match groups.delete(group) {
            Ok(()) => shown.push_str(&for_terminal(&format!("deleted group {group}\n"))),
            Err(error) => refused.push_str(&format!("{}\n", failed(error))),
        }
    }
    match refused.trim_end() {
        "" => Ok(shown),
        refused => Err(Failure::Failed(format!("{shown}{refused}"))),
    }
}

/// New offsets of a group, beside those that it had.
struct Change {
    group: String,
    before: BTreeMap<Partition, Committed>,
    after: BTreeMap<Partition, i64>,
}

fn reset(args: &Reset) -> Result<String, Failure> {
    let Named { group, server, json } = &args.named;
    let mut groups = server.groups()?;
    check_empty(&mut groups, group)?;
    let before = groups.committed(group).map_err(failed)?;
    let wanted = in_scope(&mut groups, &args.topics, &before)?;
    if wanted.is_empty() {
        return Err(Failure::Failed(format!("group {group} has no offsets yet: say for which topic by --topic")));
    }
    let first = groups.offsets(&wanted, Bound::Beginning).map_err(failed)?;
    let end = groups.offsets(&wanted, Bound::End).map_err(failed)?;
    let mut after = match (args.to, args.shift) {
        (Some(From::Beginning), _) => first.clone(),
        (Some(From::Time(time)), _) => groups.offsets(&wanted, Bound::Time(time)).map_err(failed)?,
        (Some(From::Offset(offset)), _) => end.keys().map(|partition| (partition.clone(), offset)).collect(),
        (_, Some(shift)) => {
            let shifted = |(partition, was): (&Partition, &Committed)| {
                Some((partition.clone(), was.offset.saturating_add(shift))).filter(|(moved, _)| end.contains_key(moved))
            };
            before.iter().filter(|(partition, _)| wanted.contains(partition)).filter_map(shifted).collect()
        }
        _ => end.clone(),
    };
    for (partition, offset) in &mut after {
        let bounds = first.get(partition).zip(end.get(partition));
        *offset = bounds.map_or(*offset, |(first, end)| (*offset).clamp(*first, (*end).max(*first)));
    }
    let change = Change { group: group.clone(), before, after };
    carry_out(&mut groups, &[change], args.dry_run, *json)
}

fn check_empty(groups: &mut Groups, group: &str) -> Result<(), Failure> {
    let about = groups.describe(group).map_err(failed)?;
    match about.members.len() {
        0 if about.state == EMPTY || about.state == DEAD => Ok(()),
        members => {
            let why = format!("group {group} is {} with {members} members: stop them first", about.state);
            Err(Failure::Failed(why))
        }
    }
}

/// The partitions that are meant: of the topics that are named, or else those where the group has been.
fn in_scope(
    groups: &mut Groups,
    topics: &[Scope],
    before: &BTreeMap<Partition, Committed>,
) -> Result<Vec<Partition>, Failure> {
    if topics.is_empty() {
        return Ok(before.keys().cloned().collect());
    }
    let mut wanted = BTreeSet::new();
    for Scope { topic, partitions } in topics {
        let there = groups.partitions(topic).map_err(failed)?;
        if let Some(missing) = partitions.iter().find(|index| there.iter().all(|(_, known)| known != *index)) {
            let count = there.len();
            let why = format!("topic {topic} has no partition {missing}: it has {count}, numbered from 0");
            return Err(Failure::Failed(why));
        }
        wanted.extend(there.into_iter().filter(|(_, index)| partitions.is_empty() || partitions.contains(index)));
    }
    Ok(wanted.into_iter().collect())
}

/// Shows changes, and does them unless they are only to be shown.
fn carry_out(groups: &mut Groups, changes: &[Change], dry_run: bool, json: bool) -> Result<String, Failure> {
    if !dry_run {
        for Change { group, after, .. } in changes {
            groups.commit(group, after).map_err(failed)?;
        }
    }
    let mut table = Table::new(["GROUP", "TOPIC", "PARTITION", "BEFORE", "AFTER"]);
    let mut rows = Vec::new();
    for Change { group, before, after } in changes {
        for ((topic, partition), offset) in after {
            let was = before.get(&(topic.clone(), *partition)).map(|was| was.offset);
            let shown = was.map_or_else(|| "-".to_owned(), |was| was.to_string());
            table.row([group.clone(), topic.clone(), partition.to_string(), shown, offset.to_string()]);
            rows.push(json!({
                "group": group, "topic": topic, "partition": partition, "before": was, "after": offset,
            }));
        }
    }
    if json {
        return Ok(format!("{}\n", json!({ "done": !dry_run, "offsets": rows })));
    }
    let remark = if dry_run { "nothing was changed (--dry-run)\n" } else { "" };
    Ok(format!("{}{remark}", table.text()))
}

fn export(args: &Export) -> Result<String, Failure> {
    let mut groups = args.server.groups()?;
    let names = match args.groups.is_empty() {
        true => groups.list().map_err(failed)?.into_iter().map(|listed| listed.group).collect(),
        false => args.groups.clone(),
    };
    let mut lines = String::new();
    for group in names {
        for ((topic, partition), committed) in groups.committed(&group).map_err(failed)? {
            lines.push_str(&format!("{},{topic},{partition},{}\n", quoted(&group), committed.offset));
        }
    }
    Ok(lines)
}

fn import(args: &Import) -> Result<String, Failure> {
    let name = args.file.display().to_string();
    let text = match name.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(&args.file),
    };
    let text = text.map_err(|error| Failure::Failed(format!("cannot read {name}: {error}")))?;
    let wanted = parse(&text).map_err(|why| Failure::Usage(format!("{name} {why}")))?;
    let mut groups = args.server.groups()?;
    let mut changes = Vec::new();
    for (group, after) in wanted {
        check_empty(&mut groups, &group)?;
        let partitions: Vec<Partition> = after.keys().cloned().collect();
        let there = groups.offsets(&partitions, Bound::Beginning).map_err(failed)?;
        if let Some((topic, index)) = partitions.iter().find(|partition| !there.contains_key(*partition)) {
            let why = format!("there is no partition {index} of topic {topic}; nothing was changed");
            return Err(Failure::Failed(why));
        }
        let before = groups.committed(&group).map_err(failed)?;
        changes.push(Change { group, before, after });
    }
    carry_out(&mut groups, &changes, args.dry_run, false)
}

/// A name in a line: in quotes where it has a comma, a quote or the end of a line.
fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

/// Offsets of groups, from lines of `group,topic,partition,offset`. Only a group's name can have quotes.
fn parse(text: &str) -> Result<BTreeMap<String, BTreeMap<Partition, i64>>, String> {
    let mut groups: BTreeMap<String, BTreeMap<Partition, i64>> = BTreeMap::new();
    let (mut rest, mut line) = (text, 0);
    while !rest.trim_start_matches(['\r', '\n']).is_empty() {
        line += 1;
        let wrong = || format!("line {line} is not group,topic,partition,offset");
        let (group, behind) = take_name(rest).ok_or_else(wrong)?;
        let (fields, next) = behind.split_once('\n').unwrap_or((behind, ""));
        let fields: Vec<&str> = fields.trim_end().split(',').map(|field| field.trim().trim_matches('"')).collect();
        let [topic, partition, offset] = fields[..] else { return Err(wrong()) };
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let partition = number(partition).and_then(|index| i32::try_from(index).ok()).ok_or_else(wrong)?;
        let offset = number(offset).ok_or_else(wrong)?;
        let known = groups.entry(group).or_default().insert((topic.to_owned(), partition), offset);
        if topic.is_empty() || known.is_some() {
            return Err(if known.is_some() { format!("line {line} names a partition again") } else { wrong() });
        }
        rest = next;
    }
    Ok(groups)
}

/// A name in front of a comma, and what is behind that.
fn take_name(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches(['\r', '\n']);
    let Some(mut rest) = text.strip_prefix('"') else {
        let (name, rest) = text.split_once(',')?;
        return (!name.contains('\n')).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind.strip_prefix(',')?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_can_be_imported() {
        let names = ["plain", "with,comma", "with \"quotes\"", "two\nlines"];
        let lines: String = names.iter().map(|name| format!("{},t,3,17\n", quoted(name))).collect();
        let parsed = parse(&lines).unwrap();
        let expected = names.map(|name| (name.to_owned(), [(("t".to_owned(), 3), 17)].into()));
        assert_eq!(parsed, expected.into());
    }

    #[test]
    fn what_kafkas_tool_writes_can_be_imported() {
        let parsed = parse("\"readers\",\"t\",0,5\r\nreaders,t,1,6").unwrap();
        let offsets = [(("t".to_owned(), 0), 5), (("t".to_owned(), 1), 6)];
        assert_eq!(parsed, [("readers".to_owned(), offsets.into())].into());
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [("g,t,0", 1), ("g,t,0,1\ng,t,x,1", 2), ("g,t,0,-1", 1), ("g,,0,1", 1), ("\"g,t,0,1", 1)] {
            assert_eq!(parse(text), Err(format!("line {line} is not group,topic,partition,offset")), "{text}");
        }
        assert_eq!(parse("g,t,0,1\ng,t,0,2\n"), Err("line 2 names a partition again".to_owned()));
        assert_eq!(parse("\n\n"), Ok(BTreeMap::new()));
    }

    #[test]
    fn partitions_can_be_named() {
        assert_eq!(scope("clicks"), Ok(Scope { topic: "clicks".into(), partitions: vec![] }));
        assert_eq!(scope("clicks:0, 3"), Ok(Scope { topic: "clicks".into(), partitions: vec![0, 3] }));
        assert!(scope(":1").is_err() && scope("clicks:x").is_err() && scope("clicks:").is_err());
    }
}
