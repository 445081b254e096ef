//! The broker as it is measured: a process of its own, asked over loopback.

use corelog_yardstick::frame::HEADER_BYTES;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const FRAME_BYTES: usize = 1000;
const BODY_BYTES: usize = FRAME_BYTES - HEADER_BYTES;
const CONNECTIONS: u32 = 8;
const ROUNDS: u32 = 50;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A started broker. Dropping it kills it.
struct Broker(Child, String);

impl Broker {
    fn start(file: &Path, durable: &str) -> Broker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_corelog-glommio"))
            .arg("--file")
            .arg(file)
            .args(["--file-bytes", "4194304", "--ack-bytes", "8", "--frame-bytes", &FRAME_BYTES.to_string()])
            .args(["--durable", durable])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut address).expect("says where it listens");
        Broker(child, address.trim().to_owned())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.1).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A body that says which it is, in every word of it.
fn body(correlation: u32) -> Vec<u8> {
    correlation.to_le_bytes().repeat(BODY_BYTES / 4)
}

fn send(stream: &mut TcpStream, correlation: u32) {
    let mut frame = (BODY_BYTES as u32).to_le_bytes().to_vec();
    frame.extend(correlation.to_le_bytes());
    frame.resize(HEADER_BYTES, 0);
    frame.extend(body(correlation));
    // In two pieces: frames are put together again.
    for piece in frame.chunks(777) {
        stream.write_all(piece).expect("sends");
    }
}

fn expect_ack(stream: &mut TcpStream, correlation: u32) {
    let mut ack = [0; HEADER_BYTES + 8];
    stream.read_exact(&mut ack).expect("an acknowledgement");
    assert_eq!((&ack[..4], &ack[4..8], ack[9]), (&8_u32.to_le_bytes()[..], &correlation.to_le_bytes()[..], 1));
}

/// Which bodies a file holds, in the order of their places; every one must be whole.
fn bodies(file: &[u8]) -> Vec<u32> {
    let (mut at, mut found) = (0, Vec::new());
    while at + BODY_BYTES <= file.len() {
        let first = u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        if first > 0 && file[at..at + BODY_BYTES] == body(first) {
            found.push(first);
            at += BODY_BYTES;
        } else {
            // The rest of a write is padding up to the next block.
            at = (at + 1).next_multiple_of(4096);
        }
    }
    found
}

fn what_is_acknowledged_is_in_the_file(durable: &str) {
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let path = directory.path().join("file");
    let mut broker = Broker::start(&path, durable);
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| broker.connect()).collect();
    let number = |round, connection: usize| 1 + round * CONNECTIONS + connection as u32;
    for round in 0..ROUNDS {
        streams.iter_mut().enumerate().for_each(|(at, stream)| send(stream, number(round, at)));
        streams.iter_mut().enumerate().for_each(|(at, stream)| expect_ack(stream, number(round, at)));
        let mut there = bodies(&fs::read(&path).expect("the file"));
        // The padding of a write holds what was in its memory before: a body may be there twice.
        there.sort_unstable();
        there.dedup();
        assert_eq!(there, (1..=(round + 1) * CONNECTIONS).collect::<Vec<_>>(), "after round {round}");
    }
    drop(broker.0.stdin.take());
    assert!(broker.0.wait().expect("ends").success(), "it ends with its input");
}

#[test]
fn what_is_acknowledged_is_in_the_file_with_an_fdatasync() {
    what_is_acknowledged_is_in_the_file("flush");
}

#[test]
fn what_is_acknowledged_is_in_the_file_with_o_dsync() {
    what_is_acknowledged_is_in_the_file("dsync");
}

#[test]
fn a_frame_of_another_size_ends_it_with_an_error() {
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let mut broker = Broker::start(&directory.path().join("file"), "flush");
    // Waiting would close its input, which ends it as well.
    let _input = broker.0.stdin.take();
    broker.connect().write_all(&[0xff; FRAME_BYTES]).expect("sends");
    assert_eq!(broker.0.wait().expect("ends").code(), Some(1));
}
