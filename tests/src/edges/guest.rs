//! The kinds of bad clients, and one such client.

use super::flood::Flood;
use super::{BAIT, FLOOD, HONEST, PARTITIONS};
use crate::disk::Result;
use corelog_bench::Connection;
use corelog_wire::{Fetch, HEADER_BYTES, Header, Hello, Magic, Operation, Subscribe, Text, VERSION_MAX, VERSION_MIN};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection may take to be made before it counts as refused.
const CONNECT_TIME: Duration = Duration::from_millis(500);
/// Little, so that what a slow reader does not take is the server's to keep, not the kernel's.
const SLOW_RECEIVE_BYTES: usize = 8 << 10;
/// What a slow reader asks for at once.
const FETCHES: usize = 8;
const FETCH_BYTES: u32 = 16 << 20;
/// Subscriptions of a connection that gives no credit.
const SUBSCRIPTIONS: usize = 200;
/// What a writer that sends a byte a second says that its frame will have.
const ANNOUNCED_BYTES: u32 = 1 << 20;
const READ_BYTES: usize = 64 << 10;

/// What is wrong with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connects and never says hello.
    Silent,
    /// Asks for all there is and never reads an answer.
    NeverRead,
    /// Sends a byte a second: half of them of their hello, half of a produce.
    ByteASecond,
    /// Subscribes and grants no credit.
    NoCredit,
    /// Produces as fast as its sockets take it.
    Flood,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Silent, Kind::NeverRead, Kind::ByteASecond, Kind::NoCredit, Kind::Flood];

    /// As `--only` has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Silent => "silent",
            Kind::NeverRead => "never-read",
            Kind::ByteASecond => "byte-a-second",
            Kind::NoCredit => "no-credit",
            Kind::Flood => "flood",
        }
    }

    /// The topic that they ask for, or that others have whom they disturb.
    pub(super) fn topic(self) -> &'static str {
        match self {
            Kind::Silent | Kind::ByteASecond | Kind::NoCredit => HONEST,
            Kind::NeverRead => BAIT,
            Kind::Flood => FLOOD,
        }
    }

    /// How many of them come, and come again when they are closed. How many stay at once is for the server to say.
    pub fn connections(self) -> usize {
        match self {
            Kind::Silent => 10_000,
            Kind::NeverRead => 200,
            Kind::ByteASecond => 1000,
            Kind::NoCredit => 100,
            Kind::Flood => 8,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A bad client's connection. An error is its end.
pub(super) trait Guest {
    fn stream(&self) -> &TcpStream;

    /// What it wants to be told of its socket, beside its end.
    fn interest(&self) -> EpollFlags;

    /// Its socket is ready for that.
    fn ready(&mut self, events: EpollFlags) -> io::Result<()>;

    /// A second has passed.
    fn second(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What became of its produces.
    fn tally(&self) -> Tally {
        Tally::default()
    }
}

/// Produces by what became of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
}

/// Lets the `number`th of its kind in. `shards` are where the partitions of its kind's topic are.
pub(super) fn arrive(kind: Kind, number: usize, shards: &[SocketAddr]) -> Result<Box<dyn Guest>> {
    let partition = number as u32 % PARTITIONS;
    let shard = shards[partition as usize];
    Ok(match kind {
        Kind::Silent => Box::new(Idler::new(TcpStream::connect_timeout(&shard, CONNECT_TIME)?, Vec::new())?),
        Kind::NeverRead => Box::new(never_read(shard, kind.topic(), partition, number)?),
        // Numbers with the same remainder go to the same partition.
        Kind::ByteASecond if (number as u32 / PARTITIONS).is_multiple_of(2) => {
            Box::new(Idler::new(TcpStream::connect_timeout(&shard, CONNECT_TIME)?, hello())?)
        }
        Kind::ByteASecond => Box::new(slow_writer(shard, kind.topic(), partition)?),
        Kind::NoCredit => Box::new(no_credit(shard, kind.topic(), partition)?),
        Kind::Flood => Box::new(Flood::begin(shard, kind.topic(), partition)?),
    })
}

/// Does nothing with its connection, or next to nothing.
struct Idler {
    stream: TcpStream,
    /// Whether it takes what the server sends, to throw it away.
    reads: bool,
    /// What it sends, a byte a second.
    trickle: Vec<u8>,
    sent: usize,
}

impl Idler {
    fn new(stream: TcpStream, trickle: Vec<u8>) -> io::Result<Idler> {
        stream.set_nonblocking(true)?;
        Ok(Idler { stream, reads: true, trickle, sent: 0 })
    }
}

impl Guest for Idler {
    fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn interest(&self) -> EpollFlags {
        if self.reads { EpollFlags::EPOLLIN } else { EpollFlags::empty() }
    }

    fn ready(&mut self, events: EpollFlags) -> io::Result<()> {
        match self.reads {
            true => discard(&self.stream),
            false if events.is_empty() => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn second(&mut self) -> io::Result<()> {
        let Some(byte) = self.trickle.get(self.sent) else { return Ok(()) };
        (&self.stream).write_all(std::slice::from_ref(byte))?;
        self.sent += 1;
        Ok(())
    }
}

fn discard(mut stream: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; READ_BYTES];
    match stream.read(&mut bytes) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    let (software, client_id) = (Text::truncated("a byte a second"), Text::truncated(""));
    let (version_min, version_max) = (VERSION_MIN, VERSION_MAX);
    let hello = Hello { magic: Magic, version_min, version_max, features: 0, software, client_id };
    Header::request(Operation::Hello, 1, 0).put(&hello, 0, &mut bytes);
    bytes
}

fn slow_writer(shard: SocketAddr, topic: &str, partition: u32) -> Result<Idler> {
    let mut connection = Connection::open(shard)?;
    let (handle, _) = connection.open_partition(topic, partition)?;
    let header = Header { length: ANNOUNCED_BYTES, ..Header::request(Operation::Produce, 1, handle) };
    let mut frame = header.to_bytes().to_vec();
    frame.resize(HEADER_BYTES + ANNOUNCED_BYTES as usize, 0);
    Ok(Idler::new(connection.into_stream(), frame)?)
}

/// Half of them fetch, half subscribe.
fn never_read(shard: SocketAddr, topic: &str, partition: u32, number: usize) -> Result<Idler> {
    let mut connection = Connection::open(shard)?;
    let (handle, opened) = connection.open_partition(topic, partition)?;
    let offset = opened.first;
    if (number as u32 / PARTITIONS).is_multiple_of(2) {
        let fetch = Fetch { offset, bytes_max: FETCH_BYTES, bytes_min: 1, wait_ms: 0 };
        (0..FETCHES).try_for_each(|_| connection.send(Operation::Fetch, handle, &fetch, &[]))?;
    } else {
        let subscribe = Subscribe { offset, credit: u32::MAX, bytes_max: FETCH_BYTES };
        connection.send(Operation::Subscribe, handle, &subscribe, &[])?;
    }
    let stream = connection.into_stream();
    setsockopt(&stream, RcvBuf, &SLOW_RECEIVE_BYTES)?;
    Ok(Idler { reads: false, ..Idler::new(stream, Vec::new())? })
}

/// Where honest clients write every commit could wake its subscriptions. The last subscription has credit for one byte,
/// which lets one push begin.
fn no_credit(shard: SocketAddr, topic: &str, partition: u32) -> Result<Idler> {
    let mut connection = Connection::open(shard)?;
    let (handle, opened) = connection.open_partition(topic, partition)?;
    let subscribe = |credit| Subscribe { offset: opened.high_watermark, credit, bytes_max: FETCH_BYTES };
    for _ in 1..SUBSCRIPTIONS {
        connection.call(Operation::Subscribe, handle, &subscribe(0), &[])?;
    }
    connection.send(Operation::Subscribe, handle, &subscribe(1), &[])?;
    Ok(Idler::new(connection.into_stream(), Vec::new())?)
}
