//! A durable echo server that does the least possible: one thread, one ring, no format, no checksum, no index.
//!
//! It receives frames of one fixed size, gathers all that arrived into one buffer, writes that directly and durably
//! ([`Durable`]) to a zero-filled file, and then acknowledges every frame of it. One write is under way while the next is
//! gathered. What it speaks is in [`crate::frame`].

use crate::disk::{scratch_file, written, zero_fill};
use crate::frame::{gather, push_ack, take_frames};
use crate::memory::Memory;
use crate::ring::Ring;
use crate::{SPIN, pin};
use io_uring::types::BufRingEntry;
use io_uring::{cqueue, opcode, squeue, types};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const CHUNK_BYTES: usize = 16 << 10;
const CHUNKS: u16 = 512;
const CHUNK_GROUP: u16 = 0;
/// How soon a parked loop sees that it should stop.
const PARK: Duration = Duration::from_millis(20);

/// How a write is made durable. Which is faster depends on device, kernel and which cores are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// The write does it itself (RWF_DSYNC).
    Dsync,
    /// A write, and linked to it an fdatasync.
    Flush,
}

/// What the loop serves and where it writes.
pub struct Options {
    /// A directory on the file system to be measured.
    pub directory: PathBuf,
    /// Bytes of the zero-filled file, which is written round and round.
    pub file_bytes: u64,
    /// Bytes of every request frame, header included.
    pub frame_bytes: usize,
    /// Bytes of every acknowledgement after its header.
    pub ack_bytes: usize,
    /// Bound of one gathered write: requests that may be outstanding at once, in bytes.
    pub gather_bytes: usize,
    /// Core to run on.
    pub cpu: Option<usize>,
    /// How writes are made durable.
    pub durable: Durable,
}

/// What a loop did, from start to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Durable writes.
    pub writes: u64,
    /// Frames acknowledged.
    pub frames: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
}

/// A running loop. Dropping it stops it.
pub struct Bare {
    address: SocketAddr,
    thread_id: i32,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Totals>>>,
}

impl Bare {
    /// Starts the loop on a thread of its own and returns when it listens on a free loopback port.
    ///
    /// # Errors
    /// What sockets, file or ring answered at start.
    pub fn start(options: Options) -> io::Result<Bare> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (started, wait) = mpsc::channel();
        let stopping = stop.clone();
        let thread = thread::Builder::new().name("bare".into()).spawn(move || {
            pin(options.cpu)?;
            let mut server = Server::new(listener, &options)?;
            let _ = started.send(nix::unistd::gettid().as_raw());
            let ran = server.run(&stopping);
            server.ring.drain()?;
            ran.map(|()| server.totals)
        })?;
        match wait.recv() {
            Ok(thread_id) => Ok(Bare { address, thread_id, stop, thread: Some(thread) }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| io::Error::other("the loop ended at its start"))),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kernel's number of its thread, for its CPU time in /proc.
    pub fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// Stops it.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop(mut self) -> io::Result<Totals> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map_or_else(|| Ok(Totals::default()), join)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = join(thread);
        }
    }
}

fn join(thread: JoinHandle<io::Result<Totals>>) -> io::Result<Totals> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the loop panicked")))
}

/// What a completion is about, kept in its user data: the kind above, a connection's number below.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const WRITE: u64 = 3 << 32;
const FLUSH: u64 = 4 << 32;

struct Server {
    listener: TcpListener,
    file: File,
    file_bytes: u64,
    position: u64,
    frame_bytes: usize,
    ack_bytes: usize,
    connections: Vec<Connection>,
    /// Filled while `writing` is under way.
    gathering: Gathered,
    writing: Gathered,
    /// Bytes of the write under way; 0 when there is none.
    writing_bytes: usize,
    durable: Durable,
    totals: Totals,
    chunks: Chunks,
    ring: Ring,
}

/// One write's worth of requests and whom to tell.
struct Gathered {
    memory: Memory,
    filled: usize,
    acks: Vec<(u32, u32)>,
}

struct Connection {
    socket: Option<OwnedFd>,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// Acknowledgements to be sent once `sending` is out.
    pending: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
}

impl Server {
    fn new(listener: TcpListener, options: &Options) -> io::Result<Server> {
        let ring = Ring::new(1024, SPIN)?;
        let chunks = Chunks::register(&ring)?;
        let file = scratch_file(&options.directory)?;
        zero_fill(&file, options.file_bytes)?;
        Ok(Server {
            listener,
            file,
            file_bytes: options.file_bytes,
            position: 0,
            frame_bytes: options.frame_bytes,
            ack_bytes: options.ack_bytes,
            connections: Vec::new(),
            gathering: Gathered::new(options.gather_bytes)?,
            writing: Gathered::new(options.gather_bytes)?,
            writing_bytes: 0,
            durable: options.durable,
            totals: Totals::default(),
            chunks,
            ring,
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        self.start_accept()?;
        while !stop.load(Ordering::Acquire) {
            self.ring.wait(PARK)?;
            while let Some(done) = self.ring.next() {
                self.complete(&done)?;
            }
            self.start_write()?;
        }
        Ok(())
    }

    fn complete(&mut self, done: &cqueue::Entry) -> io::Result<()> {
        let id = done.user_data() as u32 as usize;
        match done.user_data() & !0xffff_ffff {
            ACCEPT => self.accepted(done),
            RECEIVE => self.received(id, done),
            SEND => self.sent(id, done.result()),
            WRITE => self.written(done.result()),
            _ if done.result() < 0 => Err(io::Error::from_raw_os_error(-done.result())),
            _ => self.acknowledge(),
        }
    }

    fn start_accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).build().user_data(ACCEPT);
        // SAFETY: points to nothing; the listener outlives the ring's use of it.
        unsafe { self.ring.push(&accept) }
    }

    fn accepted(&mut self, done: &cqueue::Entry) -> io::Result<()> {
        if done.result() < 0 {
            return Err(io::Error::from_raw_os_error(-done.result()));
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else has seen it.
        let socket = unsafe { OwnedFd::from_raw_fd(done.result()) };
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        self.connections.push(Connection {
            socket: Some(socket),
            partial: Vec::with_capacity(self.frame_bytes),
            pending: Vec::with_capacity(CHUNK_BYTES),
            sending: Vec::with_capacity(CHUNK_BYTES),
            sent: 0,
        });
        self.start_receive(self.connections.len() - 1)?;
        if cqueue::more(done.flags()) { Ok(()) } else { self.start_accept() }
    }

    fn start_receive(&mut self, id: usize) -> io::Result<()> {
        let Some(socket) = &self.connections[id].socket else { return Ok(()) };
        let receive = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), CHUNK_GROUP).build();
        // SAFETY: the kernel writes into the registered chunks alone, which live until the ring is drained.
        unsafe { self.ring.push(&receive.user_data(RECEIVE | id as u64)) }
    }

    fn received(&mut self, id: usize, done: &cqueue::Entry) -> io::Result<()> {
        match done.result() {
            bytes if bytes > 0 => {
                let chunk = cqueue::buffer_select(done.flags()).ok_or(io::ErrorKind::InvalidData)?;
                let arrived = &self.chunks.memory[usize::from(chunk) * CHUNK_BYTES..][..bytes as usize];
                let partial = &mut self.connections[id].partial;
                let add = |correlation, body: &[u8]| self.gathering.add(id as u32, correlation, body);
                take_frames(arrived, partial, self.frame_bytes, add)?;
                self.chunks.give_back(chunk);
            }
            // The ring ran out of chunks for a moment; receiving again is all there is to do.
            refused if refused == -libc::ENOBUFS => {}
            _ => {
                self.connections[id].socket = None;
                return Ok(());
            }
        }
        if cqueue::more(done.flags()) { Ok(()) } else { self.start_receive(id) }
    }

    /// Writes what was gathered, unless a write is under way.
    fn start_write(&mut self) -> io::Result<()> {
        if self.writing_bytes > 0 || self.gathering.acks.is_empty() {
            return Ok(());
        }
        std::mem::swap(&mut self.gathering, &mut self.writing);
        self.writing_bytes = self.writing.filled.next_multiple_of(4096);
        if self.position + self.writing_bytes as u64 > self.file_bytes {
            self.position = 0;
        }
        let (file, memory) = (types::Fd(self.file.as_raw_fd()), self.writing.memory.as_ptr());
        let write = opcode::Write::new(file, memory, self.writing_bytes as u32).offset(self.position);
        self.position += self.writing_bytes as u64;
        // SAFETY: `writing` is not touched until its completion, and lives until the ring is drained.
        unsafe {
            match self.durable {
                Durable::Dsync => self.ring.push(&write.rw_flags(libc::RWF_DSYNC).build().user_data(WRITE)),
                Durable::Flush => {
                    self.ring.push(&write.build().flags(squeue::Flags::IO_LINK).user_data(WRITE))?;
                    let flush = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
                    self.ring.push(&flush.user_data(FLUSH))
                }
            }
        }
    }

    fn written(&mut self, result: i32) -> io::Result<()> {
        written(result, self.writing_bytes)?;
        if self.durable == Durable::Dsync { self.acknowledge() } else { Ok(()) }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        self.totals.writes += 1;
        self.totals.frames += self.writing.acks.len() as u64;
        self.totals.bytes += self.writing_bytes as u64;
        self.writing_bytes = 0;
        // Everybody's acknowledgements first, then the sends: each connection gets one.
        for (id, correlation) in &self.writing.acks {
            push_ack(&mut self.connections[*id as usize].pending, *correlation, self.ack_bytes);
        }
        for at in 0..self.writing.acks.len() {
            self.start_send(self.writing.acks[at].0 as usize)?;
        }
        self.writing.acks.clear();
        self.writing.filled = 0;
        // The next write goes out with the same system call as these acknowledgements.
        self.start_write()
    }

    fn start_send(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        if connection.sending.is_empty() {
            std::mem::swap(&mut connection.sending, &mut connection.pending);
            self.push_send(id)?;
        }
        Ok(())
    }

    fn push_send(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        let rest = &connection.sending[connection.sent..];
        let (Some(socket), false) = (&connection.socket, rest.is_empty()) else { return Ok(()) };
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(SEND | id as u64);
        // SAFETY: `sending` is neither changed nor moved while it is not empty, and connections are never removed.
        unsafe { self.ring.push(&send) }
    }

    fn sent(&mut self, id: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.sent += usize::try_from(result).unwrap_or(connection.sending.len());
        if connection.sent < connection.sending.len() {
            return self.push_send(id);
        }
        connection.sending.clear();
        connection.sent = 0;
        self.start_send(id)
    }
}

impl Gathered {
    fn new(bytes: usize) -> io::Result<Gathered> {
        Ok(Gathered { memory: Memory::new(bytes)?, filled: 0, acks: Vec::with_capacity(4096) })
    }

    fn add(&mut self, connection: u32, correlation: u32, body: &[u8]) -> io::Result<()> {
        gather(&mut self.memory, &mut self.filled, body)?;
        self.acks.push((connection, correlation));
        Ok(())
    }
}

/// The ring of chunks the kernel receives into.
struct Chunks {
    memory: Memory,
    entries: Memory,
    tail: u16,
}

impl Chunks {
    fn register(ring: &Ring) -> io::Result<Chunks> {
        let memory = Memory::new(usize::from(CHUNKS) * CHUNK_BYTES)?;
        let entries = Memory::new(usize::from(CHUNKS) * size_of::<BufRingEntry>())?;
        // SAFETY: the entries are page-aligned and live, as the chunks do, until the ring has been drained.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, CHUNKS, CHUNK_GROUP, 0)? };
        let mut chunks = Chunks { memory, entries, tail: 0 };
        (0..CHUNKS).for_each(|chunk| chunks.give_back(chunk));
        Ok(chunks)
    }

    fn give_back(&mut self, chunk: u16) {
        let first = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below CHUNKS, and an entry at the tail belongs to us until the tail moves past it.
        let entry = unsafe { &mut *first.add(usize::from(self.tail % CHUNKS)) };
        entry.set_addr(self.memory[usize::from(chunk) * CHUNK_BYTES..].as_ptr() as u64);
        entry.set_len(CHUNK_BYTES as u32);
        entry.set_bid(chunk);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `first` is the ring's first entry, whose reserved field is the tail, two bytes, aligned.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(first).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;
    use crate::frame::u32_at;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn acknowledges_each_frame_once_in_order_however_they_are_cut() {
        for durable in [Durable::Dsync, Durable::Flush] {
            acknowledges_each_frame_once_in_order(durable);
        }
    }

    fn acknowledges_each_frame_once_in_order(durable: Durable) {
        let bare = Bare::start(Options {
            directory: ".".into(),
            file_bytes: 4 << 20,
            frame_bytes: 1000,
            ack_bytes: 8,
            gather_bytes: 1 << 20,
            cpu: None,
            durable,
        })
        .expect("starts");
        let mut stream = TcpStream::connect(bare.address()).expect("connects");
        let requests: Vec<u8> = (0..300).flat_map(|correlation| frame(correlation, 1000)).collect();
        for cut in requests.chunks(777) {
            stream.write_all(cut).expect("sends");
        }
        for correlation in 0..300 {
            let mut ack = [0; 24];
            stream.read_exact(&mut ack).expect("an acknowledgement");
            assert_eq!((u32_at(&ack, 0), u32_at(&ack, 4), ack[9]), (8, correlation, 1));
        }
        let totals = bare.stop().expect("stops");
        assert_eq!(totals.frames, 300);
        assert!(totals.writes <= 300 && totals.bytes >= 300 * 984);
    }
}
