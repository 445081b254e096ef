//! The loopback interface's own limits: a round trip between two threads that never sleep, and a plain send of memory.

use crate::pin;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PIECE: usize = 1 << 20;

/// Sends `request` bytes and waits for `reply` bytes, one after the other for `duration`; calls `sample` with the
/// nanoseconds each took. Both ends poll and yield, the answering one on `cpu`.
///
/// # Errors
/// What the sockets answer.
pub fn round_trip(
    request: usize,
    reply: usize,
    cpu: Option<usize>,
    duration: Duration,
    mut sample: impl FnMut(u64),
) -> io::Result<()> {
    let (mut near, far) = pair()?;
    let answering = thread::spawn(move || answer(far, request, reply, cpu));
    let (out, mut back) = (vec![1; request], vec![0; reply]);
    let began = Instant::now();
    while began.elapsed() < duration {
        let start = Instant::now();
        near.write_all(&out)?;
        read_whole(&mut near, &mut back)?;
        sample(start.elapsed().as_nanos() as u64);
    }
    drop(near);
    joined(answering)
}

/// Sends from warm memory in pieces of 1 MiB for `duration`, on `cpu`; another thread receives. Bytes a second.
///
/// # Errors
/// What the sockets answer.
pub fn send_from_memory(cpu: Option<usize>, duration: Duration) -> io::Result<f64> {
    let (mut near, mut far) = pair()?;
    near.set_nonblocking(false)?;
    far.set_nonblocking(false)?;
    let sending = thread::spawn(move || {
        pin(cpu)?;
        let piece = vec![1; PIECE];
        loop {
            match far.write_all(&piece) {
                Ok(()) => {}
                Err(error) if is_end(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    });
    let mut piece = vec![1; PIECE];
    near.read_exact(&mut piece)?; // the first piece warms both sides
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < duration {
        bytes += near.read(&mut piece)?;
    }
    let rate = bytes as f64 / began.elapsed().as_secs_f64();
    drop(near);
    joined(sending)?;
    Ok(rate)
}

fn answer(mut far: TcpStream, request: usize, reply: usize, cpu: Option<usize>) -> io::Result<()> {
    pin(cpu)?;
    let (mut received, back) = (vec![0; request], vec![1; reply]);
    loop {
        match read_whole(&mut far, &mut received) {
            Ok(()) => far.write_all(&back)?,
            Err(error) if is_end(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn read_whole(from: &mut TcpStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match from.read(into) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => into = &mut into[bytes..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => nix::sched::sched_yield()?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A connected pair over loopback that does not wait.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
    }
    Ok((near, far))
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn joined(thread: thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a measuring thread panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_round_trips_and_bandwidth() {
        let mut samples = 0;
        round_trip(1100, 32, None, Duration::from_millis(20), |_| samples += 1).expect("round trips");
        assert!(samples > 0);
        assert!(send_from_memory(None, Duration::from_millis(20)).expect("sends") > 0.0);
    }
}
