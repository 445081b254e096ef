//! A file sent over TCP in each of the ways there are, from one thread to another: how long it takes, and the sender's CPU.
//!
//! The question was asked of Kafka's design with `transferTo` against read and write; the ways here are those that a server
//! on this kernel can choose from.

use crate::memory::Memory;
use nix::fcntl::{PosixFadviseAdvice, SpliceFFlags, posix_fadvise, splice};
use nix::sched::{CloneFlags, setns};
use nix::sys::sendfile::sendfile;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pipe;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one read, write, sendfile or splice.
const PIECE: usize = 1 << 20;

/// How the bytes of a file get to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the page cache into memory of ours, and from there.
    ReadSend,
    /// Past the page cache into memory of ours, and from there.
    DirectReadSend,
    /// From the page cache, without memory of ours: what `transferTo` does.
    Sendfile,
    /// The same by way of a pipe.
    Splice,
    /// Not from the file: from memory that is warm, as what was just written still is.
    Memory,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 5] = [Way::ReadSend, Way::DirectReadSend, Way::Sendfile, Way::Splice, Way::Memory];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Way::ReadSend => "read + send",
            Way::DirectReadSend => "O_DIRECT read + send",
            Way::Sendfile => "sendfile",
            Way::Splice => "splice",
            Way::Memory => "from memory",
        }
    }

    /// Whether it matters what the page cache holds.
    pub fn is_cached(self) -> bool {
        matches!(self, Way::ReadSend | Way::Sendfile | Way::Splice)
    }
}

/// What one transfer took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From the first byte sent until the receiver says that it has the last.
    pub time: Duration,
    /// CPU time of the sending thread.
    pub cpu: Duration,
}

/// Where the two ends are.
#[derive(Debug, Clone)]
pub struct Net {
    /// Address that the receiver listens on.
    pub receiver: IpAddr,
    /// Network namespaces of sender and receiver, as files; `None`: this process's own.
    pub namespaces: Option<(PathBuf, PathBuf)>,
}

impl Net {
    /// Both in this process's own namespace.
    pub fn loopback() -> Net {
        Net { receiver: IpAddr::V4(Ipv4Addr::LOCALHOST), namespaces: None }
    }
}

/// Sends the first `bytes` of `path` once in a `way`, and answers what it took. `is_hot`: the page cache holds the file;
/// else it is told to forget it.
///
/// # Errors
/// What sockets, file or namespaces answer.
pub fn transfer(net: &Net, path: &Path, bytes: u64, way: Way, is_hot: bool) -> io::Result<Took> {
    let (sender, receiver) = match &net.namespaces {
        Some((sender, receiver)) => (Some(sender.as_path()), Some(receiver.as_path())),
        None => (None, None),
    };
    thread::scope(|scope| {
        let listener = within(scope, receiver, || TcpListener::bind(SocketAddr::new(net.receiver, 0)))?;
        let address = listener.local_addr()?;
        let receiving = scope.spawn(move || receive(&listener, bytes));
        let took = within(scope, sender, move || {
            let mut socket = TcpStream::connect(address)?;
            let mut source = Source::open(path, bytes, way, is_hot)?;
            timed(|| source.send(&socket, bytes)).and_then(|(cpu, began)| {
                socket.read_exact(&mut [0])?;
                Ok(Took { time: began.elapsed(), cpu })
            })
        })?;
        receiving.join().unwrap_or_else(|_| Err(io::Error::other("the receiving thread panicked")))?;
        Ok(took)
    })
}

/// Runs something on a thread of its own in a network namespace: a thread cannot come back from one.
fn within<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    namespace: Option<&'scope Path>,
    work: impl FnOnce() -> io::Result<T> + Send + 'scope,
) -> io::Result<T> {
    let thread = scope.spawn(move || {
        if let Some(path) = namespace {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        }
        work()
    });
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a measuring thread panicked")))
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<(Duration, Instant)> {
    let cpu = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let (before, began) = (cpu()?, Instant::now());
    work()?;
    Ok((cpu()? - before, began))
}

fn receive(listener: &TcpListener, bytes: u64) -> io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    let (mut piece, mut left) = (vec![1; PIECE], bytes);
    while left > 0 {
        match socket.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    socket.write_all(&[1])
}

/// What is sent, opened and warmed beforehand.
enum Source {
    Read(File, Memory),
    Sendfile(File),
    Splice(File, OwnedFd, OwnedFd),
    Memory(Memory),
}

impl Source {
    fn open(path: &Path, bytes: u64, way: Way, is_hot: bool) -> io::Result<Source> {
        let direct = if way == Way::DirectReadSend { libc::O_DIRECT } else { 0 };
        let mut file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
        if way.is_cached() {
            prepare_cache(&mut file, bytes, is_hot)?;
        }
        Ok(match way {
            Way::ReadSend | Way::DirectReadSend => Source::Read(file, Memory::new(PIECE)?),
            Way::Sendfile => Source::Sendfile(file),
            Way::Splice => {
                let (out, into) = pipe()?;
                // As much as one splice moves; a smaller pipe works, in more steps.
                let _ = nix::fcntl::fcntl(&into, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIECE as i32));
                Source::Splice(file, out, into)
            }
            Way::Memory => Source::Memory(Memory::new(PIECE)?),
        })
    }

    fn send(&mut self, socket: &TcpStream, bytes: u64) -> io::Result<()> {
        let (mut at, mut socket) = (0, socket);
        while at < bytes {
            let piece = PIECE.min((bytes - at) as usize);
            let sent = match self {
                Source::Read(file, memory) => {
                    // Direct reads are whole blocks: the last one is read to its end.
                    let read = file.read_at(&mut memory[..piece.next_multiple_of(4096)], at)?.min(piece);
                    socket.write_all(&memory[..read])?;
                    read
                }
                Source::Sendfile(file) => {
                    let mut offset = at as libc::off_t;
                    sendfile(socket.as_fd(), file.as_fd(), Some(&mut offset), piece)?
                }
                Source::Splice(file, out, into) => {
                    let mut offset = at as libc::loff_t;
                    let filled = splice(&*file, Some(&mut offset), &*into, None, piece, SpliceFFlags::SPLICE_F_MOVE)?;
                    drain(out, socket, filled)?;
                    filled
                }
                Source::Memory(memory) => {
                    socket.write_all(&memory[..piece])?;
                    piece
                }
            };
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += sent as u64;
        }
        Ok(())
    }
}

fn drain(pipe: &OwnedFd, socket: &TcpStream, bytes: usize) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
        match splice(pipe, None, socket, None, left, flags)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            moved => left -= moved,
        }
    }
    Ok(())
}

/// Has the page cache hold the file, or forget it.
fn prepare_cache(file: &mut File, bytes: u64, is_hot: bool) -> io::Result<()> {
    if !is_hot {
        return Ok(posix_fadvise(&*file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?);
    }
    io::copy(&mut Read::by_ref(file).take(bytes), &mut io::sink())?;
    file.rewind()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_sends_all_of_it() {
        // Beside the test's own program: on a file system that takes direct I/O.
        let path = std::env::current_exe().expect("this program").with_extension(format!("{}", std::process::id()));
        let bytes = 3 * PIECE as u64 + 5000;
        let path = path.as_path();
        std::fs::write(path, vec![7; bytes as usize]).expect("a file");
        let net = Net::loopback();
        for way in Way::ALL {
            for is_hot in [true, false] {
                let took = transfer(&net, path, bytes, way, is_hot).expect("sent");
                assert!(took.time > Duration::ZERO, "{way:?}");
            }
        }
        std::fs::remove_file(path).expect("removed");
    }
}
