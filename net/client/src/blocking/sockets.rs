//! The sockets of one machine, driven by one thread with poll(2).

use crate::cluster::{Action, Address, Cluster, LinkId};
use crate::error::Ended;
use crate::machine::{self, Machine};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket, sockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

/// Read at once from a socket.
const READ_BYTES: usize = 256 << 10;

/// Wakes a thread that waits in [`Sockets::wait`].
#[derive(Debug)]
pub(super) struct Waker(EventFd);

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        Ok(Waker(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    pub(super) fn wake(&self) {
        // It fails only where the count would overflow, and then the thread is woken already.
        let _ = self.0.write(1);
    }

    fn clear(&self) {
        let _ = self.0.read();
    }
}

/// The sockets, in the order of the machine's links.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<Option<Socket>>,
    buffer: Vec<u8>,
    attempts: usize,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    connecting: bool,
    /// The last write did not take all.
    blocked: bool,
}

impl Sockets {
    pub(super) fn new() -> Sockets {
        Sockets { sockets: Vec::new(), buffer: vec![0; READ_BYTES], attempts: 0 }
    }

    /// Sends, then waits for what comes: no longer than until `until`, or until the machine has something to do.
    pub(super) fn turn(&mut self, machine: &mut impl Machine, until: Instant) {
        let now = Instant::now();
        self.send(machine, now);
        let due = machine.deadline(now).map_or(until, |due| due.min(until));
        self.wait(machine, None, Some(due));
    }

    /// Lets the machine do what it can now, and writes what comes of it.
    pub(super) fn send(&mut self, machine: &mut impl Machine, now: Instant) {
        machine::advance(machine, now);
        while let Some(action) = machine.cluster().action() {
            match action {
                Action::Connect(link, address) => self.connect(machine, link, &address, now),
                Action::Close(link) => drop(self.place(link).take()),
            }
        }
        for index in 0..self.sockets.len() {
            if let Err(error) = self.write(machine.cluster(), LinkId(index)) {
                self.fail(machine, LinkId(index), &error, now);
            }
        }
    }

    /// Waits until something comes, the waker is used or `until` has passed, and hands over what came.
    pub(super) fn wait(&mut self, machine: &mut impl Machine, waker: Option<&Waker>, until: Option<Instant>) {
        let (ready, woken) = self.poll(waker, until);
        if let Some(waker) = waker.filter(|_| woken) {
            waker.clear();
        }
        let now = Instant::now();
        for link in ready {
            if let Err(error) = self.ready(machine, link, now) {
                self.fail(machine, link, &error, now);
            }
        }
    }

    fn place(&mut self, link: LinkId) -> &mut Option<Socket> {
        if self.sockets.len() <= link.0 {
            self.sockets.resize_with(link.0 + 1, || None);
        }
        &mut self.sockets[link.0]
    }

    fn connect(&mut self, machine: &mut impl Machine, link: LinkId, address: &Address, now: Instant) {
        self.attempts += 1;
        match begin_connect(address, self.attempts) {
            Ok(stream) => *self.place(link) = Some(Socket { stream, connecting: true, blocked: false }),
            Err(error) => machine::lose(machine, link, &Ended::Io(error.to_string()), now),
        }
    }

    fn fail(&mut self, machine: &mut impl Machine, link: LinkId, error: &io::Error, now: Instant) {
        *self.place(link) = None;
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => Ended::Closed,
            _ => Ended::Io(error.to_string()),
        };
        machine::lose(machine, link, &why, now);
    }

    fn write(&mut self, cluster: &mut Cluster, link: LinkId) -> io::Result<()> {
        let Some(socket) = self.sockets[link.0].as_mut().filter(|socket| !socket.connecting) else { return Ok(()) };
        let Some(connection) = cluster.connection(link) else { return Ok(()) };
        socket.blocked = false;
        while !connection.transmit().is_empty() {
            match socket.stream.write(connection.transmit()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => connection.transmitted(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Links that something happened to, and whether the waker was used.
    fn poll(&self, waker: Option<&Waker>, until: Option<Instant>) -> (Vec<LinkId>, bool) {
        let open = self.sockets.iter().enumerate().filter_map(|(index, socket)| Some((index, socket.as_ref()?)));
        let (links, mut polled): (Vec<_>, Vec<_>) =
            open.map(|(index, socket)| (LinkId(index), PollFd::new(socket.stream.as_fd(), socket.interest()))).unzip();
        polled.extend(waker.map(|waker| PollFd::new(waker.0.as_fd(), PollFlags::POLLIN)));
        let left = until.map(|until| TimeSpec::from(until.saturating_duration_since(Instant::now())));
        // An interrupted wait is a short one, and nothing else can go wrong with descriptors that are open.
        let _ = ppoll(&mut polled, left, None);
        let happened = |polled: &PollFd<'_>| polled.revents().is_some_and(|events| !events.is_empty());
        let woken = waker.is_some() && polled.last().is_some_and(happened);
        (links.into_iter().zip(&polled).filter(|(_, polled)| happened(polled)).map(|(link, _)| link).collect(), woken)
    }

    fn ready(&mut self, machine: &mut impl Machine, link: LinkId, now: Instant) -> io::Result<()> {
        let Some(socket) = self.sockets[link.0].as_mut() else { return Ok(()) };
        if socket.connecting {
            if let Some(error) = socket.stream.take_error()? {
                return Err(error);
            }
            socket.connecting = false;
            machine.cluster().connected(link, now);
            return Ok(());
        }
        match socket.stream.read(&mut self.buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                machine::receive(machine, link, &self.buffer[..read], now);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Socket {
    fn interest(&self) -> PollFlags {
        match (self.connecting, self.blocked) {
            (true, _) => PollFlags::POLLOUT,
            (false, true) => PollFlags::POLLIN | PollFlags::POLLOUT,
            (false, false) => PollFlags::POLLIN,
        }
    }
}

/// A socket whose connection is under way. A name with several addresses gives them in turn.
fn begin_connect(address: &Address, attempt: usize) -> io::Result<TcpStream> {
    let found = (address.host.as_str(), address.port).to_socket_addrs()?.collect::<Vec<_>>();
    let none = || io::Error::new(ErrorKind::NotFound, format!("{} has no address", address.host));
    let at = found.get(attempt % found.len().max(1)).copied().ok_or_else(none)?;
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    nix::sys::socket::setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(at)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(errno) => Err(errno.into()),
    }
}
