//! The records that are written, and the line by which every reader shows one: `tests/clients/README.md`.

use corelog_client::blocking::Producer;
use corelog_client::{Codec, ConsumerOptions, Header, NewRecord, ProducerOptions, Record};
use corelog_tests::process::Node;
use corelog_tests::serving::consume;
use crc_fast::{CrcAlgorithm, checksum};
use std::fmt::Write;
use std::time::SystemTime;

/// The largest record: near the mebibyte that a topic allows when nothing else is said.
const LARGE_BYTES: usize = 900_000;

/// A record to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) partition: u32,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Option<Vec<u8>>)>,
}

/// A record that was read, as it is shown. In the order of topics, partitions, offsets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    /// The rest of the line: timestamp, key, value, headers.
    pub(crate) rest: String,
}

/// An hour ago, in milliseconds since 1970: far enough that no clock is asked for more, and too near for retention.
pub(crate) fn an_hour_ago() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock that is set");
    since.as_millis() as i64 - 3_600_000
}

/// The agreed set, over three partitions. Without headers that are null where a client cannot write such.
pub(crate) fn agreed(with_null_headers: bool) -> Vec<Written> {
    let began = an_hour_ago();
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let nothing = if with_null_headers { None } else { some(b"") };
    let base = Written { key: some(b"key"), value: some(b"value"), ..Written::default() };
    let mut records = vec![
        base.clone(),
        Written { key: None, ..base.clone() },
        Written { value: None, ..base.clone() },
        Written { key: some(b""), ..base.clone() },
        Written { value: some(b""), ..base.clone() },
        Written { key: some(&[0, 255, 10, 13]), value: some(&[0, 128, 10]), ..base.clone() },
        Written { value: some(&noise(LARGE_BYTES)), ..base.clone() },
        // A name twice, and a value of each kind.
        Written { headers: vec![("a", some(b"1")), ("a", some(b"2")), ("b", nothing), ("c", some(b""))], ..base },
    ];
    records.extend((0..100_u32).map(|number| Written {
        key: some(&number.to_be_bytes()),
        value: some(format!("number {number}").repeat(number as usize).as_bytes()),
        ..Written::default()
    }));
    for (number, record) in records.iter_mut().enumerate() {
        record.partition = number as u32 % 3;
        record.timestamp = began + number as i64;
    }
    records
}

/// Bytes that no codec makes small.
fn noise(length: usize) -> Vec<u8> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::repeat_n((), length).scan(17, |state, ()| step(state)).collect()
}

/// The lines that a program reads to write these.
pub(crate) fn lines(records: &[Written]) -> String {
    records.iter().map(Written::line).collect()
}

/// How they are to be shown, written one behind the other into a new topic.
pub(crate) fn expected(topic: &str, records: &[Written]) -> Vec<Shown> {
    let mut next = Vec::new();
    let mut shown: Vec<Shown> = records.iter().map(|record| record.shown(topic, &mut next)).collect();
    shown.sort();
    shown
}

impl Written {
    fn line(&self) -> String {
        let mut line = format!("{} {} {} {}", self.partition, self.timestamp, hex(&self.key), hex(&self.value));
        for (name, value) in &self.headers {
            let _ = write!(line, " {name}={}", hex(value));
        }
        line + "\n"
    }

    fn shown(&self, topic: &str, next: &mut Vec<i64>) -> Shown {
        next.resize(next.len().max(self.partition as usize + 1), 0);
        let next = &mut next[self.partition as usize];
        let headers = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
        let rest = rest(self.timestamp, self.key.as_deref(), self.value.as_deref(), headers);
        *next += 1;
        Shown { topic: topic.to_owned(), partition: self.partition, offset: *next - 1, rest }
    }
}

/// What a program printed, in order.
pub(crate) fn shown(printed: &str) -> Vec<Shown> {
    let parse = |line: &str| {
        let [topic, partition, offset, rest] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let number = |text: &str| text.parse::<i64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        let (partition, offset) = (number(partition) as u32, number(offset));
        Shown { topic: topic.to_owned(), partition, offset, rest: rest.to_owned() }
    };
    let mut shown: Vec<Shown> = printed.lines().map(parse).collect();
    shown.sort();
    shown
}

/// Writes with the native client, and waits until all is acknowledged.
pub(crate) fn write_natively(node: &Node, topic: &str, compression: Codec, records: &[Written]) {
    let options = ProducerOptions { compression, ..ProducerOptions::default() };
    let producer = Producer::connect(&node.bootstrap(), topic, options).expect("connects");
    for record in records {
        let header = |(name, value): &'_ (&'static str, Option<Vec<u8>>)| (name.as_bytes(), value.clone());
        let owned: Vec<_> = record.headers.iter().map(header).collect();
        let headers: Vec<_> = owned.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let sent = NewRecord {
            partition: Some(record.partition),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp: Some(record.timestamp),
        };
        producer.send(sent).expect("takes the record");
    }
    producer.close().expect("all is acknowledged");
}

/// What the native client reads.
pub(crate) fn read_natively(node: &Node, topic: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    consume(node, topic, ConsumerOptions::default(), |partition, record: &Record<'_>| {
        let headers = record.headers.map(|header| (header.key, header.value));
        let rest = rest(record.timestamp, record.key, record.value, headers);
        found.push(Shown { topic: topic.to_owned(), partition, offset: record.offset, rest });
    });
    found.sort();
    found
}

fn rest<'a>(
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> String {
    let mut rest = format!("{timestamp} {} {}", digest(key), digest(value));
    for (name, value) in headers {
        let _ = write!(rest, " {}={}", String::from_utf8_lossy(name), digest(value));
    }
    rest
}

fn hex(bytes: &Option<Vec<u8>>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    bytes.iter().fold("x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn digest(bytes: Option<&[u8]>) -> String {
    let sum = |bytes: &[u8]| format!("{}:{:08x}", bytes.len(), checksum(CrcAlgorithm::Crc32IsoHdlc, bytes));
    bytes.map_or_else(|| "-".to_owned(), sum)
}
