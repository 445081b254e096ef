//! A producer over every limit: sends whatever its socket takes, and after a refusal opens its partition again, as a client
//! should, and goes on.

use super::guest::{Guest, Tally};
use crate::disk::Result;
use crate::records::batch;
use corelog_batch::Codec;
use corelog_bench::Connection;
use corelog_wire::{Frame, HEADER_BYTES, Header, Open, Operation, Status, Text, Topic};
use nix::sys::epoll::EpollFlags;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Of a batch.
const RECORDS: u32 = 64;
const RECORD_BYTES: usize = 1000;
/// About as long as it is.
pub(super) const BATCH_BYTES: usize = RECORDS as usize * RECORD_BYTES;
const RECEIVE_BYTES: usize = 64 << 10;
/// Writes before others have their turn.
const WRITES_AT_ONCE: usize = 8;
/// Larger than any answer to it.
const ANSWER_BYTES_MAX: u32 = 1 << 20;
const HANDLE_AT: usize = 12;

pub(super) struct Flood {
    stream: TcpStream,
    topic: &'static str,
    partition: u32,
    /// None after a refusal, until the partition is open again.
    handle: Option<u32>,
    /// A whole produce but for its handle.
    produce: Vec<u8>,
    /// What is being sent, and how much of it was.
    out: Vec<u8>,
    sent: usize,
    /// Goes before the next produce.
    urgent: Vec<u8>,
    received: Vec<u8>,
    tally: Tally,
}

impl Flood {
    pub(super) fn begin(shard: SocketAddr, topic: &'static str, partition: u32) -> Result<Flood> {
        let mut connection = Connection::open(shard)?;
        let (handle, _) = connection.open_partition(topic, partition)?;
        let body = batch(0, RECORDS, RECORD_BYTES, 0, Codec::None);
        let header = Header { length: body.len() as u32, ..Header::request(Operation::Produce, 0, 0) };
        let stream = connection.into_stream();
        stream.set_nonblocking(true)?;
        Ok(Flood {
            stream,
            topic,
            partition,
            handle: Some(handle),
            produce: [&header.to_bytes()[..], &body].concat(),
            out: Vec::new(),
            sent: 0,
            urgent: Vec::new(),
            received: Vec::new(),
            tally: Tally::default(),
        })
    }

    /// Chooses what is sent next, if nothing is; whether there is something.
    fn has_more(&mut self) -> bool {
        if self.sent < self.out.len() {
            return true;
        }
        self.sent = 0;
        self.out.clear();
        if !self.urgent.is_empty() {
            std::mem::swap(&mut self.out, &mut self.urgent);
        } else if let Some(handle) = self.handle {
            self.out.extend_from_slice(&self.produce);
            self.out[HANDLE_AT..HEADER_BYTES].copy_from_slice(&handle.to_le_bytes());
        }
        !self.out.is_empty()
    }

    fn send(&mut self) -> io::Result<()> {
        for _ in 0..WRITES_AT_ONCE {
            if !self.has_more() {
                break;
            }
            match self.stream.write(&self.out[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; RECEIVE_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.received.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some(frame) = Frame::first(rest, ANSWER_BYTES_MAX).map_err(io::Error::other)? {
            self.take(frame.header);
            rest = &rest[frame.size()..];
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, answer: Header) {
        let is_good = answer.status == Status::Ok as u16;
        match Operation::from_code(answer.operation) {
            Some(Operation::Produce) if is_good => self.tally.acknowledged += 1,
            Some(Operation::Produce) => {
                self.tally.refused += 1;
                if self.handle == Some(answer.handle) {
                    self.handle = None;
                    Header::request(Operation::Close, 0, answer.handle).put(&(), 0, &mut self.urgent);
                    self.open();
                }
            }
            Some(Operation::Open) if is_good => self.handle = Some(answer.handle),
            Some(Operation::Open) => self.open(),
            _ => {}
        }
    }

    fn open(&mut self) {
        let open = Open { topic: Topic::Name(Text::truncated(self.topic)), partition: self.partition };
        Header::request(Operation::Open, 0, 0).put(&open, 0, &mut self.urgent);
    }
}

impl Guest for Flood {
    fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn interest(&self) -> EpollFlags {
        let is_sending = self.sent < self.out.len() || !self.urgent.is_empty() || self.handle.is_some();
        if is_sending { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
    }

    fn ready(&mut self, events: EpollFlags) -> io::Result<()> {
        if events != EpollFlags::EPOLLOUT {
            self.receive()?;
        }
        self.send()
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}
