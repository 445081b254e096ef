//! Streams and listeners: receives and accepts that go on by themselves until enough lies unclaimed.
//!
//! Of each stream and listener at most one entry is in the kernel (`armed`). It is over with a completion that says
//! that no more follow; until then the descriptor stays open and its number is not given to anything else.
//!
//! While receive buffers are scarce a stream gets one at a time, and only while a task waits for it: streams that nobody
//! reads cannot take those of the others.
#![allow(unsafe_code)]

use super::descriptors::What;
use super::provided::{GROUP, Provided};
use super::queue::{Completion, Kind, Order, Token};
use super::{RingDriver, ended};
use crate::reactor::socket::Chunk;
use io_uring::opcode;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, bind, getpeername, getsockname, listen,
    setsockopt, socket, sockopt,
};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};

/// Unclaimed chunks of a stream at which its receive is paused.
const CHUNKS_MAX: usize = 4;
/// Unclaimed chunks at which it goes on.
const CHUNKS_RESUME: usize = 1;
/// Unclaimed connections of a listener at which its accept is paused; the kernel's backlog holds the rest.
const CONNECTIONS_MAX: usize = 64;
const BACKLOG: i32 = 1024;

/// The driver's side of a stream.
#[derive(Default)]
pub(super) struct StreamState {
    /// What arrived and nobody asked for yet.
    chunks: VecDeque<Provided>,
    waker: Option<Waker>,
    /// What is in the kernel.
    armed: Option<Kind>,
    cancelling: bool,
    /// The buffer that a single receive fills (kernels without provided buffers).
    filling: Option<Provided>,
    /// Waits for a receive buffer.
    starved: bool,
    end: Option<End>,
    shut: bool,
    closing: bool,
}

/// The driver's side of a listener.
#[derive(Default)]
pub(super) struct ListenerState {
    connections: VecDeque<OwnedFd>,
    waker: Option<Waker>,
    armed: bool,
    cancelling: bool,
    error: Option<i32>,
    closing: bool,
}

#[derive(Clone, Copy)]
enum End {
    Orderly,
    Error(i32),
}

impl RingDriver {
    pub(super) fn next_chunk(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let stream = self.descriptors.stream(number);
        if let Some(chunk) = stream.chunks.pop_front() {
            self.arm_receive(number);
            return Poll::Ready(Ok(Some(Chunk::provided(chunk))));
        }
        match stream.end {
            Some(End::Error(code)) => return Poll::Ready(Err(io::Error::from_raw_os_error(code))),
            Some(End::Orderly) => return Poll::Ready(Ok(None)),
            None if self.draining => return Poll::Ready(Err(ended())),
            None => keep(&mut stream.waker, cx),
        }
        self.arm_receive(number);
        Poll::Pending
    }

    pub(super) fn shut_stream(&mut self, number: u64) {
        // Fails if the peer has gone already, which comes to the same.
        let _ = nix::sys::socket::shutdown(self.descriptors.raw_fd(number), nix::sys::socket::Shutdown::Both);
        let stream = self.descriptors.stream(number);
        stream.shut = true;
        // Not left to the receive in the kernel: Linux (seen on 6.18) may never end one whose peer has reset the connection
        // while bytes came.
        stream.end = Some(End::Orderly);
        wake(&mut stream.waker);
        self.cancel_receive(number);
    }

    pub(super) fn close_stream(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        stream.closing = true;
        stream.chunks.clear();
        stream.waker = None;
        if stream.starved {
            self.starved.retain(|starved| *starved != number);
        }
        if self.descriptors.stream(number).armed.is_some() {
            self.cancel_receive(number);
        } else {
            self.forget(number);
        }
    }

    /// Puts a receive into the kernel, unless there is one or there must not be.
    fn arm_receive(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        let scarce = self.buffers.are_scarce();
        let room = if scarce { stream.waker.is_some() } else { stream.chunks.len() <= CHUNKS_RESUME };
        let wanted = room && stream.end.is_none() && !stream.closing;
        if !wanted || stream.armed.is_some() || stream.starved || self.draining {
            return;
        }
        let kind = if self.features.multishot_receive { Kind::Receive } else { Kind::Readable };
        stream.armed = Some(kind);
        self.armed += 1;
        let len = self.buffers.buffer_bytes() as u32;
        let entry = self.descriptors.target(number).entry(|fd| match kind {
            Kind::Receive if scarce => {
                let one = opcode::Recv::new(fd, std::ptr::null_mut(), len).buf_group(GROUP).build();
                one.flags(io_uring::squeue::Flags::BUFFER_SELECT)
            }
            Kind::Receive => opcode::RecvMulti::new(fd, GROUP).build(),
            _ => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
        });
        // SAFETY: these entries point to nothing; the buffers that are filled belong to a registered ring of buffers,
        // which outlives the driver's own ring.
        unsafe { self.queue.push(Order::InTurn, entry, Token::new(kind, number as u32)) };
    }

    pub(super) fn cancel_receive(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        if let Some(kind) = stream.armed.filter(|_| !stream.cancelling) {
            stream.cancelling = true;
            self.cancel(Token::new(kind, number as u32));
        }
    }

    /// A completion of a receive.
    pub(super) fn received(&mut self, completion: Completion) {
        let number = u64::from(completion.token.index);
        let stream = self.descriptors.stream(number);
        let filled = match (stream.filling.take(), completion.buffer()) {
            (Some(buffer), _) => Some(buffer),
            (None, Some(id)) => Some(self.buffers.filled(id, 0)),
            (None, None) => None,
        };
        match (completion.result, filled) {
            // The end was told already.
            _ if stream.shut => {}
            (bytes @ 1.., Some(mut buffer)) => {
                buffer.set_len(bytes as usize);
                stream.chunks.push_back(buffer);
            }
            (bytes @ 1.., None) => unreachable!("{bytes} bytes received into no buffer"),
            (result, _) => self.receive_ended(number, result),
        }
        if !completion.more() {
            self.disarm_receive(number);
        }
        self.settle_receive(number);
    }

    /// Kernels without provided buffers: there is something to read, so take a buffer and read it.
    pub(super) fn readable(&mut self, completion: Completion) {
        let number = u64::from(completion.token.index);
        self.disarm_receive(number);
        let stream = self.descriptors.stream(number);
        if completion.result > 0 && !stream.shut && !stream.closing && !self.draining {
            self.receive_once(number);
        } else {
            self.settle_receive(number);
        }
    }

    fn receive_once(&mut self, number: u64) {
        let Some(buffer) = self.buffers.take() else { return self.starve(number) };
        let (pointer, len) = (buffer.pointer(), self.buffers.buffer_bytes() as u32);
        let stream = self.descriptors.stream(number);
        stream.filling = Some(buffer);
        stream.armed = Some(Kind::Receive);
        self.armed += 1;
        let entry = self.descriptors.target(number).entry(|fd| opcode::Recv::new(fd, pointer, len).build());
        // SAFETY: the buffer is kept in `filling` until the completion, and by the driver's end all are complete.
        unsafe { self.queue.push(Order::InTurn, entry, Token::new(Kind::Receive, number as u32)) };
    }

    fn receive_ended(&mut self, number: u64, result: i32) {
        match -result {
            0 => self.descriptors.stream(number).end = Some(End::Orderly),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            libc::ENOBUFS => self.starve(number),
            code => self.descriptors.stream(number).end = Some(End::Error(code)),
        }
    }

    fn disarm_receive(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        stream.armed = None;
        stream.cancelling = false;
        self.armed -= 1;
    }

    /// After each completion: closes what is to be closed, wakes who has something to see, arms for who waits.
    fn settle_receive(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        if stream.closing {
            stream.chunks.clear();
            if stream.armed.is_none() {
                self.forget(number);
            }
            return;
        }
        if stream.armed.is_some() && (stream.chunks.len() >= CHUNKS_MAX || self.buffers.are_scarce()) {
            self.crowded.push(number);
        }
        if !stream.chunks.is_empty() || stream.end.is_some() {
            wake(&mut stream.waker);
        } else if stream.waker.is_some() {
            self.arm_receive(number);
        }
    }

    /// No receive buffer is left: the stream goes on when some are back.
    fn starve(&mut self, number: u64) {
        let stream = self.descriptors.stream(number);
        if !stream.starved && !stream.closing {
            stream.starved = true;
            self.starved.push_back(number);
        }
    }

    /// Before entries go to the kernel, after tasks ran: pauses what they did not keep up with, and lets as many
    /// starved streams go on as there are buffers.
    pub(super) fn tend_sockets(&mut self) {
        while let Some(number) = self.crowded.pop() {
            self.pause(number);
        }
        for _ in 0..self.starved.len().min(usize::from(self.buffers.available())) {
            let Some(number) = self.starved.pop_front() else { break };
            self.descriptors.stream(number).starved = false;
            self.arm_receive(number);
        }
    }

    /// The number may stand for something else by now, which at worst is looked at for nothing.
    fn pause(&mut self, number: u64) {
        match self.descriptors.what(number) {
            Some(What::Stream(stream)) if stream.chunks.len() >= CHUNKS_MAX || self.buffers.are_scarce() => {
                self.cancel_receive(number);
            }
            Some(What::Listener(listener)) if listener.connections.len() >= CONNECTIONS_MAX => {
                self.cancel_accept(number);
            }
            _ => {}
        }
    }

    pub(super) fn next_connection(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        loop {
            let listener = self.descriptors.listener(number);
            let Some(fd) = listener.connections.pop_front() else { break };
            // Fails if the peer has gone already: then there is nobody to serve.
            let Some(peer) = peer_of(&fd) else { continue };
            let stream = self.open(fd, What::Stream(Box::default()));
            return Poll::Ready(Ok((stream, peer)));
        }
        let listener = self.descriptors.listener(number);
        if let Some(code) = listener.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        if self.draining {
            return Poll::Ready(Err(ended()));
        }
        keep(&mut listener.waker, cx);
        self.arm_accept(number);
        Poll::Pending
    }

    pub(super) fn close_listener(&mut self, number: u64) {
        let listener = self.descriptors.listener(number);
        listener.closing = true;
        listener.connections.clear();
        listener.waker = None;
        if listener.armed {
            self.cancel_accept(number);
        } else {
            self.forget(number);
        }
    }

    fn arm_accept(&mut self, number: u64) {
        let listener = self.descriptors.listener(number);
        if listener.armed || listener.closing || self.draining {
            return;
        }
        listener.armed = true;
        self.armed += 1;
        let multishot = self.features.multishot_accept;
        let entry = self.descriptors.target(number).entry(|fd| {
            if multishot {
                return opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
            }
            let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
            accept.flags(libc::SOCK_CLOEXEC).build()
        });
        // SAFETY: these entries point to nothing.
        unsafe { self.queue.push(Order::InTurn, entry, Token::new(Kind::Accept, number as u32)) };
    }

    fn cancel_accept(&mut self, number: u64) {
        let listener = self.descriptors.listener(number);
        if listener.armed && !listener.cancelling {
            listener.cancelling = true;
            self.cancel(Token::new(Kind::Accept, number as u32));
        }
    }

    /// A completion of an accept.
    pub(super) fn accepted(&mut self, completion: Completion) {
        let number = u64::from(completion.token.index);
        let listener = self.descriptors.listener(number);
        match completion.result {
            // SAFETY: the kernel has just given us this descriptor; nobody else knows it.
            fd @ 0.. => listener.connections.push_back(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            error if matches!(-error, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            error => listener.error = Some(-error),
        }
        if !completion.more() {
            listener.armed = false;
            listener.cancelling = false;
            self.armed -= 1;
        }
        self.settle_accept(number);
    }

    fn settle_accept(&mut self, number: u64) {
        let listener = self.descriptors.listener(number);
        if listener.closing {
            listener.connections.clear();
            if !listener.armed {
                self.forget(number);
            }
            return;
        }
        if listener.connections.len() >= CONNECTIONS_MAX && listener.armed {
            self.crowded.push(number);
        }
        if !listener.connections.is_empty() || listener.error.is_some() {
            wake(&mut listener.waker);
        } else if listener.waker.is_some() {
            self.arm_accept(number);
        }
    }

    /// At the end of the reactor: takes back what is in the kernel for this stream or listener.
    pub(super) fn disarm(&mut self, number: u64) {
        match self.descriptors.what(number) {
            Some(What::Stream(_)) => self.cancel_receive(number),
            Some(What::Listener(_)) => self.cancel_accept(number),
            _ => {}
        }
    }

    /// Closes a socket of which nothing is in the kernel.
    fn forget(&mut self, number: u64) {
        drop(self.descriptors.remove(self.queue.ring(), number));
    }
}

/// Binds and listens; gives the address with the port that was chosen.
pub(super) fn listen_on(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let fd = tcp_socket(address)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    let bound: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let bound = to_std(&bound).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((fd, bound))
}

/// A socket that sends at once what it is given. Accepted ones inherit that from their listener.
pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(fd)
}

fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    to_std(&getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?)
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into())),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())),
        _ => None,
    }
}

fn keep(waker: &mut Option<Waker>, cx: &mut Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
