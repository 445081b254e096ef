//! Compression as a stream: what is written comes out in the codec's form.

use crate::{BatchError, Codec};
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;
use std::io::{self, Write};

/// Snappy-java's framing: `82 "SNAPPY" 00`, then two big endian words for version and oldest compatible version.
const SNAPPY_HEAD: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What snappy-java writes in one block; its reader takes any.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;

/// A window of 1 MiB, as large as most batches: at its level zstd would take 2.
const ZSTD_WINDOW_LOG: u32 = 20;

/// Writes what it is given to `W`, compressed.
pub(crate) enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Snappy(Snappy<W>),
    Lz4(Box<FrameEncoder<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

/// Blocks in the framing of snappy-java, each behind its length as a big endian word.
pub(crate) struct Snappy<W> {
    to: W,
    /// What is not compressed yet, less than a block.
    plain: Vec<u8>,
    packed: Vec<u8>,
    is_begun: bool,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(codec: Codec, to: W) -> Result<Encoder<W>, BatchError> {
        Ok(match codec {
            Codec::None => Encoder::None(to),
            Codec::Gzip => Encoder::Gzip(GzEncoder::new(to, flate2::Compression::default())),
            Codec::Snappy => Encoder::Snappy(Snappy { to, plain: Vec::new(), packed: Vec::new(), is_begun: false }),
            Codec::Lz4 => Encoder::Lz4(Box::new(FrameEncoder::new(to))),
            Codec::Zstd => {
                let broken = |_| BatchError::Compression { codec: codec.name() };
                let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(broken)?;
                encoder.window_log(ZSTD_WINDOW_LOG).map_err(broken)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Writes what is held back and the end of the codec's form.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Encoder::None(_) => Ok(()),
            Encoder::Gzip(encoder) => encoder.finish().map(drop),
            Encoder::Snappy(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map(drop).map_err(io::Error::other),
            Encoder::Zstd(encoder) => encoder.finish().map(drop),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(to) => to.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Snappy(encoder) => encoder.write(bytes),
            Encoder::Lz4(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Snappy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SNAPPY_BLOCK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == SNAPPY_BLOCK_BYTES {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn put_block(&mut self) -> io::Result<()> {
        self.put_head()?;
        self.packed.resize(snap::raw::max_compress_len(self.plain.len()), 0);
        let length = snap::raw::Encoder::new().compress(&self.plain, &mut self.packed)?;
        self.plain.clear();
        self.to.write_all(&(length as u32).to_be_bytes())?;
        self.to.write_all(&self.packed[..length])
    }

    fn put_head(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) { Ok(()) } else { self.to.write_all(&SNAPPY_HEAD) }
    }

    fn finish(mut self) -> io::Result<()> {
        if self.plain.is_empty() { self.put_head() } else { self.put_block() }
    }
}
