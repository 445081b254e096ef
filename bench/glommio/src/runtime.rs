//! What the broker needs, done with glommio.

use corelog_yardstick::bare::Durable;
use corelog_yardstick::broker::{Runtime, Stream};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::net::{TcpListener, TcpStream};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;

/// As large as the other yardsticks' pieces.
const RECEIVE_BYTES: usize = 16 << 10;

pub(crate) struct Glommio {
    listener: TcpListener,
    file: DmaFile,
    gather_bytes: usize,
    durable: Durable,
}

impl Glommio {
    /// Listens on a free loopback port, and opens the file, which is there.
    pub(crate) async fn start(file: &Path, gather_bytes: usize, durable: Durable) -> io::Result<Glommio> {
        let flags = if durable == Durable::Dsync { libc::O_DSYNC } else { 0 };
        let file = OpenOptions::new().write(true).custom_flags(flags).dma_open(file).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Glommio { listener, file, gather_bytes, durable })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }
}

impl Runtime for Glommio {
    type Stream = Connection;
    type Buffer = DmaBuffer;

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }

    fn buffer(&self) -> io::Result<DmaBuffer> {
        Ok(self.file.alloc_dma_buffer(self.gather_bytes))
    }

    fn bytes(buffer: &mut DmaBuffer) -> &mut [u8] {
        buffer.as_bytes_mut()
    }

    async fn accept(&self) -> io::Result<Connection> {
        let stream = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: RefCell::new(stream), received: RefCell::new(vec![0; RECEIVE_BYTES]) })
    }

    async fn write(&self, position: u64, mut buffer: DmaBuffer, bytes: usize) -> io::Result<()> {
        buffer.trim_to_size(bytes);
        if self.file.write_at(buffer, position).await? < bytes {
            return Err(io::ErrorKind::WriteZero.into());
        }
        match self.durable {
            Durable::Dsync => Ok(()),
            Durable::Flush => Ok(self.file.fdatasync().await?),
        }
    }
}

/// Reads and writes need the stream to themselves, but only while they are polled.
pub(crate) struct Connection {
    stream: RefCell<TcpStream>,
    received: RefCell<Vec<u8>>,
}

impl Stream for Connection {
    async fn receive(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let read = poll_fn(|cx| {
            let (mut stream, mut received) = (self.stream.borrow_mut(), self.received.borrow_mut());
            Pin::new(&mut *stream).poll_read(cx, &mut received)
        });
        match read.await {
            Ok(0) | Err(_) => Ok(false),
            Ok(bytes) => take(&self.received.borrow()[..bytes]).map(|()| true),
        }
    }

    async fn send(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            let write = poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &bytes[sent..]));
            match write.await {
                Ok(written) if written > 0 => sent += written,
                _ => break,
            }
        }
        bytes.clear();
        Ok(())
    }
}
