//! `corelog consume`: writes a topic's records to standard output.

mod group;

use crate::failure::{Failure, for_terminal};
use crate::format::{Format, Header, Shown, write_json};
use crate::quantity;
use crate::server::{ServerArgs, check_partitions, failed};
use crate::when::{self, From};
use clap::Args;
use corelog_client::blocking::Consumer;
use corelog_client::{ClientError, ConsumerOptions, Fetched, PartitionInfo, Record, Start, TopicDescription};
use std::io::{BufWriter, StdoutLock, Write};
use std::time::Duration;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Consume {
    /// The topic
    topic: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Only this partition; may be repeated [default: all]
    #[arg(short = 'p', long = "partition", value_name = "N", value_parser = quantity::partition, allow_negative_numbers = true)]
    partitions: Vec<u32>,
    /// Where to begin: beginning, end (only what comes from now on), an offset, a time like 2026-01-31T12:00:00Z, or
    /// @MILLISECONDS since 1970
    #[arg(long, value_name = "WHERE", default_value = "end", value_parser = when::from, allow_negative_numbers = true)]
    from: From,
    /// End after so many records, of all partitions together [default: go on until interrupted]
    #[arg(short = 'n', long, value_name = "N", value_parser = records(), allow_negative_numbers = true)]
    count: Option<u64>,
    /// End when everything was read that was there at the start, instead of waiting for more
    #[arg(long)]
    exit_at_end: bool,
    /// Read as a member of this consumer group, and commit what was written: what its other members read is left to them.
    /// --from is for partitions in which the group has committed nothing
    #[arg(long, value_name = "NAME", conflicts_with = "partitions")]
    group: Option<String>,
    /// With --group: a broker, as `serve` says where Kafka's protocol is spoken
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        env = "CORELOG_KAFKA_BOOTSTRAP",
        hide_env_values = true
    )]
    group_server: String,
    /// How a record is shown [default: the value and a newline]
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, conflicts_with = "json")]
    format: Option<Format>,
    /// Show each record as a line of JSON: topic, partition, offset, timestamp, key, value, headers
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  corelog consume clicks
  corelog consume clicks --from beginning --exit-at-end
  corelog consume clicks --group readers --from beginning
  corelog consume clicks -p 3 --from 4711 -n 10 --format '%o %k %s\\n'

Format: %t topic, %p partition, %o offset, %T timestamp in ms, %k key, %K its length, %s value, %S its length (-1: null),
%h headers, %% percent; \\n \\r \\t \\0 \\\\ \\xHH.
JSON: a key or value that is not UTF-8 comes in hexadecimal as key_hex or value_hex, null is null; no headers, no field.";

fn records() -> impl Fn(&str) -> Result<u64, String> + Clone {
    quantity::number(0.., "a number of records")
}

/// How long one wait for records lasts; only how soon an end is noticed depends on it.
const WAIT: Duration = Duration::from_millis(100);

pub(crate) fn run(args: Consume) -> Result<(), Failure> {
    let topic = args.server.admin()?.describe_topic(&args.topic).map_err(failed)?;
    check_partitions(&args.topic, &args.partitions, topic.partitions.len() as u32)?;
    if let Some(name) = &args.group {
        return group::run(&args, name, &topic);
    }
    let mut ends = ends(&args, &topic);
    let fenced = if args.exit_at_end { fenced(&args, &topic) } else { None };
    let mut consumer = Consumer::connect(&args.server.bootstrap, &args.topic, options(&args)).map_err(failed)?;
    let mut output = Output::new(&args);
    let mut halted = Halted::default();
    while output.left > 0 && halted.partitions.len() < wanted(&args, &topic).count() {
        if args.exit_at_end {
            // Who begins beyond the high watermark has not read up to there: an error is on its way.
            let is_read = |partition, end| {
                let position = consumer.position(partition);
                position >= Some(end) && consumer.high_watermark(partition) >= position
            };
            ends.retain(|(partition, end)| !halted.partitions.contains(partition) && !is_read(*partition, *end));
            if ends.is_empty() {
                break;
            }
        }
        match consumer.poll(WAIT) {
            Ok(Some(fetched)) => drop(output.write(&fetched)?),
            Ok(None) => {}
            Err(error) => {
                let goes_on = !args.exit_at_end && consumer.halted().len() < consumer.partitions().len();
                halted.note(consumer.halted(), error, goes_on)?;
            }
        }
    }
    halted.why.or(fenced).map_or(Ok(()), |why| Err(Failure::Failed(why)))
}

/// Partitions that cannot be read on. The others go on without them.
#[derive(Default)]
struct Halted {
    partitions: Vec<u32>,
    /// What was said of them.
    why: Option<String>,
}

impl Halted {
    /// Takes an error that concerns some partitions; one that concerns all is given back.
    fn note(&mut self, halted: Vec<u32>, error: ClientError, goes_on: bool) -> Result<(), Failure> {
        if halted.len() == self.partitions.len() {
            return Err(failed(error));
        }
        self.partitions = halted;
        // Who waits for what is to come may wait for ever.
        if goes_on {
            eprintln!("corelog: {}", for_terminal(&error.to_string()));
        }
        self.why = Some(self.why.take().map_or_else(|| error.to_string(), |before| format!("{before}; {error}")));
        Ok(())
    }
}

fn options(args: &Consume) -> ConsumerOptions {
    ConsumerOptions {
        connect: args.server.options(),
        partitions: (!args.partitions.is_empty()).then(|| args.partitions.clone()),
        start: match args.from {
            From::Beginning => Start::Beginning,
            From::End => Start::End,
            From::Offset(offset) => Start::Offset(offset),
            From::Time(millis) => Start::Timestamp(millis),
        },
        ..ConsumerOptions::default()
    }
}

/// The partitions asked for: all, where none is named.
fn wanted<'a>(args: &'a Consume, topic: &'a TopicDescription) -> impl Iterator<Item = &'a PartitionInfo> {
    topic.partitions.iter().filter(|p| args.partitions.is_empty() || args.partitions.contains(&p.partition))
}

/// The end of every partition asked for that holds anything, or not what is asked for, as it is now: what is written later
/// does not keep us.
fn ends(args: &Consume, topic: &TopicDescription) -> Vec<(u32, i64)> {
    let begins_outside =
        |p: &PartitionInfo| matches!(args.from, From::Offset(from) if !(p.first..=p.high_watermark).contains(&from));
    let filled = wanted(args, topic).filter(|p| p.first < p.high_watermark || begins_outside(p));
    filled.map(|p| (p.partition, p.high_watermark)).collect()
}

/// That an end is not what it was: a partition asked for is damaged.
fn fenced(args: &Consume, topic: &TopicDescription) -> Option<String> {
    let fenced = wanted(args, topic).find_map(|p| Some((p.partition, p.fenced.as_ref()?)));
    fenced.map(|(partition, why)| format!("partition {partition} is fenced, and may have held more: {why}"))
}

struct Output<'a, W: Write> {
    topic: &'a str,
    /// `None`: JSON.
    format: Option<Format>,
    /// How many more records are wanted.
    left: u64,
    out: BufWriter<W>,
}

impl<'a> Output<'a, StdoutLock<'static>> {
    fn new(args: &'a Consume) -> Self {
        Output {
            topic: &args.topic,
            format: if args.json { None } else { Some(args.format.clone().unwrap_or_else(Format::lines)) },
            left: args.count.unwrap_or(u64::MAX),
            out: BufWriter::with_capacity(256 << 10, std::io::stdout().lock()),
        }
    }
}

impl<W: Write> Output<'_, W> {
    /// Writes records, as many as are wanted; the offset behind the last one.
    fn write(&mut self, fetched: &Fetched) -> Result<Option<i64>, Failure> {
        let mut next = None;
        for record in fetched.records() {
            if self.left == 0 {
                break;
            }
            let record = record.map_err(|error| {
                Failure::Failed(format!(
                    "partition {} holds a record that cannot be read: {error}",
                    fetched.partition()
                ))
            })?;
            self.write_record(fetched.partition(), &record).map_err(|error| Failure::output(&error))?;
            self.left -= 1;
            next = Some(record.offset + 1);
        }
        // Whoever reads our output should have what we have.
        self.out.flush().map_err(|error| Failure::output(&error))?;
        Ok(next)
    }

    fn write_record(&mut self, partition: u32, record: &Record<'_>) -> std::io::Result<()> {
        let headers: Vec<Header<'_>> = record.headers.map(|header| (header.key, header.value)).collect();
        let shown = Shown {
            topic: self.topic,
            partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        match &self.format {
            Some(format) => format.write(&shown, &mut self.out),
            None => write_json(&shown, &mut self.out),
        }
    }
}
