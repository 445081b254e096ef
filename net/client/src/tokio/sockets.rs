//! The sockets of one machine, driven inside one task.

use crate::cluster::{Action, Address, Cluster, LinkId};
use crate::error::Ended;
use crate::machine::{self, Machine};
use ::tokio::net::TcpStream;
use ::tokio::time::{Sleep, sleep_until};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// Read at once from a socket.
const READ_BYTES: usize = 256 << 10;
/// Reads from one socket before others, and other tasks, have their turn.
const READS_MAX: usize = 8;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The sockets, in the order of the machine's links.
pub(super) struct Sockets {
    sockets: Vec<Option<Socket>>,
    buffer: Vec<u8>,
    timer: Pin<Box<Sleep>>,
}

enum Socket {
    Connecting(Connecting),
    Open(TcpStream),
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("links", &self.sockets.len()).finish_non_exhaustive()
    }
}

impl Sockets {
    pub(super) fn new() -> Sockets {
        let timer = Box::pin(sleep_until(Instant::now().into()));
        Sockets { sockets: Vec::new(), buffer: vec![0; READ_BYTES], timer }
    }

    /// Does what can be done and waits until something came, `until` has passed, or the machine has something due. May be
    /// dropped and called again.
    pub(super) async fn turn(&mut self, machine: &mut impl Machine, until: Option<Instant>) {
        poll_fn(|cx| self.poll_turn(machine, until, cx)).await;
    }

    fn poll_turn(&mut self, machine: &mut impl Machine, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        machine::advance(machine, now);
        while let Some(action) = machine.cluster().action() {
            match action {
                Action::Connect(link, address) => *self.place(link) = Some(Socket::Connecting(connect(address))),
                Action::Close(link) => drop(self.place(link).take()),
            }
        }
        let mut something = false;
        for index in 0..self.sockets.len() {
            let link = LinkId(index);
            match self.poll_link(machine, link, now, cx) {
                Ok(came) => something |= came,
                Err(error) => {
                    self.fail(machine, link, &error, now);
                    something = true;
                }
            }
        }
        if something {
            return Poll::Ready(());
        }
        self.poll_timer(machine, until, now, cx)
    }

    fn poll_timer(
        &mut self,
        machine: &mut impl Machine,
        until: Option<Instant>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(due) = machine.deadline(now).into_iter().chain(until).min() else { return Poll::Pending };
        if self.timer.deadline().into_std() != due {
            self.timer.as_mut().reset(due.into());
        }
        self.timer.as_mut().poll(cx)
    }

    fn place(&mut self, link: LinkId) -> &mut Option<Socket> {
        if self.sockets.len() <= link.0 {
            self.sockets.resize_with(link.0 + 1, || None);
        }
        &mut self.sockets[link.0]
    }

    fn fail(&mut self, machine: &mut impl Machine, link: LinkId, error: &io::Error, now: Instant) {
        *self.place(link) = None;
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => Ended::Closed,
            _ => Ended::Io(error.to_string()),
        };
        machine::lose(machine, link, &why, now);
    }

    /// Whether something came.
    fn poll_link(
        &mut self,
        machine: &mut impl Machine,
        link: LinkId,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> io::Result<bool> {
        match &mut self.sockets[link.0] {
            None => Ok(false),
            Some(Socket::Connecting(connecting)) => match connecting.as_mut().poll(cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(stream) => {
                    self.sockets[link.0] = Some(Socket::Open(stream?));
                    machine.cluster().connected(link, now);
                    Ok(true)
                }
            },
            Some(Socket::Open(stream)) => {
                let _ = poll_write(stream, machine.cluster(), link, cx)?;
                poll_read(stream, &mut self.buffer, machine, link, now, cx)
            }
        }
    }
}

fn connect(address: Address) -> Connecting {
    Box::pin(async move {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

fn poll_write(stream: &TcpStream, cluster: &mut Cluster, link: LinkId, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
    let Some(connection) = cluster.connection(link) else { return Ok(Poll::Ready(())) };
    while !connection.transmit().is_empty() {
        match stream.poll_write_ready(cx)? {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(()) => match stream.try_write(connection.transmit()) {
                Ok(written) => connection.transmitted(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(Poll::Ready(()))
}

fn poll_read(
    stream: &TcpStream,
    buffer: &mut [u8],
    machine: &mut impl Machine,
    link: LinkId,
    now: Instant,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    let mut came = false;
    for _ in 0..READS_MAX {
        if stream.poll_read_ready(cx)?.is_pending() {
            break;
        }
        match stream.try_read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                machine::receive(machine, link, &buffer[..read], now);
                came = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(came)
}
