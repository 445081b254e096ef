//! Records by the command line: in, out, unchanged, counted.

use crate::run::{Server, wait};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Stdio};
use std::time::Duration;

fn server_with_topic(partitions: &str) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t", "--partitions", partitions]).ok();
    (dir, server)
}

const ALL: [&str; 5] = ["consume", "t", "--from", "beginning", "--exit-at-end"];

#[track_caller]
fn acknowledged(ended: &crate::run::Ended, count: usize) {
    let plural = if count == 1 { "" } else { "s" };
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.starts_with(&format!("{count} record{plural} acknowledged in ")), "{}", ended.stderr);
}

#[test]
fn bytes_come_out_as_they_went_in() {
    let (_dir, server) = server_with_topic("1");
    let input: &[u8] = b"first\n\n\r\n\0\xff\xfe tab\t\n  spaces  \n\nlast without newline";
    acknowledged(&server.run_with(&["produce", "t"], input), 7);
    let mut expected = input.to_vec();
    expected.push(b'\n');
    let out = server.run(&ALL);
    assert_eq!((out.status, out.stdout), (Some(0), expected));
}

#[test]
fn nothing_in_is_nothing_out() {
    let (_dir, server) = server_with_topic("2");
    acknowledged(&server.run_with(&["produce", "t"], b""), 0);
    assert_eq!(server.run(&ALL).ok(), "");
    acknowledged(&server.run_with(&["produce", "t"], b"\n"), 1);
    assert_eq!(server.run(&ALL).ok(), "\n");
}

#[test]
fn every_codec_and_batch_size() {
    let (_dir, server) = server_with_topic("1");
    let mut expected = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for (size, linger) in [("1", "0ms"), ("512KiB", "5ms")] {
            let lines: String = (0..500).map(|i| format!("{codec} {size} {i}\n")).collect();
            let arguments =
                ["produce", "t", "--compression", codec, "--batch-bytes", size, "--linger", linger, "--inflight", "3"];
            acknowledged(&server.run_with(&arguments, lines.as_bytes()), 500);
            expected.extend_from_slice(lines.as_bytes());
        }
    }
    assert!(server.run(&ALL).stdout == expected);
}

#[test]
fn lines_of_several_mebibytes_up_to_the_topics_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t", "--config", "max.message.bytes=8388608"]).ok();
    let mut input = Vec::new();
    for (length, byte) in [(5 << 20, b'a'), (1, b'b'), ((8 << 20) - 200, b'c')] {
        input.extend(std::iter::repeat_n(byte, length));
        input.push(b'\n');
    }
    acknowledged(&server.run_with(&["produce", "t"], &input), 3);
    assert!(server.run(&ALL).stdout == input);

    let mut long = b"ok\n".to_vec();
    long.extend(std::iter::repeat_n(b'x', 9 << 20));
    server.run_with(&["produce", "t"], &long).fails(
        1,
        "corelog: line 2 is longer than 8388608 bytes, which max.message.bytes of the topic allows; 1 record acknowledged",
    );
}

#[test]
fn keys_formats_json_and_counts() {
    let (_dir, server) = server_with_topic("1");
    acknowledged(&server.run_with(&["produce", "t", "--key-separator", "\\t"], b"k\tv\nno key\n\t\xff\n"), 3);
    let format = [&ALL[..], &["--format", "%t/%p@%o [%k] %K %S [%s]\\n"]].concat();
    let expected = b"t/0@0 [k] 1 1 [v]\nt/0@1 [] -1 6 [no key]\nt/0@2 [] 0 1 [\xff]\n";
    assert_eq!(server.run(&format).stdout, expected);
    let json = server.run(&[&ALL[..], &["--json", "-n", "1"]].concat()).ok();
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&record["key"], &record["value"], &record["offset"]), (&"k".into(), &"v".into(), &0.into()));
    assert_eq!(server.run(&["consume", "t", "--from", "1", "-n", "1"]).ok(), "no key\n");
    assert_eq!(server.run(&["consume", "t", "--from", "@0", "-n", "2"]).ok(), "v\nno key\n");
    assert_eq!(server.run(&["consume", "t", "--from", "2100-01-01T00:00:00Z", "--exit-at-end"]).ok(), "");
    assert_eq!(server.run(&["consume", "t", "--from", "end", "--exit-at-end"]).ok(), "");
}

#[test]
fn partitions_are_chosen_and_kept_apart() {
    let (_dir, server) = server_with_topic("4");
    for partition in ["0", "3"] {
        acknowledged(&server.run_with(&["produce", "t", "-p", partition], partition.as_bytes()), 1);
    }
    assert_eq!(server.run(&[&ALL[..], &["-p", "3"]].concat()).ok(), "3\n");
    assert_eq!(server.run(&[&ALL[..], &["-p", "1"]].concat()).ok(), "");
    let mut both: Vec<String> = server.run(&ALL).ok().lines().map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["0", "3"]);
}

#[test]
fn a_topic_or_partition_that_is_not_there() {
    let (_dir, server) = server_with_topic("2");
    for command in ["produce", "consume"] {
        let ended = server.run_with(&[command, "nosuch"], b"x\n");
        assert_eq!((ended.status, ended.text()), (Some(1), ""));
        assert!(ended.stderr.contains("there is no topic nosuch"), "{}", ended.stderr);
        let ended = server.run_with(&[command, "t", "-p", "2"], b"x\n");
        assert_eq!((ended.status, ended.text()), (Some(1), ""));
        assert_eq!(ended.stderr, "corelog: topic t has no partition 2: it has 2, numbered from 0\n");
    }
}

#[test]
fn an_offset_that_is_not_held_carries_the_range() {
    let (_dir, server) = server_with_topic("1");
    acknowledged(&server.run_with(&["produce", "t"], b"a\nb\n"), 2);
    let ended = server.run(&["consume", "t", "--from", "7", "-n", "1"]);
    assert_eq!(ended.status, Some(1));
    assert!(
        ended.stderr.contains("partition 0 does not hold that offset (it holds 0 to 2, the latter not yet)"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_partition_that_cannot_be_read_on_does_not_keep_the_others() {
    let (_dir, server) = server_with_topic("2");
    acknowledged(&server.run_with(&["produce", "t", "-p", "0"], b"a\nb\nc\n"), 3);
    acknowledged(&server.run_with(&["produce", "t", "-p", "1"], b"x\n"), 1);
    let ended = server.run(&["consume", "t", "--from", "2", "--exit-at-end"]);
    assert_eq!((ended.status, ended.text()), (Some(1), "c\n"));
    let why = "partition 1 does not hold that offset (it holds 0 to 1, the latter not yet)";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}

#[test]
fn a_consumer_waits_for_what_is_to_come() {
    let (_dir, server) = server_with_topic("2");
    acknowledged(&server.run_with(&["produce", "t", "-p", "1"], b"before\n"), 1);
    let mut consumer =
        server.command(&["consume", "t", "--from", "beginning", "-n", "3"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    acknowledged(&server.run_with(&["produce", "t", "-p", "0"], b"one\ntwo\nthree\n"), 3);
    assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["one", "two"]);
    assert!(lines.next().is_none());
    assert_eq!(wait(&mut consumer), Some(0));
}

#[test]
fn an_output_pipe_that_closes_is_a_quiet_end() {
    let (_dir, server) = server_with_topic("1");
    let lines = "0123456789\n".repeat(200_000);
    acknowledged(&server.run_with(&["produce", "t"], lines.as_bytes()), 200_000);
    let mut consumer = server.command(&["consume", "t", "--from", "beginning"]);
    let mut consumer = consumer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 11];
    consumer.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"0123456789\n");
    assert_eq!(wait(&mut consumer), Some(0));
    let mut said = String::new();
    consumer.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn an_input_that_ends_early_is_told_when_it_is_known_what_was_to_come() {
    let (_dir, server) = server_with_topic("1");
    let produce = |expected: &str, input: &[u8]| server.run_with(&["produce", "t", "--expect", expected], input);
    let short = produce("3", b"a\nb\n");
    let said = "corelog: the input had 2 records, 3 were expected; 2 records acknowledged";
    assert_eq!((short.status, short.stderr.trim_end()), (Some(1), said));
    assert_eq!(produce("1", b"c\nd").status, Some(1), "nor may there be more");
    acknowledged(&produce("2", b"e\nf"), 2);
    assert_eq!(server.run(&ALL).ok(), "a\nb\nc\nd\ne\nf\n", "what came is there");
}

#[test]
fn a_batch_size_over_the_topics_limit_is_refused() {
    let (_dir, server) = server_with_topic("1");
    server
        .run_with(&["produce", "t", "--batch-bytes", "9G"], b"")
        .fails(2, "corelog: --batch-bytes is 9663676416: it must be from 1 to 1048588, the topic's max.message.bytes");
}

/// A producer whose input stays open, with what it says as it goes.
struct Producer {
    child: Child,
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStderr>>,
}

impl Producer {
    fn start(server: &Server, arguments: &[&str]) -> Producer {
        let mut command = server.command(&[&["produce", "t", "--progress"][..], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Producer { child, stdin, said }
    }

    /// Writes lines and waits until it says that all so far are acknowledged.
    fn write(&mut self, lines: &[u8], acknowledged: usize) {
        self.stdin.write_all(lines).unwrap();
        self.says(&format!("{acknowledged} read, {acknowledged} acknowledged, "));
    }

    /// Waits until it says a line that begins so.
    #[track_caller]
    fn says(&mut self, wanted: &str) {
        let found = self.said.find(|line| line.as_ref().unwrap().starts_with(wanted));
        assert!(found.is_some(), "it ended before it said {wanted:?}");
    }

    /// Its exit status and its last words, its input still open.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child);
        (status, self.said.last().unwrap().unwrap())
    }
}

#[test]
fn the_live_rate_is_shown_when_asked_for() {
    let (_dir, server) = server_with_topic("1");
    let mut producer = Producer::start(&server, &[]);
    producer.write(b"a\nb\n", 2);
    let Producer { mut child, stdin, said } = producer;
    drop(stdin);
    assert_eq!(wait(&mut child), Some(0));
    let last = said.last().unwrap().unwrap();
    assert!(last.starts_with("2 records acknowledged in "), "{last}");
}

#[test]
fn a_server_killed_underneath_leaves_an_account() {
    let (_dir, server) = server_with_topic("1");
    let mut producer = Producer::start(&server, &["--timeout", "2s"]);
    producer.write(b"a\nb\nc\n", 3);
    server.kill();
    producer.stdin.write_all(b"d\n").unwrap();
    // The input stays open: the failure must show although nothing more is to be read.
    let (status, last) = producer.ended();
    assert_eq!(status, Some(1));
    assert!(last.starts_with("corelog: ") && last.contains("; 3 records acknowledged, 1 "), "{last}");
}

#[test]
fn records_of_unknown_fate_are_sent_again_when_asked_for() {
    let (dir, server) = server_with_topic("1");
    let address = server.address.clone();
    let mut producer = Producer::start(&server, &["--resend-unknown"]);
    producer.write(b"a\nb\nc\n", 3);
    // It takes the request and dies before it reads it: only the client cannot know that.
    server.freeze();
    producer.stdin.write_all(b"d\n").unwrap();
    producer.says("4 read, 3 acknowledged, ");
    std::thread::sleep(Duration::from_millis(200));
    server.kill();
    let server = Server::start_with(dir.path(), &["--listen", &address, "--smp", "2"]);
    producer.says("4 read, 4 acknowledged, ");
    producer.stdin.write_all(b"e\n").unwrap();
    let Producer { mut child, stdin, said } = producer;
    drop(stdin);
    assert_eq!(wait(&mut child), Some(0));
    let last = said.last().unwrap().unwrap();
    assert!(last.starts_with("5 records acknowledged (1 sent again, perhaps there twice) in "), "{last}");
    assert_eq!(server.run(&ALL).ok(), "a\nb\nc\nd\ne\n");
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_another_one() {
    let (_dir, server) = server_with_topic("1");
    let mut producer = Producer::start(&server, &[]);
    producer.write(b"old\n", 1);
    let mut consumer = server.command(&ALL[..4]);
    let mut consumer = consumer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "old");
    server.run(&["topic", "delete", "t"]).ok();
    server.run(&["topic", "create", "t"]).ok();
    producer.stdin.write_all(b"for the old one\n").unwrap();
    let why = "corelog: metadata was refused: unknown_topic (210): topic t was deleted and created again; start again \
               to use the new one";
    assert_eq!(producer.ended(), (Some(1), format!("{why}; 1 record acknowledged, 1 not written")));
    assert_eq!(wait(&mut consumer), Some(1));
    assert!(lines.next().is_none());
    let mut said = String::new();
    consumer.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    // It may have asked between the two.
    assert!(said.starts_with("corelog: metadata was refused: unknown_topic (210): topic t was deleted"), "{said}");
    assert_eq!(server.run(&ALL).ok(), "", "the new topic has nothing of the old one");
}

#[test]
fn an_interrupted_producer_leaves_an_account() {
    let (_dir, server) = server_with_topic("1");
    let mut producer = Producer::start(&server, &[]);
    producer.write(b"a\nb\n", 2);
    let pid = nix::unistd::Pid::from_raw(producer.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(producer.ended(), (Some(1), "corelog: stopped by SIGINT; 2 records acknowledged".to_owned()));
}
