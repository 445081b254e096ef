//! Operations of the front as entries of the ring, and what their completions mean.
#![allow(unsafe_code)]

use super::descriptors::{OpenFile, What, check};
use super::helper::{Answer, Job};
use super::queue::{Order, Token};
use super::sockets::{listen_on, tcp_socket};
use super::{RingDriver, ended};
use crate::reactor::buffers::PAGE;
use crate::reactor::file::{Open, WriteSync};
use crate::reactor::ops::{Op, OpId};
use crate::reactor::socket::Outgoing;
use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Pieces of one send; the kernel takes up to 1024, the list is kept per operation.
const PIECES_MAX: usize = 64;
/// Bytes of one entry of the table of registered buffers; the kernel's limit. Blocks of the pool do not straddle it.
pub(super) const REGISTERED_MAX: usize = 1 << 30;

/// What an operation keeps besides the `Op` while the kernel may look at it. Boxed, so that it stays where it is;
/// reused by the next operation in the slot.
pub(super) struct Work {
    /// The operation in this slot, while it is under way.
    pub(super) id: Option<OpId>,
    /// Bytes moved so far.
    done: usize,
    /// Splice: bytes behind those that are in the pipe.
    piped: usize,
    /// Open: whether the page cache is to be bypassed.
    direct: bool,
    /// Write: all bytes are written, and a flush makes them durable.
    flushing: bool,
    /// Connect: the stream.
    number: u64,
    paths: [CString; 2],
    address: Option<SockaddrStorage>,
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            id: None,
            done: 0,
            piped: 0,
            direct: true,
            flushing: false,
            number: 0,
            paths: Default::default(),
            address: None,
            // SAFETY: all zeros is a valid empty header.
            header: unsafe { std::mem::zeroed() },
            pieces: Vec::new(),
        }
    }
}

/// How an operation goes on.
pub(super) enum Next {
    Done(io::Result<u64>),
    /// There is more to do: issue it again.
    Again,
}

impl RingDriver {
    /// What is over at once, goes to the helper, or goes to the ring.
    pub(super) fn begin(&mut self, id: OpId, op: &mut Op) -> Option<io::Result<u64>> {
        let job = match op {
            _ if self.draining => return Some(Err(ended())),
            Op::Listen { address } => return Some(self.listen(address)),
            Op::Pipe => return Some(self.open_pipe()),
            Op::Length { file } => return Some(self.stat(file.number()).map(|stat| stat.st_size as u64)),
            Op::Allocated { file } => return Some(self.stat(file.number()).map(|stat| stat.st_blocks as u64 * 512)),
            Op::ListDir { path, .. } => Job::ListDir(path.clone()),
            Op::SyncDir { path } => Job::SyncDir(path.clone()),
            Op::SyncFs { path } => Job::SyncFs(path.clone()),
            Op::FreeSpace { path, .. } => Job::FreeSpace(path.clone()),
            Op::LockFile { path } => Job::LockFile(path.clone()),
            Op::Truncate { file, length } => Job::Truncate(self.descriptors.raw_fd(file.number()), *length),
            _ => return self.prepare(id, op).err().map(Err),
        };
        self.before_handing_over(id, op);
        self.in_flight += 1;
        self.helper.ask(Some(id), job);
        None
    }

    /// Sets up the slot's work and issues the first entry.
    fn prepare(&mut self, id: OpId, op: &mut Op) -> io::Result<()> {
        let slot = id.slot as usize;
        if self.work.len() <= slot {
            self.work.resize_with(slot + 1, Box::default);
        }
        let work = &mut self.work[slot];
        work.done = 0;
        work.piped = 0;
        work.direct = !matches!(op, Op::Open { how: Open::ReadCached, .. });
        work.flushing = false;
        match op {
            Op::Open { path, .. } | Op::CreateDir { path } | Op::RemoveFile { path } | Op::RemoveDir { path } => {
                work.paths[0] = c_string(path)?;
            }
            Op::Rename { from, to } => work.paths = [c_string(from)?, c_string(to)?],
            Op::Connect { address } => {
                work.address = Some(SockaddrStorage::from(*address));
                let fd = tcp_socket(*address)?;
                let number = self.open(fd, What::Stream(Box::default()));
                self.work[slot].number = number;
            }
            _ => {}
        }
        self.work[slot].id = Some(id);
        self.in_flight += 1;
        self.issue(id, op);
        Ok(())
    }

    /// Issues what is left of an operation.
    pub(super) fn issue(&mut self, id: OpId, op: &mut Op) {
        self.before_handing_over(id, op);
        let entry = self.entry(id.slot as usize, op);
        let order = self.work[id.slot as usize].order(op);
        // SAFETY: the entry points into the op's buffers and into the slot's boxed work. The front keeps the op, and
        // `work` keeps the box, until the completion was taken in; neither is touched in between but by `entry`.
        unsafe { self.queue.push(order, entry, Token::op(id)) };
    }

    fn entry(&mut self, slot: usize, op: &mut Op) -> Entry {
        let work = &mut self.work[slot];
        let here = types::Fd(libc::AT_FDCWD);
        let path = work.paths[0].as_ptr();
        match op {
            Op::Open { how, .. } => {
                opcode::OpenAt::new(here, path).flags(open_flags(*how, work.direct)).mode(0o644).build()
            }
            Op::CreateDir { .. } => opcode::MkDirAt::new(here, path).mode(0o755).build(),
            Op::RemoveFile { .. } => opcode::UnlinkAt::new(here, path).build(),
            Op::RemoveDir { .. } => opcode::UnlinkAt::new(here, path).flags(libc::AT_REMOVEDIR).build(),
            Op::Rename { .. } => opcode::RenameAt::new(here, path, here, work.paths[1].as_ptr()).build(),
            Op::Connect { .. } => {
                let Some(address) = &work.address else { unreachable!("set when the operation was prepared") };
                let target = self.descriptors.target(work.number);
                target.entry(|fd| opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build())
            }
            Op::Read { file, position, buffer } => {
                let (done, pointer) = (work.done, buffer[work.done..].as_mut_ptr());
                let (len, position) = ((buffer.len() - done) as u32, *position + done as u64);
                let registered = self.registered_index(pointer, buffer.is_of(&self.pool));
                self.descriptors.target(file.number()).entry(|fd| match registered {
                    Some(index) => opcode::ReadFixed::new(fd, pointer, len, index).offset(position).build(),
                    None => opcode::Read::new(fd, pointer, len).offset(position).build(),
                })
            }
            Op::Write { file, .. } if work.flushing => self.descriptors.target(file.number()).entry(flush),
            Op::Write { file, position, data, sync } => {
                let (done, pointer) = (work.done, data[work.done..].as_ptr());
                let (len, position) = ((data.len() - done) as u32, *position + done as u64);
                let durable = *sync == WriteSync::Data && self.descriptors.file(file.number()).dsync;
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let registered = self.registered_index(pointer, data.is_of(&self.pool));
                self.descriptors.target(file.number()).entry(|fd| match registered {
                    Some(index) => {
                        opcode::WriteFixed::new(fd, pointer, len, index).offset(position).rw_flags(flags).build()
                    }
                    None => opcode::Write::new(fd, pointer, len).offset(position).rw_flags(flags).build(),
                })
            }
            Op::SyncData { file } => self.descriptors.target(file.number()).entry(flush),
            Op::Allocate { file, position, length } => self
                .descriptors
                .target(file.number())
                .entry(|fd| opcode::Fallocate::new(fd, *length).offset(*position).build()),
            Op::Send { stream, out } => {
                gather(work, out);
                let header = &raw const work.header;
                let target = self.descriptors.target(stream.number());
                match work.pieces[..] {
                    // Most sends are acknowledgements in one piece: a list would have to be copied and looked through.
                    [libc::iovec { iov_base, iov_len }] if iov_len <= u32::MAX as usize => target.entry(|fd| {
                        opcode::Send::new(fd, iov_base.cast(), iov_len as u32).flags(SEND_FLAGS as i32).build()
                    }),
                    _ => target.entry(|fd| opcode::SendMsg::new(fd, header).flags(SEND_FLAGS).build()),
                }
            }
            Op::Splice { file, pipe, position, length, .. } if work.piped == 0 => {
                let (from, into) = (self.descriptors.raw_fd(file.number()), self.descriptors.raw_fd(pipe.number()));
                let (position, left) = (*position + work.done as u64, *length - work.done);
                let len = left.min(PIPE_BYTES) as u32;
                opcode::Splice::new(types::Fd(from), position as i64, types::Fd(into), NO_POSITION, len).build()
            }
            Op::Splice { pipe, stream, length, .. } => {
                let (from, len) = (types::Fd(self.descriptors.pipe_out(pipe.number())), work.piped as u32);
                let more = if work.done + work.piped < *length { libc::SPLICE_F_MORE } else { 0 };
                self.descriptors
                    .target(stream.number())
                    .entry(|fd| opcode::Splice::new(from, NO_POSITION, fd, NO_POSITION, len).flags(more).build())
            }
            _ => unreachable!("{op:?} does not go to the ring"),
        }
    }

    /// What a completion means for its operation.
    pub(super) fn advance(&mut self, id: OpId, op: &mut Op, result: i32) -> Next {
        let slot = id.slot as usize;
        let direct = self.work[slot].direct;
        match (op, check(result)) {
            (_, Err(error)) if error.raw_os_error() == Some(libc::EINTR) && !self.draining => Next::Again,
            // A worker of the kernel that is interrupted while it waits for the peer. Who cancels shuts the stream down, and
            // then the next try ends.
            (Op::Splice { .. }, Err(error)) if error.raw_os_error() == Some(ERESTARTSYS) && !self.draining => {
                Next::Again
            }
            (Op::Splice { length, .. }, Ok(moved)) => self.work[slot].after_splice(moved as usize, *length),
            (Op::Open { .. }, Err(error)) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                self.work[slot].direct = false;
                self.say_once_that_files_are_buffered();
                Next::Again
            }
            (Op::Open { direct: outcome, .. }, Ok(fd)) => {
                *outcome = direct;
                // SAFETY: the kernel has just given us this descriptor; nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                let dsync = self.devices.writes_through(&fd);
                Next::Done(Ok(self.open(fd, What::File(OpenFile { direct, dsync }))))
            }
            (Op::CreateDir { path }, Err(error)) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Next::Done(Ok(0))
            }
            (Op::Connect { .. }, Ok(_)) => Next::Done(Ok(self.work[slot].number)),
            (Op::Connect { .. }, Err(error)) => {
                let number = self.work[slot].number;
                drop(self.descriptors.remove(self.queue.ring(), number));
                Next::Done(Err(error))
            }
            (Op::Read { file, buffer, .. }, Ok(read)) => {
                let direct = self.descriptors.file(file.number()).direct;
                self.work[slot].after_read(read as usize, buffer.len(), direct)
            }
            (Op::Write { .. }, Ok(_)) if self.work[slot].flushing => Next::Done(Ok(0)),
            (Op::Write { file, data, sync, .. }, Ok(written)) => {
                let flush = *sync == WriteSync::Data && !self.descriptors.file(file.number()).dsync;
                let work = &mut self.work[slot];
                let next = work.after_write(written as usize, data.len());
                work.flushing = flush && matches!(next, Next::Done(Ok(_)));
                if work.flushing { Next::Again } else { next }
            }
            (Op::Send { out, .. }, Ok(sent)) => self.work[slot].after_write(sent as usize, out.len()),
            (_, result) => Next::Done(result),
        }
    }

    /// An answer of the helper.
    pub(super) fn answered(&mut self, op: &mut Op, answer: Answer) -> u64 {
        match (op, answer) {
            (Op::ListDir { entries, .. }, Answer::Entries(found)) => *entries = found,
            (Op::FreeSpace { space, .. }, Answer::Space(found)) => *space = found,
            (Op::LockFile { .. }, Answer::Opened(fd)) => return self.open(fd, What::Lock),
            _ => {}
        }
        0
    }

    fn listen(&mut self, address: &mut std::net::SocketAddr) -> io::Result<u64> {
        let (fd, bound) = listen_on(*address)?;
        *address = bound;
        Ok(self.open(fd, What::Listener(Box::default())))
    }

    fn open_pipe(&mut self) -> io::Result<u64> {
        let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // Where pipes together have as much as the user may have, it stays small, and each piece takes more operations.
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        Ok(self.open(into, What::Pipe(out)))
    }

    fn stat(&self, number: u64) -> io::Result<nix::sys::stat::FileStat> {
        Ok(nix::sys::stat::fstat(self.descriptors.borrow(number))?)
    }

    /// The index under which the ring knows this memory, if it does.
    fn registered_index(&self, pointer: *const u8, of_pool: bool) -> Option<u16> {
        let offset = (pointer as usize).wrapping_sub(self.pool.base() as usize);
        (of_pool && self.pool_registered).then_some((offset / REGISTERED_MAX) as u16)
    }

    fn say_once_that_files_are_buffered(&mut self) {
        if !std::mem::replace(&mut self.said_buffered, true) {
            (self.log)("the file system refuses direct I/O: files are buffered, with the same flushes");
        }
    }
}

/// What a pipe is asked to hold.
const PIPE_BYTES: usize = 1 << 20;
/// Of what has none: pipes and sockets.
const NO_POSITION: i64 = -1;
/// Never seen by who makes a system call, but a ring passes it on.
const ERESTARTSYS: i32 = 512;

/// A peer that is gone is an error, not a signal; the kernel sends on by itself while it can.
const SEND_FLAGS: u32 = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;

impl Work {
    /// What a disk is asked goes before what a socket is: the disk works while the sockets are served.
    fn order(&self, op: &Op) -> Order {
        match op {
            Op::Read { .. } | Op::Write { .. } | Op::SyncData { .. } => Order::First,
            Op::Splice { .. } if self.piped == 0 => Order::First,
            _ => Order::InTurn,
        }
    }

    /// Less than asked for is the end of the file. Only buffered reads may stop within a block elsewhere.
    fn after_read(&mut self, read: usize, wanted: usize, direct: bool) -> Next {
        self.done += read;
        let at_end = read == 0 || (direct && !self.done.is_multiple_of(PAGE));
        if at_end || self.done == wanted { Next::Done(Ok(self.done as u64)) } else { Next::Again }
    }

    /// Into the pipe and out of it, until all is sent.
    fn after_splice(&mut self, moved: usize, wanted: usize) -> Next {
        match (moved, self.piped) {
            (0, 0) => return Next::Done(Err(io::ErrorKind::UnexpectedEof.into())),
            (0, _) => return Next::Done(Err(io::ErrorKind::WriteZero.into())),
            (_, 0) => self.piped = moved,
            _ => {
                self.piped -= moved;
                self.done += moved;
            }
        }
        if self.done == wanted { Next::Done(Ok(0)) } else { Next::Again }
    }

    fn after_write(&mut self, written: usize, wanted: usize) -> Next {
        self.done += written;
        match written {
            0 => Next::Done(Err(io::ErrorKind::WriteZero.into())),
            _ if self.done < wanted => Next::Again,
            _ => Next::Done(Ok(0)),
        }
    }
}

/// Lists what is left to send, at most [`PIECES_MAX`] pieces of it, in the work's message header.
fn gather(work: &mut Work, out: &Outgoing) {
    let mut skip = work.done;
    work.pieces.clear();
    for piece in out.pieces() {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let rest = &piece[skip..];
        skip = 0;
        work.pieces.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        if work.pieces.len() == PIECES_MAX {
            break;
        }
    }
    work.header.msg_iov = work.pieces.as_mut_ptr();
    work.header.msg_iovlen = work.pieces.len();
}

/// Makes a file's bytes durable, and what is needed to find them.
fn flush(fd: types::Fd) -> Entry {
    opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()
}

fn open_flags(how: Open, direct: bool) -> i32 {
    let how = match how {
        Open::Read | Open::ReadCached => libc::O_RDONLY,
        Open::ReadWrite => libc::O_RDWR,
        Open::Create => libc::O_RDWR | libc::O_CREAT,
        Open::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
    };
    how | libc::O_CLOEXEC | if direct { libc::O_DIRECT } else { 0 }
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
