//! Kafka's protocol by a client that nobody here wrote: kcat, over librdkafka.

use super::{consume_all, create_topic};
use corelog_client::blocking::Producer;
use corelog_client::{NewRecord, ProducerOptions};
use corelog_tests::process::{Node, program};
use corelog_tests::serving::{self, SHARDS, start};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const RECORDS: usize = 500;
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether there is kcat. With `CI=true` there must be.
fn has_kcat() -> bool {
    let there = Command::new("kcat").arg("-V").output().is_ok_and(|ran| ran.status.success());
    assert!(there || std::env::var("CI").is_err(), "kcat is missing (Debian: apt-get install kcat)");
    if !there {
        eprintln!("left out: kcat is missing");
    }
    there
}

/// What kcat prints with these arguments, and `input`.
fn kcat(address: SocketAddr, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kcat");
    command.args(["-b", &address.to_string(), "-m", "60"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kcat starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("kcat reads");
    drop(stdin);
    let ended = child.wait_with_output().expect("kcat ends");
    assert!(ended.status.success(), "kcat {arguments:?} ended with {}", ended.status);
    String::from_utf8(ended.stdout).expect("text")
}

/// What is in a topic: partition, offset, key, value.
fn records_of(node: &Node, topic: &str) -> Vec<(u32, i64, String, String)> {
    let mut found = Vec::new();
    consume_all(node, topic, |partition, offset, key, value| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        found.push((partition, offset, text(key), text(value)));
    });
    found.sort();
    found
}

fn read_by_kcat(address: SocketAddr, topic: &str) -> Vec<(u32, i64, String, String)> {
    let printed = kcat(address, &["-C", "-q", "-e", "-t", topic, "-o", "beginning", "-f", "%p %o %k %s\n"], "");
    let mut found: Vec<_> = printed
        .lines()
        .map(|line| {
            let [partition, offset, key, value] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let number = |text: &str| text.parse::<i64>().expect("a number");
            (number(partition) as u32, number(offset), key.to_owned(), value.to_owned())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn each_protocol_reads_what_the_other_wrote_and_a_kill_loses_nothing() {
    if !has_kcat() {
        return;
    }
    let (mut node, address) = start();
    create_topic(&node, "t", 4);
    let mut expected = 0;
    for codec in CODECS {
        let lines: String = (0..RECORDS).map(|number| format!("key{number}:{codec} {number}\n")).collect();
        kcat(address, &["-P", "-t", "t", "-z", codec, "-K", ":", "-X", "acks=all"], &lines);
        expected += RECORDS;
    }
    let producer = Producer::connect(&node.bootstrap(), "t", ProducerOptions::default()).expect("connects");
    for number in 0..RECORDS {
        let (key, value) = (format!("native{number}"), format!("native {number}"));
        let record = NewRecord { key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..NewRecord::default() };
        producer.send(record).expect("sent");
    }
    producer.flush().expect("acknowledged");
    drop(producer);
    expected += RECORDS;
    node.kill();
    node.restart(SHARDS);
    let (native, kafka) = (records_of(&node, "t"), read_by_kcat(address, "t"));
    assert_eq!(native.len(), expected);
    assert!(native == kafka, "the two read different records");
    for codec in CODECS {
        assert_eq!(native.iter().filter(|(.., value)| value.starts_with(codec)).count(), RECORDS, "{codec}");
    }
    // One partition from its middle.
    let there = native.iter().filter(|(partition, offset, ..)| *partition == 1 && *offset >= 100).count();
    let printed = kcat(address, &["-C", "-q", "-e", "-t", "t", "-p", "1", "-o", "100"], "");
    assert_eq!(printed.lines().count(), there);
    node.stop();
}

/// What a member of a group reads until it has so many records, or is at the end; it commits how far it came.
fn read_in_group(address: SocketAddr, topic: &str, more: &[&str]) -> Vec<String> {
    // Who has read as many as it was to read goes without a word: the next one waits for the end of its session.
    let settings = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"];
    let arguments = [&["-G", "readers", "-q"][..], &settings, more, &[topic]].concat();
    kcat(address, &arguments, "").lines().map(str::to_owned).collect()
}

/// A numbered producer, and a group that goes on where it was after kill -9, each record read once.
#[test]
fn a_group_goes_on_where_it_was() {
    if !has_kcat() {
        return;
    }
    let (mut node, address) = start();
    create_topic(&node, "t", 4);
    let lines: String = (0..RECORDS).map(|number| format!("{number}\n")).collect();
    kcat(address, &["-P", "-t", "t", "-X", "enable.idempotence=true"], &lines);
    let mut read = read_in_group(address, "t", &["-c", "200"]);
    assert_eq!(read.len(), 200);
    node.kill();
    node.restart(SHARDS);
    read.extend(read_in_group(address, "t", &["-e"]));
    let mut numbers: Vec<usize> = read.iter().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>());
    node.kill();
    // The group moves with its partition.
    node.restart(1);
    assert_eq!(read_in_group(address, "t", &["-e"]), Vec::<String>::new());
    node.stop();
}

/// Of each key the last record stays, and readers of both protocols find the same.
#[test]
fn a_topic_is_compacted() {
    const KEYS: usize = 10;
    const SENT: usize = 3000;
    if !has_kcat() {
        return;
    }
    let (mut node, address) = start();
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "65536"), ("min.cleanable.dirty.ratio", "0.1")];
    serving::create_topic(&node, "t", 1, &settings);
    let filling = "x".repeat(300);
    let lines: String = (0..SENT).map(|number| format!("k{}:{number}-{filling}\n", number % KEYS)).collect();
    kcat(address, &["-P", "-t", "t", "-K", ":", "-X", "batch.size=8000"], &lines);
    let newest: Vec<i64> = (0..KEYS).map(|key| (SENT - KEYS + key) as i64).collect();
    let began = Instant::now();
    let left = loop {
        let left = read_by_kcat(address, "t");
        let is_there = |offset: &i64| left.iter().any(|(_, found, ..)| found == offset);
        assert!(newest.iter().all(is_there), "the newest of each key is there");
        if left.len() < SENT / 2 {
            break left;
        }
        assert!(began.elapsed() < PATIENCE, "{} records are left after {PATIENCE:?}", left.len());
        std::thread::sleep(Duration::from_millis(50));
    };
    for (_, offset, key, value) in &left {
        let number = value.split('-').next().and_then(|number| number.parse::<usize>().ok());
        assert_eq!((number, key), (Some(*offset as usize), &format!("k{}", *offset as usize % KEYS)));
    }
    node.kill();
    node.restart(SHARDS);
    let (native, kafka) = (records_of(&node, "t"), read_by_kcat(address, "t"));
    assert!(native.len() <= left.len() && native.iter().map(|record| record.1).rev().take(KEYS).rev().eq(newest));
    assert_eq!(native, kafka);
    node.stop();
}

#[test]
fn a_consumer_at_the_end_gets_what_comes() {
    if !has_kcat() {
        return;
    }
    let (mut node, address) = start();
    create_topic(&node, "t", 2);
    let mut command = Command::new("kcat");
    command.args(["-b", &address.to_string(), "-C", "-q", "-u", "-t", "t", "-o", "beginning", "-c", "10"]);
    let mut tail = command.stdout(Stdio::piped()).spawn().expect("kcat starts");
    for number in 0..10 {
        kcat(address, &["-P", "-t", "t"], &format!("{number}\n"));
    }
    let began = Instant::now();
    let status = loop {
        match tail.try_wait().expect("kcat runs") {
            Some(status) => break status,
            None if began.elapsed() > PATIENCE => {
                tail.kill().expect("killed");
                panic!("the ten records did not come in {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success());
    let mut printed = String::new();
    tail.stdout.take().expect("a pipe").read_to_string(&mut printed).expect("text");
    let mut numbers: Vec<u32> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    node.stop();
}

#[test]
fn who_speaks_something_else_gets_a_line_in_the_log() {
    let (mut node, address) = start();
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut rest = Vec::new();
    // The end, or a reset: the server has nothing to say in HTTP.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    let output = node.output();
    assert!(output.contains("speaks HTTP, this port speaks Kafka's protocol"), "{output}");
    node.stop();
}

/// What `corelog group` prints, and whether it went well.
fn group(address: SocketAddr, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program());
    command.arg("group").args(arguments).args(["-b", &address.to_string()]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    let text = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(text).expect("text"))
}

/// Offsets of a group by the program: looked at, set, taken elsewhere and back, and deleted.
#[test]
fn groups_are_looked_after() {
    if !has_kcat() {
        return;
    }
    let (mut node, address) = start();
    create_topic(&node, "t", 2);
    let done = |arguments: &[&str], input: &str| {
        let (is_done, text) = group(address, arguments, input);
        assert!(is_done, "{arguments:?}: {text}");
        text
    };
    // Half to each: left to the client, all may go to one partition, and the group has no offset in the other.
    let lines: String = (0..RECORDS / 2).map(|number| format!("{number}\n")).collect();
    for partition in ["0", "1"] {
        kcat(address, &["-P", "-t", "t", "-p", partition], &lines);
    }
    assert_eq!(read_in_group(address, "t", &["-e"]).len(), RECORDS);
    assert!(done(&["list"], "").contains("readers"), "{}", done(&["list"], ""));
    let lag = || {
        let told: Value = serde_json::from_str(&done(&["describe", "readers", "--json"], "")).expect("JSON");
        let rows = told["offsets"].as_array().expect("offsets").clone();
        rows.iter().map(|row| row["lag"].as_u64().expect("a lag")).sum::<u64>()
    };
    assert_eq!(lag(), 0);
    let kept = done(&["export", "readers"], "");
    assert_eq!(kept.lines().count(), 2, "{kept}");
    let planned = done(&["reset-offsets", "readers", "--to", "beginning", "--dry-run"], "");
    assert!(planned.contains("nothing was changed") && lag() == 0, "{planned}");
    done(&["reset-offsets", "readers", "--to", "beginning", "--topic", "t"], "");
    assert_eq!(lag(), RECORDS as u64);
    assert_eq!(read_in_group(address, "t", &["-e"]).len(), RECORDS, "all are read again");
    done(&["reset-offsets", "readers", "--shift", "-10", "--topic", "t:1"], "");
    assert_eq!(lag(), 10);
    done(&["import"], &kept);
    assert_eq!(lag(), 0);
    let (is_done, why) = group(address, &["import"], "readers,t,2,0\n");
    assert!(!is_done && why.contains("there is no partition 2 of topic t; nothing was changed"), "{why}");
    let (is_done, told) = group(address, &["delete", "nosuch", "readers"], "");
    assert!(!is_done && told.contains("deleted group readers") && told.contains("nosuch"), "all are tried: {told}");
    let (is_done, why) = group(address, &["describe", "readers"], "");
    assert!(!is_done && why.contains("there is no group readers"), "{why}");
    node.stop();
}

/// `corelog consume --group` on its way; its output is in a file, for two of them write at once.
struct Reader {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Reader {
    fn start(node: &Node, address: SocketAddr, more: &[&str]) -> Reader {
        let output = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new(program());
        command.args(["consume", "t", "--group", "readers", "--from", "beginning"]);
        command.args(["-b", &node.bootstrap(), "--group-server", &address.to_string()]).args(more);
        let child = command.stdout(output.reopen().expect("a file")).spawn().expect("the program starts");
        Reader { child, output }
    }

    fn lines(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(self.output.path()).expect("text");
        // The last line may not be whole.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| line.parse().expect("a number")).collect()
    }

    fn end(mut self) -> Vec<usize> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::Signal::SIGTERM)
            .expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
        self.lines()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come about in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn members_that_the_program_is_share_a_topic_and_skip_nothing() {
    let (mut node, address) = start();
    create_topic(&node, "t", 4);
    let mut written = 0;
    let mut write = |node: &Node| {
        let producer = Producer::connect(&node.bootstrap(), "t", ProducerOptions::default()).expect("connects");
        for number in written..written + RECORDS {
            let partition = Some((number % 4) as u32);
            let value = number.to_string();
            producer
                .send(NewRecord { partition, value: Some(value.as_bytes()), ..NewRecord::default() })
                .expect("sent");
        }
        producer.close().expect("delivered");
        written += RECORDS;
        written
    };
    let all = write(&node);
    let (one, two) = (Reader::start(&node, address, &[]), Reader::start(&node, address, &[]));
    until("the first read", || one.lines().len() + two.lines().len() >= all);
    let members = || {
        let (_, told) = group(address, &["describe", "readers", "--json"], "");
        let told: Value = serde_json::from_str(&told).unwrap_or_default();
        let members = told["members"].as_array().cloned().unwrap_or_default();
        let counts: Vec<u64> = members.iter().filter_map(|member| member["partitions"].as_u64()).collect();
        (told["state"].as_str().unwrap_or_default().to_owned(), counts)
    };
    until("sharing", || members() == ("Stable".to_owned(), vec![2, 2]));
    let all = write(&node);
    until("the second read", || one.lines().len() + two.lines().len() >= all);
    let mut read = one.end();
    // A server that is away for a while is waited for.
    node.kill();
    node.restart(SHARDS);
    until("one member", || members().1 == [4]);
    let all = write(&node);
    until("the third read", || read.len() + two.lines().len() >= all);
    read.extend(two.end());
    let counted = read.len();
    read.sort_unstable();
    read.dedup();
    assert_eq!(read, (0..all).collect::<Vec<_>>());
    // What was read just before the server was killed may not have been committed.
    assert!(counted <= all + 2 * RECORDS, "{counted} for {all}");
    let rest = Reader::start(&node, address, &["--exit-at-end"]);
    let output = rest.output.reopen().expect("a file");
    assert!({ rest }.child.wait().expect("it ends").success());
    assert_eq!(output.metadata().expect("a file").len(), 0, "all was committed");
    node.stop();
}
