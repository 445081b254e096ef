//! The yardsticks' broker on the engine's reactor, in a thread of this process.

use corelog_engine::reactor::ring::{DurableWrites, Options as RingOptions};
use corelog_engine::reactor::{BLOCK_MAX, Buffer, File, Listener, Open, Outgoing, PAGE, Reactor, WriteSync, run_ring};
use corelog_yardstick::bare::{Durable, Options};
use corelog_yardstick::broker::{self, Runtime, Stream};
use corelog_yardstick::disk::zero_filled;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How soon the thread sees that it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// A running broker. Dropping it stops it.
pub(crate) struct Mini {
    pub(crate) address: SocketAddr,
    /// The kernel's number of its thread.
    pub(crate) thread_id: i32,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Mini {
    /// Starts it and returns when it listens on a free loopback port. Its file lies in the options' directory.
    ///
    /// # Errors
    /// What file, ring or sockets answered; more to gather than the reactor has in one buffer.
    pub(crate) fn start(options: Options) -> io::Result<Mini> {
        let file = options.directory.join("mini-broker");
        if options.gather_bytes > BLOCK_MAX {
            return Err(io::Error::other(format!("one write may not gather more than {BLOCK_MAX} bytes")));
        }
        zero_filled(&file, options.file_bytes)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (started, wait) = channel();
        let stopping = stop.clone();
        let thread = thread::Builder::new().name("mini".into()).spawn(move || run(options, file, stopping, started))?;
        match wait.recv() {
            Ok((address, thread_id)) => Ok(Mini { address, thread_id, stop, thread: Some(thread) }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| io::Error::other("the broker ended at its start"))),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// What had ended it before.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map_or(Ok(()), join)
    }
}

impl Drop for Mini {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = join(thread);
        }
    }
}

fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the broker panicked")))
}

fn run(options: Options, file: PathBuf, stop: Arc<AtomicBool>, started: Sender<(SocketAddr, i32)>) -> io::Result<()> {
    let durable_writes = match options.durable {
        Durable::Dsync => DurableWrites::Dsync,
        Durable::Flush => DurableWrites::Flush,
    };
    let ring = RingOptions { cpu: options.cpu, durable_writes, log: |_| {}, ..RingOptions::default() };
    let ran = run_ring(ring, async move |reactor: Reactor| {
        let file = reactor.open(&file, Open::ReadWrite).await?;
        let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let _ = started.send((listener.local_addr(), nix::unistd::gettid().as_raw()));
        let gather_bytes = options.gather_bytes.next_multiple_of(PAGE);
        let Options { file_bytes, frame_bytes, ack_bytes, .. } = options;
        let runtime = Own { reactor: reactor.clone(), listener, file, gather_bytes };
        let serving = reactor.spawn(broker::serve(runtime, broker::Options { file_bytes, frame_bytes, ack_bytes }));
        while !stop.load(Ordering::Acquire) && !serving.is_finished() {
            reactor.sleep(LOOK).await;
        }
        if serving.is_finished() { serving.await } else { Ok(()) }
    });
    ran.map_err(io::Error::other)?
}

struct Own {
    reactor: Reactor,
    listener: Listener,
    file: File,
    gather_bytes: usize,
}

impl Runtime for Own {
    type Stream = Connection;
    type Buffer = Buffer;

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.reactor.spawn(task).detach();
    }

    fn buffer(&self) -> io::Result<Buffer> {
        self.reactor.pool().buffer(self.gather_bytes).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn bytes(buffer: &mut Buffer) -> &mut [u8] {
        buffer
    }

    async fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept().await?;
        Ok(Connection { reactor: self.reactor.clone(), stream })
    }

    async fn write(&self, position: u64, mut buffer: Buffer, bytes: usize) -> io::Result<()> {
        buffer.truncate(bytes);
        self.file.write_at(position, buffer.freeze(), WriteSync::Data).await
    }
}

struct Connection {
    reactor: Reactor,
    stream: corelog_engine::reactor::Stream,
}

impl Stream for Connection {
    async fn receive(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        match self.stream.receive().await {
            Ok(Some(chunk)) => take(&chunk).map(|()| true),
            Ok(None) | Err(_) => Ok(false),
        }
    }

    async fn send(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = self.reactor.pool().buffer(bytes.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        buffer.copy_from_slice(bytes);
        bytes.clear();
        let mut out = Outgoing::new();
        out.push(buffer.freeze());
        let _ = self.stream.send(out).await;
        Ok(())
    }
}
