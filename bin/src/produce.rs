//! `corelog produce`: writes each line of standard input as a record.
//!
//! The main thread takes events: pieces of the input, a failed delivery, a signal, a tick. Each comes from a thread of
//! its own, so that none waits for another: a producer that has lost its server says so although its input is silent.

use crate::failure::Failure;
use crate::format::unescape;
use crate::lines::{LineTooLong, Lines, key_and_value};
use crate::progress::{Counts, Progress};
use crate::quantity;
use crate::server::{ServerArgs, check_partitions, failed};
use clap::{Args, ValueEnum};
use corelog_client::blocking::{Admin, Producer};
use corelog_client::{
    Codec, Delivery, NewRecord, ProduceError, ProducerOptions, ProducerStats, RetryUnknown, SendError,
};
use nix::sys::signal::{SigSet, Signal};
use std::fmt;
use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Produce {
    /// The topic
    topic: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Write to this partition only [default: by the key, or without one spread by batches]
    #[arg(short = 'p', long, value_name = "N", value_parser = quantity::partition, allow_negative_numbers = true)]
    partition: Option<u32>,
    /// The key is what stands before the first of these in a line; \t and the like are understood [default: no keys]
    #[arg(long, value_name = "C", value_parser = separator)]
    key_separator: Option<Separator>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Size at which a batch is sent, before compression, at most the topic's max.message.bytes [default: 64KiB or that]
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    batch_bytes: Option<u64>,
    /// How long a batch may wait for more records; with 0ms it goes as soon as fewer than --inflight are under way
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = quantity::duration)]
    linger: Duration,
    /// Batches of a partition that may be under way at once, from 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = inflight(), allow_negative_numbers = true)]
    inflight: u16,
    /// How long a record may wait for its acknowledgement while none of its partition comes, retries included
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = quantity::duration)]
    timeout: Duration,
    /// Send records again whose acknowledgement was lost with its connection: none is missing then, some may be there twice
    #[arg(long, conflicts_with = "exactly_once")]
    resend_unknown: bool,
    /// Number records, so that the server recognises those that come again: none is missing then, and none there twice. At most
    /// 5 batches of a partition are on their way at once
    #[arg(long)]
    exactly_once: bool,
    /// Fail unless the input has so many records: what came is written, and the exit status says that the pipe ended early
    #[arg(long, value_name = "N", value_parser = quantity::number(0..=u64::MAX, "a number of records"))]
    expect: Option<u64>,
    /// Show the rate although standard error is no terminal
    #[arg(long)]
    progress: bool,
}

const EXAMPLES: &str = "\
Examples:
  corelog produce clicks < access.log
  tail -f access.log | corelog produce clicks --key-separator ' ' --compression zstd --linger 5ms
  corelog produce clicks --exactly-once --timeout 10m < access.log

One record a line; every byte but the newline is kept. A last line without a newline is a record, a newline at the end
adds none, an empty line is an empty record. At the end, also when it fails under way, it says how many records were
acknowledged. A record whose acknowledgement was lost with its connection may be there or not. It is counted as such
and ends the command, unless --resend-unknown has it sent again, in order within its partition: the log may then hold
a b c b c d, never a c b. With --exactly-once it is sent again and recognised, for a day after the last record. A pipe ends in the same way whether its writer came to its end or died: --expect says how many
records it was to bring, and `set -o pipefail` has the shell look at the writer.

SIZE is a number of bytes, or one with K, M, G or T (or KiB and so on): units are powers of 1024.
DURATION is a number with us, ms, s, m, h or d.";

#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

#[derive(Clone)]
struct Separator(Vec<u8>);

fn separator(text: &str) -> Result<Separator, String> {
    match unescape(text)? {
        bytes if bytes.is_empty() => Err("a separator has at least one byte".to_owned()),
        bytes if bytes.contains(&b'\n') => Err("a newline ends the line and cannot separate within it".to_owned()),
        bytes => Ok(Separator(bytes)),
    }
}

fn inflight() -> impl Fn(&str) -> Result<u16, String> + Clone {
    quantity::number(1..=1024, "a number from 1 to 1024")
}

/// Size of a batch unless given.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes read from standard input at once. Two such pieces exist.
const PIECE_BYTES: usize = 1 << 20;
/// How often the live line is looked at.
const TICK: Duration = Duration::from_millis(200);

enum Event {
    /// Bytes of the input: the piece, and how much of it is filled.
    Input(Vec<u8>, usize),
    InputEnded,
    InputFailed(std::io::Error),
    /// A [`Break`] was set.
    Broken,
}

/// What ends producing from outside the main thread, set once; the first one counts.
type Break = Arc<OnceLock<Cause>>;

#[derive(Debug, Clone)]
enum Cause {
    /// Records were not acknowledged.
    Undelivered(ProduceError),
    Interrupted(Signal),
}

/// Why producing ended before the input did.
enum Stop {
    Line(LineTooLong),
    /// The number of the line, and what was wrong with it as a record.
    Record(u64, SendError),
    Input(std::io::Error),
    /// The input ended, with other than so many records.
    Unexpected {
        expected: u64,
        taken: u64,
    },
    Broken(Cause),
}

impl From<LineTooLong> for Stop {
    fn from(line: LineTooLong) -> Stop {
        Stop::Line(line)
    }
}

pub(crate) fn run(args: Produce) -> Result<(), Failure> {
    let message_bytes_max = message_bytes_max(&mut args.server.admin()?, &args.topic)?;
    let (events, received) = channel();
    // Before any thread begins, so that all inherit the mask and the signal goes to the one that waits for it.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().map_err(|error| Failure::Failed(format!("cannot block signals: {error}")))?;
    let broken = Break::default();
    let options = options(&args, message_bytes_max)?;
    let on_delivery = report_first(events.clone(), broken.clone());
    let producer =
        Producer::with_deliveries(&args.server.bootstrap, &args.topic, options, on_delivery).map_err(failed)?;
    check_partitions(&args.topic, args.partition.as_slice(), producer.partitions())?;
    wait_for_signal(signals, events.clone(), broken.clone());
    let pieces = read_input(events);
    let mut run = Run { args: &args, producer, broken, taken: 0, progress: Progress::begin(args.progress) };
    let ended = run.until_end(&received, &pieces, Lines::new(message_bytes_max));
    run.end(ended)
}

/// The topic's limit for a batch, and so for a line.
fn message_bytes_max(admin: &mut Admin, topic: &str) -> Result<usize, Failure> {
    let settings = admin.describe_topic(topic).map_err(failed)?.settings;
    let limit = settings.iter().find(|setting| setting.key == "max.message.bytes");
    limit
        .and_then(|setting| setting.value.parse().ok())
        .ok_or_else(|| Failure::Failed(format!("the server does not say what max.message.bytes of {topic} is")))
}

fn options(args: &Produce, message_bytes_max: usize) -> Result<ProducerOptions, Failure> {
    let batch_bytes = args.batch_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if let Some(bytes) = batch_bytes.filter(|bytes| !(1..=message_bytes_max).contains(bytes)) {
        return Err(Failure::Usage(format!(
            "--batch-bytes is {bytes}: it must be from 1 to {message_bytes_max}, the topic's max.message.bytes"
        )));
    }
    Ok(ProducerOptions {
        connect: args.server.options(),
        batch_bytes: batch_bytes.unwrap_or(BATCH_BYTES.min(message_bytes_max)),
        batch_bytes_max: message_bytes_max,
        linger: args.linger,
        compression: args.compression.into(),
        inflight: args.inflight.into(),
        // So that an interrupt is noticed; the buffer is emptied by deliveries, which have a timeout of their own.
        block_max: TICK,
        delivery_timeout: args.timeout,
        retry_unknown: match (args.exactly_once, args.resend_unknown) {
            (true, _) => RetryUnknown::ExactlyOnce,
            (_, true) => RetryUnknown::AtLeastOnce,
            (..) => RetryUnknown::AtMostOnce,
        },
        ..ProducerOptions::default()
    })
}

/// Runs on the producer's thread.
fn report_first(events: Sender<Event>, broken: Break) -> impl FnMut(&Delivery) + Send {
    move |delivery| {
        if let Err(error) = &delivery.outcome
            && broken.set(Cause::Undelivered(error.clone())).is_ok()
        {
            // Nobody listens any more when the end was reached already.
            let _ = events.send(Event::Broken);
        }
    }
}

fn wait_for_signal(signals: SigSet, events: Sender<Event>, broken: Break) {
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            let _ = broken.set(Cause::Interrupted(signal));
            let _ = events.send(Event::Broken);
        }
    });
}

/// Reads standard input in a thread. Pieces go out as events and come back empty through the sender returned; there are
/// only two, so that reading waits for sending.
fn read_input(events: Sender<Event>) -> Sender<Vec<u8>> {
    let (pieces, empty) = channel::<Vec<u8>>();
    for _ in 0..2 {
        let _ = pieces.send(vec![0; PIECE_BYTES]);
    }
    thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        for mut piece in empty {
            let event = match input.read(&mut piece) {
                Ok(0) => Event::InputEnded,
                Ok(length) => Event::Input(piece, length),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Event::InputFailed(error),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    pieces
}

struct Run<'a> {
    args: &'a Produce,
    producer: Producer,
    broken: Break,
    /// Records that the producer took.
    taken: u64,
    progress: Progress,
}

impl Run<'_> {
    /// Sends the whole input and waits for its acknowledgements.
    fn until_end(&mut self, events: &Receiver<Event>, pieces: &Sender<Vec<u8>>, mut lines: Lines) -> Result<(), Stop> {
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Input(piece, length)) => {
                    lines.feed(&piece[..length], |line| self.send(line))?;
                    let _ = pieces.send(piece);
                }
                Ok(Event::InputEnded) => break,
                Ok(Event::InputFailed(error)) => return Err(Stop::Input(error)),
                Ok(Event::Broken) | Err(_) => self.check()?,
            }
            self.progress.show(self.counts());
        }
        lines.finish(|line| self.send(line))?;
        if let Some(expected) = self.args.expect.filter(|expected| *expected != self.taken) {
            return Err(Stop::Unexpected { expected, taken: self.taken });
        }
        self.producer.flush().map_err(|error| Stop::Broken(Cause::Undelivered(error)))
    }

    fn send(&mut self, line: &[u8]) -> Result<(), Stop> {
        let separator = self.args.key_separator.as_ref().map(|separator| separator.0.as_slice());
        let (key, value) = key_and_value(line, separator);
        let record = NewRecord { key, partition: self.args.partition, ..NewRecord::new(value) };
        loop {
            self.check()?;
            match self.producer.send(record) {
                Ok(_) => {
                    self.taken += 1;
                    return Ok(());
                }
                Err(SendError::Full) => self.progress.show(self.counts()),
                Err(error) => return Err(Stop::Record(self.taken + 1, error)),
            }
        }
    }

    fn check(&self) -> Result<(), Stop> {
        self.broken.get().map_or(Ok(()), |cause| Err(Stop::Broken(cause.clone())))
    }

    fn counts(&self) -> Counts {
        counts(self.taken, &self.producer.stats())
    }

    fn end(self, ended: Result<(), Stop>) -> Result<(), Failure> {
        // What came before a bad line or the end of the input is still acknowledged; after a lost server or an
        // interrupt nobody should have to wait.
        if matches!(ended, Err(Stop::Line(_) | Stop::Record(..) | Stop::Input(_) | Stop::Unexpected { .. })) {
            // A failure of it shows in the counts.
            let _ = self.producer.flush();
        }
        let stats = self.producer.abandon();
        let took = self.progress.end(counts(self.taken, &stats));
        let counted = outcome(&stats);
        match ended {
            Ok(()) => {
                eprintln!("{counted} {took}");
                Ok(())
            }
            Err(stop) => Err(Failure::Failed(format!("{stop}; {counted}"))),
        }
    }
}

fn counts(taken: u64, stats: &ProducerStats) -> Counts {
    Counts { read: taken, acknowledged: stats.acknowledged, acknowledged_bytes: stats.bytes_acknowledged }
}

/// What became of the records taken: "7 records acknowledged (3 sent again, perhaps there twice), 1 not written".
fn outcome(stats: &ProducerStats) -> String {
    let ProducerStats { acknowledged, unknown, failed, resent, .. } = *stats;
    let plural = if acknowledged == 1 { "" } else { "s" };
    let again = if resent == 0 { String::new() } else { format!(" ({resent} sent again, perhaps there twice)") };
    let parts = [(unknown, "may be there or not"), (failed, "not written")];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    format!("{acknowledged} record{plural} acknowledged{again}{}", parts.collect::<String>())
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Line(line) => write!(f, "{line}, which max.message.bytes of the topic allows"),
            Stop::Record(number, error) => write!(f, "line {number} cannot be sent: {error}"),
            Stop::Input(error) => write!(f, "cannot read standard input: {error}"),
            Stop::Unexpected { expected, taken } => {
                write!(f, "the input had {taken} records, {expected} were expected")
            }
            Stop::Broken(Cause::Undelivered(error)) => error.fmt(f),
            Stop::Broken(Cause::Interrupted(signal)) => write!(f, "stopped by {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_accounted_for() {
        let outcome = |acknowledged, unknown, failed, resent| {
            super::outcome(&ProducerStats { acknowledged, unknown, failed, resent, ..ProducerStats::default() })
        };
        assert_eq!(outcome(5, 0, 0, 0), "5 records acknowledged");
        assert_eq!(outcome(1, 4, 0, 0), "1 record acknowledged, 4 may be there or not");
        assert_eq!(outcome(2, 1, 2, 0), "2 records acknowledged, 1 may be there or not, 2 not written");
        assert_eq!(outcome(0, 0, 0, 0), "0 records acknowledged");
        assert_eq!(outcome(4, 0, 1, 3), "4 records acknowledged (3 sent again, perhaps there twice), 1 not written");
    }

    #[test]
    fn separators() {
        assert_eq!(separator("\\t").map(|s| s.0), Ok(b"\t".to_vec()));
        assert!(separator("").is_err() && separator("\\n").is_err());
    }
}
