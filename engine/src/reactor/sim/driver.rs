//! The simulator's driver: every operation becomes an event, and takes its effect when that comes.

use super::disk::{BLOCK, Create, Disk, FileId, Mark};
use super::event::{Event, ReactorKey};
use super::faults::{DiskOp, Fault};
use super::net::NodeIndex;
use super::random::Random;
use super::world::{Node, State};
use crate::model::Timestamp;
use crate::reactor::door::Door;
use crate::reactor::driver::{Drive, HandleKind};
use crate::reactor::file::{DirEntry, Open, Space, WriteSync};
use crate::reactor::ops::{Op, OpId, Ops};
use crate::reactor::socket::Chunk;
use crate::reactor::{Counters, Instant};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The driver of one reactor. The world calls [`SimDriver::land`] when an operation is due; there is nothing to poll
/// and nothing to park for.
pub(crate) struct SimDriver {
    state: Rc<RefCell<State>>,
    key: ReactorKey,
    node: NodeIndex,
    door: Arc<Door>,
    random: Random,
    /// Operations in flight, by their slot.
    flights: Vec<Option<Flight>>,
    files: Vec<Option<OpenFile>>,
    pipes: u64,
}

/// What must be known of an operation in flight beside itself.
#[derive(Debug)]
struct Flight {
    id: OpId,
    /// What a flush covers: what had landed when it began.
    mark: Mark,
    fault: Option<Fault>,
    /// Of a send: bytes that are on the wire.
    sent: usize,
    /// Of a piece of a file that is sent: what was read of it.
    read: Option<Vec<u8>>,
    /// Of a connect: the socket.
    socket: Option<u64>,
}

#[derive(Debug, Clone)]
struct OpenFile {
    id: FileId,
    /// By which it was opened.
    path: Rc<Path>,
    locked: bool,
    writable: bool,
}

impl SimDriver {
    pub(super) fn new(state: Rc<RefCell<State>>, key: ReactorKey, node: NodeIndex, random: Random) -> SimDriver {
        let door = Arc::new(Door::new(u64::from(key)));
        SimDriver { state, key, node, door, random, flights: Vec::new(), files: Vec::new(), pipes: 0 }
    }

    /// An operation takes its effect and is completed; a send may have more to do. An operation that is over already is
    /// left alone: a send can be woken for two reasons.
    pub(super) fn land(&mut self, id: OpId, ops: &mut Ops) {
        let Some(slot) = self.flights.get_mut(id.slot as usize) else { return };
        let Some(mut flight) = slot.take_if(|flight| flight.id == id) else { return };
        let op = ops.op(id);
        if disk_op(op).is_some() && flight.read.is_none() && self.hold_if_hung(id) {
            self.flights[id.slot as usize] = Some(flight);
            return;
        }
        let result = match op {
            Op::Send { stream, out } => {
                let mut left = after(flight.sent, out.pieces().iter().map(|piece| &piece[..]));
                self.send(stream.number(), &mut flight, out.len(), &mut left)
            }
            Op::Splice { .. } => self.splice(&mut flight, op),
            _ => Some(self.effect(&flight, op)),
        };
        match result {
            Some(result) => {
                self.state.borrow_mut().trace.add(result.as_ref().map_or(u64::MAX, |value| *value));
                ops.complete(id, result);
            }
            None => self.flights[id.slot as usize] = Some(flight),
        }
    }

    fn hold_if_hung(&self, id: OpId) -> bool {
        let node = &mut self.state.borrow_mut().nodes[self.node];
        if node.faults.hung {
            node.held.push((self.key, id));
        }
        node.faults.hung
    }

    fn effect(&mut self, flight: &Flight, op: &mut Op) -> io::Result<u64> {
        let state = self.state.clone();
        let state = &mut *state.borrow_mut();
        if let Op::Connect { .. } = op {
            return state.net.connected(flight.socket.unwrap_or(u64::MAX));
        }
        let node = &mut state.nodes[self.node];
        node.disk.writer = self.key;
        node.count(op);
        flight.fault.into_iter().for_each(|fault| node.count_fault(fault));
        if let Op::Write { position, data, .. } = op {
            state.trace.add(*position);
            state.trace.add_bytes(data);
        }
        if !self.is_allowed(op) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        match flight.fault {
            Some(Fault::Error(code)) => {
                self.fail(&mut node.disk, flight, op);
                Err(io::Error::from_raw_os_error(code))
            }
            Some(Fault::Lost) => Ok(0),
            Some(Fault::Misdirected) => self.misdirect(&mut node.disk, op),
            Some(Fault::Slow(_)) | None => self.perform(node, flight.mark, op),
        }
    }

    /// Does what the operation says and gives its number.
    fn perform(&mut self, node: &mut Node, mark: Mark, op: &mut Op) -> io::Result<u64> {
        let disk = &mut node.disk;
        match op {
            Op::Open { path, how, direct } => {
                *direct = *how != Open::ReadCached;
                let id = disk.open(path, create(*how))?;
                Ok(self.remember(OpenFile {
                    id,
                    path: path.as_path().into(),
                    locked: false,
                    writable: !matches!(how, Open::Read | Open::ReadCached),
                }))
            }
            Op::LockFile { path } => {
                let id = disk.lock(path)?;
                Ok(self.remember(OpenFile { id, path: path.as_path().into(), locked: true, writable: true }))
            }
            Op::Read { file, position, buffer } => Ok(disk.read(self.file(file.number()), *position, buffer) as u64),
            // What is read goes to the stream.
            Op::Splice { .. } => Ok(0),
            Op::Length { file } => Ok(disk.length(self.file(file.number()))),
            Op::Allocated { file } => Ok(disk.allocated(self.file(file.number()))),
            _ => self.change(disk, mark, op).map(|()| 0),
        }
    }

    fn change(&self, disk: &mut Disk, mark: Mark, op: &mut Op) -> io::Result<()> {
        match op {
            Op::CreateDir { path } => disk.create_dir(path)?,
            Op::Rename { from, to } => disk.rename(from, to)?,
            Op::RemoveFile { path } => disk.remove_file(path)?,
            Op::RemoveDir { path } => disk.remove_dir(path)?,
            Op::ListDir { path, entries } => list(disk, path, entries)?,
            Op::SyncDir { path } => disk.sync_dir(path, mark)?,
            Op::SyncFs { .. } => disk.sync_fs(mark)?,
            Op::SyncData { file } => disk.sync_data(self.file(file.number()), mark)?,
            Op::FreeSpace { space, .. } => *space = free_space(disk),
            Op::Write { file, position, data, sync } => {
                disk.write(self.file(file.number()), *position, data, *sync == WriteSync::Data)?;
            }
            Op::Allocate { file, position, length } => {
                disk.allocate(self.file(file.number()), *position, *length)?;
            }
            Op::Truncate { file, length } => disk.truncate(self.file(file.number()), *length),
            _ => unreachable!("not a change of the disk"),
        }
        Ok(())
    }

    /// What an operation that failed did all the same.
    fn fail(&mut self, disk: &mut Disk, flight: &Flight, op: &Op) {
        match op {
            Op::Write { .. } => self.write_in_part(disk, op),
            Op::SyncData { .. } | Op::SyncFs { .. } => disk.fail_flush(flight.mark),
            _ => {}
        }
    }

    fn write_in_part(&mut self, disk: &mut Disk, op: &Op) {
        let Op::Write { file, position, data, .. } = op else { return };
        let file = self.file(file.number());
        for (index, block) in data.chunks_exact(BLOCK).enumerate() {
            if self.random.coin() {
                // No space is one more way to have landed in part.
                let _ = disk.write(file, position + (index * BLOCK) as u64, block, false);
            }
        }
    }

    fn misdirect(&mut self, disk: &mut Disk, op: &Op) -> io::Result<u64> {
        let Op::Write { file, data, .. } = op else { return Ok(0) };
        let file = self.file(file.number());
        let blocks = disk.length(file).saturating_sub(data.len() as u64) / BLOCK as u64;
        let elsewhere = self.random.below(blocks + 1) * BLOCK as u64;
        disk.write(file, elsewhere, data, false).map(|()| 0)
    }

    fn send(
        &mut self,
        socket: u64,
        flight: &mut Flight,
        len: usize,
        left: &mut dyn Iterator<Item = &[u8]>,
    ) -> Option<io::Result<u64>> {
        let state = &mut *self.state.borrow_mut();
        match state.net.send(&mut state.schedule, &mut state.trace, socket, flight.id, left) {
            Ok(sent) => flight.sent += sent,
            Err(e) => return Some(Err(e)),
        }
        (flight.sent == len).then_some(Ok(0))
    }

    /// Reads the piece of the file, then sends it.
    fn splice(&mut self, flight: &mut Flight, op: &mut Op) -> Option<io::Result<u64>> {
        let Op::Splice { file, stream, position, length, .. } = op else { unreachable!("the caller looked") };
        let (file, socket, position, length) = (file.number(), stream.number(), *position, *length);
        let bytes = match flight.read.take() {
            Some(bytes) => bytes,
            None => {
                if let Err(error) = self.effect(flight, op) {
                    return Some(Err(error));
                }
                let (mut bytes, file) = (vec![0; length], self.file(file));
                let read = self.state.borrow().nodes[self.node].disk.read(file, position, &mut bytes);
                if read < length {
                    return Some(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                bytes
            }
        };
        let sent = self.send(socket, flight, length, &mut after(flight.sent, [&bytes[..]].into_iter()));
        flight.read = Some(bytes);
        sent
    }

    /// The crash of the process met an operation in flight: it may have happened, in whole or in part, or not.
    fn interrupt(&mut self, flight: &Flight, op: &mut Op) {
        let state = self.state.clone();
        let state = &mut *state.borrow_mut();
        let node = &mut state.nodes[self.node];
        match op {
            Op::Connect { .. } => {
                if let Some(socket) = flight.socket {
                    state.net.close(&mut state.schedule, socket);
                }
            }
            Op::Write { .. } => self.write_in_part(&mut node.disk, op),
            Op::Send { .. } | Op::Listen { .. } | Op::Splice { .. } => {}
            _ if disk_op(op) == Some(DiskOp::Meta) && self.random.coin() => {
                // An error would have gone to nobody.
                if let (Ok(number), Op::Open { .. } | Op::LockFile { .. }) = (self.perform(node, flight.mark, op), op) {
                    self.close_file(&mut node.disk, number);
                }
            }
            _ => {}
        }
    }

    fn remember(&mut self, file: OpenFile) -> u64 {
        let open = Some(file);
        match self.files.iter().position(Option::is_none) {
            Some(free) => {
                self.files[free] = open;
                free as u64
            }
            None => {
                self.files.push(open);
                self.files.len() as u64 - 1
            }
        }
    }

    /// Whether the file was opened for what the operation does to it.
    fn is_allowed(&self, op: &Op) -> bool {
        match op {
            Op::Write { file, .. } | Op::Allocate { file, .. } | Op::Truncate { file, .. } => {
                matches!(self.files.get(file.number() as usize), Some(Some(file)) if file.writable)
            }
            _ => true,
        }
    }

    fn file(&self, number: u64) -> FileId {
        match self.files.get(number as usize) {
            Some(Some(file)) => file.id,
            _ => unreachable!("a handle keeps its file open"),
        }
    }

    /// By which path the file was opened that an operation writes to.
    fn written_path(&self, op: &Op) -> Option<Rc<Path>> {
        let Op::Write { file, .. } = op else { return None };
        self.files.get(file.number() as usize)?.as_ref().map(|file| file.path.clone())
    }

    fn close_file(&mut self, disk: &mut Disk, number: u64) {
        match self.files[number as usize].take() {
            Some(OpenFile { id, locked: true, .. }) => disk.unlock(id),
            Some(OpenFile { id, locked: false, .. }) => disk.close(id),
            None => unreachable!("a file is closed once"),
        }
    }
}

impl Drive for SimDriver {
    fn start(&mut self, id: OpId, op: &mut Op, _counters: &Counters) -> Option<io::Result<u64>> {
        let state = &mut *self.state.borrow_mut();
        let now = state.schedule.now;
        let node = &mut state.nodes[self.node];
        let path = self.written_path(op);
        let mut flight = Flight { id, mark: node.disk.mark(), fault: None, sent: 0, read: None, socket: None };
        match op {
            Op::Pipe => {
                self.pipes += 1;
                return Some(Ok(self.pipes));
            }
            Op::Listen { address } => {
                let listening = state.net.listen(self.key, self.node, *address);
                return Some(listening.map(|(number, bound)| {
                    *address = bound;
                    number
                }));
            }
            Op::Connect { address } => {
                flight.socket = Some(state.net.connect(&mut state.schedule, self.key, self.node, id, *address));
            }
            Op::Send { .. } => state.schedule.push(now, Event::Land { reactor: self.key, op: id }),
            _ => {
                let delay;
                (flight.fault, delay) = node.begin(op, path.as_deref());
                state.schedule.push(now + delay, Event::Land { reactor: self.key, op: id });
            }
        }
        if self.flights.len() <= id.slot as usize {
            self.flights.resize_with(id.slot as usize + 1, || None);
        }
        self.flights[id.slot as usize] = Some(flight);
        None
    }

    /// It lands in its own time: a disk does not take back what it was told.
    fn abandon(&mut self, _id: OpId, _op: &Op) {}

    fn poll_receive(&mut self, stream: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let state = &mut *self.state.borrow_mut();
        let received = state.net.poll_receive(&mut state.schedule, stream, cx);
        received.map_ok(|bytes| bytes.map(Chunk::from))
    }

    fn poll_accept(&mut self, listener: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        self.state.borrow_mut().net.poll_accept(listener, cx)
    }

    /// What is received lies in the network's own buffers, which are each stream's alone.
    fn pause_receive(&mut self, _: u64) {}

    fn shutdown(&mut self, stream: u64) {
        let state = &mut *self.state.borrow_mut();
        state.net.shutdown(&mut state.schedule, stream);
    }

    fn close(&mut self, kind: HandleKind, number: u64) {
        let state = self.state.clone();
        let state = &mut *state.borrow_mut();
        match kind {
            HandleKind::File => self.close_file(&mut state.nodes[self.node].disk, number),
            HandleKind::Pipe => {}
            HandleKind::Stream => state.net.close(&mut state.schedule, number),
            HandleKind::Listener => state.net.close_listener(&mut state.schedule, number),
        }
    }

    fn poll(&mut self, _ops: &mut Ops, _counters: &Counters) -> bool {
        false
    }

    fn park(&mut self, _ops: &mut Ops, _counters: &Counters, _until: Option<Instant>) {}

    fn doorbell(&mut self, door: &Door) {
        let state = &mut *self.state.borrow_mut();
        let at = state.schedule.now + state.options.bell_ns.draw(&mut self.random);
        state.schedule.push(at, Event::Wake { reactor: door.address() as ReactorKey });
    }

    fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.state.borrow().schedule.now)
    }

    fn wall_clock(&self) -> Timestamp {
        self.state.borrow().wall_clock(self.node)
    }

    fn random(&mut self) -> u64 {
        self.random.bits()
    }

    fn drain(&mut self, ops: &mut Ops, _counters: &Counters) {
        for slot in 0..self.flights.len() {
            let Some(flight) = self.flights[slot].take() else { continue };
            self.interrupt(&flight, ops.op(flight.id));
            ops.complete(flight.id, Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
    }
}

/// Which kind of disk operation it is, or none.
pub(super) fn disk_op(op: &Op) -> Option<DiskOp> {
    match op {
        Op::Read { .. } | Op::Splice { .. } => Some(DiskOp::Read),
        Op::Write { .. } => Some(DiskOp::Write),
        Op::SyncData { .. } | Op::SyncDir { .. } | Op::SyncFs { .. } => Some(DiskOp::Flush),
        Op::Listen { .. } | Op::Connect { .. } | Op::Send { .. } | Op::Pipe => None,
        _ => Some(DiskOp::Meta),
    }
}

fn create(how: Open) -> Create {
    match how {
        Open::Read | Open::ReadCached | Open::ReadWrite => Create::No,
        Open::Create => Create::Allowed,
        Open::CreateNew => Create::Must,
    }
}

fn list(disk: &Disk, path: &Path, entries: &mut Vec<DirEntry>) -> io::Result<()> {
    entries.extend(disk.list_dir(path)?.into_iter().map(|(name, is_dir)| DirEntry { name, is_dir }));
    Ok(())
}

fn free_space(disk: &Disk) -> Space {
    let (free, total) = disk.space();
    Space { free, total }
}

/// The rest of a list of pieces after so many bytes.
fn after<'a>(mut skip: usize, pieces: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    pieces.filter_map(move |piece| {
        let passed = skip.min(piece.len());
        skip -= passed;
        (passed < piece.len()).then(|| &piece[passed..])
    })
}
